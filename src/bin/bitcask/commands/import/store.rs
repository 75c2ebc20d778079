//! The stores of other programs.

use std::fs;
use std::path::Path;

use bitcask::import::{self, ImportOptions, ImportReport};
use clap::ValueEnum;
use serde_json::json;

use super::ImportArgs;
use crate::exit::Exit;
use crate::failure::{Failure, warn};
use crate::interrupt::{self, StoppableWork};
use crate::open;
use crate::output::{Format, Printer};
use crate::program::Program;
use crate::progress::Progress;

/// A program whose stores can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Foreign {
    /// bitcaskpy, in Python.
    Bitcaskpy,
    /// pybitcask, in Python: both of its formats.
    Pybitcask,
    /// Basho's bitcask, in Erlang, as Riak uses it.
    Basho,
    /// prologic's bitcask, in Go.
    Prologic,
}

impl Foreign {
    /// Returns what the program is called on the command line.
    fn as_str(self) -> &'static str {
        match self {
            Self::Bitcaskpy => "bitcaskpy",
            Self::Pybitcask => "pybitcask",
            Self::Basho => "basho",
            Self::Prologic => "prologic",
        }
    }

    /// Returns an error if a directory does not hold a store of the program. The own store, which
    /// the import would create, is not touched before that.
    fn check(self, dir: &Path) -> Result<(), Failure> {
        let names = fs::read_dir(dir).map_err(|error| Failure::file("read", dir, &error))?;
        let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut programs = names.filter_map(|name| open::program_of(&name));
        if programs.any(|found| found == self.as_str()) {
            return Ok(());
        }
        let (dir, program) = (dir.display(), self.as_str());
        let what = format!("cannot import from {dir}: it has no file of a store of {program}");
        Err(Failure::usage(what, "name the directory with the files, and the program"))
    }
}

/// Imports another program's store.
pub(super) fn import(
    foreign: Foreign,
    dir: &Path,
    args: &ImportArgs,
    program: &mut Program,
) -> Result<Exit, Failure> {
    foreign.check(dir)?;
    let db = open::changeable_or_new(program, true)?;
    let imported = {
        let _stoppable = StoppableWork::begin();
        let progress = Progress::bytes("importing", Some(0));
        let options = ImportOptions::new()
            .overwrite(!args.keep)
            .plain_strings(args.plain_strings)
            .expire_after(args.expire_after)
            .progress(|now| {
                progress.set_of(now.size_done, now.size_total);
                interrupt::flow()
            });
        match foreign {
            Foreign::Bitcaskpy => import::bitcaskpy(dir, &db, options),
            Foreign::Pybitcask => import::pybitcask(dir, &db, options),
            Foreign::Basho => import::basho(dir, &db, options),
            Foreign::Prologic => import::prologic(dir, &db, options),
        }
    };
    let closed = db.close();
    let report = imported?;
    closed?;
    print(program.printer(Format::Table)?, &report)?;
    if report.cancelled {
        return Err(Failure::Interrupted);
    }
    if report.marks_ignored {
        warn("the permissions of all files mark them as merged, so they were ignored");
    }
    if report.skipped_count > 0 {
        warn("some of the other store could not be read; what was read is imported");
    }
    Ok(Exit::Done)
}

fn print(printer: &mut Printer, report: &ImportReport) -> Result<(), Failure> {
    if printer.format != Format::Json {
        return printer.line(&report.to_string());
    }
    let leftovers = report.leftovers.iter().map(|path| path.display().to_string());
    let skipped = report.skipped.iter().map(|skipped| {
        json!({
            "path": skipped.path.display().to_string(),
            "offset": skipped.offset,
            "size": skipped.size,
            "reason": skipped.reason,
        })
    });
    printer.json(&json!({
        "files": report.files,
        "records": report.records,
        "deletes": report.deletes,
        "keys": report.keys,
        "written": report.written,
        "written_size": report.written_size,
        "unchanged": report.unchanged,
        "kept": report.kept,
        "expired": report.expired,
        "skipped": skipped.collect::<Vec<_>>(),
        "skipped_count": report.skipped_count,
        "leftovers": leftovers.collect::<Vec<_>>(),
        "marks_ignored": report.marks_ignored,
        "cancelled": report.cancelled,
    }))
}
