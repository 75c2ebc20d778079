//! `export`.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bitcask::{Expiry, Reader, Snapshot};
use clap::{Args, ValueEnum};

use crate::exit::Exit;
use crate::failure::{Failure, say};
use crate::interrupt::{self, StoppableWork};
use crate::output::bytes::encoded;
use crate::program::Program;
use crate::progress::Progress;
use crate::record::LineOut;
use crate::{input, open, units};

/// Writes the store as it is at one moment, in the order of the keys. Other processes may write to
/// it meanwhile.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The file; without it, or with `-`, the pairs go to standard output.
    file: Option<OsString>,
    /// The form [default: csv if the file's name ends in .csv, otherwise json].
    #[arg(long, value_name = "FORM")]
    format: Option<FileForm>,
    /// Writes only the pairs whose keys begin with this.
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: OsString,
}

/// The form of a file of pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileForm {
    /// JSON lines: one object per pair, with base64 where bytes are not text.
    Json,
    /// CSV with a heading: key, value, `expires_at`. With --base64, keys and values are base64.
    Csv,
}

impl FileForm {
    /// Returns the form that was chosen, or that the file's name suggests.
    pub(crate) fn of(chosen: Option<Self>, file: Option<&OsString>) -> Self {
        let is_csv = |file: &OsString| {
            Path::new(file).extension().is_some_and(|found| found.eq_ignore_ascii_case("csv"))
        };
        chosen.unwrap_or(if file.is_some_and(is_csv) { Self::Csv } else { Self::Json })
    }
}

pub(crate) fn run(args: &ExportArgs, program: &mut Program) -> Result<Exit, Failure> {
    let base64 = program.base64();
    let prefix = input::key(&args.prefix, base64)?;
    let db = open::read_only(program)?;
    let (total, form) = (db.len()?, FileForm::of(args.format, args.file.as_ref()));
    let snapshot = db.snapshot();
    let mut target = ExportTarget::create(args.file.as_ref())?;
    let written = {
        let _stoppable = StoppableWork::begin();
        // The number of keys with a prefix is not known.
        let progress = Progress::counting("exporting", prefix.is_empty().then_some(total));
        let path = target.path.clone();
        let mut rows = Rows::new(form, base64, path, &mut target.out);
        write(&snapshot, &prefix, &mut rows, &progress)
    };
    match written {
        Ok(count) => {
            target.finish()?;
            if args.file.as_ref().is_some_and(|file| file != "-") {
                say(format_args!("{} exported", units::count(count, "pair", "pairs")));
            }
            Ok(Exit::Done)
        }
        Err(failure) => {
            target.abandon();
            Err(failure)
        }
    }
}

/// Writes all pairs of a snapshot. Returns their number.
fn write(
    snapshot: &Snapshot,
    prefix: &[u8],
    rows: &mut Rows<'_>,
    progress: &Progress,
) -> Result<u64, Failure> {
    let mut count = 0;
    rows.head().map_err(|error| rows.failed(&error))?;
    let mut entries = snapshot.prefix(prefix);
    while let Some(entry) = entries.next_with_expiry() {
        interrupt::check()?;
        let (key, value, expiry) = entry?;
        // The store that gets the pairs does not follow.
        if key == Reader::FOLLOW_KEY {
            continue;
        }
        let expires_at = match expiry {
            Expiry::At(time) => Some(time),
            _ => None,
        };
        rows.pair(&key, &value, expires_at).map_err(|error| rows.failed(&error))?;
        count += 1;
        progress.add(1);
    }
    rows.flush().map_err(|error| rows.failed(&error))?;
    Ok(count)
}

/// Pairs in the form of a file.
struct Rows<'a> {
    out: RowsOut<'a>,
    base64: bool,
    /// The path of the file, unless it is standard output.
    path: Option<PathBuf>,
}

enum RowsOut<'a> {
    Json(&'a mut dyn Write),
    Csv(Box<csv::Writer<&'a mut dyn Write>>),
}

impl<'a> Rows<'a> {
    fn new(form: FileForm, base64: bool, path: Option<PathBuf>, out: &'a mut dyn Write) -> Self {
        let out = match form {
            FileForm::Json => RowsOut::Json(out),
            FileForm::Csv => RowsOut::Csv(Box::new(csv::Writer::from_writer(out))),
        };
        Self { out, base64, path }
    }

    /// Returns the failure to write.
    fn failed(&self, error: &io::Error) -> Failure {
        failed(self.path.as_deref(), error)
    }

    fn head(&mut self) -> io::Result<()> {
        match &mut self.out {
            RowsOut::Json(_) => Ok(()),
            RowsOut::Csv(csv) if self.base64 => {
                csv.write_record(["key_base64", "value_base64", "expires_at"]).map_err(of_csv)
            }
            RowsOut::Csv(csv) => csv.write_record(["key", "value", "expires_at"]).map_err(of_csv),
        }
    }

    fn pair(&mut self, key: &[u8], value: &[u8], expires_at: Option<SystemTime>) -> io::Result<()> {
        let time = || expires_at.map(units::show_time).unwrap_or_default();
        match &mut self.out {
            RowsOut::Json(out) => {
                let line = LineOut::new(key, self.base64).value(value, self.base64);
                serde_json::to_writer(&mut *out, &line.expires_at(expires_at))?;
                writeln!(out)
            }
            RowsOut::Csv(csv) if self.base64 => {
                csv.write_record([encoded(key), encoded(value), time()]).map_err(of_csv)
            }
            RowsOut::Csv(csv) => csv.write_record([key, value, time().as_bytes()]).map_err(of_csv),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.out {
            RowsOut::Json(out) => out.flush(),
            RowsOut::Csv(csv) => csv.flush(),
        }
    }
}

/// Returns the error of a write as it was before the CSV writer has wrapped it: a closed pipe has
/// to remain one.
fn of_csv(error: csv::Error) -> io::Error {
    let what = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        _ => io::Error::other(what),
    }
}

/// Returns the failure to write to a file, or to standard output without a path.
fn failed(path: Option<&Path>, error: &io::Error) -> Failure {
    match path {
        Some(path) if error.kind() != io::ErrorKind::BrokenPipe => {
            Failure::file("write", path, error)
        }
        _ => Failure::output(error),
    }
}

/// Where an export goes.
struct ExportTarget {
    out: BufWriter<Box<dyn Write>>,
    /// The path that the user has named, unless it is standard output.
    path: Option<PathBuf>,
    /// The file under its temporary name, and its final path.
    file: Option<(PathBuf, PathBuf)>,
}

impl ExportTarget {
    /// Begins to write a file, or to standard output. The file gets its name at the end, so it is
    /// complete or does not exist. A device or a pipe is written to as it is.
    fn create(file: Option<&OsString>) -> Result<Self, Failure> {
        let path = match file {
            Some(path) if path != "-" => PathBuf::from(path),
            _ => return Ok(Self::of(Box::new(io::stdout()), None, None)),
        };
        if fs::metadata(&path).is_ok_and(|meta| !meta.is_file()) {
            // Opening a named pipe waits for its reader.
            let opened = interrupt::at_once(|| OpenOptions::new().write(true).open(&path))?;
            let opened = opened.map_err(|error| Failure::file("write", &path, &error))?;
            return Ok(Self::of(Box::new(opened), Some(path), None));
        }
        // A symbolic link stays one: the file that it leads to is replaced.
        let target = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        let mut temporary = target.clone().into_os_string();
        temporary.push(format!(".{}.tmp", std::process::id()));
        let temporary = PathBuf::from(temporary);
        let created = File::create_new(&temporary);
        let created = created.map_err(|error| Failure::file("create", &temporary, &error))?;
        Ok(Self::of(Box::new(created), Some(path), Some((temporary, target))))
    }

    fn of(out: Box<dyn Write>, path: Option<PathBuf>, file: Option<(PathBuf, PathBuf)>) -> Self {
        Self { out: BufWriter::new(out), path, file }
    }

    fn finish(mut self) -> Result<(), Failure> {
        let flushed = self.out.flush();
        let Some((temporary, target)) = &self.file else {
            return flushed.map_err(|error| failed(self.path.as_deref(), &error));
        };
        let finished = flushed
            .and_then(|()| File::open(temporary)?.sync_all())
            .and_then(|()| fs::rename(temporary, target));
        finished.map_err(|error| {
            let _ = fs::remove_file(temporary);
            failed(self.path.as_deref(), &error)
        })
    }

    fn abandon(self) {
        // What is buffered must not be written now that the file is removed, or the pipe closed.
        let (out, _) = self.out.into_parts();
        drop(out);
        if let Some((temporary, _)) = &self.file {
            let _ = fs::remove_file(temporary);
        }
    }
}
