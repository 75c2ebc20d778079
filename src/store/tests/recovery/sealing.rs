//! A segment is sealed with the hint that was gathered while it was appended to, or, if that was
//! given up, by reading it.

use crate::fs::Access;
use crate::manifest::Sealed;
use crate::segment::hint::{Hint, HintSlot, HintSource};
use crate::store::tests::*;

/// Puts, deletes, batches, expiries, colliding keys and marks.
fn write_everything(db: &Bitcask, round: u32) {
    for number in 0..30_u32 {
        db.put(number.to_be_bytes(), [7; 20]).unwrap();
        let ttl = WriteOptions::new().ttl(Duration::from_secs(u64::from(number + round)));
        db.put_opt([number.to_be_bytes(), [1; 4]].concat(), "expires", ttl).unwrap();
        db.delete((number / 2).to_be_bytes()).unwrap();
        if number % 7 == 0 {
            db.sync().unwrap();
            db.write(Batch::new().put("a", "1").delete([0, 0, 0, 5]).put([9; 100], "2")).unwrap();
        }
    }
}

/// Returns the number of sealed segments. Asserts that each has the hint that reading it gives.
fn check_hints(lab: &Lab, db: &Bitcask) -> usize {
    let listed = db.inner.manifest.get(|manifest| manifest.sealed.clone());
    for Sealed { id, length, .. } in &listed {
        let source = HintSource { id: *id, identity: db.inner.identity, length: *length };
        let dir = Dir::new(DIR.into());
        let file = db.inner.fs.open(&dir.log(*id), Access::Read).unwrap();
        let hint = Hint::build(&file, source, |key| db.inner.keydir.hash(key)).unwrap();
        let written = lab.twin.contents(&dir.hint(*id)).unwrap();
        assert_eq!(written, hint.encode(source), "segment {id:?}");
    }
    listed.len()
}

#[test]
fn a_gathered_hint_is_the_one_that_reading_the_segment_gives() {
    for (lab, size) in [(Lab::new(), 1024), (Lab::weak(), 1024), (Lab::new(), 1 << 20)] {
        let lab = lab.with(Options::new().segment_size(size).sync_policy(SyncPolicy::Never));
        let db = lab.open();
        for round in 0..3 {
            write_everything(&db, round);
            // Some segments end with a lone mark, some are given up, and some wait for each other.
            if round == 1 {
                db.inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap();
                db.inner.work();
            }
        }
        db.inner.log().unwrap().rotate_active().unwrap();
        db.inner.work();
        assert!(check_hints(&lab, &db) >= if size == 1024 { 9 } else { 1 });
        db.close().unwrap();
    }
}

/// A store on the real disk, without threads, that has appended some entries. The first of them is
/// damaged then.
fn damaged_after_append(dir: &Path, meanwhile: impl FnOnce(&Bitcask)) -> Bitcask {
    let hands = Hands::new();
    let env = Env { fs: Fs::DISK, clock: hands.clock(), hasher: KeyHasher::new, threads: false };
    let options = Options::new().sync_policy(SyncPolicy::Never);
    let db = Bitcask::open_on(&env, dir, options).unwrap();
    for number in 0..100_u32 {
        db.put(number.to_be_bytes(), [7; 100]).unwrap();
    }
    meanwhile(&db);
    let id = db.inner.writer().unwrap().log.lock().end().segment;
    let file = db.inner.fs.open(&Dir::new(dir.into()).log(id), Access::Write).unwrap();
    // A byte of the first value.
    file.write_at(&[8], FIRST_OFFSET + 50).unwrap();
    db
}

/// Damage between the append and the seal is found as damage after the seal is: by gets, by
/// `verify` and by merges.
#[test]
#[cfg(not(miri))]
fn damage_after_the_append_is_found_by_readers() {
    let dir = tempfile::tempdir().unwrap();
    let db = damaged_after_append(dir.path(), |_| ());
    db.inner.log().unwrap().rotate_active().unwrap();
    assert!(db.inner.seal_oldest().unwrap());
    let judge = |db: &Bitcask| {
        assert!(db.get(0_u32.to_be_bytes()).unwrap_err().is_corruption());
        for number in 1..100_u32 {
            assert_eq!(db.get(number.to_be_bytes()).unwrap().unwrap(), [7; 100]);
        }
        assert_eq!(db.verify().unwrap().damage.len(), 1);
    };
    judge(&db);
    db.put("more", "1").unwrap();
    db.close().unwrap();
    let db = Bitcask::open(dir.path(), Options::new()).unwrap();
    judge(&db);
    db.delete(1_u32.to_be_bytes()).unwrap();
    assert!(db.merge().unwrap_err().is_corruption());
}

/// A store at rest keeps no hint in memory. Its next seal reads the segment, and finds damage.
#[test]
#[cfg(not(miri))]
fn a_store_at_rest_gives_up_the_hint_of_its_active_segment() {
    let dir = tempfile::tempdir().unwrap();
    let size = |db: &Bitcask| db.inner.writer().unwrap().log.lock().hints_size();
    let db = damaged_after_append(dir.path(), |db| {
        db.inner.seal_due();
        assert_eq!(size(db), 100 * 16);
        db.inner.seal_due();
        assert_eq!(size(db), 0);
        db.put("more", "1").unwrap();
        db.put("even more", "1").unwrap();
    });
    db.inner.log().unwrap().rotate_active().unwrap();
    assert!(db.inner.seal_oldest().unwrap_err().is_corruption());
}

/// However many segments wait to be sealed, their hints take no more memory than they may.
#[test]
fn waiting_segments_give_up_their_hints() {
    let lab = Lab::new().with(Options::new().segment_size(64 << 10).sync_policy(SyncPolicy::Never));
    let db = lab.open();
    let mut largest = 0;
    for number in 0..20_000_u32 {
        db.put(number.to_be_bytes(), "value").unwrap();
        largest = largest.max(db.inner.writer().unwrap().log.lock().hints_size());
    }
    // In tests, the limit is the size of two such hints. The log checks it now and then.
    assert!((32 << 10..100 << 10).contains(&largest), "{largest} bytes");
    db.inner.work();
    assert!(check_hints(&lab, &db) > 5);
}

/// A seal releases the pages that were stored to, so that its sync need not protect each of them.
/// What was lent before stays the same.
#[test]
#[cfg(all(target_os = "linux", not(miri)))]
fn a_seal_releases_the_pages_of_the_mapping() {
    let dir = tempfile::tempdir().unwrap();
    let db = damaged_after_append(dir.path(), |_| ());
    let lent = db.get(1_u32.to_be_bytes()).unwrap().unwrap();
    let id = db.inner.writer().unwrap().log.lock().end().segment;
    let path = Dir::new(dir.path().into()).log(id);
    let resident = || {
        #[expect(clippy::disallowed_methods, reason = "this is not a file of the store")]
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (_, map) = maps.split_once(path.to_str().unwrap()).unwrap();
        let resident = map.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        resident.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    assert!(resident() > 0);
    db.inner.log().unwrap().rotate_active().unwrap();
    assert!(db.inner.seal_oldest().unwrap());
    assert_eq!(resident(), 0);
    assert_eq!(lent, [7; 100]);
    assert!(resident() > 0);
}

/// Opens a store with one key, whose hint has right checksums and states this offset for the key.
fn with_hinted_offset(offset: u64) -> (Lab, Bitcask) {
    let lab = Lab::new();
    let db = lab.open();
    db.put("key", "value").unwrap();
    db.inner.log().unwrap().rotate_active().unwrap();
    db.inner.work();
    let Sealed { id, length, .. } = db.inner.manifest.get(|manifest| manifest.sealed[0]);
    let source = HintSource { id, identity: db.inner.identity, length };
    let (dir, hash) = (Dir::new(DIR.into()), db.inner.keydir.hash(b"key"));
    db.close().unwrap();
    let mut hint = Hint::decode(&lab.twin.contents(&dir.hint(id)).unwrap(), source).unwrap();
    hint.slots[0] = HintSlot::new(hash, offset, 32, Flags::default());
    lab.twin.put_file(&dir.hint(id), hint.encode(source));
    let db = lab.open();
    (lab, db)
}

#[test]
fn a_hint_that_leads_beyond_its_segment_is_an_error_of_its_key() {
    let (_lab, db) = with_hinted_offset(4096);
    assert!(db.get("key").is_err());
    assert!(db.iter_unordered().next().unwrap().is_err());
}

#[test]
fn a_hint_that_leads_to_the_start_of_an_unmapped_segment_is_an_error_of_its_key() {
    crate::segment::budget::allowed::mappings(0);
    let (_lab, db) = with_hinted_offset(0);
    assert!(db.get("key").is_err());
}
