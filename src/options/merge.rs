//! When and how space is reclaimed: a store's merge policy, and the options of one merge.
//!
//! - Percentages are whole numbers.
//! - `docs/decisions/0017-merge-policy.md` explains the defaults.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::{INTERVAL_MIN, shown};
use crate::error::{Error, Result};
use crate::stats::{MergeProgress, MergeReport};

/// Determines when the store is merged.
///
/// A merge copies the live entries out of some segments and removes those segments. Reads and
/// writes continue meanwhile. The active segment is not merged, unless
/// [`MergeOptions::force`] seals it first.
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
    /// The caller merges; nothing is merged automatically.
    Manual,
    /// A background thread checks the segments' figures from time to time, and merges.
    Auto(AutoMerge),
}

impl Default for MergePolicy {
    /// Returns the automatic policy with the defaults of [`AutoMerge`].
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

/// When the store merges automatically, and which segments.
///
/// Every [`check_interval`](Self::check_interval), within the hours of the
/// [`window`](Self::window), the store checks the figures of all sealed segments. *Triggers* decide
/// whether to merge at all: [`trigger_dead_percent`](Self::trigger_dead_percent),
/// [`trigger_dead_size`](Self::trigger_dead_size), [`small_count`](Self::small_count), and, if
/// nothing was written since the last check, [`idle_dead_percent`](Self::idle_dead_percent). If a
/// trigger fires, *thresholds* decide which segments are merged:
/// [`dead_percent`](Self::dead_percent), [`dead_size`](Self::dead_size), `idle_dead_percent` again,
/// and [`small_size`](Self::small_size).
///
/// Expired entries count as dead. So do tombstones, unless a merge has found that they are still
/// needed. Segments that [`keep_history`](crate::Options::keep_history) keeps are left out, and
/// their dead bytes trigger nothing.
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
///         Ok(report) => println!("{} bytes reclaimed", report.freed_size()),
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
    /// From the first hour, inclusive, to the second, exclusive.
    pub(crate) window: Option<(u8, u8)>,
    pub(crate) check_interval: Duration,
    pub(crate) bytes_per_second: Option<u64>,
    pub(crate) ordered: Option<bool>,
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
            ordered: None,
            on_finish: None,
        }
    }
}

impl AutoMerge {
    /// Returns the defaults, which suit most programs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trigger: the dead share of any one segment, as a percentage of its entries' size. Default:
    /// 60. Must be at least [`dead_percent`](Self::dead_percent).
    pub fn trigger_dead_percent(mut self, percent: u8) -> Self {
        self.trigger_dead_percent = percent;
        self
    }

    /// Trigger: the total dead bytes of all sealed segments. Default: 512 MiB.
    pub fn trigger_dead_size(mut self, bytes: u64) -> Self {
        self.trigger_dead_size = bytes;
        self
    }

    /// Threshold: merges segments with at least this dead share, as a percentage of their entries'
    /// size. Default: 40.
    pub fn dead_percent(mut self, percent: u8) -> Self {
        self.dead_percent = percent;
        self
    }

    /// Threshold: merges segments with at least this many dead bytes, whatever share that is.
    /// Default: 128 MiB. With the other defaults, only segments larger than usual can reach this
    /// before they reach `dead_percent`.
    pub fn dead_size(mut self, bytes: u64) -> Self {
        self.dead_size = bytes;
        self
    }

    /// Trigger and threshold for an idle store: if nothing was written since the last check, merges
    /// segments with at least this dead share, as a percentage of their entries' size. Default: 15.
    /// The active segment is sealed if its dead bytes exceed this share of the segment size.
    ///
    /// While a store is being written to, its segments keep accumulating dead entries, so waiting
    /// pays off. In an idle store they do not: a merge costs as much later as it does now.
    pub fn idle_dead_percent(mut self, percent: u8) -> Self {
        self.idle_dead_percent = percent;
        self
    }

    /// Threshold: folds neighbouring segments smaller than this, in bytes, into fewer segments.
    /// Default: 10 MiB; 0 disables folding.
    ///
    /// A segment that holds a quarter of the maximum segment size, or half of
    /// [`bytes_max`](Self::bytes_max), never counts as small. So folding always reduces the number
    /// of segments.
    pub fn small_size(mut self, bytes: u64) -> Self {
        self.small_size = bytes;
        self
    }

    /// Trigger: the number of small segments that could be folded. Default: 8. Opening a store and
    /// writing to it leaves one small segment each time.
    pub fn small_count(mut self, segments: u64) -> Self {
        self.small_count = segments;
        self
    }

    /// Sets the maximum number of bytes that one run copies; the rest waits for the next check.
    /// Default: 10 GiB. A run always takes at least one segment.
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// Sets the hours, in UTC, in which runs may start: from the beginning of `from` to the
    /// beginning of `to`, across midnight if `to` is lower. Default: any hour. A run that has
    /// started continues to its end.
    pub fn window(mut self, from: u8, to: u8) -> Self {
        self.window = Some((from, to));
        self
    }

    /// Lets runs start at any hour, as by default: takes back a [`window`](Self::window).
    pub fn any_hour(mut self) -> Self {
        self.window = None;
        self
    }

    /// Sets the time between two checks, and from opening to the first check. Default: 3 minutes;
    /// minimum: a millisecond.
    pub fn check_interval(mut self, interval: Duration) -> Self {
        self.check_interval = interval;
        self
    }

    /// Sets the maximum number of bytes per second that a run reads and writes in total while the
    /// store is in use. Default: 64 MiB; `None` for no limit.
    ///
    /// The limit does not apply while the store is idle, when most of it is dead, or when the disk
    /// is nearly full: then space matters more.
    pub fn bytes_per_second(mut self, limit: Option<u64>) -> Self {
        self.bytes_per_second = limit;
        self
    }

    /// Sets a function to call after each run, on the thread that made the run. Default: none.
    ///
    /// A run at close, which folds small segments, calls it on the thread that closes or drops the
    /// store. No lock is held during the call, but the next run and
    /// [`close`](crate::Bitcask::close) wait for it.
    pub fn on_finish(
        mut self,
        call: impl Fn(&Result<MergeReport>) + Send + Sync + 'static,
    ) -> Self {
        self.on_finish = Some(OnFinish(Arc::new(call)));
        self
    }

    fn check(&self) -> Result<()> {
        let invalid =
            |name, value: String, reason| Err(Error::InvalidOption { name, value, reason });
        let percents = [
            ("trigger_dead_percent", self.trigger_dead_percent),
            ("dead_percent", self.dead_percent),
            ("idle_dead_percent", self.idle_dead_percent),
        ];
        if let Some((name, percent)) = percents.into_iter().find(|(_, percent)| *percent > 100) {
            return invalid(name, percent.to_string(), "it must be between 0 and 100 per cent");
        }
        if self.trigger_dead_percent < self.dead_percent {
            let reason = "it must be at least `dead_percent`, or a segment that triggers a merge \
                          is left out of it";
            return invalid("trigger_dead_percent", self.trigger_dead_percent.to_string(), reason);
        }
        let sizes = [
            ("trigger_dead_size", self.trigger_dead_size),
            ("dead_size", self.dead_size),
            ("bytes_max", self.bytes_max),
            ("bytes_per_second", self.bytes_per_second.unwrap_or(u64::MAX)),
        ];
        if let Some((name, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return invalid(name, "0".into(), "it must be at least one byte");
        }
        if self.small_count < 2 {
            let reason = "folding takes at least two segments; `small_size(0)` disables it";
            return invalid("small_count", self.small_count.to_string(), reason);
        }
        if let Some((from, to)) = self.window.filter(|(from, to)| *from.max(to) > 23 || from == to)
        {
            let reason = "it must be two different hours between 0 and 23";
            return invalid("window", format!("{from}, {to}"), reason);
        }
        if self.check_interval < INTERVAL_MIN {
            let reason = "it must be at least a millisecond";
            return invalid("check_interval", shown(self.check_interval), reason);
        }
        Ok(())
    }
}

/// A callback for the end of each run.
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

/// Options of one explicit merge.
///
/// By default, a merge takes the segments that are worth merging in an idle store, by the
/// thresholds of the store's [`AutoMerge`] or the default ones, at any hour and without a limit on
/// the bytes copied.
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
    pub(crate) ordered: Option<bool>,
    pub(crate) progress: Option<ProgressCallback<'a>>,
}

impl<'a> MergeOptions<'a> {
    /// Returns the defaults: merges the segments that are worth it, without a rate limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// Merges all sealed segments, however little of them is dead, except those that are kept for
    /// their [history](crate::Options::keep_history). Default: `false`.
    pub fn force(mut self, yes: bool) -> Self {
        self.force = yes;
        self
    }

    /// Merges these segments and no others, however little of them is dead. An id that no sealed
    /// segment has causes an error, and so does a segment that is kept for its
    /// [history](crate::SegmentStats::history).
    pub fn segments(mut self, ids: impl IntoIterator<Item = u32>) -> Self {
        self.segments = Some(ids.into_iter().collect());
        self
    }

    /// Sets the maximum number of bytes per second to read and write in total. Default: `None`, no
    /// limit.
    pub fn bytes_per_second(mut self, limit: Option<u64>) -> Self {
        self.bytes_per_second = limit;
        self
    }

    /// Sets a function that receives the merge's progress from time to time, and can stop the
    /// merge. It may read and write. Another merge and [`clear`](crate::Bitcask::clear) would have
    /// to wait for this one, so they return an error here.
    ///
    /// Stopping a merge leaves the store consistent and keeps what the merge has finished. Only the
    /// segment that it was reading stays, along with the entries already copied from it.
    pub fn progress(mut self, call: impl FnMut(&MergeProgress) -> ControlFlow<()> + 'a) -> Self {
        self.progress = Some(Box::new(call));
        self
    }

    /// Returns an error that names the first invalid option.
    pub(crate) fn check(&self) -> Result<()> {
        if self.bytes_per_second == Some(0) {
            let (name, reason) = ("bytes_per_second", "it must be at least one byte");
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
            .field("ordered", &self.ordered)
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
    fn an_invalid_policy_setting_is_rejected_by_name() {
        let rejected =
            |auto: AutoMerge| match Options::new().merge_policy(MergePolicy::Auto(auto)).check() {
                Err(Error::InvalidOption { name, .. }) => name,
                other => panic!("{other:?}"),
            };
        let new = AutoMerge::new;
        assert_eq!(rejected(new().trigger_dead_percent(101)), "trigger_dead_percent");
        assert_eq!(rejected(new().trigger_dead_percent(39)), "trigger_dead_percent");
        assert_eq!(rejected(new().dead_percent(101)), "dead_percent");
        assert_eq!(rejected(new().idle_dead_percent(101)), "idle_dead_percent");
        assert_eq!(rejected(new().trigger_dead_size(0)), "trigger_dead_size");
        assert_eq!(rejected(new().dead_size(0)), "dead_size");
        assert_eq!(rejected(new().bytes_max(0)), "bytes_max");
        assert_eq!(rejected(new().bytes_per_second(Some(0))), "bytes_per_second");
        assert_eq!(rejected(new().small_count(1)), "small_count");
        assert_eq!(rejected(new().window(24, 3)), "window");
        assert_eq!(rejected(new().window(3, 24)), "window");
        assert_eq!(rejected(new().window(3, 3)), "window");
        assert_eq!(rejected(new().check_interval(Duration::ZERO)), "check_interval");
        let rejected = MergeOptions::new().bytes_per_second(Some(0)).check();
        assert!(matches!(rejected, Err(Error::InvalidOption { name: "bytes_per_second", .. })));
    }

    #[test]
    fn settings_at_their_limits_are_accepted() {
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
    fn options_with_a_callback_implement_debug_and_share_it_with_their_clones() {
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
