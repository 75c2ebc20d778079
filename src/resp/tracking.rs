//! Which clients have cached which keys, and telling them when a key changes: `CLIENT TRACKING`.
//!
//! - A client that tracks by key is remembered for each key that it reads, until the key changes
//!   once. One that tracks by prefix is told of every change.
//! - The table of keys is bounded, by their number and by their size. When it is full, the keys
//!   that were remembered first are taken out, and the clients that have them are told to forget
//!   them.
//! - As in Redis, a key is the same in all databases.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::keyspace::check_key;
use super::peers::{Peer, Peers};
use super::reply::{Protocol, Reply};

/// The channel on which a client that speaks version 2 is told.
pub(super) const CHANNEL: &[u8] = b"__redis__:invalidate";

/// Maximum size of the table: of all keys, and of what it takes for each client that has one.
const TABLE_SIZE_MAX: usize = 256 << 20;
/// About how much memory the first client of a key takes, and each further one.
const FIRST_ID_SIZE: usize = 104;
const ID_SIZE: usize = 16;
/// Maximum number of keys that are taken out before others get their turn.
const EVICTED_AT_ONCE: usize = 1000;

/// How a client tracks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "options that clients combine")]
pub(super) struct TrackingMode {
    pub(super) by_prefix: bool,
    pub(super) opt_in: bool,
    pub(super) opt_out: bool,
    /// Whether the client is not told of its own changes.
    pub(super) no_loop: bool,
    /// The client that is told instead.
    pub(super) redirect: Option<u64>,
    pub(super) prefixes: Vec<Bytes>,
}

#[derive(Debug)]
struct TrackedPeer {
    peer: Arc<Peer>,
    redirect: Option<u64>,
    no_loop: bool,
}

/// The clients that have a key, and its place in the order in which keys were remembered.
#[derive(Debug)]
struct TrackedKey {
    ids: BTreeSet<u64>,
    place: u64,
}

/// The keys that clients have.
#[derive(Debug, Default)]
struct KeyTable {
    keys: HashMap<Arc<[u8]>, TrackedKey>,
    /// The same keys by their places.
    order: BTreeMap<u64, Arc<[u8]>>,
    next_place: u64,
    /// Size of all keys, and of the clients that have them.
    size: usize,
}

/// Returns about how much memory a key takes that this number of clients have.
fn size_of_entry(key: &[u8], clients: usize) -> usize {
    key.len() + FIRST_ID_SIZE + clients.saturating_sub(1) * ID_SIZE
}

impl KeyTable {
    fn remember(&mut self, key: &[u8], id: u64) {
        if let Some(tracked) = self.keys.get_mut(key) {
            if tracked.ids.insert(id) {
                self.size += ID_SIZE;
            }
            return;
        }
        let (key, place): (Arc<[u8]>, u64) = (key.into(), self.next_place);
        self.next_place += 1;
        self.size += size_of_entry(&key, 1);
        self.order.insert(place, Arc::clone(&key));
        self.keys.insert(key, TrackedKey { ids: BTreeSet::from([id]), place });
    }

    /// Takes a key out. Returns the clients that have it.
    fn take(&mut self, key: &[u8]) -> BTreeSet<u64> {
        let Some(tracked) = self.keys.remove(key) else { return BTreeSet::new() };
        self.order.remove(&tracked.place);
        self.size = self.size.saturating_sub(size_of_entry(key, tracked.ids.len()));
        tracked.ids
    }

    /// Forgets a client.
    fn forget(&mut self, id: u64) {
        let Self { keys, order, size, .. } = self;
        keys.retain(|key, tracked| {
            let before = size_of_entry(key, tracked.ids.len());
            tracked.ids.remove(&id);
            let stays = !tracked.ids.is_empty();
            let after = if stays { size_of_entry(key, tracked.ids.len()) } else { 0 };
            *size = size.saturating_sub(before - after);
            if !stays {
                order.remove(&tracked.place);
            }
            stays
        });
    }

    /// Returns the oldest key if there are more than `limit` of them, or if they are too large.
    fn surplus(&self, limit: usize) -> Option<Arc<[u8]>> {
        let is_full = limit > 0 && self.keys.len() > limit || self.size > TABLE_SIZE_MAX;
        self.order.values().next().filter(|_| is_full).cloned()
    }
}

#[derive(Debug, Default)]
struct TrackerState {
    clients: BTreeMap<u64, TrackedPeer>,
    table: KeyTable,
    prefixes: BTreeMap<Bytes, BTreeSet<u64>>,
}

/// All clients that track.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    /// Lock 0: the clients and the keys.
    state: Mutex<TrackerState>,
    count: AtomicUsize,
}

impl Tracker {
    fn state(&self) -> MutexGuard<'_, TrackerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether any client tracks.
    pub(super) fn is_on(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    pub(super) fn begin(&self, peer: &Arc<Peer>, mode: &TrackingMode) {
        let mut state = self.state();
        let (redirect, no_loop) = (mode.redirect, mode.no_loop);
        let client = TrackedPeer { peer: Arc::clone(peer), redirect, no_loop };
        state.clients.insert(peer.id, client);
        for prefix in &mode.prefixes {
            state.prefixes.entry(prefix.clone()).or_default().insert(peer.id);
        }
        self.count.store(state.clients.len(), Ordering::Release);
    }

    pub(super) fn end(&self, id: u64) {
        let mut state = self.state();
        if state.clients.remove(&id).is_some() {
            state.prefixes.retain(|_, ids| {
                ids.remove(&id);
                !ids.is_empty()
            });
            state.table.forget(id);
        }
        self.count.store(state.clients.len(), Ordering::Release);
    }

    /// Remembers that a client has read keys.
    pub(super) fn remember<'a>(
        &self,
        id: u64,
        keys: impl Iterator<Item = &'a [u8]>,
        limit: usize,
        peers: &Peers,
    ) {
        let mut state = self.state();
        for key in keys {
            // Any other key never exists, and thus never changes.
            if check_key(key).is_ok() {
                state.table.remember(key, id);
            }
        }
        let is_full = state.table.surplus(limit).is_some();
        drop(state);
        if is_full {
            self.limit(limit, peers);
        }
    }

    /// Takes keys out of the table until it has at most `limit` of them, or any number for 0.
    pub(super) fn limit(&self, limit: usize, peers: &Peers) {
        loop {
            let (mut told, mut is_done) = (Vec::new(), false);
            let mut state = self.state();
            for _ in 0..EVICTED_AT_ONCE {
                let Some(key) = state.table.surplus(limit) else {
                    is_done = true;
                    break;
                };
                let ids = state.table.take(&key);
                let clients = ids.iter().filter_map(|id| state.clients.get(id));
                for client in clients {
                    let key = Reply::Array(vec![Reply::bulk(&*key)]);
                    told.push((Arc::clone(&client.peer), client.redirect, key));
                }
            }
            drop(state);
            for (peer, redirect, key) in told {
                tell(&peer, redirect, &key, peers);
            }
            if is_done {
                return;
            }
        }
    }

    /// Tells the clients that have keys that these have changed: those that track by key for each
    /// key, those that track by prefix for each prefix.
    pub(super) fn changed(&self, keys: &[Bytes], by: Option<u64>, peers: &Peers) {
        let mut news: Vec<(u64, Vec<Reply>)> = Vec::new();
        let mut state = self.state();
        for key in keys {
            let ids = state.table.take(key);
            news.extend(ids.into_iter().map(|id| (id, vec![Reply::Bulk(key.clone())])));
        }
        for (prefix, ids) in &state.prefixes {
            let changed = keys.iter().filter(|key| key.starts_with(prefix));
            let changed: Vec<_> = changed.cloned().map(Reply::Bulk).collect();
            if !changed.is_empty() {
                news.extend(ids.iter().map(|id| (*id, changed.clone())));
            }
        }
        let mut told = Vec::new();
        for (id, keys) in news {
            let Some(client) = state.clients.get(&id) else { continue };
            if !(client.no_loop && by == Some(id)) {
                told.push((Arc::clone(&client.peer), client.redirect, Reply::Array(keys)));
            }
        }
        drop(state);
        for (peer, redirect, keys) in &told {
            tell(peer, *redirect, keys, peers);
        }
    }

    /// Tells all clients that all keys are gone.
    pub(super) fn all_changed(&self, peers: &Peers) {
        // Freed when others may go on.
        let table = std::mem::take(&mut self.state().table);
        drop(table);
        self.tell_all(peers, &Reply::Null);
    }

    fn tell_all(&self, peers: &Peers, keys: &Reply) {
        let state = self.state();
        let clients = state.clients.values().map(|it| (Arc::clone(&it.peer), it.redirect));
        let clients: Vec<_> = clients.collect();
        drop(state);
        for (peer, redirect) in &clients {
            tell(peer, *redirect, keys, peers);
        }
    }

    /// Returns the numbers of clients, keys and prefixes.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let state = self.state();
        (state.clients.len(), state.table.keys.len(), state.prefixes.len())
    }

    /// Returns how many keys are remembered, each as often as clients have it.
    pub(super) fn remembered(&self) -> usize {
        self.state().table.keys.values().map(|tracked| tracked.ids.len()).sum()
    }
}

/// Tells one client, or the one that it has named, that keys have changed.
fn tell(peer: &Arc<Peer>, redirect: Option<u64>, keys: &Reply, peers: &Peers) {
    let target = redirect.map_or_else(|| Some(Arc::clone(peer)), |id| peers.get(id));
    let Some(target) = target else {
        if peer.outbox.protocol() == Protocol::Resp3 {
            let id = Reply::count(redirect.unwrap_or(0));
            peer.outbox.send(&Reply::Push(vec![Reply::Text("tracking-redir-broken"), id]));
        }
        return;
    };
    if target.outbox.protocol() == Protocol::Resp3 {
        target.outbox.send(&Reply::Push(vec![Reply::Text("invalidate"), keys.clone()]));
    } else if redirect.is_some() && is_subscriber(&target) {
        let channel = Reply::bulk(CHANNEL);
        target.outbox.send(&Reply::Push(vec![Reply::Text("message"), channel, keys.clone()]));
    }
}

/// Returns whether a client has subscribed to anything, whatever it is: Redis looks no closer.
fn is_subscriber(peer: &Peer) -> bool {
    let view = &peer.view().0;
    view.channels > 0 || view.patterns > 0
}

#[cfg(test)]
mod tests {
    use super::super::outbox::Outbox;
    use super::*;

    fn peer(peers: &Peers) -> Arc<Peer> {
        let peer = peers.add("a:1".into(), "b:1".into(), Outbox::new(1 << 30), 10).unwrap();
        peer.outbox.set_protocol(Protocol::Resp3);
        peer
    }

    #[test]
    fn the_keys_that_were_remembered_first_are_taken_out_first() {
        let (peers, tracker) = (Peers::default(), Tracker::default());
        let (first, second) = (peer(&peers), peer(&peers));
        for peer in [&first, &second] {
            tracker.begin(peer, &TrackingMode::default());
        }
        let by_prefix = peer(&peers);
        let prefixes = vec![Bytes::new()];
        tracker
            .begin(&by_prefix, &TrackingMode { by_prefix: true, prefixes, ..Default::default() });
        for key in ["a", "b", "c", "a"] {
            tracker.remember(first.id, std::iter::once(key.as_bytes()), 3, &peers);
        }
        tracker.remember(second.id, [&b"c"[..], b"d"].into_iter(), 3, &peers);
        let mut out = Vec::new();
        first.outbox.take_into(&mut out);
        assert_eq!(out, b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n");
        assert!(second.outbox.is_empty() && by_prefix.outbox.is_empty());
        assert_eq!((tracker.counts(), tracker.remembered()), ((3, 3, 1), 4));
        tracker.end(first.id);
        assert_eq!((tracker.counts(), tracker.remembered()), ((2, 2, 1), 2));
        tracker.limit(1, &peers);
        out.clear();
        second.outbox.take_into(&mut out);
        assert_eq!(out, b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nc\r\n");
        let table = &tracker.state().table;
        assert_eq!((table.keys.len(), table.order.len()), (1, 1));
        assert_eq!(table.size, size_of_entry(b"d", 1));
    }

    #[test]
    fn the_table_is_bounded_by_the_size_of_the_keys() {
        let (peers, tracker) = (Peers::default(), Tracker::default());
        let peer = peer(&peers);
        tracker.begin(&peer, &TrackingMode::default());
        let too_long = vec![b'k'; 70_000];
        tracker.remember(peer.id, std::iter::once(&*too_long), 0, &peers);
        assert_eq!(tracker.remembered(), 0);
        let fitting = TABLE_SIZE_MAX / size_of_entry(&too_long[..65_000], 1);
        for number in 0..fitting + 10 {
            let key = format!("{number:>65000}");
            tracker.remember(peer.id, std::iter::once(key.as_bytes()), 0, &peers);
        }
        assert_eq!(tracker.remembered(), fitting);
        assert!(tracker.state().table.size <= TABLE_SIZE_MAX);
    }

    /// All clients may have all keys, and each pair takes memory.
    #[test]
    fn the_table_counts_how_many_clients_have_a_key() {
        let mut table = KeyTable::default();
        for id in 0..1000 {
            table.remember(b"k", id);
            table.remember(b"k", id);
        }
        assert!(table.size >= 1000 * size_of::<u64>() && table.size == size_of_entry(b"k", 1000));
        (0..999).for_each(|id| table.forget(id));
        assert_eq!(table.size, size_of_entry(b"k", 1));
        table.remember(b"k", 1);
        assert_eq!((table.take(b"k").len(), table.size), (2, 0));
    }

    #[test]
    fn a_client_that_has_subscribed_to_patterns_alone_is_told_for_another() {
        let (peers, tracker) = (Peers::default(), Tracker::default());
        let (reader, told) = (peer(&peers), peer(&peers));
        told.outbox.set_protocol(Protocol::Resp2);
        tracker.begin(&reader, &TrackingMode { redirect: Some(told.id), ..Default::default() });
        for patterns in [0, 1] {
            told.view().0.patterns = patterns;
            tracker.remember(reader.id, std::iter::once(&b"k"[..]), 0, &peers);
            tracker.changed(&[Bytes::from_static(b"k")], None, &peers);
            assert_eq!(told.outbox.is_empty(), patterns == 0);
        }
    }
}
