//! A failed first opening leaves nothing behind: no lock file, no manifest, and no directory that
//! it created.

use crate::store::tests::*;
use crate::testing::twin::{Call, Fault, FaultKind};

/// Directories that exist beforehand, and the path below them that is opened.
const PATHS: [(&[&str], &str); 3] =
    [(&[], "/store"), (&["/store"], "/store"), (&["/var"], "/var/lib/app/store")];

fn lab_with(dirs: &[&str]) -> Lab {
    let lab = Lab::new();
    for dir in dirs {
        lab.twin.create_dir(Path::new(dir)).unwrap();
    }
    lab
}

/// Returns those directories on a path that exist on a disk.
fn dirs(lab: &Lab, path: &str) -> Vec<PathBuf> {
    let dirs = Path::new(path).ancestors().filter(|dir| lab.twin.is_dir(dir).is_ok());
    dirs.map(Path::to_path_buf).collect()
}

#[test]
fn a_failed_first_opening_leaves_nothing() {
    let kinds = [FaultKind::Eio, FaultKind::Enospc, FaultKind::Einval, FaultKind::ShortWrite];
    let mut failed = 0;
    for (before, path) in PATHS {
        for kind in kinds {
            for reads_too in [false, true] {
                for after in 0.. {
                    let lab = lab_with(before);
                    let expected = dirs(&lab, path);
                    let fault = Fault::new(kind).after(after);
                    lab.twin.fail(if reads_too { fault.reads_too() } else { fault });
                    let opened = Bitcask::open_on(&lab.env(), Path::new(path), lab.options.clone());
                    let struck = lab.twin.fault_count();
                    lab.twin.clear_fault();
                    if let Ok(db) = opened {
                        db.close().unwrap();
                        if struck == 0 {
                            break;
                        }
                        continue;
                    }
                    failed += 1;
                    let when = format!("{path}: {kind:?} after {after}");
                    assert_eq!(lab.twin.files(), Vec::<PathBuf>::new(), "{when}");
                    assert_eq!(dirs(&lab, path), expected, "{when}");
                    // A later opening works as if nothing had been tried.
                    let db = Bitcask::open_on(&lab.env(), Path::new(path), lab.options.clone());
                    let db = db.unwrap();
                    db.put("key", "value").unwrap();
                    db.close().unwrap();
                }
            }
        }
    }
    assert!(failed > 50, "only {failed}");
}

/// The lock file of an existing store stays, and so does a store that cannot be opened.
#[test]
fn an_existing_store_survives_a_failed_opening() {
    for after in 0.. {
        let lab = Lab::new();
        let db = lab.open();
        db.put("key", "value").unwrap();
        db.close().unwrap();
        let before = lab.twin.files();
        lab.twin.fail(Fault::new(FaultKind::Eio).after(after).reads_too());
        let opened = lab.try_open();
        let struck = lab.twin.fault_count();
        lab.twin.clear_fault();
        if let Ok(db) = opened {
            db.close().unwrap();
            if struck == 0 {
                break;
            }
            continue;
        }
        assert_eq!(lab.twin.files(), before, "{after}");
        assert_eq!(lab.open().get("key").unwrap().unwrap(), "value");
    }
}

/// An opening that fails before it has opened the lock file removes nothing if another one was
/// faster.
#[test]
fn a_failed_opening_leaves_the_lock_of_a_faster_one() {
    for kind in [FaultKind::Eio, FaultKind::Emfile, FaultKind::Enospc] {
        let lab = Lab::new();
        let quicker: Arc<Mutex<Option<Bitcask>>> = Arc::default();
        let (theirs, other) = (Arc::clone(&quicker), lab.clone());
        // Between the check for a lock file and its opening.
        let turn = move |opened: Option<&Path>| {
            let mut theirs = theirs.lock();
            if theirs.is_none() && opened.is_some_and(|path| path.ends_with("LOCK")) {
                *theirs = Some(other.open());
                other.twin.fail(Fault::new(kind).only(Call::Open).for_ever());
            }
        };
        let error = lab.twin.with_interference(turn, || lab.try_open()).unwrap_err();
        lab.twin.clear_fault();
        assert!(!error.is_locked(), "{error}");
        let db = quicker.lock().take().unwrap();
        let lock = Dir::new(DIR.into()).lock();
        assert!(lab.twin.files().contains(&lock), "{kind:?}: the faster opening's lock is missing");
        assert!(lab.try_open().unwrap_err().is_locked());
        db.put("key", "value").unwrap();
        assert_eq!(lab.reopen(db).get("key").unwrap().unwrap(), "value");
    }
}

#[test]
fn a_file_system_without_directory_syncs_is_refused_with_an_explanation() {
    for (before, path) in PATHS {
        let lab = lab_with(before);
        let expected = dirs(&lab, path);
        lab.twin.fail(Fault::new(FaultKind::Einval).only(Call::SyncDir).for_ever());
        let opened = Bitcask::open_on(&lab.env(), Path::new(path), lab.options.clone());
        let error = opened.unwrap_err().to_string();
        assert!(error.contains("file system can't sync a directory"), "{error}");
        assert_eq!(lab.twin.files(), Vec::<PathBuf>::new());
        assert_eq!(dirs(&lab, path), expected);
    }
}

/// A store that was moved to such a file system fails, and is poisoned, at the first write that
/// needs a directory sync.
#[test]
fn a_store_moved_to_such_a_file_system_reports_it() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("key", "value").unwrap();
    let db = lab.reopen(db);
    lab.twin.fail(Fault::new(FaultKind::Einval).only(Call::SyncDir).for_ever());
    let error = db.put("key", "late").unwrap_err();
    assert!(error.is_poisoned(), "{error}");
    assert!(error.to_string().contains("file system can't sync a directory"), "{error}");
    assert_eq!(db.get("key").unwrap().unwrap(), "value");
}

#[test]
fn created_parent_directories_are_durable() {
    let lab = lab_with(&["/var"]);
    let path = Path::new("/var/lib/app/store");
    let existing = Options::new().create_if_missing(false);
    for opened in [
        Bitcask::open_on(&lab.env(), path, existing).map(drop),
        ReadOnly::open_on(&lab.env(), path, Options::new()).map(drop),
    ] {
        assert!(matches!(opened.unwrap_err(), Error::NotFound { .. }));
        assert!(lab.twin.is_dir(Path::new("/var/lib")).is_err());
    }
    let db = Bitcask::open_on(&lab.env(), path, lab.options.clone()).unwrap();
    let put = db.put_opt("key", "value", WriteOptions::new().durable(true));
    // `/var` itself existed before, and is not synced.
    lab.twin.sync_dir(Path::new("/")).unwrap();
    put.unwrap();
    let lab = lab.powered_off(|_| false);
    let db = Bitcask::open_on(&lab.env(), path, lab.options.clone()).unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), "value");
}
