//! Verification finds every damaged byte, every slot that names no entry, and nothing else.

use std::ops::ControlFlow;

use crate::keydir::Address;
use crate::merge::{Host as _, Merge};
use crate::options::{MergeOptions, WriteOptions};
use crate::stats::MergeProgress;
use crate::store::tests::story::*;
use crate::store::tests::*;
use crate::testing::twin::{Call, Fault, FaultKind};

/// Two sealed segments, a full one, and an active one.
fn story(lab: Lab) -> Story {
    let options = lab.options.clone().segment_entries(4);
    let mut story = Story::begin(lab.with(options));
    story.put("alpha", "1");
    story.put_opt("beta", "two", WriteOptions::new().ttl(Duration::from_secs(1 << 20)));
    story.put("gamma", "");
    story.put("", "the empty key");
    story.batch(&[("delta", "5"), ("alpha", "6"), ("epsilon", "7")], &[]);
    story.sync();
    story.delete("gamma");
    story.seal();
    story.batch(&[("beta", "9"), ("zeta", "10")], &["delta"]);
    story.put("eta", "11");
    story.put("theta", "12");
    story.db.inner.seal_oldest().unwrap();
    story.put("iota", "13");
    story.put("kappa", "14");
    story
}

#[test]
fn an_intact_store_is_clean() {
    for lab in [Lab::new(), Lab::weak()] {
        let story = story(lab);
        let entries = log_entries(&story.lab);
        let of_keys =
            |entry: &&LogEntry| !entry.flags.has(Flags::END) && !entry.flags.has(Flags::MARK_ONLY);
        let check = |db: &Reader, when: &str| {
            let report = db.verify().unwrap();
            assert!(report.is_clean(), "{when}: {report:?}");
            let stats = db.stats();
            assert_eq!(report.segments, stats.segments, "{when}");
            assert_eq!(report.size, stats.log_size, "{when}");
            assert_eq!(report.entries, entries.iter().filter(of_keys).count() as u64, "{when}");
            let tombstone = |entry: &&LogEntry| entry.flags.has(Flags::TOMBSTONE);
            assert_eq!(report.tombstones, entries.iter().filter(tombstone).count() as u64);
            assert_eq!(report.live_entries, stats.keys, "{when}");
        };
        check(&story.db, "as written");
        check(&story.lab.killed().open_read_only(), "read-only");
        let lab = story.lab.clone();
        kill(story.db);
        let db = lab.open();
        check(&db, "recovered");
        check(&lab.reopen(db), "after a clean reopen");
    }
}

#[test]
fn every_damaged_byte_is_found() {
    for lab in [Lab::new(), Lab::weak()] {
        let story = story(lab);
        let lab = story.lab.clone();
        let entries = log_entries(&lab);
        // The files are changed on disk while the store stays open.
        let segments: BTreeMap<SegmentId, u64> =
            story.db.inner.segments.all().iter().map(|(_, s)| (s.id(), s.size())).collect();
        let told = Story { lab: lab.clone(), db: lab.killed().open(), steps: story.steps.clone() };
        let told = told.killed();
        for (id, path) in lab.logs() {
            let whole = lab.twin.contents(&path).unwrap();
            for at in 0..usize::try_from(segments[&id]).unwrap() {
                let mut bytes = whole.clone();
                bytes[at] ^= if at % 2 == 0 { 0x01 } else { 0x80 };
                lab.twin.put_file(&path, bytes.clone());
                let report = story.db.verify().unwrap();
                if at >= 64 && told.first_difference(id, &whole, &bytes) == whole.len() {
                    assert!(report.is_clean(), "padding at {at}: {report:?}");
                    continue;
                }
                let [damage] = report.damage.as_slice() else { panic!("{at}: {report:?}") };
                assert_eq!(damage.path, path);
                if at >= 64 {
                    let here = |entry: &&LogEntry| {
                        entry.place.segment == id && entry.place.offset <= at as u64
                    };
                    let place = entries.iter().rfind(here).unwrap().place;
                    assert_eq!(damage.offset, place.offset, "{at}: {damage}");
                }
                // The other entries stay readable.
                assert_eq!(report.segments, segments.len() as u64);
            }
            lab.twin.put_file(&path, whole);
        }
        assert!(story.db.verify().unwrap().is_clean());
    }
}

#[test]
fn truncated_missing_and_foreign_files_are_found() {
    let story = story(Lab::new());
    let lab = &story.lab;
    let logs = lab.logs();
    for (at, (id, path)) in logs.iter().enumerate() {
        let whole = lab.twin.contents(path).unwrap();
        let find = |bytes: Option<Vec<u8>>| {
            match bytes {
                Some(bytes) => lab.twin.put_file(path, bytes),
                None => lab.twin.delete_file(path),
            }
            let report = story.db.verify().unwrap();
            lab.twin.put_file(path, whole.clone());
            assert_eq!(report.damage.len(), 1, "{report:?}");
            assert_eq!(report.damage[0].path, *path);
            assert!(!report.is_clean());
        };
        let end =
            story.db.inner.segments.all().iter().find(|(_, s)| s.id() == *id).unwrap().1.size();
        for size in 0..usize::try_from(end).unwrap() {
            find(Some(whole[..size].to_vec()));
        }
        find(None);
        find(Some(lab.twin.contents(&logs[(at + 1) % logs.len()].1).unwrap()));
    }
    assert!(story.db.verify().unwrap().is_clean());
}

#[test]
fn unreadable_bytes_are_found_and_an_unopenable_file_is_an_error() {
    let story = story(Lab::new());
    let twin = &story.lab.twin;
    let start = twin.call_count();
    let _ = story.db.verify().unwrap();
    for at in 0..twin.call_count() - start {
        twin.fail(Fault::new(FaultKind::Eio).reads_too().after(at));
        match story.db.verify() {
            Ok(report) => assert_eq!(report.damage.len(), 1, "{at}: {report:?}"),
            Err(Error::Io { action: "open" | "inspect", .. }) => {}
            Err(error) => panic!("{at}: {error}"),
        }
        assert_eq!(twin.fault_count(), at + 1);
    }
    twin.fail(Fault::new(FaultKind::Eio).only(Call::ReadAt).for_ever());
    let report = story.db.verify().unwrap();
    assert_eq!(report.damage.len(), 4, "{report:?}");
}

/// Slots that name a place where no entry starts, or an entry of another key.
#[test]
fn a_slot_that_names_no_entry_of_its_key_is_found() {
    for at in 0..4 {
        for behind in [0, 8] {
            let story = story(Lab::new());
            let inner = &story.db.inner;
            let (number, segment) = inner.segments.all()[at].clone();
            let hash = inner.keydir.hash(b"a key that is never put");
            let address = Address { segment: number, offset: FIRST_OFFSET + behind };
            inner.keydir.shard(hash.shard()).publish(hash, None, address);
            segment.gained(32);
            let report = story.db.verify().unwrap();
            let [damage] = report.damage.as_slice() else { panic!("{report:?}") };
            assert_eq!((damage.path.as_path(), damage.offset), (segment.path(), 0), "{damage}");
            kill(story.db);
        }
    }
}

#[test]
fn progress_is_reported_and_can_cancel() {
    let story = story(Lab::new());
    let mut told = Vec::new();
    let report = story.db.verify_with(|progress| {
        told.push(*progress);
        ControlFlow::Continue(())
    });
    let (report, last) = (report.unwrap(), *told.last().unwrap());
    assert!(report.is_clean());
    assert!(told.len() > 4, "progress is also reported within segments: {told:?}");
    assert!(told.is_sorted_by_key(|progress| (progress.size_done, progress.segments_done)));
    assert_eq!((last.segments_done, last.size_done), (last.segments_total, last.size_total));
    assert_eq!((last.segments_total, last.size_total), (report.segments, report.size));
    for calls in 0..told.len() {
        let mut left = calls;
        let report = story.db.verify_with(|progress| {
            // No lock is held, so the closure may use the store.
            story.db.put("from the closure", progress.size_done.to_string()).unwrap();
            left = left.wrapping_sub(1);
            if left == usize::MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let report = report.unwrap();
        assert!(report.damage.is_empty(), "{report:?}");
        assert!(report.cancelled && !report.is_clean());
        assert!(report.size <= last.size_total * 2);
    }
}

/// Makes one of four changes that a writer may make during verification.
fn meddle(db: &Bitcask, change: usize) {
    match change {
        0 => {
            for key in ["alpha", "", "kappa", "new"] {
                db.put(key, "x").unwrap();
            }
        }
        1 => {
            for key in ["beta", "eta", "iota"] {
                db.delete(key).unwrap();
            }
        }
        2 => db.clear().unwrap(),
        _ => {
            db.clear().unwrap();
            (0..20_u8).for_each(|key| db.put([key], "after").unwrap());
        }
    }
}

/// Changes during verification are no damage: entries are overwritten, appended or cleared between
/// any two of its steps.
#[test]
fn concurrent_writes_are_no_damage() {
    for moment in 0..12 {
        for change in 0..4 {
            let story = story(Lab::new());
            let db = &story.db;
            let mut calls = 0;
            let report = db.verify_with(|_| {
                calls += 1;
                if calls - 1 == moment {
                    meddle(db, change);
                }
                ControlFlow::Continue(())
            });
            let report = report.unwrap();
            assert!(report.is_clean(), "{change} at {moment}: {report:?}");
            assert!(db.verify().unwrap().is_clean());
        }
    }
}

/// The same for a merge between any two steps of the verification, and vice versa.
#[test]
fn a_concurrent_merge_is_no_damage() {
    for moment in 0..12 {
        let story = story(Lab::new());
        let db = &story.db;
        let mut calls = 0;
        let report = db.verify_with(|_| {
            calls += 1;
            if calls - 1 == moment {
                db.merge_opt(MergeOptions::new().force(true)).unwrap();
            }
            ControlFlow::Continue(())
        });
        let report = report.unwrap();
        assert!(report.is_clean(), "{moment}: {report:?}");
        let report = db.verify().unwrap();
        assert!(report.is_clean());
        assert_eq!(report.live_entries == report.entries, calls > moment, "{moment}: {report:?}");
    }
    let story = story(Lab::new());
    let mut calls = 0;
    let progress = |_: &MergeProgress| {
        calls += 1;
        let report = story.db.verify().unwrap();
        assert!(report.is_clean(), "{report:?}");
        ControlFlow::Continue(())
    };
    story.db.merge_opt(MergeOptions::new().force(true).progress(progress)).unwrap();
    assert!(calls > 3);
}

/// A merge that makes a step at each step of the verification, from the start or from half-way.
#[test]
fn interleaved_merge_steps_are_no_damage() {
    for steps_before in 0..12 {
        let story = story(Lab::new());
        let inner = &story.db.inner;
        inner.seal_rotated().unwrap();
        let ids = inner.manifest.get(|manifest| manifest.sealed.iter().map(|s| s.id).collect());
        let mut merge = Merge::begin(&inner.merge_context(), &ids);
        for _ in 0..steps_before {
            merge.step(&**inner).unwrap();
        }
        let report = story.db.verify_with(|_| {
            merge.step(&**inner).unwrap();
            ControlFlow::Continue(())
        });
        let report = report.unwrap();
        assert!(report.is_clean(), "{steps_before}: {report:?}");
        while merge.step(&**inner).unwrap().is_some() {
            assert!(story.db.verify().unwrap().is_clean());
        }
        assert_eq!(snapshot(&story.db), *story.pairs());
    }
}

/// A hint and its segment are damaged after the open, so the shards that need them cannot be
/// filled.
#[test]
fn damage_that_prevents_filling_the_keydir_is_found() {
    let story = story(Lab::new());
    let lab = story.lab.clone();
    story.db.close().unwrap();
    let db = lab.open();
    lab.delete_hints();
    let path = lab.logs()[1].1.clone();
    let mut bytes = lab.twin.contents(&path).unwrap();
    bytes[70] ^= 1;
    lab.twin.put_file(&path, bytes);
    let report = db.verify().unwrap();
    let [damage] = report.damage.as_slice() else { panic!("{report:?}") };
    assert_eq!((&damage.path, damage.offset), (&path, 64));
}

/// A writer in another process clears the store while a reader has it open. Files that the writer
/// removed are no damage; other missing files are.
#[test]
fn a_reader_distinguishes_removed_files_from_missing_ones() {
    let story = story(Lab::new());
    let reader = story.lab.open_read_only();
    let path = story.lab.logs()[0].1.clone();
    let bytes = story.lab.twin.contents(&path).unwrap();
    story.lab.twin.delete_file(&path);
    let report = reader.verify().unwrap();
    assert_eq!(report.damage.len(), 1, "{report:?}");
    story.lab.twin.put_file(&path, bytes);
    story.db.clear().unwrap();
    let report = reader.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.segments, 0);
}

/// A merged segment is not part of the log, even if its id is higher than that of the active
/// segment.
#[test]
fn a_reader_recognizes_files_that_a_merge_removed() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    db.put("b", "2").unwrap();
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    let reader = lab.open_read_only();
    db.put("a", "3").unwrap();
    let merged = db.segments()[0].id;
    db.merge_opt(MergeOptions::new().segments([merged])).unwrap();
    assert!(db.inner.manifest.get(|manifest| manifest.log < SegmentId(merged)));
    assert_eq!(reader.verify().unwrap().damage, []);
}
