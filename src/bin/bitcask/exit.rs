//! How the program ends.

/// The ends of the program, each with its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command did what was asked, or found the key.
    Done,
    /// The key does not exist, or the answer was no.
    Absent,
    /// The command line or a setting is wrong.
    Usage,
    /// The store, or a file, could not be read or written.
    Store,
    /// The user has interrupted the program.
    Interrupted,
}

/// The section about exit codes at the end of the help.
pub(crate) const HELP: &str = "\
Exit codes:
  0    done, or the key was found
  1    the key was not found, or the answer to a question was no
  2    the command line or a setting is wrong
  3    the store or a file is damaged, locked, missing, or could not be read or written
  130  interrupted with Ctrl-C; the store is intact";

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Absent => 1,
            Self::Usage => 2,
            Self::Store => 3,
            Self::Interrupted => 130,
        }
    }

    /// Returns how a command ends that was to find something.
    pub(crate) fn found(yes: bool) -> Self {
        if yes { Self::Done } else { Self::Absent }
    }
}

/// Prints what the parser has to say: an error, the help, or the version.
pub(crate) fn of_parsing(error: &clap::Error) -> Exit {
    // If the pipe is closed, there is nobody to tell.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Done }
}
