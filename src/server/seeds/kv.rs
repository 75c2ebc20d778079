//! The dialect of bitcaskpy: `/kv`.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::key_of;
use super::validation::BodyFields;
use crate::server::answer::BoundedAnswer;
use crate::server::body;
use crate::server::bytes::percent_encoded;
use crate::server::failure::{ApiFailure, FailureBody, SeedFailure};
use crate::server::query::QueryParameters;
use crate::server::reserved::is_reserved;
use crate::server::state::SharedServer;
use crate::server::v1::list::PageEnd;

/// A value to be stored.
#[derive(Debug, Deserialize, ToSchema)]
pub(in super::super) struct KvPutBody {
    /// Any text.
    #[expect(dead_code, reason = "it describes the body; `BodyFields` reads it")]
    value: String,
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct DoneAnswer {
    /// Always `success`.
    status: &'static str,
    message: String,
}

impl DoneAnswer {
    pub(super) fn new(message: impl Into<String>) -> Json<Self> {
        Json(Self { status: "success", message: message.into() })
    }
}

/// A key and its value, if it has one.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct KvAnswer<'a> {
    key: &'a str,
    value: Option<&'a str>,
    found: bool,
}

/// A page of keys.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct KvPage {
    /// Keys that are text, in the order of their bytes.
    keys: Vec<String>,
    /// The number of these.
    count: usize,
    /// The path of the next page, if there may be one.
    next: Option<String>,
}

const KV: &str = "/kv/";

/// Store a text.
#[utoipa::path(
    put, path = "/kv/{key}", tag = "bitcaskpy", operation_id = "kv_put",
    params(("key" = String, Path, description = "The key")),
    request_body = KvPutBody,
    responses(
        (status = 200, description = "The value is stored", body = DoneAnswer),
        (status = 413, description = "The key or the value is too large", body = FailureBody),
        (status = 422, description = "The body has not the expected form", body = FailureBody),
        (status = 500, description = "The store has failed", body = FailureBody),
    )
)]
pub(in super::super) async fn put(
    State(state): State<SharedServer>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<DoneAnswer>, SeedFailure> {
    let key = key_of(&uri, KV)?;
    let body = body::read(&state, &headers, body).await?;
    let message = format!("Key '{key}' stored successfully");
    let stored = state.on_pool(move |state| {
        // Moves the permit of its memory too.
        let body = body;
        let value = BodyFields::read(&headers, &body.bytes)?.text_value()?;
        Ok::<_, ApiFailure>(state.db.put(key, value)?)
    });
    stored.await?;
    Ok(DoneAnswer::new(message))
}

/// Read a text. A key that does not exist is no error: `found` is false.
#[utoipa::path(
    get, path = "/kv/{key}", tag = "bitcaskpy", operation_id = "kv_get",
    params(("key" = String, Path, description = "The key")),
    responses(
        (status = 200, description = "The key, and its value if it has one", body = KvAnswer<'static>),
        (status = 409, description = "The value is not text", body = FailureBody),
        (status = 413, description = "JSON takes more for the value than all memory for answers", body = FailureBody),
        (status = 422, description = "The key is not text", body = FailureBody),
        (status = 500, description = "The store has failed", body = FailureBody),
    )
)]
pub(in super::super) async fn get(
    State(state): State<SharedServer>,
    uri: Uri,
) -> Result<Response, SeedFailure> {
    let key = key_of(&uri, KV)?;
    let Some((value, _)) = state.get(key.clone().into_bytes()).await? else {
        let answer = KvAnswer { key: &key, value: None, found: false };
        return Ok(BoundedAnswer::of(&state, &answer)?);
    };
    let answer = state.convert(value, move |state, value| {
        let text = std::str::from_utf8(value).map_err(|_| not_text(&key))?;
        let answer = KvAnswer { key: &key, value: Some(text), found: true };
        BoundedAnswer::of_value(state, value, &answer)
    });
    Ok(answer.await?)
}

/// Returns the refusal to show a value that is no text.
pub(super) fn not_text(key: &str) -> ApiFailure {
    let path = percent_encoded(key.as_bytes());
    let detail = format!("the value is not UTF-8 text; read it at /v1/keys/{path}");
    ApiFailure::new(axum::http::StatusCode::CONFLICT, "not_text", detail)
}

/// Delete a key. A key that does not exist is no error.
#[utoipa::path(
    delete, path = "/kv/{key}", tag = "bitcaskpy", operation_id = "kv_delete",
    params(("key" = String, Path, description = "The key")),
    responses(
        (status = 200, description = "The key does not exist any more", body = DoneAnswer),
        (status = 422, description = "The key is not text", body = FailureBody),
        (status = 500, description = "The store has failed", body = FailureBody),
    )
)]
pub(in super::super) async fn delete(
    State(state): State<SharedServer>,
    uri: Uri,
) -> Result<Json<DoneAnswer>, SeedFailure> {
    let key = key_of(&uri, KV)?;
    let message = format!("Key '{key}' deleted successfully");
    state.on_pool(move |state| state.db.delete(key)).await?;
    Ok(DoneAnswer::new(message))
}

/// Usual and largest number of keys on a page.
const PAGE_LEN: usize = 1000;
const PAGE_LEN_MAX: usize = 10_000;

/// List keys, page by page. Keys that are not text are left out.
#[utoipa::path(
    get, path = "/kv", tag = "bitcaskpy", operation_id = "kv_list",
    params(
        ("prefix" = Option<String>, Query, description = "What the keys begin with"),
        ("after" = Option<String>, Query, description = "The key after which the page begins"),
        ("limit" = Option<u32>, Query, description = "Number of keys, from 1 to 10,000", minimum = 1, maximum = 10000),
    ),
    responses(
        (status = 200, description = "A page of keys", body = KvPage),
        (status = 400, description = "A parameter is wrong", body = FailureBody),
        (status = 500, description = "The store has failed", body = FailureBody),
    )
)]
pub(in super::super) async fn list(
    State(state): State<SharedServer>,
    uri: Uri,
) -> Result<Response, SeedFailure> {
    let query = QueryParameters::read(&uri, &["prefix", "after", "limit"])?;
    let limit = query.limit(PAGE_LEN, PAGE_LEN_MAX)?;
    let prefix = query.bytes("prefix").unwrap_or_default().to_vec();
    let after = query.bytes("after").map(<[u8]>::to_vec);
    let page = state.on_pool(move |state| {
        let mut range = state.db.prefix_keys(&prefix);
        if let Some(after) = after {
            range = range.after(after);
        }
        let (mut keys, mut next) = (Vec::new(), None);
        let mut end = PageEnd::new(state, limit);
        for key in range.filter(|key| key.as_ref().map_or(true, |key| !is_reserved(key))) {
            let key = key?;
            next = end.after(key.len(), || {
                let (prefix, after) = (percent_encoded(&prefix), percent_encoded(&key));
                format!("/kv?prefix={prefix}&limit={limit}&after={after}")
            })?;
            keys.extend(String::from_utf8(key.to_vec()));
            if next.is_some() {
                break;
            }
        }
        let count = keys.len();
        BoundedAnswer::of(state, &KvPage { keys, count, next })
    });
    Ok(page.await?)
}
