//! `backup` and `restore`.

use std::path::PathBuf;

use bitcask::repair;
use clap::Args;

use super::repair::print;
use crate::exit::Exit;
use crate::failure::{Failure, say};
use crate::interrupt::{self, StoppableWork};
use crate::open;
use crate::output::{Figure, Format};
use crate::program::Program;
use crate::progress::Progress;

/// On the same file system this takes no space and hardly any time, since the files are linked. A
/// backup is a store, and can be opened like any other.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The directory of the backup, which must be empty or not exist.
    target: PathBuf,
}

/// Every entry of the backup is verified on the way. The backup is not changed.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The directory of the backup.
    backup: PathBuf,
}

pub(crate) fn backup(args: &BackupArgs, program: &mut Program) -> Result<Exit, Failure> {
    let db = open::writable(program)?;
    let report = {
        let _progress = Progress::waiting("copying");
        db.backup(&args.target)?
    };
    db.close()?;
    program.printer(Format::Table)?.report(&[
        ("segments", Figure::Count(report.segments)),
        ("linked", Figure::Count(report.linked)),
        ("size", Figure::Size(report.size)),
        ("copied", Figure::Size(report.copied_size)),
    ])?;
    Ok(Exit::Done)
}

pub(crate) fn restore(args: &RestoreArgs, program: &mut Program) -> Result<Exit, Failure> {
    let (dir, options) = (program.dir()?, program.settings()?.options()?);
    if open::is_store(&dir) {
        let what = format!("{} holds a store already", dir.display());
        return Err(Failure::usage(what, "choose an empty directory with --dir"));
    }
    let report = {
        let _stoppable = StoppableWork::begin();
        let progress = Progress::bytes("restoring", Some(0));
        repair::salvage_opt(&args.backup, &dir, &options, |now| {
            progress.set_of(now.size_done, now.size_total);
            interrupt::flow()
        })?
    };
    if report.cancelled {
        return Err(Failure::Interrupted);
    }
    print(program.printer(Format::Table)?, &report)?;
    if report.is_complete() {
        return Ok(Exit::Done);
    }
    say("warning: the backup is damaged; what is intact in it was restored");
    Ok(Exit::Store)
}
