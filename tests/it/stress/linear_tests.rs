//! Checks the search for an order against histories that have one, histories that have none, and a
//! search that tries all orders.

use super::history::{Act, Life, Op, State, Tag, Told, complete};
use super::linear::disorder;
use crate::support::Random;

fn tag(sequence: u64) -> Tag {
    Tag { thread: 1, sequence }
}

fn op(start: u64, end: u64, act: Act) -> Op {
    Op { start, end, thread: 1, call: "test", act, after: Vec::new() }
}

fn put(start: u64, end: u64, value: u64) -> Op {
    op(start, end, Act::Write(Some((tag(value), Life::Endless))))
}

fn mortal(start: u64, end: u64, value: u64, gone: u64) -> Op {
    op(start, end, Act::Write(Some((tag(value), Life::Until(gone)))))
}

fn swap(start: u64, end: u64, old: Option<u64>, new: u64) -> Op {
    op(start, end, Act::Swap(old.map(tag), Some((tag(new), Life::Endless))))
}

fn get(start: u64, end: u64, value: u64) -> Op {
    op(start, end, Act::Saw(Some(tag(value))))
}

fn miss(start: u64, end: u64) -> Op {
    op(start, end, Act::Saw(None))
}

fn delete(start: u64, end: u64) -> Op {
    op(start, end, Act::Delete)
}

#[track_caller]
fn ordered(ops: &[Op]) {
    assert_eq!(disorder(ops), None);
}

#[track_caller]
fn disordered(ops: &[Op]) -> String {
    disorder(ops).unwrap()
}

#[test]
fn sequential_calls_have_one_order() {
    ordered(&[]);
    ordered(&[miss(1, 2), put(3, 4, 1), get(5, 6, 1), delete(7, 8), miss(9, 10)]);
    ordered(&[swap(1, 2, None, 1), swap(3, 4, Some(1), 2), get(5, 6, 2)]);
    let refused = [op(5, 6, Act::SawSome), op(7, 8, Act::SawOther(tag(7)))];
    ordered(&[&[put(1, 2, 1)], refused.as_slice()].concat());
}

#[test]
fn overlapping_calls_may_have_either_order() {
    ordered(&[put(1, 10, 1), miss(2, 3), get(4, 5, 1)]);
    ordered(&[put(1, 10, 1), put(2, 9, 2), get(3, 4, 2), get(5, 6, 1)]);
    ordered(&[put(1, 10, 1), put(2, 9, 2), get(3, 4, 1), get(5, 6, 2)]);
    ordered(&[put(1, 2, 1), delete(3, 12), put(4, 5, 2), get(6, 7, 2), miss(13, 14)]);
}

#[test]
fn a_stale_read_is_found() {
    let told = disordered(&[put(1, 2, 1), put(3, 4, 2), get(5, 6, 1), get(7, 8, 2)]);
    assert!(told.contains("[5..6]") && !told.contains("[7..8]"), "{told}");
    disordered(&[put(1, 2, 1), miss(3, 4)]);
    disordered(&[put(1, 10, 1), get(2, 3, 1), miss(4, 5)]);
    disordered(&[put(1, 10, 1), put(2, 9, 2), get(3, 4, 2), get(5, 6, 1), get(7, 8, 2)]);
}

#[test]
fn a_lost_update_is_found() {
    disordered(&[put(1, 2, 1), swap(3, 6, Some(1), 2), swap(4, 5, Some(1), 3)]);
    disordered(&[put(1, 2, 1), put(3, 4, 2), swap(5, 6, Some(1), 3)]);
}

#[test]
fn a_value_from_nowhere_is_found() {
    disordered(&[get(1, 2, 1)]);
    disordered(&[get(1, 2, 1), put(3, 4, 1)]);
    ordered(&[get(1, 4, 1), put(2, 5, 1)]);
}

#[test]
fn a_resurrected_value_is_found() {
    let told = disordered(&[put(1, 2, 1), delete(3, 4), miss(5, 6), get(7, 8, 1)]);
    assert!(told.contains("was [Absent]") && told.contains("v1.1 is from [1..2]"), "{told}");
    disordered(&[put(1, 2, 1), op(3, 4, Act::Write(None)), get(5, 6, 1)]);
    disordered(&[put(1, 2, 1), delete(3, 4), delete(5, 6)]);
}

#[test]
fn two_winning_swaps_of_one_value_are_found() {
    disordered(&[swap(1, 4, None, 1), swap(2, 3, None, 2)]);
    ordered(&[swap(1, 4, None, 1), swap(2, 3, Some(1), 2)]);
    disordered(&[put(1, 2, 1), op(3, 4, Act::SawOther(tag(1)))]);
    disordered(&[op(1, 2, Act::SawSome)]);
}

#[test]
fn an_expired_value_stays_absent() {
    ordered(&[mortal(1, 2, 1, 9), get(3, 4, 1), miss(5, 6), miss(7, 8)]);
    disordered(&[mortal(1, 2, 1, 9), miss(3, 4), get(5, 6, 1)]);
    disordered(&[mortal(1, 2, 1, 9), get(10, 11, 1)]);
    disordered(&[mortal(1, 2, 1, 9), miss(3, 4), op(5, 6, Act::Live(Life::Endless))]);
    let longer = op(3, 4, Act::Live(Life::Endless));
    ordered(&[mortal(1, 2, 1, 9), longer.clone(), get(10, 11, 1)]);
    disordered(&[mortal(1, 2, 1, 9), longer, miss(5, 6)]);
    disordered(&[put(1, 2, 1), op(3, 4, Act::Live(Life::Until(4))), get(5, 6, 1)]);
    // A conditional change is valid only while its condition holds, even if the call began earlier.
    for start in [3, 6] {
        disordered(&[mortal(1, 2, 1, 9), miss(4, 5), swap(start, 8, Some(1), 2)]);
        ordered(&[mortal(1, 2, 1, 9), miss(4, 5), swap(start, 8, None, 2)]);
    }
    ordered(&[mortal(1, 2, 1, 9), swap(3, 8, Some(1), 2), get(4, 5, 2)]);
}

#[test]
fn a_sweep_removes_a_key_that_no_concurrent_call_changes() {
    let sweep = |start, end, act| op(start, end, act);
    let completed = |mut ops: Vec<Op>| {
        assert!(complete(&mut ops, &[]).is_empty());
        disorder(&ops)
    };
    let with = |put, act, found| completed(vec![put, sweep(5, 8, act), found]);
    assert_eq!(with(put(1, 2, 1), Act::Sweep, miss(9, 10)), None);
    assert!(with(put(1, 2, 1), Act::Sweep, get(9, 10, 1)).is_some());
    assert_eq!(with(put(4, 6, 1), Act::Sweep, get(9, 10, 1)), None);
    assert_eq!(with(put(4, 6, 1), Act::Sweep, miss(9, 10)), None);
    assert!(with(put(1, 2, 1), Act::SweptNone, get(9, 10, 1)).is_some());
    assert_eq!(with(put(4, 6, 1), Act::SweptNone, get(9, 10, 1)), None);
}

#[test]
fn the_order_must_match_what_followers_received() {
    let told = |values: &[(u64, u64)]| {
        let told = |&(value, stamp)| Told { tag: tag(value), stamp };
        vec![values.iter().map(told).collect::<Vec<_>>()]
    };
    let judged = |mut ops: Vec<Op>, told: &[Vec<Told>]| {
        let wrong = complete(&mut ops, told);
        disorder(&ops).into_iter().chain(wrong).next()
    };
    // The follower received the value by stamp 4, so it is present from then on.
    let late = || vec![put(1, 10, 1), miss(5, 6)];
    assert_eq!(judged(late(), &[]), None);
    assert!(judged(late(), &told(&[(1, 4)])).is_some());
    assert_eq!(judged(late(), &told(&[(1, 7)])), None);
    // The follower received the values in this order, so they were stored in this order.
    let both = || vec![put(1, 10, 1), put(2, 11, 2), get(20, 21, 1)];
    assert_eq!(judged(both(), &told(&[(2, 12), (1, 13)])), None);
    assert!(judged(both(), &told(&[(1, 12), (2, 13)])).is_some());
    assert!(judged(both(), &told(&[(2, 12), (1, 13), (2, 14)])).is_some());
    let from_nowhere = judged(both(), &told(&[(3, 12)])).unwrap();
    assert!(from_nowhere.contains("which no call stored"), "{from_nowhere}");
}

#[test]
fn the_printed_window_is_small() {
    let mut ops = Vec::new();
    for at in 0..20_000 {
        let stamp = at * 10 + 1;
        ops.extend([put(stamp, stamp + 4, at), get(stamp + 1, stamp + 6, at)]);
    }
    ordered(&ops);
    let mut wrong = ops.clone();
    wrong.push(get(100_007, 100_009, 9_000));
    let told = disordered(&wrong);
    assert!(told.starts_with("2 of 40001 "), "{told}");
    assert!(told.contains("v1.9000 is from [90001..90005]"), "{told}");
}

/// Tries all orders of the remaining operations.
fn has_order(ops: &[Op], state: State, done: u32) -> bool {
    let is_left = |at: usize| done & 1 << at == 0;
    let left = (0..ops.len()).filter(|at| is_left(*at));
    // No remaining operation may have ended before the next one starts.
    let may_be_next = |at: usize| {
        left.clone().all(|other| ops[other].end > ops[at].start)
            && ops[at].after.iter().all(|tag| {
                left.clone().all(|other| other == at || ops[other].act.stores() != Some(*tag))
            })
    };
    let mut next = left.clone().filter(|at| may_be_next(*at));
    left.clone().count() == 0
        || next.any(|at| {
            let mut states = ops[at].apply(state);
            states.any(|state| has_order(ops, state, done | 1 << at))
        })
}

/// Returns two to seven calls, about three of them concurrent, with random results.
fn random_history(random: &mut Random) -> Vec<Op> {
    let len = 2 + random.below(6);
    let mut stamps: Vec<u64> = (0..2 * len).collect();
    for at in (1..stamps.len()).rev() {
        // Each call's start and end are close to each other.
        let other = at.saturating_sub(usize::try_from(random.below(4)).unwrap());
        stamps.swap(at, other);
    }
    let mut ops: Vec<Op> = Vec::new();
    for (at, pair) in stamps.chunks(2).enumerate() {
        let (own, other) = (at as u64, tag(random.below(len)));
        let life = match random.below(3) {
            0 => Life::Until(random.below(2 * len)),
            _ => Life::Endless,
        };
        let found = (random.below(3) > 0).then_some(other);
        let stored = (random.below(4) > 0).then_some((tag(own), life));
        let act = match random.below(12) {
            0..4 => Act::Write(stored),
            4 | 5 => Act::Saw(found),
            6 => Act::Swap(found, stored),
            7 => Act::Delete,
            8 => Act::SawOther(other),
            9 => Act::Live(life),
            10 => [Act::SawSome, Act::SweptNone][usize::try_from(random.below(2)).unwrap()],
            _ => [Act::Sweep, Act::SweepAll][usize::try_from(random.below(2)).unwrap()],
        };
        ops.push(op(pair[0].min(pair[1]), pair[0].max(pair[1]), act));
    }
    if let Some(at) = ops.iter().position(|op| op.act.stores().is_some())
        && random.below(3) == 0
    {
        // No value is received after itself.
        let before = random.below(len);
        ops[at].after.extend((at as u64 != before).then(|| tag(before)));
    }
    ops
}

#[test]
fn the_search_agrees_with_one_that_tries_all_orders() {
    let (mut with, mut without) = (0, 0);
    for seed in 0..60_000 {
        let ops = random_history(&mut Random(seed));
        let expected = has_order(&ops, State::Absent, 0);
        let found = disorder(&ops);
        assert_eq!(found.is_none(), expected, "seed {seed}: {ops:#?}\n{found:?}");
        *(if expected { &mut with } else { &mut without }) += 1;
    }
    assert!(with > 10_000 && without > 10_000, "{with} with an order, {without} without");
}
