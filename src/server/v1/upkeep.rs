//! Upkeep: merges, backups, verifications, and the end of the server.
//!
//! One of the first three runs at a time. It continues when its client gives up, and stops when the
//! server stops. Then a backup is removed, and a merge keeps what it has done.

use std::ops::ControlFlow;
use std::path::{Component, Path};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::options::MergeOptions;
use crate::server::body::{self, BoundedList};
use crate::server::failure::{ApiFailure, FailureBody};
use crate::server::gate::PeerAddress;
use crate::server::state::{ServerState, SharedServer};
use crate::stats::MergeReport;
use crate::store::VerifyReport;

/// How to merge.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct MergeBody {
    /// Whether to merge all segments, not only those that are worth it.
    #[serde(default)]
    force: bool,
    /// Whether the merged segments are to be in the order of keys.
    ordered: Option<bool>,
    /// How many bytes to read per second at most.
    #[schema(minimum = 1)]
    bytes_per_second: Option<u64>,
    /// Which segments to merge, by their ids; otherwise the server chooses.
    #[schema(value_type = Option<Vec<u32>>, max_items = 10000)]
    segments: Option<BoundedList<u32>>,
}

/// What a merge has done. Sizes are in bytes.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct MergeAnswer {
    /// Whether it was stopped before its end.
    cancelled: bool,
    /// In seconds.
    duration: f64,
    segments_in: u64,
    segments_out: u64,
    size_in: u64,
    size_out: u64,
    freed_size: u64,
    live_entries: u64,
    expired_dropped: u64,
    tombstones_dropped: u64,
    tombstones_kept: u64,
}

impl MergeAnswer {
    fn new(report: &MergeReport) -> Self {
        Self {
            cancelled: report.cancelled,
            duration: report.duration.as_secs_f64(),
            segments_in: report.segments_in,
            segments_out: report.segments_out,
            size_in: report.size_in,
            size_out: report.size_out,
            freed_size: report.freed_size(),
            live_entries: report.live_entries,
            expired_dropped: report.expired_dropped,
            tombstones_dropped: report.tombstones_dropped,
            tombstones_kept: report.tombstones_kept,
        }
    }
}

/// Returns whether upkeep continues.
fn flow(state: &ServerState) -> ControlFlow<()> {
    if state.stop.is_raised() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Reclaim the space of what was overwritten, deleted, or has expired. Answers when it is done.
#[utoipa::path(
    post, path = "/v1/merge", tag = "v1", operation_id = "v1_merge",
    request_body = MergeBody,
    responses(
        (status = 200, description = "What was merged", body = MergeAnswer),
        (status = 400, description = "The body has not the expected form", body = FailureBody),
        (status = 409, description = "Another merge, a backup or a verification runs", body = FailureBody),
    )
)]
pub(in super::super) async fn merge(
    State(state): State<SharedServer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<MergeAnswer>, ApiFailure> {
    let (wanted, _memory) = body::read_json::<MergeBody>(&state, &headers, body).await?;
    let merged = state.upkeep(move |state| {
        let mut options = MergeOptions::new().force(wanted.force).progress(|_| flow(state));
        if let Some(ordered) = wanted.ordered {
            options = options.ordered(ordered);
        }
        if let Some(limit) = wanted.bytes_per_second {
            options = options.bytes_per_second(Some(limit));
        }
        if let Some(BoundedList(ids)) = wanted.segments {
            options = options.segments(ids);
        }
        state.db.merge_opt(options)
    });
    Ok(Json(MergeAnswer::new(&merged.await?)))
}

/// Where to make a backup.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct BackupBody {
    /// The name of a directory that does not exist yet, below the server's directory for backups.
    name: String,
}

/// What a backup consists of. Sizes are in bytes.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct BackupAnswer {
    /// Where it is, on the server's machine.
    path: String,
    segments: u64,
    size: u64,
    /// Number of segments that share their space with the store.
    linked: u64,
    copied_size: u64,
}

/// Returns whether a name is that of one directory.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let is_one = matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none();
    is_one && !name.contains(['/', '\\', '\0'])
}

/// Copy the store to a new directory on the server's machine. Answers when it is done.
#[utoipa::path(
    post, path = "/v1/backup", tag = "v1", operation_id = "v1_backup",
    request_body = BackupBody,
    responses(
        (status = 200, description = "What the backup consists of", body = BackupAnswer),
        (status = 400, description = "The name is wrong, or exists", body = FailureBody),
        (status = 403, description = "The server was started without a directory for backups", body = FailureBody),
        (status = 409, description = "A merge, a verification or another backup runs", body = FailureBody),
        (status = 503, description = "The server stops; there is no backup", body = FailureBody),
    )
)]
pub(in super::super) async fn backup(
    State(state): State<SharedServer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<BackupAnswer>, ApiFailure> {
    let Some(dir) = state.options.backup_dir.clone() else {
        let detail = "the server was started without a directory for backups";
        return Err(ApiFailure::forbidden(detail));
    };
    let (wanted, _memory) = body::read_json::<BackupBody>(&state, &headers, body).await?;
    if !is_plain_name(&wanted.name) {
        return Err(ApiFailure::invalid("`name` has to be the name of one new directory"));
    }
    let path = dir.join(&wanted.name);
    let shown = path.display().to_string();
    let report = state.upkeep(move |state| state.db.backup_until(path, state.stop.flag())).await?;
    if report.cancelled {
        return Err(ApiFailure::stopping());
    }
    Ok(Json(BackupAnswer {
        path: shown,
        segments: report.segments,
        size: report.size,
        linked: report.linked,
        copied_size: report.copied_size,
    }))
}

/// Maximum number of places of damage in an answer.
const DAMAGE_MAX: usize = 1000;

/// What a verification has found.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct VerifyAnswer {
    clean: bool,
    /// Whether it was stopped before its end.
    cancelled: bool,
    segments: u64,
    size: u64,
    entries: u64,
    live_entries: u64,
    tombstones: u64,
    /// The first 1,000 places.
    damage: Vec<DamagedPlace>,
    damage_count: usize,
}

/// Where the store is damaged.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct DamagedPlace {
    path: String,
    offset: u64,
    reason: String,
}

impl VerifyAnswer {
    fn new(report: &VerifyReport) -> Self {
        let place = |damage: &crate::store::Damage| DamagedPlace {
            path: damage.path.display().to_string(),
            offset: damage.offset,
            reason: damage.reason.clone(),
        };
        Self {
            clean: report.is_clean(),
            cancelled: report.cancelled,
            segments: report.segments,
            size: report.size,
            entries: report.entries,
            live_entries: report.live_entries,
            tombstones: report.tombstones,
            damage: report.damage.iter().take(DAMAGE_MAX).map(place).collect(),
            damage_count: report.damage.len(),
        }
    }
}

/// Read all of the store, and report damage. Answers when it is done.
#[utoipa::path(
    post, path = "/v1/verify", tag = "v1", operation_id = "v1_verify",
    responses(
        (status = 200, description = "What was found", body = VerifyAnswer),
        (status = 409, description = "A merge, a backup or another verification runs", body = FailureBody),
    )
)]
pub(in super::super) async fn verify(
    State(state): State<SharedServer>,
) -> Result<Json<VerifyAnswer>, ApiFailure> {
    let verified = state.upkeep(|state| state.db.verify_with(|_| flow(state)));
    Ok(Json(VerifyAnswer::new(&verified.await?)))
}

/// Stop the server. It answers the requests that it has accepted, and closes the store.
#[utoipa::path(
    post, path = "/v1/stop", tag = "v1", operation_id = "v1_stop",
    responses(
        (status = 202, description = "The server stops"),
        (status = 403, description = "The client is on another machine, or behind a proxy", body = FailureBody),
    )
)]
pub(in super::super) async fn stop(
    State(state): State<SharedServer>,
    Extension(peer): Extension<PeerAddress>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiFailure> {
    if !peer.is_local(&headers) && !state.options.remote_stop {
        let detail = "only a client on the same machine, without a proxy, may stop the server";
        return Err(ApiFailure::forbidden(detail));
    }
    state.stop.raise();
    Ok(StatusCode::ACCEPTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_never_leaves_its_directory() {
        for name in ["monday", "2026-11-28", ".hidden", "a b"] {
            assert!(is_plain_name(name), "{name}");
        }
        for name in ["", ".", "..", "../up", "a/b", "/etc", "a/", "a\\b", "a\0b"] {
            assert!(!is_plain_name(name), "{name}");
        }
    }
}
