//! Results on standard output.
//!
//! - Three forms: plain lines for pipes and scripts, tables for people, JSON for programs.
//! - Keys and values can be any bytes. In plain form, a pipe gets exactly these bytes, and a
//!   terminal gets them escaped, so that no value can control it. Tables escape them always. JSON
//!   has text where the bytes are text, and base64 otherwise.
//! - What goes to standard output does not pass through anything that removes escape sequences:
//!   those of a value belong to the value.

pub(crate) mod bytes;
mod figures;

use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _};

use anstream::AutoStream;
use clap::ValueEnum;
use serde::Serialize;

use crate::failure::Failure;
use bytes::{encoded, escaped, escaped_lines};

pub(crate) use figures::Figure;

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns with headings, for people.
    Table,
    /// One JSON object per line.
    Json,
    /// One result per line, without headings; columns are separated by tabs.
    Plain,
}

/// Number of rows that are laid out as one table. A longer listing is several tables, so that its
/// length does not matter for the memory needed.
const TABLE_LEN: usize = 1000;

/// Standard output, and how to print there.
pub(crate) struct Printer {
    pub(crate) format: Format,
    base64: bool,
    /// Whether standard output is a terminal.
    terminal: bool,
    colour: bool,
    /// What follows each result in plain form.
    end: u8,
    /// Rows of a listing that are not laid out yet.
    rows: Vec<Vec<String>>,
    headings: Vec<&'static str>,
    out: BufWriter<StdoutLock<'static>>,
}

impl std::fmt::Debug for Printer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Printer").field("format", &self.format).finish_non_exhaustive()
    }
}

impl Printer {
    pub(crate) fn new(format: Format, base64: bool) -> Self {
        let stdout = io::stdout();
        let colour = AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
        let terminal = stdout.is_terminal();
        let out = BufWriter::new(stdout.lock());
        let (rows, headings) = (Vec::new(), Vec::new());
        Self { format, base64, terminal, colour, end: b'\n', rows, headings, out }
    }

    /// Ends results with a zero byte instead of a newline, in plain form.
    pub(crate) fn end_with_zero(&mut self) {
        self.end = 0;
    }

    /// Returns whether keys and values are printed as base64.
    pub(crate) fn base64(&self) -> bool {
        self.base64
    }

    /// Prints the value of a key. In plain form, a pipe gets the value and nothing else.
    pub(crate) fn value(&mut self, value: &[u8]) -> Result<(), Failure> {
        let written = if self.base64 {
            writeln!(self.out, "{}", encoded(value))
        } else if self.terminal {
            let text = escaped_lines(value);
            let end = if text.ends_with('\n') { "" } else { "\n" };
            write!(self.out, "{text}{end}")
        } else {
            self.out.write_all(value)
        };
        written.map_err(|error| Failure::output(&error))
    }

    /// Prints keys or values, or both, of one result: as one line in plain form, and as one row of
    /// a table. There is no JSON here.
    pub(crate) fn columns(
        &mut self,
        headings: &[&'static str],
        columns: &[&[u8]],
    ) -> Result<(), Failure> {
        if self.format == Format::Table {
            let base64 = self.base64;
            let cell = |bytes: &&[u8]| if base64 { encoded(bytes) } else { escaped(bytes) };
            let row = columns.iter().map(cell).collect();
            return self.row(headings, row);
        }
        for (at, column) in columns.iter().enumerate() {
            if at > 0 {
                self.raw(b"\t")?;
            }
            if self.base64 {
                self.raw(encoded(column).as_bytes())?;
            } else if self.terminal {
                self.raw(escaped(column).as_bytes())?;
            } else {
                self.raw(column)?;
            }
        }
        self.raw(&[self.end])
    }

    /// Prints what has happened, and to which key and value. A change is printed at once and never
    /// waits for the rest of a table, so tables are plain lines here.
    pub(crate) fn change(&mut self, verb: &[u8], columns: &[&[u8]]) -> Result<(), Failure> {
        self.raw(verb)?;
        self.raw(b"\t")?;
        let format = std::mem::replace(&mut self.format, Format::Plain);
        let printed = self.columns(&[], columns);
        self.format = format;
        printed
    }

    /// Adds a row to the table of a listing.
    fn row(&mut self, headings: &[&'static str], row: Vec<String>) -> Result<(), Failure> {
        self.headings = headings.to_vec();
        self.rows.push(row);
        if self.rows.len() < TABLE_LEN { Ok(()) } else { self.lay_out() }
    }

    /// Prints the rows that were added, as a table.
    fn lay_out(&mut self) -> Result<(), Failure> {
        let rows = std::mem::take(&mut self.rows);
        let headings = std::mem::take(&mut self.headings);
        if rows.is_empty() {
            return Ok(());
        }
        let table = figures::table(&headings, rows, &[], self.colour);
        self.line(&table)
    }

    /// Prints a line of text.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.raw(text.as_bytes())?;
        self.raw(b"\n")
    }

    /// Prints a JSON object in one line.
    pub(crate) fn json<T: Serialize>(&mut self, object: &T) -> Result<(), Failure> {
        let written = serde_json::to_writer(&mut self.out, object);
        written.map_err(|error| Failure::output(&error.into()))?;
        self.raw(b"\n")
    }

    /// Prints these bytes.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|error| Failure::output(&error))
    }

    /// Writes out what is still buffered.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.lay_out()?;
        self.out.flush().map_err(|error| Failure::output(&error))
    }
}
