//! Opening: reads the manifest, runs recovery and builds the store. `open_attempt` has the lock,
//! and the files that opening creates.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use super::disk_waits::DiskWaits;
use super::follower::Follower;
use super::open_attempt::OpenAttempt;
use super::{Bitcask, Env, Inner, Reader, Role, Writer};
use crate::background::Background;
use crate::error::{Error, Result};
use crate::fs::{self, File, Fs, Lock};
use crate::keydir::Keydir;
use crate::log::{CurrentSyncPolicy, LogContext, LogWriter};
use crate::manifest::{Manifest, ManifestFile};
use crate::options::Options;
use crate::process::Opener;
use crate::recovery::{Cut, Filler, OpenedSegments, Recovered, Recovery, RecoveryReport};
use crate::segment::header::Identity;
use crate::segment::{Dir, FileKind, Segments, index};
use crate::store::merging::permit::MergeControl;
use crate::store::scan::indexing::Indexing;
use crate::store::snapshot::pins::Pins;
use crate::sync::Mutex;
use crate::trace::{Event, Stage, Trace};

/// Maximum number of times that a read-only open reads the manifest while a writer keeps changing
/// the store.
pub(super) const READ_ATTEMPTS: usize = 100;

impl Bitcask {
    pub(crate) fn open_on(env: &Env, path: &Path, mut options: Options) -> Result<Self> {
        options.check()?;
        // Not kept with the options, since a snapshot that outlives the store needs no threads.
        let background = options.background.take();
        background.as_ref().map_or(Ok(()), Background::check)?;
        let env = &env.with_modes(&options);
        let opener = fs::io_context("watch for forks with", path, Opener::this())?;
        let dir = Dir::new(fs::absolute(path)?);
        let trace = Trace::of(dir.path());
        let span = trace.enter(Stage::Open);
        match env.fs.is_dir(dir.path())? {
            Some(false) => return Err(Error::NotADirectory { path: dir.path().into() }),
            None if !options.create_if_missing => {
                return Err(Error::NotFound { path: dir.path().into() });
            }
            _ => {}
        }
        let mut attempt = OpenAttempt::new(env, dir)?;
        let inner = Inner::open_writable(&mut attempt, options, opener);
        let inner = Arc::new(inner.inspect_err(|_| attempt.take_back())?);
        // A reserve that cannot be created now may be created later.
        let _ = inner.log().and_then(LogWriter::keep_reserve);
        let start = || inner.start_workers(background.as_ref());
        let workers = if env.threads { start() } else { Ok(Vec::new()) };
        let workers = workers.inspect_err(|_| attempt.take_back())?;
        let segments = inner.manifest.get(|manifest| manifest.sealed.len() as u64);
        trace.report(Event::Opened { segments, read_only: false, took: span.took() });
        Ok(Self { reader: Reader { inner }, workers, open: true })
    }
}

impl Inner {
    pub(super) fn open_writable(
        attempt: &mut OpenAttempt,
        options: Options,
        owner: Opener,
    ) -> Result<Self> {
        let (env, dir) = (attempt.env.clone(), attempt.dir.clone());
        let fs = &env.fs;
        if !options.create_if_missing && Manifest::read(fs, &dir).is_ok_and(|read| read.is_none()) {
            refuse_lost_manifest(fs, &dir)?;
            return Err(Error::NotFound { path: dir.path().into() });
        }
        let lock_file = attempt.lock()?;
        // The manifest may have changed since it was read without the lock.
        let manifest = match Manifest::read(fs, &dir)? {
            Some(manifest) => manifest,
            None => attempt.create()?,
        };
        let keydir = Keydir::new((env.hasher)(manifest.identity.hash_seed));
        let recovery = Recovery { fs, dir: &dir, keydir: &keydir };
        let recovered = recover(&recovery, manifest)?;
        let segments = Segments::new(keydir.collector());
        let filler = Filler::new(&recovery, &recovered, &segments)?;
        let keys = (keydir, segments, filler);
        let locked = Some((lock_file, attempt.lock.take()));
        Ok(Self::new(&env, dir, (options, owner), keys, recovered, locked))
    }

    /// Opens the files of a store concurrently with a writer: reads the manifest, and opens
    /// everything that it lists. If something is missing or invalid, perhaps because of a writer,
    /// tries again with the current manifest; files that are already open and still listed stay
    /// open.
    ///
    /// Once everything is open, a writer can no longer take anything away, and the slow part
    /// begins.
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
                // Otherwise, these segments would be counted twice.
                held = OpenedSegments::default();
                let filler = Filler::new(&recovery, &recovered, &segments)?;
                filler.fill_in_parallel(&keydir)?;
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
                    // The same error twice, without a change by a writer, is final.
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
        let trace = Trace::of(dir.path());
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
                trace: trace.clone(),
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
            disk_waits: DiskWaits::default(),
            gaps: Mutex::default(),
            report: recovered.report,
            merge_signal: Arc::default(),
            trace,
            role,
            dir,
        }
    }
}

/// Makes a store ready for writing, and reports what that has found and done.
fn recover(recovery: &Recovery<'_>, manifest: Manifest) -> Result<Recovered> {
    let trace = Trace::of(recovery.dir.path());
    let span = trace.enter(Stage::Recovery);
    let recovered = recovery.for_writing(manifest)?;
    let report = &recovered.report;
    for Cut { path, offset, size, quarantine, reason } in &report.cuts {
        let (file, offset, size) = (path, *offset, *size);
        trace.report(Event::Cut { file, offset, size, reason, quarantine: quarantine.as_deref() });
    }
    trace.report(Event::Recovered {
        segments: report.recovered_segments,
        entries: report.recovered_entries,
        rebuilt_hints: report.rebuilt_hints,
        leftovers: report.leftovers.len() as u64,
        took: span.took(),
    });
    Ok(recovered)
}

/// Reads the manifest of a store that must exist.
pub(super) fn read_manifest(fs: &Fs, dir: &Dir) -> Result<Manifest> {
    if let Some(manifest) = Manifest::read(fs, dir)? {
        return Ok(manifest);
    }
    refuse_lost_manifest(fs, dir)?;
    Err(Error::NotFound { path: dir.path().into() })
}

/// Reports what opening a store for writing would find and do, or why it would fail. Changes
/// nothing, and takes no lock.
///
/// `held` keeps the opened segments for another attempt, in case a concurrent writer interfered.
pub(crate) fn dry_run(env: &Env, dir: &Dir, held: &mut OpenedSegments) -> Result<RecoveryReport> {
    let fs = &env.fs;
    let manifest = read_manifest(fs, dir)?;
    let keydir = Keydir::new((env.hasher)(manifest.identity.hash_seed));
    Recovery { fs, dir, keydir: &keydir }.dry_run(held, &manifest)
}

/// Returns whether the store has indexes, which means that ordered scans were used before.
fn has_indexes(fs: &Fs, dir: &Dir) -> bool {
    let is_index = |name: &str| matches!(FileKind::of(name), FileKind::Index(_));
    fs.list(dir.path()).is_ok_and(|names| names.iter().any(|entry| is_index(&entry.name)))
}

/// Chooses the random identity of a new store.
pub(crate) fn new_identity() -> Identity {
    let random = || RandomState::new().build_hasher().finish();
    Identity { store_id: random(), hash_seed: random() }
}

/// Returns an error for a directory with segments but no manifest: that is a damaged store, not a
/// new one.
pub(super) fn refuse_lost_manifest(fs: &Fs, dir: &Dir) -> Result<()> {
    let is_log = |name: &str| matches!(FileKind::of(name), FileKind::Log(_));
    if fs.list(dir.path())?.iter().any(|entry| entry.is_file && is_log(&entry.name)) {
        let reason = "the manifest is missing, but there are segments";
        return Err(Error::corrupt(&dir.manifest(), 0, reason));
    }
    Ok(())
}
