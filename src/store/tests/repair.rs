//! Looking at stores that are broken, and saving what can be saved of them.
//!
//! Every byte of every file of a small store is damaged, every length cut to, every file taken away or
//! put in the place of another. Verification has to see it and change nothing; what is salvaged opens
//! clean, holds the right value for every key whose entries are not the damaged ones, and none that was
//! never written under its key.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};

use super::story::*;
use super::*;
use crate::fs::twin::{Call, Fault, FaultKind};
use crate::merge::{Host as _, Merge};
use crate::options::{MergeOptions, WriteOptions};
use crate::repair::{Diagnosis, SalvageReport, salvage_on, verify_on};
use crate::segment::header::Kind;
use crate::segment::hint::{Hint, Source};

const TO: &str = "/rescued";

/// A store with a merged segment, sealed ones, unsealed ones, and the output of a merge that a crash
/// has ended.
fn told(lab: Lab) -> Told {
    let options = lab.options.clone().segment_entries(3).segment_size(512);
    let mut story = Story::begin(lab.with(options));
    let ttl = WriteOptions::new().ttl(Duration::from_secs(1 << 20));
    story.put("a", "one");
    story.put_with("b", "two", ttl);
    story.put("c", "three");
    story.put("old", "stays");
    story.batch(&[("a", "four")], &["c"]);
    story.put("e", "six");
    story.seal();
    story.db.merge_with(MergeOptions::new().force(true)).unwrap();
    story.put("", "the empty key");
    story.delete("b");
    story.batch(&[("x", "1"), ("a", "eight"), ("y", "2")], &[]);
    story.seal();
    let inner = &story.db.inner;
    let ids = inner.manifest.get(|manifest| manifest.sealed.iter().map(|s| s.id).collect());
    let mut merge = Merge::begin(&inner.ground(), &ids);
    merge.step(&**inner).unwrap();
    merge.step(&**inner).unwrap();
    story.sync();
    story.delete("e");
    story.put("i", "ten");
    story.batch(&[("g", "nine")], &["x"]);
    story.killed()
}

fn manifest() -> PathBuf {
    Dir::new(DIR.into()).manifest()
}

fn verify(disk: &Lab) -> Diagnosis {
    verify_on(&disk.ground(), Path::new(DIR)).unwrap()
}

fn try_salvage(disk: &Lab) -> Result<SalvageReport> {
    let (from, to) = (Path::new(DIR), Path::new(TO));
    salvage_on(&disk.ground(), from, to, &disk.options, &mut |_| ControlFlow::Continue(()))
}

fn open_rescued(disk: &Lab) -> Bitcask {
    Bitcask::open_on(&disk.ground(), Path::new(TO), disk.options.clone()).unwrap()
}

/// The files of the broken store, the lock too.
fn originals(disk: &Lab) -> Files {
    let ours = disk.twin.files().into_iter().filter(|path| path.starts_with(DIR));
    ours.map(|path| (path.clone(), disk.twin.contents(&path).unwrap())).collect()
}

/// Salvages, and checks what has to hold whatever the damage. `touched` are the keys that may have
/// lost entries.
fn judge_salvage(told: &Told, disk: &Lab, touched: &BTreeSet<Vec<u8>>, when: &str) -> Pairs {
    let before = originals(disk);
    let report = try_salvage(disk).unwrap_or_else(|error| panic!("{when}: {error}"));
    assert_eq!(originals(disk), before, "{when}: the source was changed");
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

/// Keys with an entry in some bytes of a segment. A batch at the end of the log goes as a whole.
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

/// Whether the manifest lists a segment or it is unsealed; all others are left over.
fn counts(told: &Told, id: SegmentId) -> bool {
    let log = Dir::new(DIR.into()).log(id);
    let is_log = told.lab.twin.contents(&log).unwrap()[11] == Kind::Log as u8;
    listed(told).lists(id) || is_log && id >= listed(told).log
}

#[test]
fn a_good_store_is_found_good_and_copied_whole() {
    for lab in [Lab::new(), Lab::weak()] {
        let told = told(lab);
        let disk = told.lab.on(told.disk());
        let found = verify(&disk);
        assert_eq!(disk.twin.trace(), [], "nothing is written");
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
fn a_closed_store_has_nothing_to_be_told_of() {
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
fn any_damaged_byte_of_a_segment_is_found_and_costs_its_own_entry() {
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
                // What is left over and has no header any more may be anything.
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

/// Damages a file in the ways that sweeps go through, and shows each disk to a closure.
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
fn any_damaged_byte_of_a_hint_is_found_to_be_derived() {
    let told = told(Lab::weak());
    let hints = told.lab.hints();
    assert!(hints.len() >= 2);
    for (id, path) in hints {
        sweep(&told, &path, |disk, when| {
            let found = verify(disk);
            assert!(found.is_clean() && found.opening.is_ok(), "{when}: {found}");
            // The hint of what is left over is left over too.
            let expected = usize::from(listed(&told).lists(id));
            assert_eq!(found.derived.len(), expected, "{when}: {found}");
            assert!(found.derived.iter().all(|derived| derived.path == path), "{when}: {found}");
        });
    }
}

#[test]
fn a_hint_that_checks_and_is_wrong_is_found() {
    let told = told(Lab::new());
    let disk = told.lab.on(told.disk());
    let sealed = listed(&told).sealed[0];
    let source = Source { id: sealed.id, identity: listed(&told).identity, length: sealed.length };
    let path = Dir::new(DIR.into()).hint(sealed.id);
    let mut hint = Hint::decode(&disk.twin.contents(&path).unwrap(), source).unwrap();
    hint.slots.pop();
    hint.summary.entries -= 1;
    disk.twin.put_file(&path, hint.encode(source));
    let found = verify(&disk);
    assert!(found.derived[0].reason.contains("delete it"), "{found}");
    assert_eq!(found.derived[0].path, path);
    judge_salvage(&told, &disk, &BTreeSet::new(), "a wrong hint");
}

#[test]
fn any_segment_cut_at_any_length_keeps_what_lies_before() {
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
fn a_missing_segment_is_found_and_costs_its_own_entries() {
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

/// Each file's entries know where they belong, so names do not matter.
#[test]
fn segments_that_have_changed_places_are_told_by_their_headers() {
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
            // And one of them twice.
            let disk = told.lab.on(told.disk());
            disk.twin.put_file(target, told.lab.twin.contents(path).unwrap());
            let touched = keys_in(&told, *other, &(0..u64::MAX));
            judge_salvage(&told, &disk, &touched, &format!("{id} is {other} too"));
        }
    }
}

#[test]
fn what_belongs_to_another_store_is_left_out() {
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

/// Without a manifest nothing tells a merge's inputs, which are about to be removed, from segments
/// that count; with one they bring nothing back.
#[test]
fn what_a_merge_has_superseded_brings_nothing_back() {
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
    story.db.merge_with(MergeOptions::new().force(true)).unwrap();
    let told = story.killed();
    let disk = told.lab.on(told.disk());
    for (_, path) in &inputs {
        disk.twin.put_file(path, before[path].clone());
    }
    let report = try_salvage(&disk.on(disk.twin.fork())).unwrap();
    assert!(report.had_manifest && report.leftovers.len() >= 2, "{report}");
    assert_eq!(judge_salvage(&told, &disk, &BTreeSet::new(), "inputs"), *told.last());
    // The tombstone of "gone" has been dropped: if its segment alone is gone, the put is back.
    disk.twin.delete_file(&manifest());
    let disk = disk.on(disk.twin.fork());
    for path in disk.twin.files().into_iter().filter(|path| path.starts_with(TO)) {
        disk.twin.delete_file(&path);
    }
    let report = try_salvage(&disk).unwrap();
    assert!(!report.had_manifest, "{report}");
    let pairs = snapshot(&open_rescued(&disk));
    assert_eq!(pairs, *told.last(), "all of them are there, so the newest counts");
}
