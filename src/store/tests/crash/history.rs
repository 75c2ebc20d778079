//! Crashes of a store that keeps history: a position within the setting can be resumed afterwards.
//!
//! - The run records every change with its position. After each crash and recovery, positions that
//!   were durable and current within the duration are resumed. The changes that follow must be the
//!   recorded ones, up to some change, and lead to the content that was found.

use super::super::story::long;
use super::enumerate::{MODES, ops, setting};
use super::*;
use crate::mistake::{Mistake, make};
use crate::options::History;

const DURATION: Duration = Duration::from_secs(60);

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

/// Resumes a recovered store at each position that must still be valid.
pub(super) fn check(db: &Bitcask, feed: &[Recorded], now: u64, when: &dyn Fn() -> String) {
    let duration = u64::try_from(DURATION.as_micros()).unwrap();
    // A position is current until the next change is made.
    let oldest = feed.partition_point(|recorded| recorded.now + duration <= now);
    let end = db.position();
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

fn run(mode: usize, seed: u64) -> Run {
    let (_, policy, append_mode) = MODES[mode];
    let mut setting = setting(policy, append_mode);
    setting.options = setting.options.keep_history(History::Last(DURATION));
    let mut ops = ops(&setting, 60, seed);
    // The positions from before a clear are gone.
    ops.retain(|op| !matches!(op, Op::Clear));
    Run::of(&setting, &ops)
}

fn enumerate(mode: usize) {
    let (rounds, effort) = if long() { (6, Effort::LONG) } else { (2, Effort::GLANCE) };
    let mut all = Tally::default();
    for seed in 0..rounds {
        all.add(&Judge::all(&run(mode, 100 + seed), effort, 16));
    }
    println!("{}: {all}", MODES[mode].0);
    assert!(all.states > 300, "{all}");
}

#[test]
fn positions_within_the_setting_survive_crashes_without_syncs() {
    enumerate(0);
}

#[test]
fn positions_within_the_setting_survive_crashes_between_syncs() {
    enumerate(2);
}

#[test]
fn positions_within_the_setting_survive_crashes_when_every_write_is_synced() {
    enumerate(3);
}

#[test]
fn a_merge_that_takes_kept_history_is_detected() {
    assert!(make(Mistake::HistoryMerged, || enumerate(3)).is_err());
}
