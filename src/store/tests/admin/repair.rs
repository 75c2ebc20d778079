//! Diagnosis of damaged stores, and salvage.
//!
//! In a small store, every byte of every file is damaged, every file is truncated to every length,
//! and every file is removed or replaced by another. Verification has to notice and change nothing.
//! A salvaged store opens clean. It holds the right value for every key whose entries are
//! undamaged, and no value that was never written under its key.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};

use crate::merge::{Host as _, Merge};
use crate::options::{MergeOptions, WriteOptions};
use crate::repair::{Diagnosis, SalvageReport, salvage_on, verify_on};
use crate::segment::header::{Kind, SegmentHeader};
use crate::segment::hint::{Hint, HintSlot, HintSource};
use crate::store::tests::story::*;
use crate::store::tests::*;
use crate::testing::twin::{Call, Fault, FaultKind};

const TO: &str = "/rescued";

/// A store with a merged segment, sealed and unsealed ones, and the output of a merge that a crash
/// interrupted.
fn told(lab: Lab) -> Told {
    let options = lab.options.clone().segment_entries(3).segment_size(512);
    let mut story = Story::begin(lab.with(options));
    let ttl = WriteOptions::new().ttl(Duration::from_secs(1 << 20));
    story.put("a", "one");
    story.put_opt("b", "two", ttl);
    story.put("c", "three");
    story.put("old", "stays");
    story.batch(&[("a", "four")], &["c"]);
    story.put("e", "six");
    story.seal();
    story.db.merge_opt(MergeOptions::new().force(true)).unwrap();
    // The active segment has a lower id than the merged one, and newer entries.
    story.put("old", "is new");
    story.delete("b");
    story.put("", "the empty key");
    story.batch(&[("x", "1"), ("a", "eight"), ("y", "2")], &[]);
    story.seal();
    let inner = &story.db.inner;
    let ids = inner.manifest.get(|manifest| manifest.sealed.iter().map(|s| s.id).collect());
    let mut merge = Merge::begin(&inner.merge_context(), &ids);
    merge.step(&**inner).unwrap();
    merge.step(&**inner).unwrap();
    story.sync();
    story.delete("e");
    story.put("i", "ten");
    story.put("b", "is back");
    story.batch(&[("g", "nine")], &["x"]);
    let told = story.killed();
    let place = |key: &[u8], value: &[u8]| {
        let entries = log_entries(&told.lab).into_iter();
        let mut entries = entries.filter(|entry| entry.key == key && entry.value == value);
        entries.next().unwrap().place.segment
    };
    let merged = place(b"old", b"stays");
    assert!(merged > place(b"old", b"is new") && merged > place(b"b", b""));
    told
}

fn manifest() -> PathBuf {
    Dir::new(DIR.into()).manifest()
}

fn verify(disk: &Lab) -> Diagnosis {
    verify_on(&disk.env(), Path::new(DIR)).unwrap()
}

fn try_salvage(disk: &Lab) -> Result<SalvageReport> {
    let (from, to) = (Path::new(DIR), Path::new(TO));
    salvage_on(&disk.env(), from, to, &disk.options, &mut |_| ControlFlow::Continue(()))
}

fn open_rescued(disk: &Lab) -> Bitcask {
    Bitcask::open_on(&disk.env(), Path::new(TO), disk.options.clone()).unwrap()
}

/// The files of the damaged store, including the lock.
fn originals(disk: &Lab) -> Files {
    let ours = disk.twin.files().into_iter().filter(|path| path.starts_with(DIR));
    ours.map(|path| (path.clone(), disk.twin.contents(&path).unwrap())).collect()
}

/// Salvages, and checks what must hold for any damage. `touched` holds the keys that may have lost
/// entries.
fn judge_salvage(told: &Told, disk: &Lab, touched: &BTreeSet<Vec<u8>>, when: &str) -> Pairs {
    let before = originals(disk);
    let report = try_salvage(disk).unwrap_or_else(|error| panic!("{when}: {error}"));
    assert_eq!(originals(disk), before, "{when}: the source changed");
    let again = verify_on(&disk.env(), Path::new(TO)).unwrap();
    assert!(again.is_clean() && again.derived.is_empty(), "{when}: {again}");
    let db = open_rescued(disk);
    assert!(db.recovery().is_clean(), "{when}: {:?}", db.recovery());
    assert!(db.verify().unwrap().is_clean(), "{when}");
    check_figures(&db);
    let pairs = snapshot(&db);
    assert_eq!(report.keys, pairs.len() as u64, "{when}: {report:?}");
    assert_eq!(db.stats().dead_size, 0, "{when}");
    let right = told.last();
    for key in told.steps.iter().flat_map(|step| step.pairs.keys()) {
        let found = pairs.get(key);
        if !touched.contains(key) {
            assert_eq!(found, right.get(key), "{when}: {key:?}: {report:?}");
        }
        let ever =
            |value: &Vec<u8>| told.steps.iter().any(|step| step.pairs.get(key) == Some(value));
        assert!(found.is_none_or(ever), "{when}: {key:?} is {found:?}");
    }
    assert!(pairs.keys().all(|key| told.steps.iter().any(|step| step.pairs.contains_key(key))));
    pairs
}

/// Keys with an entry in a byte range of a segment. A batch at the end of the log counts as a
/// whole.
fn keys_in(told: &Told, id: SegmentId, bytes: &Range<u64>) -> BTreeSet<Vec<u8>> {
    let entries: Vec<LogEntry> =
        log_entries(&told.lab).into_iter().filter(|entry| entry.place.segment == id).collect();
    let end_of = |at: usize| entries.get(at + 1).map_or(told.end_of(id), |next| next.place.offset);
    let is_hit = |at: usize| entries[at].place.offset < bytes.end && bytes.start < end_of(at);
    let mut keys = BTreeSet::new();
    for at in 0..entries.len() {
        let start = (0..=at)
            .rev()
            .take_while(|before| *before == at || entries[*before].flags.has(Flags::CONTINUES));
        let start = start.last().unwrap();
        let end = (at..entries.len()).find(|at| !entries[*at].flags.has(Flags::CONTINUES));
        let in_batch = start..=end.unwrap_or(at);
        if is_hit(at)
            || in_batch.clone().count() > 1
                && in_batch.into_iter().any(is_hit)
                && is_unsealed(told, id)
        {
            keys.insert(entries[at].key.clone());
        }
    }
    keys
}

fn listed(told: &Told) -> Manifest {
    Manifest::decode(&told.lab.twin.contents(&manifest()).unwrap(), &manifest()).unwrap()
}

fn is_unsealed(told: &Told, id: SegmentId) -> bool {
    !listed(told).lists(id)
}

/// Returns whether a segment is listed by the manifest or unsealed; all others are leftovers.
fn counts(told: &Told, id: SegmentId) -> bool {
    let log = Dir::new(DIR.into()).log(id);
    let is_log = told.lab.twin.contents(&log).unwrap()[11] == Kind::Log as u8;
    listed(told).lists(id) || is_log && id >= listed(told).log
}

#[test]
fn an_intact_store_is_clean_and_copied_completely() {
    for lab in [Lab::new(), Lab::weak()] {
        let told = told(lab);
        let disk = told.lab.on(told.disk());
        let found = verify(&disk);
        assert_eq!(disk.twin.trace(), [], "diagnosis must not write");
        assert!(found.is_clean(), "{found}");
        let opening = found.opening.as_ref().unwrap();
        assert!(opening.cuts.is_empty(), "{found}");
        assert_eq!(found.leftovers.len(), opening.leftovers.len());
        assert!(found.leftovers.iter().any(|path| path.extension().unwrap() == "log"), "{found}");
        println!("{found}");
        let pairs = judge_salvage(&told, &disk, &BTreeSet::new(), "whole");
        assert_eq!(pairs, *told.last());
        println!("{}", try_salvage(&told.lab.on(told.disk())).unwrap());
    }
}

#[test]
fn a_closed_store_has_nothing_to_report() {
    let told = told(Lab::new());
    let disk = told.lab.on(told.disk());
    disk.open().close().unwrap();
    let found = verify(&disk);
    assert!(found.is_clean() && found.derived.is_empty() && found.leftovers.is_empty(), "{found}");
    assert!(found.opening.unwrap().is_clean());
    let report = try_salvage(&disk).unwrap();
    assert!(report.is_complete() && report.had_manifest, "{report}");
}

#[test]
fn any_damaged_byte_of_a_segment_is_found_and_costs_only_its_entry() {
    let told = told(Lab::new());
    let mut count = 0;
    for (id, path) in told.lab.logs() {
        let whole = told.lab.twin.contents(&path).unwrap();
        let end = usize::try_from(told.end_of(id)).unwrap().min(whole.len());
        for at in 0..end {
            for to in [whole[at] ^ 0x01, 0, 0xff] {
                if to == whole[at] {
                    continue;
                }
                let when = format!("byte {at} of {id} is {to:#x}");
                let mut bytes = whole.clone();
                bytes[at] = to;
                let disk = told.lab.on(told.disk());
                disk.twin.put_file(&path, bytes.clone());
                let disk = disk.on(disk.twin.fork());
                let found = verify(&disk);
                assert_eq!(disk.twin.trace(), [], "{when}");
                let differs = at < 64 || told.first_difference(id, &whole, &bytes) < whole.len();
                // A leftover whose header is damaged may be anything.
                let seen = differs && (counts(&told, id) || at < 64);
                assert_eq!(found.is_clean(), !seen, "{when}: {found}");
                if let Some(damage) = found.damage.first() {
                    assert_eq!(damage.path, path, "{when}");
                }
                let touched = if at < 64 || !counts(&told, id) {
                    BTreeSet::new()
                } else {
                    keys_in(&told, id, &(at as u64..at as u64 + 1))
                };
                judge_salvage(&told, &disk, &touched, &when);
                count += 1;
            }
        }
    }
    println!("{count} bytes");
}

/// Damages a file in all ways of a sweep, and passes each resulting disk to a closure.
fn sweep(told: &Told, path: &Path, mut judge: impl FnMut(&Lab, &str)) {
    let whole = told.lab.twin.contents(path).unwrap();
    for at in 0..whole.len() {
        for to in [whole[at] ^ 0x01, 0, 0xff] {
            if to != whole[at] {
                let mut bytes = whole.clone();
                bytes[at] = to;
                let disk = told.lab.on(told.disk());
                disk.twin.put_file(path, bytes);
                judge(&disk.on(disk.twin.fork()), &format!("{} {at}: {to:#x}", path.display()));
            }
        }
    }
}

#[test]
fn any_damaged_byte_of_the_manifest_is_found_and_costs_nothing() {
    let told = told(Lab::new());
    sweep(&told, &manifest(), |disk, when| {
        let found = verify(disk);
        assert!(found.opening.is_err() && !found.is_clean(), "{when}: {found}");
        assert_eq!((&found.damage[0].path, found.damage.len()), (&manifest(), 1), "{when}");
        let pairs = judge_salvage(&told, disk, &BTreeSet::new(), when);
        assert_eq!(pairs, *told.last(), "{when}");
    });
}

#[test]
fn any_damaged_byte_of_a_hint_is_found_and_costs_nothing() {
    let told = told(Lab::weak());
    let hints = told.lab.hints();
    assert!(hints.len() >= 2);
    for (id, path) in hints {
        sweep(&told, &path, |disk, when| {
            let found = verify(disk);
            assert!(found.is_clean() && found.opening.is_ok(), "{when}: {found}");
            // The hint of a leftover is a leftover, too.
            let expected = usize::from(listed(&told).lists(id));
            assert_eq!(found.derived.len(), expected, "{when}: {found}");
            assert!(found.derived.iter().all(|derived| derived.path == path), "{when}: {found}");
        });
    }
}

#[test]
fn a_wrong_hint_with_a_valid_checksum_is_found() {
    let told = told(Lab::new());
    let disk = told.lab.on(told.disk());
    let sealed = listed(&told).sealed[0];
    let source =
        HintSource { id: sealed.id, identity: listed(&told).identity, length: sealed.length };
    let path = Dir::new(DIR.into()).hint(sealed.id);
    let whole = Hint::decode(&disk.twin.contents(&path).unwrap(), source).unwrap();
    let mut short = whole.clone();
    short.slots.pop();
    short.summary.entries -= 1;
    let mut swapped = whole.clone();
    swapped.slots[0] = HintSlot::new(swapped.slots[0].hash(), 72, 24, Flags::default());
    let mut late = whole;
    late.summary.last_timestamp += 1;
    for hint in [short, swapped, late] {
        disk.twin.put_file(&path, hint.encode(source));
        let found = verify(&disk);
        assert_eq!(found.derived.len(), 1, "{found}");
        assert_eq!(found.derived[0].path, path);
    }
    let found = verify(&disk);
    assert!(found.derived[0].reason.contains("delete it"), "{found}");
    judge_salvage(&told, &disk, &BTreeSet::new(), "a wrong hint");
}

#[test]
fn any_segment_cut_at_any_length_keeps_the_entries_before() {
    let told = told(Lab::new());
    for (id, path) in told.lab.logs() {
        let whole = told.lab.twin.contents(&path).unwrap();
        let end = usize::try_from(told.end_of(id)).unwrap();
        for size in 0..end {
            for zeros in [false, true] {
                let mut bytes = whole.clone();
                bytes.truncate(size);
                if zeros {
                    bytes.resize(whole.len(), 0);
                }
                let when = format!("{id} cut at {size}, zeros: {zeros}");
                let disk = told.lab.on(told.disk());
                disk.twin.put_file(&path, bytes.clone());
                let disk = disk.on(disk.twin.fork());
                let found = verify(&disk);
                let same = zeros && told.first_difference(id, &whole, &bytes) == whole.len();
                if counts(&told, id) && listed(&told).lists(id) && !same {
                    assert!(!found.damage.is_empty(), "{when}: {found}");
                    assert!(found.damage.iter().all(|damage| damage.path == path), "{found}");
                }
                let touched = if counts(&told, id) {
                    keys_in(&told, id, &(size as u64..u64::MAX))
                } else {
                    BTreeSet::new()
                };
                judge_salvage(&told, &disk, &touched, &when);
            }
        }
    }
}

#[test]
fn a_missing_segment_is_found_and_costs_only_its_entries() {
    let told = told(Lab::new());
    for (id, path) in told.lab.logs() {
        let disk = told.lab.on(told.disk());
        disk.twin.delete_file(&path);
        let found = verify(&disk);
        let named = found.damage.iter().any(|damage| damage.path == path);
        assert_eq!(named, counts(&told, id), "{id}: {found}");
        assert_eq!(found.opening.is_err(), counts(&told, id), "{id}: {found}");
        let touched =
            if counts(&told, id) { keys_in(&told, id, &(0..u64::MAX)) } else { BTreeSet::new() };
        judge_salvage(&told, &disk, &touched, &format!("{id} missing"));
    }
}

/// The entries of each file know their segment, so file names do not matter.
#[test]
fn swapped_segments_are_recognized_by_their_headers() {
    let told = told(Lab::new());
    let logs = told.lab.logs();
    for (id, path) in &logs {
        for (other, target) in logs.iter().filter(|(other, _)| other > id) {
            let disk = told.lab.on(told.disk());
            disk.twin.put_file(target, told.lab.twin.contents(path).unwrap());
            disk.twin.put_file(path, told.lab.twin.contents(target).unwrap());
            let found = verify(&disk);
            assert_eq!(found.is_clean(), !counts(&told, *id) && !counts(&told, *other), "{found}");
            let when = format!("{id} and {other} swapped");
            assert_eq!(judge_salvage(&told, &disk, &BTreeSet::new(), &when), *told.last());
            // One of them also appears twice.
            let disk = told.lab.on(told.disk());
            disk.twin.put_file(target, told.lab.twin.contents(path).unwrap());
            let touched = keys_in(&told, *other, &(0..u64::MAX));
            judge_salvage(&told, &disk, &touched, &format!("{id} is {other} too"));
        }
    }
}

#[test]
fn files_of_another_store_are_left_out() {
    let (told, other) = (told(Lab::new()), told(Lab::new().on(Twin::new())));
    for (id, path) in told.lab.logs() {
        let disk = told.lab.on(told.disk());
        disk.twin.put_file(&path, other.lab.twin.contents(&path).unwrap());
        let found = verify(&disk);
        assert!(
            found.damage.iter().any(|damage| damage.reason.contains("another store")),
            "{found}"
        );
        let touched = keys_in(&told, id, &(0..u64::MAX));
        judge_salvage(&told, &disk, &touched, &format!("{id} foreign"));
    }
    let disk = told.lab.on(told.disk());
    disk.twin.put_file(&manifest(), other.lab.twin.contents(&manifest()).unwrap());
    let found = verify(&disk);
    assert!(found.damage[0].reason.contains("manifest belongs to another store"), "{found}");
    assert_eq!(judge_salvage(&told, &disk, &BTreeSet::new(), "foreign manifest"), *told.last());
}

/// Without a manifest, a merge's inputs that are about to be removed look like current segments.
/// With a manifest, they bring nothing back.
#[test]
fn superseded_merge_inputs_resurrect_nothing() {
    let lab = Lab::new();
    let options = lab.options.clone().segment_entries(2);
    let mut story = Story::begin(lab.with(options));
    for key in ["gone", "kept"] {
        story.put(key, "old");
    }
    story.put("kept", "new");
    story.delete("gone");
    story.put("more", "1");
    story.seal();
    let inputs: Vec<_> = story.lab.logs();
    let before = files(&story.lab.twin);
    story.db.merge_opt(MergeOptions::new().force(true)).unwrap();
    let told = story.killed();
    let disk = told.lab.on(told.disk());
    for (_, path) in &inputs {
        disk.twin.put_file(path, before[path].clone());
    }
    let report = try_salvage(&disk.on(disk.twin.fork())).unwrap();
    assert!(report.had_manifest && report.leftovers.len() >= 2, "{report}");
    assert_eq!(judge_salvage(&told, &disk, &BTreeSet::new(), "inputs"), *told.last());
    // The tombstone of "gone" was dropped. If only its segment is missing, the put is back.
    disk.twin.delete_file(&manifest());
    let disk = disk.on(disk.twin.fork());
    for path in disk.twin.files().into_iter().filter(|path| path.starts_with(TO)) {
        disk.twin.delete_file(&path);
    }
    let report = try_salvage(&disk).unwrap();
    assert!(!report.had_manifest, "{report}");
    let pairs = snapshot(&open_rescued(&disk));
    assert_eq!(pairs, *told.last(), "with all segments present, the newest entry wins");
}

/// Writes random bytes over random parts of random files.
#[test]
fn no_damage_leads_to_invented_values() {
    for lab in [Lab::new(), Lab::weak()] {
        let told = told(lab);
        for seed in 0..if long() { 5000 } else { 100 } {
            let mut random = Random(seed);
            let disk = told.lab.on(told.disk());
            let mut touched = BTreeSet::new();
            if seed % 3 == 0 {
                disk.twin.delete_file(&manifest());
            }
            for (id, path) in told.lab.logs() {
                let mut bytes = told.lab.twin.contents(&path).unwrap();
                let end = told.end_of(id);
                let start = random.below(end);
                let size = random.below(end - start).min(random.below(200));
                if random.below(2) == 0 {
                    let range =
                        usize::try_from(start).unwrap()..usize::try_from(start + size).unwrap();
                    random.garbage(&mut bytes[range]);
                    disk.twin.put_file(&path, bytes);
                    // Without a manifest, no segment is known to be sealed.
                    touched.extend(keys_in(&told, id, &(start..start + size)));
                    touched.extend(batch_keys(&told, id, start..start + size));
                }
            }
            let when = format!("seed {seed}");
            let disk = disk.on(disk.twin.fork());
            let _ = verify(&disk);
            assert_eq!(disk.twin.trace(), [], "{when}");
            judge_salvage(&told, &disk, &touched, &when);
        }
    }
}

/// Keys of the batches that have entries in a byte range of a segment.
fn batch_keys(told: &Told, id: SegmentId, bytes: Range<u64>) -> BTreeSet<Vec<u8>> {
    let (mut keys, mut batch, mut hit) = (BTreeSet::new(), Vec::new(), false);
    for entry in log_entries(&told.lab).into_iter().filter(|entry| entry.place.segment == id) {
        hit |= entry.place.offset < bytes.end && bytes.start < entry.place.offset + 64;
        batch.push(entry.key);
        if !entry.flags.has(Flags::CONTINUES) {
            if hit {
                keys.append(&mut batch.drain(..).collect());
            }
            (batch, hit) = (Vec::new(), false);
        }
    }
    keys
}

/// A manifest from before a merge, for example from a copy. It lists removed segments, and treats
/// the current ones as leftovers.
#[test]
fn an_old_manifest_is_not_relied_on() {
    let lab = Lab::new();
    let options = lab.options.clone().segment_entries(2);
    let mut story = Story::begin(lab.with(options));
    for round in 0..10 {
        story.put("kept", &format!("in round {round}"));
        story.put("gone", "old");
    }
    story.delete("gone");
    story.seal();
    let old = story.lab.twin.contents(&manifest()).unwrap();
    story.db.merge_opt(MergeOptions::new().force(true)).unwrap();
    for round in 10..20 {
        story.put("kept", &format!("in round {round}"));
    }
    story.seal();
    let told = story.killed();
    let disk = told.lab.on(told.disk());
    disk.twin.put_file(&manifest(), old);
    let found = verify(&disk);
    assert!(found.damage.iter().any(|damage| damage.reason.contains("may be old")), "{found}");
    assert!(found.opening.is_err() && found.leftovers.is_empty(), "{found}");
    assert_eq!(judge_salvage(&told, &disk, &BTreeSet::new(), "old manifest"), *told.last());
    // A manifest from an earlier open, which does not cover the present ids.
    let disk = told.lab.on(told.disk());
    let mut older = listed(&told);
    (older.sealed, older.log, older.bound) = (Vec::new(), SegmentId(2), SegmentId(3));
    older.history = None;
    disk.twin.put_file(&manifest(), older.encode().into_bytes());
    let found = verify(&disk);
    assert!(found.damage[0].reason.contains("the manifest is older than segment"), "{found}");
    assert_eq!(judge_salvage(&told, &disk, &BTreeSet::new(), "older manifest"), *told.last());
}

/// A batch with a damaged part in the middle of the log is copied as far as it is valid, and
/// reported. A batch without its end at the very end of the log was never acknowledged.
#[test]
fn torn_batches_are_reported_or_left_out() {
    let lab = Lab::new();
    let mut story = Story::begin(lab);
    story.put("a", "1");
    story.batch(&[("b", "2"), ("c", "3"), ("d", "4")], &[]);
    story.put("e", "5");
    story.batch(&[("f", "6"), ("g", "7"), ("h", "8")], &[]);
    let told = story.killed();
    let (_, path) = told.lab.logs().remove(0);
    let entries = log_entries(&told.lab);
    let place = |key: &[u8]| entries.iter().find(|entry| entry.key == key).unwrap().place.offset;
    let salvaged = |key: &[u8]| {
        let disk = told.lab.on(told.disk());
        let mut bytes = told.lab.twin.contents(&path).unwrap();
        bytes[usize::try_from(place(key)).unwrap()] ^= 1;
        disk.twin.put_file(&path, bytes);
        let found = verify(&disk);
        let report = try_salvage(&disk).unwrap();
        let keys: Vec<_> = snapshot(&open_rescued(&disk)).into_keys().collect();
        (found, report, String::from_utf8(keys.concat()).unwrap())
    };
    for key in [b"c", b"d"] {
        let (found, report, keys) = salvaged(key);
        assert!(found.torn.is_empty() && found.damage.len() == 1, "{found}");
        let [batch] = report.torn_batches.as_slice() else { panic!("{report}") };
        assert_eq!(batch.offset, place(b"b"));
        let gone = char::from(key[0]);
        assert_eq!(keys, "abcdefgh".replace(gone, ""));
    }
    // The batch's last entry is missing, so nothing shows that the batch was ever complete.
    let (found, report, keys) = salvaged(b"h");
    assert!(found.damage.is_empty(), "{found}");
    assert_eq!((found.torn[0].offset, found.torn.len()), (place(b"f"), 1), "{found}");
    assert_eq!(found.opening.as_ref().unwrap().cuts.len(), 1, "{found}");
    assert!(report.torn_batches.is_empty() && report.lost[0].offset == place(b"f"), "{report}");
    assert_eq!(keys, "abcde");
}

/// A tear in the middle of the unsealed part is damage, even if each segment alone looks torn.
#[test]
fn a_tear_followed_by_more_of_the_log_is_damage() {
    let told = told(Lab::new());
    let unsealed: Vec<_> = told
        .lab
        .logs()
        .into_iter()
        .filter(|(id, _)| counts(&told, *id) && is_unsealed(&told, *id))
        .collect();
    assert!(unsealed.len() >= 2);
    for (at, (id, path)) in unsealed.iter().enumerate() {
        let disk = told.lab.on(told.disk());
        let mut bytes = told.lab.twin.contents(path).unwrap();
        let end = usize::try_from(told.end_of(*id)).unwrap();
        // The end entry, or the last batch.
        bytes[end - 24] ^= 1;
        disk.twin.put_file(path, bytes);
        let found = verify(&disk);
        let is_last = at + 1 == unsealed.len();
        assert_eq!(
            (found.damage.len(), found.torn.len()),
            if is_last { (0, 1) } else { (1, 0) },
            "{found}"
        );
        judge_salvage(&told, &disk, &keys_in(&told, *id, &(end as u64 - 24..u64::MAX)), "torn");
    }
}

/// A salvage keeps expiry times as they are, whatever the current time.
#[test]
fn expiry_is_absolute() {
    let lab = Lab::new();
    let db = lab.open();
    db.put_opt("late", "1", WriteOptions::new().ttl(Duration::from_secs(100))).unwrap();
    db.put_opt("soon", "2", WriteOptions::new().ttl(Duration::from_secs(10))).unwrap();
    db.put("soon but not last", "3").unwrap();
    let before = raw(&db);
    kill(db);
    lab.hands.advance(Duration::from_secs(50));
    try_salvage(&lab).unwrap();
    let db = open_rescued(&lab);
    assert_eq!(raw(&db), before);
    assert_eq!(snapshot(&db).into_keys().collect::<Vec<_>>(), [&b"late"[..], b"soon but not last"]);
}

/// Entries far larger than a single read, and keys of the maximum size.
#[test]
fn large_entries_are_copied_and_skipped_as_a_whole() {
    let lab = Lab::new().with(Options::new().sync_policy(SyncPolicy::Never));
    let db = lab.open();
    let value = |seed: u64, size: usize| {
        let mut bytes = vec![0; size];
        Random(seed).garbage(&mut bytes);
        bytes
    };
    let long_key = value(9, 65_535);
    let pairs = [
        (b"small".to_vec(), value(1, 10)),
        (long_key.clone(), value(2, 700_000)),
        (b"damaged".to_vec(), value(3, 900_000)),
        (b"large".to_vec(), value(4, 600_000)),
        (long_key[1..].to_vec(), Vec::new()),
    ];
    for (key, value) in &pairs {
        db.put(key, value).unwrap();
    }
    kill(db);
    let (_, path) = lab.logs().remove(0);
    let entries = log_entries(&lab);
    let mut bytes = lab.twin.contents(&path).unwrap();
    bytes[usize::try_from(entries[2].place.offset).unwrap() + 800_000] ^= 1;
    lab.twin.put_file(&path, bytes);
    let size = lab.twin.contents(&path).unwrap().len();
    let calls = lab.twin.call_count();
    let found = verify(&lab);
    let calls = lab.twin.call_count() - calls;
    println!("{calls} calls for {size} bytes");
    assert!(calls < 40 + 20 * (size >> 18), "{calls} calls for {size} bytes");
    let [damage] = found.damage.as_slice() else { panic!("{found}") };
    assert_eq!(damage.offset, entries[2].place.offset);
    let report = try_salvage(&lab).unwrap();
    assert_eq!(report.lost[0].size, entries[3].place.offset - entries[2].place.offset);
    let rescued = snapshot(&open_rescued(&lab));
    let right = pairs.into_iter().filter(|(key, _)| key != b"damaged").collect();
    assert_eq!(rescued, right);
}

/// Bytes that look like headers of huge entries at every offset. Not all of these are checksummed.
#[test]
fn crafted_sizes_do_not_make_salvage_quadratic() {
    // Key size 7, no flags, value size 1 MiB and a plausible time at every offset; then a time in
    // the far future, in entries just small enough to be tried nevertheless.
    for word in [0x0010_0000_0007_0000_u64, 0x000f_0000_4007_0000] {
        salvage_with_crafted_bytes(&word.to_be_bytes().repeat(1 << 17));
    }
}

fn salvage_with_crafted_bytes(value: &[u8]) {
    let lab = Lab::new().with(Options::new().sync_policy(SyncPolicy::Never));
    let db = lab.open();
    db.put("before", "1").unwrap();
    // With a four-byte key, the value starts at a multiple of 8.
    db.put("evil", value).unwrap();
    db.put("small behind", "2").unwrap();
    db.put("filler", vec![1; 2 << 20]).unwrap();
    kill(db);
    let (_, path) = lab.logs().remove(0);
    let place = log_entries(&lab)[1].place.offset;
    let mut bytes = lab.twin.contents(&path).unwrap();
    bytes[usize::try_from(place).unwrap()] ^= 1;
    let size = bytes.len();
    lab.twin.put_file(&path, bytes);
    let calls = lab.twin.call_count();
    try_salvage(&lab).unwrap();
    // Several passes over the file in windows of 256 KiB.
    let calls = lab.twin.call_count() - calls;
    println!("{calls} calls for {size} bytes");
    assert!(calls < 40 * (size >> 18), "{calls} calls for {size} bytes");
    let keys: Vec<_> = snapshot(&open_rescued(&lab)).into_keys().collect();
    assert_eq!(keys, [b"before".to_vec(), b"filler".to_vec(), b"small behind".to_vec()]);
}

/// Any call may fail. The result is an error, or a report of the unreadable part. The source is
/// unchanged, and the target is removed or is not a store.
#[test]
fn a_failure_of_any_call_leaves_no_partial_store() {
    let told = told(Lab::new());
    let disk = told.lab.on(told.disk());
    let start = disk.twin.call_count();
    try_salvage(&disk).unwrap();
    let calls = disk.twin.call_count() - start;
    for kind in [FaultKind::Eio, FaultKind::Enospc, FaultKind::ShortWrite] {
        for (at, for_ever) in (0..calls).flat_map(|at| [(at, false), (at, true)]) {
            let when = format!("call {at} fails with {kind:?}, permanent: {for_ever}");
            let disk = told.lab.on(told.disk());
            let before = originals(&disk);
            let fault = Fault::new(kind).reads_too().after(at);
            disk.twin.fail(if for_ever { fault.for_ever() } else { fault });
            let result = try_salvage(&disk);
            disk.twin.clear_fault();
            assert_eq!(originals(&disk), before, "{when}");
            match result {
                Ok(report) => {
                    let db = open_rescued(&disk);
                    assert!(db.verify().unwrap().is_clean(), "{when}");
                    let pairs = snapshot(&db);
                    assert!(!report.is_complete() || pairs == *told.last(), "{when}: {report}");
                }
                Err(error) => {
                    assert!(matches!(error, Error::Io { .. } | Error::NoSpace { .. }), "{error}");
                    let options = disk.options.clone().create_if_missing(false);
                    let opened = Bitcask::open_on(&disk.env(), Path::new(TO), options);
                    if let Ok(db) = opened {
                        // Only the sync of the directory was missing, and what could not be synced
                        // could not be removed either.
                        assert!(for_ever && snapshot(&db) == *told.last(), "{when}");
                        continue;
                    }
                    // Where locking fails, the owner of the lock file is unknown.
                    let mut left = disk.twin.files().into_iter();
                    let left = left.find(|path| path.starts_with(TO) && !path.ends_with("LOCK"));
                    let (Error::Io { path, .. } | Error::NoSpace { path }) = &error else {
                        unreachable!("the outcome must be one of these")
                    };
                    let is_lock = path.ends_with("LOCK");
                    assert!(for_ever || is_lock || left.is_none(), "{when}: {error}: {left:?}");
                }
            }
        }
    }
}

/// A salvaged store is durable. A power cut before that leaves no store.
#[test]
fn a_power_cut_leaves_a_complete_salvage_or_no_store() {
    let told = told(Lab::new());
    let disk = told.lab.on(told.disk());
    try_salvage(&disk).unwrap();
    let ops = disk.twin.op_count();
    for at in 0..=ops {
        for keep in [false, true] {
            let image = disk.on(disk.twin.power_image(at, |_| keep));
            let options = image.options.clone().create_if_missing(false);
            match Bitcask::open_on(&image.env(), Path::new(TO), options) {
                Ok(db) => {
                    assert_eq!(snapshot(&db), *told.last(), "at {at}");
                    assert!(db.recovery().is_clean());
                }
                Err(error) => {
                    let is_no_store =
                        matches!(error, Error::NotFound { .. } | Error::Unfinished { .. });
                    let refused = error.is_corruption() || is_no_store;
                    assert!(refused && at < ops, "at {at}: {error}");
                }
            }
        }
    }
}

#[test]
fn salvage_can_be_cancelled_and_leaves_nothing() {
    let told = told(Lab::new());
    let disk = told.lab.on(told.disk());
    let (from, to) = (Path::new(DIR), Path::new(TO));
    let before = disk.twin.files();
    let mut calls: Vec<crate::repair::SalvageProgress> = Vec::new();
    salvage_on(&disk.env(), from, to, &disk.options, &mut |progress| {
        calls.push(*progress);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(
        calls.len() > 9 && calls.is_sorted_by_key(|told| (told.size_done, told.keys)),
        "{calls:?}"
    );
    assert!(calls.iter().all(|told| told.size_done <= told.size_total));
    for stop in 0..calls.len() {
        let disk = told.lab.on(told.disk());
        let mut left = stop;
        let report = salvage_on(&disk.env(), from, to, &disk.options, &mut |_| {
            left = left.wrapping_sub(1);
            if left == usize::MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(report.unwrap().cancelled);
        assert_eq!(disk.twin.files(), before, "at {stop}");
    }
}

#[test]
fn a_store_with_an_active_writer_is_not_salvaged() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    assert!(try_salvage(&lab).unwrap_err().is_locked());
    assert!(verify(&lab).is_clean(), "diagnosis works while a writer has the store open");
    db.close().unwrap();
    try_salvage(&lab).unwrap();
    assert!(
        matches!(try_salvage(&lab).unwrap_err(), Error::InvalidTarget { .. }),
        "the target exists now"
    );
}

/// Regression: a device without a battery-backed clock created its store in 1970, wrote it after
/// the time had come from the network, and salvages it in 1970 again. The entries after damage
/// looked as if they came from too far in the future to be considered.
#[test]
fn entries_from_the_future_are_found_after_damage() {
    let lab = Lab::new().with(Options::new().sync_policy(SyncPolicy::Never));
    let disk = Lab { hands: Hands::at(lab.hands.clock().now()), ..lab.clone() };
    let db = lab.open();
    db.put("then", "1").unwrap();
    lab.hands.advance(Duration::from_secs(50 * 365 * 86_400));
    db.put("first", "2").unwrap();
    db.put("damaged", "3").unwrap();
    db.put("last", "4").unwrap();
    kill(db);
    let (_, path) = lab.logs().remove(0);
    let damaged = log_entries(&lab)[2].place.offset;
    let mut bytes = lab.twin.contents(&path).unwrap();
    bytes[usize::try_from(damaged).unwrap() + 24] ^= 1;
    lab.twin.put_file(&path, bytes);
    let report = try_salvage(&disk).unwrap();
    assert_eq!(report.lost.len(), 1, "{report}");
    let rescued = snapshot(&open_rescued(&disk));
    let keys: Vec<&[u8]> = rescued.keys().map(Vec::as_slice).collect();
    assert_eq!(keys, [&b"first"[..], b"last", b"then"]);
}

/// Only the header of a segment that the manifest does not list yet has to be readable. Regression:
/// the check for entries after the header, which would show that the manifest is old, ended
/// everything with an error if its read failed.
#[test]
fn an_unreadable_part_ends_neither_verification_nor_salvage() {
    let lab = Lab::new();
    lab.open().close().unwrap();
    let mut listed = Manifest::read(&Fs::Twin(Arc::clone(&lab.twin)), &Dir::new(DIR.into()));
    let listed = listed.as_mut().unwrap().as_mut().unwrap();
    let (kind, id, identity, created) = (Kind::Log, listed.log, listed.identity, 1);
    listed.reserve(id);
    lab.twin.put_file(&manifest(), listed.encode().into_bytes());
    let mut bytes = SegmentHeader { kind, id, identity, created }.encode().to_vec();
    bytes.resize(1024, 0);
    lab.twin.put_file(&Dir::new(DIR.into()).log(id), bytes);
    let disk = || lab.on(lab.twin.fork());
    let whole = disk();
    let start = whole.twin.call_count();
    assert!(try_salvage(&whole).unwrap().is_complete());
    let mut struck = 0;
    for at in 0..whole.twin.call_count() - start {
        let fault = || Fault::new(FaultKind::Eio).only(Call::ReadAt).after(at);
        let disk = disk();
        disk.twin.fail(fault());
        match try_salvage(&disk) {
            // The salvaged store has to be read, too.
            Err(Error::Io { path, .. }) if path.starts_with(TO) => {}
            other => drop(other.unwrap_or_else(|error| panic!("read {at}: {error}"))),
        }
        struck += disk.twin.fault_count();
        disk.twin.fail(fault());
        let _ = verify(&disk);
    }
    assert!(struck > 3, "{struck}");
}
