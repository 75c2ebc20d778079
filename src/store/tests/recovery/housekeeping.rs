//! What opening cleans up, what it leaves alone, and the results of interrupting the creation,
//! clearing or closing of a store.

use crate::segment::header::SegmentHeader;
use crate::store::tests::story::*;
use crate::store::tests::*;
use crate::testing::twin::{Fault, FaultKind, Op};

fn dir() -> Dir {
    Dir::new(DIR.into())
}

/// Several sealed segments, then a clean close.
fn closed(lab: Lab) -> Told {
    let options = lab.options.clone().segment_entries(2);
    let mut story = Story::begin(lab.with(options));
    for (number, key) in ["a", "b", "c", "a", "d"].into_iter().enumerate() {
        story.put(key, &format!("value {number}"));
    }
    story.delete("b");
    let told = story.killed();
    told.lab.open().close().unwrap();
    told
}

/// Every file that an interrupted operation can leave behind, in the order of the operations.
fn leftovers(told: &Told) -> Vec<(PathBuf, Vec<u8>)> {
    let (_, oldest) = told.lab.logs()[0].clone();
    let mut dead = told.lab.twin.contents(&oldest).unwrap();
    // A segment that a clear or a merge did not get to remove; its header is valid.
    let id = SegmentId(4);
    let header = SegmentHeader::decode(dead[..64].try_into().unwrap(), Path::new("x"));
    let header = SegmentHeader { id, ..header.unwrap() };
    dead[..64].copy_from_slice(&header.encode());
    vec![
        (dir().hint(SegmentId(3_000_000_000)), b"of a removed segment".to_vec()),
        (dir().hint(SegmentId(4)), b"of the next segment".to_vec()),
        (dir().index(SegmentId(3_000_000_000)), b"of a removed segment".to_vec()),
        (dir().index(SegmentId(4)), b"of the next segment".to_vec()),
        (dir().log(id), dead),
        (Dir::temporary(&dir().log(SegmentId(9))), vec![0; 100]),
        (Dir::temporary(&dir().hint(SegmentId(1))), vec![]),
        (Dir::temporary(&dir().index(SegmentId(1))), b"not whole".to_vec()),
        (Dir::temporary(&dir().manifest()), b"bitcask manifest 1\n".to_vec()),
    ]
}

#[test]
fn leftovers_are_removed_and_reported() {
    let told = closed(Lab::new());
    assert_eq!(told.lab.logs().len(), 3);
    for (path, bytes) in leftovers(&told) {
        let lab = told.lab.on(told.disk());
        let clean = files(&lab.twin);
        lab.twin.put_file(&path, bytes);
        let reader = lab.on(lab.twin.fork());
        let db = reader.open_read_only();
        assert!(
            db.recovery().is_clean(),
            "a reader must not remove leftovers: {:?}",
            db.recovery()
        );
        drop(db);
        assert_eq!(reader.twin.trace(), []);
        let db = lab.open();
        let report = db.recovery().clone();
        assert_eq!(report.leftovers, [path]);
        assert_eq!(RecoveryReport { leftovers: vec![], ..report }, RecoveryReport::default());
        assert_eq!(snapshot(&db), *told.last());
        kill(db);
        assert_eq!(files(&lab.twin), clean);
        assert!(lab.open().recovery().is_clean());
    }
    let lab = told.lab.on(told.disk());
    let mut paths: Vec<_> = leftovers(&told).into_iter().map(|(path, _)| path).collect();
    for (path, bytes) in leftovers(&told) {
        lab.twin.put_file(&path, bytes);
    }
    let db = lab.open();
    let mut removed = db.recovery().leftovers.clone();
    removed.sort();
    paths.sort();
    assert_eq!(removed, paths, "all leftovers are removed by one open");
}

/// An up-to-date manifest says that the log has begun once it has. So a segment at the log's first
/// id may exist without an entry, as a crash can leave it; with an entry, it shows that the
/// manifest is old.
#[test]
fn a_segment_before_the_log_has_begun_is_empty_or_proves_the_manifest_old() {
    let told = closed(Lab::new());
    let fs = Fs::Twin(told.disk());
    let mut manifest = Manifest::read(&fs, &dir()).unwrap().unwrap();
    let id = manifest.log;
    assert!(!manifest.log_exists);
    manifest.reserve(id);
    let (_, oldest) = told.lab.logs()[0].clone();
    let mut segment = told.lab.twin.contents(&oldest).unwrap();
    let head = segment[..64].try_into().unwrap();
    let header = SegmentHeader::decode(head, Path::new("x")).unwrap();
    segment[..64].copy_from_slice(&SegmentHeader { id, ..header }.encode());
    for (bytes, is_left) in [(segment.clone(), false), (segment[..64].to_vec(), true)] {
        let lab = told.lab.on(told.disk());
        lab.twin.put_file(&dir().manifest(), manifest.encode().into_bytes());
        lab.twin.put_file(&dir().log(id), bytes);
        match lab.try_open() {
            Ok(db) => {
                assert!(is_left);
                assert_eq!(db.recovery().leftovers, [dir().log(id)]);
                assert_eq!(snapshot(&db), *told.last());
            }
            Err(error) => {
                let manifest = dir().manifest();
                assert!(matches!(&error, Error::Corrupt { path, .. } if *path == manifest));
                assert!(!is_left);
            }
        }
    }
}

#[test]
fn foreign_files_are_left_alone() {
    let told = closed(Lab::new());
    let foreign = [
        "notes.txt",
        "1.log",
        "00000000001.log",
        "0000000001.log.bak",
        "0000000001.idx",
        "manifest",
        "MANIFEST.old",
        "a.tmp",
        ".hidden",
        "quarantine/mine",
        "sub/0000000001.log",
        "0000000001.LOG",
        "9999999999.log",
        "LOCK.tmp",
    ];
    let lab = told.lab.on(told.disk());
    for name in foreign {
        lab.twin.put_file(&Path::new(DIR).join(name), name.as_bytes().to_vec());
    }
    let db = lab.open();
    assert!(db.recovery().is_clean(), "{:?}", db.recovery());
    db.put("new", "value").unwrap();
    let db = lab.reopen(db);
    db.clear().unwrap();
    let db = lab.reopen(db);
    assert!(db.is_empty().unwrap());
    for name in foreign {
        let bytes = lab.twin.contents(&Path::new(DIR).join(name));
        assert_eq!(bytes.as_deref(), Some(name.as_bytes()));
    }
}

/// Every manifest that the store has ever had is restored with the store's later files.
#[test]
fn a_stale_manifest_is_refused_or_loses_nothing() {
    let lab = Lab::new();
    let lab = lab.clone().with(lab.options.clone().segment_entries(2));
    let mut manifests: Vec<Vec<u8>> = Vec::new();
    let remember = |manifests: &mut Vec<Vec<u8>>| {
        let now = lab.twin.contents(&dir().manifest()).unwrap();
        if manifests.last() != Some(&now) {
            manifests.push(now);
        }
    };
    let mut pairs = Pairs::new();
    for round in 0..4 {
        let db = lab.open();
        remember(&mut manifests);
        for number in 0..7 {
            let (key, value) = (format!("{number}"), format!("{round}.{number}"));
            db.put(&key, &value).unwrap();
            pairs.insert(key.into(), value.into());
            db.inner.seal_rotated().unwrap();
            remember(&mut manifests);
        }
        if round == 1 {
            db.clear().unwrap();
            pairs.clear();
            remember(&mut manifests);
        }
        if round % 2 == 0 {
            db.close().unwrap();
        } else {
            kill(db);
        }
        remember(&mut manifests);
    }
    kill(lab.open());
    remember(&mut manifests);
    let last = manifests.pop().unwrap();
    assert!(manifests.len() > 15);
    let (mut refused, mut too_old, mut opened) = (0, 0, 0);
    for stale in manifests {
        for read_only in [true, false] {
            let disk = lab.on(lab.twin.fork());
            disk.twin.put_file(&dir().manifest(), stale.clone());
            let before = files(&disk.twin);
            match disk.try_open_in_role(read_only) {
                Err(error) => {
                    // A manifest from before a clear shows only that its segments are missing.
                    let manifest = dir().manifest();
                    let old = matches!(&error, Error::Corrupt { path, .. } if *path == manifest);
                    let gone = matches!(error, Error::MissingSegment { .. });
                    assert!(old || gone, "{error}");
                    too_old += usize::from(old);
                    assert_eq!(files(&disk.twin), before);
                    refused += 1;
                }
                // The manifest still led to the end of the log.
                Ok(db) => {
                    assert_eq!(snapshot(&db), pairs);
                    assert!(db.recovery().cuts.is_empty() && db.recovery().leftovers.is_empty());
                    db.kill();
                    opened += 1;
                }
            }
        }
    }
    println!("{refused} refused, {too_old} of them as too old, {opened} opened");
    assert!(too_old > 15);
    assert!(lab.twin.contents(&dir().manifest()) == Some(last));
}

#[test]
fn an_active_segment_without_an_entry_is_removed_at_close() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    db.clear().unwrap();
    assert_eq!(lab.logs().len(), 1);
    db.close().unwrap();
    assert!(lab.logs().is_empty() && lab.hints().is_empty());
    let db = lab.open();
    assert!(db.recovery().is_clean());
    assert!(db.is_empty().unwrap());
    // After a kill, opening removes it.
    db.put("a", "1").unwrap();
    db.clear().unwrap();
    kill(db);
    assert_eq!(lab.logs().len(), 1);
    let db = lab.open();
    assert!(lab.logs().is_empty() && db.is_empty().unwrap() && db.recovery().cuts.is_empty());
}

#[test]
fn opening_and_closing_writes_no_segments() {
    let told = closed(Lab::new());
    let before = files(&told.lab.twin);
    for _ in 0..5 {
        told.lab.open().close().unwrap();
        kill(told.lab.open());
        drop(told.lab.open_read_only());
    }
    assert_eq!(files(&told.lab.twin), before);
}

/// The trace shows the names of created segments; no name appears twice.
#[test]
fn ids_are_never_used_twice() {
    let mut lab = Lab::new();
    let mut random = Random(11);
    let mut used = Vec::new();
    for round in 0..60_u64 {
        let db = lab.open();
        for number in 0..random.below(5) {
            db.put(format!("{number}"), "x".repeat(300)).unwrap();
            if random.below(3) == 0 {
                db.inner.seal_rotated().unwrap();
            }
        }
        match random.below(4) {
            0 => db.clear().unwrap(),
            1 => db.sync().unwrap(),
            _ => {}
        }
        if random.below(2) == 0 {
            db.close().unwrap();
        } else {
            kill(db);
        }
        let is_log = |path: &PathBuf| path.extension() == Some("log".as_ref());
        let named = |op: Op| match op {
            Op::Rename { to, .. } if is_log(&to) => Some(to),
            _ => None,
        };
        used.extend(lab.twin.trace().into_iter().filter_map(named));
        lab = if round % 2 == 0 { lab.on(lab.twin.fork()) } else { lab.killed() };
    }
    let count = used.len();
    assert!(count > 60, "{count}");
    used.sort();
    used.dedup();
    assert_eq!(used.len(), count);
}

/// Files that a power cut left are never overwritten or mistaken for others.
#[test]
fn ids_of_files_that_survive_a_power_cut_are_not_used_again() {
    let lab = Lab::new();
    let db = lab.open();
    for number in 0..12 {
        db.put(format!("{number}"), "x".repeat(600)).unwrap();
        if number % 5 == 4 {
            db.inner.seal_rotated().unwrap();
        }
        if number == 8 {
            db.clear().unwrap();
        }
    }
    kill(db);
    for ops in 0..=lab.twin.op_count() {
        for seed in 0..3 {
            let mut random = Random(seed << 32 | ops as u64);
            let disk = lab.on(lab.twin.power_image(ops, |_| random.below(2) == 0));
            let there: Vec<_> = disk.logs().into_iter().map(|(id, _)| id).collect();
            let db = disk.open();
            db.put("new", "value").unwrap();
            let id = db.inner.writer().unwrap().log.lock().end().segment;
            assert!(there.iter().all(|other| *other < id), "{there:?}, {id}");
            kill(db);
        }
    }
}

/// If a writer replaces the manifest while a reader opens, the reader starts over.
#[test]
fn a_reader_starts_over_when_a_writer_changes_the_store() {
    let story = {
        let lab = Lab::new();
        let options = lab.options.clone().segment_entries(2);
        Story::begin(lab.with(options))
    };
    let (lab, db) = (story.lab, story.db);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // One batch puts each number under both keys, so readers see the same number under
            // both.
            for number in 0..if long() { 3000 } else { 300 } {
                let value = format!("{number}");
                db.write(Batch::new().put("a", &value).put("b", &value)).unwrap();
                db.inner.seal_rotated().unwrap();
                if number % 40 == 39 {
                    db.clear().unwrap();
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Release);
        });
        let mut opened = 0;
        while !stop.load(std::sync::atomic::Ordering::Acquire) || opened == 0 {
            match lab.try_open_read_only() {
                Ok(reader) => {
                    assert_eq!(reader.get("a").unwrap(), reader.get("b").unwrap());
                    opened += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        println!("{opened} opened");
    });
}

/// A failing read without a concurrent writer is reported, and changes nothing.
#[test]
fn a_reader_reports_every_failure() {
    let told = closed(Lab::new());
    let once = told.lab.on(told.disk());
    drop(once.open_read_only());
    let calls = once.twin.call_count();
    for at in 0..calls {
        let lab = told.lab.on(told.disk());
        lab.twin.fail(Fault::new(FaultKind::Eio).reads_too().after(at).for_ever());
        match lab.try_open_read_only() {
            Ok(db) => assert_eq!(snapshot_or_failed(&db), None),
            Err(error) => assert!(matches!(error, Error::Io { .. }), "{error}"),
        }
        assert_eq!(lab.twin.trace(), []);
    }
}

/// Returns `None` if reading fails with the disk's error, the only one allowed here.
fn snapshot_or_failed(db: &Reader) -> Option<Pairs> {
    let pairs: Result<Pairs> = db
        .iter_unordered()
        .map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec())))
        .collect();
    match pairs {
        Err(Error::Io { .. }) => None,
        Err(error) => panic!("{error}"),
        Ok(pairs) => Some(pairs),
    }
}

/// An interrupted clear has removed everything or nothing.
#[test]
fn an_interrupted_clear_is_atomic() {
    let told = closed(Lab::new());
    let begin = || {
        let lab = told.lab.on(told.disk());
        let db = lab.open();
        db.put("e", "not sealed").unwrap();
        db.put("f", "not sealed").unwrap();
        db.put("g", "not sealed").unwrap();
        db.sync().unwrap();
        (lab, db)
    };
    let mut before = told.last().clone();
    for key in ["e", "f", "g"] {
        before.insert(key.into(), "not sealed".into());
    }
    let (lab, db) = begin();
    let start = lab.twin.op_count();
    db.clear().unwrap();
    let end = lab.twin.op_count();
    let judge = |disk: &Lab, when: &str| {
        let db = disk.try_open().unwrap_or_else(|error| panic!("{when}: {error}"));
        let found = snapshot(&db);
        assert!(found.is_empty() || found == before, "{when}: {found:?}");
        assert!(db.recovery().cuts.is_empty(), "{when}: {:?}", db.recovery());
        kill(db);
        let db = disk.open();
        assert!(found_in_order(&db), "{when}");
        assert_eq!(snapshot(&db), found, "{when}");
        kill(db);
        found.is_empty()
    };
    let mut cleared = Vec::new();
    for ops in start..=end {
        cleared.push(judge(&lab.on(lab.twin.kill_image(ops)), &format!("killed at {ops}")));
        for seed in 0..if long() { 100 } else { 10 } {
            let mut random = Random(seed << 32 | ops as u64);
            let image = lab.twin.power_image(ops, |_| random.below(3) < seed % 4);
            judge(&lab.on(image), &format!("power cut at {ops}, seed {seed}"));
        }
    }
    assert!(cleared.is_sorted() && !cleared[0] && cleared[cleared.len() - 1]);
    assert!(judge(&lab.powered_off(|_| false), "power cut at the end"), "a clear is durable");
    drop(db);
    for kind in [FaultKind::Eio, FaultKind::Enospc, FaultKind::Interrupted] {
        for ops in start..end {
            for for_ever in [false, true] {
                let (lab, db) = begin();
                let fault = Fault::new(kind).after(ops - lab.twin.op_count());
                lab.twin.fail(if for_ever { fault.for_ever() } else { fault });
                let when = format!("{kind:?} at {ops}, forever: {for_ever}");
                let result = db.clear();
                let seen = snapshot(&db);
                assert!(seen.is_empty() || seen == before && result.is_err(), "{when}");
                kill(db);
                let after = judge(&lab.killed(), &format!("{when}, killed"));
                let poisoned = result.as_ref().is_err_and(Error::is_poisoned);
                assert!(poisoned || after == seen.is_empty(), "{when}: {result:?}");
                let cut = judge(&lab.powered_off(|_| false), &format!("{when}, power cut"));
                assert!(cut || result.is_err(), "{when}");
            }
        }
    }
}

/// An interrupted creation leaves no store, or an empty one.
#[test]
fn an_interrupted_creation_leaves_no_store_or_an_empty_one() {
    let judge = |disk: &Lab, when: &str| {
        if let Ok(reader) = disk.try_open_read_only() {
            assert!(reader.is_empty().unwrap(), "{when}");
        }
        let db = disk.try_open().unwrap_or_else(|error| panic!("{when}: {error}"));
        assert!(db.is_empty().unwrap(), "{when}");
        db.put("a", "1").unwrap();
        let db = disk.reopen(db);
        assert!(db.recovery().is_clean(), "{when}: {:?}", db.recovery());
        assert_eq!(db.get("a").unwrap().unwrap(), "1", "{when}");
    };
    let lab = Lab::new();
    kill(lab.open());
    let end = lab.twin.op_count();
    for ops in 0..=end {
        judge(&lab.on(lab.twin.kill_image(ops)), &format!("killed at {ops}"));
        for seed in 0..20 {
            let mut random = Random(seed << 32 | ops as u64);
            let image = lab.twin.power_image(ops, |_| random.below(3) < seed % 4);
            judge(&lab.on(image), &format!("power cut at {ops}, seed {seed}"));
        }
    }
    let durable = lab.powered_off(|_| false);
    assert!(
        durable.twin.contents(&dir().manifest()).is_some(),
        "a store that was opened must be durable"
    );
    for kind in [FaultKind::Eio, FaultKind::Enospc, FaultKind::ShortWrite, FaultKind::Interrupted] {
        for ops in 0..end {
            for for_ever in [false, true] {
                let lab = Lab::new();
                let fault = Fault::new(kind).after(ops);
                lab.twin.fail(if for_ever { fault.for_ever() } else { fault });
                let when = format!("{kind:?} at {ops}, forever: {for_ever}");
                match lab.try_open() {
                    Ok(db) => kill(db),
                    Err(error) => {
                        let told = matches!(error, Error::Io { .. } | Error::NoSpace { .. });
                        assert!(told, "{when}: {error}");
                    }
                }
                judge(&lab.killed(), &format!("{when}, killed"));
                judge(&lab.powered_off(|_| false), &format!("{when}, power cut"));
                lab.twin.clear_fault();
                judge(&lab, &format!("{when}, again"));
            }
        }
    }
}

/// An interrupted close is a crash like any other.
#[test]
fn an_interrupted_close_loses_nothing() {
    let lab = Lab::new();
    let lab = lab.clone().with(lab.options.clone().segment_entries(2));
    let db = lab.open();
    let mut pairs = Pairs::new();
    for number in 0..5 {
        let (key, value) = (format!("{number}"), format!("value {number}"));
        db.put(&key, &value).unwrap();
        pairs.insert(key.into(), value.into());
    }
    db.sync().unwrap();
    let start = lab.twin.op_count();
    db.close().unwrap();
    for ops in start..=lab.twin.op_count() {
        let check = |disk: &Lab, when: &str| {
            let db = disk.try_open().unwrap_or_else(|error| panic!("{when}: {error}"));
            assert_eq!(snapshot(&db), pairs, "{when}");
            assert!(db.recovery().cuts.is_empty(), "{when}");
            kill(db);
            assert!(found_in_order(&disk.open()), "{when}");
        };
        check(&lab.on(lab.twin.kill_image(ops)), &format!("killed at {ops}"));
        for seed in 0..8 {
            let mut random = Random(seed << 32 | ops as u64);
            let image = lab.twin.power_image(ops, |_| random.below(3) < seed % 4);
            check(&lab.on(image), &format!("power cut at {ops}, seed {seed}"));
        }
    }
}
