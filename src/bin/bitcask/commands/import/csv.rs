//! CSV files of pairs.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use csv::{ByteRecord, ReaderBuilder};

use super::TextImport;
use crate::failure::Failure;
use crate::input::Source;
use crate::output::bytes::decoded;
use crate::record::{Life, RecordedChange};
use crate::units;

/// Where the fields of a pair stand in a row.
struct CsvColumns {
    key: usize,
    key_base64: bool,
    value: usize,
    value_base64: bool,
    expires_at: Option<usize>,
    ttl: Option<usize>,
}

impl CsvColumns {
    /// Finds the columns by their headings.
    fn of(headings: &ByteRecord) -> Result<Self, String> {
        let find =
            |name: &str| headings.iter().position(|found| found.trim_ascii() == name.as_bytes());
        let one_of = |name: &str| match (find(name), find(&format!("{name}_base64"))) {
            (Some(at), None) => Ok((at, false)),
            (None, Some(at)) => Ok((at, true)),
            _ => Err(format!("the first line needs a heading `{name}` or `{name}_base64`")),
        };
        let ((key, key_base64), (value, value_base64)) = (one_of("key")?, one_of("value")?);
        let (expires_at, ttl) = (find("expires_at"), find("ttl"));
        Ok(Self { key, key_base64, value, value_base64, expires_at, ttl })
    }

    fn read(&self, row: &ByteRecord) -> Result<RecordedChange, String> {
        let field = |at: usize| row.get(at).unwrap_or_default();
        let bytes = |at, base64| {
            if base64 { decoded(field(at)) } else { Ok(field(at).to_vec()) }
        };
        let text = |at: Option<usize>| {
            let text = at.map(field).filter(|field| !field.is_empty());
            text.map(|field| String::from_utf8_lossy(field).into_owned())
        };
        let life = match (text(self.ttl), text(self.expires_at)) {
            (None, None) => Life::Unsaid,
            (Some(ttl), None) => Life::For(units::duration(&ttl)?),
            (None, Some(time)) => Life::Until(units::time(&time)?),
            (Some(_), Some(_)) => return Err("it has both `ttl` and `expires_at`".into()),
        };
        let key = bytes(self.key, self.key_base64)?;
        Ok(RecordedChange::Put { key, value: bytes(self.value, self.value_base64)?, life })
    }
}

/// Reads all rows of a file.
pub(super) fn rows(
    source: Source,
    size_max: u64,
    importing: &mut TextImport<'_>,
) -> Result<(), Failure> {
    let path = source.path().to_path_buf();
    let left = Rc::new(Cell::new(size_max));
    let limited = LimitedSource { source, left: Rc::clone(&left) };
    let mut reader = ReaderBuilder::new().from_reader(limited);
    let wrong = |line: u64, reason: &str| {
        let what = format!("{}, line {line}: {reason}", path.display());
        Failure::usage(what, "correct the line, and run the command again")
    };
    let headings = reader.byte_headers().cloned();
    let headings = headings.map_err(|error| failed(error, &path))?;
    let layout = CsvColumns::of(&headings).map_err(|reason| wrong(1, &reason))?;
    let mut row = ByteRecord::new();
    loop {
        left.set(size_max);
        if !reader.read_byte_record(&mut row).map_err(|error| failed(error, &path))? {
            return Ok(());
        }
        let line = row.position().map_or(0, csv::Position::line);
        let change = layout.read(&row).map_err(|reason| wrong(line, &reason))?;
        importing.add(change, reader.position().byte())?;
    }
}

fn failed(error: csv::Error, path: &std::path::Path) -> Failure {
    match error.into_kind() {
        csv::ErrorKind::Io(_) if crate::interrupt::is_requested() => Failure::Interrupted,
        csv::ErrorKind::Io(error) => Failure::file("read", path, &error),
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.map_or(0, |pos| pos.line());
            let what =
                format!("{}, line {line}: {len} fields instead of {expected_len}", path.display());
            Failure::usage(what, "correct the line, and run the command again")
        }
        _ => Failure::usage(format!("{} is not a CSV file", path.display()), "check the file"),
    }
}

/// A source of which a row takes at most a number of bytes.
struct LimitedSource {
    source: Source,
    left: Rc<Cell<u64>>,
}

impl Read for LimitedSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.left.get()).unwrap_or(usize::MAX);
        if left == 0 {
            return Err(io::Error::other("a row is longer than the longest entry"));
        }
        let room = buffer.len().min(left);
        let read = self.source.read(buffer.get_mut(..room).unwrap_or_default())?;
        self.left.set(self.left.get().saturating_sub(read as u64));
        Ok(read)
    }
}
