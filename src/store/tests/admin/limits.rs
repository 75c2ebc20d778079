//! The limit on a store's segments, and ways to get below it.

use std::ops::ControlFlow;

use crate::key_hash::KeyHasher;
use crate::keydir::Keydir;
use crate::manifest::Sealed;
use crate::options::{MergeOptions, MergePolicy};
use crate::segment::header::{Kind, SegmentHeader};
use crate::segment::hint::{Hint, HintSource};
use crate::segment::limit::allowed;
use crate::segment::write::active::Active;
use crate::segment::write::draft::Draft;
use crate::store::tests::merge::basics::{seal_active, sealed};
use crate::store::tests::*;

const LIMIT: u64 = 100;
/// Number of segments that puts leave for operations that free space.
const LEFT: u64 = 64;

/// A store that refuses further puts.
fn full() -> (Lab, Bitcask, u64) {
    allowed::only(LIMIT);
    let lab = Lab::new();
    let options = lab.options.clone().segment_entries(1).merge_policy(MergePolicy::Manual);
    let lab = lab.with(options);
    let db = lab.open();
    for number in 0..LIMIT {
        match db.put(number.to_be_bytes(), [7; 20]) {
            Ok(()) => db.work(),
            Err(error) => {
                let Error::TooManySegments { limit } = error else { panic!("{error}") };
                assert_eq!(limit, LIMIT - LEFT);
                assert!(error.to_string().contains("merge it"), "{error}");
                assert_eq!(db.stats().segments_limit, limit);
                assert_eq!(db.stats().segments, limit);
                return (lab, db, number);
            }
        }
    }
    panic!("no put was refused")
}

#[test]
fn a_merge_frees_a_store_at_the_segment_limit() {
    let (lab, db, len) = full();
    assert!(db.put("k", "v").is_err());
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    // A segment may hold only one entry here.
    assert_eq!(db.len().unwrap(), len);
    db.close().unwrap();
    let lab = lab.clone().with(lab.options.clone().segment_entries(50));
    let db = lab.open();
    assert!(db.put("k", "v").is_err());
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    assert!(sealed(&db).len() < 4, "{:?}", sealed(&db));
    db.put("k", "v").unwrap();
    assert_eq!(db.len().unwrap(), len + 1);
}

#[test]
fn a_clear_frees_a_store_at_the_segment_limit() {
    let (lab, db, _) = full();
    db.clear().unwrap();
    db.put("k", "v").unwrap();
    assert_eq!(lab.reopen(db).len().unwrap(), 1);
}

#[test]
fn deletes_and_a_merge_free_a_store_at_the_segment_limit() {
    let (lab, db, len) = full();
    let mut deleted = 0;
    for number in 0..len {
        match db.delete(number.to_be_bytes()) {
            Ok(was_there) => assert!(was_there),
            Err(error) => {
                assert!(matches!(error, Error::TooManySegments { .. }), "{error}");
                break;
            }
        }
        deleted += 1;
        db.work();
    }
    assert!((30..34).contains(&deleted), "{deleted}");
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    db.put("k", "v").unwrap();
    assert_eq!(db.len().unwrap(), len - deleted + 1);
    assert_eq!(lab.reopen(db).len().unwrap(), len - deleted + 1);
}

#[test]
fn a_store_at_the_segment_limit_opens_and_closes() {
    let (lab, db, len) = full();
    db.close().unwrap();
    let db = lab.open();
    assert!(db.put("k", "v").is_err());
    assert!(db.delete(0_u64.to_be_bytes()).unwrap());
    seal_active(&db);
    let db = lab.reopen(db);
    assert!(db.recovery().is_clean());
    assert_eq!(db.len().unwrap(), len - 1);
    assert_eq!(lab.open_read_only().len().unwrap(), len - 1);
}

/// A segment number that a slot may still refer to must not be reused. A removed segment counts
/// until it can be released, and not afterwards.
#[test]
fn removed_segments_that_are_still_read_count_toward_the_limit() {
    for is_cleared in [false, true] {
        allowed::only(LIMIT);
        let lab = Lab::new();
        let lab = lab.clone().with(lab.options.clone().merge_policy(MergePolicy::Manual));
        let db = lab.open();
        db.put("key", "value").unwrap();
        let turn_over = |number: u64| {
            db.put(number.to_be_bytes(), "value")?;
            db.merge_opt(MergeOptions::new().force(true))
        };
        let refused = db.get_with("key", |_| (0..LIMIT).find_map(|number| turn_over(number).err()));
        let refused = refused.unwrap().unwrap().expect("the closure keeps the merged segments");
        assert!(matches!(refused, Error::TooManySegments { .. }), "{refused}");
        assert!(db.stats().segments < 4, "{:?}", db.stats());
        if is_cleared {
            db.clear().unwrap();
        }
        for number in 0..LIMIT {
            turn_over(number).unwrap();
        }
    }
}

/// More segments than the kernel allows mappings. Uses files in memory, and is slow: run it by
/// hand.
#[test]
#[ignore = "takes a minute and a gigabyte of memory"]
fn a_store_of_more_segments_than_there_are_mappings_works() {
    const SEGMENTS: u32 = 70_000;
    let temporary = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = temporary.path().join("store");
    on_disk(&path, SEGMENTS);
    let key = |number: u32| number.to_be_bytes();
    let mut since = std::time::Instant::now();
    let mut step = |what: &str| {
        println!("{what}: {:?}", since.elapsed());
        since = std::time::Instant::now();
    };
    let options = || Options::new().merge_policy(MergePolicy::Manual);
    let db = Bitcask::open(&path, options()).unwrap();
    step("open");
    assert_eq!(db.get(key(1)).unwrap().unwrap(), [7; 20]);
    step("first get");
    assert_eq!(db.len().unwrap(), u64::from(SEGMENTS));
    step("len");
    for number in 1..=SEGMENTS {
        assert_eq!(db.get(key(number)).unwrap().unwrap(), [7; 20]);
    }
    step("get of each");
    println!("{:?}", db.stats());
    db.put("another", "value").unwrap();
    assert!(db.verify().unwrap().is_clean());
    step("verify");
    db.close().unwrap();
    step("close");
    let reader = ReadOnly::open(&path, options()).unwrap();
    step("open read-only");
    assert_eq!(reader.get(key(SEGMENTS)).unwrap().unwrap(), [7; 20]);
    println!("{:?}", reader.stats());
    drop(reader);
    assert!(crate::repair::verify(&path).unwrap().is_clean());
    step("repair::verify");
    let saved =
        crate::repair::salvage(
            &path,
            temporary.path().join("saved"),
            |_| ControlFlow::Continue(()),
        )
        .unwrap();
    assert!(saved.is_complete(), "{saved}");
    step("salvage");
    let db = Bitcask::open(&path, options()).unwrap();
    let snapshot = db.snapshot();
    db.backup(temporary.path().join("backup")).unwrap();
    step("open and backup");
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    step("merge");
    assert_eq!(snapshot.get(key(7)).unwrap().unwrap(), [7; 20]);
    drop(snapshot);
    assert!(db.stats().segments < 10, "{:?}", db.stats());
    db.close().unwrap();
    step("close");
    let db = Bitcask::open(temporary.path().join("backup"), Options::new()).unwrap();
    assert_eq!(db.get(key(7)).unwrap().unwrap(), [7; 20]);
    step("open and first get of the backup, folded in the background");
    while db.stats().segments > 100 {
        std::thread::yield_now();
    }
    step("folded");
    db.close().unwrap();
}

/// Writes a store with one entry per segment, without writing a manifest for each segment.
fn on_disk(path: &Path, segments: u32) {
    let (fs, dir) = (crate::fs::Fs::DISK, Dir::new(path.into()));
    fs.create_dir(path).unwrap();
    let identity = Identity { store_id: 1, hash_seed: 2 };
    let hasher = KeyHasher::new(identity.hash_seed);
    let keydir = Keydir::new(hasher);
    let mut manifest = Manifest::new(identity);
    for number in 1..=segments {
        let (id, kind) = (SegmentId(number), Kind::Log);
        let header = SegmentHeader { kind, id, identity, created: 1 };
        let mode = AppendMode::Positioned;
        let mut active = Active::create(&fs, &dir, header, 4096, mode).unwrap();
        let key = number.to_be_bytes();
        active.append(&Draft::put(&key, &[7; 20], None), u64::from(number)).unwrap();
        active.flush().unwrap();
        let length = active.segment().size();
        active.room().cut(length).unwrap();
        let source = HintSource { id, identity, length };
        let hint = Hint::build(active.file(), source, |key| keydir.hash(key)).unwrap();
        hint.write(&fs, &dir, source).unwrap();
        manifest.sealed.push(Sealed { id, kind, length });
    }
    (manifest.log, manifest.bound) = (SegmentId(segments + 1), SegmentId(segments + 1));
    manifest.write(&fs, &dir).unwrap();
}
