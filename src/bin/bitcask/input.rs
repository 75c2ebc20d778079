//! Keys and values on the command line, in files, and on standard input.
//!
//! Nothing is read without a limit: a value has at most as many bytes as the settings allow, and a
//! line at most as many as the longest entry takes.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::interrupt;
use crate::output::bytes::decoded;

/// Returns the bytes of a key on the command line.
pub(crate) fn key(argument: &OsStr, base64: bool) -> Result<Vec<u8>, Failure> {
    decode(argument.as_bytes().to_vec(), base64)
}

/// Returns the bytes of a value: the argument itself, or what it refers to. `-` stands for standard
/// input, and `@PATH` for a file, unless the argument is to be taken literally.
pub(crate) fn value(
    argument: &OsStr,
    literal: bool,
    base64: bool,
    limit: u64,
) -> Result<Vec<u8>, Failure> {
    let bytes = argument.as_bytes();
    let source = match bytes.strip_prefix(b"@") {
        _ if literal => return decode(bytes.to_vec(), base64),
        _ if bytes == b"-" => Source::stdin()?,
        Some(path) => Source::open(Path::new(OsStr::from_bytes(path)), LITERAL)?,
        None => return decode(bytes.to_vec(), base64),
    };
    // Base64 takes four bytes for three, and line breaks.
    let limit = if base64 { limit.saturating_mul(3) / 2 + 4096 } else { limit };
    decode(source.whole(limit)?, base64)
}

/// What to do about a file that is not there, if the argument may not have meant a file.
const LITERAL: &str = "check the path; --literal takes a value that begins with @ as it is";

fn decode(bytes: Vec<u8>, base64: bool) -> Result<Vec<u8>, Failure> {
    if !base64 {
        return Ok(bytes);
    }
    let advice = "with --base64, keys and values are base64 everywhere";
    decoded(&bytes).map_err(|reason| Failure::usage(reason, advice))
}

/// A file or standard input.
pub(crate) struct Source {
    path: PathBuf,
    reader: Box<dyn Read>,
    /// Whether reading may wait for someone to write.
    may_wait: bool,
    /// The size of a file whose size is known.
    size: Option<u64>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Source {
    /// Returns the file of this path, or standard input for `-` and for no path.
    pub(crate) fn named(path: Option<&OsString>) -> Result<Self, Failure> {
        match path {
            Some(path) if path != "-" => Self::open(Path::new(path), ""),
            _ => Self::stdin(),
        }
    }

    fn stdin() -> Result<Self, Failure> {
        let path = PathBuf::from("standard input");
        let unreadable = |error: &io::Error| Failure::file("read", &path, error);
        // The descriptor is read without the buffer of `Stdin`, so that what waits there is known.
        let file = io::stdin().as_fd().try_clone_to_owned().map(File::from);
        let file = file.map_err(|error| unreadable(&error))?;
        let meta = file.metadata().map_err(|error| unreadable(&error))?;
        Ok(Self::of(path, file, &meta))
    }

    /// Opens a file. Without advice of its own, a failure has the usual one.
    fn open(path: &Path, advice: &str) -> Result<Self, Failure> {
        let unreadable = |error: &io::Error| match Failure::file("read", path, error) {
            Failure::Store { what, .. } if !advice.is_empty() => Failure::store(what, advice),
            failure => failure,
        };
        // Opening a named pipe waits for its writer.
        let file = interrupt::at_once(|| File::open(path))?.map_err(|error| unreadable(&error))?;
        let meta = file.metadata().map_err(|error| unreadable(&error))?;
        if meta.is_dir() {
            return Err(unreadable(&io::ErrorKind::IsADirectory.into()));
        }
        Ok(Self::of(path.to_path_buf(), file, &meta))
    }

    fn of(path: PathBuf, file: File, meta: &Metadata) -> Self {
        let size = meta.is_file().then_some(meta.len());
        Self { path, reader: Box::new(file), may_wait: size.is_none(), size }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn size(&self) -> Option<u64> {
        self.size
    }

    /// Returns whether reading may wait for someone to write.
    pub(crate) fn may_wait(&self) -> bool {
        self.may_wait
    }

    /// Reads everything, up to a limit.
    fn whole(mut self, limit: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let mut reader = (&mut self).take(limit.saturating_add(1));
        let read = reader.read_to_end(&mut bytes);
        read.map_err(|error| self.failed(&error))?;
        if bytes.len() as u64 > limit {
            let what =
                format!("{} has more than the {limit} bytes of a value", self.path.display());
            return Err(Failure::usage(what, "the setting value-size-limit is the limit"));
        }
        Ok(bytes)
    }

    /// Returns the lines, each of which has at most this many bytes.
    pub(crate) fn lines(self, size_max: u64) -> Lines {
        let path = self.path.clone();
        let reader = BufReader::with_capacity(BUFFER_SIZE, self);
        Lines { path, reader, size_max, number: 0, line: Vec::new() }
    }

    /// Returns the failure to read.
    pub(crate) fn failed(&self, error: &io::Error) -> Failure {
        if interrupt::is_requested() {
            return Failure::Interrupted;
        }
        Failure::file("read", &self.path, error)
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.may_wait {
            return self.reader.read(buffer);
        }
        let reader = &mut self.reader;
        let interrupted = |_| io::Error::other("interrupted");
        interrupt::at_once(|| reader.read(buffer)).map_err(interrupted)?
    }
}

/// Size in bytes of the buffer through which files are read: that of a pipe.
pub(crate) const BUFFER_SIZE: usize = 64 << 10;

/// The lines of a file or of standard input.
#[derive(Debug)]
pub(crate) struct Lines {
    path: PathBuf,
    reader: BufReader<Source>,
    size_max: u64,
    number: u64,
    line: Vec<u8>,
}

impl Lines {
    /// Returns the next line that is not empty, without its end.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, Failure> {
        loop {
            self.line.clear();
            let mut limited = (&mut self.reader).take(self.size_max.saturating_add(2));
            let read = limited.read_until(b'\n', &mut self.line);
            let size = read.map_err(|error| self.reader.get_ref().failed(&error))?;
            if size == 0 {
                return Ok(None);
            }
            self.number += 1;
            if size as u64 > self.size_max + 1 {
                return Err(self.wrong("the line is longer than the longest entry"));
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(Some(self.line.trim_ascii()));
            }
        }
    }

    /// Returns whether the next line is not here yet, so that reading it may wait.
    pub(crate) fn may_wait(&self) -> bool {
        self.reader.get_ref().may_wait() && !self.reader.buffer().contains(&b'\n')
    }

    /// Returns the failure to make sense of the current line.
    pub(crate) fn wrong(&self, reason: &str) -> Failure {
        let what = format!("{}, line {}: {reason}", self.path.display(), self.number);
        Failure::usage(what, "correct the line, and run the command again")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, size_max: u64) -> Lines {
        let reader: Box<dyn Read> = Box::new(io::Cursor::new(text.as_bytes().to_vec()));
        let source = Source { path: "test".into(), reader, may_wait: false, size: None };
        source.lines(size_max)
    }

    #[test]
    fn empty_lines_do_not_count_but_have_numbers() {
        let mut lines = lines("a\n\n  \r\nbc", 10);
        assert_eq!(lines.next().unwrap(), Some(&b"a"[..]));
        assert_eq!(lines.next().unwrap(), Some(&b"bc"[..]));
        assert_eq!(lines.next().unwrap(), None);
        assert_eq!(lines.number, 4);
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_before_it_is_read_whole() {
        let mut lines = lines(&"x".repeat(1000), 10);
        assert!(lines.next().is_err());
        assert!(lines.line.len() <= 12);
    }

    #[test]
    fn reading_may_wait_only_without_a_whole_line() {
        let mut lines = lines("a\nbc\nd", 10);
        assert!(!lines.may_wait(), "a file never waits");
        lines.reader.get_mut().may_wait = true;
        assert!(lines.may_wait());
        assert_eq!(lines.next().unwrap(), Some(&b"a"[..]));
        assert!(!lines.may_wait());
        assert_eq!(lines.next().unwrap(), Some(&b"bc"[..]));
        assert!(lines.may_wait());
    }

    #[test]
    fn a_literal_value_may_begin_with_anything() {
        for text in ["@here", "-", "plain"] {
            assert_eq!(value(text.as_ref(), true, false, 10).unwrap(), text.as_bytes());
        }
        assert!(value("@/nowhere/at/all".as_ref(), false, false, 10).is_err());
        assert_eq!(value("aGk=".as_ref(), false, true, 10).unwrap(), b"hi");
    }
}
