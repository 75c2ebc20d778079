//! Opening: the manifest, recovery, and the store that comes of them. What is made on the way, and the
//! lock, is in `begun`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use super::follower::Follower;
use super::open_attempt::OpenAttempt;
use super::{Env, Inner, Role, Writer};
use crate::error::{Error, Result};
use crate::fs::{File, Fs, Lock};
use crate::keydir::Keydir;
use crate::log::{CurrentSyncPolicy, LogContext, LogWriter};
use crate::manifest::{Manifest, ManifestFile};
use crate::options::Options;
use crate::process::Opener;
use crate::recovery::{Filler, OpenedSegments, Recovered, Recovery, RecoveryReport};
use crate::segment::header::Identity;
use crate::segment::{Dir, FileKind, Segments, index};
use crate::store::merging::permit::MergeControl;
use crate::store::scan::indexing::Indexing;
use crate::store::snapshot::pins::Pins;
use crate::sync::Mutex;

/// How often a read-only open looks at the manifest when a writer changes the store meanwhile.
pub(super) const READ_ATTEMPTS: usize = 100;

impl Inner {
    pub(super) fn open_writable(
        begun: &mut OpenAttempt,
        options: Options,
        owner: Opener,
    ) -> Result<Self> {
        let (env, dir) = (begun.env.clone(), begun.dir.clone());
        let fs = &env.fs;
        if !options.create_if_missing && Manifest::read(fs, &dir).is_ok_and(|read| read.is_none()) {
            refuse_lost_manifest(fs, &dir)?;
            return Err(Error::NotFound { path: dir.path().into() });
        }
        let lock_file = begun.lock()?;
        // What was read before the lock was taken may have changed.
        let manifest = match Manifest::read(fs, &dir)? {
            Some(manifest) => manifest,
            None => begun.create()?,
        };
        let keydir = Keydir::new((env.hasher)(manifest.identity.hash_seed));
        let recovery = Recovery { fs, dir: &dir, keydir: &keydir };
        let recovered = recovery.for_writing(manifest)?;
        let segments = Segments::new(keydir.collector());
        let filler = Filler::new(&recovery, &recovered, &segments)?;
        let keys = (keydir, segments, filler);
        let locked = Some((lock_file, begun.lock.take()));
        Ok(Self::new(&env, dir, (options, owner), keys, recovered, locked))
    }

    /// Opens the files of a store beside a writer: read the manifest, and open everything that it lists.
    /// Where something is missing or does not check, which may be a writer's doing, go on with the manifest
    /// that there is by then; what was opened and is still listed stays open.
    ///
    /// When all is open nothing can be taken away any more, and what takes time begins.
    pub(super) fn open_read_only(
        env: &Env,
        dir: Dir,
        options: Options,
        owner: Opener,
    ) -> Result<Self> {
        let fs = &env.fs;
        let (mut attempt, mut held) = (0, OpenedSegments::default());
        loop {
            attempt += 1;
            let manifest = read_manifest(fs, &dir)?;
            let keydir = Keydir::new((env.hasher)(manifest.identity.hash_seed));
            let recovery = Recovery { fs, dir: &dir, keydir: &keydir };
            let segments = Segments::new(keydir.collector());
            let recovered = recovery.for_reading(&mut held, manifest.clone());
            let opened = recovered.and_then(|recovered| {
                // What is counted of them would be counted twice.
                held = OpenedSegments::default();
                let filler = Filler::new(&recovery, &recovered, &segments)?;
                filler.fill_at_once(&keydir)?;
                filler.forget();
                Ok((recovered, filler))
            });
            match opened {
                Ok((recovered, filler)) => {
                    let keys = (keydir, segments, filler);
                    let settings = (options, owner);
                    return Ok(Self::new(env, dir, settings, keys, recovered, None));
                }
                Err(error) => {
                    let changed = Manifest::read(fs, &dir)?.as_ref() != Some(&manifest);
                    // Twice the same without a writer's doing is the truth.
                    if attempt == READ_ATTEMPTS || !changed && attempt > 2 {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn new(
        env: &Env,
        dir: Dir,
        (options, owner): (Options, Opener),
        (keydir, segments, filler): (Keydir, Segments, Filler),
        recovered: Recovered,
        locked: Option<(File, Option<Lock>)>,
    ) -> Self {
        let (identity, last_timestamp) = (recovered.manifest.identity, recovered.last_timestamp());
        let clock = env.clock.fresh();
        clock.resume(last_timestamp);
        let is_ordered = locked.is_some() && has_indexes(&env.fs, &dir);
        let next_id = recovered.manifest.bound;
        let manifest = Arc::new(ManifestFile::new(&env.fs, &dir, recovered.manifest));
        let role = locked.map(|(lock_file, lock)| {
            let context = LogContext {
                fs: env.fs.clone(),
                dir: dir.clone(),
                clock: clock.clone(),
                identity,
                hasher: (env.hasher)(identity.hash_seed),
                segments: segments.clone(),
                manifest: Arc::clone(&manifest),
                segment_size: options.segment_size,
                segment_entries: options.segment_entries,
                append_mode: options.append_mode,
                sync_policy: CurrentSyncPolicy::new(options.sync_policy),
            };
            Role::Writer(Writer {
                merging: MergeControl::new(options.merge_policy.clone()),
                files: Mutex::default(),
                log: LogWriter::new(context, owner, &lock_file, next_id, last_timestamp),
                indexing: Indexing::default(),
                lock_file,
                lock: Mutex::new(lock),
            })
        });
        let role = role.unwrap_or_else(|| Role::Follower(Follower::new(last_timestamp)));
        Self {
            opener: owner,
            fs: env.fs.clone(),
            clock,
            options,
            identity,
            keydir,
            segments,
            filler,
            manifest,
            pins: Pins::default(),
            found_end: OnceLock::new(),
            index: index::IndexContext::new(&env.fs, &dir, identity),
            ordered: AtomicBool::new(is_ordered),
            gaps: Mutex::default(),
            report: recovered.report,
            merge_signal: Arc::default(),
            role,
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
///
/// What is held is kept for another look, if a writer beside us has come between.
pub(crate) fn dry_run(env: &Env, dir: &Dir, held: &mut OpenedSegments) -> Result<RecoveryReport> {
    let fs = &env.fs;
    let manifest = read_manifest(fs, dir)?;
    let keydir = Keydir::new((env.hasher)(manifest.identity.hash_seed));
    Recovery { fs, dir, keydir: &keydir }.dry_run(held, &manifest)
}

/// Returns whether the store has indexes: then its keys were wanted in order before.
fn has_indexes(fs: &Fs, dir: &Dir) -> bool {
    let is_index = |name: &str| matches!(FileKind::of(name), FileKind::Index(_));
    fs.list(dir.path()).is_ok_and(|names| names.iter().any(|entry| is_index(&entry.name)))
}

/// Chooses what sets a new store apart from every other.
pub(crate) fn new_identity() -> Identity {
    let random = || RandomState::new().build_hasher().finish();
    Identity { store_id: random(), hash_seed: random() }
}

/// A directory with segments and no manifest is a damaged store, not a new one.
pub(super) fn refuse_lost_manifest(fs: &Fs, dir: &Dir) -> Result<()> {
    let is_log = |name: &str| matches!(FileKind::of(name), FileKind::Log(_));
    if fs.list(dir.path())?.iter().any(|entry| entry.is_file && is_log(&entry.name)) {
        let reason = "the manifest is missing, and there are segments";
        return Err(Error::corrupt(&dir.manifest(), 0, reason));
    }
    Ok(())
}
