//! Disks for the tests of recovery: how they were written, and how they are compared.
//!
//! - A [`Story`] is a store that was written to, with its content and the end of its log after each
//!   write. So the state for any prefix of the log is known.
//! - [`files`] returns the content of a disk. It leaves out `LOCK`, which holds only a process id.

use super::*;
use crate::options::WriteOptions;

/// The content of a disk, without the lock file.
pub(super) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Returns all files of a disk except the lock file.
pub(super) fn files(twin: &Twin) -> Files {
    let ours = twin.files().into_iter().filter(|path| !path.ends_with("LOCK"));
    ours.map(|path| (path.clone(), twin.contents(&path).unwrap())).collect()
}

/// Returns the quarantined bytes of a disk, by the place they come from.
pub(super) fn quarantine(twin: &Twin) -> BTreeMap<Place, Vec<u8>> {
    let mut found = BTreeMap::new();
    for (path, bytes) in files(twin) {
        let Ok(name) = path.strip_prefix(Path::new(DIR).join("quarantine")) else { continue };
        let name = name.to_str().unwrap().strip_suffix(".bytes").unwrap();
        let (id, offset) = name.split_once('-').unwrap();
        let place = Place::new(SegmentId(id.parse().unwrap()), offset.parse().unwrap());
        assert_eq!(twin.contents(&path), Some(bytes.clone()));
        found.insert(place, bytes);
    }
    found
}

/// Returns the offset after the last nonzero byte.
pub(super) fn content_end(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// A deterministic source of pseudo-random numbers (`SplitMix64`).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Fills a slice with random nonzero bytes.
    pub(super) fn garbage(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| u8::try_from(1 + self.below(255)).unwrap());
    }
}

/// Returns whether a test should be thorough rather than quick.
pub(super) fn long() -> bool {
    std::env::var_os("BITCASK_LONG").is_some()
}

/// The state after a write.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// The end of the write's last entry, including padding.
    pub(super) end: Place,
    pub(super) pairs: Pairs,
}

/// A store that is written to, and its content after each write.
pub(super) struct Story {
    pub(super) lab: Lab,
    pub(super) db: Bitcask,
    /// The first step is the empty store, or the content that the story began with.
    pub(super) steps: Vec<Step>,
}

impl Story {
    pub(super) fn begin(lab: Lab) -> Self {
        let db = lab.open();
        let start = Step { end: Place::new(SegmentId(0), 0), pairs: snapshot(&db) };
        Self { lab, db, steps: vec![start] }
    }

    pub(super) fn pairs(&self) -> &Pairs {
        &self.steps.last().unwrap().pairs
    }

    fn wrote(&mut self, pairs: Pairs) {
        let end = self.db.inner.writer().unwrap().log.lock().end();
        self.steps.push(Step { end, pairs });
    }

    pub(super) fn put(&mut self, key: &str, value: &str) {
        self.put_opt(key, value, WriteOptions::new());
    }

    /// Puts a key. A time to live must outlast the test.
    pub(super) fn put_opt(&mut self, key: &str, value: &str, options: WriteOptions) {
        self.db.put_opt(key, value, options).unwrap();
        let mut pairs = self.pairs().clone();
        pairs.insert(key.into(), value.into());
        self.wrote(pairs);
    }

    pub(super) fn delete(&mut self, key: &str) {
        assert!(self.db.delete(key).unwrap());
        let mut pairs = self.pairs().clone();
        pairs.remove(key.as_bytes());
        self.wrote(pairs);
    }

    pub(super) fn batch(&mut self, puts: &[(&str, &str)], deletes: &[&str]) {
        let mut batch = Batch::new();
        let mut pairs = self.pairs().clone();
        for (key, value) in puts {
            batch.put(key, value);
            pairs.insert((*key).into(), (*value).into());
        }
        for key in deletes {
            batch.delete(key);
            pairs.remove(key.as_bytes());
        }
        self.db.write(&batch).unwrap();
        self.wrote(pairs);
    }

    pub(super) fn sync(&self) {
        self.db.sync().unwrap();
    }

    pub(super) fn seal(&self) {
        self.db.inner.seal_rotated().unwrap();
    }

    /// Returns the store as the death of its process leaves it, and ends the story.
    pub(super) fn killed(self) -> Told {
        let lab = self.lab.on(self.lab.twin.kill_image_now().fork());
        kill(self.db);
        Told { cores: cores(&lab), lab, steps: self.steps }
    }
}

/// A finished story: a disk, and the states that prefixes of its log stand for.
pub(super) struct Told {
    pub(super) lab: Lab,
    pub(super) steps: Vec<Step>,
    /// By the end of each entry with padding: its end without padding.
    cores: BTreeMap<Place, Place>,
}

fn cores(lab: &Lab) -> BTreeMap<Place, Place> {
    let core = |entry: &LogEntry| {
        let optional = u64::from(entry.expiry.is_some()) + u64::from(entry.mark.is_some());
        let raw_size = if entry.raw_size.is_some() { 4 } else { 0 };
        let size = 20 + 8 * optional + raw_size + (entry.key.len() + entry.value.len()) as u64;
        let Place { segment, offset } = entry.place;
        let end = Place::new(segment, (offset + size).next_multiple_of(8));
        (end, Place::new(segment, offset + size))
    };
    log_entries(lab).iter().map(core).collect()
}

impl Told {
    /// Returns a new copy of the disk as the story left it.
    pub(super) fn disk(&self) -> Arc<Twin> {
        self.lab.twin.fork()
    }

    pub(super) fn last(&self) -> &Pairs {
        &self.steps.last().unwrap().pairs
    }

    /// Returns the end of a segment's entries, including its end entry.
    pub(super) fn end_of(&self, id: SegmentId) -> u64 {
        let ends = self.cores.keys().filter(|end| end.segment == id);
        ends.map(|end| end.offset).max().unwrap_or(FIRST_OFFSET)
    }

    /// Returns the first offset whose changed byte matters. Padding does not matter, as long as it
    /// is present.
    pub(super) fn first_difference(&self, id: SegmentId, before: &[u8], after: &[u8]) -> usize {
        let padding = |at: usize| {
            let at = Place::new(id, at as u64);
            self.cores.range(at..).find(|(end, _)| **end > at).is_some_and(|(_, core)| *core <= at)
        };
        let same = |at: usize| match after.get(at) {
            Some(byte) => *byte == before[at] || padding(at),
            None => false,
        };
        (0..before.len()).find(|at| !same(*at)).unwrap_or(before.len())
    }

    /// Returns the state after the writes that lie entirely before a place, and the end of the log
    /// then, which is at least in `first`, the oldest unsealed segment.
    pub(super) fn before(&self, place: Place, first: SegmentId) -> Step {
        let step = self.steps.iter().take_while(|step| step.end <= place).last().unwrap();
        let start = Place::new(first.max(place.segment), FIRST_OFFSET);
        Step { end: step.end.max(start), pairs: step.pairs.clone() }
    }
}
