//! What clients have seen of one key, and whether a single register could have shown them that.

use std::collections::{BTreeMap, BTreeSet};

use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
use stateright::semantics::{ConsistencyTester as _, LinearizabilityTester};

/// What a client has begun with a key, or what came of that. A client has a new name after each
/// command whose outcome is unknown.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Begun(u64, RegisterOp<u64>),
    Ended(u64, RegisterRet<u64>),
}

/// Returns whether one register could have answered so.
///
/// The judge tries all orders, and must not be given more of them than necessary. What was begun
/// and did not end may take effect at any time. If it is a read, or a write that nobody has read,
/// everything else is possible with it exactly if it is without. A write that was read has taken
/// effect by then, as if it had ended.
pub(crate) fn is_register(events: &[Event]) -> bool {
    let read: BTreeSet<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Ended(_, RegisterRet::ReadOk(value)) => Some(*value),
            _ => None,
        })
        .collect();
    let mut judge = LinearizabilityTester::new(Register(0));
    // The threads whose writes have not ended, by the values that they have written.
    let mut under_way = BTreeMap::new();
    for (at, event) in events.iter().enumerate() {
        match event.clone() {
            Event::Begun(thread, op) => {
                let is_end = |it: &Event| matches!(it, Event::Ended(found, _) if *found == thread);
                let has_ended = events[at..].iter().any(is_end);
                match op {
                    _ if has_ended => {}
                    RegisterOp::Write(value) if read.contains(&value) => {
                        under_way.insert(value, thread);
                    }
                    _ => continue,
                }
                judge.on_invoke(thread, op).unwrap();
            }
            Event::Ended(thread, ret) => {
                let value = if let RegisterRet::ReadOk(value) = ret { Some(value) } else { None };
                judge.on_return(thread, ret).unwrap();
                if let Some(writer) = value.and_then(|value| under_way.remove(&value)) {
                    judge.on_return(writer, RegisterRet::WriteOk).unwrap();
                }
            }
        }
    }
    judge.is_consistent()
}

/// Asserts that all values of a key, in the order in which its changes were told, agree with what
/// clients have seen: each that was acknowledged or read is there once, and behind all that was
/// known when it was begun.
///
/// Requests that come at about the same time are one entry, which tells of a key once. So a value
/// that is not told was replaced at once, by one that was written at the same time.
pub(crate) fn judge_order(events: &[Event], values: &[u64]) {
    let mut places = BTreeMap::from([(0, 0)]);
    for (at, value) in values.iter().enumerate() {
        assert!(places.insert(*value, at + 1).is_none(), "{value} was told twice: {values:?}");
    }
    // What has begun, with the place that was known by then, and the writes that it has met.
    let (mut known, mut under_way) = (0, BTreeMap::<u64, (usize, u64, BTreeSet<u64>)>::new());
    let mut written = BTreeSet::from([0]);
    for event in events {
        match event {
            Event::Begun(thread, op) => {
                let value = if let RegisterOp::Write(value) = op { *value } else { 0 };
                if value != 0 {
                    let place = places.get(&value);
                    assert!(place.is_none_or(|place| *place > known), "{value} was told too early");
                    written.insert(value);
                }
                let met = under_way.values().map(|(_, value, _)| *value).collect();
                for (_, _, others) in under_way.values_mut() {
                    others.insert(value);
                }
                under_way.insert(*thread, (known, value, met));
            }
            Event::Ended(thread, ret) => {
                let (behind, value, met) = under_way.remove(thread).unwrap();
                let value = if let RegisterRet::ReadOk(read) = ret { *read } else { value };
                let replaced_by = || {
                    let is_write = *ret == RegisterRet::WriteOk;
                    let places = met.iter().filter_map(|value| places.get(value));
                    places.filter(|place| is_write && **place > behind).min()
                };
                let place = places.get(&value).or_else(replaced_by);
                let place = *place.unwrap_or_else(|| panic!("{value} was not told: {values:?}"));
                assert!(place >= behind, "{value} was told before {behind}: {values:?}");
                known = known.max(place);
            }
        }
    }
    assert!(places.keys().all(|value| written.contains(value)), "nobody wrote all of {values:?}");
}

#[test]
fn a_register_is_told_from_what_is_none() {
    use Event::{Begun, Ended};
    use RegisterOp::{Read, Write};
    use RegisterRet::{ReadOk, WriteOk};
    // A write whose outcome is unknown takes effect late, or never.
    let late = [
        Begun(1, Write(1)),
        Begun(2, Write(2)),
        Ended(2, WriteOk),
        Begun(2, Read),
        Ended(2, ReadOk(2)),
        Begun(2, Read),
        Ended(2, ReadOk(1)),
    ];
    assert!(is_register(&late));
    assert!(is_register(&late[..5]));
    // What was read does not go away, and what was acknowledged does not either.
    let back = [&late[..], &[Begun(2, Read), Ended(2, ReadOk(2))]].concat();
    assert!(!is_register(&back));
    let lost = [&late[..3], &[Begun(2, Read), Ended(2, ReadOk(0))]].concat();
    assert!(!is_register(&lost));
    let never = [&late[..3], &[Begun(2, Read), Ended(2, ReadOk(3))]].concat();
    assert!(!is_register(&never));
}

#[test]
fn an_order_that_no_client_can_have_seen_is_found() {
    use Event::{Begun, Ended};
    use RegisterOp::{Read, Write};
    use RegisterRet::{ReadOk, WriteOk};
    let mut events = vec![
        Begun(1, Write(1)),
        Begun(2, Write(2)),
        Ended(2, WriteOk),
        Begun(2, Read),
        Ended(2, ReadOk(2)),
        Begun(2, Write(3)),
    ];
    let judge = |events: &[Event], values: &[u64]| {
        std::panic::catch_unwind(|| judge_order(events, values)).is_ok()
    };
    for fits in [&[2][..], &[1, 2], &[2, 1], &[2, 3], &[1, 2, 3], &[2, 1, 3], &[2, 3, 1]] {
        assert!(judge(&events, fits), "{fits:?}");
    }
    // Missing, twice, before what was known, and of nobody.
    for does_not in [&[][..], &[1], &[2, 2], &[3, 2], &[1, 3, 2], &[2, 4]] {
        assert!(!judge(&events, does_not), "{does_not:?}");
    }
    // The third write was replaced at once by the fourth, which began while it was under way.
    events.extend([Begun(3, Write(4)), Ended(2, WriteOk), Ended(3, WriteOk)]);
    assert!(judge(&events, &[2, 4]) && judge(&events, &[2, 4, 3]));
    // By the first one too, which may take effect at any time, but not by one of before.
    assert!(judge(&events, &[2, 1, 4]) && !judge(&events, &[1, 2]));
    // What was read was not replaced at once.
    events.extend([Begun(2, Read), Ended(2, ReadOk(3))]);
    assert!(!judge(&events, &[2, 4]) && judge(&events, &[2, 4, 3]));
}
