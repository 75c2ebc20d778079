//! Closing: everything durable and sealed, and the lock let go.
//!
//! - In this order: no more work in the background, all sealed, small segments folded, indexes written, what
//!   outlives the store seen to, and the lock at last.
//! - In a process that was forked from the opener nothing of that is done, see `forked`.

use super::{Bitcask, Inner};
use crate::error::Result;

impl Bitcask {
    /// Closes the store: makes everything durable, seals the segments, and lets go of the lock.
    ///
    /// A store that is closed in order is opened without a scan of its log.
    ///
    /// Values and snapshots may be held on. If a write or a sync has failed, the next open may cut what
    /// they lie in. So each segment that was not sealed, and that anything is held of, is copied into
    /// memory then, for as long as that is held. Where there is no room for that, or the system is not
    /// Linux, the store stays [locked](crate::Error::Locked) until it is let go.
    ///
    /// In a process that was forked from the one that has opened the store, this and a drop change
    /// nothing and wait for nothing: they only see to it that the store can be opened again, here or
    /// elsewhere, once that process has closed it or has ended. What memory the child has of it stays.
    ///
    /// # Errors
    ///
    /// What kept the store from being closed in order. Nothing that was durable is lost by it;
    /// the next [`open`](Self::open) recovers the rest. [`Forked`](crate::Error::Forked) in a child.
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
        if let Ok(writer) = self.inner.writer() {
            writer.merging.close();
        }
        self.workers.clear();
        // Best effort: what a merge has copied and could not be listed is copied again.
        let _ = self.inner.publish_pending();
        let mut result = self.inner.seal_all();
        if result.is_ok()
            && let Ok(writer) = self.inner.writer()
        {
            // Nobody else merges any more.
            writer.merging.reopen();
            Inner::fold_at_close(&self.inner);
            // Not even the thread that merges, where it is the one that closes from within `on_finish`.
            writer.merging.close();
            result = writer.log.check();
        }
        // Best effort: without them the next scan has to sort again.
        while self.inner.write_index().unwrap_or(false) {}
        if !self.inner.is_sound() {
            // Sealed segments were synced before they were listed, and are never cut.
            Inner::leave_to_recovery(&self.inner);
        }
        Inner::outlive(&self.inner);
        self.inner.segments.free_retired();
        self.inner.release_lock();
        result
    }
}

impl Drop for Bitcask {
    fn drop(&mut self) {
        // `close` is there for those who want to know.
        let _ = self.shut();
    }
}

impl Inner {
    /// Seals everything, the active segment too; the last thing a store does.
    fn seal_all(&self) -> Result<()> {
        let Ok(log) = self.log() else { return Ok(()) };
        log.check()?;
        // Best effort: without hints the next open has to read the segments.
        while self.write_hint().unwrap_or(false) {}
        log.seal_all(&self.keydir)
    }

    /// Tells who follows the log that it ends here, and lets another writer have the store. Who
    /// still holds a part of it only reads.
    pub(super) fn release_lock(&self) {
        if let Ok(writer) = self.writer() {
            writer.log.close();
            *writer.lock.lock() = None;
        }
    }
}
