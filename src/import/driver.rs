//! Reads another store and writes its pairs, whatever its format.
//!
//! 1. Scan: read all records and note the newest of each key. After damage, search for the next
//!    record.
//! 2. Write: read the newest records again, in the order in which they lie in the source, and put
//!    those into the store that it does not have yet.
//!
//! Both are repeated if the keys do not fit into the table at once.

use std::ops::ControlFlow;
use std::path::Path;

use super::format::{Reach, Reject, SourceFormat};
use super::newest::NewestTable;
use super::options::{ImportCallback, ImportOptions};
use super::report::{ImportProgress, ImportReport, Skipped};
use super::source::{SourceEntry, SourceFile};
use super::writer::Importing;
use crate::error::{Error, Result};
use crate::fs::{self, Access, Fs};
use crate::store::Bitcask;

/// Number of bytes read between two progress reports, approximately.
const PROGRESS_STEP: u64 = if cfg!(any(test, bitcask_fuzzing)) { 128 } else { 1 << 20 };

/// The files of another store.
pub(super) struct SourceStore<'a> {
    pub(super) fs: &'a Fs,
    pub(super) format: &'a dyn SourceFormat,
    files: Vec<SourceEntry>,
}

/// Runs an import.
pub(super) fn import_on(
    fs: &Fs,
    from: &Path,
    to: &Bitcask,
    format: &mut dyn SourceFormat,
    mut options: ImportOptions<'_>,
) -> Result<ImportReport> {
    options.check()?;
    let mut report = ImportReport::default();
    let files = list(fs, &fs::absolute(from)?, format, &mut report)?;
    let size = files.iter().map(|entry| entry.size).sum();
    for entry in files.iter().filter(|entry| entry.size > 0) {
        if format.examine(entry, &mut SourceFile::open(fs, entry)?)?.is_break() {
            break;
        }
    }
    report.files = files.len() as u64;
    let source = SourceStore { fs, format, files };
    let mut progress = Reporter::new(size, options.progress.take());
    let flow = run(&source, to, &options, &mut progress, &mut report);
    // What was written before an error stays too.
    let synced = to.sync();
    report.cancelled = flow?.is_break();
    synced?;
    Ok(report)
}

/// Lists the files of a format in order.
fn list(
    fs: &Fs,
    dir: &Path,
    format: &dyn SourceFormat,
    report: &mut ImportReport,
) -> Result<Vec<SourceEntry>> {
    let unsuitable = |reason: String| Error::InvalidSource { path: dir.into(), reason };
    match fs.is_dir(dir)? {
        Some(true) => {}
        Some(false) => return Err(unsuitable("it is not a directory".into())),
        None => return Err(unsuitable("it does not exist".into())),
    }
    let names = fs.list(dir)?.into_iter().filter(|entry| entry.is_file);
    let numbered = names.filter_map(|entry| Some((format.file_number(&entry.name)?, entry.name)));
    let mut numbered: Vec<_> = numbered.collect();
    numbered.sort();
    let mut found = Vec::new();
    for (_, name) in numbered {
        let path = dir.join(name);
        let file = fs.open(&path, Access::Read)?;
        found.push((format.is_leftover(file.mode()?), path, file.size()?));
    }
    if found.is_empty() {
        let name = format.file_name();
        return Err(unsuitable(format!(
            "it has no file named {name}; name the directory with them"
        )));
    }
    // A merge never marks the files that it writes. If all are marked, the mode is that of a file
    // system without permissions, and says nothing.
    report.marks_ignored = found.iter().all(|(is_leftover, ..)| *is_leftover);
    let (mut files, mut start) = (Vec::new(), 0);
    for (is_leftover, path, size) in found {
        if is_leftover && !report.marks_ignored {
            report.leftovers.push(path);
            continue;
        }
        files.push(SourceEntry { path, size, start });
        start += size;
    }
    Ok(files)
}

fn run(
    source: &SourceStore<'_>,
    to: &Bitcask,
    options: &ImportOptions<'_>,
    progress: &mut Reporter<'_>,
    report: &mut ImportReport,
) -> Result<ControlFlow<()>> {
    let mut table = NewestTable::new(options.memory_max);
    let mut is_first = true;
    loop {
        for entry in &source.files {
            if source.scan(entry, is_first, &mut table, progress, report)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        progress.end_scan(table.ranges_left());
        let puts = table.take_puts();
        report.keys += puts.len() as u64;
        let importing = Importing::new(source, to, options.overwrite, progress, report);
        if importing.write(&puts)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        progress.end_writes();
        if !table.advance() {
            return Ok(ControlFlow::Continue(()));
        }
        is_first = false;
    }
}

impl SourceStore<'_> {
    /// Returns the file in which a place lies.
    pub(super) fn entry_at(&self, place: u64) -> Option<&SourceEntry> {
        let after = self.files.partition_point(|entry| entry.start <= place);
        self.files.get(..after)?.last()
    }

    /// Reads all records of a file.
    fn scan(
        &self,
        entry: &SourceEntry,
        is_first: bool,
        table: &mut NewestTable,
        progress: &mut Reporter<'_>,
        report: &mut ImportReport,
    ) -> Result<ControlFlow<()>> {
        let mut file = SourceFile::open(self.fs, entry)?;
        let mut offset = self.format.first_offset();
        while offset < file.size() {
            let skip = |end: u64, reason: &str| {
                let (path, size) = (entry.path.clone(), end.saturating_sub(offset));
                Skipped { path, offset, size, reason: reason.into() }
            };
            let end = match self.format.record(&mut file, offset, Reach::Next) {
                Ok(record) => {
                    let is_put = record.value.is_some();
                    table.add(&record.key, record.time, entry.start + offset, is_put);
                    if is_first {
                        report.records += 1;
                        report.deletes += u64::from(!is_put);
                    }
                    record.end
                }
                Err(Reject::Failed(error)) => return Err(error),
                Err(Reject::Unusable { end, reason }) => {
                    if is_first {
                        report.skip(skip(end, reason));
                    }
                    end
                }
                Err(Reject::Invalid(reason)) => {
                    let end = self.search(&mut file, offset)?;
                    if is_first {
                        report.skip(skip(end, reason));
                    }
                    end
                }
            };
            offset = end.max(offset + 1);
            if progress.reach(offset.min(file.size()), report).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        progress.end_file(entry.size);
        Ok(progress.call(report))
    }

    /// Returns where the next record begins after damage, or the end of the file.
    ///
    /// A value may itself contain records, for example a copy of such a file. So if the header of
    /// the damaged record leads to another record, what lies in between belongs to its value,
    /// unless it turns out that the sizes in the header are what is damaged.
    fn search(&self, file: &mut SourceFile, damage: u64) -> Result<u64> {
        let size = file.size();
        file.begin_search();
        let claimed = self.format.claimed_end(file, damage)?;
        let claimed = match claimed.filter(|end| (damage + 1..=size).contains(end)) {
            Some(end) if end == size || self.begins_at(file, end)? => Some(end),
            _ => None,
        };
        for offset in damage + 1..size {
            if claimed == Some(offset) || file.is_exhausted() {
                break;
            }
            if self.begins_at(file, offset)?
                && (claimed.is_none() || self.format.ends_at(file, damage, offset)?)
            {
                return Ok(offset);
            }
        }
        Ok(claimed.unwrap_or(size))
    }

    /// Returns whether a search finds a record at an offset.
    fn begins_at(&self, file: &mut SourceFile, offset: u64) -> Result<bool> {
        match self.format.record(file, offset, Reach::Search) {
            Ok(_) | Err(Reject::Unusable { .. }) => Ok(true),
            Err(Reject::Invalid(_)) => Ok(false),
            Err(Reject::Failed(error)) => Err(error),
        }
    }
}

/// Counts what was read, and reports it.
pub(super) struct Reporter<'a> {
    /// Size of the source.
    size: u64,
    /// Bytes of the files and the rounds that have ended.
    ended: u64,
    /// Bytes at the last report.
    reported: u64,
    progress: ImportProgress,
    callback: Option<ImportCallback<'a>>,
}

impl<'a> Reporter<'a> {
    fn new(size: u64, callback: Option<ImportCallback<'a>>) -> Self {
        let progress = ImportProgress { size_total: 2 * size, ..ImportProgress::default() };
        Self { size, ended: 0, reported: 0, progress, callback }
    }

    /// Notes how far a file, or a round of writes, has been read. Reports it from time to time.
    pub(super) fn reach(&mut self, offset: u64, report: &ImportReport) -> ControlFlow<()> {
        self.progress.size_done = self.ended + offset;
        if self.progress.size_done < self.reported.saturating_add(PROGRESS_STEP) {
            return ControlFlow::Continue(());
        }
        self.call(report)
    }

    /// Reports the progress.
    pub(super) fn call(&mut self, report: &ImportReport) -> ControlFlow<()> {
        self.reported = self.progress.size_done;
        (self.progress.records, self.progress.written) = (report.records, report.written);
        self.callback.as_mut().map_or(ControlFlow::Continue(()), |call| call(&self.progress))
    }

    fn end_file(&mut self, size: u64) {
        self.ended += size;
        self.progress.size_done = self.ended;
    }

    fn end_scan(&mut self, rounds: u64) {
        let scanned = self.ended.saturating_sub(self.size);
        let rounds = self.size.saturating_mul(2).saturating_mul(rounds);
        self.progress.size_total = scanned.saturating_add(rounds);
    }

    fn end_writes(&mut self) {
        self.ended += self.size;
        self.progress.size_done = self.ended;
    }
}
