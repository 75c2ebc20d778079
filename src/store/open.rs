//! Opening: the lock, the manifest, recovery, and the store that comes of them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use super::full::Reserve;
use super::log::Log;
use super::pins::Pins;
use super::refresh::Refreshing;
use super::turn::Merging;
use super::{Ground, Inner, Writer};
use crate::commit::Commit;
use crate::error::{Error, Result};
use crate::fs::{self, Access, File, Fs, Lock};
use crate::keydir::Keydir;
use crate::manifest::{Manifest, ManifestFile};
use crate::options::Options;
use crate::process::Opener;
use crate::recovery::{Filler, Recovered, Recovery, RecoveryReport};
use crate::segment::header::Identity;
use crate::segment::{Dir, FileKind, Segments, index, sidecar};
use crate::sync::{Condvar, Mutex};

/// The most digits that a process id has.
const PID_WIDTH: usize = 10;

/// How often a read-only open starts over when a writer changes the store meanwhile.
pub(super) const READ_ATTEMPTS: usize = 100;

impl Inner {
    pub(super) fn open_writable(
        ground: &Ground,
        dir: Dir,
        options: Options,
        owner: Opener,
    ) -> Result<Self> {
        let fs = &ground.fs;
        fs.create_dir(dir.path())?;
        if !options.create_if_missing && Manifest::read(fs, &dir).is_ok_and(|read| read.is_none()) {
            refuse_lost_manifest(fs, &dir)?;
            return Err(Error::NotFound { path: dir.path().into() });
        }
        let lock = lock(fs, &dir)?;
        // What was read before the lock was taken may have changed.
        let manifest = match Manifest::read(fs, &dir)? {
            Some(manifest) => manifest,
            None => create(fs, &dir)?,
        };
        let keydir = Keydir::new((ground.hasher)(manifest.identity.hash_seed));
        let recovery = Recovery { fs, dir: &dir, keydir: &keydir };
        let recovered = recovery.for_writing(manifest)?;
        let segments = Segments::default();
        let filler = Filler::new(&recovery, &recovered, &segments)?;
        let last_timestamp = recovered.last_timestamp();
        let writer = Writer {
            merging: Merging::default(),
            files: Mutex::default(),
            maintenance: Mutex::default(),
            log: Mutex::new(Log::new(recovered.manifest.bound, last_timestamp)),
            changed: Condvar::default(),
            indexing: Mutex::default(),
            lock_file: lock.file().clone(),
            lock: Mutex::new(Some(lock)),
        };
        let keys = (keydir, segments, filler);
        Ok(Self::new(ground, dir, (options, owner), keys, recovered, Some(writer)))
    }

    /// Opens the files of a store beside a writer: read the manifest, open everything, read the
    /// manifest again; start over if it has changed, or something is missing or does not check,
    /// which may be a writer's doing.
    pub(super) fn open_read_only(
        ground: &Ground,
        dir: Dir,
        options: Options,
        owner: Opener,
    ) -> Result<Self> {
        let fs = &ground.fs;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let manifest = read_manifest(fs, &dir)?;
            let keydir = Keydir::new((ground.hasher)(manifest.identity.hash_seed));
            let recovery = Recovery { fs, dir: &dir, keydir: &keydir };
            let segments = Segments::default();
            let opened = recovery.for_reading(manifest.clone()).and_then(|recovered| {
                let filler = Filler::new(&recovery, &recovered, &segments)?;
                // A writer may remove files at any time.
                filler.fill_at_once(&keydir)?;
                filler.forget();
                Ok((recovered, filler))
            });
            let changed = Manifest::read(fs, &dir)?.as_ref() != Some(&manifest);
            match opened {
                Ok((recovered, filler)) if !changed || attempt == READ_ATTEMPTS => {
                    let keys = (keydir, segments, filler);
                    let settings = (options, owner);
                    return Ok(Self::new(ground, dir, settings, keys, recovered, None));
                }
                // Twice the same without a writer's doing is the truth.
                Err(error) if attempt == READ_ATTEMPTS || !changed && attempt > 2 => {
                    return Err(error);
                }
                _ => {}
            }
        }
    }

    fn new(
        ground: &Ground,
        dir: Dir,
        (options, owner): (Options, Opener),
        (keydir, segments, filler): (Keydir, Segments, Filler),
        recovered: Recovered,
        writer: Option<Writer>,
    ) -> Self {
        let (identity, last_timestamp) = (recovered.manifest.identity, recovered.last_timestamp());
        Self {
            opener: owner,
            fs: ground.fs.clone(),
            clock: ground.clock.clone(),
            options,
            identity,
            keydir,
            segments,
            filler,
            manifest: ManifestFile::new(&ground.fs, &dir, recovered.manifest),
            commit: Commit::new(owner),
            pins: Pins::default(),
            reserve: Reserve::default(),
            found_end: OnceLock::new(),
            index: index::Ground::new(&ground.fs, &dir, identity),
            ordered: AtomicBool::new(writer.is_some() && has_indexes(&ground.fs, &dir)),
            report: recovered.report,
            sync_signal: Arc::default(),
            seal_signal: Arc::default(),
            prepare_signal: Arc::default(),
            merge_signal: Arc::default(),
            writer,
            refreshing: Mutex::new(Refreshing::new(last_timestamp)),
            dir,
        }
    }
}

/// Reads the manifest of a store that has to be there.
pub(super) fn read_manifest(fs: &Fs, dir: &Dir) -> Result<Manifest> {
    if let Some(manifest) = Manifest::read(fs, dir)? {
        return Ok(manifest);
    }
    refuse_lost_manifest(fs, dir)?;
    Err(Error::NotFound { path: dir.path().into() })
}

/// Tells what opening a store for writing would find and do, or why it would be refused. Changes
/// nothing, and takes no lock.
pub(crate) fn foresee(ground: &Ground, dir: &Dir) -> Result<RecoveryReport> {
    let fs = &ground.fs;
    let manifest = read_manifest(fs, dir)?;
    let keydir = Keydir::new((ground.hasher)(manifest.identity.hash_seed));
    Recovery { fs, dir, keydir: &keydir }.foresee(&manifest)
}

/// Returns whether the store has indexes: then its keys were wanted in order before.
fn has_indexes(fs: &Fs, dir: &Dir) -> bool {
    let is_index = |name: &str| matches!(FileKind::of(name), FileKind::Index(_));
    fs.list(dir.path()).is_ok_and(|names| names.iter().any(|entry| is_index(&entry.name)))
}

/// Takes the store's lock, and leaves this process's id in it for the message others get.
pub(super) fn lock(fs: &Fs, dir: &Dir) -> Result<Lock> {
    let open = || fs.open(&dir.lock(), Access::Keep);
    lock_file(&sidecar::making_room(fs, dir, open)?, dir)
}

/// Takes the store's lock if there is a file for it.
pub(super) fn lock_if_exists(fs: &Fs, dir: &Dir) -> Result<Option<Lock>> {
    match fs.open(&dir.lock(), Access::Write) {
        Err(error) if fs::is_not_found(&error) => Ok(None),
        file => lock_file(&file?, dir).map(Some),
    }
}

fn lock_file(file: &File, dir: &Dir) -> Result<Lock> {
    let Some(lock) = file.try_lock()? else {
        let mut text = [0; 16];
        let read_size = file.read_at(&mut text, 0).unwrap_or(0);
        let text = std::str::from_utf8(text.get(..read_size).unwrap_or_default());
        let pid = text.ok().and_then(|text| text.trim().parse().ok());
        return Err(Error::Locked { path: dir.path().into(), pid });
    };
    // For the message alone, so a full disk does not keep the store from being opened. Of one width, so
    // that the file need not be cut, and what is set aside behind its end stays.
    let text = format!("{:>PID_WIDTH$}\n", std::process::id());
    let _ = file.write_at(text.as_bytes(), 0);
    if file.size().is_ok_and(|size| size > text.len() as u64) {
        let _ = file.set_size(text.len() as u64);
    }
    Ok(lock)
}

/// Creates a store in a directory that has none.
fn create(fs: &Fs, dir: &Dir) -> Result<Manifest> {
    refuse_lost_manifest(fs, dir)?;
    // The directory may have been made just now, or by an earlier try that went no further.
    fs.sync_dir(fs::parent(dir.path()))?;
    let manifest = Manifest::new(new_identity());
    manifest.write(fs, dir)?;
    Ok(manifest)
}

/// Chooses what sets a new store apart from every other.
pub(crate) fn new_identity() -> Identity {
    let random = || RandomState::new().build_hasher().finish();
    Identity { store_id: random(), hash_seed: random() }
}

/// A directory with segments and no manifest is a damaged store, not a new one.
fn refuse_lost_manifest(fs: &Fs, dir: &Dir) -> Result<()> {
    let is_log = |name: &str| matches!(FileKind::of(name), FileKind::Log(_));
    if fs.list(dir.path())?.iter().any(|entry| entry.is_file && is_log(&entry.name)) {
        let reason = "the manifest is missing, and there are segments";
        return Err(Error::corrupt(&dir.manifest(), 0, reason));
    }
    Ok(())
}
