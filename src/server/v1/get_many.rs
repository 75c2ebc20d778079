//! The values of many keys: `POST /v1/get`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::server::answer::BoundedAnswer;
use crate::server::body::{self, BoundedList};
use crate::server::bytes::{Base64Text, GivenKey, KeyField, lent_text_or_base64};
use crate::server::failure::{ApiFailure, FailureBody};
use crate::server::reserved;
use crate::server::state::{ServerState, SharedServer};

/// Maximum size of the values of one answer, in bytes.
const VALUES_SIZE_MAX: u64 = 16 << 20;

/// The keys whose values are wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct GetBody {
    /// At most 10,000: texts, or objects with `key` or `key_base64`.
    #[schema(value_type = Vec<WantedKey>, max_items = 10000)]
    keys: BoundedList<WantedKey>,
}

/// A key.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
pub(in super::super) enum WantedKey {
    Text(String),
    Field(GivenKey),
}

// A derived implementation would first read whatever JSON there is into memory, which takes many
// times the size of the body.
impl<'de> Deserialize<'de> for WantedKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WantedKeyVisitor)
    }
}

struct WantedKeyVisitor;

impl<'de> Visitor<'de> for WantedKeyVisitor {
    type Value = WantedKey;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text, or an object with `key` or `key_base64`")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(WantedKey::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        GivenKey::deserialize(MapAccessDeserializer::new(map)).map(WantedKey::Field)
    }
}

/// A key, and its value if it has one.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct FoundKey<'a> {
    #[serde(flatten)]
    key: KeyField,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    value_base64: Option<Base64Text<'a>>,
    found: bool,
}

impl<'a> FoundKey<'a> {
    fn new(key: &[u8], value: Option<&'a [u8]>) -> Self {
        let (text, value_base64) = value.map_or((None, None), lent_text_or_base64);
        Self { key: KeyField::new(key), value: text, value_base64, found: value.is_some() }
    }
}

/// The values, in the order in which their keys were sent.
#[derive(Debug, ToSchema)]
pub(in super::super) struct GetAnswer {
    #[expect(dead_code, reason = "it describes the answer; `read` writes it")]
    values: Vec<FoundKey<'static>>,
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
        (status = 413, description = "There are more than 10,000 keys, or more than 16 MiB of values", body = FailureBody),
        (status = 503, description = "Other requests use all memory for bodies and answers", body = FailureBody),
    )
)]
pub(in super::super) async fn read(
    State(state): State<SharedServer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiFailure> {
    let (wanted, memory) = body::read_json::<GetBody>(&state, &headers, body).await?;
    // Gone as soon as nobody waits for the answer.
    let waiting = Arc::new(());
    let awaited = Arc::downgrade(&waiting);
    let read = state.on_pool(move |state| {
        // Held until the keys are not needed any more.
        let _memory = memory;
        let keys: Result<Vec<_>, _> =
            wanted.keys.0.into_iter().map(WantedKey::into_bytes).collect();
        let keys = keys?;
        keys.iter().try_for_each(|key| reserved::check(key))?;
        answer(state, &keys, || awaited.strong_count() > 0)
    });
    let answer = read.await;
    drop(waiting);
    answer
}

/// Number of keys after which the sizes of their values are added up.
const GROUP_LEN: usize = 64;

/// Returns the answer with the values of keys. It reads no more of them than one answer may have.
fn answer(
    state: &ServerState,
    keys: &[Vec<u8>],
    is_awaited: impl Fn() -> bool,
) -> Result<Response, ApiFailure> {
    let (mut answer, mut left) = (BoundedAnswer::new(state), VALUES_SIZE_MAX);
    answer.text("{\"values\":[")?;
    for (at, group) in keys.chunks(GROUP_LEN).enumerate() {
        if !is_awaited() {
            return Err(ApiFailure::timed_out());
        }
        // The sizes alone, since the values may be large, and one key may be there many times.
        let mut size: u64 = 0;
        for key in group {
            size += state.db.value_len(key)?.unwrap_or(0);
        }
        check_size(size, left)?;
        let values = state.db.get_many(group)?;
        // The values may have been replaced by larger ones.
        let size = values.iter().flatten().map(|value| value.len() as u64).sum();
        left = check_size(size, left)?;
        for (within, (key, value)) in group.iter().zip(values).enumerate() {
            answer.text(if at + within == 0 { "" } else { "," })?;
            answer.add(&FoundKey::new(key, value.as_deref()))?;
        }
    }
    answer.text("]}")?;
    Ok(answer.finish())
}

/// Returns how much an answer may still have behind values of this size.
fn check_size(size: u64, left: u64) -> Result<u64, ApiFailure> {
    left.checked_sub(size).ok_or_else(|| {
        let detail = format!(
            "the values have more than {VALUES_SIZE_MAX} bytes together; ask for fewer keys"
        );
        ApiFailure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_text_or_an_object() {
        let read = |text: &str| {
            let body: GetBody = serde_json::from_str(text).unwrap();
            let keys = body.keys.0.into_iter().map(|key| key.into_bytes().unwrap());
            keys.collect::<Vec<_>>()
        };
        let all = r#"{"keys":["a","\u0062",{"key":"c"},{"key_base64":"/w=="}]}"#;
        assert_eq!(read(all), [&b"a"[..], b"b", b"c", b"\xff"]);
    }

    #[test]
    fn what_is_no_key_is_refused_where_it_begins() {
        for wrong in ["[", "[1,2", "7", "null", "true", r#"{"other":["#, r#"{"key":["#] {
            // The rest, which is no JSON, has not been read when the error is found.
            let text = format!("{{\"keys\":[{wrong}?");
            let error = serde_json::from_str::<GetBody>(&text).unwrap_err();
            assert!(error.is_data(), "{wrong}: {error}");
        }
    }
}
