//! `batch`.

use std::ffi::OsString;

use bitcask::{Batch, WriteOptions};
use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::input::Source;
use crate::open;
use crate::output::{Figure, Format};
use crate::program::Program;
use crate::record::{self, RecordedChange, SizeLimits};

/// One JSON object per line: {"key": "k", "value": "v"} puts, {"op": "delete", "key": "k"} deletes.
/// `key_base64` and `value_base64` stand for bytes that are not text, and a put may have `ttl` or
/// `expires_at`.
#[derive(Debug, Args)]
pub(crate) struct BatchArgs {
    /// The file with the lines; without it, or with `-`, they come from standard input.
    file: Option<OsString>,
    /// Returns when the batch is on the disk, whatever the setting `sync` says.
    #[arg(long)]
    durable: bool,
    /// Creates the store if it does not exist.
    #[arg(long)]
    create: bool,
}

pub(crate) fn run(args: &BatchArgs, program: &mut Program) -> Result<Exit, Failure> {
    let base64 = program.base64();
    let options = program.settings()?.options()?;
    let limits = SizeLimits::of(&options);
    let mut lines = Source::named(args.file.as_ref())?.lines(limits.line_size());
    // A batch lies in one segment, so more than that is refused before it fills the memory.
    let batch_size_max = options.get_segment_size().max(SIZE_MIN);
    let (mut batch, mut puts, mut deletes) = (Batch::new(), 0_u64, 0_u64);
    while let Some(line) = lines.next()? {
        let read = record::read(line, base64);
        let read = read.and_then(|read| limits.check(&read.change).map(|()| read.change));
        match read.map_err(|reason| lines.wrong(&reason))? {
            RecordedChange::Put { key, value, life } => {
                batch.put_opt(key, value, life.options());
                puts += 1;
            }
            RecordedChange::Delete { key } => {
                batch.delete(key);
                deletes += 1;
            }
        }
        if batch.size() > batch_size_max {
            let (size, limit) = (batch.size(), batch_size_max);
            return Err(bitcask::Error::BatchTooLarge { size, limit }.into());
        }
    }
    let options = WriteOptions::new();
    let options = if args.durable { options.durable(true) } else { options };
    if let Some(client) = program.remote()? {
        client.write_opt(&batch, options)?;
    } else {
        let db = open::changeable_or_new(program, args.create)?;
        db.write_opt(&batch, options)?;
        db.close()?;
    }
    let figures = [("puts", Figure::Count(puts)), ("deletes", Figure::Count(deletes))];
    program.printer(Format::Table)?.report(&figures)?;
    Ok(Exit::Done)
}

/// A batch of this size is never refused here. The store decides.
const SIZE_MIN: u64 = 16 << 20;
