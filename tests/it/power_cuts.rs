//! The power is cut under a real file system, again and again while a store writes.
//!
//! - The disk is an image in a file of an xfs, which can copy a file in one step without copying
//!   its bytes. Such a copy is the disk at one moment, as a power cut would leave it: with
//!   everything that the file system has written by then, and nothing of what is only in memory.
//! - Each copy is mounted, which replays the file system's journal, and its store is opened. It
//!   must hold the state after some number of steps, with all that were durable before the copy.
//! - A step follows from its number, so the number of steps determines what a store must hold.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bitcask::{AppendMode, Bitcask, MergeOptions};

use crate::disks::{
    Kind, MIB, make_image_file, mount, mount_image, run, smallest, unmount, unmount_image,
};
use crate::real_disk::{MODES, key, mode, options, play_in_namespace, value, writer};
use crate::support::{Pairs, SAYS, pairs};

/// Number of copies of the disk that are made while a process writes.
const CUTS: usize = 12;
/// Number of different keys.
const KEYS: usize = 150;
/// Number of steps after which they are made durable.
const SYNC_EVERY: usize = 8;
/// Number of steps after which everything is merged.
const MERGE_EVERY: usize = 96;

#[test]
fn a_power_cut_on_ext4_keeps_what_was_durable() {
    play_in_namespace("power cuts: ext4");
}

#[test]
fn a_power_cut_on_xfs_keeps_what_was_durable() {
    play_in_namespace("power cuts: xfs");
}

#[test]
fn a_power_cut_on_btrfs_keeps_what_was_durable() {
    play_in_namespace("power cuts: btrfs");
}

#[test]
fn a_power_cut_on_btrfs_in_place_keeps_what_was_durable() {
    play_in_namespace("power cuts: btrfs in place");
}

#[test]
fn a_power_cut_on_an_overlay_keeps_what_was_durable() {
    play_in_namespace("power cuts: overlay");
}

/// Returns what a step does: puts a value under a key, or deletes the key.
fn step(number: usize) -> (Vec<u8>, Option<Vec<u8>>) {
    // Each key is overwritten or deleted after about a hundred and fifty steps.
    let key = key(number * 7 % KEYS);
    (key, (number % 5 != 4).then(|| value(number)))
}

fn apply(state: &mut Pairs, number: usize) {
    match step(number) {
        (key, Some(value)) => drop(state.insert(key, value)),
        (key, None) => drop(state.remove(&key)),
    }
}

/// Makes steps, syncs, merges, and says how many steps are durable, until it is killed.
pub(crate) fn overwrite_and_merge(dir: &Path) {
    let db = Bitcask::open(dir, options(mode())).unwrap();
    for number in 0.. {
        match step(number) {
            (key, Some(value)) => db.put(key, value).unwrap(),
            (key, None) => drop(db.delete(key).unwrap()),
        }
        if (number + 1) % SYNC_EVERY == 0 {
            db.sync().unwrap();
            println!("{SAYS}{}", number + 1);
        }
        if (number + 1) % MERGE_EVERY == 0 {
            db.merge_opt(MergeOptions::new().force(true)).unwrap();
        }
    }
}

/// A copy of the disk, and how many steps were certainly durable when it was made.
struct Cut {
    image: PathBuf,
    durable: usize,
}

/// Plays all cuts on a kind of file system, in both append modes.
pub(crate) fn cut_often(kind: Kind, below: &Path, disk: &Path) -> Result<(), String> {
    // The images need no memory where they hold nothing.
    mount(&["-t", "tmpfs", "-o", "size=2g", "tmpfs"], below)?;
    let host = below.join("host");
    fs::create_dir(&host).unwrap();
    drop(make_image_file(Kind::Xfs, 1024 * MIB, &below.join("image"))?);
    mount_image(Kind::Xfs, below, &host)?;
    for mode in MODES {
        let dir = host.join(format!("{mode:?}"));
        fs::create_dir(&dir).unwrap();
        drop(make_image_file(kind, smallest(kind), &dir.join("image"))?);
        let (cuts, last) = write_and_cut(kind, mode, &dir, disk)?;
        let (mut most, mut found) = (0, Vec::new());
        for (number, cut) in cuts.iter().enumerate() {
            let at = host.join(format!("{mode:?} {number}"));
            fs::create_dir(&at).unwrap();
            fs::rename(&cut.image, at.join("image")).unwrap();
            mount_image(kind, &at, disk)?;
            let steps = check(&disk.join("store"), mode, cut.durable, last);
            unmount_image(kind, &at, disk);
            fs::remove_dir_all(&at).unwrap();
            most = most.max(steps - cut.durable);
            found.push(steps);
        }
        println!("{SAYS}{mode:?}: after {found:?} steps, at most {most} more than were durable");
    }
    unmount(&host);
    unmount(below);
    Ok(())
}

/// Copies the disk while a process writes to it. Returns the copies, and a number of steps that
/// is higher than any that the process has made.
fn write_and_cut(
    kind: Kind,
    mode: AppendMode,
    dir: &Path,
    disk: &Path,
) -> Result<(Vec<Cut>, usize), String> {
    mount_image(kind, dir, disk)?;
    let mut child = writer("overwrite and merge", &disk.join("store"), mode);
    let pid = child.pid().to_string();
    // Heard all the time, so that a copy is made with what is durable by then, and not with what
    // was durable some time ago.
    let durable = AtomicUsize::new(0);
    let cuts = thread::scope(|scope| {
        let listener = scope.spawn(|| {
            while let Some(said) = child.hear() {
                durable.store(said.parse().unwrap(), Ordering::Release);
            }
        });
        let heard = || durable.load(Ordering::Acquire);
        let cut = |number: usize| {
            // Not always the same number of steps after a merge.
            let next = heard() + 7 * SYNC_EVERY;
            while heard() < next {
                assert!(!listener.is_finished(), "the writer ended after {} steps", heard());
                thread::sleep(Duration::from_millis(1));
            }
            let (image, durable) = (dir.join(format!("cut {number}")), heard());
            let paths = [&dir.join("image"), &image].map(|path| path.to_str().unwrap().to_owned());
            let copied = run("cp", &["--reflink=always", &paths[0], &paths[1]]);
            copied.map(|_| Cut { image, durable })
        };
        let cuts: Result<Vec<Cut>, String> = (0..CUTS).map(cut).collect();
        run("kill", &["-9", &pid]).unwrap();
        cuts
    });
    child.wait();
    unmount_image(kind, dir, disk);
    let cuts = cuts.map_err(|why| format!("the disk cannot be copied in one step: {why}"))?;
    Ok((cuts, durable.into_inner() + 2 * SYNC_EVERY))
}

/// Checks the store on a disk whose power was cut: it must hold the state after a number of steps,
/// at least the durable ones, which is returned, and must be writable.
fn check(store: &Path, mode: AppendMode, durable: usize, last: usize) -> usize {
    let db = Bitcask::open(store, options(mode)).unwrap();
    assert!(db.verify().unwrap().is_clean());
    let found = pairs(&db);
    let mut state = Pairs::new();
    (0..durable).for_each(|number| apply(&mut state, number));
    let steps = (durable..last).find(|number| {
        let is_found = state == found;
        apply(&mut state, *number);
        is_found
    });
    let steps = steps.unwrap_or_else(|| {
        panic!("{mode:?}: not the state after {durable} steps nor a later one up to {last}")
    });
    db.put("key", "value").unwrap();
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    db.close().unwrap();
    let db = Bitcask::open(store, options(mode)).unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), "value");
    assert_eq!(db.len().unwrap(), found.len() as u64 + 1);
    steps
}
