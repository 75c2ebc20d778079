//! A failing disk: each operation of a run fails once or permanently, in every way. Each call must
//! return `Ok` or an error, acknowledged writes must stay readable, and synced writes must survive.

use crate::options::{MergeOptions, WriteOptions};
use crate::store::tests::story::*;
use crate::store::tests::*;
use crate::testing::twin::{Fault, FaultKind, Op};

/// A call of the run.
#[derive(Debug, Clone)]
enum Call {
    Put(&'static str, String),
    SyncedPut(&'static str, String),
    Delete(&'static str),
    Batch(Vec<(&'static str, Option<String>)>),
    Sync,
    /// The work that the background thread would do now.
    Work,
    Clear,
    /// Merges everything that is sealed.
    Merge,
    Backup(PathBuf),
}

const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", ""];

/// A fixed run of calls of every kind. Each value names the call that wrote it.
fn calls(len: usize, with_clear: bool) -> Vec<Call> {
    let mut random = Random(7);
    let mut calls = Vec::new();
    for number in 0..len {
        let mut key = || KEYS[usize::try_from(random.below(KEYS.len() as u64)).unwrap()];
        let value = |at: usize| format!("value {number}.{at} {}", "x".repeat(number % 7 * 9));
        calls.push(match number % 12 {
            2 => Call::Delete(key()),
            4 => Call::Batch(vec![(key(), Some(value(0))), (key(), None), (key(), Some(value(1)))]),
            5 => Call::SyncedPut(key(), value(0)),
            7 => Call::Work,
            9 => Call::Sync,
            11 if with_clear && number > len / 2 => Call::Clear,
            _ => Call::Put(key(), value(0)),
        });
    }
    calls
}

/// A longer run, which includes merges, backups and times to live.
fn many_calls() -> Vec<Call> {
    let mut calls = calls(300, true);
    for (number, call) in calls.iter_mut().enumerate() {
        match (number % 30, number % 110) {
            (_, 90) => *call = Call::Backup(format!("/backup{number}").into()),
            (13 | 27, _) => *call = Call::Merge,
            // One clear is enough; more would leave little to merge.
            _ if matches!(call, Call::Clear) && number != 215 => *call = Call::Work,
            _ => {}
        }
    }
    calls
}

impl Call {
    fn run(&self, db: &Bitcask) -> Result<()> {
        match self {
            Self::Put(key, value) => db.put(key, value),
            Self::SyncedPut(key, value) => {
                db.put_opt(key, value, WriteOptions::new().durable(true))
            }
            Self::Delete(key) => db.delete(key).map(drop),
            Self::Batch(changes) => {
                let mut batch = Batch::new();
                for (key, value) in changes {
                    match value {
                        Some(value) => batch.put(key, value),
                        None => batch.delete(key),
                    };
                }
                db.write(&batch)
            }
            Self::Sync => db.sync(),
            Self::Work => {
                db.inner.work();
                Ok(())
            }
            Self::Clear => db.clear(),
            Self::Merge => db.merge_opt(MergeOptions::new().force(true)).map(drop),
            Self::Backup(path) => db.backup(path).map(drop),
        }
    }

    fn apply(&self, pairs: &mut Pairs) {
        match self {
            Self::Put(key, value) | Self::SyncedPut(key, value) => {
                pairs.insert((*key).into(), value.clone().into());
            }
            Self::Delete(key) => drop(pairs.remove(key.as_bytes())),
            Self::Batch(changes) => {
                for (key, value) in changes {
                    match value {
                        Some(value) => drop(pairs.insert((*key).into(), value.clone().into())),
                        None => drop(pairs.remove(key.as_bytes())),
                    }
                }
            }
            Self::Sync | Self::Work | Self::Merge | Self::Backup(_) => {}
            Self::Clear => pairs.clear(),
        }
    }

    fn is_write(&self) -> bool {
        !matches!(self, Self::Sync | Self::Work | Self::Merge | Self::Backup(_))
    }

    /// Returns whether all earlier writes and this one are durable once the call has returned.
    fn is_durable(&self, policy: SyncPolicy) -> bool {
        match self {
            Self::Sync | Self::SyncedPut(..) | Self::Clear => true,
            Self::Work | Self::Merge | Self::Backup(_) => false,
            _ => policy == SyncPolicy::Always,
        }
    }
}

/// A run on a failing disk, and the states that it may leave.
struct Run {
    /// States that a reopened store may have: one after each attempted write, in order, from the
    /// last one known to be durable. The last acknowledged state is at `acknowledged`.
    states: Vec<Pairs>,
    /// Index of the first state that may be found after a power cut.
    durable: usize,
    /// Index of the first state that may be found after a kill.
    acknowledged: usize,
    /// The disk operations between opening and closing.
    span: std::ops::Range<usize>,
    poisoned: bool,
}

impl Run {
    /// Judges the visible state after a failed write, and returns it.
    fn failed(
        &mut self,
        call: &Call,
        before: &Pairs,
        after: Pairs,
        seen: Pairs,
        poisoned: bool,
        when: &str,
    ) -> Pairs {
        // An appended entry is visible even if its sync failed. A clear has taken effect even if
        // the old files could not be removed.
        assert!(seen == *before || seen == after, "{when}: {seen:?}");
        assert!(poisoned || matches!(call, Call::Clear) || seen == *before, "{when}: {seen:?}");
        // Without poisoning, the visible state is final.
        if poisoned || seen == after {
            self.states.push(after);
        }
        if !poisoned {
            self.acknowledged = self.states.len() - 1;
        }
        seen
    }
}

/// Reads all keys. With `is_blind`, reads may fail, too.
fn read_all(db: &Bitcask, pairs: &Pairs, is_blind: bool, when: &str) {
    for key in KEYS {
        let value = match db.get(key) {
            Err(Error::Io { .. }) if is_blind => continue,
            other => other.unwrap_or_else(|error| panic!("{when}: get {key:?}: {error}")),
        };
        assert_eq!(value.as_deref(), pairs.get(key.as_bytes()).map(Vec::as_slice), "{when}: {key}");
    }
}

/// Checks that nothing more is written, and that nothing more becomes durable.
fn check_poisoned(db: &Bitcask, when: &str) {
    assert!(db.put("a", "after poison").unwrap_err().is_poisoned(), "{when}");
    assert!(db.sync().is_ok() || db.sync().unwrap_err().is_poisoned(), "{when}");
    assert!(db.clear().unwrap_err().is_poisoned(), "{when}");
}

fn is_expected(error: &Error) -> bool {
    matches!(error, Error::Io { .. } | Error::NoSpace { .. } | Error::Poisoned { .. })
}

/// Returns the visible state even if reads fail. `blind` is the fault that persists.
fn seen(lab: &Lab, db: &Bitcask, blind: Option<&Fault>) -> Pairs {
    if blind.is_some() {
        lab.twin.clear_fault();
    }
    let seen = snapshot(db);
    if let Some(fault) = blind {
        lab.twin.fail(fault.clone());
    }
    seen
}

/// Makes the calls, and checks that each behaves as allowed on a failing disk. `blind` is the
/// persistent fault if reads fail, too.
fn run(lab: &Lab, calls: &[Call], blind: Option<&Fault>, when: &str) -> Run {
    let policy = lab.options.sync_policy;
    let mut pairs = Pairs::new();
    let states = vec![pairs.clone()];
    let mut run = Run { states, durable: 0, acknowledged: 0, span: 0..0, poisoned: false };
    let db = match lab.try_open() {
        Ok(db) => db,
        Err(error) => {
            assert!(is_expected(&error), "{when}: {error}");
            return run;
        }
    };
    run.span.start = lab.twin.op_count();
    let mut poisoned = false;
    for (number, call) in calls.iter().enumerate() {
        let when = format!("{when}, call {number} {call:?}");
        let result = call.run(&db);
        let mut after = pairs.clone();
        call.apply(&mut after);
        match &result {
            Ok(()) => {
                if call.is_write() && after != pairs {
                    assert!(!poisoned, "{when}: a poisoned store accepted a write");
                }
                pairs = after;
                // A poisoned store acknowledges only calls that change nothing.
                if call.is_write() && !poisoned {
                    run.states.push(pairs.clone());
                    run.acknowledged = run.states.len() - 1;
                }
                if call.is_durable(policy) && !poisoned {
                    run.durable = run.states.len() - 1;
                }
                if number % 4 == 0 || !call.is_write() {
                    read_all(&db, &pairs, blind.is_some(), &when);
                }
            }
            Err(error) => {
                assert!(is_expected(error), "{when}: {error}");
                let was_poisoned = std::mem::replace(&mut poisoned, error.is_poisoned());
                assert!(poisoned || !was_poisoned, "{when}: {error} after poison");
                if call.is_write() && !was_poisoned {
                    pairs = run.failed(call, &pairs, after, seen(lab, &db, blind), poisoned, &when);
                }
                read_all(&db, &pairs, blind.is_some(), &when);
            }
        }
        // If the background work poisoned the store, the next write reports it.
        poisoned |= db.inner.log().unwrap().check().is_err();
        assert!(!poisoned || !result.is_err_and(|error| error.is_no_space()), "{when}");
        if poisoned {
            check_poisoned(&db, &when);
        }
    }
    run.poisoned = poisoned;
    run.span.end = lab.twin.op_count();
    if let Err(error) = db.close() {
        assert!(is_expected(&error), "{when}: close: {error}");
    } else {
        run.durable = run.durable.max(run.acknowledged);
    }
    run
}

/// Opens the state that a run has left, and checks that it is one of the states from `first` on.
fn check_left(lab: &Lab, run: &Run, first: usize, when: &str) {
    let db = lab.try_open().unwrap_or_else(|error| panic!("{when}: {error}"));
    let found = snapshot(&db);
    let allowed = &run.states[first..];
    assert!(allowed.contains(&found), "{when}: {found:?}\nis none of {allowed:#?}");
    kill(db);
    let db = lab.open();
    assert!(found_in_order(&db), "{when}: {:?}", db.recovery());
    assert_eq!(snapshot(&db), found, "{when}: opened again");
    kill(db);
}

fn lab(policy: SyncPolicy) -> Lab {
    let lab = Lab::new();
    let options = lab.options.clone().segment_size(512).sync_policy(policy);
    lab.with(options)
}

/// Fails each operation of a run, and checks the run and the state that it leaves. A `step` above 1
/// is for fault kinds that another kind almost covers.
fn fail_each(policy: SyncPolicy, kind: FaultKind, for_ever: bool, with_clear: bool, step: usize) {
    let calls = calls(60, with_clear);
    let whole = lab(policy);
    let healthy = run(&whole, &calls, None, "no fault");
    assert_eq!(healthy.durable, healthy.states.len() - 1);
    let step = if long() { 1 } else { step };
    let mut struck = 0;
    let trace = whole.twin.trace();
    for at in (0..whole.twin.op_count()).step_by(step) {
        let lab = lab(policy);
        let fault = Fault::new(kind).after(at);
        lab.twin.fail(if for_ever { fault.for_ever() } else { fault });
        let when = format!("{policy:?}, {kind:?} at operation {at}, permanent: {for_ever}");
        let run = run(&lab, &calls, None, &when);
        struck += lab.twin.fault_count();
        let is_sync = matches!(trace[at], Op::Sync { .. } | Op::SyncDir { .. });
        if is_sync && healthy.span.contains(&at) && kind != FaultKind::Interrupted {
            assert!(run.poisoned, "{when}: a sync has failed");
        }
        check_left(&lab.killed(), &run, run.acknowledged, &format!("{when}, killed"));
        let harshest = lab.powered_off(|_| false);
        check_left(&harshest, &run, run.durable, &format!("{when}, power cut"));
        if at % 3 == 0 || long() {
            let mut random = Random(at as u64);
            let some = lab.powered_off(|_| random.below(2) == 0);
            check_left(&some, &run, run.durable, &format!("{when}, power cut that keeps some"));
        }
    }
    println!("{kind:?}: {struck} faults over {} operations", whole.twin.op_count());
}

/// Fails each call of a long run, including those that only read: the given one of four parts of
/// the calls.
fn fail_every_call(for_ever: bool, part: usize) {
    let calls = many_calls();
    let whole = lab(SyncPolicy::Never);
    let healthy = run(&whole, &calls, None, "no fault");
    assert_eq!(healthy.durable, healthy.states.len() - 1);
    let first = Fault::new(FaultKind::Eio).reads_too();
    // A fault that strikes once is over before the final check reads.
    let blind = if for_ever { first.clone().for_ever() } else { first.clone().after(usize::MAX) };
    for at in (part..whole.twin.call_count()).step_by(4) {
        let lab = lab(SyncPolicy::Never);
        let fault = first.clone().after(at);
        lab.twin.fail(if for_ever { fault.for_ever() } else { fault });
        let when = format!("call {at}, forever: {for_ever}");
        let run = run(&lab, &calls, Some(&blind), &when);
        assert!(lab.twin.fault_count() > 0, "{when}");
        lab.twin.clear_fault();
        check_left(&lab.killed(), &run, run.acknowledged, &format!("{when}, killed"));
        let harshest = lab.powered_off(|_| false);
        check_left(&harshest, &run, run.durable, &format!("{when}, power cut"));
    }
    println!("{} calls, forever: {for_ever}", whole.twin.call_count());
}

/// In a quick run, each call fails in only one of the two ways.
fn parts(of_four: [usize; 2]) -> impl Iterator<Item = usize> {
    (0..4).filter(move |part| long() || of_four.contains(part))
}

#[test]
fn every_call_of_a_long_run_fails_once() {
    parts([0, 3]).for_each(|part| fail_every_call(false, part));
}

#[test]
fn every_call_of_a_long_run_and_all_later_ones_fail() {
    parts([1, 2]).for_each(|part| fail_every_call(true, part));
}

#[test]
fn an_operation_fails_once() {
    fail_each(SyncPolicy::Never, FaultKind::Eio, false, false, 1);
    fail_each(SyncPolicy::Never, FaultKind::Eio, false, true, 2);
}

#[test]
fn the_disk_fails_from_one_operation_on() {
    fail_each(SyncPolicy::Never, FaultKind::Eio, true, false, 1);
    fail_each(SyncPolicy::Never, FaultKind::Eio, true, true, 2);
}

#[test]
fn a_write_is_cut_short() {
    fail_each(SyncPolicy::Never, FaultKind::ShortWrite, false, false, 1);
    fail_each(SyncPolicy::Never, FaultKind::ShortWrite, true, false, 2);
}

#[test]
fn an_operation_finds_no_space() {
    fail_each(SyncPolicy::Never, FaultKind::Enospc, false, true, 1);
    fail_each(SyncPolicy::Never, FaultKind::Enospc, true, true, 2);
}

#[test]
fn an_operation_is_interrupted() {
    fail_each(SyncPolicy::Never, FaultKind::Interrupted, false, true, 2);
    fail_each(SyncPolicy::Never, FaultKind::Interrupted, true, false, 2);
}

#[test]
fn under_always_acknowledged_writes_survive_every_failure() {
    fail_each(SyncPolicy::Always, FaultKind::Eio, false, false, 2);
    fail_each(SyncPolicy::Always, FaultKind::Eio, true, true, 3);
    fail_each(SyncPolicy::Always, FaultKind::Enospc, false, false, 3);
    fail_each(SyncPolicy::Always, FaultKind::ShortWrite, true, false, 3);
}

/// In a mapped segment, a large entry is one write. If it fails, nothing of the entry can be read,
/// and the store is poisoned.
#[test]
fn the_write_of_a_large_entry_fails() {
    for kind in [FaultKind::Eio, FaultKind::ShortWrite, FaultKind::Enospc] {
        let options = Options::new().append_mode(AppendMode::Mapped).segment_size(1 << 20);
        let lab = Lab::new().with(options.sync_policy(SyncPolicy::Never));
        let db = lab.open();
        db.put("a", "small").unwrap();
        let before = lab.twin.op_count();
        db.put("b", "x".repeat(3000)).unwrap();
        let trace = lab.twin.trace().split_off(before);
        assert!(matches!(&trace[..], [Op::Write { bytes, .. }] if bytes.len() > 3000), "{trace:?}");
        lab.twin.fail(Fault::new(kind));
        assert!(db.put("b", "y".repeat(5000)).unwrap_err().is_poisoned(), "{kind:?}");
        check_poisoned(&db, "failed");
        let expected =
            Pairs::from([("a".into(), "small".into()), ("b".into(), "x".repeat(3000).into())]);
        assert_eq!(snapshot(&db), expected, "{kind:?}");
        kill(db);
        assert_eq!(snapshot(&lab.killed().open()), expected, "{kind:?}, killed");
    }
}

/// The same without a failure: a kill and power cuts at every operation of a run.
#[test]
fn a_run_may_be_cut_short_at_any_operation() {
    for (policy, with_clear) in [(SyncPolicy::Never, true), (SyncPolicy::Always, false)] {
        let lab = lab(policy);
        let calls = calls(60, with_clear);
        let db = lab.open();
        // By number of operations: the indexes of the durable and the acknowledged state.
        let mut states = vec![Pairs::new()];
        let mut floors = Vec::new();
        let (mut durable, mut acknowledged) = (0, 0);
        let mut pairs = Pairs::new();
        for call in &calls {
            floors.resize(lab.twin.op_count(), (durable, acknowledged));
            call.run(&db).unwrap();
            call.apply(&mut pairs);
            if call.is_write() {
                states.push(pairs.clone());
            }
            // During the call, its write may already have been visible.
            floors.resize(lab.twin.op_count(), (durable, acknowledged));
            acknowledged = states.len() - 1;
            if call.is_durable(policy) {
                durable = acknowledged;
            }
        }
        floors.push((durable, acknowledged));
        kill(db);
        let last = lab.twin.op_count();
        assert_eq!(floors.len(), last + 1);
        let run = Run { states, durable, acknowledged, span: 0..last, poisoned: false };
        for (ops, (durable, acknowledged)) in floors.into_iter().enumerate() {
            let when = format!("{policy:?}, operation {ops}");
            let at = |twin: Arc<Twin>| lab.on(twin);
            let killed = at(lab.twin.kill_image(ops));
            check_left(&killed, &run, acknowledged, &format!("{when}, killed"));
            let harshest = at(lab.twin.power_image(ops, |_| false));
            check_left(&harshest, &run, durable, &format!("{when}, power cut"));
            for seed in 0..if long() { 20 } else { 2 } {
                let mut random = Random(seed << 32 | ops as u64);
                let some = at(lab.twin.power_image(ops, |_| random.below(2) == 0));
                check_left(&some, &run, durable, &format!("{when}, power cut, seed {seed}"));
            }
        }
    }
}

/// A full disk is not the end: failed writes have no effect, and once there is space the store
/// continues.
#[test]
fn on_a_full_disk_only_the_failing_writes_are_affected() {
    for room in (0..6000).step_by(if long() { 8 } else { 100 }) {
        let lab = lab(SyncPolicy::Never);
        let db = lab.open();
        lab.twin.set_space(room);
        let mut pairs = Pairs::new();
        let mut refused = 0;
        for call in calls(60, false) {
            match call.run(&db) {
                Ok(()) => call.apply(&mut pairs),
                Err(error) => {
                    assert!(error.is_no_space(), "{room}: {call:?}: {error}");
                    refused += 1;
                }
            }
            read_all(&db, &pairs, false, "full");
        }
        assert!(refused > 0 || room > 2000, "{room}");
        let killed = lab.killed().open();
        assert_eq!(snapshot(&killed), pairs, "killed while the disk was full");
        kill(killed);
        lab.twin.set_space(u64::MAX);
        for call in calls(60, true) {
            call.run(&db).unwrap();
            call.apply(&mut pairs);
        }
        read_all(&db, &pairs, false, "room again");
        let db = lab.reopen(db);
        assert!(db.recovery().is_clean(), "{room}: {:?}", db.recovery());
        assert_eq!(snapshot(&db), pairs);
    }
}
