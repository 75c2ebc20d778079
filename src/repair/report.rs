//! The reports of verification and salvage, and how they are printed.

use std::fmt;
use std::path::PathBuf;

use crate::error::{Result, counted};
use crate::recovery::RecoveryReport;
use crate::store::Damage;

/// The findings of [`verify`](super::verify). Its `Display` output is meant for people.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "a diagnosis may contain damage"]
pub struct Diagnosis {
    /// What opening the store for writing would do now (cut off and set aside, remove, and
    /// rebuild), or the error with which it would fail.
    pub opening: Result<RecoveryReport>,
    /// Segments that were read.
    pub segments: u64,
    /// Valid puts and deletes, including dead ones.
    pub entries: u64,
    /// Deletes among these entries.
    pub tombstones: u64,
    /// Total size of the intact entries in bytes, without segment headers.
    pub size: u64,
    /// Written data that is missing or can't be read, or a manifest that can't be relied on.
    pub damage: Vec<Damage>,
    /// Where the log ends in invalid bytes with nothing valid after them. A crash leaves such
    /// remains of writes that were not durable yet. Opening sets them aside.
    pub torn: Vec<Damage>,
    /// Problems of hints and indexes. They cost only the time to rebuild the files. If a file's
    /// checksums match but its contents do not match its segment, the reason says to delete the
    /// file.
    pub derived: Vec<Damage>,
    /// Files that nothing needs any more, and that opening removes. While a writer has the store
    /// open, these may be files that a merge is writing.
    pub leftovers: Vec<PathBuf>,
    /// Files that earlier recoveries have set aside.
    pub quarantine: Vec<PathBuf>,
    /// Whether the progress callback has ended the verification early. The figures and findings
    /// then cover only some of the segments.
    pub cancelled: bool,
}

impl Diagnosis {
    /// Returns whether everything was read and no written data is missing. Derived files do not
    /// count.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty() && self.torn.is_empty() && !self.cancelled
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.opening {
            Ok(report) if report.cuts.is_empty() => writeln!(f, "the store opens")?,
            Ok(_) => writeln!(f, "the store opens, and sets something aside:")?,
            Err(error) => writeln!(f, "the store does not open: {error}")?,
        }
        for cut in self.opening.iter().flat_map(|report| &report.cuts) {
            let (path, reason) = (cut.path.display(), &cut.reason);
            writeln!(f, "  {} bytes of {path} from offset {}: {reason}", cut.size, cut.offset)?;
        }
        list(f, "damaged, data is lost", &self.damage)?;
        list(f, "torn, as a crash leaves it", &self.torn)?;
        list(f, "derived, no data is lost", &self.derived)?;
        list(f, "left over, not needed", self.leftovers.iter().map(|path| path.display()))?;
        list(f, "set aside earlier", self.quarantine.iter().map(|path| path.display()))?;
        if self.cancelled {
            writeln!(f, "ended early: only a part of the segments was read")?;
        }
        let Self { segments, entries, tombstones, size, .. } = self;
        write!(
            f,
            "{}, {tombstones} of them deletes: {} in {}",
            counted(*entries, "valid entry", "valid entries"),
            counted(*size, "byte", "bytes"),
            counted(*segments, "segment", "segments")
        )
    }
}

fn list<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    items: impl IntoIterator<Item = T>,
) -> fmt::Result {
    for (at, item) in items.into_iter().enumerate() {
        if at == 0 {
            writeln!(f, "{title}:")?;
        }
        writeln!(f, "  {item}")?;
    }
    Ok(())
}

/// Bytes that [`salvage`](super::salvage) could not read as entries.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// The segment.
    pub path: PathBuf,
    /// Offset of the first of these bytes in the file.
    pub offset: u64,
    /// Number of bytes.
    pub size: u64,
    /// Why they are invalid.
    pub reason: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, reason) = (self.path.display(), &self.reason);
        write!(f, "{} bytes of {path} from offset {}: {reason}", self.size, self.offset)
    }
}

/// What [`salvage`](super::salvage) did. Its `Display` output is meant for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Whether the store had a manifest that could be relied on. Without one, deleted keys may be
    /// back.
    pub had_manifest: bool,
    /// Segments that were read.
    pub segments: u64,
    /// Valid puts and deletes, including dead ones.
    pub entries: u64,
    /// Keys that were copied, including expired ones.
    pub keys: u64,
    /// Size of the new store's segments, in bytes.
    pub size: u64,
    /// Problems of whole files: a manifest that can't be relied on, or a segment that is missing,
    /// belongs to another store, or has a damaged header.
    pub damage: Vec<Damage>,
    /// Bytes that could not be read.
    pub lost: Vec<Lost>,
    /// The starts of batches of which a part was copied and a part is lost.
    pub torn_batches: Vec<Damage>,
    /// Keys whose values this build can't read, up to a thousand.
    pub lost_keys: Vec<Vec<u8>>,
    /// Number of all keys whose values this build can't read.
    pub lost_key_count: u64,
    /// Files that were left out because the manifest says that nothing needs them.
    pub leftovers: Vec<PathBuf>,
    /// Files that recovery had set aside, which were not read.
    pub quarantine: Vec<PathBuf>,
    /// Whether the progress callback has ended the salvage early. In that case no new store was
    /// made.
    pub cancelled: bool,
}

impl SalvageReport {
    /// Returns whether everything that the store held was copied.
    pub fn is_complete(&self) -> bool {
        let nothing = self.damage.is_empty() && self.lost.is_empty();
        nothing && self.lost_key_count == 0 && !self.cancelled
    }
}

impl fmt::Display for SalvageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cancelled {
            return write!(f, "cancelled: nothing was copied");
        }
        list(f, "damaged", &self.damage)?;
        list(f, "could not be read", &self.lost)?;
        list(f, "batches of which a part was copied", &self.torn_batches)?;
        let keys = self.lost_keys.iter().map(|key| key.escape_ascii());
        list(f, "keys whose values this build can't read", keys)?;
        list(f, "left out, not needed", self.leftovers.iter().map(|path| path.display()))?;
        list(f, "set aside earlier, not read", self.quarantine.iter().map(|path| path.display()))?;
        if !self.had_manifest {
            writeln!(f, "the store had no manifest to rely on: deleted keys may be back")?;
        }
        let Self { keys, size, entries, segments, .. } = self;
        write!(
            f,
            "{} copied, {}, from {} in {}",
            counted(*keys, "key", "keys"),
            counted(*size, "byte", "bytes"),
            counted(*entries, "entry", "entries"),
            counted(*segments, "segment", "segments")
        )
    }
}

/// The progress of a salvage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageProgress {
    /// Bytes that have been read. Bytes that are read several times count each time.
    pub size_done: u64,
    /// Bytes to be read.
    pub size_total: u64,
    /// Keys that have been copied.
    pub keys: u64,
}
