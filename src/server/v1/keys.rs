//! One key: `/v1/keys/{key}`.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::Response;

use super::conditions::{Conditions, Verdict, entity_tag, is_tag};
use super::ranges::{WantedPart, wanted};
use super::times;
use crate::dialect;
use crate::options::WriteOptions;
use crate::server::body::{self, LentValue};
use crate::server::bytes::percent_decoded;
use crate::server::failure::{ApiFailure, FailureBody};
use crate::server::reserved;
use crate::server::state::SharedServer;
use crate::store::{Ttl, Version};

/// Seconds that a key has left or gets. `keep` keeps what it has.
const TTL: HeaderName = HeaderName::from_static(dialect::TTL);
/// The time at which a key expires.
const EXPIRES_AT: HeaderName = HeaderName::from_static(dialect::EXPIRES_AT);
/// `true` makes a write durable before it is answered.
const DURABLE: HeaderName = HeaderName::from_static(dialect::DURABLE);

/// Returns the key in a path, which can be any bytes.
fn key_of(uri: &Uri) -> Result<Vec<u8>, ApiFailure> {
    let key = uri.path().strip_prefix("/v1/keys/").unwrap_or_default();
    let key = percent_decoded(key, false);
    let key = key.ok_or_else(|| ApiFailure::invalid("the key has a broken escape"))?;
    reserved::check(&key).map(|()| key)
}

/// Returns the text of a header.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default().trim())
}

/// Returns the options of a write.
fn write_options(headers: &HeaderMap) -> Result<WriteOptions, ApiFailure> {
    let mut options = match text(headers, &DURABLE) {
        None => WriteOptions::new(),
        Some("true") => WriteOptions::new().durable(true),
        Some("false") => WriteOptions::new().durable(false),
        Some(_) => return Err(ApiFailure::invalid("`x-bitcask-durable` has to be true or false")),
    };
    if let Some(time) = text(headers, &EXPIRES_AT) {
        options = options.expires_at(times::read(time)?);
    }
    let Some(lifetime) = text(headers, &TTL) else { return Ok(options) };
    let mut parts = lifetime.split(',').map(str::trim);
    let wrong = || {
        let detail = "`x-bitcask-ttl` has to be a number of seconds, or keep, or both: 60, keep";
        ApiFailure::invalid(detail)
    };
    let (number, keeps) = match (parts.next(), parts.next(), parts.next()) {
        (Some("keep"), None, None) => (None, true),
        (Some(number), None, None) => (Some(number), false),
        (Some("keep"), Some(number), None) | (Some(number), Some("keep"), None) => {
            (Some(number), true)
        }
        _ => return Err(wrong()),
    };
    if let Some(number) = number {
        if headers.contains_key(EXPIRES_AT) {
            let detail = "there are both `x-bitcask-ttl` and `x-bitcask-expires-at`";
            return Err(ApiFailure::invalid(detail));
        }
        let number: f64 = number.parse().map_err(|_| wrong())?;
        options = options.ttl(times::seconds(number)?);
    }
    Ok(options.keep_ttl(keeps))
}

/// Read a value. HEAD returns only the headers, and also how many seconds the key has left.
#[utoipa::path(
    get, path = "/v1/keys/{key}", tag = "v1", operation_id = "v1_get",
    params(
        ("key" = String, Path, description = "The key, percent-encoded; it can be any bytes"),
        ("Range" = Option<String>, Header, description = "One range of bytes, such as bytes=0-99"),
        ("If-Range" = Option<String>, Header, description = "The tag for which the range is meant"),
        ("If-None-Match" = Option<String>, Header, description = "Tags that the client has"),
        ("If-Match" = Option<String>, Header, description = "Tags of which the key must have one"),
    ),
    responses(
        (status = 200, description = "The value", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "A part of the value", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "The client has this value"),
        (status = 400, description = "A header is wrong", body = FailureBody),
        (status = 404, description = "The key does not exist", body = FailureBody),
        (status = 412, description = "The key is not as expected", body = FailureBody),
        (status = 416, description = "The range lies behind the end", body = FailureBody),
    )
)]
pub(in super::super) async fn read(
    State(state): State<SharedServer>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiFailure> {
    let key = key_of(&uri)?;
    let conditions = Conditions::read(&headers)?;
    if method == Method::HEAD {
        return head(&state, key, &conditions).await;
    }
    let found = state.get(key).await?;
    let current = found.as_ref().map(|(_, version)| *version);
    match (conditions.verdict(current), found) {
        (Verdict::Differs, _) => Err(ApiFailure::unmet_condition(current.map(entity_tag))),
        (_, None) => Err(ApiFailure::no_such_key()),
        (Verdict::Same, Some((_, version))) => Ok(not_modified(version, None)),
        (Verdict::Holds, Some((value, version))) => lent(value, version, &headers),
    }
}

/// Returns the headers that a get would have, and the time that the key has left. The value is not
/// read, and a range counts for a get alone.
async fn head(
    state: &SharedServer,
    key: Vec<u8>,
    conditions: &Conditions,
) -> Result<Response, ApiFailure> {
    let found = state.look(move |state| {
        let db = &state.db;
        db.look(&key, |stored| (Version::of(stored), stored.raw_size(), db.ttl_of(stored)))
    });
    let found = found.await?;
    let current = found.as_ref().map(|(version, ..)| *version);
    match (conditions.verdict(current), found) {
        (Verdict::Differs, _) => Err(ApiFailure::unmet_condition(current.map(entity_tag))),
        (_, None) => Err(ApiFailure::no_such_key()),
        (Verdict::Same, Some((version, _, ttl))) => Ok(not_modified(version, Some(ttl))),
        (Verdict::Holds, Some((version, size, ttl))) => {
            let mut response = whole(Body::empty(), version, Some(ttl));
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(size));
            Ok(response)
        }
    }
}

/// Returns the answer to a client that has the value.
fn not_modified(version: Version, ttl: Option<Ttl>) -> Response {
    let mut response = described(Body::empty(), version, ttl);
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

/// Returns the answer that lends a value, or a part of it. Its bytes are not copied.
fn lent(value: LentValue, version: Version, headers: &HeaderMap) -> Result<Response, ApiFailure> {
    let size = value.as_ref().len();
    let is_meant = headers.get(IF_RANGE).is_none_or(|tag| is_tag(tag, version));
    let range = text(headers, &RANGE).filter(|_| is_meant);
    let bytes = Bytes::from_owner(value);
    let (bytes, part) = match wanted(range, size) {
        WantedPart::Whole => (bytes, None),
        WantedPart::Unsatisfiable => return Err(ApiFailure::unsatisfiable_range(size as u64)),
        WantedPart::Bytes(part) => (bytes.slice(part.clone()), Some(part)),
    };
    let mut response = whole(Body::from(bytes), version, None);
    if let Some(part) = part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let last = part.end.saturating_sub(1);
        let place = HeaderValue::from_str(&format!("bytes {}-{last}/{size}", part.start));
        response.headers_mut().extend(place.map(|place| (CONTENT_RANGE, place)));
    }
    Ok(response)
}

/// Returns an answer with a value, which can also be read in parts.
fn whole(body: Body, version: Version, ttl: Option<Ttl>) -> Response {
    let mut response = described(body, version, ttl);
    let octets = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, octets);
    response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response
}

/// Returns an answer with the headers that describe a key.
fn described(body: Body, version: Version, ttl: Option<Ttl>) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(ETAG, entity_tag(version));
    if let Some(Ttl::In(left)) = ttl {
        let left = HeaderValue::from_str(&format!("{:.3}", left.as_secs_f64()));
        headers.extend(left.map(|left| (TTL, left)));
    }
    response
}

/// Store a value.
#[utoipa::path(
    put, path = "/v1/keys/{key}", tag = "v1", operation_id = "v1_put",
    params(
        ("key" = String, Path, description = "The key, percent-encoded; it can be any bytes"),
        ("X-Bitcask-TTL" = Option<String>, Header, description = "Seconds to live, or keep, or both: 60, keep"),
        ("X-Bitcask-Expires-At" = Option<String>, Header, description = "The time at which the key expires, in UTC"),
        ("X-Bitcask-Durable" = Option<bool>, Header, description = "Whether to wait until the value is durable"),
        ("If-Match" = Option<String>, Header, description = "Tags of which the key must have one, or *"),
        ("If-None-Match" = Option<String>, Header, description = "Tags that the key must not have, or *"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The value"),
    responses(
        (status = 204, description = "The value is stored"),
        (status = 400, description = "A header is wrong", body = FailureBody),
        (status = 412, description = "The key is not as expected", body = FailureBody),
        (status = 413, description = "The key or the value is too large", body = FailureBody),
        (status = 507, description = "The disk is full", body = FailureBody),
    )
)]
pub(in super::super) async fn write(
    State(state): State<SharedServer>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiFailure> {
    let (key, options) = (key_of(&uri)?, write_options(&headers)?);
    let conditions = Conditions::read(&headers)?;
    let body = body::read(&state, &headers, body).await?;
    let written = state.on_pool(move |state| {
        // Moves the permit of its memory too.
        let body = body;
        if conditions.is_empty() {
            return Ok(state.db.put_opt(&key, &body.bytes, options)?);
        }
        conditions.change(&state.db, &key, Some(&body.bytes), options).map(drop)
    });
    written.await.map(|()| StatusCode::NO_CONTENT)
}

/// Delete a key.
#[utoipa::path(
    delete, path = "/v1/keys/{key}", tag = "v1", operation_id = "v1_delete",
    params(
        ("key" = String, Path, description = "The key, percent-encoded; it can be any bytes"),
        ("X-Bitcask-Durable" = Option<bool>, Header, description = "Whether to wait until the delete is durable"),
        ("If-Match" = Option<String>, Header, description = "Tags of which the key must have one, or *"),
    ),
    responses(
        (status = 204, description = "The key is deleted"),
        (status = 400, description = "A header is wrong", body = FailureBody),
        (status = 404, description = "The key does not exist", body = FailureBody),
        (status = 412, description = "The key is not as expected", body = FailureBody),
    )
)]
pub(in super::super) async fn delete(
    State(state): State<SharedServer>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<StatusCode, ApiFailure> {
    let (key, options) = (key_of(&uri)?, write_options(&headers)?);
    let conditions = Conditions::read(&headers)?;
    let deleted = state.on_pool(move |state| {
        if conditions.is_empty() {
            return Ok(state.db.delete_opt(&key, options)?);
        }
        conditions.change(&state.db, &key, None, options)
    });
    if deleted.await? { Ok(StatusCode::NO_CONTENT) } else { Err(ApiFailure::no_such_key()) }
}
