//! Followers that wait for changes, and what wakes them.
//!
//! - A follower that has read everything registers its prefix under the lock of the log, and waits
//!   on its own condition variable. Every append checks its keys, and wakes the followers whose
//!   prefix one of the keys starts with. So no follower is woken for entries that it would skip.
//! - Entries appended while a follower waited without being woken have other prefixes. When the
//!   follower continues, it skips them without reading them.
//! - A follower of durable changes is woken when changes of its prefix may have become durable.
//! - All followers are woken when a segment ends, so that none holds an old segment and its disk
//!   space for long; and when the log ends or is cleared.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::segment::Place;
use crate::segment::write::draft::Draft;
use crate::sync::Condvar;

/// The waiting followers, guarded by the lock of the log.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    /// By prefix, then by number.
    by_prefix: BTreeMap<Vec<u8>, BTreeMap<u64, Waiter>>,
    /// Number of followers that have ever waited; each gets the next number.
    count: u64,
    /// Number of wake-ups.
    woken: u64,
}

#[derive(Debug)]
struct Waiter {
    condition: Arc<Condvar>,
    /// Whether it follows durable changes only.
    durable: bool,
    /// News since it began to wait.
    news: Option<News>,
    is_woken: bool,
}

/// News for a waiting follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// Changes of its prefix, all after this place.
    Behind(Place),
    /// The follower has to look for itself.
    Unknown,
}

/// The registration of a waiting follower.
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
    /// Registers a follower. `has_unread` says whether it may have left entries unread because they
    /// are not durable.
    pub(crate) fn add(&mut self, prefix: &[u8], durable: bool, has_unread: bool) -> Ticket {
        self.count += 1;
        let condition = Arc::<Condvar>::default();
        let news = has_unread.then_some(News::Unknown);
        let waiter = Waiter { condition: Arc::clone(&condition), durable, news, is_woken: false };
        self.by_prefix.entry(prefix.to_vec()).or_default().insert(self.count, waiter);
        Ticket { number: self.count, condition }
    }

    /// Returns whether a follower was woken.
    pub(crate) fn is_woken(&self, prefix: &[u8], ticket: &Ticket) -> bool {
        let waiting = self.by_prefix.get(prefix).and_then(|all| all.get(&ticket.number));
        waiting.is_none_or(|waiter| waiter.is_woken)
    }

    /// Removes a follower that continues, and returns its news.
    pub(crate) fn remove(&mut self, prefix: &[u8], ticket: &Ticket) -> Option<News> {
        let all = self.by_prefix.get_mut(prefix)?;
        let waiter = all.remove(&ticket.number)?;
        if all.is_empty() {
            self.by_prefix.remove(prefix);
        }
        waiter.news
    }

    /// Wakes the followers of the keys that were appended after a place.
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
        // Finds the highest prefix that is not above the key. If it is not a prefix of the key,
        // then no prefix longer than their common part is one either.
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

    /// Wakes the followers of durable changes that have news.
    pub(crate) fn synced(&mut self) {
        let Self { by_prefix, woken, .. } = self;
        for waiter in by_prefix.values_mut().flat_map(BTreeMap::values_mut) {
            if waiter.durable && waiter.news.is_some() {
                waiter.wake(woken);
            }
        }
    }

    /// Wakes all followers when a segment or the log ends.
    pub(crate) fn ended(&mut self) {
        let Self { by_prefix, woken, .. } = self;
        by_prefix.values_mut().flat_map(BTreeMap::values_mut).for_each(|it| it.wake(woken));
    }

    /// Wakes all followers when changes that they have not read may be gone.
    pub(crate) fn cleared(&mut self) {
        for waiter in self.by_prefix.values_mut().flat_map(BTreeMap::values_mut) {
            waiter.news = Some(News::Unknown);
        }
        self.ended();
    }

    /// Returns the number of followers that wait without having been woken, and the number of
    /// wake-ups ever.
    #[cfg(test)]
    pub(crate) fn figures(&self) -> (usize, u64) {
        let waiters = self.by_prefix.values().flat_map(BTreeMap::values);
        (waiters.filter(|waiter| !waiter.is_woken).count(), self.woken)
    }
}

/// Returns the highest prefix that is not above a key, and its followers.
fn last_up_to<'a, T>(
    by_prefix: &'a mut BTreeMap<Vec<u8>, T>,
    key: &[u8],
) -> Option<(&'a Vec<u8>, &'a mut T)> {
    by_prefix.range_mut::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()
}

impl Waiter {
    fn wake(&mut self, woken: &mut u64) {
        if !std::mem::replace(&mut self.is_woken, true) {
            *woken += 1;
            self.condition.notify_all();
        }
    }
}
