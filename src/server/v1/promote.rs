//! A follower becomes a leader: `POST /v1/promote`.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use crate::replica::Replica;
use crate::server::failure::{ApiFailure, FailureBody};
use crate::server::gate::PeerAddress;
use crate::server::state::SharedServer;

/// What the server is now.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct PromotedAnswer {
    /// Always `leader`.
    role: &'static str,
    /// Up to where the store has what its leader had, in the leader's log.
    leader_position: Option<String>,
}

/// Make a follower a leader: it follows no more, and accepts writes. Answers when that is durable.
#[utoipa::path(
    post, path = "/v1/promote", tag = "v1", operation_id = "v1_promote",
    responses(
        (status = 200, description = "The server accepts writes", body = PromotedAnswer),
        (status = 403, description = "The client is on another machine or behind a proxy, and there is no token", body = FailureBody),
        (status = 409, description = "The server does not follow, or does not have all of the leader's data yet", body = FailureBody),
    )
)]
pub(in super::super) async fn promote(
    State(state): State<SharedServer>,
    Extension(peer): Extension<PeerAddress>,
    headers: HeaderMap,
) -> Result<Json<PromotedAnswer>, ApiFailure> {
    // If there is a token, this client has it.
    if !peer.is_local(&headers) && state.options.token.is_none() {
        let detail = "only a client on the same machine without a proxy, or one with a token, may \
                      promote the server";
        return Err(ApiFailure::forbidden(detail));
    }
    let promoted = state.on_pool(|state| match &state.follower {
        None => Err(ApiFailure::not_a_follower()),
        Some(follower) => Ok(follower.promote()?),
    });
    promoted.await?;
    let position = state.replica().and_then(Replica::position);
    let leader_position = position.map(|position| position.to_string());
    Ok(Json(PromotedAnswer { role: "leader", leader_position }))
}
