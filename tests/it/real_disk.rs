//! Real file systems of the running kernel that are full, or that fail.
//!
//! - Each test plays in a separate mount namespace, made by `unshare`. The kernel unmounts
//!   everything there when the last process in it exits, even if that is killed. Where mounting is
//!   not permitted, a test prints why and is skipped; with `BITCASK_REAL_DISK=required` it fails
//!   instead.
//! - Each writer is a separate process in the namespace, so that it can be killed, and may die of
//!   SIGBUS where the documentation says so.
//! - The key and the value of a write follow from its number. So the number of writes determines
//!   what a store must hold.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs;
use std::io::Read as _;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bitcask::{
    AppendMode, Bitcask, Error, MergeOptions, MergePolicy, Options, ReadOnly, SyncPolicy,
};

use crate::disks::{Free, Kind, MIB, make_image, mount_image, mount_small, run, unmount};
use crate::support::{Actor, Pairs, SAYS, actor, pairs};
use crate::{full_disk, layers, power_cuts};

/// Prefix of the names of the parts that child processes play here.
pub(crate) const PART: &str = "real disk: ";

pub(crate) const KIB: usize = 1 << 10;
pub(crate) const MODES: [AppendMode; 2] = [AppendMode::Mapped, AppendMode::Positioned];
/// The number of SIGBUS on Linux.
const SIGBUS: i32 = 7;

#[test]
fn on_a_full_tmpfs_only_the_failing_writes_are_affected() {
    play_in_namespace("a full tmpfs");
}

#[test]
fn on_a_full_ext4_only_the_failing_writes_are_affected() {
    play_in_namespace("a full ext4");
}

#[test]
fn on_a_full_xfs_only_the_failing_writes_are_affected() {
    play_in_namespace("a full xfs");
}

#[test]
fn on_a_full_btrfs_in_place_only_the_failing_writes_are_affected() {
    play_in_namespace("a full btrfs in place");
}

#[test]
fn on_a_full_overlay_only_the_failing_writes_are_affected() {
    play_in_namespace("a full overlay");
}

#[test]
fn the_store_can_free_space_on_a_tmpfs_without_bytes_or_inodes() {
    play_in_namespace("nothing left of: tmpfs");
}

#[test]
fn the_store_can_free_space_on_an_ext4_without_bytes_or_inodes() {
    play_in_namespace("nothing left of: ext4");
}

#[test]
fn the_store_can_free_space_on_an_xfs_without_bytes() {
    play_in_namespace("nothing left of: xfs");
}

#[test]
fn the_store_can_free_space_on_a_btrfs_in_place_without_bytes() {
    play_in_namespace("nothing left of: btrfs in place");
}

#[test]
fn the_store_can_free_space_on_an_overlay_without_bytes_or_inodes() {
    play_in_namespace("nothing left of: overlay");
}

#[test]
fn what_a_full_disk_has_no_room_for_is_an_error_although_it_was_allocated() {
    for kind in Kind::ALL {
        play_in_namespace(&format!("full after a sync: {}", kind.name()));
    }
}

#[test]
fn what_a_full_xfs_has_no_room_for_after_a_copy_is_an_error() {
    play_in_namespace("full after a copy: xfs");
}

#[test]
fn synced_writes_survive_when_part_of_the_disk_fails() {
    play_in_namespace("a failing disk");
}

/// Plays a part in a separate mount namespace, as root if this process is root.
pub(crate) fn play_in_namespace(part: &str) {
    let skip = |why: &str| {
        println!("skipped: {why}");
        let required = std::env::var("BITCASK_REAL_DISK").is_ok_and(|text| text == "required");
        assert!(!required, "this test must not be skipped: {why}");
    };
    let works = |flag: &&str| {
        let probe = Command::new("unshare").args([*flag, "true"]).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    };
    let Some(flag) = ["--mount", "--map-root-user"].into_iter().find(works) else {
        return skip("`unshare` is missing or not permitted");
    };
    let dir = tempfile::tempdir().unwrap();
    let inner = actor(&format!("{PART}{part}"), dir.path());
    let mut command = Command::new("unshare");
    command.args([flag, "--mount", "--"]).arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Actor::start(command).unwrap();
    let (mut said, mut skipped) = (Vec::new(), None);
    while let Some(line) = child.hear() {
        match line.strip_prefix("skipped: ") {
            Some(why) => skipped = Some(why.to_owned()),
            None => said.push(line),
        }
    }
    let status = child.wait();
    println!("{}", said.join("\n"));
    assert!(status.success(), "{part}: {status}");
    match skipped {
        Some(why) => skip(&why),
        None => assert!(!said.is_empty(), "{part} was not played"),
    }
}

/// Plays a child process's part.
pub(crate) fn play(part: &str, dir: &Path) {
    let part = part.trim_start_matches(PART);
    match part {
        "fill" => return fill(dir),
        "sync" => return sync_until_it_fails(dir),
        "write after a sync" => return full_disk::write_after_a_sync(dir),
        "overwrite and merge" => return power_cuts::overwrite_and_merge(dir),
        part => {
            if let Some(count) = part.strip_prefix(full_disk::WRITE_AND_WAIT) {
                return full_disk::write_and_wait(dir, count.parse().unwrap());
            }
        }
    }
    let [disk, below] = ["disk", "below"].map(|name| dir.join(name));
    for dir in [&disk, &below] {
        fs::create_dir(dir).unwrap();
    }
    let played = match part {
        "mounted over" => crate::replaced::mounted_over(dir),
        "a failing disk" => MODES.iter().try_for_each(|mode| failing(&below, &disk, *mode)),
        "the lower layer of an overlay" => layers::copied_up(&below, &disk),
        part => play_on_a_disk(part, &below, &disk),
    };
    match played {
        Ok(()) => println!("{SAYS}{part} was played"),
        Err(why) => println!("{SAYS}skipped: {why}"),
    }
}

/// Plays a part whose name ends with the kind of the file system.
fn play_on_a_disk(part: &str, below: &Path, disk: &Path) -> Result<(), String> {
    let of = |start: &str| part.strip_prefix(start).and_then(Kind::named);
    let small = |kind, free| mount_small(kind, free, below, disk);
    if let Some(kind) = of("a full ") {
        small(kind, Free::Little).map(|()| full_twice(disk))
    } else if let Some(kind) = of("nothing left of: ") {
        small(kind, Free::More).map(|()| full_disk::nothing_left(disk, kind))
    } else if let Some(kind) = of("full after a sync: ") {
        small(kind, Free::More).map(|()| full_disk::full_after_a_sync(disk, kind))
    } else if let Some(kind) = of("full after a copy: ") {
        small(kind, Free::More).map(|()| full_disk::full_after_a_copy(disk))
    } else if let Some(kind) = of("power cuts: ") {
        power_cuts::cut_often(kind, below, disk)
    } else {
        unreachable!("there is no part {part}")
    }
}

pub(crate) fn key(number: usize) -> Vec<u8> {
    format!("key {number:06}").into_bytes()
}

pub(crate) fn value(number: usize) -> Vec<u8> {
    format!("{number} ").into_bytes().into_iter().cycle().take(2 * KIB + number % 100).collect()
}

pub(crate) fn state(numbers: impl IntoIterator<Item = usize>) -> Pairs {
    numbers.into_iter().map(|number| (key(number), value(number))).collect()
}

/// Small segments, in the append mode that the environment or the test specifies.
pub(crate) fn options(mode: AppendMode) -> Options {
    let options = Options::new().segment_size(64 * 1024).append_mode(mode);
    options.sync_policy(SyncPolicy::Never).merge_policy(MergePolicy::Manual)
}

const MODE: &str = "BITCASK_TEST_MODE";

pub(crate) fn writer(part: &str, dir: &Path, mode: AppendMode) -> Actor {
    let mut command = actor(&format!("{PART}{part}"), dir);
    command.env(MODE, if mode == AppendMode::Mapped { "mapped" } else { "positioned" });
    Actor::start(command).unwrap()
}

pub(crate) fn mode() -> AppendMode {
    let mapped = std::env::var(MODE).unwrap() == "mapped";
    if mapped { AppendMode::Mapped } else { AppendMode::Positioned }
}

/// Writes until the disk is full, and reports how many writes have returned.
fn fill(dir: &Path) {
    let db = Bitcask::open(dir, options(mode())).unwrap();
    let (count, error) = put_until_full(&db, 0);
    assert!(error.is_no_space(), "{error}");
    println!("{SAYS}{count}");
    // Until it is killed.
    let _ = std::io::stdin().read(&mut [0]);
}

/// Puts numbers in order until a put fails. Returns the number that failed, and the error.
fn put_until_full(db: &Bitcask, from: usize) -> (usize, Error) {
    (from..)
        .find_map(|number| db.put(key(number), value(number)).err().map(|error| (number, error)))
        .unwrap()
}

fn full_twice(disk: &Path) {
    for mode in MODES {
        full(disk, mode);
    }
}

/// Files that can be deleted to make room on a full disk.
struct Ballast(Vec<PathBuf>);

impl Ballast {
    fn load(disk: &Path) -> Self {
        let paths = (0..8).map(|number| disk.join(format!("ballast {number}")));
        let write = |path: PathBuf| fs::write(&path, vec![1; 32 * KIB]).map(|()| path).unwrap();
        Self(paths.map(write).collect())
    }

    /// Retries a call that needs a little space, for a manifest or for tombstones, and deletes one
    /// file after each attempt that finds too little.
    fn make_room<T>(&mut self, mut what: impl FnMut() -> bitcask::Result<T>) -> T {
        loop {
            match (what(), self.0.pop()) {
                (Ok(done), path) => {
                    self.0.extend(path);
                    return done;
                }
                (Err(error), Some(path)) if error.is_no_space() => fs::remove_file(path).unwrap(),
                (Err(error), _) => panic!("{} files are left: {error}", self.0.len()),
            }
        }
    }
}

/// Fills a file system, kills the writer, and continues with the store: frees space in every way,
/// and writes again.
fn full(disk: &Path, mode: AppendMode) {
    let store = disk.join(format!("{mode:?}"));
    let mut ballast = Ballast::load(disk);
    let mut child = writer("fill", &store, mode);
    let count: usize = child.hear().unwrap().parse().unwrap();
    assert!(count > 400, "only {count} writes fit");
    child.kill();
    let db = ReadOnly::open(&store, options(mode)).unwrap();
    assert!(pairs(&db) == state(0..count), "after a kill on a full disk");
    drop(db);
    let open = || Bitcask::open(&store, options(mode));
    let db = ballast.make_room(open);
    assert!(pairs(&db) == state(0..count), "opened for writing after a kill on a full disk");

    // The disk is still full, and nothing else is wrong with the store.
    let (count, error) = put_until_full(&db, count);
    assert!(error.is_no_space(), "{error}");
    assert_eq!(db.get(key(count)).unwrap(), None);
    assert!(db.put(key(count), vec![b'x'; 100 * KIB]).unwrap_err().is_no_space());
    assert!(pairs(&db) == state(0..count), "while the disk is full");
    assert!(db.verify().unwrap().is_clean());
    let left = delete_and_merge(&db, count, &mut ballast);
    let closed = db.close();
    assert!(closed.is_ok() || closed.is_err_and(|error| error.is_no_space()));
    let db = ballast.make_room(open);
    assert!(pairs(&db) == state(left), "closed and opened");

    ballast.make_room(|| db.clear());
    let (again, error) = put_until_full(&db, 0);
    assert!(error.is_no_space(), "{error}");
    assert!(again > count - count / 10, "{again} fit after a clear, {count} before");
    assert!(pairs(&db) == state(0..again));
    let deleted_files = 8 - ballast.0.len();
    println!(
        "{SAYS}{mode:?}: full after {count} writes and {again}, {deleted_files} files deleted"
    );
    ballast.make_room(|| db.clear());
    assert!(db.is_empty().unwrap());
    db.close().unwrap();
    fs::remove_dir_all(store).unwrap();
}

/// Deletes half of the keys on a full disk, once there is room for the tombstones, and merges to
/// free their space. Returns the numbers that are present once the disk is full again.
fn delete_and_merge(db: &Bitcask, count: usize, ballast: &mut Ballast) -> Range<usize> {
    let numbers = 0..count / 2;
    for number in numbers.clone() {
        ballast.make_room(|| db.delete(key(number)));
    }
    assert!(pairs(db) == state(numbers.end..count), "deleted");
    // The merge removes entirely dead segments. Copies may have too little room until files are
    // deleted. The loop requires a third of the writes to fit, which is less than what was deleted.
    let mut next = count;
    while next <= count + count / 3 {
        let merged = db.merge_opt(MergeOptions::new().force(true));
        assert!(merged.is_ok() || merged.is_err_and(|error| error.is_no_space()));
        assert!(pairs(db) == state(numbers.end..next), "merged");
        let (full, error) = put_until_full(db, next);
        assert!(error.is_no_space(), "{error}");
        if full < next + 100 {
            let path = ballast.0.pop();
            let path = path
                .unwrap_or_else(|| panic!("{full} writes after {count}: less than was deleted"));
            fs::remove_file(path).unwrap();
        }
        next = full;
    }
    assert!(pairs(db) == state(numbers.end..next), "more writes after a merge");
    numbers.end..next
}

/// Writes and syncs until either fails. Reports how many writes are durable, and finally the
/// failure. After that, reads must work and writes must fail.
fn sync_until_it_fails(dir: &Path) {
    let db = Bitcask::open(dir, options(mode())).unwrap();
    let mut written = 0;
    let error = loop {
        if let Err(error) = db.put(key(written), value(written)) {
            break error;
        }
        written += 1;
        if written % 16 == 0 {
            if let Err(error) = db.sync() {
                break error;
            }
            println!("{SAYS}{written}");
        }
    };
    assert!(!error.is_no_space(), "the file system has room: {error}");
    for number in 0..written {
        assert!(db.get(key(number)).unwrap().unwrap() == value(number).as_slice(), "{number}");
    }
    let refused = [db.put("key", "value"), db.delete(key(0)).map(drop), db.clear()];
    let is_refused = refused.iter().all(|result| result.as_ref().is_err_and(Error::is_poisoned));
    assert!(is_refused, "after {error}: {refused:?}");
    println!("{SAYS}failed: {error}");
    let _ = std::io::stdin().read(&mut [0]);
}

/// Reads the writer's reports of durable writes until the writer has failed, and returns the
/// number. In the mapped mode, the writer may have died of the documented signal.
fn hear_until_it_fails(mut child: Actor, mode: AppendMode, mut hear: impl FnMut(usize)) -> usize {
    let mut durable = 0;
    loop {
        match child.hear() {
            Some(said) if said.starts_with("failed") => {
                println!("{SAYS}{mode:?}: {durable} writes are durable, {said}");
                child.kill();
                return durable;
            }
            Some(said) => durable = said.parse().unwrap(),
            None => {
                let status = child.wait();
                println!("{SAYS}{mode:?}: {durable} writes are durable, the writer: {status}");
                assert_eq!((status.signal(), mode), (Some(SIGBUS), AppendMode::Mapped));
                return durable;
            }
        }
        hear(durable);
    }
}

/// Checks that a store on a repaired disk holds a prefix of the writes with all durable ones, and
/// that it is writable.
fn check_recovered(store: &Path, mode: AppendMode, durable: usize) {
    let db = Bitcask::open(store, options(mode)).unwrap();
    let found = pairs(&db);
    assert!(found.len() >= durable, "only {} of {durable} durable writes are present", found.len());
    assert!(found == state(0..found.len()), "not the first {} writes", found.len());
    db.put(key(found.len()), value(found.len())).unwrap();
    db.sync().unwrap();
    db.close().unwrap();
    let db = Bitcask::open(store, options(mode)).unwrap();
    assert!(pairs(&db) == state(0..=found.len()));
}

/// A disk whose upper part stops working: every read and write there fails with EIO, as on a device
/// that has become smaller. Then that part works again, with its earlier content.
fn failing(below: &Path, disk: &Path, mode: AppendMode) -> Result<(), String> {
    const SIZE: u64 = 16 * MIB;
    /// Size of the part that keeps working.
    const WORKS: u64 = 7 * MIB;
    for program in ["fsfreeze", "losetup"] {
        run(program, &["--version"])?;
    }
    let image = make_image(Kind::Ext4, SIZE, below)?;
    mount_image(Kind::Ext4, below, disk)?;
    let device = loop_device(disk).ok_or("the loop device was not found")?;
    let mut lost = Vec::new();
    let store = disk.join("store");
    let durable = hear_until_it_fails(writer("sync", &store, mode), mode, |durable| {
        if durable >= 400 && lost.is_empty() {
            lost = cut_off(&image, WORKS, SIZE, &device, disk);
        }
    });
    assert!(durable >= 400, "only {durable}");
    unmount(disk);
    image.write_all_at(&lost, WORKS).unwrap();
    mount_image(Kind::Ext4, below, disk)?;
    check_recovered(&store, mode, durable);
    unmount(disk);
    drop(image);
    unmount(below);
    Ok(())
}

/// Shrinks the disk's image, and returns the content that was cut off.
///
/// The file system is frozen meanwhile, so no data is on its way to the disk that would be accepted
/// and lost. It is thawed whatever fails, because a process that writes to a frozen file system
/// cannot be killed.
fn cut_off(image: &fs::File, works: u64, size: u64, device: &str, disk: &Path) -> Vec<u8> {
    let mut lost = vec![0; usize::try_from(size - works).unwrap()];
    run("fsfreeze", &["-f", disk.to_str().unwrap()]).unwrap();
    let read = image.read_exact_at(&mut lost, works);
    let cut = read.and_then(|()| image.set_len(works)).map_err(|error| error.to_string());
    let cut = cut.and_then(|()| run("losetup", &["-c", device]));
    run("fsfreeze", &["-u", disk.to_str().unwrap()]).unwrap();
    cut.unwrap();
    lost
}

/// Returns the device of the mount at a directory.
fn loop_device(at: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mut devices = mount.filter(|words| words.get(1) == at.to_str().as_ref());
    devices.next()?.first().map(|device| (*device).to_owned())
}
