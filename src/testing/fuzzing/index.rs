//! Fuzzes indexes: a segment with arbitrary bytes as its index is scanned in order.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use super::input::{INDEX_HEADER_SIZE, Input, repair_index};
use super::{DIR, IDENTITY};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::options::AppendMode;
use crate::segment::header::{Kind, SegmentHeader};
use crate::segment::hint::Summary;
use crate::segment::index::{IndexContext, Merged, Moment, Part, find};
use crate::segment::write::active::Active;
use crate::segment::write::draft::Draft;
use crate::segment::{Dir, Segment, SegmentId};
use crate::testing::twin::Twin;

pub(crate) const ID: SegmentId = SegmentId(3);
/// The latest time of the segment: nothing was appended after it.
const LAST: u64 = 1000;
const NOW: u64 = 500;

/// The result of a scan: keys and their timestamps, each also looked up.
type Shown = Vec<(Vec<u8>, u64, Option<u64>)>;

/// A segment, its index, and for each key its versions by time, of which some are deletes.
pub(crate) struct Whole {
    log: Vec<u8>,
    pub(crate) index: Vec<u8>,
    versions: BTreeMap<Vec<u8>, BTreeMap<u64, bool>>,
}

/// One segment serves all inputs: they only vary its index.
pub(crate) static WHOLE: LazyLock<Whole> = LazyLock::new(|| {
    let (twin, dir) = (Twin::new(), Dir::new(DIR.into()));
    twin.create_dir(Path::new(DIR)).unwrap();
    let fs = Fs::Twin(Arc::clone(&twin));
    let header = SegmentHeader { kind: Kind::Log, id: ID, identity: IDENTITY, created: 1 };
    let mut active = Active::create(&fs, &dir, header, 1 << 16, AppendMode::Positioned).unwrap();
    let mut versions = BTreeMap::<_, BTreeMap<u64, bool>>::new();
    for number in 1..80_u64 {
        let key = vec![b'k'; usize::try_from(number * 7 % 13).unwrap()];
        let (timestamp, expiry) = (number * 10, (number % 5 == 0).then_some(number * 9));
        let draft = match number % 7 {
            0 => Draft::tombstone(&key),
            _ => Draft::put(&key, b"value", expiry),
        };
        active.reserve(100).unwrap();
        active.append(&draft, timestamp).unwrap();
        let exists = number % 7 != 0 && expiry.is_none_or(|expiry| expiry > NOW);
        versions.entry(key).or_default().insert(timestamp, exists);
    }
    active.finish(SegmentId(4), None, LAST).unwrap();
    active.segment().summarize(Summary::default());
    let context = IndexContext::new(&fs, &dir, IDENTITY);
    assert!(active.segment().write_index(&context).unwrap());
    let length = usize::try_from(active.segment().size()).unwrap();
    let mut log = twin.contents(&dir.log(ID)).unwrap();
    log.truncate(length);
    Whole { log, index: twin.contents(&dir.index(ID)).unwrap(), versions }
});

/// Reads arbitrary bytes as a segment's index: unchanged, as a modification of the correct index,
/// or with everything that ties them to the segment corrected.
pub fn index(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.byte() % 3 {
        0 => check(input.take(bytes.len())),
        1 => check(&changed(&mut input)),
        _ => {
            // The contents are arbitrary, but the scan has to end all the same.
            let forged = forged(&mut input);
            for forward in [true, false] {
                match show(&forged, LAST, forward) {
                    // The index may have been rebuilt on the way.
                    Ok(shown) => {
                        let len = forged.len() / 14 + WHOLE.versions.len();
                        assert!(shown.len() <= len, "more rows than the bytes can hold");
                    }
                    Err(Error::Corrupt { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
}

/// Checks that a scan returns what the segment contains, whatever the bytes are.
fn check(bytes: &[u8]) {
    for timestamp in [LAST, 333] {
        let seen = |(key, versions): (&Vec<u8>, &BTreeMap<u64, bool>)| {
            let (timestamp, exists) = versions.range(..=timestamp).next_back()?;
            exists.then(|| (key.clone(), *timestamp, Some(*timestamp)))
        };
        let mut expected: Shown = WHOLE.versions.iter().filter_map(seen).collect();
        assert_eq!(show(bytes, timestamp, true).unwrap(), expected);
        expected.reverse();
        assert_eq!(show(bytes, timestamp, false).unwrap(), expected);
    }
}

/// Returns the correct index with a few changes, truncated or extended.
fn changed(input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = WHOLE.index.clone();
    for _ in 0..input.byte() % 4 {
        let at = input.below(bytes.len());
        bytes[at] ^= input.byte();
    }
    match input.byte() % 8 {
        0 => bytes.truncate(input.below(bytes.len())),
        1 => bytes.extend_from_slice(input.bytes()),
        _ => {}
    }
    bytes
}

/// Returns blocks and leads of arbitrary bytes, with fitting sizes and correct checksums.
fn forged(input: &mut Input<'_>) -> Vec<u8> {
    let (mut blocks, mut leads, mut count) = (Vec::new(), Vec::new(), 0_u64);
    let rows = u64::from(input.byte());
    let last = input.bytes();
    while !input.is_empty() {
        let mut block = Vec::new();
        for _ in 0..=input.byte() % 8 {
            let size = usize::from(input.byte() % 16);
            let key = input.take(size);
            block.extend(u16::try_from(key.len()).unwrap().to_be_bytes());
            block.extend([0, 0, input.byte(), input.byte() & 0b1100_0011]);
            block.extend((input.below(100) as u64).to_be_bytes());
            if block.last_chunk::<9>().is_some_and(|end| end[0] & 1 != 0) {
                block.extend((input.below(1000) as u64).to_be_bytes());
            }
            block.extend_from_slice(key);
        }
        let more = usize::from(input.byte() / 250);
        block.extend_from_slice(input.take(more));
        block.extend([0; 4]);
        let size = usize::from(input.byte() % 16);
        let lead = input.take(size);
        leads.extend(u32::try_from(block.len()).unwrap().to_be_bytes());
        leads.extend(u16::try_from(lead.len()).unwrap().to_be_bytes());
        leads.extend_from_slice(lead);
        blocks.extend(block);
        count += 1;
    }
    leads.extend(u16::try_from(last.len()).unwrap().to_be_bytes());
    leads.extend_from_slice(last);
    leads.extend([0; 4]);
    let mut bytes = WHOLE.index[..INDEX_HEADER_SIZE].to_vec();
    let fields = [rows.max(count), count, blocks.len() as u64, leads.len() as u64];
    let fields: Vec<u8> = fields.into_iter().flat_map(u64::to_be_bytes).collect();
    bytes[48..80].copy_from_slice(&fields);
    bytes.extend(blocks);
    bytes.extend(leads);
    repair_index(&mut bytes, ID);
    bytes
}

/// Scans a segment that has these bytes as its index.
fn show(bytes: &[u8], timestamp: u64, forward: bool) -> Result<Shown> {
    let (twin, dir) = (Twin::new(), Dir::new(DIR.into()));
    twin.put_file(&dir.log(ID), WHOLE.log.clone());
    twin.put_file(&dir.index(ID), bytes.to_vec());
    let fs = Fs::Twin(twin);
    let segment = Segment::sealed(&fs, &dir, ID, WHOLE.log.len() as u64, IDENTITY, true)?;
    segment.summarize(Summary::default());
    let (segment, context) = (Arc::new(segment), IndexContext::new(&fs, &dir, IDENTITY));
    let runs = segment.runs(&context)?.into_iter();
    let parts: Vec<Part> = runs.map(|run| (Arc::clone(&segment), run)).collect();
    let moment = Moment { timestamp, now: NOW };
    let mut merged = Merged::new(parts.clone(), (Bound::Unbounded, Bound::Unbounded), moment);
    let mut shown = Vec::new();
    while let Some(hit) = if forward { merged.next() } else { merged.next_back() }? {
        let found = find(&parts, &hit.key, moment)?.map(|found| found.timestamp);
        shown.push((hit.key.to_vec(), hit.timestamp, found));
    }
    Ok(shown)
}
