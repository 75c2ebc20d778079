//! A store in the lower layer of an overlay, as in the image of a container: it is read there, and
//! a file is copied to the upper layer when it is written.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs;
use std::path::Path;

use bitcask::{AppendMode, Bitcask, MergeOptions, ReadOnly};

use crate::disks::{
    Kind, MIB, make_image_file, mount, mount_image, mount_overlay, unmount, unmount_image,
};
use crate::full_disk::{Shortage, WRITE_AND_WAIT, WRITES, use_up};
use crate::real_disk::{MODES, key, options, play_in_namespace, value, writer};
use crate::support::{Pairs, SAYS, contents, pairs};

#[test]
fn a_store_in_the_lower_layer_of_an_overlay_stays_as_it_is() {
    play_in_namespace("the lower layer of an overlay");
}

/// What the store in the lower layer was left by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeftBy {
    Close,
    Kill,
}

/// Plays every combination: the layers on one file system and on two, the store closed and killed.
pub(crate) fn copied_up(below: &Path, disk: &Path) -> Result<(), String> {
    mount(&["-t", "tmpfs", "-o", "size=512m", "tmpfs"], below)?;
    let lower = below.join("lower");
    let mut number = 0;
    for mode in MODES {
        for left_by in [LeftBy::Close, LeftBy::Kill] {
            for upper_kind in [None, Some(Kind::Ext4)] {
                fs::create_dir_all(&lower).unwrap();
                let all = make(&lower.join("store"), mode, left_by);
                number += 1;
                let upper = below.join(format!("upper {number}"));
                let mounted = upper.join("disk");
                fs::create_dir_all(&mounted).unwrap();
                if let Some(kind) = upper_kind {
                    drop(make_image_file(kind, 32 * MIB, &upper.join("image"))?);
                    mount_image(kind, &upper, &mounted)?;
                }
                let before = contents(&lower);
                mount_overlay(&lower, &mounted, disk)?;
                let left = go_through(disk, mode, &all);
                unmount(disk);
                assert!(contents(&lower) == before, "{mode:?}, {left_by:?}, {upper_kind:?}");
                mount_overlay(&lower, &mounted, disk)?;
                let db = Bitcask::open(disk.join("store"), options(mode)).unwrap();
                assert!(pairs(&db) == left, "mounted again");
                db.close().unwrap();
                unmount(disk);
                if let Some(kind) = upper_kind {
                    unmount_image(kind, &upper, &mounted);
                }
                full_upper_layer(&lower, &upper.join("full"), disk, mode, &all)?;
                assert!(contents(&lower) == before);
                println!("{SAYS}{mode:?}, {left_by:?}, upper layer {upper_kind:?}: passed");
                fs::remove_dir_all(&lower).unwrap();
                fs::remove_dir_all(&upper).unwrap();
            }
        }
    }
    Ok(())
}

/// Creates a store, and returns what it holds.
fn make(store: &Path, mode: AppendMode, left_by: LeftBy) -> Pairs {
    let mut child = writer(&format!("{WRITE_AND_WAIT}{WRITES}"), store, mode);
    assert_eq!(child.hear().unwrap(), "written");
    child.kill();
    let db = ReadOnly::open(store, options(mode)).unwrap();
    let all = pairs(&db);
    drop(db);
    if left_by == LeftBy::Close {
        Bitcask::open(store, options(mode)).unwrap().close().unwrap();
    }
    all
}

/// Does everything to the store, with a reader that was there before. Returns what it then holds.
fn go_through(disk: &Path, mode: AppendMode, all: &Pairs) -> Pairs {
    let store = disk.join("store");
    let reader = ReadOnly::open(&store, options(mode)).unwrap();
    let held: Vec<_> = all.keys().map(|key| reader.get(key).unwrap().unwrap()).collect();
    let db = Bitcask::open(&store, options(mode)).unwrap();
    let check = |state: &Pairs, when: &str| {
        assert!(pairs(&db) == *state, "{mode:?}: {when}");
        reader.refresh().unwrap();
        assert!(pairs(&reader) == *state, "{mode:?}: the reader, {when}");
        assert!(db.verify().unwrap().is_clean(), "{mode:?}: {when}");
    };
    check(all, "opened");
    let mut state = all.clone();
    for (number, key) in all.keys().enumerate().step_by(2) {
        if number % 4 == 0 {
            db.delete(key).unwrap();
            state.remove(key);
        } else {
            db.put(key, value(number)).unwrap();
            state.insert(key.clone(), value(number));
        }
    }
    db.put(key(1_000_000), "new").unwrap();
    state.insert(key(1_000_000), b"new".to_vec());
    db.sync().unwrap();
    check(&state, "written");

    // Links between files of the lower layer are links between their copies in the upper one.
    let backup = disk.join("backup");
    let report = db.backup(&backup).unwrap();
    assert!(report.linked > 0, "{report:?}");
    assert!(pairs(&ReadOnly::open(&backup, options(mode)).unwrap()) == state);
    check(&state, "backed up");
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    check(&state, "merged");
    assert!(held.iter().zip(all.values()).all(|(held, value)| *held == value.as_slice()));
    drop((held, reader));
    db.close().unwrap();
    let db = Bitcask::open(&store, options(mode)).unwrap();
    assert!(pairs(&db) == state, "{mode:?}: closed and opened");
    assert!(pairs(&Bitcask::open(&backup, options(mode)).unwrap()) == state);
    state
}

/// Without room in the upper layer, the store can be read but not written, and says so.
fn full_upper_layer(
    lower: &Path,
    upper: &Path,
    disk: &Path,
    mode: AppendMode,
    all: &Pairs,
) -> Result<(), String> {
    fs::create_dir(upper).unwrap();
    mount(&["-t", "tmpfs", "-o", "size=1m,nr_inodes=100", "tmpfs"], upper)?;
    mount_overlay(lower, upper, disk)?;
    let store = disk.join("store");
    use_up(disk, Shortage::Both);
    let db = ReadOnly::open(&store, options(mode)).unwrap();
    assert!(pairs(&db) == *all, "{mode:?}: read below a full upper layer");
    let error = Bitcask::open(&store, options(mode)).map(drop).unwrap_err();
    assert!(error.is_no_space(), "{mode:?}: {error}");
    db.refresh().unwrap();
    assert!(pairs(&db) == *all, "{mode:?}: refreshed below a full upper layer");
    drop(db);
    unmount(disk);
    unmount(upper);
    Ok(())
}
