//! The shapes of bodies. `docs/server.md` describes them.

use serde::{Deserialize, Serialize};

use crate::dialect;
use crate::value::Value;

/// A key, and perhaps a value, as an answer has them: as text, or in base64.
#[derive(Debug, Deserialize)]
pub(super) struct PairField {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    /// The size of a value that was left out.
    pub(super) value_size: Option<u64>,
}

impl PairField {
    pub(super) fn into_value(self) -> Result<Option<Value>, String> {
        bytes(self.value, self.value_base64)
    }

    pub(super) fn into_pair(self) -> Result<(Value, Option<Value>), String> {
        let key = bytes(self.key, self.key_base64)?.ok_or("a key is missing")?;
        Ok((key, bytes(self.value, self.value_base64)?))
    }
}

fn bytes(text: Option<String>, base64: Option<String>) -> Result<Option<Value>, String> {
    match (text, base64) {
        (Some(text), _) => Ok(Some(text.into_bytes().into())),
        (None, Some(base64)) => {
            let decoded = dialect::base64_decoded(&base64).map_err(|error| error.to_string())?;
            Ok(Some(decoded.into()))
        }
        (None, None) => Ok(None),
    }
}

/// A key as a request has it.
#[derive(Debug, Serialize)]
pub(super) struct KeyToSend<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
}

impl<'a> KeyToSend<'a> {
    pub(super) fn new(key: &'a [u8]) -> Self {
        let (key, key_base64) = dialect::text_or_base64(key);
        Self { key, key_base64 }
    }
}

/// The keys that `POST /v1/get` is to read.
#[derive(Debug, Serialize)]
pub(super) struct KeysToSend<'a> {
    pub(super) keys: Vec<KeyToSend<'a>>,
}

/// The answer of `POST /v1/get`.
#[derive(Debug, Deserialize)]
pub(super) struct FoundValues {
    pub(super) values: Vec<PairField>,
}

/// A batch.
#[derive(Debug, Serialize)]
pub(super) struct BatchToSend<'a> {
    pub(super) operations: Vec<OperationToSend<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) durable: Option<bool>,
}

/// A change of a batch.
#[derive(Debug, Serialize)]
pub(super) struct OperationToSend<'a> {
    pub(super) op: &'static str,
    #[serde(flatten)]
    pub(super) key: KeyToSend<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ttl: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) keep_ttl: bool,
}

/// A page of keys.
#[derive(Debug, Deserialize)]
pub(super) struct ListedPage {
    pub(super) keys: Vec<PairField>,
    pub(super) next: Option<String>,
}

/// The data of an event of the change feed.
#[derive(Debug, Deserialize)]
pub(super) struct ChangeField {
    #[serde(flatten)]
    pub(super) pair: PairField,
    pub(super) expires_at: Option<String>,
    pub(super) timestamp: String,
    #[serde(default)]
    pub(super) batch_continues: bool,
}

/// Which segments to merge, and how.
#[derive(Debug, Serialize)]
pub(super) struct MergeToSend {
    pub(super) force: bool,
    pub(super) ordered: Option<bool>,
    pub(super) bytes_per_second: Option<u64>,
    pub(super) segments: Option<Vec<u32>>,
}

/// What a merge has done.
#[derive(Debug, Deserialize)]
pub(super) struct MergedField {
    pub(super) cancelled: bool,
    pub(super) duration: f64,
    pub(super) segments_in: u64,
    pub(super) segments_out: u64,
    pub(super) size_in: u64,
    pub(super) size_out: u64,
    pub(super) live_entries: u64,
    pub(super) expired_dropped: u64,
    pub(super) tombstones_dropped: u64,
    pub(super) tombstones_kept: u64,
}
