//! `import`.

mod csv;
mod store;

use std::ffi::OsString;
use std::time::Duration;

use bitcask::{Batch, Bitcask, Reader};
use clap::Args;

use super::export::FileForm;
use crate::exit::Exit;
use crate::failure::{Failure, say, warn};
use crate::input::Source;
use crate::interrupt::{self, StoppableWork};
use crate::open;
use crate::output::{Figure, Format};
use crate::program::Program;
use crate::progress::Progress;
use crate::record::{self, Life, RecordedChange, RecordedLine, SizeLimits};
use crate::units;
use store::Foreign;

/// Reads what `export` and `watch --output json` write. The pairs are written in many steps, so
/// after an interruption some of them are in the store; to continue, run the import again. A pair
/// without an expiry does not expire, whatever the setting `default-ttl` says. The store is created
/// if it does not exist.
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
    let base64 = program.base64();
    let options = program.settings()?.options()?;
    let limits = SizeLimits::of(&options);
    let batch_size = BATCH_SIZE.min(options.get_segment_size() / 4);
    let db = open::changeable_or_new(program, true)?;
    let mut importing = TextImport {
        db: &db,
        base64,
        limits,
        batch: Batch::new(),
        batch_size,
        batch_deletes: 0,
        batch_position: None,
        progress: Progress::bytes("importing", source.size()),
        put: 0,
        deleted: 0,
        has_skipped: false,
        position: None,
    };
    let imported = {
        let _stoppable = StoppableWork::begin();
        let read = match FileForm::of(args.format, args.source.as_ref()) {
            FileForm::Json => lines(source, &mut importing),
            FileForm::Csv => csv::rows(source, &mut importing),
        };
        read.and_then(|()| importing.flush())
    };
    let position = importing.position.take();
    let (put, deleted) = (importing.put, importing.deleted);
    drop(importing);
    let closed = db.close();
    if let Err(failure) = imported {
        let were = units::count(put, "pair was", "pairs were");
        say(format_args!("{were} imported before this; what was imported is in the store"));
        if let Some(position) = position {
            say(format_args!("`bitcask watch` resumes after them with --since {position}"));
        }
        return Err(failure);
    }
    closed?;
    let figures = [("imported", Figure::Count(put)), ("deleted", Figure::Count(deleted))];
    program.printer(Format::Table)?.report(&figures)?;
    Ok(Exit::Done)
}

fn lines(source: Source, importing: &mut TextImport<'_>) -> Result<(), Failure> {
    let mut lines = source.lines(importing.limits.line_size());
    let mut done = 0;
    loop {
        // While nobody writes, everything that was written is in the store.
        if lines.may_wait() {
            importing.flush()?;
        }
        let Some(line) = lines.next()? else { return Ok(()) };
        done += line.len() as u64 + 1;
        let read = record::read(line, importing.base64);
        let read = read.and_then(|read| importing.limits.check(&read.change).map(|()| read));
        importing.add(read.map_err(|reason| lines.wrong(&reason))?, done)?;
    }
}

/// An import in progress.
struct TextImport<'a> {
    db: &'a Bitcask,
    /// Whether keys and values are base64 in the source.
    base64: bool,
    /// What the store accepts.
    limits: SizeLimits,
    batch: Batch,
    /// Size in bytes that a batch should not exceed.
    batch_size: u64,
    /// Number of deletes in the batch.
    batch_deletes: u64,
    /// Where `watch` resumes after the batch, if the pairs come from there.
    batch_position: Option<String>,
    progress: Progress,
    /// What is in the store by now.
    put: u64,
    deleted: u64,
    position: Option<String>,
    /// Whether the source had a follower's note about its leader.
    has_skipped: bool,
}

impl TextImport<'_> {
    /// Adds a pair, and writes what has been gathered if that is enough. `done` is how much of the
    /// source was read.
    fn add(&mut self, read: RecordedLine, done: u64) -> Result<(), Failure> {
        interrupt::check()?;
        let RecordedLine { change, position } = read;
        let (key, size) = match &change {
            RecordedChange::Put { key, value, .. } => (key, key.len() + value.len()),
            RecordedChange::Delete { key } => (key, key.len()),
        };
        if key == Reader::FOLLOW_KEY {
            if !std::mem::replace(&mut self.has_skipped, true) {
                warn("skipped the key \\0follow, which says what another store follows");
            }
            return Ok(());
        }
        if self.batch.size().saturating_add(size as u64) > self.batch_size {
            self.flush()?;
        }
        match change {
            RecordedChange::Put { key, value, life } => {
                // A pair that did not expire where it comes from does not expire here.
                let life = if life == Life::Unsaid { Life::Forever } else { life };
                self.batch.put_opt(key, value, life.options());
            }
            RecordedChange::Delete { key } => {
                self.batch.delete(key);
                self.batch_deletes += 1;
            }
        }
        self.batch_position = position;
        self.progress.set(done);
        if self.batch.len() >= BATCH_LEN { self.flush() } else { Ok(()) }
    }

    /// Writes what has been gathered.
    fn flush(&mut self) -> Result<(), Failure> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.db.write(&self.batch)?;
        let deletes = std::mem::take(&mut self.batch_deletes);
        self.put += self.batch.len() as u64 - deletes;
        self.deleted += deletes;
        self.batch.clear();
        if let Some(position) = self.batch_position.take() {
            self.position = Some(position);
        }
        Ok(())
    }
}
