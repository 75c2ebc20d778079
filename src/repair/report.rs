//! What looking at a store and saving it have to tell; how people read it.

use std::fmt;
use std::path::PathBuf;

use crate::error::Result;
use crate::recovery::RecoveryReport;
use crate::store::Damage;

/// What [`verify`](super::verify) has found. Printed, it is for people.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "a diagnosis tells of damage"]
pub struct Diagnosis {
    /// What opening the store for writing would do now: what it would cut off and set aside, remove,
    /// and build anew; or the error that it would refuse with.
    pub opening: Result<RecoveryReport>,
    /// Segments that were read.
    pub segments: u64,
    /// Puts and deletes in them that check, dead ones too.
    pub entries: u64,
    /// Those of them that are deletes.
    pub tombstones: u64,
    /// Bytes of all that checks: entries, not headers.
    pub size: u64,
    /// What was written and is not there any more, or can't be told from what is: data is lost, or the
    /// manifest is.
    pub damage: Vec<Damage>,
    /// Where the log ends in bytes that don't check, with nothing behind them that does. This is what a
    /// crash leaves of writes that were not yet durable; opening sets it aside.
    pub torn: Vec<Damage>,
    /// What is wrong with hints and indexes: that costs the time to build them anew and nothing else.
    /// One that checks and says something else than its segment is to be deleted, says its reason.
    pub derived: Vec<Damage>,
    /// Files that nothing needs any more, and that opening removes. Beside a writer they may be what a
    /// merge is just writing.
    pub leftovers: Vec<PathBuf>,
    /// What earlier recoveries have set aside.
    pub quarantine: Vec<PathBuf>,
}

impl Diagnosis {
    /// Returns whether everything was read, and all that was written is there. What is
    /// derived does not count.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty() && self.torn.is_empty()
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
        let Self { segments, entries, tombstones, size, .. } = self;
        write!(
            f,
            "{entries} entries check, {tombstones} of them deletes: {size} bytes in {segments} segments"
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
    /// Where they start, in bytes from the start of the file.
    pub offset: u64,
    /// How many there are.
    pub size: u64,
    /// What does not check.
    pub reason: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, reason) = (self.path.display(), &self.reason);
        write!(f, "{} bytes of {path} from offset {}: {reason}", self.size, self.offset)
    }
}

/// What [`salvage`](super::salvage) has done. Printed, it is for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Whether there was a manifest that could be relied on. Without one deleted keys may be back.
    pub had_manifest: bool,
    /// Segments that were read.
    pub segments: u64,
    /// Puts and deletes in them that check, dead ones too.
    pub entries: u64,
    /// Keys that were copied, expired ones among them.
    pub keys: u64,
    /// Bytes of the segments of the new store.
    pub size: u64,
    /// What is wrong with files as a whole: a manifest that can't be relied on, a segment that is
    /// missing, belongs to another store, or has a damaged header.
    pub damage: Vec<Damage>,
    /// What could not be read.
    pub lost: Vec<Lost>,
    /// Where batches start that have lost a part, while another part was copied.
    pub torn_batches: Vec<Damage>,
    /// Keys whose values this build can't read: the first thousand of them.
    pub lost_keys: Vec<Vec<u8>>,
    /// How many such keys there are.
    pub lost_key_count: u64,
    /// Files that were left out, since the manifest says that nothing needs them.
    pub leftovers: Vec<PathBuf>,
    /// What recovery had set aside, and was not read.
    pub quarantine: Vec<PathBuf>,
    /// Whether the progress callback has ended it early. Then there is no new store.
    pub cancelled: bool,
}

impl SalvageReport {
    /// Returns whether all that the store held was copied.
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
            writeln!(f, "there was no manifest to rely on: deleted keys may be back")?;
        }
        let Self { keys, size, entries, segments, .. } = self;
        write!(f, "{keys} keys copied, {size} bytes, from {entries} entries in {segments} segments")
    }
}

/// How far a salvage has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageProgress {
    /// Bytes that have been read, each as often as it was.
    pub size_done: u64,
    /// Bytes to be read.
    pub size_total: u64,
    /// Keys that have been copied.
    pub keys: u64,
}
