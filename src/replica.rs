//! Whether a store follows a leader, how far behind it is, and whether it may be read now.
//!
//! - The follower in `server` sets this. The ports, `server` and `resp`, refuse writes by it, and
//!   report it.
//! - While a follower replaces all of its data by the leader's, nobody may read: a reader holds a
//!   pass, and the follower waits until all of them are returned.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::store::Position;

/// How often a follower looks whether the last reader has gone.
const LOOKED: Duration = Duration::from_millis(1);

/// The state of a store that follows a leader: what a port needs to know to refuse writes and to
/// report the lag. Clones share the state.
///
/// `Server::replica` and `StoreFollower::replica` of the module `server` return it, and
/// `RespOptions::replica` passes it to the Redis port of the same store.
#[derive(Debug, Clone)]
pub struct Replica(Arc<ReplicaState>);

/// How far a follower is behind its leader, as of the last report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaLag {
    /// Size in bytes, in the leader's log, of the changes that are missing here.
    pub size: u64,
    /// Number of these changes. Above 1,000, it is an estimate.
    pub changes: u64,
    /// How long ago the follower had everything, at most: the age of the oldest change that is
    /// missing, and the time since the leader's last report.
    pub age: Duration,
}

#[derive(Debug)]
struct ReplicaState {
    leader: String,
    is_follower: AtomicBool,
    is_connected: AtomicBool,
    is_resyncing: AtomicBool,
    /// Whether readers have to stay away.
    is_loading: AtomicBool,
    passes: AtomicUsize,
    resyncs: AtomicU64,
    changes: AtomicU64,
    /// Lock 9: what was reported last.
    report: Mutex<Report>,
}

#[derive(Debug, Default)]
struct Report {
    lag: Option<(ReplicaLag, Instant)>,
    position: Option<Position>,
    error: Option<String>,
}

/// The right to read a follower's store, for as long as this is held.
#[derive(Debug)]
#[must_use = "the store may be read for as long as this is held"]
pub(crate) struct Pass(Replica);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.0.passes.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Replica {
    pub(crate) fn new(leader: String) -> Self {
        Self(Arc::new(ReplicaState {
            leader,
            is_follower: AtomicBool::new(true),
            is_connected: AtomicBool::new(false),
            is_resyncing: AtomicBool::new(false),
            is_loading: AtomicBool::new(false),
            passes: AtomicUsize::new(0),
            resyncs: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            report: Mutex::default(),
        }))
    }

    /// Returns the leader's URL.
    pub fn leader(&self) -> &str {
        &self.0.leader
    }

    /// Returns whether the store follows. It does not any more once it was promoted.
    pub fn is_follower(&self) -> bool {
        self.0.is_follower.load(Ordering::Acquire)
    }

    /// Returns whether the leader answers at the moment.
    pub fn is_connected(&self) -> bool {
        self.0.is_connected.load(Ordering::Relaxed)
    }

    /// Returns whether all data is being read again from the leader. Meanwhile the store keeps what
    /// it has, until all has arrived.
    pub fn is_resyncing(&self) -> bool {
        self.0.is_resyncing.load(Ordering::Relaxed)
    }

    /// Returns whether the store is being filled with the leader's data, so that it must not be
    /// read. Clients of a server are refused then.
    pub fn is_loading(&self) -> bool {
        self.0.is_loading.load(Ordering::SeqCst)
    }

    /// Returns how far the store is behind, or `None` before the leader's first report.
    pub fn lag(&self) -> Option<ReplicaLag> {
        let (lag, at) = self.report().lag?;
        Some(ReplicaLag { age: lag.age.saturating_add(at.elapsed()), ..lag })
    }

    /// Returns the position in the leader's log up to which the store has everything, or `None`
    /// before it has the leader's data.
    pub fn position(&self) -> Option<Position> {
        self.report().position
    }

    /// Returns what has failed last, unless the store follows again since.
    pub fn last_error(&self) -> Option<String> {
        self.report().error.clone()
    }

    /// Returns how many times all data was read from the leader, since the start.
    pub fn resyncs(&self) -> u64 {
        self.0.resyncs.load(Ordering::Relaxed)
    }

    /// Returns how many changes were applied, since the start.
    pub fn changes(&self) -> u64 {
        self.0.changes.load(Ordering::Relaxed)
    }

    /// Returns the host and the port in the leader's URL.
    pub fn leader_address(&self) -> (&str, u16) {
        let (scheme, rest) = self.leader().split_once("://").unwrap_or(("", self.leader()));
        let authority = rest.split('/').next().unwrap_or_default();
        let usual = if scheme == "https" { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(usual)),
            _ => (authority, usual),
        };
        (host.trim_start_matches('[').trim_end_matches(']'), port)
    }

    /// Returns a pass to read, or `None` while the store is being filled.
    pub(crate) fn enter(&self) -> Option<Pass> {
        self.0.passes.fetch_add(1, Ordering::SeqCst);
        let pass = Pass(self.clone());
        (!self.is_loading()).then_some(pass)
    }

    /// Keeps new readers away from now on.
    pub(crate) fn begin_loading(&self) {
        self.0.is_loading.store(true, Ordering::SeqCst);
    }

    /// Waits until no reader is left, or until this need not be waited for any more. Returns
    /// whether no reader is left.
    pub(crate) fn wait_for_readers(&self, is_over: impl Fn() -> bool) -> bool {
        while self.0.passes.load(Ordering::SeqCst) > 0 {
            if is_over() {
                return false;
            }
            thread::sleep(LOOKED);
        }
        true
    }

    /// Lets readers in again.
    pub(crate) fn end_loading(&self) {
        self.0.is_loading.store(false, Ordering::SeqCst);
    }

    /// Notes that the store accepts writes from now on.
    pub(crate) fn note_promoted(&self) {
        self.note_connected(false);
        self.0.is_follower.store(false, Ordering::Release);
    }

    pub(crate) fn note_connected(&self, yes: bool) {
        self.0.is_connected.store(yes, Ordering::Relaxed);
        if yes {
            self.report().error = None;
        }
    }

    pub(crate) fn note_resyncing(&self, yes: bool) {
        self.0.is_resyncing.store(yes, Ordering::Relaxed);
    }

    pub(crate) fn note_resynced(&self) {
        self.0.resyncs.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_error(&self, error: String) {
        self.report().error = Some(error);
    }

    pub(crate) fn note_lag(&self, lag: ReplicaLag) {
        self.report().lag = Some((lag, Instant::now()));
    }

    /// Notes up to where the store has everything, and how many changes that took.
    pub(crate) fn note_position(&self, position: Position, changes: u64) {
        self.0.changes.fetch_add(changes, Ordering::Relaxed);
        self.report().position = Some(position);
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        self.0.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_reads_while_the_store_is_filled() {
        let replica = Replica::new("http://leader:8000".into());
        let pass = replica.enter().unwrap();
        replica.begin_loading();
        assert!(replica.enter().is_none());
        assert!(!replica.wait_for_readers(|| true));
        drop(pass);
        assert!(replica.wait_for_readers(|| true));
        replica.end_loading();
        assert!(replica.enter().is_some());
    }

    #[test]
    fn a_url_names_the_address_of_the_leader() {
        let address = |url: &str| {
            let replica = Replica::new(url.into());
            let (host, port) = replica.leader_address();
            format!("{host} {port}")
        };
        assert_eq!(address("http://a.example:8000"), "a.example 8000");
        assert_eq!(address("https://a.example"), "a.example 443");
        assert_eq!(address("http://[::1]:7/base"), "::1 7");
        assert_eq!(address("http://[::1]"), "::1 80");
    }
}
