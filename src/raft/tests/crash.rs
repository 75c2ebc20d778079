//! Crashes at every operation of the disk: a kill, and power cuts that keep none, all or some of
//! what was not synced.
//!
//! - A run notes what its store holds after each call, and up to where that was durable. Whatever a
//!   crash leaves has to be one of the states in between.
//! - `left_out` leaves out the rules of the two stores one by one, and the judge has to notice.

use std::collections::BTreeMap;

use openraft::storage::{RaftLogStorage as _, RaftLogStorageExt as _, RaftStateMachine as _};
use openraft::{RaftLogReader as _, RaftSnapshotBuilder as _, SnapshotMeta, Vote};

use std::fmt::Debug;

use super::suite::copy;
use super::*;

/// Numbers that look random and are the same in each run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What a store holds after each call.
pub(super) struct Run<S> {
    twin: Arc<Twin>,
    /// What the store holds after each call, and at first.
    states: Vec<S>,
    /// For each call: the number of operations of the disk when it began, and when it had ended,
    /// and whether it makes everything so far durable.
    calls: Vec<(usize, usize, bool)>,
}

impl<S: PartialEq + Debug> Run<S> {
    fn new(twin: &Arc<Twin>, first: S) -> Self {
        Self { twin: Arc::clone(twin), states: vec![first], calls: Vec::new() }
    }

    fn note(&mut self, begun: usize, is_durable: bool, state: S) {
        self.calls.push((begun, self.twin.op_count(), is_durable));
        self.states.push(state);
    }

    /// Opens everything that a crash may leave, and compares it.
    pub(super) fn judge(&self, read: impl Fn(&Arc<Twin>) -> S) {
        let first = self.calls.first().map_or(0, |call| call.0);
        for ops in first..=self.twin.op_count() {
            let latest = self.calls.iter().filter(|call| call.0 < ops).count();
            let ended = self.calls.iter().filter(|call| call.1 <= ops).count();
            let is_durable = |call: &&(usize, usize, bool)| call.1 <= ops && call.2;
            let durable =
                self.calls.iter().rposition(|call| is_durable(&call)).map_or(0, |at| at + 1);
            self.judge_image(&self.twin.kill_image(ops), ended..=latest.max(ended), &read);
            let mut dice = Dice(ops as u64);
            for cut in 0..6 {
                let image = self.twin.power_image(ops, |_| match cut {
                    0 => false,
                    1 => true,
                    _ => dice.below(2) == 0,
                });
                self.judge_image(&image, durable..=latest.max(durable), &read);
            }
        }
    }

    fn judge_image(
        &self,
        image: &Arc<Twin>,
        allowed: std::ops::RangeInclusive<usize>,
        read: impl Fn(&Arc<Twin>) -> S,
    ) {
        let found = read(image);
        let allowed = &self.states[allowed];
        assert!(allowed.contains(&found), "{found:?}\nis none of {allowed:#?}");
    }
}

/// What a log holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LogModel {
    vote: Option<Vote<u64>>,
    committed: Option<LogId<u64>>,
    purged: Option<LogId<u64>>,
    entries: BTreeMap<u64, LogId<u64>>,
}

pub(super) fn read_log(twin: &Arc<Twin>) -> LogModel {
    now(async {
        let mut log = try_log(twin).unwrap();
        let state = log.get_log_state().await.unwrap();
        let entries = log.try_get_log_entries(..).await.unwrap();
        let ids: BTreeMap<_, _> = entries.iter().map(|it| (it.log_id.index, it.log_id)).collect();
        let next = state.last_purged_log_id.map_or(0, |purged| purged.index + 1);
        assert!(ids.keys().copied().eq(next..next + ids.len() as u64), "a gap: {ids:?}");
        assert_eq!(state.last_log_id, ids.values().last().copied().or(state.last_purged_log_id));
        for it in &entries {
            assert_eq!(
                format!("{it:?}"),
                format!("{:?}", entry(it.log_id.leader_id.term, it.log_id.index))
            );
        }
        // It goes on from there.
        let (term, index) = (90, next + ids.len() as u64);
        log.blocking_append([entry(term, index)]).await.unwrap();
        log.truncate(log_id(term, index)).await.unwrap();
        LogModel {
            vote: log.read_vote().await.unwrap(),
            committed: log.read_committed().await.unwrap(),
            purged: state.last_purged_log_id,
            entries: ids,
        }
    })
}

/// Does to a log what Raft does, by chance.
pub(super) async fn log_run(seed: u64) -> Run<LogModel> {
    let twin = Twin::new();
    let mut log = try_log(&twin).unwrap();
    let (mut model, mut dice) = (LogModel::default(), Dice(seed));
    let mut run = Run::new(&twin, model.clone());
    for term in 1..25 {
        let begun = twin.op_count();
        let last = model.entries.keys().last().copied();
        let next = last.map_or(model.purged.map_or(0, |it| it.index + 1), |last| last + 1);
        let mut is_durable = false;
        match (dice.below(8), last) {
            (0, _) => {
                model.vote = Some(Vote::new(term, dice.below(3)));
                log.save_vote(&model.vote.unwrap()).await.unwrap();
                is_durable = true;
            }
            (1, Some(last)) => {
                model.committed = model.entries.get(&last).copied();
                log.save_committed(model.committed).await.unwrap();
            }
            (2, Some(_)) => {
                let (at, id) = model.entries.iter().next_back().unwrap();
                let at = at - dice.below(3).min(model.entries.len() as u64 - 1);
                let id = model.entries.get(&at).copied().unwrap_or(*id);
                log.truncate(id).await.unwrap();
                is_durable = true;
                model.entries.retain(|index, _| *index < id.index);
            }
            (3, Some(_)) => {
                let len = model.entries.len() as u64;
                let at = usize::try_from(dice.below(len)).unwrap();
                let id = *model.entries.values().nth(at).unwrap();
                log.purge(id).await.unwrap();
                model.purged = Some(id);
                model.entries.retain(|index, _| *index > id.index);
            }
            _ => {
                let entries: Vec<_> =
                    (next..=next + dice.below(4)).map(|at| entry(term, at)).collect();
                model.entries.extend(entries.iter().map(|it| (it.log_id.index, it.log_id)));
                log.blocking_append(entries).await.unwrap();
                is_durable = true;
            }
        }
        run.note(begun, is_durable, model.clone());
    }
    run
}

#[test]
fn a_log_keeps_its_promises_through_crashes() {
    for seed in 0..4 {
        now(log_run(seed)).judge(read_log);
    }
}

/// What a state machine holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StateModel {
    applied: Option<LogId<u64>>,
    members: Option<LogId<u64>>,
    pairs: BTreeMap<Vec<u8>, Vec<u8>>,
    snapshot: Option<SnapshotMeta<u64, openraft::BasicNode>>,
}

async fn model_of(state: &mut StateMachine<TestConfig, Counting>) -> StateModel {
    let (applied, membership) = state.applied_state().await.unwrap();
    let pairs = state.store().iter().map(|pair| {
        let (key, value) = pair.unwrap();
        (key.to_vec(), value.to_vec())
    });
    let is_plain = |key: &[u8]| !key.starts_with(b"\0raft");
    let pairs = pairs.filter(|(key, _)| is_plain(key)).collect();
    let snapshot = state.get_current_snapshot().await.unwrap();
    let members = *membership.log_id();
    StateModel { applied, members, pairs, snapshot: snapshot.map(|it| it.meta) }
}

pub(super) fn read_state(twin: &Arc<Twin>) -> StateModel {
    let before = twin.fork();
    now(async {
        let mut state = try_state(twin).unwrap();
        let model = model_of(&mut state).await;
        if let Some(snapshot) = state.get_current_snapshot().await.unwrap() {
            // What is sent to another node is what it claims to be.
            let mut other = try_state(&Twin::new()).unwrap();
            let received = other.begin_receiving_snapshot().await.unwrap();
            copy(&snapshot.snapshot, &received);
            other.install_snapshot(&snapshot.meta, received).await.unwrap();
        }
        // Nothing that a crash has left is in the way of the next snapshot.
        state.get_snapshot_builder().await.build_snapshot().await.unwrap();
        drop(state);
        drop(before);
        model
    })
}

/// The log of all runs.
fn log_entry(index: u64) -> Entry<TestConfig> {
    if index % 7 == 3 { members(1, index, &[index, index + 1]) } else { entry(1, index) }
}

/// Does to a state machine what Raft does, by chance.
pub(super) async fn state_run(seed: u64) -> Run<StateModel> {
    let twin = Twin::new();
    let mut state = try_state(&twin).unwrap();
    state.sync().unwrap();
    // A leader that is ahead.
    let mut leader = try_state(&Twin::new()).unwrap();
    let (mut next, mut ahead, mut dice) = (0, 0, Dice(seed));
    let mut run = Run::new(&twin, model_of(&mut state).await);
    for _ in 0..16 {
        let begun = twin.op_count();
        let mut is_durable = false;
        match dice.below(6) {
            0 => {
                state.get_snapshot_builder().await.build_snapshot().await.unwrap();
                is_durable = true;
            }
            1 if next > 0 => {
                while ahead < next + 3 {
                    leader.apply([log_entry(ahead)]).await.unwrap();
                    ahead += 1;
                }
                let snapshot = leader.get_snapshot_builder().await.build_snapshot().await.unwrap();
                let received = state.begin_receiving_snapshot().await.unwrap();
                copy(&snapshot.snapshot, &received);
                state.install_snapshot(&snapshot.meta, received).await.unwrap();
                (next, is_durable) = (ahead, true);
            }
            _ => {
                state.apply([log_entry(next)]).await.unwrap();
                next += 1;
            }
        }
        run.note(begun, is_durable, model_of(&mut state).await);
    }
    run
}

#[test]
fn a_state_machine_keeps_its_promises_through_crashes() {
    for seed in 0..3 {
        now(state_run(seed)).judge(read_state);
    }
}

/// A former leader has entries that were never committed. openraft truncates its log and installs
/// a snapshot, which is durable in another store before the log is synced again. After a loss of
/// power at any moment, the node starts and appends the next entry.
#[test]
fn a_log_that_was_replaced_by_a_snapshot_does_not_come_back() {
    let twin = Twin::new();
    let mut leader = try_state(&Twin::new()).unwrap();
    now(async {
        let (mut log, mut state) = (try_log(&twin).unwrap(), try_state(&twin).unwrap());
        log = log.purging_after(&state);
        log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
        log.blocking_append((0..10).map(|at| entry(1, at))).await.unwrap();
        state.apply((0..3).map(|at| entry(1, at))).await.unwrap();
        leader.apply((0..3).map(|at| entry(1, at))).await.unwrap();
        leader.apply((3..6).map(|at| entry(2, at))).await.unwrap();
        let snapshot = leader.get_snapshot_builder().await.build_snapshot().await.unwrap();
        let begun = twin.op_count();
        log.truncate(log_id(1, 3)).await.unwrap();
        let received = state.begin_receiving_snapshot().await.unwrap();
        copy(&snapshot.snapshot, &received);
        // openraft purges before the snapshot is installed.
        log.purge(log_id(2, 5)).await.unwrap();
        state.install_snapshot(&snapshot.meta, received).await.unwrap();
        for ops in begun..=twin.op_count() {
            for keep in [false, true] {
                goes_on(&twin.power_image(ops, |_| keep)).await;
            }
            goes_on(&twin.kill_image(ops)).await;
        }
    });
}

/// Starts a node as openraft does, and appends what follows.
pub(super) async fn goes_on(twin: &Arc<Twin>) {
    let mut state = try_state(twin).unwrap();
    let mut log = try_log(twin).unwrap().purging_after(&state);
    let initial = openraft::StorageHelper::new(&mut log, &mut state).get_initial_state().await;
    initial.unwrap();
    let (ends, applied) =
        (log.get_log_state().await.unwrap(), state.applied_state().await.unwrap().0);
    let next = |id: Option<LogId<u64>>| id.map_or(0, |id| id.index + 1);
    let last = next(ends.last_log_id).max(next(applied));
    assert!(next(ends.last_log_id) >= next(applied), "{ends:?} {applied:?}");
    log.blocking_append([entry(7, last)]).await.unwrap();
    let first = ends.last_purged_log_id.map_or(0, |purged| purged.index + 1);
    assert!(applied.map_or(0, |it| it.index + 1) >= first, "neither entries nor state: {ends:?}");
    let entries = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(entries.len() as u64, last + 1 - first);
    // What was applied is what the log has at its place.
    let at_applied = entries.iter().find(|it| Some(it.log_id.index) == applied.map(|id| id.index));
    assert!(at_applied.is_none_or(|it| Some(it.log_id) == applied), "{at_applied:?}");
}

/// A former leader has entries that were never committed, of a later term than the last entry of
/// the snapshot that replaces them. They end before the snapshot does, or behind that.
#[test]
fn entries_of_a_later_term_do_not_survive_a_snapshot() {
    for end in [9, 13] {
        let twin = Twin::new();
        let mut leader = try_state(&Twin::new()).unwrap();
        now(async {
            let (mut log, mut state) = (try_log(&twin).unwrap(), try_state(&twin).unwrap());
            log = log.purging_after(&state);
            log.save_vote(&Vote::new_committed(3, 1)).await.unwrap();
            log.blocking_append((0..6).map(|at| entry(1, at))).await.unwrap();
            log.blocking_append((6..end).map(|at| entry(3, at))).await.unwrap();
            state.apply((0..4).map(|at| entry(1, at))).await.unwrap();
            leader.apply((0..6).map(|at| entry(1, at))).await.unwrap();
            leader.apply((6..11).map(|at| entry(2, at))).await.unwrap();
            let snapshot = leader.get_snapshot_builder().await.build_snapshot().await.unwrap();
            let begun = twin.op_count();
            let received = state.begin_receiving_snapshot().await.unwrap();
            copy(&snapshot.snapshot, &received);
            log.purge(log_id(2, 10)).await.unwrap();
            state.install_snapshot(&snapshot.meta, received).await.unwrap();
            // The node goes on for a moment.
            log.blocking_append([entry(4, 11)]).await.unwrap();
            for ops in begun..=twin.op_count() {
                for keep in [false, true] {
                    goes_on(&twin.power_image(ops, |_| keep)).await;
                }
                goes_on(&twin.kill_image(ops)).await;
            }
        });
    }
}
