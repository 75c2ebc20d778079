//! A store whose directory is replaced while it is open: renamed away, removed and recreated,
//! emptied, hidden under a mount, or reached through a link that now leads elsewhere.
//!
//! - Each test puts another store in the place of the first one. The first store's writer then
//!   calls everything a writer can. The other store must stay the same, byte for byte.
//! - Everything reported as durable is in the writer's directory, wherever that is by then.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bitcask::{
    AppendMode, AutoMerge, Bitcask, Error, MergeOptions, MergePolicy, Options, ReadOnly,
    SyncPolicy, repair,
};

use crate::disks::{mount, unmount};
use crate::real_disk::play_in_namespace;
use crate::support::{SAYS, contents, pairs, small};

const KEYS: usize = 300;

fn key(number: usize) -> String {
    format!("key {number:06}")
}

fn value(of: &str, number: usize) -> String {
    format!("{of} {number} ").repeat(10)
}

/// Puts keys of the store named `of`.
fn put(db: &Bitcask, of: &str, numbers: std::ops::Range<usize>) -> bitcask::Result<()> {
    numbers.into_iter().try_for_each(|number| db.put(key(number), value(of, number)))
}

/// Creates a store, and closes it.
fn make(path: &Path, of: &str) {
    let db = Bitcask::open(path, small()).unwrap();
    put(&db, of, 0..KEYS).unwrap();
    db.close().unwrap();
}

/// Checks that a directory holds an intact store with the keys of `of`.
fn check(path: &Path, of: &str) {
    let diagnosis = repair::verify(path).unwrap();
    assert!(diagnosis.damage.is_empty(), "{:?}", diagnosis.damage);
    let db = Bitcask::open(path, small()).unwrap();
    let found = pairs(&db);
    for number in 0..KEYS {
        let value = value(of, number);
        assert_eq!(found.get(key(number).as_bytes()), Some(&value.into_bytes()), "{of}");
    }
    db.close().unwrap();
}

/// Returns everything in a directory, including the lock file.
fn everything(path: &Path) -> impl PartialEq {
    (contents(path), fs::read(path.join("LOCK")).ok())
}

/// Returns whether an error, or its cause, says that the directory was replaced.
fn is_replaced(error: &Error) -> bool {
    match error {
        Error::Poisoned { cause } => is_replaced(cause),
        Error::DirectoryReplaced { .. } => true,
        _ => false,
    }
}

/// Calls everything a writer can on a store. The store has to notice the replacement.
fn work_on(db: Bitcask, backup: &Path, policy: SyncPolicy) {
    let mut errors = Vec::new();
    let mut note = |result: bitcask::Result<()>| errors.extend(result.err());
    let first = db.put(key(0), value("late", 0));
    if policy == SyncPolicy::Always {
        assert!(first.is_err(), "a put was wrongly reported as durable");
    }
    note(first);
    for number in 0..2 * KEYS {
        note(db.put(key(number), value("late", number)));
    }
    note(db.sync());
    note(db.merge_opt(MergeOptions::new().force(true)).map(drop));
    note(db.clear());
    note(db.delete(key(1)).map(drop));
    note(db.backup(backup).map(drop));
    let error = errors.first().unwrap();
    assert!(is_replaced(error), "{error}");
    assert!(errors.iter().all(is_replaced), "{errors:?}");
    assert!(db.put("key", "value").unwrap_err().is_poisoned());
    // Values that were read before stay readable.
    assert!(db.get(key(KEYS - 1)).unwrap().is_some());
    assert!(is_replaced(&db.close().unwrap_err()));
}

/// Options for the writers whose directory is replaced.
fn variants() -> Vec<(SyncPolicy, Options)> {
    let mut variants = Vec::new();
    for policy in [SyncPolicy::Always, SyncPolicy::Never] {
        for mode in [AppendMode::Mapped, AppendMode::Positioned] {
            let options = small().sync_policy(policy).append_mode(mode);
            let merge = AutoMerge::new().check_interval(Duration::from_millis(1));
            let merge = merge.trigger_dead_percent(1).dead_percent(1).idle_dead_percent(1);
            variants.extend(
                [options.clone().merge_policy(MergePolicy::Auto(merge)), options]
                    .map(|it| (policy, it)),
            );
        }
    }
    variants
}

/// Opens a store in `path` and fills it, replaces it by another one, and continues with the first
/// store's writer. `replace` returns the first store's current path, if it still exists.
fn replaced(
    policy: SyncPolicy,
    options: Options,
    path: &Path,
    replace: impl FnOnce() -> Option<PathBuf>,
) {
    let db = Bitcask::open(path, options).unwrap();
    put(&db, "own", 0..KEYS).unwrap();
    db.sync().unwrap();
    let own = replace();
    let before = everything(path);
    let backup = tempfile::tempdir().unwrap();
    work_on(db, &backup.path().join("backup"), policy);
    assert!(everything(path) == before, "the other store was changed");
    check(path, "other");
    if let Some(own) = own {
        check_own(&own);
    }
}

/// Checks that no durable write is missing. Writes from before the replacement was noticed may be
/// present or not.
fn check_own(own: &Path) {
    let db = Bitcask::open(own, small()).unwrap();
    for number in 0..KEYS {
        let found = db.get(key(number)).unwrap().unwrap();
        let may_be = [value("own", number), value("late", number)];
        assert!(may_be.iter().any(|value| found == value.as_str()), "{number}");
    }
    db.close().unwrap();
}

#[test]
fn the_writer_of_a_renamed_directory_leaves_its_successor_alone() {
    for (policy, options) in variants() {
        let dir = tempfile::tempdir().unwrap();
        let [path, aside, other] = ["data", "aside", "other"].map(|name| dir.path().join(name));
        make(&other, "other");
        replaced(policy, options, &path, || {
            fs::rename(&path, &aside).unwrap();
            fs::rename(&other, &path).unwrap();
            Some(aside)
        });
    }
}

#[test]
fn a_removed_and_recreated_directory_is_left_alone() {
    for (policy, options) in variants() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        replaced(policy, options, &path, || {
            // The writer's threads may create files there until its lock file is removed.
            while fs::remove_dir_all(&path).is_err() {}
            make(&path, "other");
            None
        });
    }
}

#[test]
fn an_emptied_and_reused_directory_is_left_alone() {
    for (policy, options) in variants() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        replaced(policy, options, &path, || {
            for entry in fs::read_dir(&path).unwrap() {
                // A file that the writer has renamed meanwhile is removed under its new name.
                let _ = fs::remove_file(entry.unwrap().path());
            }
            for entry in fs::read_dir(&path).unwrap() {
                fs::remove_file(entry.unwrap().path()).unwrap();
            }
            make(&path, "other");
            None
        });
    }
}

#[test]
fn a_redirected_link_is_not_followed() {
    for (policy, options) in variants() {
        let dir = tempfile::tempdir().unwrap();
        let [current, v1, v2] = ["current", "v1", "v2"].map(|name| dir.path().join(name));
        fs::create_dir(&v1).unwrap();
        make(&v2, "other");
        symlink(&v1, &current).unwrap();
        replaced(policy, options, &current, || {
            fs::remove_file(&current).unwrap();
            symlink(&v2, &current).unwrap();
            Some(v1)
        });
    }
}

#[test]
fn a_disk_that_is_mounted_over_the_directory_is_left_alone() {
    play_in_namespace("mounted over");
}

/// The part of a process in a separate mount namespace.
pub(crate) fn mounted_over(dir: &Path) -> Result<(), String> {
    for (policy, options) in variants() {
        let [path, scratch] = ["data", "scratch"].map(|name| dir.join(name));
        fs::create_dir(&path).unwrap();
        fs::create_dir(&scratch).unwrap();
        let tmpfs = ["-t", "tmpfs", "-o", "size=32m", "tmpfs"];
        mount(&tmpfs, &scratch)?;
        make(&scratch.join("other"), "other");
        let bind = scratch.join("other");
        replaced(policy, options, &path, || {
            mount(&["--bind", bind.to_str().unwrap()], &path).unwrap();
            None
        });
        unmount(&path);
        check_own(&path);
        // A complete file system, with a store that is created after the mount.
        let db = Bitcask::open(&path, small().sync_policy(policy)).unwrap();
        mount(&tmpfs, &path)?;
        make(&path, "other");
        let before = everything(&path);
        for number in 0..KEYS {
            let _ = db.put(key(number), value("late", number));
        }
        assert!(is_replaced(&db.close().unwrap_err()));
        assert!(everything(&path) == before);
        unmount(&path);
        check_own(&path);
        unmount(&scratch);
        fs::remove_dir_all(&path).unwrap();
        fs::remove_dir_all(&scratch).unwrap();
    }
    println!("{SAYS}all variants");
    Ok(())
}

/// If the lock file was deleted manually, a second writer can open the store. The first writer
/// notices with its next sync or its next segment, and stops.
#[test]
fn a_writer_whose_lock_file_was_removed_yields_to_the_next_writer() {
    for policy in [SyncPolicy::Always, SyncPolicy::Never] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        // Not mapped: the second writer's recovery truncates the file under a mapping.
        let options = small().sync_policy(policy).append_mode(AppendMode::Positioned);
        let first = Bitcask::open(&path, options).unwrap();
        put(&first, "other", 0..KEYS).unwrap();
        first.sync().unwrap();
        fs::remove_file(path.join("LOCK")).unwrap();
        let second = Bitcask::open(&path, small()).unwrap();
        second.put("second", "value").unwrap();
        second.sync().unwrap();
        let manifest = fs::read(path.join("MANIFEST")).unwrap();
        let work = tempfile::tempdir().unwrap();
        work_on(first, &work.path().join("backup"), policy);
        assert_eq!(fs::read(path.join("MANIFEST")).unwrap(), manifest);
        put(&second, "other", 0..KEYS).unwrap();
        assert_eq!(second.get("second").unwrap().unwrap(), "value");
        second.close().unwrap();
        check(&path, "other");
    }
}

#[test]
fn a_missing_or_replaced_lock_file_ends_writing() {
    let reasons: [fn(&Path); 3] = [
        |lock| fs::remove_file(lock).unwrap(),
        |lock| fs::rename(lock, lock.with_extension("old")).unwrap(),
        |lock| {
            fs::remove_file(lock).unwrap();
            fs::write(lock, "1\n").unwrap();
        },
    ];
    for change in reasons {
        let dir = tempfile::tempdir().unwrap();
        let db = Bitcask::open(dir.path(), small().sync_policy(SyncPolicy::Always)).unwrap();
        db.put("key", "value").unwrap();
        change(&dir.path().join("LOCK"));
        let error = db.put("key", "late").unwrap_err();
        assert!(error.is_poisoned() && is_replaced(&error), "{error}");
        assert!(error.is_directory_replaced());
        assert!(error.to_string().contains("LOCK"), "{error}");
        assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
    }
}

/// The error names the path's current directory and the store's directory.
#[test]
fn the_error_names_both_directories() {
    let dir = tempfile::tempdir().unwrap();
    let [current, v1, v2] = ["current", "v1", "v2"].map(|name| dir.path().join(name));
    make(&v1, "own");
    make(&v2, "other");
    symlink(&v1, &current).unwrap();
    let db = Bitcask::open(&current, small().sync_policy(SyncPolicy::Always)).unwrap();
    fs::remove_file(&current).unwrap();
    symlink(&v2, &current).unwrap();
    let error = db.put("key", "value").unwrap_err();
    let real = |path: &Path| fs::canonicalize(path).unwrap();
    for name in [&current, &real(&v1), &real(&v2)] {
        assert!(error.to_string().contains(name.to_str().unwrap()), "{error}");
    }
    drop(db);
}

/// A path that no longer leads anywhere says nothing about the directory, which still belongs to
/// the store.
#[test]
fn a_store_stays_usable_in_a_renamed_directory() {
    let dir = tempfile::tempdir().unwrap();
    let [path, moved] = ["data", "moved"].map(|name| dir.path().join(name));
    let db = Bitcask::open(&path, small().sync_policy(SyncPolicy::Always)).unwrap();
    put(&db, "other", 0..KEYS / 2).unwrap();
    fs::rename(&path, &moved).unwrap();
    put(&db, "other", KEYS / 2..KEYS).unwrap();
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    let copy = dir.path().join("copy");
    db.backup(&copy).unwrap();
    assert!(matches!(db.backup(moved.join("below")), Err(Error::InvalidTarget { .. })));
    db.close().unwrap();
    check(&moved, "other");
    check(&copy, "other");
    assert!(!path.exists());
}

#[test]
fn a_reader_reports_that_its_directory_was_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let [current, v1, v2] = ["current", "v1", "v2"].map(|name| dir.path().join(name));
    make(&v1, "own");
    make(&v2, "other");
    symlink(&v1, &current).unwrap();
    let db = ReadOnly::open(&current, small()).unwrap();
    fs::remove_file(&current).unwrap();
    symlink(&v2, &current).unwrap();
    let error = db.refresh().unwrap_err();
    assert!(error.is_directory_replaced() && !error.is_poisoned(), "{error}");
    for number in 0..KEYS {
        assert_eq!(db.get(key(number)).unwrap().unwrap(), value("own", number).as_str());
    }
    let first = db.range_keys(..).next();
    assert_eq!(first.unwrap().unwrap(), key(0).as_str());
    // The reader works again once the directory is back in its place.
    fs::remove_file(&current).unwrap();
    symlink(&v1, &current).unwrap();
    let writer = Bitcask::open(&v1, small()).unwrap();
    writer.put("new", "value").unwrap();
    assert!(db.refresh().unwrap());
    assert_eq!(db.get("new").unwrap().unwrap(), "value");
    writer.close().unwrap();
}

/// No new segment takes the name of an existing file.
#[test]
fn a_file_under_the_next_segment_s_name_stays() {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), small()).unwrap();
    let foreign = dir.path().join("0000000001.log");
    fs::write(&foreign, "somebody else's").unwrap();
    // A foreign file may also have the temporary name. The target of a link is not written.
    let target = dir.path().join("target");
    fs::write(&target, "of a link").unwrap();
    symlink(&target, dir.path().join("0000000002.log.tmp")).unwrap();
    symlink(&target, dir.path().join("MANIFEST.tmp")).unwrap();
    let error = db.put("key", "value").unwrap_err();
    assert!(error.to_string().contains("0000000001.log"), "{error}");
    assert!(!error.is_poisoned(), "{error}");
    db.put("key", "value").unwrap();
    assert_eq!(fs::read(&foreign).unwrap(), b"somebody else's");
    assert_eq!(fs::read(&target).unwrap(), b"of a link");
    fs::remove_file(&foreign).unwrap();
    db.close().unwrap();
    let db = Bitcask::open(dir.path(), small()).unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), "value");
}
