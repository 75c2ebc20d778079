//! The history that merges leave alone because of [`Options::keep_history`], or for a follower that
//! holds a lease on it (`lease`).
//!
//! - History is the end of the log, so its oldest segment describes all of it.
//! - Every plan leaves these segments out (see `merge::plan`), and a merge that is running leaves
//!   out what a lease keeps by the time it removes its inputs. Nothing else removes sealed segments
//!   of the log, except a clear.
//! - A merge makes the log durable before it removes anything. So if the removal of a segment
//!   survives a crash, the bytes counted after that segment do too.
//!
//! [`Options::keep_history`]: crate::Options::keep_history

use std::cmp::Reverse;
use std::sync::Arc;

use crate::clock::Ages;
use crate::manifest::{Manifest, Sealed};
use crate::mistake::{Mistake, made};
use crate::options::History;
use crate::segment::header::Kind;
use crate::segment::limit::history_limit;
use crate::segment::{FIRST_OFFSET, Place, Segment, SegmentId};
use crate::store::Inner;
use crate::store::merging::lease::HistoryLeases;

/// The sealed segments that are kept for their history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeptHistory {
    /// The oldest segment that is kept. All younger ones of the log are kept too.
    from: Option<SegmentId>,
}

impl KeptHistory {
    /// Returns this history and that from another segment on.
    fn or_from(self, other: Option<SegmentId>) -> Self {
        Self { from: self.from.into_iter().chain(other).min() }
    }

    /// Returns whether a sealed segment is kept. Unsealed segments do not count.
    pub(crate) fn holds(self, segment: &Segment) -> bool {
        segment.summary().is_some() && self.includes(segment.kind(), segment.id())
    }

    pub(crate) fn lists(self, sealed: &Sealed) -> bool {
        self.includes(sealed.kind, sealed.id)
    }

    fn includes(self, kind: Kind, id: SegmentId) -> bool {
        kind == Kind::Log && self.from.is_some_and(|from| id >= from)
    }
}

/// A segment of the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogPart {
    pub(super) id: SegmentId,
    /// Bytes of entries.
    pub(super) size: u64,
    /// Offset behind the last put or delete.
    pub(super) end: u64,
    /// If the segment is sealed: its last timestamp, and when this process sealed it, if it did.
    pub(super) sealed: Option<(u64, Option<u64>)>,
}

impl LogPart {
    /// Returns what is known of a segment. The end of a sealed one is exact only if that is asked
    /// for, since it has to be read.
    fn of(segment: &Arc<Segment>, is_exact: bool) -> Self {
        let sealed = segment.summary().map(|it| (it.last_timestamp, segment.sealed_at()));
        // A segment without a put or a delete is removed when it is sealed, along with its notes.
        let last_end =
            if sealed.is_none() || is_exact { Some(segment.last_end().offset) } else { None };
        let end = last_end.unwrap_or_else(|| segment.size());
        let size_end = if sealed.is_some() { segment.size() } else { end };
        Self { id: segment.id(), size: size_end.saturating_sub(FIRST_OFFSET), end, sealed }
    }
}

impl Inner {
    /// Returns the history that no merge may remove now.
    pub(crate) fn kept_history(&self) -> KeptHistory {
        let Ok(writer) = self.writer() else { return KeptHistory::default() };
        if made(Mistake::HistoryMerged) {
            return KeptHistory::default();
        }
        self.history_by_options().or_from(self.leased_history(&writer.merging.leases))
    }

    /// Returns the oldest segment that a lease keeps.
    pub(super) fn leased_history(&self, leases: &HistoryLeases) -> Option<SegmentId> {
        let leases = leases.all();
        if leases.is_empty() {
            return None;
        }
        let is_read = |id| leases.iter().any(|lease| lease.segment() == id);
        let (log, limit) = (self.log_parts(is_read), history_limit());
        let unsealed = log.iter().filter(|part| part.sealed.is_none()).count();
        let len_max = usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(unsealed);
        let oldest = leases.iter().filter_map(|lease| lease.oldest(&log, len_max)).min()?;
        let has_room = self.check_space(self.options.segment_size).is_ok();
        has_room.then_some(oldest)
    }

    /// Returns the history that a writer with these options would keep.
    pub(crate) fn history_by_options(&self) -> KeptHistory {
        let keep = self.options.keep_history;
        if keep == History::None {
            return KeptHistory::default();
        }
        let log = self.log_parts(|_| false);
        KeptHistory { from: oldest_kept(keep, &log, &self.clock.ages(), history_limit()) }
    }

    /// Returns the segments of the log that have history, from the youngest to the oldest, and the
    /// exact ends of some.
    fn log_parts(&self, is_exact: impl Fn(SegmentId) -> bool) -> Vec<LogPart> {
        // Positions that are already lost need no history.
        let gone = self.manifest.get(Manifest::history);
        let has_history = |segment: &Arc<Segment>| Place::new(segment.id(), segment.size()) > gone;
        let mut log: Vec<_> = self.log_segments().filter(has_history).collect();
        log.sort_unstable_by_key(|segment| Reverse(segment.id()));
        log.iter().map(|segment| LogPart::of(segment, is_exact(segment.id()))).collect()
    }
}

/// Returns the oldest segment to keep. `log` lists the segments of the log from the youngest to the
/// oldest.
fn oldest_kept(keep: History, log: &[LogPart], ages: &Ages, limit: u64) -> Option<SegmentId> {
    let unsealed = log.iter().filter(|part| part.sealed.is_none()).count();
    let mut len = usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(unsealed);
    if let Some(duration) = keep.duration() {
        let is_young = |part: &LogPart| {
            let is_past = |(last, sealed_at)| ages.is_past(last, sealed_at, duration);
            !part.sealed.is_some_and(is_past)
        };
        // The oldest segment that is young enough decides, even if a clock that was set makes later
        // ones look older.
        len = len.min(log.iter().rposition(is_young).map_or(0, |at| at + 1));
    }
    if let Some(bytes) = keep.bytes() {
        let mut later = 0_u64;
        let is_needed = |part: &&LogPart| {
            let is_needed = later < bytes;
            later = later.saturating_add(part.size);
            is_needed
        };
        len = len.min(log.iter().take_while(is_needed).count());
    }
    let kept = log.get(..len.min(log.len())).unwrap_or_default();
    kept.last().map(|part| part.id)
}
