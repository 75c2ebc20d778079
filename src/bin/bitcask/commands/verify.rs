//! `verify`.

use bitcask::{Damage, repair};
use clap::Args;
use serde_json::json;

use crate::exit::Exit;
use crate::failure::{Failure, say};
use crate::interrupt::{self, StoppableWork};
use crate::open;
use crate::output::{Format, Printer};
use crate::program::Program;
use crate::progress::Progress;

/// Compares also the hints and the indexes with their segments. The exit code is 3 if anything is
/// damaged.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {}

pub(crate) fn run(_args: &VerifyArgs, program: &mut Program) -> Result<Exit, Failure> {
    let dir = program.dir()?;
    let diagnosis = diagnose(&dir)?;
    let printer = program.printer(Format::Table)?;
    print(printer, &diagnosis)?;
    if diagnosis.cancelled {
        return Err(Failure::Interrupted);
    }
    if diagnosis.damage.is_empty() && diagnosis.opening.is_ok() {
        return Ok(Exit::Done);
    }
    if diagnosis.opening.as_ref().err().is_none_or(|error| !error.is_unsupported()) {
        say("next: `bitcask repair` copies what is intact to a new store");
    }
    Ok(Exit::Store)
}

/// Verifies a store, with a progress bar.
pub(crate) fn diagnose(dir: &std::path::Path) -> Result<repair::Diagnosis, Failure> {
    let _stoppable = StoppableWork::begin();
    let progress = Progress::bytes("verifying", Some(0));
    let verified = repair::verify_with(dir, |now| {
        progress.set_of(now.size_done, now.size_total);
        interrupt::flow()
    });
    verified.map_err(|error| open::refused(error, dir))
}

/// Prints what was found.
pub(crate) fn print(printer: &mut Printer, found: &repair::Diagnosis) -> Result<(), Failure> {
    if printer.format != Format::Json {
        return printer.line(&found.to_string());
    }
    let damage = |list: &[Damage]| -> Vec<_> {
        let one = |damage: &Damage| {
            json!({
                "path": damage.path.display().to_string(),
                "offset": damage.offset,
                "reason": damage.reason,
            })
        };
        list.iter().map(one).collect()
    };
    let paths = |list: &[std::path::PathBuf]| -> Vec<String> {
        list.iter().map(|path| path.display().to_string()).collect()
    };
    printer.json(&json!({
        "clean": found.is_clean(),
        "opens": found.opening.is_ok(),
        "opening_error": found.opening.as_ref().err().map(ToString::to_string),
        "segments": found.segments,
        "entries": found.entries,
        "tombstones": found.tombstones,
        "size": found.size,
        "damage": damage(&found.damage),
        "torn": damage(&found.torn),
        "derived": damage(&found.derived),
        "leftovers": paths(&found.leftovers),
        "quarantine": paths(&found.quarantine),
    }))
}
