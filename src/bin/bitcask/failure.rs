//! Why a command failed, and what to do next.
//!
//! The library's messages speak to programmers. Where its advice is to call a method, this module
//! names the command instead.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bitcask::Error;
use owo_colors::OwoColorize as _;

use crate::exit::Exit;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line or a setting is wrong.
    Usage { what: String, advice: String },
    /// The store or a file is at fault.
    Store { what: String, advice: String },
    /// Nobody reads the output any more.
    ClosedPipe,
    /// The user has pressed Ctrl-C.
    Interrupted,
}

impl Failure {
    pub(crate) fn usage(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), advice: advice.into() }
    }

    pub(crate) fn store(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Store { what: what.into(), advice: advice.into() }
    }

    /// Returns the failure of an action on a file that is not the store's.
    pub(crate) fn file(action: &str, path: &Path, error: &io::Error) -> Self {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied => "check the permissions",
            io::ErrorKind::StorageFull => "free some space, and run the command again",
            _ => "",
        };
        Self::store(format!("cannot {action} {}: {error}", path.display()), advice)
    }

    /// Returns the failure of a write to standard output.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ClosedPipe;
        }
        Self::store(format!("cannot write the output: {error}"), "")
    }

    /// Returns how the program ends.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } => Exit::Usage,
            Self::Store { .. } => Exit::Store,
            Self::ClosedPipe => Exit::Done,
            Self::Interrupted => Exit::Interrupted,
        }
    }

    /// Prints the failure, and returns how the program ends.
    pub(crate) fn report(&self) -> Exit {
        match self {
            Self::Usage { what, advice } | Self::Store { what, advice } => complain(what, advice),
            Self::ClosedPipe => {}
            Self::Interrupted => say("interrupted; the store is intact"),
        }
        self.exit()
    }
}

/// Prints what is wrong, and what to do next.
fn complain(what: &str, advice: &str) {
    say(format_args!("{} {what}", "error:".red().bold()));
    if !advice.is_empty() {
        say(format_args!(" {} {advice}", "next:".cyan().bold()));
    }
}

/// Prints something that the user should know although the command continues.
pub(crate) fn warn(what: impl Display) {
    say(format_args!("{} {what}", "warning:".yellow().bold()));
}

/// Prints a message for people, on standard error. If that is closed, there is nobody to tell.
pub(crate) fn say(what: impl Display) {
    let _ = writeln!(anstream::stderr(), "{what}");
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (what, advice) = explain(&error);
        match error {
            Error::KeyTooLarge { .. }
            | Error::ValueTooLarge { .. }
            | Error::BatchTooLarge { .. }
            | Error::InvalidOption { .. }
            | Error::InvalidTarget { .. }
            | Error::InvalidSource { .. }
            | Error::InvalidPosition { .. }
            | Error::ForeignPosition { .. } => Self::Usage { what, advice },
            _ => Self::Store { what, advice },
        }
    }
}

/// Returns what has happened, and what to do about it.
fn explain(error: &Error) -> (String, String) {
    if let Some((what, advice)) = explain_file(error) {
        return (what, advice.into());
    }
    let (what, advice) = match error {
        Error::NotFound { path } => return no_store(path),
        Error::Locked { path, pid, ended } => {
            let path = path.display();
            return (
                format!("{path} is open for writing in {}", holder(*pid, *ended)),
                OTHERS.into(),
            );
        }
        Error::NoSpace { path } => (
            format!("no space left for {}", path.display()),
            "the store is intact; free some space, perhaps with `bitcask merge`, and try again",
        ),
        Error::BatchTooLarge { size, limit } => (
            format!("the batch needs {size} bytes on disk, the limit is {limit}"),
            "nothing was written; split it, or use `bitcask import`, which writes in several steps",
        ),
        Error::TooManySegments { limit } => (
            format!("the store has {limit} segments or more, and cannot add one"),
            "run `bitcask merge --force`, and set a larger segment-size",
        ),
        Error::InvalidOption { name, value, reason } => {
            let name = name.replace('_', "-");
            return (format!("the setting `{name}` is {value}: {reason}"), SETTINGS.into());
        }
        Error::HistoryGone { position, .. } | Error::PositionLost { position, .. } => (
            format!("the changes after position {position} are gone"),
            "read the whole store with `bitcask export`, and watch from now on",
        ),
        Error::Poisoned { cause } => return explain(cause),
        other => (other.to_string(), ""),
    };
    (what, advice.into())
}

/// Returns the same for what the library has found in a file.
fn explain_file(error: &Error) -> Option<(String, &'static str)> {
    Some(match error {
        Error::Corrupt { path, offset, reason } => (
            format!("{} is corrupt at offset {offset}: {reason}", path.display()),
            "nothing was changed; `bitcask verify` lists all damage, and `bitcask repair` copies \
             what is intact to a new store",
        ),
        Error::MissingSegment { path } => (
            format!("{} is missing, but the store needs it", path.display()),
            "nothing was changed; put the file back, or let `bitcask repair` copy what is intact",
        ),
        Error::UnsupportedVersion { path, found, supported } => (
            format!(
                "{} has format version {found}, but this program reads at most {supported}",
                path.display()
            ),
            "use a newer release of the program",
        ),
        Error::UnsupportedFlags { path, offset, .. } => (
            format!("{} has an entry of a newer release at offset {offset}", path.display()),
            "use a newer release of the program",
        ),
        Error::UnsupportedCodec { path, offset, codec } => (
            format!(
                "{} has a value at offset {offset} compressed with codec {codec}",
                path.display()
            ),
            "use a program that was built with the features `lz4` and `zstd`",
        ),
        Error::Unfinished { path } => (
            format!("{} is not a store: a copy into it was interrupted", parent(path).display()),
            "if no backup, restore or repair into it is running, remove the directory and run that \
             command again",
        ),
        Error::SegmentRemoved { path } => (
            format!("a merge in another process removed {} while it was read", path.display()),
            "run the command again",
        ),
        _ => return None,
    })
}

/// What to do if another process writes to the store.
const OTHERS: &str = "close it there, or wait; commands that only read, such as `get`, `list`, \
                      `stats`, `verify` and `export`, work meanwhile";

/// What to do about a setting that is wrong.
const SETTINGS: &str = "`bitcask config list` shows where each setting comes from";

/// Returns the failure to find a store in a directory.
fn no_store(path: &Path) -> (String, String) {
    let dir = path.display();
    let what = format!("there is no store at {dir}");
    let advice = "create one with `bitcask init`, or name another with --dir or BITCASK_DIR";
    (what, advice.into())
}

/// Describes the process that holds a store's lock.
fn holder(pid: Option<u32>, ended: bool) -> String {
    match pid {
        Some(pid) if ended => {
            format!("another process (process {pid} took the lock, and has ended since)")
        }
        Some(pid) => format!("process {pid}"),
        None => "another process".into(),
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(path).to_path_buf()
}
