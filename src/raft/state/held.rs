//! What the log of a group hears of the state: what the state holds, and whether it goes on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use openraft::{LogId, RaftTypeConfig};

use super::apply::{Apply, StateCore};
use crate::error::{Error, Result};
use crate::raft::log::Holder;

impl<C: RaftTypeConfig, A: Apply<C>> Holder<C> for StateCore<C, A> {
    fn holds(&self, index: u64) -> Result<bool> {
        if self.held.load(Ordering::Acquire) > index {
            return Ok(true);
        }
        let applying = self.applying.lock();
        let last = applying.now.log_id.as_ref().map(|last| last.index);
        if last < Some(index) {
            let failure = applying.failure.clone();
            return failure.map_or(Ok(false), |cause| Err(Error::Poisoned { cause }));
        }
        drop(applying);
        self.store().db().sync()?;
        self.note_held(last);
        Ok(true)
    }

    fn path(&self) -> &Path {
        self.dir.path.as_path()
    }

    fn applied(&self) -> Option<LogId<C::NodeId>> {
        self.applying.lock().now.log_id.clone()
    }
}

impl<C: RaftTypeConfig, A> StateCore<C, A> {
    /// Notes that everything up to an entry is durable here.
    pub(super) fn note_held(&self, index: Option<u64>) {
        let held = index.map_or(0, |index| index.saturating_add(1));
        self.held.fetch_max(held, Ordering::AcqRel);
    }

    /// Makes a call for openraft, which applies no more entries after an error or a panic. Notes
    /// that, since the log may be waiting for what would have been applied.
    pub(super) fn noting_failure<T>(
        &self,
        call: impl FnOnce() -> Result<T>,
    ) -> Result<T, Arc<Error>> {
        self.noting_panic(call).map_err(Arc::new).inspect_err(|error| {
            self.applying.lock().failure = Some(Arc::clone(error));
        })
    }

    /// Does so for a call that notes its errors itself.
    pub(super) fn noting_panic<T>(&self, call: impl FnOnce() -> T) -> T {
        let _end = CallEnd(self);
        call()
    }
}

/// The end of a call that openraft has made.
struct CallEnd<'a, C: RaftTypeConfig, A>(&'a StateCore<C, A>);

impl<C: RaftTypeConfig, A> Drop for CallEnd<'_, C, A> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let panicked = Error::Panicked { path: self.0.path().into() };
            self.0.applying.lock().failure = Some(Arc::new(panicked));
        }
    }
}
