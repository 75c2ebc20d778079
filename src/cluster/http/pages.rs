//! What a node says of itself.

use std::fmt::Write as _;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use super::HttpState;
use crate::cluster::network::PeerTransport;
use crate::cluster::status::{GroupRole, GroupStatus, NodeStatus};

/// What `/health` says.
#[derive(Serialize)]
pub(super) struct Health {
    status: &'static str,
    node: u64,
    /// Number of groups that have a leader, as this node knows it, and of all groups.
    groups_led: usize,
    groups: usize,
}

/// Answers 200 if each group has a leader.
pub(super) async fn health<T: PeerTransport>(
    State(state): State<HttpState<T>>,
) -> (StatusCode, Json<Health>) {
    let status = state.node.status();
    let (groups, node) = (status.groups.len(), status.id);
    let groups_led = status.groups.iter().filter(|group| group.leader.is_some()).count();
    let is_well = groups > 0 && groups_led == groups;
    let (code, status) = if is_well {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "degraded")
    };
    (code, Json(Health { status, node, groups_led, groups }))
}

pub(super) async fn cluster<T: PeerTransport>(
    State(state): State<HttpState<T>>,
) -> Json<NodeStatus> {
    Json(state.node.status())
}

/// The figures of a group: a name, what it is, and how it is found.
type GroupFigure = (&'static str, &'static str, fn(&GroupStatus) -> Option<u64>);

const FIGURES: &[GroupFigure] = &[
    ("is_leader", "Whether this node leads the group", |it| {
        Some(u64::from(it.role == GroupRole::Leader))
    }),
    ("has_leader", "Whether the group has a leader, as this node knows it", |it| {
        Some(u64::from(it.leader.is_some()))
    }),
    ("term", "Term of Raft", |it| Some(it.term)),
    ("last_log_index", "Index of the last entry of the log", |it| it.last_log),
    ("applied_index", "Index of the last entry that was applied", |it| it.applied),
    ("snapshot_index", "Index of the last entry in a snapshot", |it| it.snapshot),
    ("purged_index", "Index of the last entry purged from the log", |it| it.purged),
    (
        "lag_entries",
        "Entries that the slowest node of the group lacks, as its leader knows",
        |it| {
            let slowest = it.replicated.iter().map(|(_, at)| at.unwrap_or(0)).min()?;
            Some(it.last_log.unwrap_or(0).saturating_sub(slowest))
        },
    ),
    ("quorum_age_ms", "Milliseconds since a majority answered the leader", |it| it.quorum_age),
    ("keys", "Number of keys", |it| Some(it.keys)),
    ("size_bytes", "Size of the store", |it| Some(it.size)),
];

/// The figures of all groups, for Prometheus.
pub(super) async fn metrics<T: PeerTransport>(State(state): State<HttpState<T>>) -> String {
    let status = state.node.status();
    let mut text = String::new();
    for (name, help, figure) in FIGURES {
        let _ = writeln!(text, "# HELP bitcask_cluster_{name} {help}.");
        let _ = writeln!(text, "# TYPE bitcask_cluster_{name} gauge");
        for group in &status.groups {
            if let Some(value) = figure(group) {
                let number = group.number;
                let _ = writeln!(text, "bitcask_cluster_{name}{{group=\"{number}\"}} {value}");
            }
        }
    }
    text
}
