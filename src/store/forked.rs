//! A store in a process that was forked from the one that has opened it.
//!
//! - The child has none of the store's threads, may find any lock held for ever by a thread that it does
//!   not have, and would append to the very bytes that its parent appends to. So it does nothing with
//!   the store: whatever can fail is refused before any lock is taken, whatever can't tells of nothing.
//! - What is dropped in a child leaves the files, the threads and the locks alone, and the memory too: who
//!   else has a part of it, nobody there can say.

use std::sync::Arc;

use super::{Bitcask, Changes, Inner, Role};
use crate::error::{Error, Result};

impl Inner {
    /// Refuses in a process that was forked from the one that has opened the store.
    #[inline]
    pub(super) fn here(&self) -> Result<()> {
        self.opener.check()
    }

    /// Returns the error for a child that was forked by a closure which is called with something held.
    /// That stays held there.
    pub(super) fn lose<T>(&self, held: T) -> Error {
        std::mem::forget(held);
        self.opener.refusal()
    }

    /// Returns whether this is the process that has opened the store, for those who let go of a part of
    /// it. If not, the store's memory stays for good.
    pub(super) fn is_kept_here(this: &Arc<Self>) -> bool {
        let is_here = this.opener.is_surely_here();
        if !is_here {
            std::mem::forget(Arc::clone(this));
        }
        is_here
    }
}

impl Bitcask {
    /// Leaves the store to the process that has opened it, and returns the error that says so.
    ///
    /// Of all that the child has a copy of, only the descriptor of `LOCK` is let go of: it would keep the
    /// store locked when the opener has ended.
    pub(super) fn abandon(&mut self) -> Error {
        std::mem::forget(std::mem::take(&mut self.workers));
        if let Role::Writer(writer) = &self.inner.role {
            self.inner.fs.let_go(&writer.lock_file);
        }
        self.inner.opener.refusal()
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        // In a forked child nothing of the store is freed.
        let _ = Inner::is_kept_here(&self.inner);
    }
}
