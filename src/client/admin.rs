//! The server itself: whether it works, its figures, and upkeep.

use std::time::Duration;

use serde::Deserialize;

use super::call::RemoteCall;
use super::json::{MergeToSend, MergedField};
use super::many::encoded;
use super::{Client, ClientError};
use crate::options::MergeOptions;
use crate::stats::MergeReport;
use crate::store::Position;

/// What a server says about itself, from [`Client::health`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ServerHealth {
    /// `healthy`, or `unhealthy` if the store accepts no more writes.
    pub status: String,
    /// The version of the server.
    pub version: Option<String>,
}

impl ServerHealth {
    /// Returns whether the server works.
    pub fn is_healthy(&self) -> bool {
        self.status == "healthy"
    }
}

/// Figures of a remote store, from [`Client::stats`]. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RemoteStats {
    /// Number of keys, including expired ones.
    pub keys: u64,
    /// Number of segments.
    pub segments: u64,
    /// Number of segments that are sealed.
    pub sealed_segments: u64,
    /// Size of the log.
    pub log_size: u64,
    /// Size of the live entries.
    pub live_size: u64,
    /// Size of what merges could free.
    pub dead_size: u64,
    /// Share of the log that merges could free, from 0 to 1.
    pub dead_ratio: f64,
    /// Memory that the keydir takes.
    pub keydir_size: u64,
    /// Whether a merge is running.
    pub is_merging: bool,
    /// The position behind the last change.
    pub position: Position,
    /// The version of the server.
    pub server_version: String,
    /// How long the server has been running.
    pub uptime: Duration,
    /// Number of requests that the server has answered.
    pub requests: u64,
}

/// The figures as the server sends them, as far as they are used here.
#[derive(Debug, Deserialize)]
struct StatsField {
    position: String,
    store: StoreField,
    server: ServerField,
}

#[derive(Debug, Deserialize)]
struct StoreField {
    keys: u64,
    segments: u64,
    sealed_segments: u64,
    log_size: u64,
    live_size: u64,
    dead_size: u64,
    dead_ratio: f64,
    keydir_size: u64,
    is_merging: bool,
}

#[derive(Debug, Deserialize)]
struct ServerField {
    version: String,
    uptime: f64,
    requests: u64,
}

impl Client {
    /// Asks the server whether it works. Sends one request, and needs no token.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if no server answers. A server that answers that it does not work is no
    /// error.
    pub fn health(&self) -> Result<ServerHealth, ClientError> {
        let answer = self.call(&RemoteCall::new("GET", "/health".into(), &[200, 503]).once())?;
        let health: ServerHealth =
            serde_json::from_slice(&answer.body).map_err(|error| self.invalid(&answer, error))?;
        Ok(health)
    }

    /// Returns whether a server answers and works.
    pub fn ping(&self) -> bool {
        self.health().is_ok_and(|health| health.is_healthy())
    }

    /// Returns the figures of the store and of the server.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn stats(&self) -> Result<RemoteStats, ClientError> {
        let answer = self.call(&RemoteCall::new("GET", "/v1/stats".into(), &[200]))?;
        let StatsField { position, store, server } =
            serde_json::from_slice(&answer.body).map_err(|error| self.invalid(&answer, error))?;
        let position = position.parse().map_err(|error| self.invalid(&answer, error))?;
        let uptime = Duration::try_from_secs_f64(server.uptime);
        Ok(RemoteStats {
            keys: store.keys,
            segments: store.segments,
            sealed_segments: store.sealed_segments,
            log_size: store.log_size,
            live_size: store.live_size,
            dead_size: store.dead_size,
            dead_ratio: store.dead_ratio,
            keydir_size: store.keydir_size,
            is_merging: store.is_merging,
            position,
            server_version: server.version,
            uptime: uptime.map_err(|error| self.invalid(&answer, error))?,
            requests: server.requests,
        })
    }

    /// Merges the segments of the store that are worth it; see
    /// [`Bitcask::merge`](crate::Bitcask::merge). Returns when that is done.
    ///
    /// # Errors
    ///
    /// [`ClientError`]. The server refuses with status 409 if another merge, a backup or a
    /// verification is running.
    pub fn merge(&self) -> Result<MergeReport, ClientError> {
        self.merge_opt(&MergeOptions::new())
    }

    /// Merges with options. Their progress callback is not called: the server tells only the end.
    ///
    /// # Errors
    ///
    /// As [`merge`](Self::merge).
    pub fn merge_opt(&self, options: &MergeOptions<'_>) -> Result<MergeReport, ClientError> {
        let segments = options.segments.as_ref().map(|ids| ids.iter().copied().collect());
        let (force, ordered) = (options.force, options.ordered);
        let bytes_per_second = options.bytes_per_second;
        let body = encoded(&MergeToSend { force, ordered, bytes_per_second, segments })?;
        let call = RemoteCall::new("POST", "/v1/merge".into(), &[200]).json(&body).once().upkeep();
        let answer = self.call(&call)?;
        let merged: MergedField =
            serde_json::from_slice(&answer.body).map_err(|error| self.invalid(&answer, error))?;
        let duration = Duration::try_from_secs_f64(merged.duration);
        Ok(MergeReport {
            segments_in: merged.segments_in,
            size_in: merged.size_in,
            segments_out: merged.segments_out,
            size_out: merged.size_out,
            live_entries: merged.live_entries,
            tombstones_kept: merged.tombstones_kept,
            tombstones_dropped: merged.tombstones_dropped,
            expired_dropped: merged.expired_dropped,
            cancelled: merged.cancelled,
            duration: duration.map_err(|error| self.invalid(&answer, error))?,
        })
    }

    /// Stops the server: it answers the requests that it has accepted, and closes the store.
    /// Returns when the server has begun to. Usually only clients on the same machine may do this.
    ///
    /// # Errors
    ///
    /// [`ClientError`]. The server refuses with status 403 if this client may not stop it.
    pub fn stop_server(&self) -> Result<(), ClientError> {
        self.call(&RemoteCall::new("POST", "/v1/stop".into(), &[202]).body(b"").once()).map(drop)
    }

    /// Makes a follower a leader: it follows no more, and accepts writes. Returns when that is
    /// durable. Usually only clients on the same machine may do this.
    ///
    /// # Errors
    ///
    /// [`ClientError`]. The server refuses with status 403 if this client may not promote it, and
    /// with 409 if it follows nobody, or has not received all data yet.
    pub fn promote_server(&self) -> Result<(), ClientError> {
        self.call(&RemoteCall::new("POST", "/v1/promote".into(), &[200]).body(b"").once()).map(drop)
    }
}
