//! What all connections of a server share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::watch;

use super::chance::random;
use super::commands_table::table;
use super::counts::Counts;
use super::database::{Database, Databases};
use super::events::KeyEvent;
use super::followers::Followers;
use super::hub::Hub;
use super::numbers::now_ms;
use super::options::RespOptions;
use super::peers::Peers;
use super::read_ahead::ReadAheadBudget;
use super::settings::Parameters;
use super::tracking::Tracker;

/// The state of a server.
#[derive(Debug)]
pub(super) struct RespState {
    pub(super) databases: Arc<Databases>,
    pub(super) peers: Peers,
    pub(super) hub: Hub,
    pub(super) tracker: Tracker,
    pub(super) parameters: Parameters,
    pub(super) counts: Counts,
    pub(super) followers: Followers,
    pub(super) read_ahead: Arc<ReadAheadBudget>,
    pub(super) options: RespOptions,
    pub(super) stop: Arc<watch::Sender<bool>>,
    pub(super) port: u16,
    pub(super) started: Instant,
    pub(super) run_id: String,
    /// Time of the last `SAVE`, in milliseconds since the epoch.
    pub(super) last_save: AtomicU64,
}

impl RespState {
    pub(super) fn new(
        databases: Arc<Databases>,
        options: RespOptions,
        stop: Arc<watch::Sender<bool>>,
        port: u16,
    ) -> Self {
        let password = options.password.clone();
        let count = databases.count();
        Self {
            databases,
            peers: Peers::default(),
            hub: Hub::default(),
            tracker: Tracker::default(),
            parameters: Parameters::new(options.clients_max, password, count),
            counts: Counts::new(table().len()),
            followers: Followers::default(),
            read_ahead: Arc::default(),
            options,
            stop,
            port,
            started: Instant::now(),
            run_id: format!("{:016x}{:016x}{:08x}", random(), random(), random() >> 32),
            last_save: AtomicU64::new(u64::try_from(now_ms()).unwrap_or(0)),
        }
    }

    /// Returns what Redis calls the way in which a server works.
    pub(super) fn mode(&self) -> &'static str {
        if self.options.shards.is_some() { "cluster" } else { "standalone" }
    }

    pub(super) fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Returns whether anybody wants to know of changes.
    pub(super) fn is_listened_to(&self) -> bool {
        // Changes of a cluster come from its log, and nobody is told of them.
        let is_alone = self.options.shards.is_none();
        is_alone
            && !self.is_stopped()
            && (self.parameters.event_filter().is_on() || self.tracker.is_on())
    }

    /// Publishes what has happened to a key.
    pub(super) fn report(&self, database: &Database, event: &KeyEvent) {
        let filter = self.parameters.event_filter();
        if filter.is_on() {
            self.hub.notify(filter, database, event);
        }
    }

    pub(super) fn note_save(&self) {
        self.last_save.store(u64::try_from(now_ms()).unwrap_or(0), Ordering::Relaxed);
    }
}
