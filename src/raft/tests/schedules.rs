//! The log and the state machine under a scheduler, which switches tasks at every lock and every
//! call of the disk.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test --features raft --lib --target-dir target/shuttle schedules
//! ```

use std::task::{Context, Poll, Waker};

use openraft::storage::{RaftLogStorage as _, RaftLogStorageExt as _, RaftStateMachine as _};
use openraft::{RaftLogReader as _, RaftSnapshotBuilder as _, Snapshot, Vote};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, FailurePersistence, Runner, thread};

use super::suite::copy;
use super::*;
use crate::mistake::{Mistake, make};
use crate::raft::log::group::GroupLog;
use crate::raft::log::syncing::Syncing;
use crate::store::Bitcask;
use crate::sync::Mutex;

/// Number of schedules of each kind.
const EACH: usize = 300;

fn run(act: impl Fn() + Send + Sync + Clone + 'static) {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    Runner::new(RandomScheduler::new_from_seed(1, EACH), config.clone()).run(act.clone());
    Runner::new(PctScheduler::new_from_seed(2, 3, EACH), config).run(act);
}

/// Runs a future that waits for nothing but locks.
fn done<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("it waits for nothing"),
    }
}

type State = StateMachine<TestConfig, Counting>;

/// What is there after an entry, of those that `entry(1, _)` makes.
fn count_after(index: u64) -> Vec<u8> {
    (index + 1).to_be_bytes().to_vec()
}

/// A snapshot holds what it says, whatever was applied while it was made.
fn check(snapshot: &Snapshot<TestConfig>) {
    let mut other: State = try_state(&Twin::new()).unwrap();
    let received = done(other.begin_receiving_snapshot()).unwrap();
    copy(&snapshot.snapshot, &received);
    done(other.install_snapshot(&snapshot.meta, received)).unwrap();
    let (applied, _) = done(other.applied_state()).unwrap();
    assert_eq!(applied, snapshot.meta.last_log_id);
    let count = other.store().get(COUNT).unwrap().map(|it| it.to_vec());
    assert_eq!(count, applied.map(|it| count_after(it.index)));
}

#[test]
fn schedules_of_snapshots_while_entries_are_applied() {
    run(snapshots_while_entries_are_applied);
}

#[test]
fn schedules_with_a_place_that_is_noted_late_are_noticed() {
    let mistake = Mistake::RaftPlaceNotedLate;
    assert!(make(mistake, || run(snapshots_while_entries_are_applied)).is_err());
}

fn snapshots_while_entries_are_applied() {
    let twin = Twin::new();
    let state: State = try_state(&twin).unwrap();
    let applying = {
        let mut state = state.clone();
        thread::spawn(move || {
            for index in 0..6 {
                done(state.apply([entry(1, index)])).unwrap();
            }
        })
    };
    let building = {
        let mut state = state.clone();
        thread::spawn(move || {
            for _ in 0..2 {
                let mut builder = done(state.get_snapshot_builder());
                check(&done(builder.build_snapshot()).unwrap());
            }
        })
    };
    let sending = {
        let mut state = state.clone();
        thread::spawn(move || {
            for _ in 0..2 {
                if let Some(snapshot) = done(state.get_current_snapshot()).unwrap() {
                    check(&snapshot);
                }
                thread::yield_now();
            }
        })
    };
    for task in [applying, building, sending] {
        task.join().unwrap();
    }
    drop(state);
    // The current snapshot is what a loss of power leaves, and the state is not behind it.
    let mut state: State = try_state(&twin.power_image(twin.op_count(), |_| false)).unwrap();
    let snapshot = done(state.get_current_snapshot()).unwrap().unwrap();
    assert!(done(state.applied_state()).unwrap().0 >= snapshot.meta.last_log_id);
    check(&snapshot);
}

/// Whenever openraft hears that entries are durable, a loss of power at that moment keeps them, and
/// those that read meanwhile see no gap.
#[test]
fn schedules_of_groups_that_share_syncs() {
    run(groups_that_share_syncs);
}

#[test]
fn schedules_in_which_openraft_hears_too_early_are_noticed() {
    assert!(make(Mistake::RaftDoneBeforeSync, || run(groups_that_share_syncs)).is_err());
}

fn groups_that_share_syncs() {
    let twin = Twin::new();
    let open = |twin: &Arc<Twin>| {
        Arc::new(Bitcask::open_on(&env(twin), Path::new("/log"), options()).unwrap())
    };
    let db = open(&twin);
    let (syncing, serve) = Syncing::served_by_caller(&db);
    let (syncing, heard) = (Arc::new(syncing), Arc::new(Mutex::new(Vec::new())));
    let server = thread::spawn(serve);
    let tasks: Vec<_> = (0..2)
        .map(|number| {
            let (db, syncing) = (Arc::clone(&db), Arc::clone(&syncing));
            let (heard, twin) = (Arc::clone(&heard), Arc::clone(&twin));
            thread::spawn(move || {
                let group = Arc::new(GroupLog::<TestConfig>::open(&db, number).unwrap());
                let reader = {
                    let (db, group) = (Arc::clone(&db), Arc::clone(&group));
                    thread::spawn(move || {
                        let entries = group.read(&db, 0, 9, u64::MAX).unwrap();
                        let indexes: Vec<_> = entries.iter().map(|it| it.log_id.index).collect();
                        assert!(indexes.is_sorted_by(|a, b| a + 1 == *b), "{indexes:?}");
                    })
                };
                for index in 0..3 {
                    group.append(&db, [entry(1, index)]).unwrap();
                    let (heard, twin) = (Arc::clone(&heard), Arc::clone(&twin));
                    syncing.then(Box::new(move |result| {
                        result.unwrap();
                        let image = twin.power_image(twin.op_count(), |_| false);
                        heard.lock().push((number, index, image));
                    }));
                }
                group.purge(log_id(1, 0));
                group.remove_purged(&db).unwrap();
                reader.join().unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.join().unwrap();
    }
    drop(syncing);
    server.join().unwrap();
    let heard = std::mem::take(&mut *heard.lock());
    assert_eq!(heard.len(), 6);
    for (number, index, image) in heard {
        let db = open(&image);
        let group = GroupLog::<TestConfig>::open(&db, number).unwrap();
        let last = group.state().last_log_id.map(|it| it.index);
        assert!(last >= Some(index), "group {number}: {index} was durable, and {last:?} is left");
    }
}

/// Returns a snapshot of what a leader has applied.
fn snapshot_after(entries: impl Iterator<Item = Entry<TestConfig>> + Send) -> Snapshot<TestConfig> {
    let mut leader: State = try_state(&Twin::new()).unwrap();
    done(leader.apply(entries)).unwrap();
    done(done(leader.get_snapshot_builder()).build_snapshot()).unwrap()
}

fn install(state: &mut State, snapshot: &Snapshot<TestConfig>) {
    let received = done(state.begin_receiving_snapshot()).unwrap();
    copy(&snapshot.snapshot, &received);
    done(state.install_snapshot(&snapshot.meta, received)).unwrap();
}

/// Whoever has the store from before reads it to the end, and nobody sees one with the place of
/// another.
#[test]
fn schedules_of_snapshots_that_are_installed_while_others_read() {
    run(snapshots_that_are_installed_while_others_read);
}

#[test]
fn schedules_with_a_snapshot_that_has_the_place_of_before_are_noticed() {
    let mistake = Mistake::RaftPlaceOfBefore;
    assert!(make(mistake, || run(snapshots_that_are_installed_while_others_read)).is_err());
}

fn snapshots_that_are_installed_while_others_read() {
    let twin = Twin::new();
    let mut state: State = try_state(&twin).unwrap();
    done(state.apply((0..3).map(|at| entry(1, at)))).unwrap();
    let snapshot = snapshot_after((0..6).map(|at| entry(1, at)));
    let installing = {
        let mut state = state.clone();
        thread::spawn(move || {
            install(&mut state, &snapshot);
            done(state.apply([entry(1, 6)])).unwrap();
        })
    };
    let reading = {
        let state = state.clone();
        thread::spawn(move || {
            let mut last = Vec::new();
            for _ in 0..3 {
                let store = state.store();
                for _ in 0..2 {
                    let count = store.get(COUNT).unwrap().unwrap().to_vec();
                    assert!(count >= last, "{count:?} after {last:?}");
                    last = count;
                    thread::yield_now();
                }
            }
        })
    };
    let building = {
        let mut state = state.clone();
        thread::spawn(move || {
            let mut builder = done(state.get_snapshot_builder());
            check(&done(builder.build_snapshot()).unwrap());
            check(&done(state.get_current_snapshot()).unwrap().unwrap());
        })
    };
    for task in [installing, reading, building] {
        task.join().unwrap();
    }
    drop(state);
    for image in [twin.kill_image_now(), twin.power_image(twin.op_count(), |_| false)] {
        let mut state: State = try_state(&image).unwrap();
        let snapshot = done(state.get_current_snapshot()).unwrap().unwrap();
        check(&snapshot);
        let (applied, _) = done(state.applied_state()).unwrap();
        assert!(applied >= snapshot.meta.last_log_id && applied >= Some(log_id(1, 5)));
        let count = state.store().get(COUNT).unwrap().map(|it| it.to_vec());
        assert_eq!(count, applied.map(|it| count_after(it.index)));
    }
}

/// A reader of a leader of the past finds entries of that leader, or nothing.
#[test]
fn schedules_of_readers_while_a_log_is_truncated() {
    run(readers_while_a_log_is_truncated);
}

#[test]
fn schedules_with_a_truncation_that_is_not_counted_are_noticed() {
    let mistake = Mistake::RaftTruncationNotCounted;
    assert!(make(mistake, || run(readers_while_a_log_is_truncated)).is_err());
}

fn readers_while_a_log_is_truncated() {
    let mut log = try_log(&Twin::new()).unwrap();
    done(log.blocking_append((0..6).map(|at| entry(1, at)))).unwrap();
    let readers: Vec<_> = [false, true]
        .into_iter()
        .map(|is_limited| {
            let mut reader = done(log.get_log_reader());
            thread::spawn(move || {
                let entries = if is_limited {
                    done(reader.limited_get_log_entries(1, 6))
                } else {
                    done(reader.try_get_log_entries(1..6))
                };
                let found: Vec<_> = entries.unwrap().into_iter().map(|it| it.log_id).collect();
                let expected: Vec<_> = (1..6).map(|at| log_id(1, at)).collect();
                assert!(expected.starts_with(&found), "{found:?}");
            })
        })
        .collect();
    done(log.truncate(log_id(1, 3))).unwrap();
    done(log.blocking_append((3..6).map(|at| entry(2, at)))).unwrap();
    for reader in readers {
        reader.join().unwrap();
    }
}

/// openraft purges what a snapshot replaces while that is being installed. Whenever the process or
/// the power ends, the node has the entries or what they led to.
#[test]
fn schedules_of_purges_while_a_snapshot_is_installed() {
    run(purges_while_a_snapshot_is_installed);
}

#[test]
fn schedules_with_a_purge_that_comes_early_are_noticed() {
    let mistake = Mistake::RaftPurgedEarly;
    assert!(make(mistake, || run(purges_while_a_snapshot_is_installed)).is_err());
}

fn purges_while_a_snapshot_is_installed() {
    let twin = Twin::new();
    let mut state: State = try_state(&twin).unwrap();
    let mut log = try_log(&twin).unwrap().purging_after(&state);
    done(log.save_vote(&Vote::new_committed(1, 1))).unwrap();
    done(log.blocking_append((0..3).map(|at| entry(1, at)))).unwrap();
    done(state.apply([entry(1, 0)])).unwrap();
    let snapshot = snapshot_after((0..6).map(|at| entry(1, at)));
    let purging = {
        let mut log = log.clone();
        thread::spawn(move || {
            for _ in 0..3 {
                done(log.purge(log_id(1, 5))).unwrap();
                thread::yield_now();
            }
        })
    };
    let failing = {
        let twin = Arc::clone(&twin);
        thread::spawn(move || {
            [true, false, true].map(|is_kill| {
                thread::yield_now();
                if is_kill {
                    return twin.kill_image_now();
                }
                twin.power_image(twin.op_count(), |_| false)
            })
        })
    };
    install(&mut state, &snapshot);
    purging.join().unwrap();
    let images = failing.join().unwrap();
    done(log.blocking_append([entry(1, 6)])).unwrap();
    drop((log, state));
    for image in images.into_iter().chain([twin.power_image(twin.op_count(), |_| false)]) {
        let mut state: State = try_state(&image).unwrap();
        let mut log = try_log(&image).unwrap().purging_after(&state);
        let ends = done(log.get_log_state()).unwrap();
        let applied = done(state.applied_state()).unwrap().0;
        assert!(applied >= ends.last_purged_log_id && ends.last_log_id >= applied, "{ends:?}");
    }
}
