//! `repair`.

use std::fs;
use std::path::{Path, PathBuf};

use bitcask::repair::{self, SalvageReport};
use clap::Args;
use serde_json::json;

use super::verify;
use crate::exit::Exit;
use crate::failure::{Failure, say};
use crate::interrupt::{self, StoppableWork};
use crate::open;
use crate::output::{Format, Printer};
use crate::program::Program;
use crate::progress::Progress;

/// The damaged store is kept: under its name with `.damaged` appended, or where it is if the new
/// store is made elsewhere.
#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// Prints what is wrong, and changes nothing.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Makes the new store in this directory, and leaves the damaged one where it is.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

pub(crate) fn run(args: &RepairArgs, program: &mut Program) -> Result<Exit, Failure> {
    let dir = program.dir()?;
    let diagnosis = verify::diagnose(&dir)?;
    if diagnosis.cancelled {
        return Err(Failure::Interrupted);
    }
    let is_damaged = !diagnosis.damage.is_empty() || diagnosis.opening.is_err();
    if args.dry_run {
        verify::print(program.printer(Format::Table)?, &diagnosis)?;
        return Ok(if is_damaged { Exit::Store } else { Exit::Done });
    }
    match diagnosis.opening {
        // Another program can read what this one cannot. A repair would leave it out.
        Err(error) if error.is_unsupported() && args.to.is_none() => return Err(error.into()),
        _ => {}
    }
    match (&args.to, is_damaged) {
        (Some(to), _) => {
            salvage(&dir, to, program)?;
            say(format_args!("the new store is {}; the old one was left as it is", to.display()));
        }
        (None, false) => {
            // What a crash leaves is dealt with by opening the store.
            open::writable(program)?.close()?;
            say("the store is intact; there was nothing to repair");
        }
        (None, true) => {
            let (new, damaged) = (beside(&dir, "repaired")?, beside(&dir, "damaged")?);
            salvage(&dir, &new, program)?;
            swap(&dir, &new, &damaged)?;
            say(format_args!(
                "the new store is {}; the damaged one is now {}",
                dir.display(),
                damaged.display()
            ));
        }
    }
    Ok(Exit::Done)
}

/// Copies what is intact to a new store, and prints what that was.
fn salvage(from: &Path, to: &Path, program: &mut Program) -> Result<(), Failure> {
    let options = program.settings()?.options()?;
    let report = {
        let _stoppable = StoppableWork::begin();
        let progress = Progress::bytes("repairing", Some(0));
        repair::salvage_opt(from, to, &options, |now| {
            progress.set_of(now.size_done, now.size_total);
            interrupt::flow()
        })?
    };
    if report.cancelled {
        return Err(Failure::Interrupted);
    }
    print(program.printer(Format::Table)?, &report)
}

/// Prints what was copied and what was lost.
pub(crate) fn print(printer: &mut Printer, report: &SalvageReport) -> Result<(), Failure> {
    if printer.format != Format::Json {
        return printer.line(&report.to_string());
    }
    printer.json(&json!({
        "complete": report.is_complete(),
        "keys": report.keys,
        "size": report.size,
        "entries": report.entries,
        "segments": report.segments,
        "had_manifest": report.had_manifest,
        "damage": report.damage.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "lost": report.lost.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "torn_batches": report.torn_batches.len(),
        "lost_keys": report.lost_key_count,
    }))
}

/// Returns a directory next to the store that does not exist yet.
fn beside(dir: &Path, what: &str) -> Result<PathBuf, Failure> {
    let dir = fs::canonicalize(dir).map_err(|error| Failure::file("find", dir, &error))?;
    let mut name = dir.into_os_string();
    name.push(format!(".{what}"));
    let path = PathBuf::from(name);
    if path.exists() {
        let what = format!("{} exists already", path.display());
        return Err(Failure::usage(what, "move it away, or choose a place with --to"));
    }
    Ok(path)
}

/// Puts the new store in the place of the damaged one.
fn swap(dir: &Path, new: &Path, damaged: &Path) -> Result<(), Failure> {
    let dir = fs::canonicalize(dir).map_err(|error| Failure::file("find", dir, &error))?;
    let stays = |error: &std::io::Error, action: &str| {
        let what = format!("cannot {action} {}: {error}", dir.display());
        Failure::store(what, format!("the repaired store is {}; move it yourself", new.display()))
    };
    fs::rename(&dir, damaged).map_err(|error| stays(&error, "rename"))?;
    fs::rename(new, &dir).map_err(|error| stays(&error, "put the new store in the place of"))
}
