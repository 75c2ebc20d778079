//! The log, beyond what openraft's suite asks for.

use openraft::storage::{RaftLogStorageExt as _, RaftStateMachine as _};
use openraft::{Entry, EntryPayload, RaftLogReader as _, RaftSnapshotBuilder as _};

use super::group::GroupLog;
use super::keys::{LogItem, key_of};
use super::*;
use crate::raft::tests::suite::copy;
use crate::raft::tests::{
    PANICKING, Put, TestConfig, entry, env, log_id, now, options, try_log, try_state,
};
use crate::testing::twin::{Call, Fault, FaultKind, Twin};

fn indexes(entries: &[Entry<TestConfig>]) -> Vec<u64> {
    entries.iter().map(|it| it.log_id.index).collect()
}

#[test]
fn groups_share_a_store_and_nothing_else() {
    now(async {
        let twin = Twin::new();
        let mut first = try_log(&twin).unwrap();
        let mut second = first.group(7).unwrap();
        first.blocking_append((0..4).map(|at| entry(1, at))).await.unwrap();
        second.blocking_append((0..2).map(|at| entry(5, at))).await.unwrap();
        second.save_vote(&Vote::new(5, 1)).await.unwrap();
        first.purge(log_id(1, 1)).await.unwrap();
        assert_eq!(first.read_vote().await.unwrap(), None);
        drop((first, second));

        let mut first = try_log(&twin).unwrap();
        let mut second = first.group(7).unwrap();
        assert_eq!(indexes(&first.try_get_log_entries(..).await.unwrap()), [2, 3]);
        assert_eq!(indexes(&second.try_get_log_entries(..).await.unwrap()), [0, 1]);
        assert_eq!(second.read_vote().await.unwrap(), Some(Vote::new(5, 1)));
        second.remove_group().unwrap();
        assert_eq!(indexes(&first.try_get_log_entries(..).await.unwrap()), [2, 3]);
        let mut second = first.group(7).unwrap();
        assert_eq!(second.get_log_state().await.unwrap().last_log_id, None);
        assert_eq!(second.read_vote().await.unwrap(), None);
    });
}

#[test]
fn entries_are_read_in_pieces() {
    now(async {
        let mut log = try_log(&Twin::new()).unwrap();
        let large = |index| {
            let put = Put { key: "k".into(), value: vec![b'x'; 1 << 20], now: 0, ttl: None };
            Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(put) }
        };
        // More than one batch.
        log.blocking_append((0..12).map(large)).await.unwrap();
        assert_eq!(log.try_get_log_entries(3..9).await.unwrap().len(), 6);
        let piece = log.limited_get_log_entries(3, 12).await.unwrap();
        assert_eq!(indexes(&piece), [3, 4, 5, 6]);
        // At least one, however large.
        assert_eq!(log.limited_get_log_entries(11, 12).await.unwrap().len(), 1);
        assert_eq!(log.try_get_log_entries(12..).await.unwrap().len(), 0);
    });
}

#[test]
fn an_entry_that_does_not_follow_is_refused() {
    now(async {
        let mut log = try_log(&Twin::new()).unwrap();
        log.blocking_append([entry(1, 0), entry(1, 1)]).await.unwrap();
        for index in [0, 1, 3] {
            assert!(log.blocking_append([entry(1, index)]).await.is_err(), "{index}");
        }
        log.blocking_append([entry(1, 2)]).await.unwrap();
        assert_eq!(indexes(&log.try_get_log_entries(..).await.unwrap()), [0, 1, 2]);
    });
}

#[test]
fn a_missing_entry_is_an_error_and_not_the_end_of_the_log() {
    let twin = Twin::new();
    now(async {
        let mut log = try_log(&twin).unwrap();
        log.blocking_append((0..5).map(|at| entry(1, at))).await.unwrap();
    });
    let db = Bitcask::open_on(&env(&twin), Path::new("/log"), options()).unwrap();
    let key = key_of(0, LogItem::Entry(2));
    assert!(db.delete(key).unwrap());
    db.close().unwrap();
    let error = try_log(&twin).unwrap_err();
    assert!(error.is_corruption() && error.to_string().contains("no entry 2"), "{error}");
}

#[test]
fn what_cannot_be_decoded_is_an_error() {
    let twin = Twin::new();
    now(async {
        let mut log = try_log(&twin).unwrap();
        log.blocking_append((0..3).map(|at| entry(1, at))).await.unwrap();
    });
    let db = Bitcask::open_on(&env(&twin), Path::new("/log"), options()).unwrap();
    let key = key_of(0, LogItem::Entry(1));
    let bytes = db.get(&key).unwrap().unwrap().to_vec();
    for len in 0..bytes.len() {
        db.put(&key, &bytes[..len]).unwrap();
        let group = GroupLog::<TestConfig>::open(&db, 0).unwrap();
        let error = group.read(&db, 0, 3, u64::MAX).unwrap_err();
        assert!(error.is_corruption() && error.to_string().contains("/log"), "{len}: {error}");
    }
}

/// Whoever reads the error of a node has not asked for a key.
#[test]
fn a_vote_that_cannot_be_decoded_is_damage_of_the_log() {
    let twin = Twin::new();
    let db = Bitcask::open_on(&env(&twin), Path::new("/log"), options()).unwrap();
    db.put(key_of(0, LogItem::Vote), b"\x01").unwrap();
    db.close().unwrap();
    let error = now(try_log(&twin).unwrap().read_vote()).unwrap_err().to_string();
    assert!(error.contains("/log is corrupt"), "{error}");
}

/// A thread syncs for several groups at once.
#[test]
fn groups_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let log = LogStore::<TestConfig>::open(dir.path(), Options::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let before = log.stats().syncs;
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let mut group = log.group(number).unwrap();
            runtime.spawn(async move {
                for at in 0..50 {
                    group.blocking_append([entry(1, at)]).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    let syncs = log.stats().syncs - before;
    assert!((50..=400).contains(&syncs), "{syncs}");
}

/// Once a sync has failed, openraft hears of it, and of nothing that comes after.
#[test]
fn a_failed_sync_is_reported() {
    now(async {
        let twin = Twin::new();
        let mut log = try_log(&twin).unwrap();
        log.blocking_append([entry(1, 0)]).await.unwrap();
        twin.fail(Fault::new(FaultKind::Eio).only(Call::Sync));
        let error = log.blocking_append([entry(1, 1)]).await.unwrap_err().to_string();
        assert!(error.contains("cannot sync"), "{error}");
        assert!(log.blocking_append([entry(1, 2)]).await.is_err());
        assert!(log.save_vote(&Vote::new(2, 2)).await.is_err());
    });
}

/// A reader of a leader of the past finds nothing: it might find entries of two leaders.
#[test]
fn a_reader_from_before_a_truncation_finds_nothing() {
    now(async {
        let mut log = try_log(&Twin::new()).unwrap();
        log.blocking_append((0..8).map(|at| entry(1, at))).await.unwrap();
        let mut before = log.get_log_reader().await;
        assert_eq!(before.try_get_log_entries(2..5).await.unwrap().len(), 3);
        log.truncate(log_id(1, 6)).await.unwrap();
        log.blocking_append([entry(2, 6), entry(2, 7)]).await.unwrap();
        assert_eq!(before.limited_get_log_entries(4, 8).await.unwrap().len(), 0);
        assert_eq!(before.try_get_log_entries(2..5).await.unwrap().len(), 0);
        let mut after = log.get_log_reader().await;
        assert_eq!(after.limited_get_log_entries(4, 8).await.unwrap().len(), 4);
    });
}

/// The log is that of a leader of the past, and the snapshot that of its successor.
#[test]
fn a_purge_by_another_log_removes_what_is_behind() {
    now(async {
        let twin = Twin::new();
        let mut log = try_log(&twin).unwrap();
        log.blocking_append((0..10).map(|at| entry(1, at))).await.unwrap();
        log.purge(log_id(2, 5)).await.unwrap();
        assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(2, 5)));
        log.blocking_append([entry(2, 6)]).await.unwrap();
        drop(log);
        let mut log = try_log(&twin).unwrap();
        assert_eq!(indexes(&log.try_get_log_entries(..).await.unwrap()), [6]);
    });
}

#[test]
fn a_removal_that_a_crash_interrupts_is_finished() {
    now(async {
        let twin = Twin::new();
        let mut log = try_log(&twin).unwrap().group(3).unwrap();
        log.save_vote(&Vote::new(1, 1)).await.unwrap();
        log.blocking_append((0..6).map(|at| entry(1, at))).await.unwrap();
        log.purge(log_id(1, 2)).await.unwrap();
        log.save_vote(&Vote::new(1, 2)).await.unwrap();
        let begun = twin.op_count();
        log.remove_group().unwrap();
        for ops in begun..=twin.op_count() {
            for image in [twin.kill_image(ops), twin.power_image(ops, |_| false)] {
                let mut log = try_log(&image).unwrap().group(3).unwrap();
                let state = log.get_log_state().await.unwrap();
                let vote = log.read_vote().await.unwrap();
                let is_whole =
                    vote == Some(Vote::new(1, 2)) && state.last_log_id == Some(log_id(1, 5));
                let is_gone = vote.is_none() && state.last_log_id.is_none();
                assert!(
                    is_whole || is_gone && state.last_purged_log_id.is_none(),
                    "{ops}: {state:?}"
                );
            }
        }
    });
}

/// Entries that never were there are not removed one by one: that would take days here.
#[test]
fn a_purge_far_behind_the_end_removes_what_is_there() {
    now(async {
        let twin = Twin::new();
        let mut log = try_log(&twin).unwrap();
        log.blocking_append((0..3).map(|at| entry(1, at))).await.unwrap();
        let far = 1 << 45;
        log.purge(log_id(2, far)).await.unwrap();
        log.blocking_append([entry(2, far + 1)]).await.unwrap();
        log.purge(log_id(2, far + 1)).await.unwrap();
        drop(log);
        let mut log = try_log(&twin).unwrap();
        assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(2, far + 1)));
        let entries = log.shared.store.prefix_keys(keys::entries_prefix(0)).count();
        assert_eq!(entries, 0);
    });
}

#[test]
fn damage_in_a_group_leaves_the_others_usable() {
    let twin = Twin::new();
    now(async {
        let mut log = try_log(&twin).unwrap();
        let mut second = log.group(1).unwrap();
        for log in [&mut log, &mut second] {
            log.blocking_append((0..5).map(|at| entry(1, at))).await.unwrap();
        }
    });
    let db = Bitcask::open_on(&env(&twin), Path::new("/log"), options()).unwrap();
    assert!(db.delete(key_of(0, LogItem::Entry(2))).unwrap());
    db.close().unwrap();
    assert!(try_log(&twin).unwrap_err().is_corruption());
    let open = || LogStore::<TestConfig>::open_on(&env(&twin), Path::new("/log"), options(), 1);
    now(async {
        let mut second = open().unwrap();
        assert_eq!(indexes(&second.try_get_log_entries(..).await.unwrap()), [0, 1, 2, 3, 4]);
        assert!(second.group(0).unwrap_err().is_corruption());
        second.remove_other(0).unwrap();
        let mut first = second.group(0).unwrap();
        assert_eq!(first.get_log_state().await.unwrap().last_log_id, None);
        assert_eq!(second.try_get_log_entries(..).await.unwrap().len(), 5);
        second.remove_other(1).unwrap();
        assert_eq!(second.get_log_state().await.unwrap().last_log_id, None);
    });
}

/// The rest would be sent as what follows an entry that it does not follow.
#[test]
fn a_reader_finds_nothing_of_a_range_whose_beginning_was_purged() {
    now(async {
        let mut log = try_log(&Twin::new()).unwrap();
        log.blocking_append((0..8).map(|at| entry(1, at))).await.unwrap();
        let mut reader = log.get_log_reader().await;
        log.purge(log_id(1, 4)).await.unwrap();
        assert_eq!(reader.limited_get_log_entries(3, 8).await.unwrap().len(), 0);
        assert_eq!(reader.limited_get_log_entries(5, 8).await.unwrap().len(), 3);
    });
}

/// The directory of the log was not mounted, or somebody has deleted it. The node would give a vote
/// again that it has given.
#[test]
fn a_log_that_was_lost_is_not_begun_anew_beside_its_state() {
    now(async {
        let twin = Twin::new();
        let mut state = try_state(&twin).unwrap();
        let mut log = try_log(&twin).unwrap().purging_after(&state);
        // A node that has applied nothing, and has not voted, is a new one.
        log.get_log_state().await.unwrap();
        log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
        log.blocking_append((0..3).map(|at| entry(1, at))).await.unwrap();
        state.apply((0..3).map(|at| entry(1, at))).await.unwrap();
        drop(log);
        let mut log = try_log(&twin).unwrap().purging_after(&state);
        assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 2)));
        let mut log = try_log(&Twin::new()).unwrap().purging_after(&state);
        let error = log.get_log_state().await.unwrap_err().to_string();
        assert!(error.contains("/log") && error.contains("group 0 holds no vote"), "{error}");
    });
}

/// The directory of the state was not mounted, or somebody has deleted it. An empty state has no
/// part of what was purged.
#[test]
fn a_state_that_was_lost_is_not_begun_anew_beside_its_log() {
    now(async {
        for is_installed in [false, true] {
            let (twin, far) = (Twin::new(), Twin::new());
            let (mut state, mut leader) = (try_state(&twin).unwrap(), try_state(&far).unwrap());
            let mut log = try_log(&twin).unwrap().purging_after(&state);
            log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
            if is_installed {
                leader.apply((0..9).map(|at| entry(1, at))).await.unwrap();
                let built = leader.get_snapshot_builder().await.build_snapshot().await.unwrap();
                let received = state.begin_receiving_snapshot().await.unwrap();
                copy(&built.snapshot, &received);
                // openraft begins with the purge, and does not save what is committed.
                log.purge(log_id(1, 8)).await.unwrap();
                log.get_log_state().await.unwrap();
                state.install_snapshot(&built.meta, received).await.unwrap();
                log.blocking_append([entry(1, 9)]).await.unwrap();
            } else {
                log.blocking_append((0..10).map(|at| entry(1, at))).await.unwrap();
                state.apply((0..10).map(|at| entry(1, at))).await.unwrap();
                log.purge(log_id(1, 8)).await.unwrap();
            }
            drop(log);
            let mut log = try_log(&twin).unwrap().purging_after(&state);
            let found = log.get_log_state().await.unwrap();
            assert_eq!(found.last_purged_log_id, Some(log_id(1, 8)));
            let lost = try_state(&Twin::new()).unwrap();
            let mut log = log.purging_after(&lost);
            let error = log.get_log_state().await.unwrap_err().to_string();
            assert!(
                error.contains("/state") && error.contains("behind entry 8, but the state is"),
                "{error}"
            );
        }
    });
}

/// An entry is there a second time, as if openraft had made a mistake. It applies nothing more.
#[test]
fn an_append_does_not_wait_for_a_state_machine_that_has_refused_an_entry() {
    now(async {
        let twin = Twin::new();
        let mut state = try_state(&twin).unwrap();
        let mut log = try_log(&twin).unwrap().purging_after(&state);
        log.blocking_append((0..4).map(|at| entry(1, at))).await.unwrap();
        state.apply([entry(1, 0), entry(1, 1)]).await.unwrap();
        log.purge(log_id(1, 3)).await.unwrap();
        assert!(state.apply([entry(1, 1)]).await.is_err());
        let error = log.blocking_append([entry(1, 4)]).await.unwrap_err().to_string();
        assert!(error.contains("after an earlier failure"), "{error}");
    });
}

/// A request that can be encoded, and never decoded: postcard does not store which variant it is.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Vague {
    Number(u64),
}

openraft::declare_raft_types!(
    VagueConfig:
        D = Vague,
        R = (),
        SnapshotData = SnapshotFiles,
);

#[test]
fn an_entry_that_could_not_be_decoded_is_not_appended() {
    now(async {
        let twin = Twin::new();
        let path = Path::new("/log");
        let mut log = LogStore::<VagueConfig>::open_on(&env(&twin), path, options(), 0).unwrap();
        let payload = EntryPayload::Normal(Vague::Number(7));
        let entry = Entry { log_id: log_id(1, 0), payload };
        let error = log.blocking_append([entry]).await.unwrap_err().to_string();
        assert!(error.contains("does not survive an encoding"), "{error}");
        assert_eq!(log.get_log_state().await.unwrap().last_log_id, None);
        drop(log);
        try_log(&twin).unwrap();
    });
}

/// openraft does not install it again, and applies nothing more. It would wait for ever.
#[test]
fn an_append_does_not_wait_for_a_state_machine_that_has_failed() {
    now(async {
        let (twin, far) = (Twin::new(), Twin::new());
        let (mut state, mut leader) = (try_state(&twin).unwrap(), try_state(&far).unwrap());
        let mut log = try_log(&twin).unwrap().purging_after(&state);
        log.blocking_append((0..3).map(|at| entry(1, at))).await.unwrap();
        leader.apply((0..9).map(|at| entry(2, at))).await.unwrap();
        let built = leader.get_snapshot_builder().await.build_snapshot().await.unwrap();
        log.purge(log_id(2, 8)).await.unwrap();
        let received = state.begin_receiving_snapshot().await.unwrap();
        assert!(state.install_snapshot(&built.meta, received).await.is_err());
        let error = log.blocking_append([entry(2, 9)]).await.unwrap_err().to_string();
        assert!(error.contains("after an earlier failure"), "{error}");
        // With the next attempt everything goes on.
        let received = state.begin_receiving_snapshot().await.unwrap();
        copy(&built.snapshot, &received);
        state.install_snapshot(&built.meta, received).await.unwrap();
        log.blocking_append([entry(2, 9)]).await.unwrap();
    });
}

/// Nor for one whose task in openraft has ended for another reason.
#[test]
fn an_append_does_not_wait_for_a_state_machine_that_is_gone() {
    now(async {
        let twin = Twin::new();
        let mut state = try_state(&twin).unwrap();
        let mut log = try_log(&twin).unwrap().purging_after(&state);
        log.purge(log_id(2, 8)).await.unwrap();
        twin.fail(Fault::new(FaultKind::Enospc).only(Call::CreateDir));
        assert!(state.begin_receiving_snapshot().await.is_err());
        let error = log.blocking_append([entry(2, 9)]).await.unwrap_err().to_string();
        assert!(error.contains("no space left for /state/incoming-2"), "{error}");
        // Another attempt begins.
        state.apply([entry(1, 0)]).await.unwrap();
        let mut worker = state.clone();
        let put = Put { key: PANICKING.into(), value: Vec::new(), now: 0, ttl: None };
        let entry_of = Entry { log_id: log_id(1, 1), payload: EntryPayload::Normal(put) };
        let worker = std::thread::spawn(move || drop(now(worker.apply([entry_of]))));
        assert!(worker.join().is_err());
        let error = log.blocking_append([entry(2, 9)]).await.unwrap_err().to_string();
        assert!(error.contains("what worked for /state in the background has panicked"), "{error}");
    });
}

/// A state machine whose disk is slow.
struct SlowHolder(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);

impl Holder<TestConfig> for SlowHolder {
    fn path(&self) -> &Path {
        Path::new("/state")
    }

    fn holds(&self, _: u64) -> Result<bool> {
        // An error says that the test has failed.
        let _ = self.0.lock().unwrap().recv();
        Ok(true)
    }

    fn applied(&self) -> Option<LogId<u64>> {
        None
    }
}

/// Otherwise a node whose disk is slow would not even answer the others.
#[test]
fn an_append_that_waits_for_the_disk_leaves_its_thread_to_others() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
    let (go_on, may_go_on) = std::sync::mpsc::channel();
    let mut log = try_log(&Twin::new()).unwrap();
    runtime.block_on(log.blocking_append([entry(1, 0)])).unwrap();
    log.group.purge(log_id(1, 0));
    log.holder = Some(Arc::new(SlowHolder(std::sync::Mutex::new(may_go_on))));
    let (ended, end) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        // This task runs once the one that appends has left the thread to it.
        tokio::spawn(async move { go_on.send(()).unwrap() });
        ended.send(log.blocking_append([entry(1, 1)]).await.is_ok()).unwrap();
    });
    let is_appended = end.recv_timeout(Duration::from_secs(60));
    // If nothing else has run, this would wait for ever.
    runtime.shutdown_background();
    assert_eq!(is_appended, Ok(true));
}

/// Those that wait for a sync hear of it when nothing syncs any more.
#[test]
fn nobody_waits_for_a_thread_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Bitcask::open(dir.path(), Options::new()).unwrap());
    let syncing = Syncing::start(&store, true).unwrap();
    syncing.then(Box::new(|_| panic!("as if there were a mistake in it")));
    loop {
        let (done, result) = std::sync::mpsc::channel();
        syncing.then(Box::new(move |result| drop(done.send(result))));
        match result.recv() {
            // It came with the one that has panicked, or before that.
            Err(_) => {}
            Ok(Ok(())) => unreachable!("the thread goes on"),
            Ok(Err(error)) => {
                assert!(matches!(&*error, Error::Panicked { path } if path == dir.path()));
                break;
            }
        }
    }
}
