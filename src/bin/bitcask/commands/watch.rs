//! `watch`.

use std::ffi::OsString;
use std::time::Duration;

use bitcask::client::{Client, RemoteChanges};
use bitcask::{Change, Changes, Operation, Position, ReadOnly, Reader};
use clap::Args;

use crate::exit::Exit;
use crate::failure::{Failure, say};
use crate::interrupt::{self, StoppableWork};
use crate::output::{Format, Printer};
use crate::program::Program;
use crate::record::{LineOut, Verb};
use crate::{input, open, units};

/// Prints each put and each delete, in the order in which they were made, until Ctrl-C. Then it
/// prints the position at which to resume.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Prints only the changes of keys that begin with this.
    #[arg(default_value = "", hide_default_value = true)]
    prefix: OsString,
    /// Begins after this position: one that an earlier `watch` has printed, or `start` for all
    /// changes, as long as no merge has removed any.
    #[arg(long, value_name = "POSITION", value_parser = position)]
    since: Option<Position>,
    /// Ends after this number of changes.
    #[arg(long, short = 'n', value_name = "NUMBER")]
    limit: Option<u64>,
    /// Ends when there are no more changes, instead of waiting for some.
    #[arg(long)]
    no_wait: bool,
    /// How often to look for changes.
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = units::duration)]
    interval: Duration,
}

fn position(text: &str) -> Result<Position, String> {
    if text == "start" {
        return Ok(Position::START);
    }
    text.parse().map_err(|error: bitcask::Error| error.to_string())
}

pub(crate) fn run(args: &WatchArgs, program: &mut Program) -> Result<Exit, Failure> {
    let prefix = input::key(&args.prefix, program.base64())?;
    if let Some(client) = program.remote()? {
        return watch_server(&client, &prefix, args, program);
    }
    let db = open::read_only(program)?;
    let changes = db.changes(args.since.unwrap_or_else(|| db.position()))?;
    let mut changes = changes.prefix(prefix);
    let printer = program.printer(Format::Plain)?;
    let ended = {
        let _stoppable = StoppableWork::begin();
        follow(&db, &mut changes, args, printer)
    };
    // Whatever was printed counts, even if the pipe is closed by now.
    if !matches!(ended, Err(Failure::ClosedPipe)) {
        say(format_args!("resume with --since {}", changes.resume_position()));
    }
    ended.map(|()| Exit::Done)
}

/// Prints the changes of a server's store. Ctrl-C ends this at once.
fn watch_server(
    client: &Client,
    prefix: &[u8],
    args: &WatchArgs,
    program: &mut Program,
) -> Result<Exit, Failure> {
    let mut changes = match args.since {
        Some(since) => client.changes(since).prefix(prefix),
        None => client.watch_prefix(prefix)?,
    };
    let end = if args.no_wait { Some(client.stats()?.position) } else { None };
    let printer = program.printer(Format::Plain)?;
    let ended = follow_server(&mut changes, end, args, printer);
    if !matches!(ended, Err(Failure::ClosedPipe)) {
        say(format_args!("resume with --since {}", changes.resume_position()));
    }
    ended.map(|()| Exit::Done)
}

fn follow_server(
    changes: &mut RemoteChanges,
    end: Option<Position>,
    args: &WatchArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 && end.is_none_or(|end| changes.resume_position() < end) {
        if let Some(change) = changes.recv()? {
            print(printer, &change)?;
            // Nobody should wait for a change that was made.
            printer.flush()?;
            left -= 1;
        }
    }
    Ok(())
}

fn follow(
    db: &ReadOnly,
    changes: &mut Changes,
    args: &WatchArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        interrupt::check()?;
        if let Some(change) = changes.try_recv()? {
            // A store that gets the changes does not follow.
            if change.key != Reader::FOLLOW_KEY {
                print(printer, &change)?;
                left -= 1;
            }
        } else if !db.refresh()? {
            // Nobody should wait for a change that was made.
            printer.flush()?;
            if args.no_wait {
                return Ok(());
            }
            interrupt::sleep(args.interval);
        }
    }
    printer.flush()
}

fn print(printer: &mut Printer, change: &Change) -> Result<(), Failure> {
    let base64 = printer.base64();
    let (verb, value, expires_at) = match &change.operation {
        Operation::Put { value, expires_at } => (Verb::Put, Some(value), *expires_at),
        Operation::Delete => (Verb::Delete, None, None),
        // There is nothing else yet.
        _ => return Ok(()),
    };
    if printer.format == Format::Json {
        let line = LineOut::new(&change.key, base64);
        let line = match value {
            Some(value) => line.value(value, base64).expires_at(expires_at),
            None => line,
        };
        let position = change.position.to_string();
        return printer.json(&line.change(
            verb,
            change.timestamp,
            position,
            change.batch_continues,
        ));
    }
    let name: &[u8] = if verb == Verb::Put { b"put" } else { b"delete" };
    match value {
        Some(value) => printer.change(name, &[&change.key, value]),
        None => printer.change(name, &[&change.key]),
    }
}
