//! The clients that are connected, as other clients see them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::outbox::Outbox;

/// What `CLIENT LIST` shows of a client, as of its last command.
#[derive(Debug, Clone, Default)]
pub(super) struct PeerView {
    pub(super) name: String,
    pub(super) library: String,
    pub(super) library_version: String,
    pub(super) database: usize,
    pub(super) channels: usize,
    pub(super) patterns: usize,
    /// Number of commands that wait for `EXEC`, or -1 outside of a transaction.
    pub(super) queued: i64,
    pub(super) watched: usize,
    pub(super) unread: usize,
    pub(super) protocol: u8,
    pub(super) command: &'static str,
    pub(super) flags: String,
    pub(super) redirect: i64,
}

/// A client that is connected.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: u64,
    pub(super) address: String,
    pub(super) local_address: String,
    pub(super) since: Instant,
    pub(super) outbox: Outbox,
    /// Lock 0: what other clients see.
    view: Mutex<(PeerView, Instant)>,
}

impl Peer {
    pub(super) fn view(&self) -> MutexGuard<'_, (PeerView, Instant)> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the line of `CLIENT LIST`.
    pub(super) fn line(&self) -> String {
        let (view, active) = self.view().clone();
        let flags = if view.flags.is_empty() { "N" } else { &view.flags };
        let fields = [
            ("id", self.id.to_string()),
            ("addr", self.address.clone()),
            ("laddr", self.local_address.clone()),
            ("fd", "8".to_owned()),
            ("name", view.name.clone()),
            ("age", self.since.elapsed().as_secs().to_string()),
            ("idle", active.elapsed().as_secs().to_string()),
            ("flags", flags.to_owned()),
            ("db", view.database.to_string()),
            ("sub", view.channels.to_string()),
            ("psub", view.patterns.to_string()),
            ("ssub", "0".to_owned()),
            ("multi", view.queued.to_string()),
            ("watch", view.watched.to_string()),
            ("qbuf", view.unread.to_string()),
            ("qbuf-free", "0".to_owned()),
            ("argv-mem", "0".to_owned()),
            ("multi-mem", "0".to_owned()),
            ("rbs", "16384".to_owned()),
            ("rbp", "0".to_owned()),
            ("obl", "0".to_owned()),
            ("oll", "0".to_owned()),
            ("omem", self.outbox.len().to_string()),
            ("tot-mem", (view.unread + self.outbox.len()).to_string()),
            ("events", "r".to_owned()),
            ("cmd", view.command.to_owned()),
            ("user", "default".to_owned()),
            ("redir", view.redirect.to_string()),
            ("resp", view.protocol.to_string()),
            ("lib-name", view.library.clone()),
            ("lib-ver", view.library_version.clone()),
        ];
        let shown: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        shown.join(" ")
    }
}

/// All clients that are connected, by id.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// Lock 0: the clients.
    all: Mutex<BTreeMap<u64, Arc<Peer>>>,
    last_id: AtomicU64,
}

impl Peers {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Peer>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a client, unless there are `limit` of them.
    pub(super) fn add(
        &self,
        address: String,
        local_address: String,
        outbox: Outbox,
        limit: usize,
    ) -> Option<Arc<Peer>> {
        let mut all = self.all();
        if all.len() >= limit {
            return None;
        }
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let view = PeerView { queued: -1, protocol: 2, redirect: -1, ..PeerView::default() };
        let now = Instant::now();
        let view = Mutex::new((view, now));
        let peer = Arc::new(Peer { id, address, local_address, since: now, outbox, view });
        all.insert(id, Arc::clone(&peer));
        Some(peer)
    }

    pub(super) fn remove(&self, id: u64) {
        self.all().remove(&id);
    }

    pub(super) fn get(&self, id: u64) -> Option<Arc<Peer>> {
        self.all().get(&id).cloned()
    }

    pub(super) fn list(&self) -> Vec<Arc<Peer>> {
        self.all().values().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.all().len()
    }
}
