//! `put`.

use std::ffi::OsString;
use std::time::{Duration, SystemTime};

use bitcask::{WriteOptions, WriteStore};
use clap::Args;

use crate::exit::Exit;
use crate::failure::{Failure, say};
use crate::program::Program;
use crate::{input, open, units};

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub(crate) struct PutArgs {
    key: OsString,
    /// The value, or `-` for standard input, or `@PATH` for the content of a file.
    value: OsString,
    /// Takes VALUE as it is, even if it is `-` or begins with `@`.
    #[arg(long)]
    literal: bool,
    /// The key expires after this time, for example 30s or 7days.
    #[arg(long, value_name = "DURATION", value_parser = units::duration, group = "life")]
    ttl: Option<Duration>,
    /// The key expires at this time in UTC, for example 2030-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = units::time, group = "life")]
    expires_at: Option<SystemTime>,
    /// The key keeps the time to live that it has.
    #[arg(long, group = "life", conflicts_with = "if_absent")]
    keep_ttl: bool,
    /// Writes only if the key does not exist; otherwise the exit code is 1.
    #[arg(long)]
    if_absent: bool,
    /// Returns when the value is on the disk, whatever the setting `sync` says.
    #[arg(long)]
    durable: bool,
    /// Creates the store if it does not exist.
    #[arg(long)]
    create: bool,
}

impl PutArgs {
    fn options(&self) -> WriteOptions {
        let mut options = WriteOptions::new().keep_ttl(self.keep_ttl);
        if self.durable {
            options = options.durable(true);
        }
        if let Some(ttl) = self.ttl {
            options = options.ttl(ttl);
        }
        match self.expires_at {
            Some(time) => options.expires_at(time),
            None => options,
        }
    }

    /// Returns whether the value was stored.
    fn store<S: WriteStore>(&self, db: &S, key: &[u8], value: &[u8]) -> Result<bool, S::Error> {
        if self.if_absent {
            return db.put_if_absent_opt(key, value, self.options());
        }
        db.put_opt(key, value, self.options()).map(|()| true)
    }
}

pub(crate) fn run(args: &PutArgs, program: &mut Program) -> Result<Exit, Failure> {
    let base64 = program.base64();
    let limit = program.settings()?.options()?.get_value_size_limit();
    let key = input::key(&args.key, base64)?;
    let value = input::value(&args.value, args.literal, base64, limit)?;
    let stored = if let Some(client) = program.remote()? {
        args.store(&client, &key, &value)?
    } else {
        let db = open::changeable_or_new(program, args.create)?;
        let stored = args.store(&db, &key, &value)?;
        db.close()?;
        stored
    };
    if !stored {
        say("the key exists; nothing was written");
    }
    Ok(Exit::found(stored))
}
