//! What clients did and saw, and whether a single store could have shown them that.
//!
//! - A client appends to a list, and each append has a mark of its own. So what a list holds at the
//!   end tells the order of all appends, and a read tells how many of them it saw.
//! - With that, a history is linearizable if the position of each operation is behind that of every
//!   one that had ended before it began. That takes no search.

use std::collections::{BTreeMap, BTreeSet};

/// Size of the mark of an append, in bytes.
pub(super) const MARK_SIZE: usize = 7;

/// What a client has learnt about an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing yet, and perhaps nothing ever. It may take effect at any time.
    Nothing,
    /// An append is the one at this position, counted from 1.
    At(usize),
    /// A read has found this.
    Found(String),
    /// The operation was not done, and never will be.
    NotDone,
}

#[derive(Debug, Clone)]
struct Operation {
    key: usize,
    /// The mark of an append; `None` if it is a read.
    mark: Option<String>,
    /// Whether it is a read that may be stale.
    is_stale: bool,
    /// When it began and ended, in the order of all events.
    begun: usize,
    ended: Option<usize>,
    seen: Seen,
}

/// What all clients did.
#[derive(Debug, Default)]
pub(super) struct ListHistory {
    operations: Vec<Operation>,
    events: usize,
}

impl ListHistory {
    fn begin(&mut self, key: usize, mark: Option<String>, is_stale: bool) -> usize {
        self.events += 1;
        let begun = self.events;
        let seen = Seen::Nothing;
        self.operations.push(Operation { key, mark, is_stale, begun, ended: None, seen });
        self.operations.len() - 1
    }

    /// Notes that an append begins. Returns its number, and its mark.
    pub(super) fn append(&mut self, key: usize) -> (usize, String) {
        let mark = format!("{:06},", self.operations.len());
        assert_eq!(mark.len(), MARK_SIZE);
        (self.begin(key, Some(mark.clone()), false), mark)
    }

    /// Notes that a read begins. Returns its number.
    pub(super) fn read(&mut self, key: usize, is_stale: bool) -> usize {
        self.begin(key, None, is_stale)
    }

    /// Notes what the client has learnt at the end.
    pub(super) fn end(&mut self, number: usize, seen: Seen) {
        self.events += 1;
        let operation = &mut self.operations[number];
        // What may still take effect has not ended, although its client waits no more.
        operation.ended = (seen != Seen::Nothing).then_some(self.events);
        operation.seen = seen;
    }

    /// Returns how many operations have ended with an answer.
    pub(super) fn answered(&self) -> usize {
        let is_answered = |it: &&Operation| matches!(it.seen, Seen::At(_) | Seen::Found(_));
        self.operations.iter().filter(is_answered).count()
    }

    /// Returns all operations, to be compared.
    pub(super) fn shown(&self) -> Vec<String> {
        self.operations.iter().map(|operation| format!("{operation:?}")).collect()
    }

    /// Compares everything with what the lists hold at the end.
    pub(super) fn judge(&self, lists: &BTreeMap<usize, String>) -> Result<(), String> {
        let keys: BTreeSet<_> = self.operations.iter().map(|it| it.key).collect();
        for key in keys {
            let list = lists.get(&key).map_or("", String::as_str);
            self.judge_list(key, list).map_err(|why| format!("list {key}: {why}"))?;
        }
        Ok(())
    }

    fn judge_list(&self, key: usize, list: &str) -> Result<(), String> {
        let mut marks = BTreeMap::new();
        for at in 0..list.len() / MARK_SIZE {
            let mark = &list[at * MARK_SIZE..(at + 1) * MARK_SIZE];
            if marks.insert(mark, at + 1).is_some() {
                return Err(format!("{mark} was appended twice"));
            }
        }
        // Each operation, with the position that it has in the order of the list.
        let mut placed = Vec::new();
        for operation in self.operations.iter().filter(|it| it.key == key) {
            if let Some(at) = place_of(operation, &mut marks, list)? {
                placed.push((operation, at));
            }
        }
        if let Some(mark) = marks.keys().next() {
            return Err(format!("nobody has appended {mark}"));
        }
        order(&placed)
    }
}

/// Returns the position of an operation, if it has one. Takes what it has appended.
fn place_of(
    operation: &Operation,
    marks: &mut BTreeMap<&str, usize>,
    list: &str,
) -> Result<Option<usize>, String> {
    let place = operation.mark.as_deref().and_then(|mark| marks.remove(mark));
    match (&operation.seen, &operation.mark) {
        (Seen::NotDone, Some(mark)) if place.is_some() => {
            Err(format!("{mark} was refused, and is there"))
        }
        (Seen::At(at), Some(mark)) if place != Some(*at) => {
            Err(format!("{mark} was acknowledged at {at}, and is at {place:?}"))
        }
        (Seen::Found(found), _) if !list.starts_with(found.as_str()) => {
            Err(format!("a read found {found}, which is no beginning of {list}"))
        }
        (Seen::Found(found), _) => Ok((!operation.is_stale).then_some(found.len() / MARK_SIZE)),
        _ => Ok(place),
    }
}

/// Fails if an operation has a position before one that had ended when it began.
fn order(placed: &[(&Operation, usize)]) -> Result<(), String> {
    let mut ended: Vec<_> =
        placed.iter().filter_map(|(it, at)| it.ended.map(|ended| (ended, *at))).collect();
    ended.sort_unstable();
    let mut placed = placed.to_vec();
    placed.sort_unstable_by_key(|(it, _)| it.begun);
    let (mut ended, mut behind) = (ended.into_iter().peekable(), 0);
    for (operation, at) in placed {
        while let Some((_, at)) = ended.next_if(|(ended, _)| *ended < operation.begun) {
            behind = behind.max(at);
        }
        let is_behind = if operation.mark.is_some() { at > behind } else { at >= behind };
        if !is_behind {
            return Err(format!(
                "{} has position {at}, and began when {behind} was known",
                operation.mark.as_deref().unwrap_or("a read")
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod own {
    use super::*;

    fn lists(list: &str) -> BTreeMap<usize, String> {
        BTreeMap::from([(0, list.to_owned())])
    }

    #[test]
    fn what_a_single_store_shows_is_accepted() {
        let mut history = ListHistory::default();
        let (first, _) = history.append(0);
        let (unknown, _) = history.append(0);
        let early = history.read(0, false);
        history.end(first, Seen::At(1));
        history.end(unknown, Seen::Nothing);
        history.end(early, Seen::Found(String::new()));
        let between = history.read(0, false);
        history.end(between, Seen::Found("000000,".to_owned()));
        let late = history.read(0, false);
        history.end(late, Seen::Found("000000,000001,".to_owned()));
        assert_eq!(history.judge(&lists("000000,000001,")), Ok(()));
    }

    #[test]
    fn what_no_single_store_shows_is_not_accepted() {
        let of = |seen: Seen, then: &str| {
            let mut history = ListHistory::default();
            let (first, _) = history.append(0);
            history.end(first, seen);
            let read = history.read(0, false);
            history.end(read, Seen::Found(then.to_owned()));
            history
        };
        let acknowledged = || Seen::At(1);
        let whole = "000000,";
        assert!(of(acknowledged(), whole).judge(&lists(whole)).is_ok());
        // A lost write, a repeated one, one that was refused, and a stale read.
        assert!(of(acknowledged(), "").judge(&lists("")).is_err());
        assert!(of(acknowledged(), whole).judge(&lists("000000,000000,")).is_err());
        assert!(of(Seen::NotDone, whole).judge(&lists(whole)).is_err());
        assert!(of(acknowledged(), "").judge(&lists(whole)).is_err());
        // What nobody has appended, and what was seen and is gone.
        assert!(of(acknowledged(), whole).judge(&lists("000000,000009,")).is_err());
        assert!(of(Seen::Nothing, whole).judge(&lists("")).is_err());
    }
}
