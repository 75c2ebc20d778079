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
    /// Whether following needs other options.
    is_stuck: AtomicBool,
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
    resync_reason: Option<&'static str>,
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
            is_stuck: AtomicBool::new(false),
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

    /// Returns whether the store cannot follow with the options that it was opened with: for
    /// example, the leader may have larger values than the store accepts.
    /// [`last_error`](Self::last_error) says which option it is.
    pub fn is_stuck(&self) -> bool {
        self.0.is_stuck.load(Ordering::Relaxed)
    }

    /// Returns how far the store is behind, or `None` before the leader's first report since the
    /// start, and once the store was promoted. The age grows from report to report, and on while
    /// there is none, whatever the reason.
    pub fn lag(&self) -> Option<ReplicaLag> {
        self.lag_at(Instant::now())
    }

    fn lag_at(&self, now: Instant) -> Option<ReplicaLag> {
        let (lag, at) = self.report().lag.filter(|_| self.is_follower())?;
        let since = now.saturating_duration_since(at);
        Some(ReplicaLag { age: lag.age.saturating_add(since), ..lag })
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

    /// Returns why all data was read from the leader last, or is being read now; `None` if that has
    /// not happened since the start.
    ///
    /// - `new`: the store had none of the leader's data, or not all of it.
    /// - `history_gone`: the leader does not have the changes any more that come next.
    /// - `invalid_position`: the position belongs to another store than the leader's present one.
    /// - `batch_too_large`: a batch of the leader does not fit into one batch here.
    pub fn resync_reason(&self) -> Option<&'static str> {
        self.report().resync_reason
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
        // What a connection alone does not mend goes on being reported.
        if yes && !self.is_stuck() {
            self.report().error = None;
        }
    }

    /// Notes that the store cannot follow with its options.
    pub(crate) fn note_stuck(&self, error: String) {
        self.note_error(error);
        self.0.is_stuck.store(true, Ordering::Relaxed);
    }

    /// Notes that the store follows: it has accepted changes, or there are none that it lacks.
    pub(crate) fn note_following(&self) {
        if self.0.is_stuck.swap(false, Ordering::Relaxed) {
            self.report().error = None;
        }
    }

    /// Notes why all data is read from the leader.
    pub(crate) fn note_resync_reason(&self, reason: &'static str) {
        self.report().resync_reason = Some(reason);
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
        self.note_lag_at(lag, Instant::now());
    }

    fn note_lag_at(&self, lag: ReplicaLag, at: Instant) {
        self.report().lag = Some((lag, at));
    }

    /// Notes up to where the store has everything, and how many changes that took.
    pub(crate) fn note_position(&self, position: Position, changes: u64) {
        self.0.changes.fetch_add(changes, Ordering::Relaxed);
        self.report().position = Some(position);
        self.note_following();
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
    fn the_age_grows_while_no_word_comes_from_the_leader() {
        let replica = Replica::new("http://leader:8000".into());
        assert_eq!(replica.lag(), None);
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        replica.note_lag_at(ReplicaLag { size: 7, changes: 1, age: 2 * second }, now);
        let age = |at| replica.lag_at(at).unwrap().age;
        assert_eq!(age(now), 2 * second);
        replica.note_connected(false);
        replica.note_resyncing(true);
        replica.note_position(Position::from_bytes([1; 16]), 5);
        assert_eq!(age(now + 3600 * second), 3602 * second);
        replica.note_lag_at(ReplicaLag { size: 0, changes: 0, age: Duration::ZERO }, now + second);
        assert_eq!(age(now + 3 * second), 2 * second);
        replica.note_promoted();
        assert_eq!(replica.lag(), None);
    }

    #[test]
    fn a_follower_that_is_stuck_says_so_until_it_goes_on() {
        let replica = Replica::new("http://leader:8000".into());
        replica.note_stuck("too large".into());
        // It tries again now and then.
        replica.note_connected(true);
        assert!(replica.is_stuck());
        assert_eq!(replica.last_error().as_deref(), Some("too large"));
        replica.note_position(Position::from_bytes([1; 16]), 1);
        assert!(!replica.is_stuck());
        assert_eq!(replica.last_error(), None);
        replica.note_stuck("too large".into());
        replica.note_following();
        assert_eq!((replica.is_stuck(), replica.last_error()), (false, None));
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
