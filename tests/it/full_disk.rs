//! File systems of the running kernel without a free byte, a free inode, or either. Operations that
//! free space have to work there all the same. `real_disk` mounts the file systems.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::ops::Range;
use std::path::Path;
use std::thread;
use std::time::Duration;

use bitcask::{AppendMode, Bitcask, Error, MergeOptions, ReadOnly};

use crate::disks::{Kind, run};
use crate::real_disk::{KIB, MODES, key, mode, options, state, value, writer};
use crate::support::{Pairs, SAYS, files_of, pairs};

/// What a file system has run out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortage {
    Bytes,
    Inodes,
    Both,
}

/// Number of keys written before the rest of the disk is used up. The first sixth of them, and
/// every second one of the others, are deleted later.
pub(crate) const WRITES: usize = 300;

/// Returns the number of keys for a kind of file system.
fn writes(kind: Kind) -> usize {
    // XFS creates a file only if it has about 200 KiB left, so a clear has to free more than that.
    if kind == Kind::Xfs { 5 * WRITES } else { WRITES }
}

/// Prefix of the part that ends with the number of keys.
pub(crate) const WRITE_AND_WAIT: &str = "write and wait: ";

/// Writes all keys, after a first version of a third of them, and waits to be killed once every
/// sealed segment has its hint: on a disk without inodes, the hints make room for new segments.
pub(crate) fn write_and_wait(dir: &Path, count: usize) {
    let db = Bitcask::open(dir, options(mode())).unwrap();
    for number in (0..count / 3).chain(0..count) {
        db.put(key(number), value(number)).unwrap();
    }
    db.sync().unwrap();
    while files_of(dir, "hint").len() + 1 < files_of(dir, "log").len() {
        thread::sleep(Duration::from_millis(1));
    }
    println!("{SAYS}written");
    let _ = std::io::stdin().read(&mut [0]);
}

/// Plays every combination on a disk of several megabytes whose inodes are limited.
pub(crate) fn nothing_left(disk: &Path, kind: Kind) {
    let shortages = [Shortage::Bytes, Shortage::Inodes, Shortage::Both];
    // A btrfs has no limit on inodes: files take the space of its trees. An XFS makes 64 inodes at
    // a time, in free space in one piece, so a delete without a free inode may fail there.
    let has_inodes = !matches!(kind, Kind::Btrfs | Kind::BtrfsInPlace | Kind::Xfs);
    let count = if has_inodes { 3 } else { 1 };
    for mode in MODES {
        for shortage in shortages.into_iter().take(count) {
            go_through(disk, mode, shortage, writes(kind));
            emptied(disk);
        }
    }
}

fn emptied(disk: &Path) {
    for name in ["store", "others"] {
        fs::remove_dir_all(disk.join(name)).unwrap();
    }
}

/// Uses up what is free with files outside the store.
pub(crate) fn use_up(disk: &Path, shortage: Shortage) {
    let others = disk.join("others");
    fs::create_dir_all(&others).unwrap();
    let name = |number: usize| others.join(format!("{number}"));
    let mut count = fs::read_dir(&others).unwrap().count();
    if shortage != Shortage::Bytes {
        let error = loop {
            match File::create_new(name(count)) {
                Ok(_) => count += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    }
    if shortage != Shortage::Inodes {
        let Ok(mut file) = OpenOptions::new().create(true).append(true).open(name(0)) else {
            return;
        };
        for size in [64 * KIB, KIB, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        // Writes that the file system deferred may leave some space once they are done.
        let _ = file.sync_all();
        while file.write_all(&[1]).is_ok() {}
    }
}

/// Returns the number of free bytes and of free inodes.
fn free(disk: &Path) -> (u64, u64) {
    // A btrfs frees what was removed when it writes its next tree.
    run("sync", &["-f", disk.to_str().unwrap()]).unwrap();
    let told = run("stat", &["-f", "-c", "%f %S %d", disk.to_str().unwrap()]).unwrap();
    let numbers: Vec<u64> = told.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [blocks, size, inodes] = numbers[..] else { panic!("{told}") };
    (blocks * size, inodes)
}

/// Returns how many more bytes are free than before, once they are more than expected. XFS frees
/// the space of removed files in the background.
fn gained(disk: &Path, before: u64, expected: u64) -> u64 {
    let mut gained = free(disk).0.saturating_sub(before);
    for _ in 0..1000 {
        if gained > expected {
            break;
        }
        thread::sleep(Duration::from_millis(10));
        gained = free(disk).0.saturating_sub(before);
    }
    gained
}

fn check(db: &Bitcask, expected: &Pairs, when: &str) {
    assert!(pairs(db) == *expected, "{when}");
    let report = db.verify().unwrap();
    assert!(report.is_clean(), "{when}: {:?}", report.damage);
}

fn go_through(disk: &Path, mode: AppendMode, shortage: Shortage, count: usize) {
    let store = disk.join("store");
    let mut child = writer(&format!("{WRITE_AND_WAIT}{count}"), &store, mode);
    assert_eq!(child.hear().unwrap(), "written");
    child.kill();
    use_up(disk, shortage);
    let when = |what: &str| format!("{mode:?}, {shortage:?}: {what}");
    let open = |what: &str| {
        Bitcask::open(&store, options(mode))
            .unwrap_or_else(|error| panic!("{}: {error}", when(what)))
    };

    let db = open("opened after a kill");
    let all = state(0..count);
    check(&db, &all, &when("opened after a kill"));
    use_up(disk, shortage);
    db.close().unwrap_or_else(|error| panic!("{}: {error}", when("closed")));
    use_up(disk, shortage);
    let db = open("opened after a close");
    check(&db, &all, &when("opened after a close"));

    // Some segments are entirely dead, some half dead, and some live.
    let kept = (0..count).filter(|number| *number >= count / 6 && number % 2 == 1);
    let left = state(kept);
    use_up(disk, shortage);
    for number in 0..count {
        if !left.contains_key(&key(number)) {
            let deleted = db.delete(key(number));
            let deleted =
                deleted.unwrap_or_else(|error| panic!("{}: {number}: {error}", when("delete")));
            assert!(deleted);
        }
    }
    check(&db, &left, &when("deleted"));
    use_up(disk, shortage);
    let ((bytes, inodes), before) = (free(disk), db.stats());
    let merged = db.merge_opt(MergeOptions::new().force(true));
    let merged = merged.unwrap_or_else(|error| panic!("{}: {error}", when("merge")));
    check(&db, &left, &when("merged"));
    let after = db.stats();
    let freed = gained(disk, bytes, before.log_size / 4);
    let (_, inodes_after) = free(disk);
    assert!(after.log_size < before.log_size * 2 / 3, "{}: {merged:?}", when("merged"));
    assert!(freed > before.log_size / 4, "{}: {freed} bytes", when("merged"));
    assert!(inodes_after >= inodes, "{}", when("merged"));

    use_up(disk, shortage);
    db.close().unwrap_or_else(|error| panic!("{}: {error}", when("closed again")));
    use_up(disk, shortage);
    let db = open("opened again");
    check(&db, &left, &when("opened again"));
    use_up(disk, shortage);
    let (bytes, _) = free(disk);
    db.clear().unwrap_or_else(|error| panic!("{}: {error}", when("clear")));
    assert!(db.is_empty().unwrap());
    let freed = gained(disk, bytes, after.log_size / 2);
    assert!(freed > after.log_size / 2, "{}: {freed} bytes", when("cleared"));
    db.put("key", "value").unwrap_or_else(|error| panic!("{}: {error}", when("put")));
    use_up(disk, shortage);
    db.close().unwrap_or_else(|error| panic!("{}: {error}", when("final close")));
    let db = open("final open");
    assert_eq!(db.get("key").unwrap().unwrap(), "value");
    assert!(files_of(&store, "tmp").is_empty());
    db.close().unwrap();
    println!("{SAYS}{}", when("all steps passed"));
}

/// Number of small entries that are written before the disk is full. They end within a page.
const SMALL: usize = 10;

/// Returns a value of which many fit in a page.
fn small_value(number: usize) -> Vec<u8> {
    value(number).into_iter().take(40).collect()
}

fn small(numbers: Range<usize>) -> Pairs {
    numbers.map(|number| (key(number), small_value(number))).collect()
}

/// Puts small entries. Returns the number that failed, and the error.
fn put_small(db: &Bitcask, mut numbers: Range<usize>) -> Result<(), (usize, Error)> {
    numbers.try_for_each(|number| {
        db.put(key(number), small_value(number)).map_err(|error| (number, error))
    })
}

/// Puts some small entries and syncs them. Once the disk is full, puts more until that fails, and
/// once there is room again, continues.
pub(crate) fn write_after_a_sync(dir: &Path) {
    let wait = || assert_eq!(std::io::stdin().read(&mut [0]).unwrap(), 1);
    let db = Bitcask::open(dir, options(mode())).unwrap();
    put_small(&db, 0..SMALL).unwrap();
    db.sync().unwrap();
    println!("{SAYS}synced");
    wait();
    let (count, error) = put_small(&db, SMALL..usize::MAX / 2).unwrap_err();
    assert!(pairs(&db) == small(0..count), "after {error}");
    println!("{SAYS}{count} {}", error.is_no_space());
    wait();
    if error.is_no_space() {
        put_small(&db, count..count + SMALL).unwrap();
    } else {
        assert!(error.is_poisoned(), "{error}");
        assert!(db.put("key", "value").unwrap_err().is_poisoned());
    }
    println!("{SAYS}continued");
    wait();
}

/// A sync writes the pages that hold the end of the log. On a file system that never overwrites,
/// the next entry in the same page needs space again, which a full disk does not have.
pub(crate) fn full_after_a_sync(disk: &Path, kind: Kind) {
    for mode in MODES {
        let is_usable = full_after(disk, mode, |_| {});
        assert!(is_usable || !kind.keeps_allocated_space(), "{kind:?}, {mode:?}");
    }
}

/// So does an entry in a page that a copy of the file shares. In the mapped mode this would be a
/// signal; see "Limits of the promise" in docs/durability.md.
pub(crate) fn full_after_a_copy(disk: &Path) {
    full_after(disk, AppendMode::Positioned, |store| {
        let files = [store.to_str().unwrap(), disk.to_str().unwrap()];
        run("cp", &["-r", "--reflink=always", files[0], &format!("{}/copy", files[1])]).unwrap();
    });
}

/// Fills the disk after a sync and one more action on the store. Returns whether the store was
/// usable after the write that failed.
fn full_after(disk: &Path, mode: AppendMode, act: impl FnOnce(&Path)) -> bool {
    let store = disk.join("store");
    let mut child = writer("write after a sync", &store, mode);
    let mut stdin = child.stdin();
    let mut go_on = || stdin.write_all(b"\n").unwrap();
    assert_eq!(child.hear().unwrap(), "synced");
    act(&store);
    use_up(disk, Shortage::Bytes);
    go_on();
    let said = child.hear().unwrap_or_else(|| panic!("{mode:?}: {}", child.wait()));
    let (count, is_usable) = said.split_once(' ').unwrap();
    let (count, is_usable) = (count.parse::<usize>().unwrap(), is_usable == "true");
    println!("{SAYS}{mode:?}: {count} writes, usable after that: {is_usable}");
    fs::remove_dir_all(disk.join("others")).unwrap();
    go_on();
    assert_eq!(child.hear().unwrap(), "continued", "{mode:?}");
    child.kill();

    let all = small(0..if is_usable { count + SMALL } else { count });
    let db = ReadOnly::open(&store, options(mode)).unwrap();
    assert!(pairs(&db) == all, "{mode:?}: after a kill");
    drop(db);
    let db = Bitcask::open(&store, options(mode)).unwrap();
    check(&db, &all, "opened again");
    db.put("key", "value").unwrap();
    db.close().unwrap();
    fs::remove_dir_all(&store).unwrap();
    is_usable
}
