//! Closing: makes everything durable, seals it, and releases the lock.
//!
//! - In this order: stop background work, seal everything, fold small segments, write indexes,
//!   prepare whatever outlives the store, and release the lock.
//! - In a process forked from the opener, none of this happens; see `forked`.

use super::{Bitcask, Inner};
use crate::error::Result;
use crate::trace::{Event, Stage};

impl Bitcask {
    /// Closes the store: makes everything durable, seals the segments, and releases the lock.
    ///
    /// A store that was closed cleanly opens without a scan of its log.
    ///
    /// Values and snapshots may outlive the store. After a failed write or sync, the next open may
    /// cut the segments that they use. So `close` then copies each unsealed segment that is still
    /// in use into memory, until it is no longer in use. If there is no memory for that, or the
    /// system is not Linux, the store stays [locked](crate::Error::Locked) until they are dropped.
    ///
    /// In a process forked from the one that opened the store, closing or dropping it changes
    /// nothing and waits for nothing. It only ensures that the store can be opened again, here or
    /// elsewhere, once the opening process has closed it or has ended. The child does not free the
    /// store's memory.
    ///
    /// # Errors
    ///
    /// The error that prevented a clean close. No durable data is lost; the next
    /// [`open`](Self::open) recovers the rest. [`Forked`](crate::Error::Forked) in a child.
    pub fn close(mut self) -> Result<()> {
        self.shut()
    }

    pub(super) fn shut(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.open, false) {
            return Ok(());
        }
        if !Inner::is_kept_here(&self.inner) {
            return Err(self.abandon());
        }
        let trace = self.inner.trace.clone();
        let span = trace.enter(Stage::Close);
        let result = self.shut_here();
        trace.flush();
        match &result {
            Ok(()) => trace.report(Event::Closed { took: span.took() }),
            Err(error) => trace.report(Event::CloseFailed { error, took: span.took() }),
        }
        result
    }

    fn shut_here(&mut self) -> Result<()> {
        if let Ok(writer) = self.inner.writer() {
            writer.merging.close();
        }
        self.workers.clear();
        // Best effort: copies that a merge could not list are made again.
        let _ = self.inner.publish_pending();
        let mut result = self.inner.seal_all();
        if result.is_ok()
            && let Ok(writer) = self.inner.writer()
        {
            // By now no other thread merges.
            writer.merging.reopen();
            Inner::fold_at_close(&self.inner);
            // From now on no thread merges, not even the merge thread if it closes the store from
            // `on_finish`.
            writer.merging.close();
            result = writer.log.check();
        }
        // Best effort: without indexes, the next scan has to sort again.
        while self.inner.write_index().unwrap_or(false) {}
        if !self.inner.is_sound() {
            // Sealed segments were synced before they were listed, and are never cut.
            Inner::leave_to_recovery(&self.inner);
        }
        Inner::prepare_to_outlive(&self.inner);
        self.inner.segments.free_retired();
        self.inner.release_lock();
        result
    }
}

impl Drop for Bitcask {
    fn drop(&mut self) {
        // Callers who need the error use `close`.
        let _ = self.shut();
    }
}

impl Inner {
    /// Seals everything, including the active segment. This is the last thing that a store does.
    fn seal_all(&self) -> Result<()> {
        let Ok(log) = self.log() else { return Ok(()) };
        log.check()?;
        // Best effort: without hints, the next open has to read the segments.
        while self.write_hint().unwrap_or(false) {}
        log.seal_all(&self.keydir)
    }

    /// Notifies followers that the log ends here, and lets another writer open the store. Remaining
    /// holders of the store only read.
    pub(super) fn release_lock(&self) {
        if let Ok(writer) = self.writer() {
            writer.log.close();
            *writer.lock.lock() = None;
        }
    }
}
