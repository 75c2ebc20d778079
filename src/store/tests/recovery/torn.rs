//! Torn tails: whatever a crash leaves of the last writes, the recovered state is the one after a
//! prefix of them, exactly as far as the log is valid. The rest is quarantined byte for byte.

use crate::options::WriteOptions;
use crate::recovery::Cut;
use crate::store::tests::story::*;
use crate::store::tests::*;

/// How a log is torn at a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tear {
    /// The file ends at the byte.
    Cut,
    /// The file keeps its length, with zeros from the byte on, like preallocated room.
    Zeros,
    /// Garbage from the byte on, up to the end of the content.
    Garbage,
    /// The byte itself is garbage.
    Speck,
}

const TEARS: [Tear; 4] = [Tear::Cut, Tear::Zeros, Tear::Garbage, Tear::Speck];

fn spoil(bytes: &mut Vec<u8>, tear: Tear, at: usize) {
    let mut random = Random(at as u64);
    let end = content_end(bytes).max(at);
    match tear {
        Tear::Cut => bytes.truncate(at),
        Tear::Zeros => bytes[at..].fill(0),
        Tear::Garbage => random.garbage(&mut bytes[at..end]),
        Tear::Speck => bytes[at] ^= u8::try_from(1 + random.below(255)).unwrap(),
    }
}

/// Returns what should be quarantined if the log of a disk ends at a place.
fn expected_quarantine(told: &Told, disk: &Lab, end: Place) -> BTreeMap<Place, Vec<u8>> {
    let mut behind = BTreeMap::new();
    for (id, path) in disk.logs() {
        let bytes = disk.twin.contents(&path).unwrap();
        let content_end = content_end(&bytes);
        // A later segment is quarantined completely, unless it has only a header.
        let (from, empty) = match id.cmp(&end.segment) {
            std::cmp::Ordering::Less => (told.end_of(id), told.end_of(id)),
            std::cmp::Ordering::Equal => (end.offset, end.offset),
            std::cmp::Ordering::Greater => (0, FIRST_OFFSET),
        };
        if content_end > usize::try_from(empty).unwrap() {
            let from_byte = usize::try_from(from).unwrap();
            behind.insert(Place::new(id, from), bytes[from_byte..content_end].to_vec());
        }
    }
    behind
}

fn cut_places(cuts: &[Cut]) -> Vec<(PathBuf, u64, u64)> {
    cuts.iter().map(|cut| (cut.path.clone(), cut.offset, cut.size)).collect()
}

/// Opens a torn disk, and checks everything that recovery promises.
fn check_recovery(told: &Told, disk: &Lab, expected: &Step) {
    let aside = expected_quarantine(told, disk, expected.end);
    let places: Vec<_> = aside
        .iter()
        .map(|(place, bytes)| {
            (Dir::new(DIR.into()).log(place.segment), place.offset, bytes.len() as u64)
        })
        .collect();
    let reader = disk.on(disk.twin.fork());
    let db = reader.open_read_only();
    assert_eq!(snapshot(&db), expected.pairs, "read-only");
    let cuts = &db.recovery().cuts;
    assert_eq!(cut_places(cuts), places, "read-only");
    assert!(cuts.iter().all(|cut| cut.quarantine.is_none()));
    drop(db);
    assert_eq!(reader.twin.trace(), [], "a read-only open must change nothing");
    let db = disk.open();
    assert_eq!(snapshot(&db), expected.pairs);
    assert_eq!(cut_places(&db.recovery().cuts), places);
    let named = db.recovery().cuts.iter().map(|cut| cut.quarantine.clone().unwrap());
    assert!(named.eq(aside.keys().map(|place| Dir::new(DIR.into()).quarantined(*place))));
    assert_eq!(quarantine(&disk.twin), aside);
    kill(db);
    let db = disk.open();
    assert!(found_in_order(&db), "{:?}", db.recovery());
    assert_eq!(snapshot(&db), expected.pairs, "opened again");
    assert_eq!(quarantine(&disk.twin), aside);
    kill(db);
}

/// Tears one segment of a story at every byte, in every way.
fn tear_everywhere(told: &Told, segment: SegmentId, first: SegmentId) {
    let path = Dir::new(DIR.into()).log(segment);
    let whole = told.lab.twin.contents(&path).unwrap();
    for tear in TEARS {
        for at in 64..=content_end(&whole).next_multiple_of(8) {
            let mut bytes = whole.clone();
            spoil(&mut bytes, tear, at);
            let differs = told.first_difference(segment, &whole, &bytes);
            let place = Place::new(segment, differs as u64);
            // Cutting off unwritten room is not a tear.
            let expected = if differs >= content_end(&whole).next_multiple_of(8) {
                told.before(Place::new(SegmentId(u32::MAX), 0), first)
            } else {
                told.before(place, first)
            };
            let disk = told.lab.on(told.disk());
            disk.twin.put_file(&path, bytes);
            let end = Step { end: log_end(told, &expected, place), ..expected };
            let checked = std::panic::AssertUnwindSafe(|| {
                check_recovery(told, &disk, &end);
            });
            if let Err(panic) = std::panic::catch_unwind(checked) {
                eprintln!("segment {segment} torn at {at} ({tear:?}), log ends at {:?}", end.end);
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// Returns the end of the log: after the last complete write before the tear, or at the beginning
/// of the torn segment if that write ends in an earlier one.
fn log_end(told: &Told, expected: &Step, tear: Place) -> Place {
    let last = told.steps.last().unwrap().end;
    if expected.end.segment < tear.segment && tear.segment <= last.segment {
        return Place::new(tear.segment, FIRST_OFFSET);
    }
    expected.end
}

/// One segment: puts, a delete, a time to live, an empty value, and a batch in the middle.
fn one_segment(lab: Lab) -> Told {
    let mut story = Story::begin(lab);
    story.put("alpha", "the first of all");
    story.put("beta", "");
    let ttl = WriteOptions::new().ttl(Duration::from_secs(1 << 20));
    story.put_opt("gamma", "expires one day", ttl);
    story.delete("alpha");
    story.batch(&[("delta", "one"), ("beta", "two"), ("", "three")], &["gamma"]);
    story.put("omega", "the last of all");
    story.killed()
}

/// Four unsealed segments of three entries each; the second is a batch.
fn four_segments(lab: Lab) -> Told {
    let options = lab.options.clone().segment_entries(3);
    let mut story = Story::begin(lab.with(options));
    story.put("a", "1");
    story.put("b", "2");
    story.delete("a");
    story.batch(&[("c", "3"), ("a", "4"), ("d", "5")], &[]);
    story.put("b", "6");
    story.put("e", "7");
    story.delete("c");
    story.put("c", "8");
    story.batch(&[("f", "9")], &["d"]);
    let told = story.killed();
    assert_eq!(told.lab.logs().len(), 4);
    told
}

#[test]
fn a_kill_that_tears_nothing_cuts_nothing() {
    for told in [one_segment(Lab::new()), four_segments(Lab::weak())] {
        let db = told.lab.open();
        assert!(db.recovery().cuts.is_empty());
        assert!(db.recovery().leftovers.is_empty());
        assert_eq!(snapshot(&db), *told.last());
        let segments = db.recovery().recovered_segments;
        kill(db);
        assert!(quarantine(&told.lab.twin).is_empty());
        assert_eq!(segments, told.lab.logs().len() as u64);
    }
}

#[test]
fn a_segment_torn_at_any_byte_keeps_the_entries_before() {
    let told = one_segment(Lab::new());
    tear_everywhere(&told, SegmentId(1), SegmentId(1));
}

#[test]
fn a_segment_torn_at_any_byte_keeps_the_entries_before_with_colliding_keys() {
    let told = one_segment(Lab::weak());
    tear_everywhere(&told, SegmentId(1), SegmentId(1));
}

#[test]
fn a_tear_in_the_first_of_several_segments_cuts_the_later_ones() {
    tear_everywhere(&four_segments(Lab::new()), SegmentId(1), SegmentId(1));
}

#[test]
fn a_batch_that_fills_a_segment_is_recovered_whole_or_not_at_all() {
    tear_everywhere(&four_segments(Lab::new()), SegmentId(2), SegmentId(1));
}

#[test]
fn a_tear_in_a_middle_segment_cuts_the_later_ones() {
    tear_everywhere(&four_segments(Lab::weak()), SegmentId(3), SegmentId(1));
}

#[test]
fn a_tear_in_the_last_of_several_segments_leaves_the_others_alone() {
    tear_everywhere(&four_segments(Lab::new()), SegmentId(4), SegmentId(1));
}

/// The segments after a tear may be in any state, because nothing in them was known to be durable.
#[test]
fn the_state_of_segments_after_a_tear_does_not_matter() {
    let told = four_segments(Lab::new());
    let dir = Dir::new(DIR.into());
    let torn = |bytes: &mut Vec<u8>| bytes[100..].fill(0);
    let headless = |bytes: &mut Vec<u8>| bytes[..64].fill(0);
    let garbage = |bytes: &mut Vec<u8>| Random(3).garbage(&mut bytes[..200]);
    let emptied = |bytes: &mut Vec<u8>| bytes.clear();
    let zeroed = |bytes: &mut Vec<u8>| bytes.fill(0);
    let bare = |bytes: &mut Vec<u8>| bytes.truncate(64);
    let short = |bytes: &mut Vec<u8>| bytes.truncate(63);
    let entries_gone = |bytes: &mut Vec<u8>| bytes[64..].fill(0);
    let as_it_was = |_: &mut Vec<u8>| {};
    let states: [fn(&mut Vec<u8>); 8] =
        [headless, garbage, emptied, zeroed, bare, short, entries_gone, as_it_was];
    for third in states {
        for fourth in states {
            let disk = told.lab.on(told.disk());
            for (id, change) in [(2, torn as fn(&mut Vec<u8>)), (3, third), (4, fourth)] {
                let path = dir.log(SegmentId(id));
                let mut bytes = disk.twin.contents(&path).unwrap();
                change(&mut bytes);
                disk.twin.put_file(&path, bytes);
            }
            let tear = Place::new(SegmentId(2), 100);
            let expected = told.before(tear, SegmentId(1));
            let expected = Step { end: log_end(&told, &expected, tear), ..expected };
            check_recovery(&told, &disk, &expected);
            // A later segment may also be missing, if a power cut has reordered removals.
            disk.twin.delete_file(&dir.log(SegmentId(3)));
        }
    }
}

/// The header of a segment is durable before the log leads to the segment.
#[test]
fn a_segment_that_the_log_leads_to_must_have_its_header() {
    let told = four_segments(Lab::new());
    let dir = Dir::new(DIR.into());
    for id in 1..=4 {
        let path = dir.log(SegmentId(id));
        let whole = told.lab.twin.contents(&path).unwrap();
        for size in 0..=64 {
            let mut zeroed = whole.clone();
            zeroed[size..64].fill(0);
            for bytes in [whole[..size].to_vec(), zeroed] {
                if bytes.len() >= 64 && bytes[..64] == whole[..64] {
                    continue;
                }
                let disk = told.lab.on(told.disk());
                disk.twin.put_file(&path, bytes);
                let before = files(&disk.twin);
                let error = disk.try_open().unwrap_err();
                assert!(matches!(&error, Error::Corrupt { path: named, .. } if *named == path));
                assert_eq!(files(&disk.twin), before);
            }
        }
    }
}

/// Regression: bytes after the end entry of a rotated segment were cut off without a trace. Only
/// bytes after the end of the entire log were quarantined.
#[test]
fn bytes_after_an_end_entry_are_quarantined_too() {
    let told = four_segments(Lab::new());
    let disk = told.lab.on(told.disk());
    let path = Dir::new(DIR.into()).log(SegmentId(2));
    let mut bytes = disk.twin.contents(&path).unwrap();
    let end = content_end(&bytes).next_multiple_of(8);
    bytes[end + 5..end + 16].copy_from_slice(b"what's this");
    disk.twin.put_file(&path, bytes);
    let last = Dir::new(DIR.into()).log(SegmentId(4));
    let mut torn = disk.twin.contents(&last).unwrap();
    let tail = content_end(&torn) - 1;
    torn[tail] ^= 1;
    disk.twin.put_file(&last, torn);
    let db = disk.open();
    assert!(!db.recovery().is_clean());
    let reasons: Vec<_> = db.recovery().cuts.iter().map(|cut| &*cut.reason).collect();
    assert_eq!(
        reasons,
        ["more bytes follow the end entry", "the batch that starts here has no end"]
    );
    kill(db);
    let place = Place::new(SegmentId(2), end as u64);
    assert_eq!(quarantine(&disk.twin)[&place], b"\0\0\0\0\0what's this");
    assert_eq!(
        disk.twin.contents(&path).unwrap().len(),
        end,
        "a sealed segment ends at its end entry"
    );
}

/// A store continues after a cut as if there had been none.
#[test]
fn a_store_can_be_written_after_a_cut() {
    let told = four_segments(Lab::new());
    let path = Dir::new(DIR.into()).log(SegmentId(3));
    let mut bytes = told.lab.twin.contents(&path).unwrap();
    bytes.truncate(120);
    let disk = told.lab.on(told.disk());
    disk.twin.put_file(&path, bytes);
    let db = disk.open();
    let mut pairs = snapshot(&db);
    for number in 0..10 {
        let (key, value) = (format!("new {number}"), format!("value {number}"));
        db.put(&key, &value).unwrap();
        pairs.insert(key.into(), value.into());
    }
    db.delete("b").unwrap();
    pairs.remove(&b"b"[..]);
    let killed = disk.killed().open();
    assert_eq!(snapshot(&killed), pairs);
    assert!(killed.recovery().cuts.is_empty());
    let db = disk.reopen(db);
    assert!(db.recovery().is_clean());
    assert_eq!(snapshot(&db), pairs);
}
