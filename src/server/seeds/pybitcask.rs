//! The dialect of pybitcask: `/put`, `/get` and so on.

use std::collections::HashMap;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value as JsonValue;
use utoipa::ToSchema;

use super::kv::{DoneAnswer, not_text};
use super::validation::BodyFields;
use super::values::ShownJson;
use super::{key_of, listing, values};
use crate::server::answer::BoundedAnswer;
use crate::server::body;
use crate::server::failure::{ApiFailure, FailureBody, SeedFailure};
use crate::server::reserved::{self, visible_len};
use crate::server::state::SharedServer;
use crate::store::Batch;

/// The state of the server.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct StatusAnswer {
    /// Always `running`.
    status: &'static str,
    /// Always `normal`: a store has one format.
    mode: &'static str,
    data_dir: String,
    keys_count: u64,
}

/// A pair to be stored.
#[derive(Debug, Deserialize, ToSchema)]
pub(in super::super) struct PutBody {
    #[expect(dead_code, reason = "it describes the body; `BodyFields` reads it")]
    key: String,
    /// Any JSON.
    #[schema(value_type = serde_json::Value)]
    #[expect(dead_code, reason = "it describes the body; `BodyFields` reads it")]
    value: JsonValue,
}

/// What was stored.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct PutAnswer {
    /// Always `success`.
    status: &'static str,
    key: String,
}

/// Pairs to be stored together.
#[derive(Debug, Deserialize, ToSchema)]
pub(in super::super) struct PairsBody {
    /// Values by their keys: any JSON.
    #[schema(value_type = HashMap<String, serde_json::Value>)]
    #[expect(dead_code, reason = "it describes the body; `BodyFields` reads it")]
    data: HashMap<String, JsonValue>,
}

/// How many pairs were stored.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct CountAnswer {
    /// Always `success`.
    status: &'static str,
    count: usize,
}

/// A key and its value, if it has one.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct PairAnswer<'a> {
    key: &'a str,
    /// Any JSON.
    #[schema(value_type = serde_json::Value)]
    value: Option<ShownJson<'a>>,
    found: bool,
}

/// Whether a key existed.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct DeletedAnswer {
    key: String,
    deleted: bool,
}

/// All keys that are text.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct KeysAnswer {
    keys: Vec<String>,
    /// The number of these.
    count: u64,
}

/// Tell that the server is running, and how many keys it has.
#[utoipa::path(
    get, path = "/", tag = "pybitcask", operation_id = "status",
    responses(
        (status = 200, description = "The state of the server", body = StatusAnswer),
        (status = 500, description = "The store has failed", body = FailureBody),
    )
)]
pub(in super::super) async fn status(
    State(state): State<SharedServer>,
) -> Result<Json<StatusAnswer>, SeedFailure> {
    // Counting waits until all shards are filled.
    let keys_count = state.on_pool(|state| visible_len(&state.db)).await?;
    let data_dir = state.db.path().display().to_string();
    Ok(Json(StatusAnswer { status: "running", mode: "normal", data_dir, keys_count }))
}

/// Store any JSON under a key.
#[utoipa::path(
    post, path = "/put", tag = "pybitcask", operation_id = "put",
    request_body = PutBody,
    responses(
        (status = 200, description = "The value is stored", body = PutAnswer),
        (status = 413, description = "The key or the value is too large", body = FailureBody),
        (status = 422, description = "The body has not the expected form", body = FailureBody),
        (status = 500, description = "The store has failed", body = FailureBody),
    )
)]
pub(in super::super) async fn put(
    State(state): State<SharedServer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<PutAnswer>, SeedFailure> {
    let body = body::read(&state, &headers, body).await?;
    let stored = state.on_pool(move |state| {
        // Moves the permit of its memory too.
        let body = body;
        let (key, value) = BodyFields::read(&headers, &body.bytes)?.pair()?;
        reserved::check(key.as_bytes())?;
        state.db.put(&key, values::stored_form(value))?;
        Ok::<_, ApiFailure>(key)
    });
    Ok(Json(PutAnswer { status: "success", key: stored.await? }))
}

/// Store many pairs: all of them, or none.
#[utoipa::path(
    post, path = "/batch", tag = "pybitcask", operation_id = "batch",
    request_body = PairsBody,
    responses(
        (status = 200, description = "All pairs are stored", body = CountAnswer),
        (status = 413, description = "The batch is too large", body = FailureBody),
        (status = 422, description = "The body has not the expected form", body = FailureBody),
        (status = 500, description = "The store has failed", body = FailureBody),
    )
)]
pub(in super::super) async fn batch(
    State(state): State<SharedServer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<CountAnswer>, SeedFailure> {
    let body = body::read(&state, &headers, body).await?;
    let stored = state.on_pool(move |state| {
        // Moves the permit of its memory too.
        let body = body;
        let fields = BodyFields::read(&headers, &body.bytes)?;
        let mut batch = Batch::new();
        for (key, value) in fields.pairs()? {
            reserved::check(key.as_bytes())?;
            batch.put(key, values::stored_form(value));
        }
        state.db.write(&batch)?;
        Ok::<_, ApiFailure>(batch.len())
    });
    Ok(Json(CountAnswer { status: "success", count: stored.await? }))
}

/// Read the JSON under a key. A key that does not exist is no error: `found` is false.
#[utoipa::path(
    get, path = "/get/{key}", tag = "pybitcask", operation_id = "get",
    params(("key" = String, Path, description = "The key")),
    responses(
        (status = 200, description = "The key, and its value if it has one", body = PairAnswer<'static>),
        (status = 409, description = "The value is neither JSON nor text", body = FailureBody),
        (status = 413, description = "JSON takes more for the value than all memory for answers", body = FailureBody),
        (status = 422, description = "The key is not text", body = FailureBody),
        (status = 500, description = "The store has failed", body = FailureBody),
    )
)]
pub(in super::super) async fn get(
    State(state): State<SharedServer>,
    uri: Uri,
) -> Result<Response, SeedFailure> {
    let key = key_of(&uri, "/get/")?;
    let Some((value, _)) = state.get(key.clone().into_bytes()).await? else {
        let answer = PairAnswer { key: &key, value: None, found: false };
        return Ok(BoundedAnswer::of(&state, &answer)?);
    };
    let answer = state.convert(value, move |state, value| {
        let json = values::json_of(value).ok_or_else(|| not_text(&key))?;
        let answer = PairAnswer { key: &key, value: Some(json), found: true };
        BoundedAnswer::of_value(state, value, &answer)
    });
    Ok(answer.await?)
}

/// Delete a key, and tell whether it existed.
#[utoipa::path(
    delete, path = "/delete/{key}", tag = "pybitcask", operation_id = "delete",
    params(("key" = String, Path, description = "The key")),
    responses(
        (status = 200, description = "Whether the key existed", body = DeletedAnswer),
        (status = 422, description = "The key is not text", body = FailureBody),
        (status = 500, description = "The store has failed", body = FailureBody),
    )
)]
pub(in super::super) async fn delete(
    State(state): State<SharedServer>,
    uri: Uri,
) -> Result<Json<DeletedAnswer>, SeedFailure> {
    let key = key_of(&uri, "/delete/")?;
    let gone = key.clone();
    let deleted = state.on_pool(move |state| state.db.delete(gone)).await?;
    Ok(Json(DeletedAnswer { key, deleted }))
}

/// List all keys that are text, in the order of their bytes. `/v1/keys` has them page by page.
#[utoipa::path(
    get, path = "/keys", tag = "pybitcask", operation_id = "keys",
    responses(
        (status = 200, description = "All keys", body = KeysAnswer),
        (status = 503, description = "Too many listings are under way", body = FailureBody),
    )
)]
pub(in super::super) async fn keys(
    State(state): State<SharedServer>,
) -> Result<Response, SeedFailure> {
    Ok(listing::all_keys(&state)?)
}

/// Delete all keys.
#[utoipa::path(
    post, path = "/clear", tag = "pybitcask", operation_id = "clear",
    responses(
        (status = 200, description = "The store is empty", body = DoneAnswer),
        (status = 500, description = "The store has failed", body = FailureBody),
    )
)]
pub(in super::super) async fn clear(
    State(state): State<SharedServer>,
) -> Result<Json<DoneAnswer>, SeedFailure> {
    state.on_pool(|state| state.db.clear()).await?;
    Ok(DoneAnswer::new("Database cleared"))
}
