//! `import`.

mod csv;
mod store;

use std::ffi::OsString;
use std::time::Duration;

use bitcask::{Batch, Bitcask};
use clap::Args;

use super::export::FileForm;
use crate::exit::Exit;
use crate::failure::{Failure, say};
use crate::input::{Source, line_size_max};
use crate::interrupt::{self, StoppableWork};
use crate::open;
use crate::output::{Figure, Format};
use crate::program::Program;
use crate::progress::Progress;
use crate::record::{self, RecordedChange};
use crate::units;
use store::Foreign;

/// Reads what `export` and `watch --output json` write. The pairs are written in many steps, so
/// after an interruption some of them are in the store; to continue, run the import again. The
/// store is created if it does not exist.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The file, or the directory of the other program's store; without it, or with `-`, the pairs
    /// come from standard input.
    source: Option<OsString>,
    /// The other program. Its store is read and not changed.
    #[arg(long, value_name = "PROGRAM", requires = "source", conflicts_with = "format")]
    from: Option<Foreign>,
    /// With --from: keeps the values of keys that the store has already.
    #[arg(long, requires = "from")]
    keep: bool,
    /// With --from pybitcask: imports strings without their quotes, and not as JSON.
    #[arg(long, requires = "from")]
    plain_strings: bool,
    /// With --from basho: the `expiry_secs` of the cask, such as 7d.
    #[arg(long, value_name = "DURATION", requires = "from", value_parser = units::duration)]
    expire_after: Option<Duration>,
    /// The form [default: csv if the file's name ends in .csv, otherwise json].
    #[arg(long, value_name = "FORM")]
    format: Option<FileForm>,
}

/// Number of pairs that are written together.
const BATCH_LEN: usize = 1000;
/// Size in bytes from which a batch is written, unless segments are small.
const BATCH_SIZE: u64 = 1 << 20;

pub(crate) fn run(args: &ImportArgs, program: &mut Program) -> Result<Exit, Failure> {
    if let (Some(foreign), Some(dir)) = (args.from, &args.source) {
        return store::import(foreign, dir.as_ref(), args, program);
    }
    let source = Source::named(args.source.as_ref())?;
    let options = program.settings()?.options()?;
    let size_max = line_size_max(options.get_key_size_limit(), options.get_value_size_limit());
    let batch_size = BATCH_SIZE.min(options.get_segment_size() / 4);
    let db = open::writable_or_new(program, true)?;
    let mut importing = TextImport {
        db: &db,
        batch: Batch::new(),
        batch_size,
        batch_deletes: 0,
        progress: Progress::bytes("importing", source.size()),
        put: 0,
        deleted: 0,
    };
    let imported = {
        let _stoppable = StoppableWork::begin();
        let read = match FileForm::of(args.format, args.source.as_ref()) {
            FileForm::Json => lines(source, size_max, &mut importing),
            FileForm::Csv => csv::rows(source, size_max, &mut importing),
        };
        read.and_then(|()| importing.flush())
    };
    let (put, deleted) = (importing.put, importing.deleted);
    drop(importing);
    let closed = db.close();
    if let Err(failure) = imported {
        say(format_args!("{put} pairs were imported before this; they are in the store"));
        return Err(failure);
    }
    closed?;
    let figures = [("imported", Figure::Count(put)), ("deleted", Figure::Count(deleted))];
    program.printer(Format::Table)?.report(&figures)?;
    Ok(Exit::Done)
}

fn lines(source: Source, size_max: u64, importing: &mut TextImport<'_>) -> Result<(), Failure> {
    let mut lines = source.lines(size_max);
    let mut done = 0;
    while let Some(line) = lines.next()? {
        done += line.len() as u64 + 1;
        let change = record::read(line).map_err(|reason| lines.wrong(&reason))?;
        importing.add(change, done)?;
    }
    Ok(())
}

/// An import in progress.
struct TextImport<'a> {
    db: &'a Bitcask,
    batch: Batch,
    /// Size in bytes that a batch should not exceed.
    batch_size: u64,
    /// Number of deletes in the batch.
    batch_deletes: u64,
    progress: Progress,
    /// What is in the store by now.
    put: u64,
    deleted: u64,
}

impl TextImport<'_> {
    /// Adds a pair, and writes what has been gathered if that is enough. `done` is how much of the
    /// source was read.
    fn add(&mut self, change: RecordedChange, done: u64) -> Result<(), Failure> {
        interrupt::check()?;
        let size = match &change {
            RecordedChange::Put { key, value, .. } => key.len() + value.len(),
            RecordedChange::Delete { key } => key.len(),
        };
        if self.batch.size().saturating_add(size as u64) > self.batch_size {
            self.flush()?;
        }
        match change {
            RecordedChange::Put { key, value, life } => {
                self.batch.put_opt(key, value, life.options());
            }
            RecordedChange::Delete { key } => {
                self.batch.delete(key);
                self.batch_deletes += 1;
            }
        }
        if self.batch.len() >= BATCH_LEN {
            self.flush()?;
            self.progress.set(done);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.db.write(&self.batch)?;
        let deletes = std::mem::take(&mut self.batch_deletes);
        self.put += self.batch.len() as u64 - deletes;
        self.deleted += deletes;
        self.batch.clear();
        Ok(())
    }
}
