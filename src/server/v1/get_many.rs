//! The values of many keys: `POST /v1/get`.

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
#[derive(Debug, ToSchema)]
pub(in super::super) struct GetAnswer {
    #[expect(dead_code, reason = "it describes the answer; `read` writes it")]
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
    let read = state.on_pool(move |state| {
        // Held until the keys are not needed any more.
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
        let mut answer = BoundedAnswer::new(state);
        answer.text("{\"values\":[")?;
        for (at, (key, value)) in keys.iter().zip(found).enumerate() {
            let (text, base64) = value.as_ref().map_or((None, None), |it| text_or_base64(it));
            let (key, found) = (KeyField::new(key), value.is_some());
            answer.text(if at == 0 { "" } else { "," })?;
            answer.add(&FoundKey { key, value: text, value_base64: base64, found })?;
        }
        answer.text("]}")?;
        Ok(answer.finish())
    });
    read.await
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
