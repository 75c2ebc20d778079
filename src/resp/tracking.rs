//! Which clients have cached which keys, and telling them when a key changes: `CLIENT TRACKING`.
//!
//! - A client that tracks by key is remembered for each key that it reads, until the key changes
//!   once. One that tracks by prefix is told of every change.
//! - The table of keys is bounded. A key that no longer fits is taken out, and the clients that
//!   have it are told to forget it.
//! - As in Redis, a key is the same in all databases.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::peers::{Peer, Peers};
use super::reply::{Protocol, Reply};

/// The channel on which a client that speaks version 2 is told.
pub(super) const CHANNEL: &[u8] = b"__redis__:invalidate";

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

#[derive(Debug, Default)]
struct TrackerState {
    clients: BTreeMap<u64, TrackedPeer>,
    keys: HashMap<Vec<u8>, BTreeSet<u64>>,
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
            state.keys.retain(|_, ids| {
                ids.remove(&id);
                !ids.is_empty()
            });
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
            if let Some(ids) = state.keys.get_mut(key) {
                ids.insert(id);
            } else {
                state.keys.insert(key.to_vec(), BTreeSet::from([id]));
            }
        }
        let is_full = limit > 0 && state.keys.len() > limit;
        drop(state);
        if is_full {
            self.limit(limit, peers);
        }
    }

    /// Takes keys out of the table until it has at most `limit` of them, or any number for 0.
    pub(super) fn limit(&self, limit: usize, peers: &Peers) {
        loop {
            let state = self.state();
            let surplus = limit > 0 && state.keys.len() > limit;
            let Some(key) = state.keys.keys().next().filter(|_| surplus).cloned() else { return };
            drop(state);
            self.changed(&[Bytes::from(key)], None, peers);
        }
    }

    /// Tells the clients that have keys that these have changed: those that track by key for each
    /// key, those that track by prefix for each prefix.
    pub(super) fn changed(&self, keys: &[Bytes], by: Option<u64>, peers: &Peers) {
        let mut news: Vec<(u64, Vec<Reply>)> = Vec::new();
        let mut state = self.state();
        for key in keys {
            let ids = state.keys.remove(&**key).unwrap_or_default();
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
        self.state().keys.clear();
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
        (state.clients.len(), state.keys.len(), state.prefixes.len())
    }

    /// Returns how many keys are remembered, each as often as clients have it.
    pub(super) fn remembered(&self) -> usize {
        self.state().keys.values().map(BTreeSet::len).sum()
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
    } else if redirect.is_some() && target.view().0.channels > 0 {
        let channel = Reply::bulk(CHANNEL);
        target.outbox.send(&Reply::Push(vec![Reply::Text("message"), channel, keys.clone()]));
    }
}
