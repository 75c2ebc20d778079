//! Merges in the order of keys.

use super::basics::*;
use crate::options::{AutoMerge, MergeOptions, MergePolicy};
use crate::store::tests::*;

/// Puts keys in an order that has nothing to do with theirs, in several sealed segments.
fn scattered(db: &Bitcask) -> Vec<SegmentId> {
    let put = |segment: u32| {
        (0..60).filter(|number| number % 3 == segment).for_each(|number| {
            db.put(format!("key {:02}", number * 37 % 60), format!("{number}")).unwrap();
        });
        seal(db)
    };
    (0..3).map(put).collect()
}

/// Returns how often a key is lower than the one before it, in the sealed segments.
fn falls(lab: &Lab, db: &Bitcask) -> usize {
    let keys: Vec<String> = sealed(db)
        .into_iter()
        .flat_map(|id| entries_of(lab, id).into_iter().map(|(key, ..)| key))
        .collect();
    keys.windows(2).filter(|pair| pair[0] > pair[1]).count()
}

#[test]
fn an_ordered_merge_writes_runs_of_sorted_keys() {
    for lab in [lab(), weak()] {
        let db = lab.open();
        let ids = scattered(&db);
        let before = snapshot(&db);
        db.delete("key 07").unwrap();
        db.put("key 08", "again").unwrap();
        finish(&db, begin(&db, &ids).ordered(true));
        // Two entries that are dead, and as many sorted runs as memory permits.
        let entries = entries_of(&lab, sealed(&db)[0]).len();
        assert_eq!(entries, 58);
        assert!(falls(&lab, &db) < 5, "{}", falls(&lab, &db));
        let mut expected = before.clone();
        expected.remove(b"key 07".as_slice());
        expected.insert(b"key 08".to_vec(), b"again".to_vec());
        assert_eq!(snapshot(&db), expected);
        assert!(db.keys().map(|key| key.unwrap().to_vec()).eq(expected.keys().cloned()));
        check_figures(&db);
        let db = lab.reopen(db);
        assert_eq!(snapshot(&db), expected);
    }
}

#[test]
fn ordered_scans_and_the_policy_decide_which_merges_are_ordered() {
    let force = || MergeOptions::new().force(true);
    let policy = |ordered| MergePolicy::Auto(AutoMerge::new().ordered(ordered));
    let cases = [
        (false, None, force(), false),
        (true, None, force(), true),
        (true, Some(policy(false)), force(), false),
        (false, Some(policy(true)), force(), true),
        (false, Some(policy(true)), force().ordered(false), false),
        (false, Some(policy(false)), force().ordered(true), true),
    ];
    for (at, (is_scanned, policy, options, is_ordered)) in cases.into_iter().enumerate() {
        let lab = lab();
        let db = lab.open();
        if let Some(policy) = policy {
            db.set_merge_policy(policy).unwrap();
        }
        scattered(&db);
        if is_scanned {
            drop(db.iter().next());
        }
        db.merge_opt(options).unwrap();
        assert_eq!(falls(&lab, &db) < 5, is_ordered, "case {at}");
    }
}

/// Without the rule for expired entries, `k` has no slot after the first merge. Then the second
/// merge drops the expired entry, which is all that hides the older one.
#[test]
fn a_merge_that_stops_early_keeps_the_slots_of_expired_entries() {
    let lab = lab();
    let db = lab.open();
    for key in ["k", "live 1"] {
        db.put(key, "old").unwrap();
    }
    let first = seal(&db);
    db.put_opt("k", "mortal", WriteOptions::new().ttl(Duration::from_secs(10))).unwrap();
    for number in 2..9 {
        db.put(format!("live {number}"), [7; 30]).unwrap();
    }
    let second = seal(&db);
    lab.hands.advance(Duration::from_secs(20));
    let expected = snapshot(&db);
    let mut merge = begin(&db, &[first, second]).ordered(true);
    step_to_copy(&db, &mut merge);
    merge.publish(&*db.inner).unwrap();
    assert!(sealed(&db).contains(&first) && sealed(&db).contains(&second));
    drop(merge);
    finish(&db, begin(&db, &[second]));
    assert!(sealed(&db).contains(&first));
    kill(db);
    assert_eq!(snapshot(&lab.open()), expected);
}

#[test]
fn expired_entries_are_dropped_by_ordered_merges() {
    let lab = lab();
    let db = lab.open();
    for number in 0..40 {
        let ttl = WriteOptions::new().ttl(Duration::from_secs(10));
        db.put_opt(format!("mortal {number}"), "value", ttl).unwrap();
        db.put(format!("live {number}"), "value").unwrap();
    }
    let id = seal(&db);
    lab.hands.advance(Duration::from_secs(20));
    let report = finish(&db, begin(&db, &[id]).ordered(true));
    assert_eq!((report.expired_dropped, report.live_entries, report.tombstones_kept), (40, 40, 0));
    assert_eq!(db.len().unwrap(), 40);
    check_figures(&db);
}

/// If space is short, less is gathered at a time.
#[test]
fn an_ordered_merge_needs_less_space_than_the_plain_one() {
    let is_merged = |ordered, space: u64| {
        let options = Options::new().segment_size(4096).sync_policy(SyncPolicy::Never);
        let lab = Lab::new().with(options);
        let db = lab.open();
        for segment in 0..4 {
            for number in 0..8 {
                db.put(format!("key {number} of {segment}"), [segment; 20]).unwrap();
                db.put("dead", [number; 200]).unwrap();
            }
            seal(&db);
        }
        let (ids, before) = (sealed(&db), snapshot(&db));
        let left = lab.twin.available_space();
        lab.twin.set_space(u64::MAX - left + space);
        let mut merge = begin(&db, &ids).ordered(ordered);
        let result = loop {
            match merge.step(&*db.inner) {
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(error) => {
                    assert!(error.is_no_space(), "{error}");
                    break false;
                }
            }
        };
        let published = merge.publish(&*db.inner).is_ok();
        assert_eq!(snapshot(&db), before);
        result && published
    };
    let least = |ordered| (0..400).map(|at| at * 64).find(|space| is_merged(ordered, *space));
    let (plain, ordered) = (least(false).unwrap(), least(true).unwrap());
    // What is copied to make room is published at once, which removes its inputs.
    assert!(ordered < plain, "{ordered} instead of {plain}");
}
