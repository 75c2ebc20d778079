//! The log and the state machine under a scheduler, which switches tasks at every lock and every
//! call of the disk.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test --features raft --lib --target-dir target/shuttle schedules
//! ```

use std::task::{Context, Poll, Waker};

use openraft::storage::RaftStateMachine as _;
use openraft::{RaftSnapshotBuilder as _, Snapshot};
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
