//! How much memory replies take that wait for the end of their transaction, or for each other.
//!
//! Strings that the store lends take none. Those that were decompressed, that the transaction has
//! written itself or that a command has made are in memory as a whole.

use std::collections::HashSet;

use super::refusal::{Answer, TOO_LARGE, refused};
use super::reply::Reply;

/// Maximum size of several replies, or of several strings of one reply, in memory, in bytes. A
/// single one may be as large as a string can be. Tests have no room for as much.
const HELD_MAX: usize = if cfg!(test) { 1 << 20 } else { 512 << 20 };

/// The memory of replies that are held at the same time.
#[derive(Debug, Clone)]
pub(super) struct ReplyMemory {
    limit: usize,
    count: usize,
    size: usize,
    /// Strings that several replies share count once. All of them are held, so no two have the same
    /// address.
    strings: HashSet<usize>,
}

impl Default for ReplyMemory {
    fn default() -> Self {
        Self::within(HELD_MAX)
    }
}

impl ReplyMemory {
    /// Returns a memory with another limit than the usual one.
    pub(super) fn within(limit: usize) -> Self {
        Self { limit, count: 0, size: 0, strings: HashSet::new() }
    }

    /// Returns the size of the replies so far.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Returns whether no further reply can be held.
    pub(super) fn is_full(&self) -> bool {
        self.count > 0 && self.size > self.limit
    }

    /// Adds a reply that will be held from now on. Refuses it if that is too much.
    pub(super) fn add(&mut self, reply: &Reply) -> Answer<()> {
        self.measure(reply);
        self.count += 1;
        if self.count > 1 && self.size > self.limit {
            return refused(TOO_LARGE);
        }
        Ok(())
    }

    fn measure(&mut self, reply: &Reply) {
        self.size = self.size.saturating_add(size_of::<Reply>());
        let size = match reply {
            Reply::Bulk(text) => text.len(),
            Reply::Line(text) | Reply::Error(text) | Reply::Verbatim(text) => text.len(),
            Reply::Stored(value) => match value.in_memory() {
                Some((address, size)) if self.strings.insert(address) => size,
                _ => 0,
            },
            Reply::Array(items)
            | Reply::Set(items)
            | Reply::Push(items)
            | Reply::Pairs(items)
            | Reply::Several(items) => return items.iter().for_each(|item| self.measure(item)),
            Reply::Map(pairs) => {
                return pairs.iter().for_each(|(key, value)| {
                    self.measure(key);
                    self.measure(value);
                });
            }
            _ => 0,
        };
        self.size = self.size.saturating_add(size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    #[test]
    fn a_string_counts_once_however_many_replies_have_it() {
        let mut memory = ReplyMemory::default();
        let large = Value::from(vec![b'x'; 2 << 10]);
        for _ in 0..1000 {
            memory.add(&Reply::Stored(large.clone().part(5..10))).unwrap();
        }
        let others: Vec<_> = (0..600).map(|_| Reply::bulk(vec![b'x'; 2 << 10])).collect();
        let refused = others.iter().position(|reply| memory.add(reply).is_err());
        let (each, size) = (size_of::<Reply>(), 2 << 10);
        assert_eq!(refused, Some((HELD_MAX - 1000 * each - size) / (each + size)));
        ReplyMemory::default().add(&Reply::Array(others)).unwrap();
    }
}
