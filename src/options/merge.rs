//! When and how space is given back: the policy of a store, and the options of one run.
//!
//! - Shares are whole per cents.
//! - Which figure is why: `docs/decisions/0017-merge-policy.md`.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::{INTERVAL_MIN, shown};
use crate::error::{Error, Result};
use crate::stats::{MergeProgress, MergeReport};

/// Who decides when a store is merged.
///
/// A merge copies what is live out of some segments and removes them. Reads and writes go on
/// meanwhile. The segment that is being written is never merged.
///
/// ```
/// use bitcask::{AutoMerge, MergePolicy, Options};
///
/// let nightly = AutoMerge::new().window(1, 5);
/// let options = Options::new().merge_policy(MergePolicy::Auto(nightly));
/// # let _ = options;
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum MergePolicy {
    /// The caller: nothing is merged unless it is asked for.
    Manual,
    /// A background thread, which looks at the figures of the segments from time to time.
    Auto(AutoMerge),
}

impl Default for MergePolicy {
    /// Automatic, with the defaults of [`AutoMerge`].
    fn default() -> Self {
        Self::Auto(AutoMerge::default())
    }
}

impl MergePolicy {
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Manual => Ok(()),
            Self::Auto(auto) => auto.check(),
        }
    }
}

/// When a store is merged by itself, and what is merged then.
///
/// Every [`check_interval`](Self::check_interval), within the hours of the
/// [`window`](Self::window), the figures of all sealed segments are looked at. *Triggers* decide
/// whether there is anything to do: [`trigger_dead_percent`](Self::trigger_dead_percent),
/// [`trigger_dead_size`](Self::trigger_dead_size), [`small_count`](Self::small_count), and
/// [`idle_dead_percent`](Self::idle_dead_percent) if nothing was written since the last look. If
/// so, *thresholds* decide which segments are merged: [`dead_percent`](Self::dead_percent),
/// [`dead_size`](Self::dead_size), `idle_dead_percent` again, and [`small_size`](Self::small_size).
///
/// What has expired counts as dead. Tombstones do so too, unless a merge has found them to be
/// needed.
///
/// ```
/// use std::time::Duration;
/// use bitcask::AutoMerge;
///
/// let eager = AutoMerge::new()
///     .trigger_dead_percent(30)
///     .dead_percent(20)
///     .check_interval(Duration::from_secs(10))
///     .bytes_per_second(None)
///     .on_finish(|result| match result {
///         Ok(report) => println!("{} bytes given back", report.freed_size()),
///         Err(error) => eprintln!("merge: {error}"),
///     });
/// # let _ = eager;
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct AutoMerge {
    pub(crate) trigger_dead_percent: u8,
    pub(crate) trigger_dead_size: u64,
    pub(crate) dead_percent: u8,
    pub(crate) dead_size: u64,
    pub(crate) idle_dead_percent: u8,
    pub(crate) small_size: u64,
    pub(crate) small_count: u64,
    pub(crate) bytes_max: u64,
    /// From the first hour on, to before the second one.
    pub(crate) window: Option<(u8, u8)>,
    pub(crate) check_interval: Duration,
    pub(crate) bytes_per_second: Option<u64>,
    pub(crate) on_finish: Option<OnFinish>,
}

impl Default for AutoMerge {
    fn default() -> Self {
        Self {
            trigger_dead_percent: 60,
            trigger_dead_size: 512 << 20,
            dead_percent: 40,
            dead_size: 128 << 20,
            idle_dead_percent: 15,
            small_size: 10 << 20,
            small_count: 8,
            bytes_max: 10 << 30,
            window: None,
            check_interval: Duration::from_secs(3 * 60),
            bytes_per_second: Some(64 << 20),
            on_finish: None,
        }
    }
}

impl AutoMerge {
    /// The defaults, which suit most programs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trigger: the dead part of any one segment, in per cent of its entries. Default: 60. At least
    /// [`dead_percent`](Self::dead_percent).
    pub fn trigger_dead_percent(mut self, percent: u8) -> Self {
        self.trigger_dead_percent = percent;
        self
    }

    /// Trigger: the dead bytes of all sealed segments together. Default: 512 MiB.
    pub fn trigger_dead_size(mut self, bytes: u64) -> Self {
        self.trigger_dead_size = bytes;
        self
    }

    /// Threshold: segments are merged of which this part is dead, in per cent of their entries.
    /// Default: 40.
    pub fn dead_percent(mut self, percent: u8) -> Self {
        self.dead_percent = percent;
        self
    }

    /// Threshold: segments are merged of which so many bytes are dead, whatever part that is.
    /// Default: 128 MiB, which only segments larger than the usual ones can reach before the part
    /// does.
    pub fn dead_size(mut self, bytes: u64) -> Self {
        self.dead_size = bytes;
        self
    }

    /// Trigger and threshold of a store at rest: the dead part of a segment, in per cent of its
    /// entries, that is merged if nothing was written since the last look. Default: 15. The active
    /// segment is ended if this part of what it may hold is dead in it.
    ///
    /// While a store is written to, segments go on dying, and it pays to wait. At rest they do not,
    /// and what a merge costs now it would cost later.
    pub fn idle_dead_percent(mut self, percent: u8) -> Self {
        self.idle_dead_percent = percent;
        self
    }

    /// Threshold: neighbouring segments smaller than this, in bytes, are folded into fewer.
    /// Default: 10 MiB; 0 folds none.
    ///
    /// None is small that holds a quarter of what a segment may hold, or half of
    /// [`bytes_max`](Self::bytes_max), so that folding always leaves fewer than there were.
    pub fn small_size(mut self, bytes: u64) -> Self {
        self.small_size = bytes;
        self
    }

    /// Trigger: so many small segments that could be folded. Default: 8. Every open that writes
    /// makes one.
    pub fn small_count(mut self, segments: u64) -> Self {
        self.small_count = segments;
        self
    }

    /// The most bytes that one run copies; the rest waits for the next look. Default: 10 GiB. A run
    /// takes one segment at least.
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// The hours, in UTC, in which runs may start: from the beginning of the first one to the
    /// beginning of the second one, over midnight if it is lower. Default: at any hour. A run that
    /// has started goes on to its end.
    pub fn window(mut self, from: u8, to: u8) -> Self {
        self.window = Some((from, to));
        self
    }

    /// The time between two looks, and from opening to the first one. Default: 3 minutes; a millisecond
    /// at least.
    pub fn check_interval(mut self, interval: Duration) -> Self {
        self.check_interval = interval;
        self
    }

    /// The most bytes a second that a run reads and writes, counted together, while others use the
    /// store. Default: 64 MiB; `None` for no limit.
    ///
    /// There is no limit while the store is at rest, when most of it is dead, or when the disk is
    /// nearly full: then space matters more.
    pub fn bytes_per_second(mut self, limit: Option<u64>) -> Self {
        self.bytes_per_second = limit;
        self
    }

    /// A function that is called after each run, on the thread that made it. Default: none.
    ///
    /// A run at close, of small segments, calls it on the thread that closes or drops the store. No lock is
    /// held meanwhile, but the next run and [`close`](crate::Bitcask::close) wait for it.
    pub fn on_finish(
        mut self,
        call: impl Fn(&Result<MergeReport>) + Send + Sync + 'static,
    ) -> Self {
        self.on_finish = Some(OnFinish(Arc::new(call)));
        self
    }

    fn check(&self) -> Result<()> {
        let refuse =
            |name, value: String, reason| Err(Error::InvalidOption { name, value, reason });
        let percents = [
            ("trigger_dead_percent", self.trigger_dead_percent),
            ("dead_percent", self.dead_percent),
            ("idle_dead_percent", self.idle_dead_percent),
        ];
        if let Some((name, percent)) = percents.into_iter().find(|(_, percent)| *percent > 100) {
            return refuse(name, percent.to_string(), "it has to be 0 to 100 per cent");
        }
        if self.trigger_dead_percent < self.dead_percent {
            let reason = "it has to be `dead_percent` at least, or a segment that triggers a merge \
                          is left out of it";
            return refuse("trigger_dead_percent", self.trigger_dead_percent.to_string(), reason);
        }
        let sizes = [
            ("trigger_dead_size", self.trigger_dead_size),
            ("dead_size", self.dead_size),
            ("bytes_max", self.bytes_max),
            ("bytes_per_second", self.bytes_per_second.unwrap_or(u64::MAX)),
        ];
        if let Some((name, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return refuse(name, "0".into(), "it has to be a byte at least");
        }
        if self.small_count < 2 {
            let reason = "it takes two to fold; `small_size(0)` folds none";
            return refuse("small_count", self.small_count.to_string(), reason);
        }
        if let Some((from, to)) = self.window.filter(|(from, to)| *from.max(to) > 23 || from == to)
        {
            let reason = "it has to be two different hours, 0 to 23";
            return refuse("window", format!("{from}, {to}"), reason);
        }
        if self.check_interval < INTERVAL_MIN {
            let reason = "it has to be a millisecond at least";
            return refuse("check_interval", shown(self.check_interval), reason);
        }
        Ok(())
    }
}

/// What is called after each run.
#[derive(Clone)]
pub(crate) struct OnFinish(Arc<Call>);

type Call = dyn Fn(&Result<MergeReport>) + Send + Sync;

impl OnFinish {
    pub(crate) fn call(&self, result: &Result<MergeReport>) {
        (self.0)(result);
    }
}

impl fmt::Debug for OnFinish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnFinish(..)")
    }
}

type ProgressCallback<'a> = Box<dyn FnMut(&MergeProgress) -> ControlFlow<()> + 'a>;

/// How one merge that the caller asks for is made.
///
/// By default it takes what is worth it for a store at rest, by the thresholds of the store's
/// [`AutoMerge`] or the default ones, at any hour, and with no limit of bytes.
///
/// ```
/// use std::ops::ControlFlow;
/// use std::time::{Duration, Instant};
/// use bitcask::MergeOptions;
///
/// let deadline = Instant::now() + Duration::from_secs(60);
/// let options = MergeOptions::new().force(true).progress(|progress| {
///     println!("{} of {} bytes", progress.read_size, progress.total_size);
///     if Instant::now() < deadline { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
/// });
/// # let _ = options;
/// ```
#[derive(Default)]
#[must_use]
pub struct MergeOptions<'a> {
    pub(crate) force: bool,
    pub(crate) segments: Option<BTreeSet<u32>>,
    pub(crate) bytes_per_second: Option<u64>,
    pub(crate) progress: Option<ProgressCallback<'a>>,
}

impl<'a> MergeOptions<'a> {
    /// What is worth it, as fast as can be.
    pub fn new() -> Self {
        Self::default()
    }

    /// Merges all sealed segments, whatever is dead in them. Default: `false`.
    pub fn force(mut self, yes: bool) -> Self {
        self.force = yes;
        self
    }

    /// Merges these segments, whatever is dead in them, and no others. An id that no sealed segment
    /// has is refused.
    pub fn segments(mut self, ids: impl IntoIterator<Item = u32>) -> Self {
        self.segments = Some(ids.into_iter().collect());
        self
    }

    /// The most bytes a second that are read and written, counted together. Default: `None`, no
    /// limit.
    pub fn bytes_per_second(mut self, limit: Option<u64>) -> Self {
        self.bytes_per_second = limit;
        self
    }

    /// A function that is told from time to time how far the merge has come, and can stop it. It
    /// may read and write; another merge and [`clear`](crate::Bitcask::clear) have to wait for this
    /// one, and are refused here.
    ///
    /// A merge that is stopped leaves the store in order, and what it has got through is done; only
    /// the segment that it was reading is still there beside what was copied from it.
    pub fn progress(mut self, call: impl FnMut(&MergeProgress) -> ControlFlow<()> + 'a) -> Self {
        self.progress = Some(Box::new(call));
        self
    }

    /// Refuses the first value that makes no sense, by its name.
    pub(crate) fn check(&self) -> Result<()> {
        if self.bytes_per_second == Some(0) {
            let (name, reason) = ("bytes_per_second", "it has to be a byte at least");
            return Err(Error::InvalidOption { name, value: "0".into(), reason });
        }
        Ok(())
    }
}

impl fmt::Debug for MergeOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress = self.progress.as_ref().map(|_| format_args!(".."));
        f.debug_struct("MergeOptions")
            .field("force", &self.force)
            .field("segments", &self.segments)
            .field("bytes_per_second", &self.bytes_per_second)
            .field("progress", &progress)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::options::Options;

    #[test]
    fn a_bad_figure_of_a_policy_is_refused_by_its_name() {
        let refused =
            |auto: AutoMerge| match Options::new().merge_policy(MergePolicy::Auto(auto)).check() {
                Err(Error::InvalidOption { name, .. }) => name,
                other => panic!("{other:?}"),
            };
        let new = AutoMerge::new;
        assert_eq!(refused(new().trigger_dead_percent(101)), "trigger_dead_percent");
        assert_eq!(refused(new().trigger_dead_percent(39)), "trigger_dead_percent");
        assert_eq!(refused(new().dead_percent(101)), "dead_percent");
        assert_eq!(refused(new().idle_dead_percent(101)), "idle_dead_percent");
        assert_eq!(refused(new().trigger_dead_size(0)), "trigger_dead_size");
        assert_eq!(refused(new().dead_size(0)), "dead_size");
        assert_eq!(refused(new().bytes_max(0)), "bytes_max");
        assert_eq!(refused(new().bytes_per_second(Some(0))), "bytes_per_second");
        assert_eq!(refused(new().small_count(1)), "small_count");
        assert_eq!(refused(new().window(24, 3)), "window");
        assert_eq!(refused(new().window(3, 24)), "window");
        assert_eq!(refused(new().window(3, 3)), "window");
        assert_eq!(refused(new().check_interval(Duration::ZERO)), "check_interval");
        let refused = MergeOptions::new().bytes_per_second(Some(0)).check();
        assert!(matches!(refused, Err(Error::InvalidOption { name: "bytes_per_second", .. })));
    }

    #[test]
    fn figures_at_their_limits_are_taken() {
        let low = AutoMerge::new()
            .trigger_dead_percent(0)
            .trigger_dead_size(1)
            .dead_percent(0)
            .dead_size(1)
            .idle_dead_percent(0)
            .small_size(0)
            .small_count(2)
            .bytes_max(1)
            .window(23, 0)
            .check_interval(Duration::from_nanos(1))
            .bytes_per_second(Some(1));
        let high = AutoMerge::new().trigger_dead_percent(100).dead_percent(100);
        for auto in [low, high.idle_dead_percent(100).bytes_per_second(None)] {
            MergePolicy::Auto(auto).check().unwrap();
        }
        MergePolicy::Manual.check().unwrap();
        MergeOptions::new().check().unwrap();
    }

    #[test]
    fn options_with_a_callback_can_be_shown_and_share_it_with_their_clones() {
        let calls = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&calls);
        let auto = AutoMerge::new().on_finish(move |result| {
            assert!(result.is_ok());
            counted.fetch_add(1, Ordering::Relaxed);
        });
        assert!(format!("{auto:?}").contains("OnFinish(..)"));
        auto.clone().on_finish.unwrap().call(&Ok(MergeReport::default()));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        auto.on_finish.unwrap().call(&Ok(MergeReport::default()));
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn progress_may_borrow_and_can_stop_a_merge() {
        let mut seen = 0;
        let mut options = MergeOptions::new().progress(|progress| {
            seen += progress.segments_done;
            ControlFlow::Break(())
        });
        assert!(format!("{options:?}").contains("progress: Some(..)"));
        let mut progress = options.progress.take().unwrap();
        let answer = progress(&MergeProgress { segments_done: 3, ..MergeProgress::default() });
        assert!(answer.is_break());
        drop((progress, options));
        assert_eq!(seen, 3);
    }
}
