//! What a node says of itself.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use tokio::task::JoinSet;

use super::HttpState;
use crate::cluster::map::MAP_GROUP;
use crate::cluster::network::PeerTransport;
use crate::cluster::network::messages::{PeerAnswer, PeerRequest};
use crate::cluster::status::{GroupRole, GroupStatus, NodeStatus};
use crate::raft::blocking;
use crate::server::page;

/// Time in which another node has to say how it is.
const STATUS_TIME: Duration = Duration::from_secs(2);

/// Maximum time since a majority has answered a leader with which it is well.
const QUORUM_AGE_MAX: Duration = Duration::from_secs(10);

/// What `/health` says.
#[derive(Serialize)]
pub(super) struct Health {
    status: &'static str,
    node: u64,
    /// Number of groups that have a leader which a majority answers, as far as this node knows, and
    /// of all groups.
    groups_led: usize,
    groups: usize,
}

/// Answers 200 if each group has a leader. One whose disk hangs goes on to think that it leads.
pub(super) async fn health<T: PeerTransport>(
    State(state): State<HttpState<T>>,
) -> (StatusCode, Json<Health>) {
    // Without the stores, whose figures may wait for a disk that hangs.
    let all = state.node.all_groups();
    let (groups, node) = (all.len(), state.node.options.id);
    let groups_led = all.iter().filter(|group| group.is_led(QUORUM_AGE_MAX)).count();
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
    Json(blocking(|| state.node.status()))
}

/// What a node says of itself, or why it says nothing.
#[derive(Serialize)]
pub(super) struct NodeReport {
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<NodeStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Asks all nodes for their status.
pub(super) async fn nodes<T: PeerTransport>(
    State(state): State<HttpState<T>>,
) -> Json<Vec<NodeReport>> {
    let own = blocking(|| state.node.status());
    let mut asked = JoinSet::new();
    for entry in own.nodes.iter().filter(|entry| entry.id != own.id) {
        let (node, id, address) = (Arc::clone(&state.node), entry.id, entry.cluster.clone());
        asked.spawn(async move {
            let mut connection = node.network(MAP_GROUP).connection(&address);
            let (status, error) = match connection.ask(&PeerRequest::Status, STATUS_TIME).await {
                Ok(PeerAnswer::Status(status)) => (Some(status), None),
                Ok(PeerAnswer::Failed(reason) | PeerAnswer::Refused(reason)) => {
                    (None, Some(reason))
                }
                Ok(_) => (None, Some("the answer is not that to the question".to_owned())),
                Err(error) => (None, Some(error.to_string())),
            };
            NodeReport { id, status, error }
        });
    }
    let mut reports = asked.join_all().await;
    reports.push(NodeReport { id: own.id, status: Some(own), error: None });
    reports.sort_unstable_by_key(|report| report.id);
    Json(reports)
}

/// Returns the page that shows what [`nodes`] says.
pub(super) async fn dashboard() -> Response {
    page(include_str!("dashboard.html"))
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
    ("snapshot_sent_bytes", "Bytes of snapshots on their way that nodes have acknowledged", |it| {
        Some(it.transfers.iter().map(|transfer| transfer.sent).sum())
    }),
    ("snapshot_sending_bytes", "Size of the snapshots that are on their way", |it| {
        Some(it.transfers.iter().map(|transfer| transfer.size).sum())
    }),
    ("keys", "Number of keys", |it| Some(it.keys)),
    ("size_bytes", "Size of the store", |it| Some(it.size)),
];

/// The figures of all groups, for Prometheus.
pub(super) async fn metrics<T: PeerTransport>(State(state): State<HttpState<T>>) -> String {
    let status = blocking(|| state.node.status());
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
