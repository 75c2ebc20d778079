//! The commands of older programs, for scripts that use them.
//!
//! When this program is started under the name of an older one, it has the commands, the wordings
//! and the exit codes of that program. The store is one of this crate; `bitcask import` reads the
//! old ones. `docs/cli.md` lists the differences.

mod bitcaskpy;
mod bitcaskpy_server;
mod json_file;
mod pbc;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use bitcask::{Bitcask, Options, ReadOnly};
use clap::Parser;

use crate::args::Global;
use crate::commands::serve_as_before;
use crate::exit::{self, Exit};
use crate::failure::Failure;
use crate::log_lines::{LogLevel, LogOptions, UsualLines};
use crate::open;
use crate::output::bytes::escaped_lines;
use crate::program::Program;
use crate::settings::Settings;

/// The name of an older program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OldName {
    Bitcaskpy,
    BitcaskpyServer,
    Pbc,
}

impl OldName {
    pub(crate) const ALL: [Self; 3] = [Self::Bitcaskpy, Self::BitcaskpyServer, Self::Pbc];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Bitcaskpy => "bitcaskpy",
            Self::BitcaskpyServer => "bitcaskpy-server",
            Self::Pbc => "pbc",
        }
    }

    /// Returns the name under which the program was started, if it is an old one.
    pub(crate) fn of(argument: Option<&OsString>) -> Option<Self> {
        let name = Path::new(argument?).file_name()?;
        Self::ALL.into_iter().find(|old| name == old.as_str())
    }
}

/// Runs the program under an old name.
pub(crate) fn run(name: OldName, arguments: Vec<OsString>) -> Result<Exit, Failure> {
    match name {
        OldName::Bitcaskpy => parsed(arguments).map_or_else(Ok, bitcaskpy::run),
        OldName::BitcaskpyServer => {
            parsed(arguments).map_or_else(Ok, |cli| bitcaskpy_server::run(&cli))
        }
        OldName::Pbc => parsed(arguments).map_or_else(Ok, pbc::run),
    }
}

/// Reads the command line of an old program, or prints why it is wrong.
fn parsed<T: Parser>(arguments: Vec<OsString>) -> Result<T, Exit> {
    T::try_parse_from(arguments).map_err(|error| exit::of_parsing(&error))
}

/// How an old program ends that has failed: with 1, whatever the reason.
const FAILED: Exit = Exit::Absent;

/// Why a command of an old program has failed.
#[derive(Debug)]
enum OldFailure {
    /// What to print after `Error:`.
    Reason(String),
    /// As under the program's own name.
    Own(Failure),
}

impl From<Failure> for OldFailure {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Usage { what, advice } | Failure::Store { what, advice } => {
                let end = if advice.is_empty() { String::new() } else { format!("; {advice}") };
                Self::Reason(what + &end)
            }
            other => Self::Own(other),
        }
    }
}

impl From<bitcask::Error> for OldFailure {
    fn from(error: bitcask::Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<String> for OldFailure {
    fn from(reason: String) -> Self {
        Self::Reason(reason)
    }
}

/// Returns the directory of the store: the one that was chosen, or the one in the environment, or
/// the one in the program's configuration file.
fn dir(chosen: Option<PathBuf>, configured: String) -> PathBuf {
    let variable = std::env::var_os("BITCASK_DIR").filter(|dir| !dir.is_empty());
    chosen.or_else(|| variable.map(PathBuf::from)).unwrap_or_else(|| configured.into())
}

/// Opens the store for writing. The old programs create it whenever it is missing.
fn writable(dir: &Path) -> Result<Bitcask, OldFailure> {
    let options = Settings::load(None)?.options()?;
    Ok(open::unless_it_follows(open::create_at(dir, options)?)?)
}

/// Opens the store for reading, or returns `None` if it does not exist yet.
fn readable(dir: &Path) -> Result<Option<ReadOnly>, OldFailure> {
    if !dir.exists() {
        return Ok(None);
    }
    match ReadOnly::open(dir, Options::new()) {
        Ok(db) => Ok(Some(db)),
        Err(bitcask::Error::NotFound { .. }) if open::foreign_store(dir).is_none() => Ok(None),
        Err(error) => Err(open::refused(error, dir).into()),
    }
}

/// Prints a line. Its colours stay only on a terminal.
fn echo(line: impl std::fmt::Display) -> Result<(), Failure> {
    writeln!(anstream::stdout(), "{line}").map_err(|error| Failure::output(&error))
}

/// Prints bytes, and ends the line.
fn echo_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = if out.is_terminal() {
        writeln!(out, "{}", escaped_lines(bytes))
    } else {
        out.write_all(bytes).and_then(|()| out.write_all(b"\n"))
    };
    written.and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

/// Returns a program that has the options of an old one.
fn program() -> Program {
    Program::new(Global::default())
}

/// Serves a store over HTTP, and prints log lines as the old servers did.
fn serve(dir: &Path, host: &str, port: u16, level: LogLevel) -> Result<(), Failure> {
    let mut program = program();
    LogOptions::default().start(UsualLines::of_server(level));
    serve_as_before(dir, host, port, &mut program)?;
    program.finish()
}
