//! What an import has done, and how far it is.

use std::fmt;
use std::path::PathBuf;

use crate::error::counted;

/// Maximum number of listed skips.
const SKIPPED_MAX: usize = 1000;

/// Bytes of the source that were not imported.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Offset of the first of these bytes in the file.
    pub offset: u64,
    /// Number of bytes.
    pub size: u64,
    /// Why they were not imported.
    pub reason: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, reason) = (self.path.display(), &self.reason);
        write!(f, "{} bytes of {path} from offset {}: {reason}", self.size, self.offset)
    }
}

/// What an import did. Its `Display` output is meant for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportReport {
    /// Files that were read.
    pub files: u64,
    /// Valid records in them: puts and deletes, including those that a later record of the same
    /// key replaces.
    pub records: u64,
    /// Deletes among these records.
    pub deletes: u64,
    /// Keys that exist in the source, including expired ones.
    pub keys: u64,
    /// Keys that were written to the store.
    pub written: u64,
    /// Total size of the keys and values that were written, in bytes.
    pub written_size: u64,
    /// Keys that the store already had, with the same value and expiry.
    pub unchanged: u64,
    /// Keys that the store already had with another value or expiry, and that were left alone
    /// because of [`overwrite(false)`](super::ImportOptions::overwrite).
    pub kept: u64,
    /// Keys that were left out because they have expired.
    pub expired: u64,
    /// Bytes that are no valid records, or whose pairs the store does not accept. The first
    /// thousand of them are listed.
    pub skipped: Vec<Skipped>,
    /// Number of all skips, also those that are not listed.
    pub skipped_count: u64,
    /// Files that were not read, because their permissions say that a merge has copied their
    /// content. Only Basho's bitcask has such files.
    pub leftovers: Vec<PathBuf>,
    /// Whether the permissions of all files say so. They then come from a file system that has no
    /// permissions, such as FAT or a network share, and all files were read. If one of them was a
    /// leftover of a merge after all, keys that were deleted may be back.
    pub marks_ignored: bool,
    /// Whether the progress callback has ended the import early.
    pub cancelled: bool,
}

impl ImportReport {
    /// Returns whether everything that the source holds is in the store. Keys that have expired,
    /// and those that were left alone on request, do not count.
    pub fn is_complete(&self) -> bool {
        self.skipped_count == 0 && !self.cancelled
    }

    pub(super) fn skip(&mut self, skipped: Skipped) {
        self.skipped_count += 1;
        if self.skipped.len() < SKIPPED_MAX {
            self.skipped.push(skipped);
        }
    }
}

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for skipped in &self.skipped {
            writeln!(f, "skipped {skipped}")?;
        }
        let rest = self.skipped_count.saturating_sub(self.skipped.len() as u64);
        if rest > 0 {
            writeln!(f, "skipped {rest} more")?;
        }
        for path in &self.leftovers {
            writeln!(f, "not read, since a merge has copied its content: {}", path.display())?;
        }
        if self.marks_ignored {
            writeln!(
                f,
                "all files were read, although their permissions mark them as merged: copy them \
                 from a file system that keeps permissions if deleted keys are back"
            )?;
        }
        let counts = [
            (self.unchanged, "key was there already", "keys were there already"),
            (
                self.kept,
                "key had another value and was left alone",
                "keys had another value and were left alone",
            ),
            (self.expired, "key had expired", "keys had expired"),
        ];
        for (count, one, many) in counts.iter().filter(|(count, ..)| *count > 0) {
            writeln!(f, "{}", counted(*count, one, many))?;
        }
        if self.cancelled {
            writeln!(f, "stopped early: run the import again to complete it")?;
        }
        let Self { files, records, keys, written, written_size, .. } = self;
        write!(
            f,
            "{} written, {}, of {} in {} in {}",
            counted(*written, "key", "keys"),
            counted(*written_size, "byte", "bytes"),
            counted(*keys, "key", "keys"),
            counted(*records, "record", "records"),
            counted(*files, "file", "files")
        )
    }
}

/// The progress of an import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportProgress {
    /// Bytes that have been read. Each file is read twice: to find the newest record of each key,
    /// and to copy it.
    pub size_done: u64,
    /// Bytes to be read. It rises if there are so many keys that the source has to be read more
    /// often.
    pub size_total: u64,
    /// Valid records that were found so far.
    pub records: u64,
    /// Keys that were written to the store so far.
    pub written: u64,
}
