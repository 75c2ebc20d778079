//! A store in a process that was forked from its opener.
//!
//! - The child has none of the store's threads, may find any lock held forever by a thread that it
//!   does not have, and would append to the same bytes as its parent. So it does nothing with the
//!   store: fallible operations return an error before they take any lock, and infallible ones
//!   return empty results.
//! - Dropping a part of the store in a child leaves the files, the threads, the locks and the
//!   memory alone: the child cannot know who else uses the memory.

use std::sync::Arc;

use super::{Bitcask, Changes, Inner, Role};
use crate::error::{Error, Result};

impl Inner {
    /// Returns an error in a process that was forked from the opener.
    #[inline]
    pub(super) fn here(&self) -> Result<()> {
        self.opener.check()
    }

    /// Returns the error for a child that was forked by a closure while its caller was holding
    /// `held`. The child keeps it held.
    pub(super) fn forget_held<T>(&self, held: T) -> Error {
        std::mem::forget(held);
        self.opener.refusal()
    }

    /// Returns whether this is the process that opened the store; called when a part of the store
    /// is dropped. If it is not, the store's memory is never freed.
    pub(super) fn is_kept_here(this: &Arc<Self>) -> bool {
        let is_here = this.opener.is_surely_here();
        if !is_here {
            std::mem::forget(Arc::clone(this));
        }
        is_here
    }
}

impl Bitcask {
    /// Leaves the store to the process that opened it, and returns the `Forked` error.
    ///
    /// Of everything that the child has copied, only the descriptor of `LOCK` is closed, since it
    /// would keep the store locked after the opener has ended.
    pub(super) fn abandon(&mut self) -> Error {
        std::mem::forget(std::mem::take(&mut self.workers));
        if let Role::Writer(writer) = &self.inner.role {
            self.inner.fs.release(&writer.lock_file);
        }
        self.inner.opener.refusal()
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        // In a forked child, nothing of the store is freed.
        let _ = Inner::is_kept_here(&self.inner);
    }
}
