//! How much of the change feed's history merges leave alone.

use std::time::Duration;

use super::Options;
use crate::error::{Error, Result};

/// How much history a store keeps for followers of its changes, from [`Options::keep_history`].
///
/// A follower that was away resumes at the [`Position`](crate::Position) that it has stored. That
/// works as long as the log still holds every change after that position. A merge removes segments
/// of the log, and their changes with them. This setting keeps the end of the log: no merge
/// invalidates a position that is within the setting.
///
/// ```
/// use std::time::Duration;
/// use bitcask::{History, Options};
///
/// // A follower may be away for an hour, unless that hour brings more than 10 GiB of changes.
/// let hour = Duration::from_secs(3600);
/// let history = History::LastUpTo { duration: hour, bytes: 10 << 30 };
/// let options = Options::new().keep_history(history);
/// assert_eq!(options.get_keep_history().duration(), Some(hour));
/// assert_eq!(options.get_keep_history().bytes(), Some(10 << 30));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum History {
    /// Keeps no history: merges only consider which entries are dead. A follower that is not up to
    /// date may have to resync.
    #[default]
    None,
    /// Keeps every position that was current at any time in the last `Duration`.
    Last(Duration),
    /// Keeps every position after which at most this many bytes have been appended. This counts the
    /// size of entries, as in [`Stats::appended_size`](crate::Stats::appended_size), and of the
    /// log's own notes: at most 32 bytes for each sync that no write follows within a second, and a
    /// few bytes at the end of each segment.
    LastBytes(u64),
    /// Keeps every position that both of the others would keep, so disk space is bounded whatever
    /// is written in that time.
    LastUpTo {
        /// As in [`Last`](Self::Last).
        duration: Duration,
        /// As in [`LastBytes`](Self::LastBytes).
        bytes: u64,
    },
}

impl History {
    /// Returns the bound by time, or `None` if there is none.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::Last(duration) | Self::LastUpTo { duration, .. } => Some(duration),
            Self::None | Self::LastBytes(_) => None,
        }
    }

    /// Returns the bound by bytes, or `None` if there is none.
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::LastBytes(bytes) | Self::LastUpTo { bytes, .. } => Some(bytes),
            Self::None | Self::Last(_) => None,
        }
    }

    pub(super) fn check(self) -> Result<()> {
        let is_empty =
            self.duration().is_some_and(|duration| duration.is_zero()) || self.bytes() == Some(0);
        if is_empty {
            let reason = "it must be more than zero; `History::None` keeps nothing";
            let value = format!("{self:?}");
            return Err(Error::InvalidOption { name: "keep_history", value, reason });
        }
        Ok(())
    }
}

impl Options {
    /// Sets how much of its history the store keeps for followers of its [changes], so that a
    /// follower that was away can resume. Default: [`History::None`].
    ///
    /// # What is guaranteed
    ///
    /// A follower can resume at any [position](crate::Reader::position) within the setting:
    /// [`changes`](crate::Reader::changes) from there returns every later change, and never
    /// [`HistoryGone`](Error::HistoryGone). This holds after every kind of merge: automatic, at
    /// open and close, by [`merge`](crate::Bitcask::merge), of chosen or of all segments, on a full
    /// disk. It holds after the store is closed and reopened with the same setting or a larger one,
    /// and after a crash if the position itself was durable. It holds for followers in other
    /// processes, which open the store [read-only](crate::ReadOnly), and in a
    /// [backup](crate::Bitcask::backup), which includes the history of its moment.
    ///
    /// There are three exceptions:
    ///
    /// - [`clear`](crate::Bitcask::clear) removes the history too, and its followers resync.
    /// - History that is gone stays gone: a larger setting applies only to what the log still
    ///   holds.
    /// - At most 32,768 sealed segments, an eighth of a store's limit, are kept for their history.
    ///   Each open that writes leaves a segment, however small, and kept segments are not folded.
    ///   So a store that is opened and closed once per minute keeps at most three weeks. Each
    ///   segment adds some tenths of a millisecond to the time that opening takes.
    ///
    /// # What it costs
    ///
    /// Merges leave the segments alone that hold history within the setting, and reclaim older
    /// ones. The unit is a segment, so up to one [`segment_size`](Self::segment_size) more than the
    /// setting is kept. Dead entries in these segments take disk space until the segments are past
    /// the setting and merges notice that, at their next check.
    /// [`Stats::history_size`](crate::Stats::history_size) returns the size of these entries, and
    /// [`SegmentStats::history`](crate::SegmentStats::history) shows which segments are kept.
    ///
    /// A full disk does not end history. If history is what fills the disk, open the store with a
    /// smaller setting and merge.
    ///
    /// You can change the setting each time you open the store. A [`ReadOnly`](crate::ReadOnly)
    /// store ignores it.
    ///
    /// # Which clock decides
    ///
    /// A segment that was sealed since the store was opened is kept for the duration, counted from
    /// its seal by the monotonic clock: setting the time of day neither ends history early nor
    /// extends it.
    ///
    /// For older segments, the times of their entries count, and a clock that has jumped ahead by
    /// more than a minute is not believed for a day. In any case, such a segment expires once the
    /// store has been open for the duration. Time during which the machine slept or the store was
    /// closed looks like a jump, so history may be kept until the store has been open for one more
    /// duration. If the log was written while the clock was wrong, this history may end early or
    /// late by the clock's error.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use bitcask::{Bitcask, History, MergeOptions, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let hour = Duration::from_secs(3600);
    /// let db = Bitcask::open(dir.path(), Options::new().keep_history(History::Last(hour)))?;
    /// let position = db.position();
    /// db.put("key", "old")?;
    /// db.put("key", "new")?;
    /// db.merge_opt(MergeOptions::new().force(true))?;
    /// // Both changes still exist, and so does the space that the old value takes.
    /// let mut changes = db.changes(position)?;
    /// assert!(changes.try_recv()?.is_some() && changes.try_recv()?.is_some());
    /// assert!(db.stats().history_size > 0);
    /// # db.close()
    /// # }
    /// ```
    ///
    /// [changes]: crate::Reader::changes
    pub fn keep_history(mut self, history: History) -> Self {
        self.keep_history = history;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_of_zero_is_rejected() {
        let (duration, bytes) = (Duration::from_secs(1), 1);
        let rejected = |history: History| match Options::new().keep_history(history).check() {
            Err(Error::InvalidOption { name, .. }) => name == "keep_history",
            other => panic!("{other:?}"),
        };
        assert!(rejected(History::Last(Duration::ZERO)) && rejected(History::LastBytes(0)));
        assert!(rejected(History::LastUpTo { duration: Duration::ZERO, bytes }));
        assert!(rejected(History::LastUpTo { duration, bytes: 0 }));
        for history in [History::None, History::Last(Duration::MAX), History::LastBytes(u64::MAX)] {
            Options::new().keep_history(history).check().unwrap();
            assert_eq!(Options::new().keep_history(history).get_keep_history(), history);
        }
        assert_eq!(Options::new().get_keep_history(), History::None);
    }
}
