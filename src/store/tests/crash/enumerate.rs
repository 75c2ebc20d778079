//! The workloads whose crashes are enumerated: every sync policy, and both append modes.

use super::super::story::long;
use super::*;

/// One of this many states has its recovery interrupted.
const RECOVERY_EACH: u128 = 10;

/// Number of operations of a run.
const OPS: usize = 60;

/// Number of runs of each mode in a thorough test.
const ROUNDS: u64 = 12;

/// The modes to run, by name.
pub(super) const MODES: [(&str, SyncPolicy, AppendMode); 4] = [
    ("never, mapped", SyncPolicy::Never, AppendMode::Mapped),
    ("never, positioned", SyncPolicy::Never, AppendMode::Positioned),
    ("interval, mapped", SyncPolicy::Interval(Duration::from_nanos(1)), AppendMode::Mapped),
    ("always, positioned", SyncPolicy::Always, AppendMode::Positioned),
];

pub(super) fn setting(policy: SyncPolicy, mode: AppendMode) -> Setting {
    let options = Options::new().segment_size(1024).sync_policy(policy).append_mode(mode);
    Setting { options, keys: 7, size_max: 300, weak_hash: false }
}

/// Random operations, among which every kind appears.
pub(super) fn ops(setting: &Setting, len: usize, seed: u64) -> Vec<Op> {
    let mut random = Random(seed);
    (0..len).map(|_| Op::roll(&mut random, setting)).collect()
}

/// Minimum number of distinct states of each run; in total, there are more than 10,000.
const STATES_MIN: usize = 2_600;

fn enumerate(mode: usize) {
    let (name, policy, append_mode) = MODES[mode];
    let (rounds, effort, each) =
        if long() { (ROUNDS, Effort::LONG, 4) } else { (1, Effort::QUICK, RECOVERY_EACH) };
    let mut all = Tally::default();
    for round in 0..rounds {
        let mut setting = setting(policy, append_mode);
        // Every other round has segments of several pages.
        if round % 2 == 1 {
            setting.options = setting.options.segment_size(12 << 10);
            setting.size_max = 6 << 10;
        }
        setting.weak_hash = round % 3 == 2;
        let run = Run::of(&setting, &ops(&setting, OPS, 1 + round));
        all.add(&Judge::all(&run, effort, each));
        println!("{name}, {} of {rounds}: {all}", round + 1);
    }
    assert!(all.states >= STATES_MIN, "{all}");
}

#[test]
fn crashes_without_syncs_mapped() {
    enumerate(0);
}

#[test]
fn crashes_without_syncs_positioned() {
    enumerate(1);
}

#[test]
fn crashes_between_interval_syncs() {
    enumerate(2);
}

#[test]
fn crashes_when_every_write_is_synced() {
    enumerate(3);
}

#[test]
fn operations_decoded_from_bytes() {
    let mut random = Random(1);
    for len in 0..if long() { 2000 } else { 60 } {
        let bytes: Vec<u8> = (0..len * 4).map(|_| random.next().to_be_bytes()[0]).collect();
        operations(&bytes);
    }
}
