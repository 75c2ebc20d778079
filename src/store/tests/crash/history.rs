//! Crashes of a store that keeps history: a position within the setting can be resumed afterwards.
//!
//! - The run records every change with its position. After each crash and recovery, positions that
//!   were durable and are within the setting are resumed. The changes that follow must be the
//!   recorded ones, up to some change, and lead to the content that was found.

use super::super::story::long;
use super::enumerate::{MODES, ops, setting};
use super::*;
use crate::mistake::{Mistake, make};
use crate::options::History;

const BY_TIME: History = History::Last(Duration::from_secs(60));
const BY_BYTES: History = History::LastBytes(2500);

/// Maximum number of bytes that a change takes besides its key and value: the largest header, a
/// mark after it, and the end of a segment.
const NOTES_SIZE: usize = 40 + 32 + 72;

/// A change as a follower received it, and the clock's time then.
#[derive(Debug)]
pub(super) struct Recorded {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    position: Position,
    now: u64,
}

fn next(changes: &mut Changes, now: u64) -> Option<Recorded> {
    let change = changes.try_recv().unwrap()?;
    let value = match change.operation {
        Operation::Put { value, .. } => Some(value.to_vec()),
        Operation::Delete => None,
    };
    Some(Recorded { key: change.key.to_vec(), value, position: change.position, now })
}

/// Records the changes since the last call. A clear restarts the record.
pub(super) fn record(db: &Bitcask, feed: &mut Vec<Recorded>) {
    let last = feed.last().map_or(Position::START, |recorded| recorded.position);
    let now = db.inner.clock.now();
    let Ok(mut changes) = db.changes(last) else {
        feed.clear();
        return;
    };
    while let Some(recorded) = next(&mut changes, now) {
        feed.push(recorded);
    }
}

/// Returns the number of changes before the oldest position that must still be valid.
fn oldest(keep: History, feed: &[Recorded], now: u64, end: Position) -> usize {
    if let Some(duration) = keep.duration() {
        let duration = u64::try_from(duration.as_micros()).unwrap();
        // A position is current until the next change is made.
        return feed.partition_point(|recorded| recorded.now + duration <= now);
    }
    let size = |it: &Recorded| NOTES_SIZE + it.key.len() + it.value.as_ref().map_or(0, Vec::len);
    let mut left = usize::try_from(keep.bytes().unwrap()).unwrap();
    let left_after = |it: &&Recorded| {
        let fits = left.checked_sub(size(it));
        left = fits.unwrap_or_default();
        fits.is_some()
    };
    let made = feed.partition_point(|recorded| recorded.position <= end);
    made - feed[..made].iter().rev().take_while(left_after).count()
}

/// Resumes a recovered store at each position that must still be valid.
pub(super) fn check(db: &Bitcask, feed: &[Recorded], now: u64, when: &dyn Fn() -> String) {
    let end = db.position();
    let oldest = oldest(db.inner.options.get_keep_history(), feed, now, end);
    for after in oldest..=feed.len() {
        let position = after.checked_sub(1).map_or(Position::START, |last| feed[last].position);
        if position > end {
            // It was lost in the crash, or belongs to a change that was made later.
            break;
        }
        let mut changes = db
            .changes(position)
            .unwrap_or_else(|error| panic!("{}: after change {after}: {error}", when()));
        let mut told = after;
        while let Some(change) = next(&mut changes, now) {
            let recorded = feed.get(told).unwrap_or_else(|| panic!("{}: {change:?}", when()));
            assert_eq!(
                (&change.key, &change.value, change.position),
                (&recorded.key, &recorded.value, recorded.position),
                "{}: change {told}",
                when()
            );
            told += 1;
        }
        if let Some(last) = told.checked_sub(1) {
            assert_eq!(feed[last].position, end, "{}: from {after} to {told}", when());
        }
    }
}

fn run(mode: usize, keep: History, seed: u64) -> Run {
    let (_, policy, append_mode) = MODES[mode];
    let mut setting = setting(policy, append_mode);
    setting.options = setting.options.keep_history(keep);
    let mut ops = ops(&setting, 60, seed);
    // The positions from before a clear are gone.
    ops.retain(|op| !matches!(op, Op::Clear));
    Run::of(&setting, &ops)
}

fn enumerate(mode: usize, keep: History) {
    let (rounds, effort) = if long() { (6, Effort::LONG) } else { (2, Effort::GLANCE) };
    let mut all = Tally::default();
    for seed in 0..rounds {
        all.add(&Judge::all(&run(mode, keep, 100 + seed), effort, 16));
    }
    println!("{}: {all}", MODES[mode].0);
    assert!(all.states > 300, "{all}");
}

#[test]
fn positions_within_the_setting_survive_crashes_without_syncs() {
    enumerate(0, BY_TIME);
}

#[test]
fn positions_within_the_setting_survive_crashes_between_syncs() {
    enumerate(2, BY_TIME);
}

#[test]
fn positions_within_the_setting_survive_crashes_when_every_write_is_synced() {
    enumerate(3, BY_TIME);
}

#[test]
fn positions_within_the_bytes_survive_crashes_without_syncs() {
    enumerate(1, BY_BYTES);
}

#[test]
fn positions_within_the_bytes_survive_crashes_when_every_write_is_synced() {
    enumerate(3, BY_BYTES);
}

#[test]
fn a_merge_that_takes_kept_history_is_detected() {
    for keep in [BY_TIME, BY_BYTES] {
        assert!(make(Mistake::HistoryMerged, || enumerate(3, keep)).is_err(), "{keep:?}");
    }
}
