//! Publishing and subscribing, within the server.
//!
//! - Who is subscribed to what is one table for all databases, as in Redis.
//! - A message is written into the outbox of each subscriber before `publish` returns. Nobody waits
//!   for a subscriber.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::database::Database;
use super::events::{EventFilter, KeyEvent};
use super::glob;
use super::peers::Peer;
use super::reply::Reply;

type Subscribers = BTreeMap<u64, Arc<Peer>>;

#[derive(Debug, Default)]
struct HubState {
    channels: HashMap<Bytes, Subscribers>,
    patterns: BTreeMap<Bytes, Subscribers>,
    /// Clients that see every command.
    monitors: Subscribers,
}

/// Who is subscribed to what.
#[derive(Debug, Default)]
pub(super) struct Hub {
    /// Lock 0: the subscriptions.
    state: Mutex<HubState>,
    has_monitors: AtomicBool,
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, HubState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self, channel: &Bytes, peer: &Arc<Peer>) {
        let mut state = self.state();
        let subscribers = state.channels.entry(channel.clone()).or_default();
        subscribers.insert(peer.id, Arc::clone(peer));
    }

    pub(super) fn unsubscribe(&self, channel: &Bytes, id: u64) {
        let mut state = self.state();
        if let Some(subscribers) = state.channels.get_mut(channel) {
            subscribers.remove(&id);
            if subscribers.is_empty() {
                state.channels.remove(channel);
            }
        }
    }

    pub(super) fn subscribe_pattern(&self, pattern: &Bytes, peer: &Arc<Peer>) {
        let mut state = self.state();
        let subscribers = state.patterns.entry(pattern.clone()).or_default();
        subscribers.insert(peer.id, Arc::clone(peer));
    }

    pub(super) fn unsubscribe_pattern(&self, pattern: &Bytes, id: u64) {
        let mut state = self.state();
        if let Some(subscribers) = state.patterns.get_mut(pattern) {
            subscribers.remove(&id);
            if subscribers.is_empty() {
                state.patterns.remove(pattern);
            }
        }
    }

    pub(super) fn monitor(&self, peer: &Arc<Peer>) {
        let mut state = self.state();
        state.monitors.insert(peer.id, Arc::clone(peer));
        self.has_monitors.store(true, Ordering::Release);
    }

    pub(super) fn unmonitor(&self, id: u64) {
        let mut state = self.state();
        state.monitors.remove(&id);
        self.has_monitors.store(!state.monitors.is_empty(), Ordering::Release);
    }

    pub(super) fn has_monitors(&self) -> bool {
        self.has_monitors.load(Ordering::Acquire)
    }

    /// Returns the clients that see every command.
    pub(super) fn monitors(&self) -> Vec<Arc<Peer>> {
        self.state().monitors.values().cloned().collect()
    }

    /// Sends a message to all subscribers. Returns how many got it.
    pub(super) fn publish(&self, channel: &[u8], message: &[u8]) -> i64 {
        let mut receivers: Vec<(Arc<Peer>, Option<Bytes>)> = Vec::new();
        let state = self.state();
        if let Some(subscribers) = state.channels.get(channel) {
            receivers.extend(subscribers.values().map(|peer| (Arc::clone(peer), None)));
        }
        for (pattern, subscribers) in &state.patterns {
            if glob::matches(pattern, channel) {
                let with = |peer: &Arc<Peer>| (Arc::clone(peer), Some(pattern.clone()));
                receivers.extend(subscribers.values().map(with));
            }
        }
        drop(state);
        let (channel, message) = (Reply::bulk(channel), Reply::bulk(message));
        for (peer, pattern) in &receivers {
            let parts = match pattern {
                None => vec![Reply::Text("message"), channel.clone(), message.clone()],
                Some(pattern) => {
                    let pattern = Reply::Bulk(pattern.clone());
                    vec![Reply::Text("pmessage"), pattern, channel.clone(), message.clone()]
                }
            };
            peer.outbox.send(&Reply::Push(parts));
        }
        i64::try_from(receivers.len()).unwrap_or(i64::MAX)
    }

    /// Publishes what has happened to a key.
    pub(super) fn notify(&self, filter: EventFilter, database: &Database, event: &KeyEvent) {
        if !filter.has(event.class) {
            return;
        }
        let number = database.number;
        if filter.by_key() {
            let channel = [format!("__keyspace@{number}__:").as_bytes(), &*event.key].concat();
            self.publish(&channel, event.name.as_bytes());
        }
        if filter.by_event() {
            let channel = format!("__keyevent@{number}__:{}", event.name);
            self.publish(channel.as_bytes(), &event.key);
        }
    }

    /// Returns the channels with subscribers that match a pattern.
    pub(super) fn channels(&self, pattern: Option<&[u8]>) -> Vec<Bytes> {
        let is_wanted = |name: &&Bytes| pattern.is_none_or(|pattern| glob::matches(pattern, name));
        self.state().channels.keys().filter(is_wanted).cloned().collect()
    }

    pub(super) fn subscriber_count(&self, channel: &[u8]) -> usize {
        self.state().channels.get(channel).map_or(0, BTreeMap::len)
    }

    pub(super) fn channel_count(&self) -> usize {
        self.state().channels.len()
    }

    pub(super) fn pattern_count(&self) -> usize {
        self.state().patterns.len()
    }
}
