//! The state machine, beyond what openraft's suite asks for.

use openraft::EntryPayload;

use super::*;
use crate::fs::Fs;
use crate::raft::tests::suite::copy;
use crate::raft::tests::{
    BROKEN, CLEAR, Counting, Put, TestConfig, entry, env, log_id, members, now, options, try_state,
};
use crate::testing::twin::{Fault, FaultKind, Twin};

type State = StateMachine<TestConfig, Counting>;

fn put(index: u64, key: &str, now: u64, ttl: Option<u64>) -> Entry<TestConfig> {
    let put = Put { key: key.into(), value: b"value".to_vec(), now, ttl };
    Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(put) }
}

async fn snapshot_of(state: &mut State) -> Snapshot<TestConfig> {
    state.get_snapshot_builder().await.build_snapshot().await.unwrap()
}

/// Sends a snapshot to another node, and installs it there.
async fn send(snapshot: &Snapshot<TestConfig>, to: &mut State) {
    let received = to.begin_receiving_snapshot().await.unwrap();
    copy(&snapshot.snapshot, &received);
    to.install_snapshot(&snapshot.meta, received).await.unwrap();
}

fn is_segment(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|it| it == "log")
}

fn names(twin: &Arc<Twin>) -> Vec<String> {
    let entries = Fs::Twin(Arc::clone(twin)).list(Path::new("/state")).unwrap();
    entries.into_iter().map(|entry| entry.name).collect()
}

#[test]
fn time_passes_by_requests_alone() {
    now(async {
        let twin = Twin::new();
        let mut state = try_state(&twin).unwrap();
        state
            .apply([put(0, "short", 1000, Some(10)), put(1, "long", 1000, Some(100))])
            .await
            .unwrap();
        // Earlier than what was applied before: another leader, whose clock is behind.
        state.apply([put(2, "other", 5, Some(8))]).await.unwrap();
        let has = |state: &State, key: &str| state.store().contains_key(key).unwrap();
        assert!(has(&state, "short") && has(&state, "other"));
        state.apply([put(3, "x", 1009, None)]).await.unwrap();
        assert!(has(&state, "short") && !has(&state, "other"));
        state.apply([put(4, "x", 1010, None)]).await.unwrap();
        assert!(!has(&state, "short") && has(&state, "long"));
        // Neither an open nor another node looks at a clock.
        let mut other = try_state(&Twin::new()).unwrap();
        send(&snapshot_of(&mut state).await, &mut other).await;
        drop(state);
        let state = try_state(&twin).unwrap();
        for state in [&state, &other] {
            assert!(!has(state, "short") && has(state, "long"));
        }
        other.apply([put(5, "x", 1100, None)]).await.unwrap();
        assert!(!has(&other, "long"));
    });
}

#[test]
fn a_request_that_the_store_refuses_is_answered_and_counts_as_applied() {
    now(async {
        let twin = Twin::new();
        let mut state = try_state(&twin).unwrap();
        let long = "k".repeat(70_000);
        let answers =
            state.apply([put(0, "a", 1, None), put(1, &long, 1, None), put(2, "b", 1, None)]).await;
        assert_eq!(answers.unwrap(), [1, u64::MAX, 2]);
        drop(state);
        assert_eq!(try_state(&twin).unwrap().applied_state().await.unwrap().0, Some(log_id(1, 2)));
    });
}

#[test]
fn an_entry_is_applied_once() {
    now(async {
        let mut state = try_state(&Twin::new()).unwrap();
        state.apply([put(0, "a", 1, None), put(1, "a", 1, None)]).await.unwrap();
        for index in [0, 1] {
            assert!(state.apply([put(index, "a", 1, None)]).await.is_err());
        }
        assert_eq!(state.apply([put(2, "a", 1, None)]).await.unwrap(), [3]);
    });
}

#[test]
fn what_a_snapshot_replaces_stays_until_nobody_uses_it() {
    now(async {
        let (twin, far) = (Twin::new(), Twin::new());
        let (mut state, mut leader) = (try_state(&twin).unwrap(), try_state(&far).unwrap());
        state.apply([put(0, "before", 1, None)]).await.unwrap();
        leader.apply([put(0, "after", 1, None), put(1, "after", 1, None)]).await.unwrap();
        let old = snapshot_of(&mut state).await;
        let store = state.store();
        send(&snapshot_of(&mut leader).await, &mut state).await;
        assert!(state.store().contains_key("after").unwrap());
        assert!(!state.store().contains_key("before").unwrap());
        // Still readable, and still to be sent.
        assert!(store.contains_key("before").unwrap());
        assert_eq!(old.snapshot.files().unwrap().len(), 3);
        assert_eq!(
            names(&twin),
            ["CURRENT", "LOCK", "snapshot-2", "snapshot-4", "state-1", "state-4"]
        );
        drop((store, old));
        assert_eq!(names(&twin), ["CURRENT", "LOCK", "snapshot-4", "state-4"]);
        // So is a snapshot that has arrived only in part.
        let begun = state.begin_receiving_snapshot().await.unwrap();
        begun.write("MANIFEST", 0, b"half").unwrap();
        assert_eq!(names(&twin).len(), 5);
        drop(begun);
        assert_eq!(names(&twin), ["CURRENT", "LOCK", "snapshot-4", "state-4"]);
    });
}

#[test]
fn a_snapshot_that_is_not_what_it_claims_is_refused() {
    now(async {
        let (twin, far) = (Twin::new(), Twin::new());
        let (mut state, mut leader) = (try_state(&twin).unwrap(), try_state(&far).unwrap());
        state.apply([put(0, "before", 1, None)]).await.unwrap();
        leader.apply((0..9).map(entry_at)).await.unwrap();
        let snapshot = snapshot_of(&mut leader).await;
        // Another place in the log than promised.
        let received = state.begin_receiving_snapshot().await.unwrap();
        copy(&snapshot.snapshot, &received);
        let mut meta = snapshot.meta.clone();
        meta.last_log_id = Some(log_id(1, 9));
        let error = state.install_snapshot(&meta, received).await.unwrap_err().to_string();
        assert!(error.contains("up to log index Some(8)"), "{error}");
        // A file is missing.
        let received = state.begin_receiving_snapshot().await.unwrap();
        for file in snapshot.snapshot.files().unwrap().iter().filter(|it| !is_segment(&it.name)) {
            let mut bytes = vec![0; usize::try_from(file.size).unwrap()];
            snapshot.snapshot.read(&file.name, 0, &mut bytes).unwrap();
            received.write(&file.name, 0, &bytes).unwrap();
        }
        assert!(state.install_snapshot(&snapshot.meta, received).await.is_err());
        // Nothing of it has an effect.
        assert!(state.store().contains_key("before").unwrap());
        assert_eq!(names(&twin), ["CURRENT", "LOCK", "state-1"]);
        send(&snapshot, &mut state).await;
        assert_eq!(state.applied_state().await.unwrap().0, Some(log_id(1, 8)));
    });
}

fn entry_at(index: u64) -> Entry<TestConfig> {
    entry(1, index)
}

#[test]
fn what_is_missing_is_damage_and_never_an_empty_state() {
    now(async {
        let twin = Twin::new();
        let mut state = try_state(&twin).unwrap();
        state.apply((0..9).map(entry_at)).await.unwrap();
        snapshot_of(&mut state).await;
        state.apply([entry_at(9)]).await.unwrap();
        drop(state);
        let without = |lost: &str| {
            let image = twin.fork();
            let fs = Fs::Twin(Arc::clone(&image));
            let path = Path::new("/state").join(lost);
            match fs.is_dir(&path).unwrap() {
                Some(true) => owned_dir::remove_tree(&fs, &path).unwrap(),
                _ => fs.remove(&path).unwrap(),
            }
            let error = try_state(&image).unwrap_err();
            assert!(error.is_corruption(), "{lost}: {error}");
            error.to_string()
        };
        assert!(without("snapshot-2").contains("names snapshot-2, which is not there"));
        assert!(without("state-1").contains("names state-1, which is not there"));
        assert!(without("CURRENT").contains("it has no CURRENT, but snapshot-2"));
        // A state that lacks what the snapshot beside it has.
        let image = twin.fork();
        let fs = Fs::Twin(Arc::clone(&image));
        let old = Twin::new();
        drop(try_state(&old).unwrap());
        for entry in Fs::Twin(Arc::clone(&old)).list(Path::new("/state/state-1")).unwrap() {
            let path = Path::new("/state/state-1").join(&entry.name);
            if entry.is_file && entry.name == "MANIFEST" {
                image.put_file(&path, old.contents(&path).unwrap());
            }
        }
        for entry in fs.list(Path::new("/state/state-1")).unwrap() {
            if is_segment(&entry.name) {
                fs.remove(&Path::new("/state/state-1").join(entry.name)).unwrap();
            }
        }
        let error = try_state(&image).unwrap_err();
        assert!(error.to_string().contains("holds less than the snapshot"), "{error}");
        // With everything in its place it opens.
        assert_eq!(try_state(&twin).unwrap().applied_state().await.unwrap().0, Some(log_id(1, 9)));
    });
}

#[test]
fn every_changed_byte_of_the_pointer_is_noticed() {
    now(async {
        let twin = Twin::new();
        let mut state = try_state(&twin).unwrap();
        state.apply([members(1, 0, &[1, 2, 3]), entry_at(1)]).await.unwrap();
        snapshot_of(&mut state).await;
        drop(state);
        let path = Path::new("/state/CURRENT");
        let bytes = twin.contents(path).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x20;
            let image = twin.fork();
            image.put_file(path, changed);
            assert!(try_state(&image).unwrap_err().is_corruption(), "byte {at}");
            let image = twin.fork();
            image.put_file(path, bytes[..at].to_vec());
            assert!(try_state(&image).unwrap_err().is_corruption(), "cut at {at}");
        }
    });
}

#[test]
fn a_directory_is_open_once() {
    let twin = Twin::new();
    let state = try_state(&twin).unwrap();
    assert!(try_state(&twin).unwrap_err().is_locked());
    drop(state);
    try_state(&twin).unwrap();
}

/// Whatever call of the disk fails while a snapshot is built, received or installed, the state is
/// as it was, and the next attempt succeeds.
#[test]
fn a_failure_at_any_call_leaves_the_state_as_it_was() {
    let mut leader = try_state(&Twin::new()).unwrap();
    now(leader.apply((0..30).map(entry_at))).unwrap();
    let snapshot = now(snapshot_of(&mut leader));
    for install in [false, true] {
        for after in 0.. {
            let has_failed = now(async {
                let twin = Twin::new();
                let mut state = try_state(&twin).unwrap();
                state.apply((0..20).map(entry_at)).await.unwrap();
                twin.fail(Fault::new(FaultKind::Enospc).after(after));
                let result = if install {
                    match state.begin_receiving_snapshot().await {
                        Ok(received) => {
                            try_copy(&snapshot, &received).map_err(|_| ()).and_then(|()| {
                                now_within(state.install_snapshot(&snapshot.meta, received))
                            })
                        }
                        Err(_) => Err(()),
                    }
                } else {
                    state
                        .get_snapshot_builder()
                        .await
                        .build_snapshot()
                        .await
                        .map(drop)
                        .map_err(|_| ())
                };
                let has_struck = twin.fault_count() > 0;
                twin.clear_fault();
                // Whatever CURRENT names by now is there.
                let mut again = try_state(&twin.kill_image_now()).unwrap();
                let applied = again.applied_state().await.unwrap().0;
                assert!([Some(log_id(1, 19)), Some(log_id(1, 29))].contains(&applied));
                drop(again);
                if result.is_err() {
                    assert!(has_struck);
                    if state.sync().is_err() {
                        // A sync has failed, and the store accepts no more writes.
                        drop(state);
                        state = try_state(&twin).unwrap();
                    }
                    assert_eq!(state.applied_state().await.unwrap().0, Some(log_id(1, 19)));
                    assert_eq!(state.apply([entry_at(20)]).await.unwrap(), [21]);
                    send(&snapshot, &mut state).await;
                }
                drop(state);
                let mut state = try_state(&twin).unwrap();
                let last = if install || result.is_err() { 29 } else { 19 };
                assert_eq!(state.applied_state().await.unwrap().0, Some(log_id(1, last)));
                has_struck
            });
            if !has_failed {
                break;
            }
        }
    }
}

/// Runs a future that never waits.
fn now_within<T, E>(future: impl Future<Output = Result<T, E>>) -> std::result::Result<(), ()> {
    let mut future = std::pin::pin!(future);
    let mut task = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut task) {
        std::task::Poll::Ready(result) => result.map(drop).map_err(|_| ()),
        std::task::Poll::Pending => unreachable!("it waits for nothing"),
    }
}

fn try_copy(from: &Snapshot<TestConfig>, to: &SnapshotFiles) -> Result<()> {
    let mut buffer = [0; 4096];
    for file in from.snapshot.files()? {
        let mut offset = 0;
        while offset < file.size {
            let size = from.snapshot.read(&file.name, offset, &mut buffer)?;
            to.write(&file.name, offset, &buffer[..size])?;
            offset += size as u64;
        }
    }
    Ok(())
}

#[test]
fn a_request_that_removes_all_keys_does_not_remove_the_members() {
    now(async {
        let twin = Twin::new();
        let mut state = try_state(&twin).unwrap();
        state.apply([members(1, 0, &[1, 2, 3]), put(1, "a", 5, None)]).await.unwrap();
        state.apply([put(2, CLEAR, 5, None)]).await.unwrap();
        assert!(!state.store().contains_key("a").unwrap());
        let applied = state.applied_state().await.unwrap();
        assert_eq!(applied.1.voter_ids().collect::<Vec<_>>(), [1, 2, 3]);
        let mut other = try_state(&Twin::new()).unwrap();
        send(&snapshot_of(&mut state).await, &mut other).await;
        assert_eq!(other.applied_state().await.unwrap(), applied);
        drop(state);
        assert_eq!(try_state(&twin).unwrap().applied_state().await.unwrap(), applied);
    });
}

#[test]
fn an_error_of_the_application_stops_the_node() {
    now(async {
        let mut state = try_state(&Twin::new()).unwrap();
        assert!(state.apply([put(0, BROKEN, 5, None)]).await.is_err());
        assert_eq!(state.applied_state().await.unwrap().0, None);
    });
}

#[test]
fn a_time_at_the_end_of_time_leaves_room_for_what_follows() {
    now(async {
        let mut state = try_state(&Twin::new()).unwrap();
        let far = u64::MAX / 2_000_000;
        state.apply([put(0, "a", far, Some(1)), put(1, "b", far, None)]).await.unwrap();
        state.apply((2..50).map(entry_at)).await.unwrap();
        assert!(state.store().contains_key("b").unwrap());
    });
}

#[test]
fn a_snapshot_is_not_written_to_once_it_is_installed() {
    now(async {
        let mut leader = try_state(&Twin::new()).unwrap();
        leader.apply((0..9).map(entry_at)).await.unwrap();
        let snapshot = snapshot_of(&mut leader).await;
        assert!(snapshot.snapshot.write("MANIFEST", 0, b"x").is_err());
        let mut state = try_state(&Twin::new()).unwrap();
        let received = state.begin_receiving_snapshot().await.unwrap();
        copy(&snapshot.snapshot, &received);
        let late = received.clone();
        state.install_snapshot(&snapshot.meta, received).await.unwrap();
        assert!(late.write("MANIFEST", 0, b"x").is_err());
        assert!(late.write("0000000001.log", 0, b"x").is_err());
    });
}

/// Whoever reads the error of a node has not asked for a key.
#[test]
fn a_place_that_cannot_be_decoded_is_damage_of_the_store() {
    let twin = Twin::new();
    drop(try_state(&twin).unwrap());
    let db = Bitcask::open_on(&env(&twin), Path::new("/state/state-1"), options()).unwrap();
    db.put(apply::APPLIED_KEY, b"\x01").unwrap();
    db.close().unwrap();
    let error = try_state(&twin).unwrap_err();
    assert!(error.is_corruption() && error.to_string().contains("/state/state-1"), "{error}");
}

/// Whether a clear fits is judged by the keys that are there for all nodes, and not by those that
/// a merge of one node has not removed yet.
#[test]
fn replicas_agree_on_whether_a_clear_is_refused() {
    now(async {
        let large = |digit: char| digit.to_string().repeat(60_000);
        for (live, is_refused) in [("12", false), ("123", true)] {
            let [mut merged, mut other] = [(); 2].map(|()| try_state(&Twin::new()).unwrap());
            for state in [&mut merged, &mut other] {
                let mut entries: Vec<_> = (0..)
                    .zip("78".chars())
                    .map(|(at, it)| put(at, &large(it), 5, Some(1)))
                    .collect();
                entries
                    .extend((2..).zip(live.chars()).map(|(at, it)| put(at, &large(it), 9, None)));
                state.apply(entries).await.unwrap();
            }
            merged.store().db().merge().unwrap();
            for state in [&mut merged, &mut other] {
                let answer = state.apply([put(9, CLEAR, 9, None)]).await.unwrap();
                assert_eq!(answer == [u64::MAX], is_refused, "{live}");
                for digit in live.chars() {
                    assert_eq!(state.store().contains_key(large(digit)).unwrap(), is_refused);
                }
                assert_eq!(state.applied_state().await.unwrap().0, Some(log_id(1, 9)));
            }
        }
    });
}

/// Limits are for requests. What was applied is recorded whatever it takes.
#[test]
fn limits_of_keys_and_values_do_not_hold_for_the_record_of_what_was_applied() {
    now(async {
        let twin = Twin::new();
        let options = || options().key_size_limit(14).value_size_limit(9);
        let open = || State::open_on(&env(&twin), Path::new("/state"), options(), Counting);
        let mut state = open().unwrap();
        let ids: Vec<_> = (1..60).collect();
        state.apply([members(1, 0, &ids)]).await.unwrap();
        let with = |index, key: &str, value: &[u8]| {
            let put = Put { key: key.into(), value: value.into(), now: 1, ttl: None };
            Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(put) }
        };
        let entries = [
            with(1, "key", b"123456789"),
            with(2, "key", b"1234567890"),
            with(3, "a key too long.", b"1"),
            with(4, "a longest key.", b"1"),
        ];
        let answers = state.apply(entries).await.unwrap();
        assert_eq!(answers, [1, u64::MAX, u64::MAX, 2]);
        drop(state);
        let mut state = open().unwrap();
        let (applied, membership) = state.applied_state().await.unwrap();
        assert_eq!((applied, membership.voter_ids().count()), (Some(log_id(1, 4)), 59));
        assert_eq!(state.store().get("key").unwrap().unwrap(), "123456789");
        let wrong = options().key_size_limit(1 << 20);
        let error = State::open_on(&env(&Twin::new()), Path::new("/state"), wrong, Counting);
        assert!(error.unwrap_err().to_string().contains("key_size_limit"));
    });
}

#[test]
fn snapshots_of_two_nodes_have_different_ids() {
    now(async {
        let mut ids = Vec::new();
        for _ in 0..2 {
            let mut state = try_state(&Twin::new()).unwrap();
            ids.push(snapshot_of(&mut state).await.meta.snapshot_id);
            state.apply((0..9).map(entry_at)).await.unwrap();
            ids.push(snapshot_of(&mut state).await.meta.snapshot_id);
        }
        ids.sort();
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
    });
}

/// openraft waits for what builds a snapshot, and would never build another one.
#[test]
fn a_panic_while_a_snapshot_is_built_is_an_error() {
    let twin = Twin::new();
    let mut state = try_state(&twin).unwrap();
    now(state.apply([put(0, "a", 1000, None)])).unwrap();
    let mut builder = now(state.get_snapshot_builder());
    let panics = |opened: Option<&Path>| {
        let is_of_snapshot = |path: &Path| path.to_string_lossy().contains("snapshot-");
        assert!(!opened.is_some_and(is_of_snapshot), "as if there were a mistake in it");
    };
    let built = twin.with_interference(panics, || now(builder.build_snapshot()));
    let error = built.unwrap_err().to_string();
    assert!(error.contains("panicked"), "{error}");
}
