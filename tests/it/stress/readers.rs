//! The threads that read keys, individually and all at one moment, and the threads that follow
//! changes.

use std::time::Duration;

use bitcask::{Change, Changes, Operation, Position, Snapshot};

use super::actor::{Actor, Seen, tag};
use super::history::{Act, Tag, Told};

/// Maximum number of snapshots held at the same time.
const HELD_MAX: usize = 2;

impl Actor<'_> {
    /// Reads until the writers are done, but makes at most `steps` steps.
    pub(super) fn read(&mut self, steps: u64) {
        for _ in 0..steps {
            if self.shared.is_over() {
                break;
            }
            match self.below(20) {
                0..6 => drop(self.get_any()),
                6..9 => self.contains_key(),
                9..11 => self.get_many(),
                11 => self.iterate(),
                12..15 => self.take_snapshot(),
                15 => self.look_again(),
                16..18 => self.scan(),
                _ => self.scan_group(),
            }
        }
        while !self.held.is_empty() {
            self.look_again();
        }
    }

    fn get_any(&mut self) -> Option<Tag> {
        let at = self.below(self.shared.layout.keys());
        self.get(at)
    }

    fn contains_key(&mut self) {
        let at = self.plain();
        let key = self.name(at);
        let (span, there) = self.timed(|db| db.contains_key(key));
        let act = if there.unwrap() { Act::SawSome } else { Act::Saw(None) };
        self.note(at, span, "contains_key", act);
    }

    /// Gets all plain keys, each as it was at some moment.
    fn get_many(&mut self) {
        let names: Vec<_> = (0..self.shared.layout.plain).map(|at| self.name(at)).collect();
        let (span, found) = self.timed(|db| db.get_many(&names));
        for (at, found) in found.unwrap().into_iter().enumerate() {
            let found = found.map(|value| tag(at, &value));
            self.note(at, span, "get_many", Act::Saw(found));
        }
    }

    /// Iterates over the live store, which shows no single moment. A value that it yields was
    /// present at some moment; a key that it does not yield may have been changed meanwhile.
    fn iterate(&mut self) {
        let layout = self.shared.layout;
        let (span, found) = self.timed(|db| {
            let pairs = db.iter_unordered().map(|pair| {
                let (key, value) = pair.unwrap();
                let at = layout.number(&key);
                (at, tag(at, &value))
            });
            pairs.collect::<Vec<_>>()
        });
        for (at, found) in found {
            self.note(at, span, "iter", Act::Saw(Some(found)));
        }
    }

    /// Takes a snapshot, reads all keys, and keeps the snapshot to read it again later.
    fn take_snapshot(&mut self) {
        let (span, snapshot) = self.timed(|db| db.snapshot());
        let seen = self.look(&snapshot);
        self.note_moment(span, "snapshot", &seen);
        self.held.push_back((snapshot, seen));
        if self.held.len() > HELD_MAX {
            self.look_again();
        }
    }

    /// Reads the oldest held snapshot again, and drops it.
    fn look_again(&mut self) {
        let Some((snapshot, before)) = self.held.pop_front() else { return };
        let seen = self.look(&snapshot);
        if seen != before {
            self.complain(format!("a snapshot showed {before:?}, and later {seen:?}"));
        }
    }

    /// Returns all keys as a snapshot shows them, by look-ups or by iteration in order.
    fn look(&mut self, snapshot: &Snapshot) -> Seen {
        let layout = self.shared.layout;
        if self.below(2) == 0 {
            let get = |at| snapshot.get(layout.name(at)).unwrap().map(|value| tag(at, &value));
            return (0..layout.keys()).map(get).collect();
        }
        self.gather(snapshot.iter())
    }

    fn gather(
        &self,
        pairs: impl Iterator<Item = bitcask::Result<(bitcask::Value, bitcask::Value)>>,
    ) -> Seen {
        let layout = self.shared.layout;
        let mut seen = vec![None; layout.keys()];
        for pair in pairs {
            let (key, value) = pair.unwrap();
            let at = layout.number(&key);
            seen[at] = Some(tag(at, &value));
        }
        seen
    }

    /// Iterates over all keys in order, as of the start of the iteration.
    fn scan(&mut self) {
        let (span, pairs) = self.timed(|db| db.range(..));
        let seen = if self.below(2) == 0 { self.gather(pairs) } else { self.gather(pairs.rev()) };
        self.note_moment(span, "range", &seen);
    }

    /// Reads a group in order, or in a read-only transaction.
    fn scan_group(&mut self) {
        let layout = self.shared.layout;
        let group = self.below(layout.groups.len());
        let prefix = format!("g{group}/");
        let members = layout.members(group);
        let (call, span, seen) = if self.below(2) == 0 {
            let (span, pairs) = self.timed(|db| db.prefix(prefix));
            ("prefix", span, self.gather(pairs))
        } else {
            let (span, seen) = self.timed(|db| {
                db.transaction(|tx| {
                    let names: Vec<_> = (0..layout.keys()).map(|at| layout.name(at)).collect();
                    let get = |at: usize| {
                        let found = if members.contains(&at) { tx.get(&names[at])? } else { None };
                        Ok(found.map(|value| tag(at, &value)))
                    };
                    (0..layout.keys()).map(get).collect::<bitcask::Result<Seen>>()
                })
            });
            ("read-only transaction", span, seen.unwrap())
        };
        for at in members.clone() {
            self.note(at, span, call, Act::Saw(seen[at]));
        }
        let found = &seen[members];
        if self.is_whole(group, call, found) {
            self.note(layout.keys() + group, span, call, Act::Saw(found[0]));
        }
    }

    /// Records all keys while no thread changes them: by look-ups, and at one moment.
    pub(super) fn read_all(&mut self, call: &'static str) {
        for at in 0..self.shared.layout.keys() {
            let key = self.name(at);
            let (span, found) = self.timed(|db| db.get(key));
            let found = found.unwrap().map(|value| tag(at, &value));
            self.note(at, span, call, Act::Saw(found));
        }
        let (span, pairs) = self.timed(|db| db.range(..));
        let seen = self.gather(pairs);
        self.note_moment(span, call, &seen);
    }

    /// Follows the changes from a position until the writers are done and nothing is left. Where
    /// the history is no longer available, continues from the current position.
    pub(super) fn follow(&mut self, since: Position) {
        let mut position = since;
        loop {
            let mut changes = match self.db().changes(position) {
                Ok(changes) => changes,
                Err(error) if error.needs_resync() => {
                    position = self.db().position();
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            match self.follow_on(&mut changes) {
                Ok(()) => return,
                Err(error) if error.needs_resync() => position = self.db().position(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn follow_on(&mut self, changes: &mut Changes) -> bitcask::Result<()> {
        let mut reached = changes.resume_position();
        let mut batch = Vec::new();
        loop {
            let is_over = self.shared.is_over();
            let Some(change) = changes.recv_timeout(Duration::from_millis(1))? else {
                if is_over {
                    return Ok(());
                }
                continue;
            };
            if change.position <= reached {
                self.complain(format!("received {reached} and then {change:?}"));
            }
            reached = change.position;
            self.hear(&change, &mut batch);
        }
    }

    /// Records a change that a follower received, and reads its key. `batch` holds the changes
    /// received so far of the change's batch.
    fn hear(&mut self, change: &Change, batch: &mut Vec<(usize, Option<Tag>)>) {
        let layout = self.shared.layout;
        let stamp = self.shared.stamp();
        let at = layout.number(&change.key);
        let told = match &change.operation {
            Operation::Put { value, .. } => Some(tag(at, value)),
            _ => None,
        };
        if let Some(tag) = told {
            self.notes.told.entry(at).or_default().push(Told { tag, stamp });
        }
        batch.push((at, told));
        if !change.batch_continues {
            self.hear_batch(&std::mem::take(batch), stamp);
        }
        let key = self.name(at);
        let (span, found) = self.timed(|db| db.get(key));
        let found = found.unwrap().map(|value| tag(at, &value));
        self.note(at, span, "get of a received key", Act::Saw(found));
    }

    /// Checks that a follower received all keys of a group together.
    fn hear_batch(&mut self, batch: &[(usize, Option<Tag>)], stamp: u64) {
        let layout = self.shared.layout;
        for group in 0..layout.groups.len() {
            let members = layout.members(group);
            let of_group = batch.iter().filter(|(at, _)| members.contains(at));
            let found: Vec<Option<Tag>> = of_group.map(|(_, told)| *told).collect();
            let Some(Some(tag)) = found.first().copied() else { continue };
            if !self.is_whole(group, "follower", &found) {
                continue;
            }
            if found.len() < members.len() {
                self.complain(format!("received only a part of group g{group}: {batch:?}"));
            }
            let register = layout.keys() + group;
            self.notes.told.entry(register).or_default().push(Told { tag, stamp });
        }
    }
}
