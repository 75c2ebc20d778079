//! Paths of stores: which directories opening creates, and how errors describe a wrong path.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs::{self, File, OpenOptions, Permissions};
use std::ops::ControlFlow;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use bitcask::{Bitcask, Error, MergeOptions, ReadOnly, repair};

use crate::support::{crash_copy, logs, open, open_read_only, pairs, small};

/// Returns the errors of opening a path for writing, for reading, and without creating.
fn said(path: &Path) -> Vec<String> {
    let opened = [
        Bitcask::open(path, small()).map(drop),
        ReadOnly::open(path, small()).map(drop),
        Bitcask::open(path, small().create_if_missing(false)).map(drop),
    ];
    opened.into_iter().map(|opened| opened.unwrap_err().to_string()).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn open_creates_missing_parent_directories() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/c");
    assert!(matches!(
        Bitcask::open(&path, small().create_if_missing(false)),
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(ReadOnly::open(&path, small()), Err(Error::NotFound { .. })));
    assert_eq!(names(dir.path()), [""; 0]);
    let db = open(&path);
    db.put("key", "value").unwrap();
    db.close().unwrap();
    assert_eq!(open_read_only(&path).get("key").unwrap().unwrap(), "value");
    // The path may contain links and dots.
    symlink(dir.path().join("a"), dir.path().join("link")).unwrap();
    let other = dir.path().join("link/x/../y/store");
    open(&other).close().unwrap();
    assert!(dir.path().join("a/y/store/MANIFEST").exists());
}

#[test]
fn an_impossible_path_is_refused_with_an_explanation() {
    let dir = tempfile::tempdir().unwrap();
    for error in said(Path::new("")) {
        assert!(error.contains("the path is empty"), "{error}");
    }
    let file = dir.path().join("file");
    fs::write(&file, "content").unwrap();
    for below in ["store", "a/b/store"] {
        for error in said(&file.join(below)) {
            assert!(error.contains(&format!("{} is not a directory", file.display())), "{error}");
        }
    }
    let (link, target) = (dir.path().join("link"), dir.path().join("nowhere"));
    symlink(&target, &link).unwrap();
    for path in [link.clone(), link.join("store"), link.join("a/b")] {
        for error in said(&path) {
            let why = format!("{} is a symbolic link to {}", link.display(), target.display());
            assert!(error.contains(&why), "{error}");
        }
    }
    let db = open(&dir.path().join("store"));
    for path in [link.clone(), link.join("copy"), file.join("copy")] {
        let error = db.backup(&path).unwrap_err().to_string();
        assert!(error.contains("symbolic link") || error.contains("not a directory"), "{error}");
    }
    db.close().unwrap();
    let mut names = names(dir.path());
    names.sort();
    assert_eq!(names, ["file", "link", "store"]);
    // A link is as good as a directory once it leads to one.
    fs::create_dir(&target).unwrap();
    open(&link).close().unwrap();
    assert!(target.join("MANIFEST").exists());
}

/// A failed opening leaves no lock file where there was none.
#[test]
fn a_failed_opening_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Segments without a manifest are not treated as a new store.
    fs::write(dir.path().join("0000000001.log"), "content").unwrap();
    assert!(Bitcask::open(dir.path(), small()).unwrap_err().is_corruption());
    assert_eq!(names(dir.path()), ["0000000001.log"]);
    // A directory has the name of a required file.
    let path = dir.path().join("a/b");
    fs::create_dir_all(path.join("MANIFEST.tmp")).unwrap();
    assert!(Bitcask::open(&path, small()).is_err());
    assert_eq!(names(&path), ["MANIFEST.tmp"]);
    // A path whose name is too long for the file system.
    let long = dir.path().join("c").join("x".repeat(300));
    assert!(Bitcask::open(&long, small()).is_err());
    assert!(!dir.path().join("c").exists());
}

/// Holds the lock of a store like a process that was forked by one that has exited.
fn held_for(path: &Path, pid: u32) -> File {
    let lock = OpenOptions::new().read(true).write(true).open(path.join("LOCK")).unwrap();
    lock.lock().unwrap();
    fs::write(path.join("LOCK"), format!("{pid}\n")).unwrap();
    lock
}

#[test]
fn a_lock_whose_process_has_exited_is_reported_as_held_by_a_fork() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().unwrap();
    let mut ended = Command::new("true").stdout(Stdio::null()).spawn().unwrap();
    ended.wait().unwrap();
    let lock = held_for(dir.path(), ended.id());
    let error = Bitcask::open(dir.path(), small()).unwrap_err();
    assert!(
        matches!(error, Error::Locked { pid: Some(pid), ended: true, .. } if pid == ended.id())
    );
    let error = error.to_string();
    assert!(error.contains(&format!("process {}", ended.id())), "{error}");
    assert!(error.contains("no longer running") && error.contains("forked"), "{error}");
    drop(lock);
    // A child that has exited but has not been waited for does not hold a lock either.
    let mut zombie = Command::new("true").stdout(Stdio::null()).spawn().unwrap();
    let stat = format!("/proc/{}/stat", zombie.id());
    while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
        std::thread::yield_now();
    }
    let lock = held_for(dir.path(), zombie.id());
    assert!(
        Bitcask::open(dir.path(), small()).unwrap_err().to_string().contains("no longer running")
    );
    zombie.wait().unwrap();
    drop(lock);
    // A running process may well hold the lock.
    let lock = held_for(dir.path(), std::process::id());
    let error = Bitcask::open(dir.path(), small()).unwrap_err();
    assert!(matches!(error, Error::Locked { ended: false, .. }), "{error}");
    drop(lock);
    assert_eq!(pairs(&open(dir.path())).len(), 0);
}

/// Returns the permissions of a file or a directory.
fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Checks the permissions of a directory and of everything in it. Returns the number of files.
fn check_modes(dir: &Path, dir_mode: u32, file_mode: u32) -> usize {
    assert_eq!(mode(dir), dir_mode, "{}", dir.display());
    let mut files = 0;
    for name in names(dir) {
        let path = dir.join(name);
        if path.is_dir() {
            files += check_modes(&path, dir_mode, file_mode);
        } else {
            assert_eq!(mode(&path), file_mode, "{}", path.display());
            files += 1;
        }
    }
    files
}

/// Writes several segments, scans them in order and merges them, so that every kind of file is
/// created.
fn use_every_kind_of_file(db: &Bitcask) {
    for number in 0..400_u32 {
        db.put((number % 100).to_be_bytes(), [0; 40]).unwrap();
    }
    assert_eq!(db.range(..).count(), 100);
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
}

#[test]
fn created_files_have_the_requested_permissions() {
    let dir = tempfile::tempdir().unwrap();
    let (store, backup) = (dir.path().join("a/b/store"), dir.path().join("backup"));
    let private = small().dir_mode(0o700).file_mode(0o600);
    let db = private.clone().open(&store).unwrap();
    use_every_kind_of_file(&db);
    db.backup(&backup).unwrap();
    db.put("key", "value").unwrap();
    // A torn tail creates a quarantine.
    let killed = crash_copy(&store);
    db.close().unwrap();
    assert!(check_modes(&store, 0o700, 0o600) > 5);
    assert!(check_modes(&backup, 0o700, 0o600) > 2);
    for made in ["a", "a/b"] {
        assert_eq!(mode(&dir.path().join(made)), 0o700, "{made}");
    }
    for log in logs(killed.path()) {
        let mut bytes = fs::read(&log).unwrap();
        if let Some(at) = bytes.windows(8).position(|found| found == b"keyvalue") {
            bytes[at] ^= 1;
            fs::write(&log, bytes).unwrap();
        }
    }
    let db = private.clone().open(killed.path()).unwrap();
    assert!(!db.recovery().cuts.is_empty());
    drop(db);
    assert!(check_modes(&killed.path().join("quarantine"), 0o700, 0o600) > 0);
    let rescued = dir.path().join("rescued");
    repair::salvage_opt(&backup, &rescued, &private, |_| ControlFlow::Continue(())).unwrap();
    assert!(check_modes(&rescued, 0o700, 0o600) > 2);
    let invalid = private.clone().file_mode(0o007);
    let refused =
        repair::salvage_opt(&backup, dir.path().join("d"), &invalid, |_| ControlFlow::Continue(()));
    assert!(matches!(refused, Err(Error::InvalidOption { name: "file_mode", .. })));
    assert!(!dir.path().join("d").exists());
    // Existing directories keep their permissions.
    fs::set_permissions(&store, Permissions::from_mode(0o750)).unwrap();
    let db = small().open(&store).unwrap();
    db.close().unwrap();
    assert_eq!(mode(&store), 0o750);
}

#[test]
fn created_files_follow_the_umask_by_default() {
    let dir = tempfile::tempdir().unwrap();
    let (plain, file, store) =
        (dir.path().join("plain"), dir.path().join("file"), dir.path().join("store"));
    fs::create_dir(&plain).unwrap();
    fs::write(&file, "").unwrap();
    let db = open(&store);
    use_every_kind_of_file(&db);
    db.close().unwrap();
    assert!(check_modes(&store, mode(&plain), mode(&file)) > 5);
}
