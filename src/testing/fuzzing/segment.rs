//! Fuzzes the recovery of an unsealed log: arbitrary bytes and entries after valid segment headers.
//!
//! [`Expected::of`] computes what recovery should find, as an independent implementation of the
//! rules. It shares only the decoder of one entry with recovery.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::input::{Input, repair_entry};
use super::{DIR, IDENTITY};
use crate::clock::{Hands, Now};
use crate::entry::{ALIGNMENT, BodySum, Entry, Flags, Header, Invalid, Mark, Salt, padded};
use crate::fs::Fs;
use crate::key_hash::KeyHasher;
use crate::manifest::Manifest;
use crate::segment::header::{Kind, SegmentHeader};
use crate::segment::{Dir, FIRST_OFFSET, Place, SegmentId};
use crate::store::Env;
use crate::testing::twin::Twin;
use crate::{Bitcask, Error, MergeOptions, Options, ReadOnly, Reader, SyncPolicy};

/// The time of day, and approximately the time of the entries.
const NOW: u64 = 1_700_000_000_000_000;
/// Maximum number of segments in an input.
const SEGMENTS_MAX: u32 = 3;
/// Size in bytes of a segment's header.
const HEADER_SIZE: usize = 64;
/// Above every id.
const BOUND: SegmentId = SegmentId(9);

/// Keys and values; `None` for a value that does not decompress.
type Pairs = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Decodes arbitrary bytes as the contents of an unsealed log, and recovers it.
pub fn segment(bytes: &[u8]) {
    let logs = logs(&mut Input::new(bytes));
    let twin = disk(&logs);
    let expected = Expected::of(&logs);
    let before = files(&twin);
    let read_only = open_read_only(&twin).map(|db| check(&db, &expected));
    assert_eq!(files(&twin), before, "what only reads has changed something");
    let db = match open(&twin) {
        Ok(db) => db,
        Err(error) => {
            assert_eq!(read_only.map_err(|error| error.to_string()), Err(error.to_string()));
            expected.refused(&error);
            assert_eq!(files(&twin), before, "a refused open has changed something");
            return;
        }
    };
    assert!(read_only.is_ok(), "only the read-only open was refused: {read_only:?}");
    expected.not_refused();
    check(&db, &expected);
    check_cuts(&db, &twin, &expected);
    let mut pairs = expected.pairs.clone();
    db.put("another", "value").unwrap();
    pairs.insert(b"another".to_vec(), Some(b"value".to_vec()));
    let expected = Expected { pairs, ..expected };
    check(&db, &expected);
    db.work();
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    check(&db, &expected);
    db.close().unwrap();
    let db = open(&twin).unwrap();
    assert!(db.recovery().is_clean());
    check(&db, &expected);
}

/// Builds segments from an input: valid entries, changed entries, and arbitrary bytes.
fn logs(input: &mut Input<'_>) -> Vec<Vec<u8>> {
    let mut logs = vec![header(1)];
    let mut timestamp = NOW;
    while !input.is_empty() {
        let id = u32::try_from(logs.len()).unwrap();
        let log = logs.last_mut().unwrap();
        let start = log.len();
        timestamp += 1;
        match input.byte() % 8 {
            // The log continues in the next segment, or in one that the input chooses.
            0 => {
                let next = if input.byte() < 200 { id + 1 } else { u32::from(input.byte() % 6) };
                append(log, id, Flags::END, timestamp, (b"", &next.to_be_bytes()), input);
                if id < SEGMENTS_MAX {
                    logs.push(header(id + 1));
                }
            }
            1 => log.extend_from_slice(input.bytes()),
            2 => log.resize(start + usize::from(input.byte()), 0),
            // Something earlier is changed.
            3 => {
                let back = input.below(log.len() - HEADER_SIZE);
                if let Some(byte) = log[HEADER_SIZE..].iter_mut().nth_back(back) {
                    *byte ^= input.byte();
                }
            }
            _ => {
                let flags = input.byte();
                let key = [input.byte() % 8];
                let value = input.bytes();
                let flags = Flags::default()
                    .with_if(flags & 0b11 == 0b1, Flags::TOMBSTONE)
                    .with_if(flags & 0b11 == 0b10, Flags::EXPIRES)
                    .with_if(flags & 0b1100 == 0b100, Flags::MARK)
                    .with_if(flags & 0b11_0000 == 0b1_0000, Flags::CONTINUES)
                    .with_if(flags & 0b100_0000 != 0, Flags::COLLIDES);
                let value = if flags.has(Flags::TOMBSTONE) { b"" } else { value };
                append(log, id, flags, timestamp, (&key, value), input);
            }
        }
    }
    logs
}

fn header(id: u32) -> Vec<u8> {
    let id = SegmentId(id);
    SegmentHeader { kind: Kind::Log, id, identity: IDENTITY, created: NOW }.encode().to_vec()
}

/// Appends an entry at the next valid offset. The input chooses the contents of optional fields.
fn append(
    log: &mut Vec<u8>,
    id: u32,
    flags: Flags,
    timestamp: u64,
    (key, value): (&[u8], &[u8]),
    input: &mut Input<'_>,
) {
    let offset = padded(log.len() as u64);
    log.resize(usize::try_from(offset).unwrap(), 0);
    let (key_size, value_size) = (u16::try_from(key.len()), u32::try_from(value.len()));
    let mut header = Header::new(flags, key_size.unwrap(), value_size.unwrap());
    header.timestamp = timestamp;
    if flags.has(Flags::EXPIRES) {
        header = header.with_expiry(Some(NOW - 100 + input.below(200) as u64));
    }
    if flags.has(Flags::MARK) {
        let segment = id.saturating_sub(u32::from(input.byte() % 3 == 1));
        let offset = input.below(log.len() + 64) as u64 / ALIGNMENT * ALIGNMENT;
        header = header.with_mark(Some(Mark { segment, offset }));
    }
    let salt = Salt::new(id, offset);
    log.extend_from_slice(header.encode(BodySum::of(key, value), salt).as_slice());
    log.extend_from_slice(key);
    log.extend_from_slice(value);
    log.resize(usize::try_from(padded(log.len() as u64)).unwrap(), 0);
    // An entry whose flags and fields contradict each other does not decode, and keeps its
    // checksum.
    let start = usize::try_from(offset).unwrap();
    let _ = repair_entry(&mut log[start..], salt);
}

fn path(id: u32) -> PathBuf {
    Dir::new(DIR.into()).log(SegmentId(id))
}

fn disk(logs: &[Vec<u8>]) -> Arc<Twin> {
    let twin = Twin::new();
    let manifest = Manifest { log_exists: true, bound: BOUND, ..Manifest::new(IDENTITY) };
    let manifest = manifest.encode().into_bytes();
    twin.put_file(&Dir::new(DIR.into()).manifest(), manifest);
    for (id, log) in (1..).zip(logs) {
        twin.put_file(&path(id), log.clone());
    }
    twin
}

fn env(twin: &Arc<Twin>) -> Env {
    let (fs, clock) = (Fs::Twin(Arc::clone(twin)), Hands::new().clock());
    assert_eq!(clock.now(), NOW);
    Env { fs, clock, hasher: KeyHasher::new, threads: false }
}

fn open(twin: &Arc<Twin>) -> crate::Result<Bitcask> {
    let options = Options::new().segment_size(1024).sync_policy(SyncPolicy::Never);
    Bitcask::open_on(&env(twin), Path::new(DIR), options)
}

fn open_read_only(twin: &Arc<Twin>) -> crate::Result<ReadOnly> {
    ReadOnly::open_on(&env(twin), Path::new(DIR), Options::new())
}

fn files(twin: &Twin) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let lock = Dir::new(DIR.into()).lock();
    let paths = twin.files().into_iter().filter(|path| *path != lock);
    paths.map(|path| (path.clone(), twin.contents(&path))).collect()
}

/// What recovery should make of a log.
#[derive(Debug, Default)]
struct Expected {
    pairs: Pairs,
    /// The segments of which the log consists.
    followed: BTreeSet<u32>,
    /// Bytes that do not belong to the log, by their place.
    cuts: BTreeMap<(u32, u64), Vec<u8>>,
    /// Whether recovery may refuse the log, and whether it must.
    may_refuse: bool,
    must_refuse: bool,
}

/// Where the log ends.
struct End {
    place: Place,
    timestamp: u64,
}

impl Expected {
    fn of(logs: &[Vec<u8>]) -> Self {
        let mut expected = Self::default();
        let Some(end) = expected.follow(logs) else {
            (expected.may_refuse, expected.must_refuse) = (true, true);
            return expected;
        };
        for (id, log) in (1..).zip(logs) {
            if !expected.followed.contains(&id) {
                expected.leave((id, 0), FIRST_OFFSET, log);
            }
        }
        expected.look_after(&end, logs);
        expected
    }

    /// Follows the log to its end. Returns `None` if it can't be followed.
    fn follow(&mut self, logs: &[Vec<u8>]) -> Option<End> {
        let (mut id, mut latest) = (1_u32, 0);
        loop {
            let log = logs.get(id as usize - 1)?;
            self.followed.insert(id);
            let (mut offset, mut end, mut batch) = (FIRST_OFFSET, FIRST_OFFSET, Vec::new());
            let mut next = None;
            loop {
                let entry = match entry_at(log, id, offset) {
                    Ok(Some(entry)) => entry,
                    Err(Invalid::UnknownFlags(_) | Invalid::UnknownCodec(_)) => return None,
                    _ => break,
                };
                latest = latest.max(entry.timestamp());
                offset += entry.layout.entry_size();
                if entry.layout.flags.has(Flags::END) {
                    next = entry.value().try_into().ok().map(u32::from_be_bytes);
                    break;
                }
                batch.push(entry);
                if !entry.layout.flags.has(Flags::CONTINUES) {
                    end = offset;
                    batch.drain(..).for_each(|entry| self.apply(&entry));
                }
            }
            let next = next.filter(|_| batch.is_empty());
            let end = if next.is_some() { offset } else { end };
            self.leave((id, end), end, log);
            match next {
                Some(next) if next > id => id = next,
                Some(_) => return None,
                None => {
                    return Some(End { place: Place::new(SegmentId(id), end), timestamp: latest });
                }
            }
        }
    }

    fn apply(&mut self, entry: &Entry<'_>) {
        if !entry.layout.flags.are_of_a_put_or_delete() {
            return;
        }
        let key = entry.key().to_vec();
        if entry.layout.flags.has(Flags::TOMBSTONE) || entry.is_expired(&Now::at(NOW)) {
            self.pairs.remove(&key);
        } else {
            self.pairs.insert(key, entry.raw_value().ok().map(std::borrow::Cow::into_owned));
        }
    }

    /// Records bytes that have to be set aside, if there are any after `content_from`.
    fn leave(&mut self, place: (u32, u64), content_from: u64, log: &[u8]) {
        let end = log.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        if end as u64 > content_from {
            self.cuts.insert(place, log[usize::try_from(place.1).unwrap()..end].to_vec());
        }
    }

    /// Looks for entries after the end whose marks show that more was durable.
    fn look_after(&mut self, end: &End, logs: &[Vec<u8>]) {
        let last = end.place.segment.0;
        for (id, log) in (1..).zip(logs).skip(last as usize - 1) {
            let from = if id == last { end.place.offset } else { FIRST_OFFSET };
            for offset in (from..log.len() as u64).step_by(8) {
                let Some(header) = checked_header(log, id, offset) else { continue };
                let here = Place::new(SegmentId(id), offset);
                let is_above = |mark| end.place < Place::from(mark) && Place::from(mark) <= here;
                if header.mark.is_some_and(is_above) {
                    self.may_refuse = true;
                    self.must_refuse |= (end.timestamp..NOW + 100_000).contains(&header.timestamp);
                }
            }
        }
    }

    fn refused(&self, error: &Error) {
        assert!(self.may_refuse, "refused for no reason: {error}");
        let path = match error {
            Error::Corrupt { path, .. }
            | Error::MissingSegment { path }
            | Error::UnsupportedCodec { path, .. }
            | Error::UnsupportedFlags { path, .. } => path,
            other => panic!("{other}"),
        };
        assert!(path.starts_with(DIR), "{error}");
    }

    fn not_refused(&self) {
        assert!(!self.must_refuse, "damage to durable entries was overlooked");
    }
}

/// Returns the entry at an offset, if it is valid.
fn entry_at(log: &[u8], id: u32, offset: u64) -> Result<Option<Entry<'_>>, Invalid> {
    let rest = log.get(usize::try_from(offset).unwrap()..).ok_or(Invalid::Short)?;
    let Some(entry) = Entry::decode(rest)? else { return Ok(None) };
    entry.check(Salt::new(id, offset)).map(|()| Some(entry))
}

/// Returns the header of an entry with a correct checksum, whether or not all of it is understood.
fn checked_header(log: &[u8], id: u32, offset: u64) -> Option<Header> {
    let rest = log.get(usize::try_from(offset).unwrap()..)?;
    let entry = Entry::decode(rest).ok()??;
    let checked = entry.check(Salt::new(id, offset));
    let is_checked =
        matches!(checked, Ok(()) | Err(Invalid::UnknownFlags(_) | Invalid::UnknownCodec(_)));
    if is_checked { entry.header().ok() } else { None }
}

/// Checks that a store holds what is expected, and nothing else.
fn check(db: &Reader, expected: &Expected) {
    let mut found = Pairs::new();
    for key in db.keys_unordered() {
        let key = key.unwrap().to_vec();
        let value = match db.get(&key) {
            Ok(value) => Some(value.expect("a listed key exists").to_vec()),
            Err(Error::Corrupt { .. }) => None,
            Err(other) => panic!("{other}"),
        };
        assert_eq!(found.insert(key, value), None, "a key was listed twice");
    }
    assert_eq!(found, expected.pairs);
    for key in 0..8_u8 {
        let exists = db.contains_key([key]).unwrap();
        assert_eq!(exists, expected.pairs.contains_key([key].as_slice()), "{key}");
    }
    assert!(db.verify().unwrap().is_clean());
}

/// Checks that exactly the bytes that do not belong to the log were set aside.
fn check_cuts(db: &Bitcask, twin: &Twin, expected: &Expected) {
    let dir = Dir::new(DIR.into());
    let mut cuts = db.recovery().cuts.clone();
    cuts.sort_by_key(|cut| (cut.path.clone(), cut.offset));
    assert_eq!(cuts.len(), expected.cuts.len(), "{cuts:?}");
    for (cut, ((id, offset), bytes)) in cuts.iter().zip(&expected.cuts) {
        let aside = dir.quarantined(Place::new(SegmentId(*id), *offset));
        assert_eq!((&cut.path, cut.offset, cut.size), (&path(*id), *offset, bytes.len() as u64));
        assert_eq!(cut.quarantine.as_ref(), Some(&aside));
        assert_eq!(twin.contents(&aside).as_ref(), Some(bytes), "the quarantined bytes differ");
    }
}
