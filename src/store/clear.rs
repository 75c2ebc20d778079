//! Clearing: one write of the manifest removes everything; the files are removed afterwards.

use std::sync::Arc;

use super::{Bitcask, Inner};
use crate::error::Result;
use crate::store::Position;
use crate::trace::{Event, Stage};

impl Bitcask {
    /// Removes all keys, and reclaims their disk space.
    ///
    /// Afterwards, [`changes`](crate::Reader::changes) rejects positions from before the clear,
    /// even those that [`keep_history`](crate::Options::keep_history) protects from merges. In an
    /// empty store, `clear` does nothing, and positions stay valid.
    ///
    /// Atomic, and durable when this returns: after a crash, either all keys exist or the store is
    /// empty. Held values stay readable. Waits for a [`backup`](Self::backup) in progress, and for
    /// a segment that is being sealed; after that, reads and writes of other threads wait for the
    /// clear.
    ///
    /// # Errors
    ///
    /// [`NoSpace`](crate::Error::NoSpace) and [`Poisoned`](crate::Error::Poisoned) if nothing was
    /// removed. If only the old files could not be removed, `clear` returns that error, but the
    /// store is empty, and the next open removes the files.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("key", "value")?;
    /// db.clear()?;
    /// assert!(db.is_empty()?);
    /// # db.close()
    /// # }
    /// ```
    pub fn clear(&self) -> Result<()> {
        self.clear_noting(|_| ())
    }

    /// Like `clear`. `note` gets the position behind the clear, with the store locked: all that is
    /// written afterwards lies behind it. It gets none if there is nothing to clear.
    pub(crate) fn clear_noting(&self, note: impl FnOnce(Position)) -> Result<()> {
        let inner = &self.inner;
        inner.writer()?;
        let span = inner.trace.enter(Stage::Clear);
        inner.clear(note)?;
        inner.trace.report(Event::Cleared { took: span.took() });
        Ok(())
    }
}

impl Inner {
    fn clear(&self, note: impl FnOnce(Position)) -> Result<()> {
        let writer = self.writer()?;
        let mut turn = writer.merging.interrupt()?;
        // As in a merge, and before this thread holds any guard.
        self.segments.free_retired();
        let _files = writer.files.lock();
        let _maintenance = writer.log.lock_maintenance();
        let mut shards = self.all_shards();
        let mut log = writer.log.lock();
        writer.log.check()?;
        // If nothing was ever put, or everything is gone, there is nothing to clear.
        if log.holds_nothing() && self.manifest.get(|manifest| manifest.sealed.is_empty()) {
            return Ok(());
        }
        let fresh = writer.log.restart(&mut log)?;
        // A clear has no timestamp of its own. Snapshots with the timestamp of the last entry still
        // show the keys, so they must not share the gaps that scans find from now on.
        *self.gaps.lock() = Arc::default();
        self.keydir.clear(&mut shards, log.next_timestamp());
        *turn.pending = None;
        self.filler.forget();
        let mut removed = Vec::new();
        for (number, _) in self.segments.all() {
            if Some(number) != fresh {
                removed.extend(self.segments.remove(number));
            }
        }
        note(self.position_of(&log));
        drop((log, shards));
        removed.sort_by_key(|segment| segment.id());
        let each = removed.iter().map(|segment| self.unlink(segment));
        let result = each.fold(Ok(()), Result::and);
        self.free_or_leave_retired();
        result
    }
}
