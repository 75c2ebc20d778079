//! CSV files of pairs.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder};

use super::TextImport;
use crate::failure::Failure;
use crate::input::{BUFFER_SIZE, Source};
use crate::output::bytes::decoded;
use crate::record::{Life, RecordedChange, RecordedLine};
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
    /// Finds the columns by their headings. With `base64`, all keys and values are base64.
    fn of(headings: &ByteRecord, base64: bool) -> Result<Self, String> {
        let find =
            |name: &str| headings.iter().position(|found| found.trim_ascii() == name.as_bytes());
        let one_of = |name: &str| match (find(name), find(&format!("{name}_base64"))) {
            (Some(at), None) => Ok((at, base64)),
            (None, Some(at)) => Ok((at, true)),
            _ => Err(format!("the first line needs a heading `{name}` or `{name}_base64`")),
        };
        let ((key, key_base64), (value, value_base64)) = (one_of("key")?, one_of("value")?);
        let (expires_at, ttl) = (find("expires_at"), find("ttl"));
        Ok(Self { key, key_base64, value, value_base64, expires_at, ttl })
    }

    /// Returns whether a row says when its key expires.
    fn has_expiry(&self) -> bool {
        self.expires_at.is_some() || self.ttl.is_some()
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

/// A row that follows the last one of each file. A quote that does not end swallows it.
const END: &[u8] = b"\n\0end of file\0\n";

/// Reads all rows of a file.
pub(super) fn rows(source: Source, importing: &mut TextImport<'_>) -> Result<(), Failure> {
    let path = source.path().to_path_buf();
    let (base64, size_max) = (importing.base64, importing.limits.line_size());
    let state = CsvState::new(importing, size_max);
    let input = CsvInput { source, state: &state, ends_line: true, end: END };
    let mut reader = ReaderBuilder::new()
        .buffer_capacity(BUFFER_SIZE)
        // The row at the end has one field. `check_whole` counts those of the others.
        .flexible(true)
        .from_reader(input);
    let wrong = |line: u64, reason: &str| {
        let what = format!("{}, line {line}: {reason}", path.display());
        Failure::usage(what, "correct the line, and run the command again")
    };
    let headings = reader.byte_headers().cloned();
    let headings = headings.map_err(|error| state.failed(error, &path))?;
    if is_open(&headings) {
        return Err(wrong(1, OPEN));
    }
    let layout = CsvColumns::of(&headings, base64).map_err(|reason| wrong(1, &reason))?;
    let mut row = ByteRecord::new();
    loop {
        state.left.set(size_max);
        let found = reader.read_byte_record(&mut row);
        let found = found.map_err(|error| state.failed(error, &path))?;
        let line = row.position().map_or(0, csv::Position::line);
        let is_end = |field: &[u8]| field == END.trim_ascii();
        if !found || row.len() == 1 && row.get(0).is_some_and(is_end) {
            return Ok(());
        }
        let mut importing = state.importing.borrow_mut();
        let read = check_whole(&row, headings.len(), &layout, state.is_cut.get());
        let change = read.and_then(|()| layout.read(&row));
        let change = change.and_then(|change| importing.limits.check(&change).map(|()| change));
        let change = change.map_err(|reason| wrong(line, &reason))?;
        importing.add(RecordedLine { change, position: None }, reader.position().byte())?;
    }
}

/// Returns whether the last field of a row has no end, and so has all that follows in it.
fn is_open(row: &ByteRecord) -> bool {
    row.iter().next_back().is_some_and(|field| field.ends_with(END))
}

/// What is wrong with such a row.
const OPEN: &str = "a quoted field has no end";

/// Says whether a part of a row is missing.
fn check_whole(
    row: &ByteRecord,
    len: usize,
    layout: &CsvColumns,
    is_cut: bool,
) -> Result<(), String> {
    if is_open(row) {
        return Err(OPEN.into());
    }
    if row.len() != len {
        let fields = units::count(row.len() as u64, "field", "fields");
        return Err(format!("{fields} instead of {len}"));
    }
    if is_cut && layout.has_expiry() {
        let what = "the last line has no line end, so its expiry may be cut off";
        return Err(format!("{what}; add a line end if it is whole"));
    }
    Ok(())
}

/// What the reader of rows and its input have in common.
struct CsvState<'a, 'b> {
    importing: RefCell<&'a mut TextImport<'b>>,
    /// Number of bytes that the row may still take.
    left: Cell<u64>,
    /// Whether the file has ended without a line end.
    is_cut: Cell<bool>,
    /// Why the input could not be read.
    failure: RefCell<Option<Failure>>,
}

impl<'a, 'b> CsvState<'a, 'b> {
    fn new(importing: &'a mut TextImport<'b>, size_max: u64) -> Self {
        Self {
            importing: RefCell::new(importing),
            left: Cell::new(size_max),
            is_cut: Cell::new(false),
            failure: RefCell::new(None),
        }
    }

    fn failed(&self, error: csv::Error, path: &Path) -> Failure {
        if let Some(failure) = self.failure.take() {
            return failure;
        }
        match error.into_kind() {
            csv::ErrorKind::Io(_) if crate::interrupt::is_requested() => Failure::Interrupted,
            csv::ErrorKind::Io(error) => Failure::file("read", path, &error),
            _ => Failure::usage(format!("{} is not a CSV file", path.display()), "check the file"),
        }
    }
}

/// A source of which a row takes at most a number of bytes, with [`END`] behind it.
struct CsvInput<'a, 'b, 'c> {
    source: Source,
    state: &'c CsvState<'a, 'b>,
    /// Whether what was read so far ends with a line end.
    ends_line: bool,
    /// What is left of the row at the end.
    end: &'static [u8],
}

impl Read for CsvInput<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.state.left.get()).unwrap_or(usize::MAX);
        if left == 0 {
            return Err(io::Error::other("a row is longer than the longest entry"));
        }
        // While nobody writes, everything that was written is in the store.
        if self.source.may_wait()
            && let Err(failure) = self.state.importing.borrow_mut().flush()
        {
            self.state.failure.replace(Some(failure));
            return Err(io::Error::other("the store failed"));
        }
        let room = buffer.len().min(left);
        let buffer = buffer.get_mut(..room).unwrap_or_default();
        let read = self.source.read(buffer)?;
        self.state.left.set(self.state.left.get().saturating_sub(read as u64));
        if read == 0 {
            self.state.is_cut.set(!self.ends_line);
            return self.end.read(buffer);
        }
        let last = buffer.get(..read).and_then(<[u8]>::last);
        self.ends_line = matches!(last, Some(b'\n' | b'\r'));
        Ok(read)
    }
}
