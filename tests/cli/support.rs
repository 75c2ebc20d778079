//! Shared by the tests: a directory with a home, a store and the program.

#![expect(clippy::unwrap_used, reason = "a test whose setup fails has failed")]

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bitcask::{Bitcask, MergePolicy, Options, SyncPolicy};
use tempfile::TempDir;

/// The program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_bitcask");

/// A working directory of its own for the program. Its store is in `data`, which is the default.
#[derive(Debug)]
pub(crate) struct Sandbox {
    dir: TempDir,
}

/// What the program has printed, and how it has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn new(output: Output) -> Self {
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: output.status.code(), out: output.stdout, err }
    }

    /// Returns the output as text.
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    /// Checks the exit code, and returns the output as text.
    #[track_caller]
    pub(crate) fn ended(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{}{}", self.text(), self.err);
        self.text()
    }

    /// Checks that the program has failed with this code and has said this.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, what: &str) {
        assert_eq!(self.code, Some(code), "{}{}", self.text(), self.err);
        assert!(self.err.contains(what), "`{what}` is missing in: {}", self.err);
    }
}

impl Sandbox {
    /// Returns a sandbox without a store.
    pub(crate) fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// Returns a sandbox with an empty store.
    pub(crate) fn new() -> Self {
        let sandbox = Self::empty();
        sandbox.run(["init"]).ended(0);
        sandbox
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("data")
    }

    /// Opens the store in this process, which locks it.
    pub(crate) fn open(&self) -> Bitcask {
        Bitcask::open(self.store(), small()).unwrap()
    }

    /// Returns a command that runs the program here, without the variables of whoever runs the
    /// tests.
    pub(crate) fn command<S: AsRef<OsStr>>(
        &self,
        program: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.dir.path()).env("HOME", self.path("home"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let is_ours = name.starts_with("BITCASK") || name.starts_with("XDG_");
            if is_ours || ["NO_COLOR", "CLICOLOR_FORCE", "CLICOLOR"].contains(&name.as_str()) {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Returns a command that runs the program under its own name.
    pub(crate) fn bitcask<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        self.command(Path::new(PROGRAM), args)
    }

    /// Runs the program.
    #[track_caller]
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        Ran::new(self.bitcask(args).output().unwrap())
    }

    /// Runs the program with this on its standard input.
    #[track_caller]
    pub(crate) fn feed<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Ran {
        feed(self.bitcask(args), input)
    }

    /// Runs the program under the name of an old one.
    #[track_caller]
    pub(crate) fn run_as(&self, name: &str, args: &[&str]) -> Ran {
        Ran::new(self.command(&self.link(name), args).output().unwrap())
    }

    /// Returns a link to the program that has this name.
    pub(crate) fn link(&self, name: &str) -> PathBuf {
        let link = self.path(name);
        if !link.exists() {
            symlink(PROGRAM, &link).unwrap();
        }
        link
    }
}

/// Runs a command with this on its standard input.
#[track_caller]
pub(crate) fn feed(mut command: Command, input: &[u8]) -> Ran {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that has failed before it has read everything closes the pipe.
    let _ = stdin.write_all(input);
    drop(stdin);
    Ran::new(child.wait_with_output().unwrap())
}

/// Small segments, and nothing in the background that tests would have to wait for.
pub(crate) fn small() -> Options {
    Options::new()
        .segment_size(4096)
        .sync_policy(SyncPolicy::Never)
        .merge_policy(MergePolicy::Manual)
}

/// Returns the names of a directory's files with this extension, sorted.
pub(crate) fn files_of(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths
}

/// Changes a byte of a file.
pub(crate) fn flip(path: &Path, offset: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let byte = bytes.get_mut(offset).unwrap();
    *byte ^= 1;
    std::fs::write(path, bytes).unwrap();
}
