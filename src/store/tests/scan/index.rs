//! Segments' indexes: whatever an index contains, a store with it behaves like one without.

use std::path::Path;

use crate::repair::verify_on;
use crate::segment::hint::HintSource;
use crate::segment::index::{IndexContext, RunBuilder, has_index};
use crate::store::tests::*;

const TARGET: &str = "/backup";

/// A store with sealed segments, each with an index, and an unsealed one.
fn indexed() -> (Lab, Bitcask) {
    let lab = Lab::new();
    let options = lab.options.clone().segment_entries(4);
    let lab = lab.with(options);
    let db = lab.open();
    for number in 0..14 {
        db.put(format!("key {}", number % 5), format!("value {number}")).unwrap();
    }
    db.delete("key 1").unwrap();
    db.inner.work();
    let context = IndexContext::new(&db.inner.fs, &db.inner.dir, db.inner.identity);
    for (_, segment) in db.inner.segments.all() {
        let is_sealed = segment.summary().is_some();
        assert_eq!(segment.write_index(&context).unwrap(), is_sealed);
    }
    assert_eq!(lab.indexes().len(), 3);
    (lab, db)
}

/// Returns the index with each byte changed in turn, and cut at every fifth length.
fn damaged(whole: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let changed = (0..whole.len()).map(|at| {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1;
        bytes
    });
    changed.chain((0..whole.len()).step_by(5).map(|size| whole[..size].to_vec()))
}

#[test]
fn a_store_with_damaged_indexes_opens_and_is_reported_intact() {
    let (lab, db) = indexed();
    let expected = snapshot(&db);
    db.close().unwrap();
    let found = verify_on(&lab.env(), Path::new(DIR)).unwrap();
    assert!(found.is_clean() && found.derived.is_empty(), "{found}");
    let (_, path) = lab.indexes().remove(0);
    for bytes in damaged(&lab.twin.contents(&path).unwrap()) {
        let lab = lab.on(lab.twin.fork());
        lab.twin.put_file(&path, bytes);
        let found = verify_on(&lab.env(), Path::new(DIR)).unwrap();
        assert!(found.is_clean(), "{found}");
        assert_eq!(found.derived.len(), 1, "{found}");
        assert_eq!(found.derived[0].path, path);
        let db = lab.open();
        assert!(db.recovery().is_clean(), "{:?}", db.recovery());
        assert_eq!(snapshot(&db), expected);
        assert!(db.verify().unwrap().is_clean());
        kill(db);
    }
    for (_, path) in lab.indexes() {
        lab.twin.delete_file(&path);
    }
    let found = verify_on(&lab.env(), Path::new(DIR)).unwrap();
    assert!(found.is_clean() && found.derived.is_empty(), "{found}");
}

#[test]
fn a_wrong_index_with_a_valid_checksum_is_found() {
    let (lab, db) = indexed();
    let manifest = db.inner.manifest.get(Clone::clone);
    db.close().unwrap();
    let sealed = manifest.sealed[0];
    let source = HintSource { id: sealed.id, identity: manifest.identity, length: sealed.length };
    let (_, path) = lab.indexes().remove(0);
    lab.twin.put_file(&path, RunBuilder::default().finish(sealed.id).encode(source));
    assert!(has_index(&Fs::Twin(Arc::clone(&lab.twin)), &Dir::new(DIR.into()), source));
    let found = verify_on(&lab.env(), Path::new(DIR)).unwrap();
    assert!(found.is_clean(), "{found}");
    assert_eq!(found.derived.len(), 1, "{found}");
    assert_eq!(found.derived[0].path, path);
    assert!(found.derived[0].reason.contains("delete it"), "{found}");
}

#[test]
fn a_backup_has_the_valid_indexes() {
    for links in [true, false] {
        let (lab, db) = indexed();
        if !links {
            lab.twin.refuse_links();
        }
        let expected = snapshot(&db);
        let (_, path) = lab.indexes().remove(1);
        let mut bytes = lab.twin.contents(&path).unwrap();
        bytes.pop();
        lab.twin.put_file(&path, bytes);
        db.backup(TARGET).unwrap();
        let target = Dir::new(TARGET.into());
        let found: Vec<_> = lab.indexes().iter().map(|(id, _)| target.index(*id)).collect();
        let found = found.iter().map(|path| lab.twin.contents(path).is_some());
        assert_eq!(found.collect::<Vec<_>>(), [links, false, links]);
        let told = verify_on(&lab.env(), Path::new(TARGET)).unwrap();
        assert!(told.is_clean() && told.derived.is_empty(), "{told}");
        let options = lab.options.clone();
        let copy = Bitcask::open_on(&lab.env(), Path::new(TARGET), options).unwrap();
        assert_eq!(snapshot(&copy), expected);
    }
}
