//! A first opening that fails leaves nothing: no lock file, no manifest, no directory that it made.

use crate::store::tests::*;
use crate::testing::twin::{Call, Fault, FaultKind};

/// Directories that are there before, and the path that is opened below them.
const PATHS: [(&[&str], &str); 3] =
    [(&[], "/store"), (&["/store"], "/store"), (&["/var"], "/var/lib/app/store")];

fn lab_with(dirs: &[&str]) -> Lab {
    let lab = Lab::new();
    for dir in dirs {
        lab.twin.create_dir(Path::new(dir)).unwrap();
    }
    lab
}

/// The directories of a disk, of those that a path leads through.
fn dirs(lab: &Lab, path: &str) -> Vec<PathBuf> {
    let dirs = Path::new(path).ancestors().filter(|dir| lab.twin.is_dir(dir).is_ok());
    dirs.map(Path::to_path_buf).collect()
}

#[test]
fn whatever_fails_of_the_first_opening_nothing_is_left_of_it() {
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
                    // It is as if nothing had been tried.
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

/// The lock file of a store that is there stays, and so does a store that does not open.
#[test]
fn a_store_that_is_there_stays_whatever_fails() {
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

/// One who has not got as far as opening the lock file, while another one was quicker, removes nothing.
#[test]
fn an_opening_that_fails_leaves_the_lock_of_one_that_was_quicker() {
    for kind in [FaultKind::Eio, FaultKind::Emfile, FaultKind::Enospc] {
        let lab = Lab::new();
        let quicker: Arc<Mutex<Option<Bitcask>>> = Arc::default();
        let (theirs, other) = (Arc::clone(&quicker), lab.clone());
        // Between the look whether there is a lock file, and its opening.
        let turn = move |opened: Option<&Path>| {
            let mut theirs = theirs.lock();
            if theirs.is_none() && opened.is_some_and(|path| path.ends_with("LOCK")) {
                *theirs = Some(other.open());
                other.twin.fail(Fault::new(kind).only(Call::Open).for_ever());
            }
        };
        let error = lab.twin.with_beside(turn, || lab.try_open()).unwrap_err();
        lab.twin.clear_fault();
        assert!(!error.is_locked(), "{error}");
        let db = quicker.lock().take().unwrap();
        let lock = Dir::new(DIR.into()).lock();
        assert!(lab.twin.files().contains(&lock), "{kind:?}: its lock is gone");
        assert!(lab.try_open().unwrap_err().is_locked());
        db.put("key", "value").unwrap();
        assert_eq!(lab.reopen(db).get("key").unwrap().unwrap(), "value");
    }
}

#[test]
fn a_file_system_that_can_t_sync_directories_is_refused_in_words() {
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

/// A store that was moved there is refused by its first write that needs it, and is poisoned.
#[test]
fn a_store_that_was_moved_to_such_a_file_system_says_so_too() {
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
fn directories_on_the_way_are_made_and_last() {
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
    // `/var` itself is somebody else's to sync.
    lab.twin.sync_dir(Path::new("/")).unwrap();
    put.unwrap();
    let lab = lab.powered_off(|_| false);
    let db = Bitcask::open_on(&lab.env(), path, lab.options.clone()).unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), "value");
}
