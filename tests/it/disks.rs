//! Small file systems of each kind, mounted in the mount namespace of the calling process.
//!
//! - An image lies in a directory that is kept in memory, so that a sync takes no time.
//! - xfs and btrfs refuse to be small. There a file, the ballast, takes up most of the space, so
//!   that a test fills the rest as quickly as that of a small disk.
//! - What cannot be mounted is an error that says why, and the test is skipped.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::Command;

const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tmpfs,
    Ext4,
    Xfs,
    Btrfs,
    /// A btrfs that writes data in place, without checksums of its own, because of `chattr +C`.
    BtrfsInPlace,
    /// An overlay whose upper layer is an ext4.
    Overlay,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Tmpfs, Self::Ext4, Self::Xfs, Self::Btrfs, Self::BtrfsInPlace, Self::Overlay];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::BtrfsInPlace => "btrfs in place",
            Self::Overlay => "overlay",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns whether space that was allocated for a file certainly takes what is written there
    /// first, and again later.
    pub(crate) fn keeps_allocated_space(self) -> bool {
        self != Self::Btrfs
    }
}

/// How much of a disk is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Free {
    /// About two megabytes.
    Little,
    /// About four megabytes on a tmpfs, otherwise about twelve; if inodes are limited, a few
    /// hundred of them, or a few thousand on an xfs.
    More,
}

/// Mounts a disk of a kind. `below` is an empty directory for its image and its layers.
pub(crate) fn mount_small(kind: Kind, free: Free, below: &Path, at: &Path) -> Result<(), String> {
    let is_little = free == Free::Little;
    match kind {
        Kind::Tmpfs => {
            let options = if is_little { "size=2m" } else { "size=4m,nr_inodes=100" };
            mount(&["-t", "tmpfs", "-o", options, "tmpfs"], at)
        }
        Kind::Ext4 | Kind::Overlay => {
            make_image(kind, if is_little { 7 * MIB } else { 16 * MIB }, below)?;
            mount_image(kind, below, at)
        }
        Kind::Xfs | Kind::Btrfs | Kind::BtrfsInPlace => {
            make_image(kind, smallest(kind), below)?;
            mount_image(kind, below, at)?;
            load(at, if is_little { 3 * MIB } else { 12 * MIB })
        }
    }
}

/// Returns the size of a small image that `mkfs` accepts for a kind of file system.
pub(crate) fn smallest(kind: Kind) -> u64 {
    match kind {
        Kind::Tmpfs | Kind::Ext4 | Kind::Overlay => 32 * MIB,
        Kind::Xfs => 300 * MIB,
        Kind::Btrfs | Kind::BtrfsInPlace => 128 * MIB,
    }
}

/// Creates an image of a file system in a directory, which becomes a mount of its own in memory.
pub(crate) fn make_image(kind: Kind, size: u64, dir: &Path) -> Result<fs::File, String> {
    mount(&["-t", "tmpfs", "-o", "size=512m", "tmpfs"], dir)?;
    make_image_file(kind, size, &dir.join("image"))
}

/// Creates an image of a file system, in a file that must not exist.
pub(crate) fn make_image_file(kind: Kind, size: u64, path: &Path) -> Result<fs::File, String> {
    let image = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
    image.set_len(size).unwrap();
    let path = path.to_str().unwrap();
    match kind {
        Kind::Tmpfs => return Err("a tmpfs has no image".to_owned()),
        // With a small journal, few inodes, and nothing kept for root.
        Kind::Ext4 | Kind::Overlay => run(
            "mkfs.ext4",
            &["-q", "-F", "-b", "4096", "-N", "256", "-J", "size=4", "-m", "0", path],
        ),
        // Inodes take at most a hundredth of the space, so that they can run out.
        Kind::Xfs => run("mkfs.xfs", &["-q", "-f", "-i", "maxpct=1", path]),
        Kind::Btrfs | Kind::BtrfsInPlace => run("mkfs.btrfs", &["-q", "-f", path]),
    }?;
    Ok(image)
}

/// Mounts the image in a directory. An overlay gets its layers next to the image.
pub(crate) fn mount_image(kind: Kind, dir: &Path, at: &Path) -> Result<(), String> {
    let image = dir.join("image");
    let image = image.to_str().unwrap();
    match kind {
        // A second mount of a copied image has the identity of the first, which xfs refuses.
        Kind::Xfs => mount(&["-o", "loop,nouuid", image], at),
        Kind::BtrfsInPlace => {
            mount(&["-o", "loop", image], at)?;
            // What is created in the directory inherits it.
            run("chattr", &["+C", at.to_str().unwrap()]).map(drop)
        }
        Kind::Overlay => {
            let layer = dir.join("ext4");
            fs::create_dir_all(&layer).unwrap();
            mount(&["-o", "loop", image], &layer)?;
            mount_overlay(&dir.join("lower"), &layer, at)
        }
        Kind::Tmpfs | Kind::Ext4 | Kind::Btrfs => mount(&["-o", "loop", image], at),
    }
}

/// Unmounts what `mount_image` has mounted.
pub(crate) fn unmount_image(kind: Kind, dir: &Path, at: &Path) {
    unmount(at);
    if kind == Kind::Overlay {
        unmount(&dir.join("ext4"));
    }
    if matches!(kind, Kind::Btrfs | Kind::BtrfsInPlace) {
        // The kernel keeps the identity of a disk that it has seen, and another image with the same
        // one would count as its second path.
        let _ = run("btrfs", &["device", "scan", "--forget"]);
    }
}

/// Mounts an overlay of a lower directory and of a directory `upper` on another disk.
pub(crate) fn mount_overlay(lower: &Path, disk: &Path, at: &Path) -> Result<(), String> {
    let (upper, work) = (disk.join("upper"), disk.join("work"));
    for dir in [lower, &upper, &work] {
        fs::create_dir_all(dir).unwrap();
    }
    let [lower, upper, work] = [lower, &upper, &work].map(|dir| dir.to_str().unwrap());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    mount(&["-t", "overlay", "-o", &options, "overlay"], at)
}

/// Takes up space with one file, until about `free` bytes are left.
fn load(disk: &Path, free: u64) -> Result<(), String> {
    for number in 0..20 {
        let Some(size) = available(disk).checked_sub(free).filter(|size| *size >= 256 * KIB) else {
            return Ok(());
        };
        // A file system that counts with its own overhead may refuse to give all at once.
        let path = disk.join(format!("ballast of the disk {number}"));
        let take = |size: u64| {
            run("fallocate", &["-l", &size.to_string(), path.to_str().unwrap()]).map(drop)
        };
        take(size).or_else(|_| take(size / 2)).or_else(|_| take(size / 8))?;
        let synced = fs::File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Returns the number of bytes that an ordinary user may still take.
fn available(disk: &Path) -> u64 {
    let told = run("stat", &["-f", "-c", "%a %S", disk.to_str().unwrap()]).unwrap();
    told.split_whitespace().map(|word| word.parse::<u64>().unwrap()).product()
}

/// Runs a system program and returns its output, or an error message.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let ran = Command::new(program).args(args).output();
    let output = ran.map_err(|error| format!("cannot run {program}: {error}"))?;
    let told = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(told(&output.stdout));
    }
    Err(format!("{program} {args:?}: {}", told(&output.stderr).trim().replace('\n', " ")))
}

pub(crate) fn mount(args: &[&str], at: &Path) -> Result<(), String> {
    run("mount", &[args, &[at.to_str().unwrap()]].concat()).map(drop)
}

pub(crate) fn unmount(at: &Path) {
    run("umount", &[at.to_str().unwrap()]).unwrap();
}
