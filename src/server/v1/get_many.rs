//! The values of many keys: `POST /v1/get`.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::server::body::{self, BoundedList};
use crate::server::bytes::{GivenKey, KeyField, text_or_base64};
use crate::server::failure::{ApiFailure, FailureBody};
use crate::server::reserved;
use crate::server::state::SharedServer;

/// Maximum size of the values of one answer, in bytes.
const VALUES_SIZE_MAX: usize = 16 << 20;

/// The keys whose values are wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct GetBody {
    /// At most 10,000: texts, or objects with `key` or `key_base64`.
    #[schema(value_type = Vec<WantedKey>, max_items = 10000)]
    keys: BoundedList<WantedKey>,
}

/// A key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(in super::super) enum WantedKey {
    Text(String),
    Field(GivenKey),
}

/// A key, and its value if it has one.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct FoundKey {
    #[serde(flatten)]
    key: KeyField,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    found: bool,
}

/// The values, in the order in which their keys were sent.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct GetAnswer {
    values: Vec<FoundKey>,
}

impl WantedKey {
    fn into_bytes(self) -> Result<Vec<u8>, ApiFailure> {
        match self {
            Self::Text(key) => Ok(key.into_bytes()),
            Self::Field(key) => key.into_bytes(),
        }
    }
}

/// Read the values of many keys.
#[utoipa::path(
    post, path = "/v1/get", tag = "v1", operation_id = "v1_get_many",
    request_body = GetBody,
    responses(
        (status = 200, description = "The keys, and their values", body = GetAnswer),
        (status = 400, description = "The body has not the expected form", body = FailureBody),
        (status = 413, description = "The values have more than 16 MiB together", body = FailureBody),
    )
)]
pub(in super::super) async fn read(
    State(state): State<SharedServer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<GetAnswer>, ApiFailure> {
    let (wanted, memory) = body::read_json::<GetBody>(&state, &headers, body).await?;
    let read = state.on_pool(move |state| {
        let _memory = memory;
        let keys: Result<Vec<_>, _> =
            wanted.keys.0.into_iter().map(WantedKey::into_bytes).collect();
        let keys = keys?;
        keys.iter().try_for_each(|key| reserved::check(key))?;
        let found = state.db.get_many(&keys)?;
        let size: usize = found.iter().flatten().map(|value| value.len()).sum();
        if size > VALUES_SIZE_MAX {
            let detail = format!("the values have {size} bytes together; ask for fewer keys");
            return Err(ApiFailure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail));
        }
        let pair = |(key, value): (&Vec<u8>, &Option<crate::value::Value>)| {
            let (text, base64) = value.as_ref().map_or((None, None), |it| text_or_base64(it));
            let found = value.is_some();
            FoundKey { key: KeyField::new(key), value: text, value_base64: base64, found }
        };
        Ok(GetAnswer { values: keys.iter().zip(&found).map(pair).collect() })
    });
    Ok(Json(read.await?))
}
