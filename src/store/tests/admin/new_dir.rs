//! Directories that a backup or a salvage is about to make a store: what a crash leaves there, how
//! it is refused, and what happens if a store is opened there meanwhile.

use std::ops::ControlFlow;

use crate::recovery::OpenedSegments;
use crate::repair::{salvage_on, verify_on};
use crate::store::tests::story::*;
use crate::store::tests::*;
use crate::testing::twin::{Fault, FaultKind};

const TARGET: &str = "/copy";

/// A way to copy a store.
type Way = fn(&Lab) -> Result<()>;

fn backup(lab: &Lab) -> Result<()> {
    let db = lab.try_open()?;
    let result = db.backup(TARGET).map(drop);
    kill(db);
    result
}

fn salvage(lab: &Lab) -> Result<()> {
    let (from, to) = (Path::new(DIR), Path::new(TARGET));
    salvage_on(&lab.env(), from, to, &lab.options, &mut |_| ControlFlow::Continue(())).map(drop)
}

const WAYS: [(&str, Way); 2] = [("backup", backup), ("salvage", salvage)];

/// Returns a closed store of two segments on a disk where everything is durable, and its content.
fn closed() -> (Lab, Pairs) {
    let lab = Lab::new();
    let lab = lab.with(Options::new().segment_size(512).sync_policy(SyncPolicy::Never));
    let db = lab.open();
    for number in 0..8_u8 {
        db.put([number], vec![number; 60]).unwrap();
    }
    let pairs = snapshot(&db);
    db.close().unwrap();
    (lab.on(lab.twin.fork()), pairs)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    /// No file exists.
    Nothing,
    Refused,
    Whole,
}

/// Opens the remains of a copy as a store, with permission to create one.
fn left(lab: &Lab, pairs: &Pairs, when: &str) -> Left {
    if !lab.twin.files().iter().any(|path| path.starts_with(TARGET)) {
        return Left::Nothing;
    }
    match Bitcask::open_on(&lab.env(), Path::new(TARGET), lab.options.clone()) {
        Ok(db) => {
            // A temporary file may remain.
            assert_eq!(db.recovery().cuts, [], "{when}");
            assert_eq!(snapshot(&db), *pairs, "{when}: opened with {:?}", lab.twin.files());
            kill(db);
            Left::Whole
        }
        Err(_) => Left::Refused,
    }
}

/// Examines what a crash after some operations leaves. Returns the result of the harshest crash.
fn crash(lab: &Lab, ops: usize, mixtures: u64, pairs: &Pairs, when: &str) -> Left {
    let when = format!("{when}, operation {ops}");
    left(&lab.on(lab.twin.kill_image(ops)), pairs, &format!("{when}, killed"));
    for seed in 0..mixtures {
        let mut random = Random(seed << 32 | ops as u64);
        let image = lab.twin.power_image(ops, |_| random.below(2) == 0);
        left(&lab.on(image), pairs, &format!("{when}, power lost, mixture {seed}"));
    }
    left(&lab.on(lab.twin.power_image(ops, |_| false)), pairs, &format!("{when}, power lost"))
}

#[test]
fn a_crash_during_a_copy_leaves_no_empty_store() {
    for (name, way) in WAYS {
        let (lab, pairs) = closed();
        let start = lab.twin.op_count();
        way(&lab).unwrap();
        let end = lab.twin.op_count();
        let found: Vec<Left> =
            (start..=end).map(|ops| crash(&lab, ops, 12, &pairs, name)).collect();
        assert!(found.is_sorted(), "{name}: {found:?}");
        assert_eq!(found.first(), Some(&Left::Nothing), "{name}");
        assert!(found.contains(&Left::Refused), "{name}");
        let whole = found.iter().position(|left| *left == Left::Whole);
        assert_eq!(whole, Some(end - start), "{name}: durable with its last step");
    }
}

/// The removal of a failed copy has an order in which a crash is safe at any point.
#[test]
fn a_crash_during_the_removal_of_a_failed_copy_leaves_no_empty_store() {
    for (name, way) in WAYS {
        let (lab, _) = closed();
        let start = lab.twin.call_count();
        way(&lab).unwrap();
        for at in 0..lab.twin.call_count() - start {
            // One failure ends the copy; a second one may hit the removal.
            for second in [None, Some(0), Some(2), Some(5)] {
                let (lab, pairs) = closed();
                let start = lab.twin.op_count();
                lab.twin.fail(Fault::new(FaultKind::Eio).reads_too().after(at));
                if let Some(second) = second {
                    lab.twin.fail(Fault::new(FaultKind::Eio).after(at + second));
                }
                let result = way(&lab);
                lab.twin.clear_fault();
                if result.is_ok() {
                    continue;
                }
                let when = format!("{name}, call {at} and {second:?} after it fail");
                for ops in start..=lab.twin.op_count() {
                    crash(&lab, ops, 2, &pairs, &when);
                }
            }
        }
    }
}

#[test]
fn the_remains_of_a_copy_are_refused_by_every_way_to_open_them() {
    for (name, way) in WAYS {
        let (lab, pairs) = closed();
        let start = lab.twin.op_count();
        way(&lab).unwrap();
        let target = Path::new(TARGET);
        let manifest = Dir::new(TARGET.into()).manifest();
        let lock = Dir::new(TARGET.into()).lock();
        let images = (start..lab.twin.op_count()).map(|ops| lab.twin.kill_image(ops));
        // From the creation of the lock file until the manifest is written.
        let images = images.filter(|twin| twin.files().contains(&lock));
        let images: Vec<_> = images.map(|twin| lab.on(twin)).collect();
        let mut refused = 0;
        for lab in images {
            let env = lab.env();
            let is_unfinished = |error: &Error| {
                let told = error.to_string();
                assert!(told.contains("remove the directory and run it again"), "{name}: {told}");
                matches!(error, Error::Unfinished { path } if *path == manifest)
            };
            let existing = lab.options.clone().create_if_missing(false);
            let opened = [
                Bitcask::open_on(&env, target, lab.options.clone()).map(drop),
                Bitcask::open_on(&env, target, existing).map(drop),
                ReadOnly::open_on(&env, target, lab.options.clone()).map(drop),
            ];
            if opened.iter().all(Result::is_ok) {
                continue;
            }
            refused += 1;
            assert!(opened.into_iter().all(|opened| is_unfinished(&opened.unwrap_err())));
            let foreseen = crate::store::dry_run(
                &env,
                &Dir::new(target.into()),
                &mut OpenedSegments::default(),
            );
            assert!(is_unfinished(&foreseen.unwrap_err()));
            let diagnosis = verify_on(&env, target).unwrap();
            assert!(is_unfinished(&diagnosis.opening.unwrap_err()));
            assert_eq!(diagnosis.damage[0].path, manifest);
            assert!(diagnosis.damage[0].reason.contains("was interrupted"));
            // Another attempt to copy has to be refused, too.
            for (_, way) in WAYS {
                let error = way(&lab).unwrap_err();
                let Error::InvalidTarget { reason, .. } = &error else { panic!("{error}") };
                assert!(reason.contains("interrupted"), "{error}");
            }
        }
        assert!(refused > 2, "{name}: {refused}");
        check_pairs(&lab, &pairs);
    }
}

fn check_pairs(lab: &Lab, pairs: &Pairs) {
    let db = Bitcask::open_on(&lab.env(), Path::new(TARGET), lab.options.clone()).unwrap();
    assert_eq!(snapshot(&db), *pairs);
}

/// A program that does not know of the copy may open a store in the copy's target directory.
#[test]
fn a_store_opened_in_a_copys_target_is_not_harmed() {
    let mut counts = BTreeMap::new();
    for (name, way) in WAYS {
        let (lab, _) = closed();
        way(&lab).unwrap();
        let ops = lab.twin.op_count();
        for round in 0..if long() { 5_000 } else { 200 } {
            let (lab, pairs) = closed();
            if round % 2 == 1 {
                lab.twin.create_dir(Path::new(TARGET)).unwrap();
            }
            let open = || -> Result<()> {
                let options = lab.options.clone();
                let db = Bitcask::open_on(&lab.env(), Path::new(TARGET), options)?;
                db.put("mine", "1")?;
                db.close()
            };
            let (copied, opened) = std::thread::scope(|scope| {
                let copied = scope.spawn(|| way(&lab));
                // At each step of the copy in turn, or soon after it.
                while lab.twin.op_count() < round % ops && !copied.is_finished() {
                    std::thread::yield_now();
                }
                let opened = open();
                (copied.join().unwrap(), opened)
            });
            let mut expected = Pairs::new();
            if copied.is_ok() {
                expected = pairs.clone();
            }
            if opened.is_ok() {
                expected.insert("mine".into(), "1".into());
            }
            if copied.is_ok() || opened.is_ok() {
                check_pairs(&lab, &expected);
            }
            *counts.entry((name, copied.is_ok(), opened.is_ok())).or_insert(0) += 1;
        }
    }
    println!("copied, opened: {counts:?}");
}

/// A lock file alone was left by an attempt that got no further, unless a process holds it.
#[test]
fn a_directory_with_only_an_unheld_lock_file_is_accepted() {
    for (name, way) in WAYS {
        let (lab, pairs) = closed();
        let dir = Dir::new(TARGET.into());
        lab.twin.put_file(&dir.lock(), Vec::new());
        let held = crate::store::open_attempt::lock(&lab.env().fs, &dir).unwrap();
        assert!(way(&lab).unwrap_err().is_locked(), "{name}");
        assert_eq!(lab.twin.contents(&dir.manifest()), None, "{name}: nothing may be changed");
        drop(held);
        way(&lab).unwrap();
        check_pairs(&lab, &pairs);
    }
}
