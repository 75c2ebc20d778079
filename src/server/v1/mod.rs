//! The dialect of this crate: all of the store, with keys and values of any bytes.

pub(super) mod batch;
pub(super) mod change_event;
pub(super) mod changes;
mod conditions;
pub(super) mod get_many;
pub(super) mod keys;
pub(super) mod list;
pub(super) mod promote;
mod ranges;
pub(super) mod snapshot;
pub(super) mod stats;
mod times;
pub(super) mod upkeep;

use axum::Router;
use axum::routing::{get, post};

use super::state::SharedServer;

/// Returns the routes of `/v1`.
pub(super) fn routes() -> Router<SharedServer> {
    let one = || get(keys::read).put(keys::write).delete(keys::delete);
    Router::new()
        .route("/v1/keys", get(list::list))
        // The empty key, and all others: a key may contain slashes.
        .route("/v1/keys/", one())
        .route("/v1/keys/{*key}", one())
        .route("/v1/batch", post(batch::write))
        .route("/v1/get", post(get_many::read))
        .route("/v1/changes", get(changes::follow))
        .route("/v1/snapshot", get(snapshot::read))
        .route("/v1/stats", get(stats::stats))
        .route("/v1/segments", get(stats::segments))
        .route("/v1/merge", post(upkeep::merge))
        .route("/v1/backup", post(upkeep::backup))
        .route("/v1/verify", post(upkeep::verify))
        .route("/v1/promote", post(promote::promote))
        .route("/v1/stop", post(upkeep::stop))
}
