//! Pages of keys: `GET /v1/keys`.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::dialect;
use crate::error::Result;
use crate::server::answer::BoundedAnswer;
use crate::server::bytes::{Base64Text, KeyField, lent_text_or_base64, percent_encoded};
use crate::server::failure::{ApiFailure, FailureBody};
use crate::server::query::QueryParameters;
use crate::server::reserved::is_reserved;
use crate::server::state::{ServerState, SharedServer};
use crate::value::Value;

/// Usual number of keys on a page.
const PAGE_LEN: usize = 1000;
/// Maximum number of keys on a page.
const PAGE_LEN_MAX: usize = dialect::ITEMS_MAX;
/// Size of keys and values after which a page ends, in bytes.
const PAGE_SIZE_MAX: usize = 4 << 20;
/// Size of keys and values after which a page that cannot end fails, in bytes.
const PAGE_SIZE_REFUSED: usize = 64 << 20;
/// Maximum size of a path, which the HTTP implementation sets, in bytes.
const PATH_SIZE_MAX: usize = u16::MAX as usize - 1;

/// Says where a page of keys ends: behind a key whose successor's path the server would accept.
#[derive(Debug)]
pub(in super::super) struct PageEnd {
    limit: usize,
    path_size_max: usize,
    count: usize,
    size: usize,
}

impl PageEnd {
    pub(in super::super) fn new(state: &ServerState, limit: usize) -> Self {
        // The other headers of a request need room too.
        let path_size_max = (state.options.header_size_limit / 4 * 3).min(PATH_SIZE_MAX);
        Self { limit, path_size_max, count: 0, size: 0 }
    }

    /// Counts a key with its value. Returns the path of the next page if the page ends here.
    pub(in super::super) fn after(
        &mut self,
        size: usize,
        next: impl FnOnce() -> String,
    ) -> Result<Option<String>, ApiFailure> {
        self.count += 1;
        self.size += size;
        if self.count < self.limit && self.size < PAGE_SIZE_MAX {
            return Ok(None);
        }
        let next = Some(next()).filter(|path| path.len() <= self.path_size_max);
        if next.is_none() && self.size >= PAGE_SIZE_REFUSED {
            let detail = "the page cannot end: too many keys in a row are too long for a path";
            return Err(ApiFailure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail));
        }
        Ok(next)
    }
}

/// A key, and its value if values were asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct ListedKey<'a> {
    #[serde(flatten)]
    key: KeyField,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    value_base64: Option<Base64Text<'a>>,
    /// The size of a value that is left out because the page would need more than all memory for
    /// answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_size: Option<u64>,
}

impl<'a> ListedKey<'a> {
    fn new(key: &[u8], value: Option<&'a [u8]>) -> Self {
        let (value, value_base64) = value.map_or((None, None), lent_text_or_base64);
        Self { key: KeyField::new(key), value, value_base64, value_size: None }
    }

    fn without_value(self, size: usize) -> Self {
        Self { value: None, value_base64: None, value_size: Some(size as u64), ..self }
    }
}

/// A page of keys.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the answer; `PageWriter` writes it")]
pub(in super::super) struct KeyPage {
    keys: Vec<ListedKey<'static>>,
    /// The path of the next page, if there may be one.
    next: Option<String>,
}

/// Which keys are wanted.
#[derive(Debug)]
struct ListingRequest {
    prefix: Vec<u8>,
    from: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
    before: Option<Vec<u8>>,
    limit: usize,
    reverse: bool,
    values: bool,
}

impl ListingRequest {
    fn read(uri: &Uri) -> Result<Self, ApiFailure> {
        let names = ["prefix", "from", "after", "before", "limit", "reverse", "values"];
        let query = QueryParameters::read(uri, &names)?;
        let bytes = |name| query.bytes(name).map(<[u8]>::to_vec);
        let (prefix, from) = (bytes("prefix").unwrap_or_default(), bytes("from"));
        Ok(Self {
            prefix,
            from,
            after: bytes("after"),
            before: bytes("before"),
            limit: query.limit(PAGE_LEN, PAGE_LEN_MAX)?,
            reverse: query.flag("reverse")?,
            values: query.flag("values")?,
        })
    }

    /// Returns the first key that the page may have.
    fn first(&self) -> &[u8] {
        self.from.as_ref().map_or(&self.prefix, |from| from.max(&self.prefix))
    }

    /// Returns the page, from one moment of the store.
    fn page(self, state: &ServerState) -> Result<Response, ApiFailure> {
        let db = &state.db;
        if self.values {
            let mut range = db.range(self.first()..);
            if let Some(end) = end_of(&self.prefix) {
                range = range.before(end);
            }
            if let Some(after) = &self.after {
                range = range.after(after);
            }
            if let Some(before) = &self.before {
                range = range.before(before);
            }
            let pair = |found: (Value, Value)| (found.0, Some(found.1));
            return if self.reverse {
                self.gather(state, range.rev().map(|found| found.map(pair)))
            } else {
                self.gather(state, range.map(|found| found.map(pair)))
            };
        }
        let mut range = db.range_keys(self.first()..);
        if let Some(end) = end_of(&self.prefix) {
            range = range.before(end);
        }
        if let Some(after) = &self.after {
            range = range.after(after);
        }
        if let Some(before) = &self.before {
            range = range.before(before);
        }
        let key = |found: Value| (found, None);
        if self.reverse {
            self.gather(state, range.rev().map(|found| found.map(key)))
        } else {
            self.gather(state, range.map(|found| found.map(key)))
        }
    }

    fn gather(
        self,
        state: &ServerState,
        found: impl Iterator<Item = Result<(Value, Option<Value>)>>,
    ) -> Result<Response, ApiFailure> {
        let is_seen = |pair: &Result<(Value, Option<Value>)>| {
            pair.as_ref().map_or(true, |(key, _)| !is_reserved(key))
        };
        let (mut answer, mut end) = (BoundedAnswer::new(state), PageEnd::new(state, self.limit));
        answer.text("{\"keys\":[")?;
        let mut next = None;
        for (at, pair) in found.filter(is_seen).enumerate() {
            let (key, value) = pair?;
            answer.text(if at == 0 { "" } else { "," })?;
            let (mut listed, mut size) = (ListedKey::new(&key, value.as_deref()), key.len());
            if let Some(value) = &value {
                if answer.has_room_for(&key, value, &listed) {
                    size += value.len();
                } else {
                    listed = listed.without_value(value.len());
                    // It was read, so it counts, but not for more than a page has.
                    size += value.len().min(PAGE_SIZE_MAX);
                }
            }
            answer.add(&listed)?;
            next = end.after(size, || self.next(&key))?;
            if next.is_some() {
                break;
            }
        }
        answer.text("],\"next\":")?;
        answer.add(&next)?;
        answer.text("}")?;
        Ok(answer.finish())
    }

    /// Returns the path of the page behind a key. Writing to a string never fails.
    fn next(&self, last: &[u8]) -> String {
        let mut path = format!("/v1/keys?limit={}", self.limit);
        let (after, before) = if self.reverse {
            (self.after.as_deref(), Some(last))
        } else {
            (Some(last), self.before.as_deref())
        };
        let prefix = Some(self.prefix.as_slice()).filter(|prefix| !prefix.is_empty());
        // Forwards, `after` is the narrower of the two.
        let from = self.from.as_deref().filter(|_| self.reverse);
        let bounds = [("prefix", prefix), ("from", from), ("after", after), ("before", before)];
        for (name, bytes) in bounds {
            if let Some(bytes) = bytes {
                let _ = write!(path, "&{name}={}", percent_encoded(bytes));
            }
        }
        for (name, is_set) in [("reverse", self.reverse), ("values", self.values)] {
            if is_set {
                let _ = write!(path, "&{name}=true");
            }
        }
        path
    }
}

/// Returns the first key behind all keys with a prefix. Returns `None` if none can be behind them.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix.get(..=kept)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

/// List keys in the order of their bytes, page by page. Each page is of one moment.
#[utoipa::path(
    get, path = "/v1/keys", tag = "v1", operation_id = "v1_list",
    params(
        ("prefix" = Option<String>, Query, description = "What the keys begin with"),
        ("from" = Option<String>, Query, description = "The first key that the page may have"),
        ("after" = Option<String>, Query, description = "The key after which the page begins"),
        ("before" = Option<String>, Query, description = "The key before which the page ends"),
        ("limit" = Option<u32>, Query, description = "Number of keys, from 1 to 10,000", minimum = 1, maximum = 10000),
        ("reverse" = Option<bool>, Query, description = "From the last key to the first"),
        ("values" = Option<bool>, Query, description = "With the values"),
    ),
    responses(
        (status = 200, description = "A page of keys", body = KeyPage),
        (status = 400, description = "A parameter is wrong", body = FailureBody),
        (status = 413, description = "Too many keys in a row are too long for a path", body = FailureBody),
        (status = 503, description = "Other requests use all memory for bodies and answers", body = FailureBody),
    )
)]
pub(in super::super) async fn list(
    State(state): State<SharedServer>,
    uri: Uri,
) -> Result<Response, ApiFailure> {
    let wanted = ListingRequest::read(&uri)?;
    state.on_pool(move |state| wanted.page(state)).await
}
