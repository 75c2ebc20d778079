//! The threads that change keys.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bitcask::{Batch, Error, WriteOptions};

use super::actor::{Actor, SHORT, Span, bytes, endless, tag};
use super::history::{Act, Life, Tag};

impl Actor<'_> {
    /// Makes `steps` changes, of all kinds.
    pub(super) fn write(&mut self, steps: u64) {
        for _ in 0..steps {
            match self.below(100) {
                0..20 => self.put(),
                20..36 => self.delete(),
                36..48 => self.batch(),
                48..62 => self.batch_of_group(),
                62..69 => self.compare_and_swap(),
                69..75 => self.put_if_absent(),
                75..81 => self.update(),
                81..87 => self.change_life(),
                87..92 => self.transfer(),
                92..97 => self.transaction_of_group(),
                97 => self.remove_one(),
                _ => self.remove_some(),
            }
            self.shared.counters.progress.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn put(&mut self) {
        let (at, new) = (self.plain(), self.fresh());
        let (ttl, life) = self.life();
        let mut options = WriteOptions::new();
        if let Some(ttl) = ttl {
            options = options.ttl(ttl);
        }
        if self.below(20) == 0 {
            options = options.durable(true);
        }
        let (key, value) = (self.name(at), bytes(at, new));
        let (span, result) = self.timed(|db| db.put_opt(key, value, options));
        result.unwrap();
        self.note(at, span, "put", Act::Write(Some((new, life))));
    }

    fn delete(&mut self) {
        let at = self.plain();
        let key = self.name(at);
        let (span, existed) = self.timed(|db| db.delete(key));
        let act = if existed.unwrap() { Act::Delete } else { Act::Saw(None) };
        self.note(at, span, "delete", act);
    }

    /// Changes several keys in a batch, each in a different way.
    fn batch(&mut self) {
        let (first, len) = (self.plain(), 2 + self.below(5));
        let (mut batch, mut acts) = (Batch::new(), Vec::new());
        for at in (first..first + len).map(|at| at % self.shared.layout.plain) {
            let key = self.name(at);
            if self.below(3) == 0 {
                batch.delete(key);
                acts.push((at, Act::Write(None)));
                continue;
            }
            let (new, (ttl, life)) = (self.fresh(), self.life());
            let options = ttl.map(|ttl| WriteOptions::new().ttl(ttl)).unwrap_or_default();
            batch.put_opt(key, bytes(at, new), options);
            acts.push((at, Act::Write(Some((new, life)))));
        }
        let (span, result) = self.timed(|db| db.write(&batch));
        result.unwrap();
        for (at, act) in acts {
            self.note(at, span, "batch", act);
        }
    }

    /// Gives all keys of a group values of one write, or removes them all.
    fn batch_of_group(&mut self) {
        let group = self.below(self.shared.layout.groups.len());
        let new = (self.below(5) < 3).then(|| self.fresh());
        let mut batch = Batch::new();
        for at in self.shared.layout.members(group) {
            match new {
                Some(new) => batch.put(self.name(at), bytes(at, new)),
                None => batch.delete(self.name(at)),
            };
        }
        let (span, result) = self.timed(|db| db.write(&batch));
        result.unwrap();
        self.note_group(group, span, "batch of a group", || Act::Write(endless(new)));
    }

    /// Reads a key, and swaps the value that it found for a new value or for none.
    fn compare_and_swap(&mut self) {
        let at = self.plain();
        let old = self.get(at);
        let new = (self.below(3) > 0).then(|| self.fresh());
        let key = self.name(at);
        let [expected, replacement] = [old, new].map(|tag| tag.map(|tag| bytes(at, tag)));
        let (span, swapped) =
            self.timed(|db| db.compare_and_swap(key, expected.as_deref(), replacement.as_deref()));
        let act = match (swapped.unwrap(), old) {
            (Ok(()), old) => Act::Swap(old, endless(new)),
            (Err(_), Some(old)) => Act::SawOther(old),
            (Err(_), None) => Act::SawSome,
        };
        self.note(at, span, "compare_and_swap", act);
    }

    fn put_if_absent(&mut self) {
        let (at, new) = (self.plain(), self.fresh());
        let (key, value) = (self.name(at), bytes(at, new));
        let (span, inserted) = self.timed(|db| db.put_if_absent(key, value));
        let act =
            if inserted.unwrap() { Act::Swap(None, endless(Some(new))) } else { Act::SawSome };
        self.note(at, span, "put_if_absent", act);
    }

    fn update(&mut self) {
        let at = self.plain();
        let new = (self.below(4) > 0).then(|| self.fresh());
        let (key, replacement) = (self.name(at), new.map(|new| bytes(at, new)));
        let mut old = None;
        let (span, stored) = self.timed(|db| {
            db.update(key, |found| {
                old = found.map(|found| tag(at, found));
                replacement.as_deref()
            })
        });
        assert_eq!(stored.unwrap().map(|stored| tag(at, &stored)), new);
        self.note(at, span, "update", Act::Swap(old, endless(new)));
    }

    fn change_life(&mut self) {
        let at = self.plain();
        let key = self.name(at);
        let (call, life, (span, there)) = match self.below(5) {
            0 => {
                let timed = self.timed(|db| db.expire(key, Duration::ZERO));
                ("expire", Life::NONE, timed)
            }
            1 | 2 => ("expire", Life::SHORT, self.timed(|db| db.expire(key, SHORT))),
            _ => ("persist", Life::Endless, self.timed(|db| db.persist(key))),
        };
        let act = if there.unwrap() { Act::Live(life) } else { Act::Saw(None) };
        self.note(at, span, call, act);
    }

    /// Reads two keys in a transaction, writes one of them, and writes a third key that it has not
    /// read.
    fn transfer(&mut self) {
        let from = self.plain();
        let plain = self.shared.layout.plain;
        let [to, blind] = [from + 1, from + 2].map(|at| at % plain);
        let new = (self.below(3) > 0).then(|| self.fresh());
        let other = self.fresh();
        let names = [from, to, blind].map(|at| self.name(at));
        let (mut start, mut found) = (self.shared.stamp(), [None; 2]);
        let result = self.db().transaction(|tx| {
            for ((found, at), name) in found.iter_mut().zip([from, to]).zip(&names) {
                *found = tx.get(name)?.map(|value| tag(at, &value));
            }
            match new {
                Some(new) => tx.put(&names[1], bytes(to, new)),
                None => tx.delete(&names[1]),
            }
            tx.put(&names[2], bytes(blind, other));
            // The next attempt reads again.
            let own = start;
            start = self.shared.stamp();
            Ok(own)
        });
        let end = self.shared.stamp();
        let start = match result {
            Ok(start) => start,
            Err(Error::Conflict { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let (span, [first, second]) = (Span { start, end }, found);
        self.note(from, span, "transaction", Act::Saw(first));
        self.note(to, span, "transaction", Act::Swap(second, endless(new)));
        self.note(blind, span, "transaction", Act::Write(endless(Some(other))));
    }

    /// Reads all keys of a group in a transaction, one by one or as a range, and replaces them all.
    fn transaction_of_group(&mut self) {
        let group = self.below(self.shared.layout.groups.len());
        let layout = self.shared.layout;
        let members = layout.members(group);
        let new = (self.below(3) > 0).then(|| self.fresh());
        let by_range = self.below(2) == 0;
        let (mut start, mut found) = (self.shared.stamp(), Vec::new());
        let result = self.db().transaction(|tx| {
            found = vec![None; members.len()];
            if by_range {
                for pair in tx.prefix(format!("g{group}/")) {
                    let (key, value) = pair?;
                    let at = layout.number(&key);
                    found[at - members.start] = Some(tag(at, &value));
                }
            }
            for (at, found) in members.clone().zip(&mut found) {
                let name = layout.name(at);
                if !by_range {
                    *found = tx.get(&name)?.map(|value| tag(at, &value));
                }
                match new {
                    Some(new) => tx.put(name, bytes(at, new)),
                    None => tx.delete(name),
                }
            }
            let own = start;
            start = self.shared.stamp();
            Ok(own)
        });
        let end = self.shared.stamp();
        let start = match result {
            Ok(start) => start,
            Err(Error::Conflict { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let call = "transaction of a group";
        if self.is_whole(group, call, &found) {
            let old = found[0];
            self.note_group(group, Span { start, end }, call, || Act::Swap(old, endless(new)));
        }
    }

    /// Removes one key with a prefix that only this key has.
    fn remove_one(&mut self) {
        let at = self.plain();
        let prefix = self.name(at);
        let (span, removed) = self.timed(|db| db.delete_prefix(prefix));
        let act = if removed.unwrap() == 1 { Act::Delete } else { Act::SweptNone };
        self.note(at, span, "delete_prefix", act);
    }

    /// Removes all keys with a prefix. The number of removed keys shows what happened to each of
    /// them only if it is all or none.
    fn remove_some(&mut self) {
        let tens = self.below(self.shared.layout.plain.div_ceil(10));
        let prefix = format!("a/{tens}");
        let (span, removed) = self.timed(|db| db.delete_prefix(prefix));
        let within = tens * 10..(tens * 10 + 10).min(self.shared.layout.plain);
        let act = match usize::try_from(removed.unwrap()).unwrap() {
            0 => Act::SweptNone,
            removed if removed == within.len() => Act::Delete,
            _ => Act::Sweep,
        };
        for at in within {
            self.note(at, span, "delete_prefix", act);
        }
    }

    /// Gets a key, whether it is changed individually or as part of a group.
    pub(super) fn get(&mut self, at: usize) -> Option<Tag> {
        let key = self.name(at);
        let (span, found) = self.timed(|db| db.get(key));
        let found = found.unwrap().map(|value| tag(at, &value));
        self.note(at, span, "get", Act::Saw(found));
        found
    }
}
