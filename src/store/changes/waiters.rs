//! Those who wait for changes, and what wakes them.
//!
//! - Whoever has read all there is registers under the lock of the log, by the prefix that it follows, and
//!   waits on a condition of its own. Every append looks at the keys that it appends, and wakes those whose
//!   prefix one of them begins with. So nobody is woken for what it would pass over.
//! - What was appended while somebody waited and was not woken is none of its business: when it goes on it
//!   passes over that without reading it.
//! - A follower of what is durable is woken when something of its prefix may have become so.
//! - All are woken when a segment ends, so that nobody holds an old one, and its disk space, for long; and
//!   when the log ends, or is cleared.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::Changes;
use crate::segment::read::walk::Walk;
use crate::segment::write::draft::Draft;
use crate::segment::{FIRST_OFFSET, Place};
use crate::store::log::Log;
use crate::sync::Condvar;

/// The most bytes that are looked at before somebody waits for what is durable. Where there is more, a sync
/// wakes it, and then there is less.
const LOOKED_AT_MAX: u64 = 16 << 10;

/// Those who wait, under the lock of the log.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    /// By prefix, then by number.
    by_prefix: BTreeMap<Vec<u8>, BTreeMap<u64, Waiter>>,
    /// How many there ever were, which numbers them.
    count: u64,
    /// How many were woken.
    woken: u64,
}

#[derive(Debug)]
struct Waiter {
    condition: Arc<Condvar>,
    /// It follows what is durable.
    durable: bool,
    /// What there is for it, if there is something.
    news: Option<News>,
    is_woken: bool,
}

/// What has happened for somebody who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// Changes of its prefix, all behind this place.
    Behind(Place),
    /// It has to look for itself.
    Unknown,
}

/// Somebody who waits.
#[derive(Debug)]
pub(crate) struct Ticket {
    number: u64,
    condition: Arc<Condvar>,
}

impl Ticket {
    pub(crate) fn condition(&self) -> &Condvar {
        &self.condition
    }
}

impl Waiters {
    /// Registers somebody, who may have left something unread because it is not durable.
    pub(crate) fn add(&mut self, prefix: &[u8], durable: bool, has_unread: bool) -> Ticket {
        self.count += 1;
        let condition = Arc::<Condvar>::default();
        let news = has_unread.then_some(News::Unknown);
        let waiter = Waiter { condition: Arc::clone(&condition), durable, news, is_woken: false };
        self.by_prefix.entry(prefix.to_vec()).or_default().insert(self.count, waiter);
        Ticket { number: self.count, condition }
    }

    /// Returns whether somebody was woken.
    pub(crate) fn is_woken(&self, prefix: &[u8], ticket: &Ticket) -> bool {
        let waiting = self.by_prefix.get(prefix).and_then(|all| all.get(&ticket.number));
        waiting.is_none_or(|waiter| waiter.is_woken)
    }

    /// Takes somebody off who goes on, and returns what there is for it.
    pub(crate) fn remove(&mut self, prefix: &[u8], ticket: &Ticket) -> Option<News> {
        let all = self.by_prefix.get_mut(prefix)?;
        let waiter = all.remove(&ticket.number)?;
        if all.is_empty() {
            self.by_prefix.remove(prefix);
        }
        waiter.news
    }

    /// Wakes those who follow one of the keys that were appended behind a place.
    #[inline]
    pub(crate) fn appended(&mut self, drafts: &[Draft<'_>], behind: Place) {
        if !self.by_prefix.is_empty() {
            for draft in drafts {
                self.appended_key(draft.key(), behind);
            }
        }
    }

    #[cold]
    fn appended_key(&mut self, key: &[u8], behind: Place) {
        let Self { by_prefix, woken, .. } = self;
        // Of the prefixes that are not above it, the highest that is one of the key's. Where one is none,
        // no other is that is longer than what the two have in common.
        let mut rest = key;
        while let Some((prefix, waiters)) = last_up_to(by_prefix, rest) {
            let common = prefix.iter().zip(rest).take_while(|(a, b)| a == b).count();
            let is_prefix = common == prefix.len();
            if is_prefix {
                for waiter in waiters.values_mut() {
                    waiter.news.get_or_insert(News::Behind(behind));
                    if !waiter.durable {
                        waiter.wake(woken);
                    }
                }
            }
            let shorter = if is_prefix { common.checked_sub(1) } else { Some(common) };
            let Some(shorter) = shorter.and_then(|len| rest.get(..len)) else { break };
            rest = shorter;
        }
    }

    /// Wakes those who follow what is durable, as far as there may be something for them.
    pub(crate) fn synced(&mut self) {
        let Self { by_prefix, woken, .. } = self;
        for waiter in by_prefix.values_mut().flat_map(BTreeMap::values_mut) {
            if waiter.durable && waiter.news.is_some() {
                waiter.wake(woken);
            }
        }
    }

    /// Wakes all, when a segment ends, or the log.
    pub(crate) fn ended(&mut self) {
        let Self { by_prefix, woken, .. } = self;
        by_prefix.values_mut().flat_map(BTreeMap::values_mut).for_each(|it| it.wake(woken));
    }

    /// Wakes all, when what they have not read may be gone.
    pub(crate) fn cleared(&mut self) {
        for waiter in self.by_prefix.values_mut().flat_map(BTreeMap::values_mut) {
            waiter.news = Some(News::Unknown);
        }
        self.ended();
    }

    /// Returns how many wait and were not woken, and how many ever were.
    #[cfg(test)]
    pub(crate) fn figures(&self) -> (usize, u64) {
        let waiters = self.by_prefix.values().flat_map(BTreeMap::values);
        (waiters.filter(|waiter| !waiter.is_woken).count(), self.woken)
    }
}

/// Returns the highest prefix that is not above a key, and those who follow it.
fn last_up_to<'a, T>(
    by_prefix: &'a mut BTreeMap<Vec<u8>, T>,
    key: &[u8],
) -> Option<(&'a Vec<u8>, &'a mut T)> {
    by_prefix.range_mut::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()
}

impl Changes {
    /// Returns where it reads next.
    pub(crate) fn next_place(&self) -> Place {
        self.walk.as_ref().map_or(self.at, |walk| Place::new(walk.segment().id(), walk.offset()))
    }

    /// Returns whether there may be something of its prefix that it has not read, since that is not durable.
    /// Looks at no more than a little: it is asked under the lock of the log.
    pub(crate) fn has_unread(&mut self, log: &Log) -> bool {
        if !self.durable {
            return false;
        }
        let (from, mut left) = (self.next_place().max(self.clean), LOOKED_AT_MAX);
        for segment in log.unsealed().iter().filter(|segment| segment.id() >= from.segment) {
            let is_first = segment.id() == from.segment;
            let mut walk = Walk::new(segment, if is_first { from.offset } else { FIRST_OFFSET });
            let size = segment.size().saturating_sub(walk.offset());
            if size > left {
                return true;
            }
            left -= size;
            loop {
                match walk.next(u64::MAX) {
                    Ok(Some(stored)) if !stored.entry().key().starts_with(&self.prefix) => {}
                    Ok(None) => break,
                    _ => return true,
                }
            }
        }
        self.clean = log.end();
        false
    }

    /// Goes on behind what is none of its business, up to a place right behind a put or a delete, without
    /// reading it. Who follows what is durable reads that, as far as it is.
    pub(crate) fn pass_over(&mut self, to: Place) {
        self.clean = self.clean.max(to);
        if self.durable || to <= self.at {
            return;
        }
        let segment = self.inner.log_segments().find(|segment| segment.id() == to.segment);
        if let Some(segment) = segment {
            self.walk = Some(Walk::new(&segment, to.offset));
            (self.at, self.end) = (to, 0);
        }
    }
}

impl Waiter {
    fn wake(&mut self, woken: &mut u64) {
        if !std::mem::replace(&mut self.is_woken, true) {
            *woken += 1;
            self.condition.notify_all();
        }
    }
}
