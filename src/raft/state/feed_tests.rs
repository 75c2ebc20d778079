//! The changes of a state machine.

use std::time::UNIX_EPOCH;

use openraft::EntryPayload;

use super::feed::{EntryFeed, EntryPlace, EntryStep, FeedFailure};
use super::*;
use crate::fs::Fs;
use crate::options::MergeOptions;
use crate::raft::tests::suite::copy;
use crate::raft::tests::{
    CLEAR, Counting, Put, TestConfig, env, log_id, members, now, options, try_state,
};
use crate::store::Operation;
use crate::testing::twin::Twin;

type State = StateMachine<TestConfig, Counting>;
type Feed = EntryFeed<TestConfig, Counting>;

/// A change: the key, its value, its time in microseconds, and whether its entry goes on.
type Told = (String, Option<Vec<u8>>, u128, bool);

const COUNT: &str = "count of puts";

fn put(index: u64, key: &str) -> Entry<TestConfig> {
    let value = format!("{index} {}", "x".repeat(90)).into_bytes();
    let put = Put { key: key.into(), value, now: 100 + index, ttl: None };
    Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(put) }
}

/// Returns the entry with an index: most put a key, and some are of another kind.
fn entry_of(index: u64) -> Entry<TestConfig> {
    match index {
        0 => members(1, 0, &[1]),
        7 | 20 => members(1, index, &[1, 2]),
        9 => Entry { log_id: log_id(1, index), payload: EntryPayload::Blank },
        11 | 21 => put(index, &"k".repeat(70_000)),
        15 => put(index, CLEAR),
        _ => put(index, &format!("key {}", index % 5)),
    }
}

async fn apply(state: &mut State, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        state.apply([entry_of(index)]).await.unwrap();
    }
}

fn feed(state: &State, index: u64) -> Result<Feed, FeedFailure> {
    state.feed(EntryPlace { index, term: 1 })
}

fn oldest(failure: FeedFailure) -> u64 {
    match failure {
        FeedFailure::Gone { oldest } => oldest,
        FeedFailure::Store(error) => panic!("{error}"),
    }
}

/// Reads all that there is. Returns the changes of each entry that has any.
fn read_all(feed: &mut Feed, prefix: &str) -> Result<Vec<(u64, Vec<Told>)>, FeedFailure> {
    let (mut entries, mut entry) = (Vec::new(), Vec::new());
    loop {
        let before = feed.place().index;
        match feed.step(|key| key.starts_with(prefix.as_bytes()))? {
            EntryStep::Change(change) => {
                let value = match change.operation {
                    Operation::Put { value, .. } => Some(value.to_vec()),
                    Operation::Delete => None,
                };
                let time = change.timestamp.duration_since(UNIX_EPOCH).unwrap().as_micros();
                let key = String::from_utf8(change.key.to_vec()).unwrap();
                entry.push((key, value, time, change.batch_continues));
                if change.batch_continues {
                    assert_eq!(feed.place().index, before, "it moved within an entry");
                } else {
                    entries.push((feed.place().index, std::mem::take(&mut entry)));
                }
            }
            EntryStep::Passed => {}
            EntryStep::Nothing => {
                assert!(entry.is_empty() && !feed.is_within_entry());
                return Ok(entries);
            }
        }
    }
}

fn read_from(state: &State, index: u64) -> Vec<(u64, Vec<Told>)> {
    let mut feed = feed(state, index).unwrap();
    let read = read_all(&mut feed, "").unwrap();
    assert_eq!(feed.place(), state.applied_place());
    read
}

/// Sends a snapshot to another node, and installs it there.
async fn send(from: &mut State, to: &mut State) {
    let snapshot = from.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let received = to.begin_receiving_snapshot().await.unwrap();
    copy(&snapshot.snapshot, &received);
    to.install_snapshot(&snapshot.meta, received).await.unwrap();
}

fn merge(state: &State) {
    state.store().shared().merge_opt(MergeOptions::new().force(true)).unwrap();
}

#[test]
fn nodes_with_other_histories_tell_the_same_from_each_entry_on() {
    now(async {
        let twin = Twin::new();
        let mut state = try_state(&twin).unwrap();
        apply(&mut state, 0..=30).await;
        let all = read_from(&state, 0);
        // Entries without changes of keys: members, nothing, and what is refused.
        let silent = [0, 7, 9, 11, 20, 21];
        let expected: Vec<u64> = (0..=30).filter(|index| !silent.contains(index)).collect();
        assert_eq!(all.iter().map(|(index, _)| *index).collect::<Vec<_>>(), expected);
        for (index, changes) in &all {
            let last = changes.len() - 1;
            let is_right = |(at, told): (usize, &Told)| {
                told.2 == 1_000_000 * u128::from(100 + index)
                    && told.3 == (at < last)
                    && !told.0.starts_with('\0')
            };
            assert!(changes.iter().enumerate().all(is_right), "{index}: {changes:?}");
            if *index == 15 {
                let deleted = changes.iter().filter(|told| told.1.is_none());
                assert_eq!(
                    deleted.map(|told| &*told.0).collect::<Vec<_>>(),
                    ["key 0", "key 1", "key 2", "key 3", "key 4"]
                );
            } else {
                assert_eq!(changes.len(), 2);
            }
        }
        // Another one, whose log has other segments, and which was started in between.
        let options = options().segment_size(4096);
        let far = Twin::new();
        let open = || State::open_on(&env(&far), Path::new("/state"), options.clone(), Counting);
        let mut other = open().unwrap();
        for part in [0..=4, 5..=11, 12..=12, 13..=30] {
            apply(&mut other, part).await;
            drop(other);
            other = open().unwrap();
        }
        for from in 0..=30 {
            let rest: Vec<_> = all.iter().filter(|(index, _)| *index > from).cloned().collect();
            assert_eq!(read_from(&state, from), rest);
            assert_eq!(read_from(&other, from), rest);
        }
    });
}

#[test]
fn an_entry_ends_with_its_last_change_that_is_wanted() {
    now(async {
        let mut state = try_state(&Twin::new()).unwrap();
        apply(&mut state, 0..=14).await;
        let mut feed = feed(&state, 0).unwrap();
        for prefix in ["count", "key 1", "none"] {
            let mut feed = state.feed(EntryPlace::default()).unwrap();
            for (_, changes) in read_all(&mut feed, prefix).unwrap() {
                assert!(changes.len() == 1 && !changes[0].3, "{changes:?}");
            }
            assert_eq!(feed.place().index, 14);
        }
        // What is applied later follows.
        assert_eq!(read_all(&mut feed, COUNT).unwrap().len(), 11);
        apply(&mut state, 15..=16).await;
        let later = read_all(&mut feed, "").unwrap();
        assert_eq!(later.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [15, 16]);
    });
}

#[test]
fn what_was_merged_is_gone_and_the_rest_is_not() {
    now(async {
        let mut state = try_state(&Twin::new()).unwrap();
        apply(&mut state, 0..=40).await;
        let all = read_from(&state, 0);
        merge(&state);
        let first = oldest(feed(&state, 0).err().unwrap());
        assert!(first > 20, "{first}");
        for index in 0..first {
            assert_eq!(oldest(feed(&state, index).err().unwrap()), first);
        }
        for from in first..=40 {
            let rest: Vec<_> = all.iter().filter(|(index, _)| *index > from).cloned().collect();
            assert_eq!(read_from(&state, from), rest);
        }
        apply(&mut state, 41..=45).await;
        assert_eq!(read_from(&state, 40).len(), 5);
        assert!(feed(&state, first.saturating_sub(1)).is_err());
    });
}

#[test]
fn a_node_that_is_behind_waits() {
    now(async {
        let mut state = try_state(&Twin::new()).unwrap();
        let mut feed = feed(&state, 5).unwrap();
        assert!(feed.is_waiting() && read_all(&mut feed, "").unwrap().is_empty());
        apply(&mut state, 0..=4).await;
        assert!(read_all(&mut feed, "").unwrap().is_empty() && feed.is_waiting());
        apply(&mut state, 5..=8).await;
        let read = read_all(&mut feed, "").unwrap();
        assert_eq!(read.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [6, 8]);
        assert!(!feed.is_waiting());
    });
}

#[test]
fn an_entry_of_another_history_is_noticed() {
    now(async {
        let mut state = try_state(&Twin::new()).unwrap();
        apply(&mut state, 0..=8).await;
        let place = |index, term| EntryPlace { index, term };
        assert_eq!(oldest(state.feed(place(5, 2)).err().unwrap()), 0);
        // A node that comes there only later.
        let mut feed = state.feed(place(10, 2)).unwrap();
        apply(&mut state, 9..=12).await;
        assert_eq!(oldest(feed.step(|_| true).unwrap_err()), 0);
        // A term that is not known is that of whatever is there.
        let mut feed = state.feed(place(10, 0)).unwrap();
        assert_eq!(feed.place(), place(10, 1));
        assert_eq!(read_all(&mut feed, "").unwrap().len(), 1);
    });
}

#[test]
fn a_follower_goes_on_in_a_snapshot_or_learns_that_something_is_missing() {
    now(async {
        for is_merged in [false, true] {
            let mut leader = try_state(&Twin::new()).unwrap();
            let twin = Twin::new();
            let mut state = try_state(&twin).unwrap();
            apply(&mut leader, 0..=40).await;
            let all = read_from(&leader, 0);
            if is_merged {
                merge(&leader);
            }
            apply(&mut state, 0..=5).await;
            let (mut early, mut late) = (feed(&state, 2).unwrap(), feed(&state, 50).unwrap());
            // The one has read something before the snapshot comes, and the other has not.
            let mut reader = feed(&state, 0).unwrap();
            assert_eq!(read_all(&mut reader, "").unwrap().len(), 5);
            apply(&mut state, 6..=8).await;
            send(&mut leader, &mut state).await;
            let rest = |from| all.iter().filter(move |(index, _)| *index > from).cloned();
            if is_merged {
                // What the old store has comes first.
                for feed in [&mut early, &mut reader] {
                    assert!(oldest(read_all(feed, "").unwrap_err()) > 20);
                    assert_eq!(feed.place().index, 8);
                }
            } else {
                assert_eq!(read_all(&mut early, "").unwrap(), rest(2).collect::<Vec<_>>());
                assert_eq!(read_all(&mut reader, "").unwrap(), rest(5).collect::<Vec<_>>());
            }
            drop((early, reader));
            let names: Vec<_> = Fs::Twin(Arc::clone(&twin))
                .list(Path::new("/state"))
                .unwrap()
                .into_iter()
                .map(|entry| entry.name)
                .filter(|name| name.starts_with("state"))
                .collect();
            assert_eq!(names.len(), 1, "{names:?}");
            apply(&mut state, 41..=52).await;
            assert_eq!(read_all(&mut late, "").unwrap().len(), 2);
        }
    });
}

/// A merge has taken the rest of the old store, and a snapshot has brought it back.
#[test]
fn a_follower_whose_store_has_lost_the_rest_goes_on_in_the_one_that_has_it() {
    now(async {
        let mut leader = try_state(&Twin::new()).unwrap();
        let mut state = try_state(&Twin::new()).unwrap();
        apply(&mut leader, 0..=40).await;
        let all = read_from(&leader, 0);
        apply(&mut state, 0..=38).await;
        let mut early = feed(&state, 2).unwrap();
        merge(&state);
        assert!(oldest(feed(&state, 2).err().unwrap()) > 20);
        send(&mut leader, &mut state).await;
        let rest: Vec<_> = all.iter().filter(|(index, _)| *index > 2).cloned().collect();
        assert_eq!(read_all(&mut early, "").unwrap(), rest);
    });
}

/// The store is not synced when an entry is applied. So a follower may know more than its node does
/// after a loss of power, until the node has applied the same entries again.
#[test]
fn what_a_crash_has_taken_is_waited_for_and_told_as_before() {
    now(async {
        let mut reference = try_state(&Twin::new()).unwrap();
        apply(&mut reference, 0..=33).await;
        let all = read_from(&reference, 0);
        let rest: Vec<_> = all.iter().filter(|(index, _)| *index > 30).cloned().collect();
        let twin = Twin::new();
        let mut state = try_state(&twin).unwrap();
        let begun = twin.op_count();
        apply(&mut state, 0..=12).await;
        state.sync().unwrap();
        apply(&mut state, 13..=30).await;
        assert_eq!(read_from(&state, 0).last().unwrap().0, 30);
        let mut behind = 0;
        for ops in (begun..=twin.op_count()).step_by(3) {
            for keep in [1, 2, 3] {
                let mut number = ops;
                let image = twin.power_image(ops, |_| {
                    number += 1;
                    number % keep != 0
                });
                let mut again = try_state(&image).unwrap();
                let next = again.applied_state().await.unwrap().0.map_or(0, |it| it.index + 1);
                let mut follower = feed(&again, 30).unwrap();
                assert_eq!(follower.is_waiting(), next <= 30);
                behind += u64::from(next <= 30);
                apply(&mut again, next..=33).await;
                assert_eq!(read_all(&mut follower, "").unwrap(), rest);
                assert_eq!(read_from(&again, 0), all);
            }
        }
        assert!(behind > 20, "{behind}");
    });
}
