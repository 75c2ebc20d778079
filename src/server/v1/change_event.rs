//! A change as the feed sends it: as an event or as a frame.

use serde::Serialize;
use utoipa::ToSchema;

use super::snapshot::micros;
use super::times;
use crate::server::bytes::{Base64Text, KeyField, lent_text_or_base64};
use crate::server::frames::{Frame, FrameKind, FrameLag};
use crate::store::{Backlog, Change, Operation};

/// A change, as the data of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChangeEvent<'a> {
    #[serde(flatten)]
    key: KeyField,
    /// The value of a put, if it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    /// The value of a put, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    value_base64: Option<Base64Text<'a>>,
    /// The size of a value that is left out because it is larger than a body may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    timestamp: String,
    /// Whether the next change belongs to the same batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_continues: Option<bool>,
}

impl<'a> ChangeEvent<'a> {
    /// Returns the name and the data of a change's event. `left_out` is the size of a value that is
    /// left out.
    pub(crate) fn new(change: &'a Change, left_out: Option<u64>) -> (&'static str, Self) {
        let mut event = Self {
            key: KeyField::new(&change.key),
            value: None,
            value_base64: None,
            value_size: left_out,
            expires_at: None,
            timestamp: times::shown(change.timestamp),
            batch_continues: change.batch_continues.then_some(true),
        };
        match &change.operation {
            Operation::Delete => ("delete", event),
            Operation::Put { value, expires_at } => {
                if left_out.is_none() {
                    (event.value, event.value_base64) = lent_text_or_base64(value);
                }
                event.expires_at = expires_at.map(times::shown);
                ("put", event)
            }
        }
    }
}

/// Returns the frame of a change.
pub(super) fn frame_of(change: &Change) -> Frame<&[u8]> {
    let (continues, position, key) = (change.batch_continues, change.position, &*change.key);
    let (kind, expiry, value) = match &change.operation {
        Operation::Delete => (FrameKind::Delete, None, &b""[..]),
        Operation::Put { value, expires_at } => (FrameKind::Put, expires_at.map(micros), &**value),
    };
    Frame { kind, continues, expiry, position, key, value }
}

/// Returns how far behind a follower is.
pub(super) fn lag(backlog: &Backlog) -> FrameLag {
    let age = backlog.oldest.map(|oldest| oldest.elapsed().unwrap_or_default());
    let age = u64::try_from(age.unwrap_or_default().as_micros()).unwrap_or(u64::MAX);
    FrameLag { size: backlog.size, changes: backlog.changes, age }
}
