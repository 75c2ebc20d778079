//! Access for tests of stores to the log's state. Also tests of a log without a store, where only
//! the test publishes entries.

use super::{Log, LogWriter};
use crate::segment::{Place, SegmentId};

impl Log {
    pub(crate) fn prepared(&self) -> Option<SegmentId> {
        self.prepared.as_ref().map(|prepared| prepared.segment().id())
    }

    pub(crate) fn has_rotated(&self) -> bool {
        !self.rotated.is_empty()
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty_since.is_some()
    }
}

impl LogWriter {
    /// Syncs up to a place, and calls a closure once it is decided what the sync covers.
    pub(crate) fn sync_during(&self, place: Place, act: impl Fn()) {
        let unsynced = || {
            let unsynced = self.lock().unsynced();
            act();
            unsynced
        };
        self.commit.wait(place, unsynced, || Ok(())).unwrap();
    }
}

#[cfg(not(loom))]
mod alone {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crate::clock::Clock;
    use crate::epoch::{Collector, Guard};
    use crate::error::{Error, Result};
    use crate::fs::{Access, Fs};
    use crate::key_hash::KeyHasher;
    use crate::log::{Appended, CurrentSyncPolicy, LogContext, LogWriter, Publisher};
    use crate::manifest::{Manifest, ManifestFile};
    use crate::options::{AppendMode, SyncPolicy};
    use crate::process::Opener;
    use crate::segment::header::Identity;
    use crate::segment::write::draft::Draft;
    use crate::segment::{Dir, Segments};
    use crate::testing::twin::{Fault, FaultKind, Twin};
    use crate::trace::Trace;

    /// Number of times that it was asked to wait.
    #[derive(Debug, Default)]
    struct WaitCounter(AtomicUsize);

    impl Publisher for WaitCounter {
        fn wait_for_writers(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl WaitCounter {
        fn count(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// Returns a log on its own simulated disk, and the collector of its segments.
    fn log() -> (LogWriter, Collector, Arc<Twin>) {
        let twin = Twin::new();
        let fs = Fs::Twin(Arc::clone(&twin));
        let dir = Dir::new("/store".into());
        fs.create_dir(Path::new("/store")).unwrap();
        let identity = Identity { store_id: 1, hash_seed: 2 };
        let manifest = Manifest::new(identity);
        manifest.put_in_place(&fs, &dir).unwrap();
        let next_id = manifest.bound;
        let collector = Collector::new();
        let lock_file = fs.open(&dir.lock(), Access::Keep).unwrap();
        let context = LogContext {
            manifest: Arc::new(ManifestFile::new(&fs, &dir, manifest)),
            fs,
            dir,
            clock: Clock::system(),
            identity,
            hasher: KeyHasher::new(identity.hash_seed),
            segments: Segments::new(&collector),
            segment_size: 64 << 10,
            segment_entries: 1000,
            append_mode: AppendMode::Positioned,
            sync_policy: CurrentSyncPolicy::new(SyncPolicy::Never),
            trace: Trace::of(Path::new("/store")),
        };
        let log = LogWriter::new(context, Opener::this().unwrap(), &lock_file, next_id, 0);
        (log, collector, twin)
    }

    fn append<'a>(log: &'a LogWriter, guard: &'a Guard<'_>) -> Result<Appended<'a>> {
        log.append(&mut log.lock(), &mut [Draft::put(b"key", b"value", None)], guard)
    }

    /// Reads the log at one moment. Returns whether the publisher was asked to wait for an append
    /// in flight.
    fn waits(log: &LogWriter) -> bool {
        let counter = WaitCounter::default();
        log.at_one_moment(&counter, |_| ());
        counter.count() > 0
    }

    #[test]
    fn an_append_is_in_flight_until_it_is_published() {
        let (log, collector, _) = log();
        let guard = collector.pin();
        assert!(!waits(&log));
        let (first, second) = (append(&log, &guard).unwrap(), append(&log, &guard).unwrap());
        assert!(waits(&log));
        let end = first.published().end;
        assert!(waits(&log) && end < log.lock().end());
        assert_eq!(second.published().end, log.lock().end());
        assert!(!waits(&log));
    }

    #[test]
    fn sealing_waits_for_appends_in_flight() {
        let (log, collector, _) = log();
        let guard = collector.pin();
        let appended = append(&log, &guard).unwrap();
        log.rotate_active().unwrap();
        let counter = WaitCounter::default();
        log.seal_rotated(&counter).unwrap();
        assert_eq!(counter.count(), 1);
        let _ = appended.published();
        append(&log, &guard).unwrap().published();
        log.rotate_active().unwrap();
        log.seal_rotated(&counter).unwrap();
        assert_eq!(counter.count(), 1);
        assert!(!log.lock().has_rotated());
    }

    /// A caller that returns early between the append and the publication must leave nothing in
    /// flight. Otherwise every later snapshot would wait for writers that do not exist.
    #[test]
    fn an_abandoned_append_is_no_longer_in_flight() {
        let (log, collector, _) = log();
        let guard = collector.pin();
        let returns_early = || -> Result<()> {
            let _appended = append(&log, &guard)?;
            assert!(waits(&log));
            Err(Error::ReadOnly)
        };
        returns_early().unwrap_err();
        assert!(!waits(&log));
        let panics = || {
            let _appended = append(&log, &guard).unwrap();
            assert!(waits(&log));
            panic!("between the append and the publication");
        };
        catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
        assert!(!waits(&log));
        append(&log, &guard).unwrap().published();
        assert!(!waits(&log));
    }

    #[test]
    fn a_failed_append_is_not_in_flight() {
        let (log, collector, twin) = log();
        let guard = collector.pin();
        append(&log, &guard).unwrap().published();
        twin.fail(Fault::new(FaultKind::Eio));
        assert!(append(&log, &guard).unwrap_err().is_poisoned());
        assert!(!waits(&log));
        twin.clear_fault();
        assert!(log.check().unwrap_err().is_poisoned());
        assert!(append(&log, &guard).unwrap_err().is_poisoned());
    }
}
