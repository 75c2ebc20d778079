//! The leader's history that its followers still need.
//!
//! - A snapshot on its way keeps the history from its position on: merges would otherwise remove
//!   what comes next, and the follower would need another snapshot, again and again.
//! - The follower stores the snapshot after it has received all of it, and only then asks for the
//!   changes. The lease waits for a bounded time, until the follower asks for what comes behind
//!   some of them: nothing else says that it has stored any. The follower names the lease, because
//!   others may have a snapshot of the same position.
//! - A feed in frames keeps the history that it has not read yet.
//! - How much is kept is bounded, too: as much as the live data takes, so that followers at most
//!   double that, and at least 1 GiB.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use super::frames::LEASE;
use crate::store::{Bitcask, HistoryLease, Position};

/// Size of the history that a small store keeps for a follower, in bytes.
const SIZE_MIN: u64 = 1 << 30;
/// How long a follower may take at least to store a snapshot.
const STORED: Duration = Duration::from_secs(600);
/// How much longer a follower may take to store a snapshot than to receive it. It reads it once
/// and writes it once more.
const STORED_FACTOR: u32 = 3;

/// The name of a lease, which its follower gets with the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeaseToken(Uuid);

impl LeaseToken {
    pub(super) fn new() -> Self {
        Self(Uuid::new_v4())
    }

    /// Returns the lease that a request names.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(LEASE)?.to_str().ok()?;
        Uuid::parse_str(text).ok().map(Self)
    }

    pub(super) fn header(self) -> HeaderValue {
        // Such a name has digits, letters and hyphens.
        HeaderValue::from_str(&self.0.to_string()).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

/// The leases of followers that have received a snapshot.
#[derive(Debug, Default)]
pub(super) struct SnapshotLeases(
    /// Lock 0: the leases, oldest first.
    Mutex<Vec<WaitingLease>>,
);

#[derive(Debug)]
struct WaitingLease {
    token: LeaseToken,
    /// The position of the snapshot.
    position: Position,
    _lease: HistoryLease,
    until: Instant,
}

/// Returns how much history is kept for a follower at most, in bytes. What is kept already does not
/// count, so that it does not grow with each follower.
pub(super) fn size_max(db: &Bitcask) -> u64 {
    db.stats().live_size.max(SIZE_MIN)
}

impl SnapshotLeases {
    /// Keeps the history from a snapshot's position on until its follower has stored changes from
    /// behind it, or the time is over. `begun` is when the snapshot began.
    pub(super) fn wait_for(
        &self,
        (token, lease): (LeaseToken, HistoryLease),
        position: Position,
        begun: Instant,
        now: Instant,
        len_max: usize,
    ) {
        let time = STORED.max(now.saturating_duration_since(begun).saturating_mul(STORED_FACTOR));
        let Some(until) = now.checked_add(time) else { return };
        let mut waiting = self.waiting();
        // There are never more followers than streams.
        if waiting.len() >= len_max.max(1) {
            waiting.remove(0);
        }
        waiting.push(WaitingLease { token, position, _lease: lease, until });
    }

    /// Ends a lease whose follower asks for the changes since this position, unless that is still
    /// the snapshot's.
    pub(super) fn note_request(&self, token: LeaseToken, since: Position) {
        let is_behind = |it: &WaitingLease| since.place() > it.position.place();
        self.waiting().retain(|it| it.token != token || !is_behind(it));
    }

    /// Ends a lease whose follower has gone.
    pub(super) fn end(&self, token: LeaseToken) {
        self.waiting().retain(|it| it.token != token);
    }

    /// Ends the leases whose time is over.
    pub(super) fn expire(&self, now: Instant) {
        self.waiting().retain(|it| it.until > now);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting().len()
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<WaitingLease>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn a_lease_waits_for_its_follower_but_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let db = Bitcask::open(dir.path(), Options::new()).unwrap();
        let leases = SnapshotLeases::default();
        let begun = Instant::now();
        let token = |byte| LeaseToken(Uuid::from_bytes([byte; 16]));
        let wait = |byte, ended: Instant| {
            leases.wait_for((token(byte), db.lease_history(1)), db.position(), begun, ended, 3);
        };
        let left =
            || leases.waiting().iter().map(|it| it.token.0.as_bytes()[0]).collect::<Vec<_>>();
        let second = Duration::from_secs(1);
        wait(1, begun + second);
        wait(3, begun + second);
        wait(2, begun + 1000 * second);
        assert_eq!(left(), [1, 3, 2]);
        // A follower may ask again.
        for byte in [3, 3, 9] {
            leases.end(token(byte));
        }
        assert_eq!(left(), [1, 2]);
        leases.expire(begun + 600 * second);
        assert_eq!(left(), [1, 2]);
        leases.expire(begun + 601 * second);
        assert_eq!(left(), [2]);
        // What has taken longer to receive takes longer to store.
        leases.expire(begun + 3999 * second);
        assert_eq!(left(), [2]);
        leases.expire(begun + 4000 * second);
        assert!(left().is_empty());
        for byte in 4..9 {
            wait(byte, begun);
        }
        assert_eq!(left(), [6, 7, 8], "the oldest ones are given up");
    }

    #[test]
    fn a_small_store_keeps_at_least_a_gibibyte() {
        let dir = tempfile::tempdir().unwrap();
        let db = Bitcask::open(dir.path(), Options::new()).unwrap();
        assert_eq!(size_max(&db), 1 << 30);
    }
}
