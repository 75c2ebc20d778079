//! How a caller controls merging while the store is open: the policy, and pauses.
//!
//! - A merge is *at work* while it copies and publishes. It is not at work while its callback runs,
//!   while the rate limit holds it back, or while it waits for a pause to end.
//! - A pause first counts itself, then waits until no merge is at work. A merge first marks itself
//!   as at work, then checks for pauses. So at least one of the two sees the other.
//! - Pauses are counted with atomics, since a guard may be dropped in a forked child, which must
//!   not take locks.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::rate_limit::RateLimiter;
use crate::error::{Error, Result};
use crate::merge::{plan_all, plan_chosen, plan_now};
use crate::mistake::{Mistake, made};
use crate::options::{AutoMerge, MergeOptions, MergePolicy};
use crate::stats::MergePlan;
use crate::store::{Bitcask, Inner, Reader};
use crate::sync::unmodeled::AtomicUsize;
use crate::sync::{Mutex, Ordering, sleep};

/// Interval between two checks whether a pause has ended, or a merge is no longer at work.
const NAP: Duration = Duration::from_millis(2);

impl Bitcask {
    /// Returns the segments that the merge policy would merge now, and why. The plan is empty under
    /// [`MergePolicy::Manual`].
    ///
    /// Loads the keys first, as [`len`](crate::Reader::len) does.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// assert!(db.needs_merge().is_empty());
    /// # db.close()
    /// # }
    /// ```
    pub fn needs_merge(&self) -> MergePlan {
        let MergePolicy::Auto(auto) = self.merge_policy() else { return MergePlan::default() };
        self.inner.plan_auto(&auto, false)
    }

    /// Replaces the merge policy until the store is closed.
    ///
    /// The background thread immediately checks the segments by the new policy. An automatic merge
    /// in progress continues with the segments that it has chosen, at the new
    /// [rate](AutoMerge::bytes_per_second); under [`MergePolicy::Manual`] it stops early and keeps
    /// what it has done. An explicit merge is not affected. The next open takes the policy from its
    /// [`Options`](crate::Options) again.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](Error::InvalidOption) for an invalid setting; the old policy then stays in
    /// effect. [`Forked`](Error::Forked) in a forked child.
    ///
    /// ```
    /// # use bitcask::{Bitcask, MergePolicy, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// // Makes automatic merges slower, and leaves the rest of the policy as it is.
    /// if let MergePolicy::Auto(auto) = db.merge_policy() {
    ///     db.set_merge_policy(MergePolicy::Auto(auto.bytes_per_second(Some(8 << 20))))?;
    /// }
    /// db.set_merge_policy(MergePolicy::Manual)?;
    /// assert!(db.needs_merge().is_empty());
    /// # db.close()
    /// # }
    /// ```
    pub fn set_merge_policy(&self, policy: MergePolicy) -> Result<()> {
        let merging = &self.inner.writer()?.merging;
        policy.check()?;
        merging.policy.set(policy);
        merging.disturb();
        self.inner.merge_signal.wake();
        Ok(())
    }

    /// Returns the current merge policy. In a forked child it is [`MergePolicy::Manual`].
    pub fn merge_policy(&self) -> MergePolicy {
        self.inner.writer().map_or(MergePolicy::Manual, |writer| writer.merging.policy.get())
    }

    /// Pauses all merges until the returned guard is dropped.
    ///
    /// Use it while latency matters, or to copy the directory by other means. (A
    /// [`backup`](Self::backup) needs no pause.) Once this returns, no merge copies entries. A
    /// merge in progress waits where it is, and continues when the pause ends; a merge that is
    /// being stopped still publishes what it has copied. The background thread starts no merge, and
    /// checks again within the policy's [`check_interval`](AutoMerge::check_interval) after the
    /// pause. [`merge`](Self::merge) returns an error, since on the thread that holds the guard it
    /// would wait for itself. [`clear`](Self::clear) and [`close`](Self::close) do not wait for the
    /// pause to end: they make a waiting merge stop early and publish what it has copied.
    ///
    /// A guard, unlike a pair of methods, ensures that an early return, an error or a panic can't
    /// leave merges paused for good. Pauses of several threads may overlap: merges continue when
    /// the last one ends. The guard can be sent to another thread. It neither borrows the store nor
    /// keeps it open.
    ///
    /// This call waits for at most one step of a merge, or for a merge to publish what it has
    /// copied, including its syncs. During the pause no space is reclaimed, but segments are still
    /// sealed and synced.
    ///
    /// # Errors
    ///
    /// [`Forked`](Error::Forked) in a forked child.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Error, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// let pause = db.pause_merges()?;
    /// db.put("key", "value")?; // No merge competes for the disk.
    /// assert!(matches!(db.merge(), Err(Error::MergesPaused)));
    /// drop(pause);
    /// db.merge()?;
    /// # db.close()
    /// # }
    /// ```
    pub fn pause_merges(&self) -> Result<MergePause> {
        let pauses = &self.inner.writer()?.merging.pauses;
        Ok(MergePause::begin(pauses))
    }

    /// Returns whether a merge is in progress on any thread, including one that a pause or its rate
    /// limit holds back. Returns `false` in a forked child.
    ///
    /// ```
    /// # use bitcask::{Bitcask, MergePolicy, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::new().merge_policy(MergePolicy::Manual))?;
    /// assert!(!db.is_merging());
    /// # db.close()
    /// # }
    /// ```
    pub fn is_merging(&self) -> bool {
        self.inner.writer().is_ok_and(|writer| writer.merging.pauses.is_merging())
    }
}

impl Reader {
    /// Returns the segments that [`Bitcask::merge_opt`] would merge now with these options, and
    /// why. Merges nothing.
    ///
    /// An explicit merge takes more than [`Bitcask::needs_merge`] returns, since the policy waits
    /// until a merge is worth its cost to others. With [`force`](MergeOptions::force), `merge_opt`
    /// first seals the active segment, which is not in the plan.
    ///
    /// A store that is open read-only plans by the policy and the history of its own
    /// [`Options`](crate::Options), and by the segments as of its last refresh.
    ///
    /// Loads the keys first, as [`len`](Self::len) does.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](Error::InvalidOption) for an invalid value or an id that no sealed segment
    /// has. [`Forked`](Error::Forked) in a forked child.
    ///
    /// ```
    /// # use bitcask::{Bitcask, MergeOptions, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("key", "old")?;
    /// db.close()?;
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("key", "new")?;
    /// let plan = db.plan_merge(&MergeOptions::new())?;
    /// assert_eq!((plan.segments.len(), plan.live_size()), (1, 0));
    /// # db.close()
    /// # }
    /// ```
    pub fn plan_merge(&self, options: &MergeOptions<'_>) -> Result<MergePlan> {
        options.check()?;
        self.inner.plan_explicit(options.force, options.segments.as_ref())
    }
}

impl Inner {
    /// Plans an explicit merge: of all segments, of chosen ones, or of what is worthwhile.
    pub(super) fn plan_explicit(
        &self,
        force: bool,
        chosen: Option<&BTreeSet<u32>>,
    ) -> Result<MergePlan> {
        self.here()?;
        let (damaged, kept) = match self.writer() {
            Ok(writer) => (writer.merging.damaged(), self.kept_history()),
            // Which segments a merge could not read is known to the writer alone.
            Err(_) => (BTreeSet::new(), self.history_by_options()),
        };
        let segments = self.segment_stats_with(kept);
        match chosen {
            Some(chosen) => plan_chosen(&segments, chosen),
            None if force => Ok(plan_all(&segments)),
            None => Ok(plan_now(self.pool(&segments, &damaged), &self.auto_merge())),
        }
    }
}

/// Pauses merges until it is dropped, from [`Bitcask::pause_merges`].
#[must_use = "merges continue as soon as the pause is dropped"]
pub struct MergePause {
    pauses: Arc<Pauses>,
}

impl MergePause {
    fn begin(pauses: &Arc<Pauses>) -> Self {
        pauses.count.fetch_add(1, Ordering::Relaxed);
        let pause = Self { pauses: Arc::clone(pauses) };
        // A read-modify-write, see `Pauses`.
        while pauses.at_work.fetch_add(0, Ordering::AcqRel) > 0 {
            sleep(NAP);
        }
        pause
    }
}

impl Drop for MergePause {
    fn drop(&mut self) {
        self.pauses.count.fetch_sub(1, Ordering::Release);
    }
}

impl fmt::Debug for MergePause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergePause").finish_non_exhaustive()
    }
}

/// The number of pauses, and the state of the merge that has the turn.
///
/// Every access to `at_work` is a read-modify-write, so each one sees everything that came before
/// the previous one. If a pause checks `at_work` before a merge marks itself as at work, the merge
/// sees the pause.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    count: AtomicUsize,
    /// 1 while a merge is in progress.
    under_way: AtomicUsize,
    /// 1 while the merge is at work, or is about to check for pauses.
    at_work: AtomicUsize,
    /// 1 while the merge is at work, for schedules.
    #[cfg(all(test, shuttle))]
    pub(crate) works: AtomicUsize,
}

impl Pauses {
    pub(crate) fn is_paused(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    fn is_merging(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// Records that a merge has begun. Only the thread that has the turn calls this and the methods
    /// below.
    pub(crate) fn begin(&self) {
        self.under_way.store(1, Ordering::Relaxed);
    }

    /// Records that the merge, if any, has ended.
    pub(crate) fn end(&self) {
        self.rest();
        self.under_way.store(0, Ordering::Relaxed);
    }

    /// Records that the merge is not at work for now.
    pub(crate) fn rest(&self) {
        #[cfg(all(test, shuttle))]
        self.works.store(0, Ordering::Relaxed);
        self.at_work.swap(0, Ordering::AcqRel);
    }

    /// Waits until no pause is left or the merge has to stop, and records that the merge is at
    /// work. Returns whether it met a pause.
    pub(crate) fn work(&self, mut is_to_stop: impl FnMut() -> bool) -> bool {
        let mut was_paused = false;
        loop {
            let is_free = made(Mistake::PauseSeenEarly) && !self.is_paused();
            self.at_work.swap(1, Ordering::AcqRel);
            if is_free || !self.is_paused() {
                #[cfg(all(test, shuttle))]
                self.works.store(1, Ordering::Relaxed);
                return was_paused;
            }
            self.rest();
            was_paused = true;
            if is_to_stop() {
                // The merge has to publish what it has copied, whether it is paused or not.
                self.at_work.swap(1, Ordering::AcqRel);
                return was_paused;
            }
            sleep(NAP);
        }
    }
}

/// The merge policy, which can be replaced at any time.
#[derive(Debug, Default)]
pub(crate) struct CurrentPolicy {
    /// Lock 8.
    policy: Mutex<MergePolicy>,
}

impl CurrentPolicy {
    pub(crate) fn new(policy: MergePolicy) -> Self {
        Self { policy: Mutex::new(policy) }
    }

    pub(crate) fn get(&self) -> MergePolicy {
        self.policy.lock().clone()
    }

    /// Returns the figures of an automatic policy.
    pub(crate) fn auto(&self) -> Option<AutoMerge> {
        match self.get() {
            MergePolicy::Auto(auto) => Some(auto),
            MergePolicy::Manual => None,
        }
    }

    pub(crate) fn is_manual(&self) -> bool {
        matches!(*self.policy.lock(), MergePolicy::Manual)
    }

    /// Returns the rate limit of an automatic policy, in bytes per second.
    pub(crate) fn rate(&self) -> Option<u64> {
        match &*self.policy.lock() {
            MergePolicy::Auto(auto) => auto.bytes_per_second,
            MergePolicy::Manual => None,
        }
    }

    pub(super) fn set(&self, policy: MergePolicy) {
        let old = std::mem::replace(&mut *self.policy.lock(), policy);
        // This may be the last owner of a caller's function, which must be dropped without the
        // lock.
        drop(old);
    }
}

impl Inner {
    /// Refuses an explicit merge while merges are paused.
    pub(super) fn refuse_if_paused(&self) -> Result<()> {
        let is_paused = self.writer()?.merging.pauses.is_paused();
        if is_paused { Err(Error::MergesPaused) } else { Ok(()) }
    }

    /// Returns the rate limit of an automatic merge.
    pub(super) fn rate_by_policy(&self) -> RateLimiter {
        match self.writer() {
            Ok(writer) if !self.is_space_short() => RateLimiter::by_policy(&writer.merging.policy),
            _ => RateLimiter::constant(None),
        }
    }

    /// Returns whether an automatic merge may continue.
    pub(crate) fn may_continue_by_policy(&self) -> ControlFlow<()> {
        let is_manual = self.writer().is_ok_and(|writer| writer.merging.policy.is_manual());
        if is_manual { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
