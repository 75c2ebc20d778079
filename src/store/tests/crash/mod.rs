//! Crashes, enumerated: every state that a power cut or a kill may leave of a workload is opened
//! and judged, and so is every state that a crash leaves of those recoveries.
//!
//! - `workload` runs operations, and records what was acknowledged and what was durable, and when.
//! - `states` determines what a disk may have kept of unsynced operations.
//! - A state is judged once, unless it recurs where more is required to be present.
//! - `mistakes` makes the engine commit mistakes, each of which has to be detected.
//!
//! The requirements for a state: It opens. It holds the result of a prefix of the operations that
//! includes every durable one. Batches are complete. Opening, merging, closing and reopening it
//! change nothing. A backup either is as it was made, or has no readable manifest and is not
//! opened, not even as a store that may be created.

#[cfg(test)]
mod enumerate;
#[cfg(test)]
mod history;
#[cfg(test)]
mod mistakes;
mod states;
mod workload;

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write as _};

use super::story::Random;
use super::*;
#[cfg(test)]
use crate::options::History;
use crate::options::MergeOptions;
use crate::testing::twin::Kept;
use states::{Choice, Choices, Effort};
use workload::{Dice as _, Op, Point, Run, Setting};

/// What was examined.
#[derive(Debug, Default)]
struct Tally {
    /// Number of moments of the trace.
    moments: usize,
    /// Number of distinct states.
    states: usize,
    /// Number of states left by a crash during the recovery of some of them, and number of these
    /// recoveries.
    recovery_states: usize,
    recoveries: usize,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.moments += other.moments;
        self.states += other.states;
        self.recovery_states += other.recovery_states;
        self.recoveries += other.recoveries;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { moments, states, recovery_states, recoveries } = self;
        write!(
            f,
            "{states} states at {moments} moments, {recovery_states} within {recoveries} recoveries"
        )
    }
}

/// The minimum that must be present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Floor {
    /// Number of the oldest allowed state.
    state: usize,
    /// Number of backups.
    backups: usize,
}

/// Judges the states of one run.
struct Judge<'a> {
    run: &'a Run,
    effort: Effort,
    /// One of this many states has its recovery interrupted.
    recovery_each: u128,
    /// By fingerprint: what had to be present when the state was judged.
    seen: HashMap<u128, Floor>,
    seen_in_recovery: HashSet<u128>,
    tally: Tally,
}

impl<'a> Judge<'a> {
    fn new(run: &'a Run, effort: Effort, recovery_each: u128) -> Self {
        let (seen, seen_in_recovery) = (HashMap::new(), HashSet::new());
        Self { run, effort, recovery_each, seen, seen_in_recovery, tally: Tally::default() }
    }

    /// Examines all moments of a run's trace.
    fn all(run: &'a Run, effort: Effort, recovery_each: u128) -> Tally {
        let mut judge = Self::new(run, effort, recovery_each);
        for ops in 0..run.points.len() {
            judge.moment(ops);
        }
        judge.tally.states = judge.seen.len();
        judge.tally.recovery_states = judge.seen_in_recovery.len();
        judge.tally
    }

    /// Examines everything that a crash at one moment may leave.
    fn moment(&mut self, ops: usize) {
        let (run, point) = (self.run, self.run.points[ops]);
        self.tally.moments += 1;
        self.state(run.lab.twin.kill_image(ops), &point, point.acknowledged, &|| {
            format!("killed after {ops} operations")
        });
        if ops.is_multiple_of(self.effort.kill_each) {
            self.killed_and_cut_off(ops, &point);
        }
        for choice in Choices::at(&run.lab.twin, ops, self.effort) {
            let image = image(&run.lab.twin, ops, &choice);
            self.state(image, &point, point.durable, &|| told(run, ops, &choice));
        }
    }

    fn state(&mut self, image: Arc<Twin>, point: &Point, oldest: usize, when: &dyn Fn() -> String) {
        let fingerprint = image.fingerprint();
        let is_new = !self.seen.contains_key(&fingerprint);
        if !self.is_due(fingerprint, Floor { state: oldest, backups: point.backups }) {
            return;
        }
        let lab = self.run.lab_at(image, point.now);
        let before = lab.twin.fork();
        let found = self.opened(&lab, point, oldest, when);
        if self.effort.is_lived_in {
            if is_new && fingerprint.is_multiple_of(self.recovery_each) {
                self.recovery(&lab, &found, when);
            }
            lived_in(&lab.on(before.clone()), &found, when);
        }
        self.backups(&lab.on(before), point, when);
    }

    /// Returns whether a state has to be judged: it is new, or more must be present than before.
    fn is_due(&mut self, fingerprint: u128, floor: Floor) -> bool {
        let Some(judged) = self.seen.insert(fingerprint, floor) else { return true };
        let least = self.seen.entry(fingerprint).or_insert(floor);
        least.state = floor.state.max(judged.state);
        least.backups = floor.backups.max(judged.backups);
        *least != judged
    }

    /// Opens a state for the first time, and returns its content.
    fn opened(&self, lab: &Lab, point: &Point, oldest: usize, when: &dyn Fn() -> String) -> Pairs {
        let db = open(lab, "first", when);
        let found = snapshot(&db);
        let allowed = &self.run.states[oldest..=point.latest];
        let is_allowed = allowed.iter().any(|state| visible(state, point.now) == found);
        assert!(
            is_allowed,
            "{}: {found:?}\nis none of the states {oldest} to {}: {:#?}\n{:?}",
            when(),
            point.latest,
            allowed.iter().map(|state| visible(state, point.now)).collect::<Vec<_>>(),
            db.recovery(),
        );
        for key in &self.run.keys {
            let value = db.get(key).unwrap_or_else(|error| panic!("{}: {error}", when()));
            assert_eq!(value.as_deref(), found.get(key).map(Vec::as_slice), "{}", when());
        }
        #[cfg(test)]
        if self.run.lab.options.get_keep_history() != History::None {
            history::check(&db, &self.run.feed, point.now, when);
        }
        kill(db);
        found
    }

    /// Interrupts a recorded recovery at each of its steps, and runs it again.
    fn recovery(&mut self, recovered: &Lab, found: &Pairs, when: &dyn Fn() -> String) {
        self.tally.recoveries += 1;
        let twin = &recovered.twin;
        for ops in 0..=twin.op_count() {
            let mut random = Random(ops as u64 ^ 0xD1CE);
            let mut images = vec![twin.kill_image(ops), twin.power_image(ops, |_| false)];
            for _ in 0..self.effort.mixtures.min(4) {
                images.push(twin.power_image(ops, |_| random.below(2) == 0));
            }
            for image in images {
                if !self.seen_in_recovery.insert(image.fingerprint()) {
                    continue;
                }
                let lab = recovered.on(image);
                let when = || format!("{}; its recovery stopped after {ops}", when());
                let db = open(&lab, "after a recovery that stopped", &when);
                assert_eq!(snapshot(&db), *found, "{}", when());
                kill(db);
            }
        }
    }

    /// Kills the process, opens the store, and cuts the power at each step of the opening. Writes
    /// that were unsynced at the kill may still be lost until the store is open.
    fn killed_and_cut_off(&mut self, ops: usize, point: &Point) {
        let twin = self.run.lab.twin.killed(ops);
        let lab = self.run.lab_at(twin, point.now);
        let opened = open(&lab, "killed", &|| format!("killed after {ops} operations"));
        let found = snapshot(&opened);
        kill(opened);
        let last = lab.twin.op_count();
        for cut in ops..=last {
            let mut random = Random(cut as u64);
            for each in 0..2 + self.effort.mixtures.min(4) {
                let image = lab.twin.power_image(cut, |_| match each {
                    0 => false,
                    1 => true,
                    _ => random.below(2) == 0,
                });
                let oldest = if cut == last { point.acknowledged } else { point.durable };
                let fingerprint = image.fingerprint() ^ 1;
                if !self.is_due(fingerprint, Floor { state: oldest, backups: 0 }) {
                    continue;
                }
                let when = || format!("killed after {ops} operations, power lost after {cut}");
                let again = self.opened(&lab.on(image), point, oldest, &when);
                assert!(cut < last || again == found, "{}: {again:?}", when());
            }
        }
    }

    /// Opens all backups.
    fn backups(&self, lab: &Lab, point: &Point, when: &dyn Fn() -> String) {
        for (at, (path, state)) in self.run.backups.iter().enumerate() {
            let exists = lab.twin.files().iter().any(|file| file.starts_with(path));
            if !exists && at >= point.backups {
                continue;
            }
            // Its first durable file already prevents the creation of a new store there.
            match Bitcask::open_on(&lab.env(), path, lab.options.clone()) {
                Ok(db) => {
                    let expected = visible(&self.run.states[*state], point.now);
                    assert_eq!(snapshot(&db), expected, "{}: {}", when(), path.display());
                    kill(db);
                }
                // The manifest comes last, so a backup with a readable manifest is complete.
                Err(error) => {
                    let fs = lab.env().fs;
                    let manifest = Manifest::read(&fs, &Dir::new(path.clone()));
                    let is_readable = matches!(manifest, Ok(Some(_)));
                    assert!(at >= point.backups && !is_readable, "{}: {error}", when());
                }
            }
        }
    }
}

/// Runs operations decoded from bytes, and crashes at some moments.
pub(crate) fn operations(mut dice: &[u8]) {
    let policies =
        [SyncPolicy::Never, SyncPolicy::Interval(Duration::from_nanos(1)), SyncPolicy::Always];
    let policy = policies[usize::try_from(dice.below(3)).unwrap()];
    let modes = [AppendMode::Mapped, AppendMode::Positioned];
    let mode = modes[usize::try_from(dice.below(2)).unwrap()];
    let entries = [2, 5, u64::MAX][usize::try_from(dice.below(3)).unwrap()];
    let options = Options::new().segment_size(1024).segment_entries(entries);
    let options = options.sync_policy(policy).append_mode(mode);
    let weak_hash = dice.below(2) == 1;
    let setting = Setting { options, keys: 5, size_max: 200, weak_hash };
    let mut random = Random(dice.iter().fold(7, |sum, byte| sum * 31 % 65_521 + u64::from(*byte)));
    let mut ops = Vec::new();
    while !dice.is_over() && ops.len() < 64 {
        ops.push(Op::roll(&mut dice, &setting));
    }
    let run = Run::of(&setting, &ops);
    // A fuzzer gives many inputs, so little is examined of each.
    let effort = Effort { kill_each: 3, is_lived_in: true, ..Effort::GLANCE };
    let mut judge = Judge::new(&run, effort, 16);
    let last = run.points.len() - 1;
    judge.moment(last);
    judge.moment(usize::try_from(random.below(last as u64 + 1)).unwrap());
}

impl Run {
    /// The run's environment, with another disk at another time.
    fn lab_at(&self, twin: Arc<Twin>, now: u64) -> Lab {
        Lab { twin, hands: Hands::at(now), ..self.lab.clone() }
    }
}

/// Opens a state, merges it, writes to it, closes it and reopens it. Its content must stay the
/// same.
fn lived_in(lab: &Lab, found: &Pairs, when: &dyn Fn() -> String) {
    kill(open(lab, "once more", when));
    let db = open(lab, "a second time", when);
    assert!(found_in_order(&db), "{}: {:?}", when(), db.recovery());
    assert_eq!(snapshot(&db), *found, "{}: opened a second time", when());
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    assert_eq!(snapshot(&db), *found, "{}: merged", when());
    db.put("an extra key", "value").unwrap();
    db.delete("an extra key").unwrap();
    db.close().unwrap();
    let db = open(lab, "a third time", when);
    assert!(db.recovery().is_clean(), "{}: {:?}", when(), db.recovery());
    assert_eq!(snapshot(&db), *found, "{}: closed and opened", when());
    kill(db);
}

fn open(lab: &Lab, which: &str, when: &dyn Fn() -> String) -> Bitcask {
    Bitcask::open_on(&lab.env(), Path::new(DIR), lab.options.clone())
        .unwrap_or_else(|error| panic!("{}: opened {which}: {error}", when()))
}

/// Returns the disk that a choice leaves.
fn image(twin: &Twin, ops: usize, choice: &Choice) -> Arc<Twin> {
    let mut kept = choice.iter();
    twin.torn_image(ops, |_| kept.next().unwrap().clone())
}

/// Describes what a power cut has left.
fn told(run: &Run, ops: usize, choice: &Choice) -> String {
    let unsynced = run.lab.twin.unsynced(ops);
    let mut text = format!("power lost after {ops} operations");
    for ((op, _), kept) in unsynced.iter().zip(choice).filter(|(_, kept)| **kept != Kept::All) {
        let _ = write!(text, "\n  {kept:?} of {op:?}");
    }
    text
}
