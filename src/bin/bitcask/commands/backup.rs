//! `backup` and `restore`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use bitcask::{BackupReport, Bitcask, Error, repair};
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
    let report = copy(&db, &args.target)?;
    db.close()?;
    if report.cancelled {
        return Err(Failure::Interrupted);
    }
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
        let salvaged = repair::salvage_opt(&args.backup, &dir, &options, |now| {
            progress.set_of(now.size_done, now.size_total);
            interrupt::flow()
        });
        salvaged.map_err(|error| refused(error, &args.backup))?
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

/// Copies a store, with a progress bar. The call says nothing while it copies, so the bar shows how
/// much has arrived.
fn copy(db: &Bitcask, target: &Path) -> bitcask::Result<BackupReport> {
    let _stoppable = StoppableWork::begin();
    let progress = Progress::bytes("copying", Some(db.stats().log_size));
    let (ended, wait) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let show = move || {
            while wait.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                progress.set(arrived(target));
            }
        };
        scope.spawn(show);
        let copied = db.backup_until(target, interrupt::requested_flag());
        drop(ended);
        copied
    })
}

/// How often to look how much of a backup has arrived.
const TICK: Duration = Duration::from_millis(200);

/// Returns the total size of the files in a directory.
fn arrived(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}

/// Returns the failure to read a backup.
fn refused(error: Error, backup: &Path) -> Failure {
    match error {
        Error::NotFound { .. } if open::foreign_store(backup).is_none() => {
            let what = format!("there is no store at {}", backup.display());
            Failure::store(what, "name the directory that `bitcask backup` has made")
        }
        error => open::refused(error, backup),
    }
}
