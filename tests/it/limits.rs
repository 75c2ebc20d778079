//! Processes with a low limit on open files: how many descriptors a store uses, and how many it
//! leaves to the program.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails the test"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use bitcask::{Bitcask, Error, MergeOptions, MergePolicy, Options, ReadOnly, SyncPolicy};

use crate::support::{Actor, SAYS, actor, logs};

/// Part that this test binary plays when it is run again as a child process.
pub(crate) const PART: &str = "with few descriptors";

const SEGMENTS: u32 = 300;
const STORES: u32 = 4;

fn options() -> Options {
    // Keeps every segment as it is.
    let options = Options::new().sync_policy(SyncPolicy::Never).merge_policy(MergePolicy::Manual);
    options.segment_entries(10).segment_size(64 << 10)
}

/// Creates stores with many segments and indexes.
fn prepare(dir: &Path) {
    for store in 0..STORES {
        let db = Bitcask::open(dir.join(store.to_string()), options()).unwrap();
        for key in 0..10 * SEGMENTS {
            db.put(key.to_be_bytes(), [7; 100]).unwrap();
        }
        assert_eq!(db.range(..).count(), 10 * SEGMENTS as usize);
        db.close().unwrap();
        assert!(logs(&dir.join(store.to_string())).len() >= SEGMENTS as usize);
    }
}

fn run_with(descriptors: u32, dir: &Path) -> String {
    let inner = actor(PART, dir);
    let mut command = Command::new("sh");
    let limited = format!("ulimit -n {descriptors} && exec \"$@\"");
    command.args(["-c", &limited, "sh"]).arg(inner.get_program());
    command.args(inner.get_args()).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = Actor::start(command).unwrap();
    let said = child.hear().unwrap_or_default();
    assert!(child.wait().success(), "with {descriptors} descriptors: {said}");
    said
}

#[test]
fn scans_of_several_stores_leave_descriptors_to_the_program() {
    for descriptors in [256, 64] {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        assert_eq!(run_with(descriptors, dir.path()), "all passed");
    }
}

/// Scans the stores, and then calls everything else on them.
pub(crate) fn play(dir: &Path) {
    let open = |store: u32| Bitcask::open(dir.join(store.to_string()), options()).unwrap();
    let stores: Vec<Bitcask> = (0..STORES).map(open).collect();
    for db in &stores {
        // All scans have begun and are held.
        let mut range = db.range(..);
        for key in 0..10 * SEGMENTS {
            assert_eq!(range.next().unwrap().unwrap().0, key.to_be_bytes().as_slice());
        }
        assert!(range.next().is_none());
        assert_eq!(db.range(..).rev().count(), 10 * SEGMENTS as usize);
    }
    // An eighth of the descriptors is for indexes.
    let (indexes, taken) =
        (indexes_open(), fs::read_dir("/proc/self/fd").map_or(0, Iterator::count));
    assert!((8..=32).contains(&indexes), "{indexes} indexes are open");
    assert!(taken < 40 + indexes, "{taken} descriptors are in use");
    let counted = usize::try_from(stores[0].stats().descriptors).unwrap();
    assert!(counted < 30 + indexes, "{counted}");
    let mine: Vec<_> = (0..20).map(|_| fs::File::open(dir).unwrap()).collect();
    for (store, db) in stores.iter().enumerate() {
        db.put("another", "value").unwrap();
        db.backup(dir.join(format!("backup {store}"))).unwrap();
        db.merge_opt(MergeOptions::new().force(true)).unwrap();
        assert!(db.verify().unwrap().is_clean());
        assert_eq!(db.range(..).count(), 10 * SEGMENTS as usize + 1);
    }
    drop(mine);
    shortage(dir, &stores[0]);
    for db in stores {
        db.close().unwrap();
    }
    println!("{SAYS}all passed");
}

/// Returns how many indexes this process has open.
fn indexes_open() -> usize {
    let files = fs::read_dir("/proc/self/fd").unwrap();
    let paths = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    paths.filter(|path| path.to_string_lossy().contains(".index")).count()
}

/// Takes all descriptors: calls that need one fail with an explanation, and work again once there
/// are some.
fn shortage(dir: &Path, db: &Bitcask) {
    let mut mine = Vec::new();
    while let Ok(file) = fs::File::open(dir) {
        mine.push(file);
    }
    assert_eq!(db.get(7_u32.to_be_bytes()).unwrap().unwrap(), [7; 100]);
    db.put("in", "need").unwrap();
    let error = db.range(..).next().unwrap().unwrap_err();
    assert!(matches!(error, Error::Io { action: "open", .. }), "{error}");
    assert!(error.to_string().contains("Too many open files"), "{error}");
    assert!(ReadOnly::open(dir.join("0"), options()).is_err());
    drop(mine);
    assert_eq!(db.range(..).map(Result::unwrap).count(), 10 * SEGMENTS as usize + 2);
    db.put("out of", "need").unwrap();
    db.sync().unwrap();
}
