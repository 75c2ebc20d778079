//! A store that was merged and closed, damaged in every way. All of it was durable, so nothing may
//! be cut off, and there is no older state to return to. Every key reads as it was written, or
//! causes an error that names the file.

use crate::options::{MergeOptions, WriteOptions};
use crate::store::tests::story::*;
use crate::store::tests::*;

/// A closed store with ordinary and merged segments. It has a tombstone that is still needed, a
/// batch, a time to live, and something in quarantine.
fn closed() -> (Lab, Pairs) {
    let lab = Lab::new();
    let lab = lab.with(Options::new().segment_size(512).segment_entries(3)).seeded(5);
    let db = lab.open();
    let ttl = WriteOptions::new().ttl(Duration::from_secs(1 << 20));
    for (key, value) in [("a", "one"), ("b", "two"), ("c", "three"), ("d", "four")] {
        db.put(key, value).unwrap();
    }
    db.delete("a").unwrap();
    db.put_opt("e", "five", ttl).unwrap();
    db.write(Batch::new().put("f", "six").put("b", "seven").delete("c")).unwrap();
    db.put("g", "eight").unwrap();
    db.work();
    // All segments except the oldest one, so that the tombstones are still needed.
    let merged = db.segments().into_iter().skip(1).map(|segment| segment.id);
    db.merge_opt(MergeOptions::new().segments(merged)).unwrap();
    db.put("h", "nine").unwrap();
    let pairs = snapshot(&db);
    db.close().unwrap();
    let aside = Dir::new(DIR.into()).quarantined(Place::new(SegmentId(3), 64));
    lab.twin.put_file(&aside, b"what could not be read once".to_vec());
    let db = lab.open_read_only();
    assert!(db.segments().iter().any(|segment| segment.merged));
    assert!(log_entries(&lab).iter().any(|entry| entry.flags.has(Flags::TOMBSTONE)));
    assert_eq!(snapshot(&db), pairs);
    (lab.on(lab.twin.fork()), pairs)
}

fn names(error: &Error, files: &[&Path]) -> bool {
    match error {
        Error::Corrupt { path, .. }
        | Error::MissingSegment { path }
        | Error::UnsupportedVersion { path, .. }
        | Error::UnsupportedCodec { path, .. }
        | Error::UnsupportedFlags { path, .. } => files.contains(&path.as_path()),
        // Without its manifest, the directory is not a store.
        Error::NotFound { .. } => files.iter().any(|file| file.ends_with("MANIFEST")),
        _ => false,
    }
}

/// Opens a damaged store, for reading and for writing, and reads everything. Returns whether
/// everything was right.
fn judge(disk: &Lab, pairs: &Pairs, files: &[&Path], when: &str) -> bool {
    let mut all_right = true;
    for read_only in [true, false] {
        let when = format!("{files:?}, {when}, read-only: {read_only}");
        let db = match disk.try_open_in_role(read_only) {
            Ok(db) => db,
            Err(error) => {
                assert!(names(&error, files), "{when}: {error}");
                all_right = false;
                continue;
            }
        };
        assert_eq!(db.recovery().cuts, [], "{when}");
        for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            match db.get(key) {
                Ok(value) => {
                    let right = pairs.get(key.as_bytes()).map(Vec::as_slice);
                    assert_eq!(value.as_deref(), right, "{when}: {key}");
                }
                Err(error) => {
                    assert!(names(&error, files), "{when}: {key}: {error}");
                    all_right = false;
                }
            }
        }
        db.kill();
    }
    all_right
}

/// Returns whether a file contains nothing that is needed.
fn is_derived(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "hint")
        || path.ends_with("LOCK")
        || *path == Dir::new(DIR.into()).spare()
        || path.starts_with(Dir::new(DIR.into()).quarantine())
}

/// Damages each file in the given ways, and judges the results.
fn each_file(mut damage: impl FnMut(&[u8], &mut dyn FnMut(Vec<u8>, &str))) {
    let (lab, pairs) = closed();
    let (mut right, mut refused) = (0, 0);
    for path in lab.twin.files() {
        let bytes = lab.twin.contents(&path).unwrap();
        damage(&bytes, &mut |damaged, when| {
            let disk = lab.on(lab.twin.fork());
            disk.twin.put_file(&path, damaged);
            let all_right = judge(&disk, &pairs, &[&path], when);
            assert!(all_right || !is_derived(&path), "{}, {when}: refused", path.display());
            *if all_right { &mut right } else { &mut refused } += 1;
        });
    }
    println!("{right} changed nothing, {refused} were refused");
}

#[test]
fn any_byte_of_a_closed_store_damaged() {
    each_file(|bytes, judge| {
        for at in 0..bytes.len() {
            for to in [bytes[at] ^ 0x01, bytes[at] ^ 0x80, 0, 0xff] {
                if to != bytes[at] {
                    let mut damaged = bytes.to_vec();
                    damaged[at] = to;
                    judge(damaged, &format!("byte {at} is {to:#x}"));
                }
            }
        }
    });
}

#[test]
fn any_file_of_a_closed_store_cut_at_any_byte_or_longer() {
    each_file(|bytes, judge| {
        for size in 0..bytes.len() {
            judge(bytes[..size].to_vec(), &format!("cut at {size}"));
            let mut zeroed = bytes.to_vec();
            zeroed[size..].fill(0);
            judge(zeroed, &format!("zeroed from {size}"));
        }
        judge([bytes, &[0; 40]].concat(), "followed by zeros");
    });
}

/// A write that reached the wrong place: elsewhere in the same file, or in another file.
#[test]
fn a_misdirected_write_is_not_taken_for_an_entry() {
    let (lab, pairs) = closed();
    let logs = lab.logs();
    let (mut right, mut refused) = (0, 0);
    for (_, from) in &logs {
        let source = lab.twin.contents(from).unwrap();
        for (_, to) in &logs {
            let target = lab.twin.contents(to).unwrap();
            for block in (0..source.len()).step_by(8) {
                for size in [8, 32, 64] {
                    for at in (0..target.len()).step_by(if long() { 8 } else { 40 }) {
                        let size = size.min(source.len() - block).min(target.len() - at);
                        if from == to && block == at {
                            continue;
                        }
                        let mut damaged = target.clone();
                        damaged[at..at + size].copy_from_slice(&source[block..block + size]);
                        if damaged == target {
                            continue;
                        }
                        let disk = lab.on(lab.twin.fork());
                        disk.twin.put_file(to, damaged);
                        let when = format!("{size} bytes at {at} from {block} of {from:?}");
                        let all_right = judge(&disk, &pairs, &[to], &when);
                        *if all_right { &mut right } else { &mut refused } += 1;
                    }
                }
            }
        }
    }
    println!("{right} changed nothing, {refused} were refused");
    assert!(refused > right);
}

#[test]
fn any_file_of_a_closed_store_missing_doubled_or_swapped() {
    let (lab, pairs) = closed();
    let all = lab.twin.files();
    let manifest = Dir::new(DIR.into()).manifest();
    for path in &all {
        let bytes = lab.twin.contents(path).unwrap();
        let fresh = || lab.on(lab.twin.fork());
        let disk = fresh();
        disk.twin.delete_file(path);
        // Without its manifest, the directory is not a store, and no store is created in it.
        let all_right = judge(&disk, &pairs, &[path, &manifest], "missing");
        assert_eq!(all_right, is_derived(path), "{} missing", path.display());
        let disk = fresh();
        disk.twin.put_file(path, vec![]);
        let all_right = judge(&disk, &pairs, &[path], "empty");
        assert_eq!(all_right, is_derived(path), "{} empty", path.display());
        let disk = fresh();
        disk.twin.put_file(path, [&bytes[..], &bytes[..]].concat());
        judge(&disk, &pairs, &[path], "doubled");
        for other in all.iter().filter(|other| *other > path) {
            let disk = fresh();
            disk.twin.put_file(path, lab.twin.contents(other).unwrap());
            disk.twin.put_file(other, bytes.clone());
            judge(&disk, &pairs, &[path, other], "swapped");
        }
    }
}
