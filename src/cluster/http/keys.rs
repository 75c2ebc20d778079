//! `/v1/keys/{key}`: one value.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use super::{BODY_TIME, HttpFailure, HttpState};
use crate::cluster::consensus::{Answered, Request};
use crate::cluster::error::ClusterError;
use crate::cluster::group::RaftGroup;
use crate::cluster::network::PeerTransport;
use crate::raft::blocking;
use crate::resp::{CommandsRequest, StringEntry, slot_of};

/// Maximum size of a value. A request of Raft has little more.
const VALUE_SIZE_MAX: usize = 15 << 20;
/// Seconds to live.
const TTL: HeaderName = HeaderName::from_static("x-bitcask-ttl");
/// Seconds since this node last had all that the leader had committed, with a stale read.
const AGE: HeaderName = HeaderName::from_static("x-bitcask-age");

type Outcome<T = Response> = Result<T, HttpFailure>;

/// Returns the key that a path names, which may be any bytes.
fn key_of(uri: &Uri) -> Outcome<Bytes> {
    let text = uri.path().strip_prefix("/v1/keys/").unwrap_or_default();
    let (mut key, mut rest) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            key.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            let detail = "the key is not percent-encoded";
            return Err(HttpFailure::new(StatusCode::BAD_REQUEST, detail));
        };
        key.push(u8::try_from(high * 16 + low).unwrap_or(0));
    }
    Ok(key.into())
}

fn group_of<T: PeerTransport>(state: &HttpState<T>, key: &[u8]) -> Outcome<Arc<RaftGroup>> {
    let map = state.node.map();
    let group = state.node.group(map.group_of(slot_of(key)));
    group.filter(|_| map.shards > 0).ok_or_else(|| {
        HttpFailure::new(StatusCode::SERVICE_UNAVAILABLE, "this node belongs to no cluster yet")
    })
}

/// Returns what a key holds, once this node may say so.
async fn current<T: PeerTransport>(
    state: &HttpState<T>,
    group: &RaftGroup,
    key: &[u8],
    is_stale: bool,
) -> Outcome<StringEntry> {
    if !is_stale {
        state.node.read_index(group).await.map_err(|error| state.failure(&error))?;
    }
    let keys = group.keys().map_err(|error| state.failure(&error))?;
    let read = blocking(|| keys.string(key));
    read.map_err(|error| HttpFailure::new(StatusCode::INTERNAL_SERVER_ERROR, error))
}

fn tag_of(digest: u128) -> String {
    format!("\"{digest:032x}\"")
}

/// Returns whether one of the tags of a header is that of a digest. `*` is that of anything.
fn names(tags: &HeaderValue, digest: Option<u128>) -> bool {
    let text = tags.to_str().unwrap_or_default();
    let Some(digest) = digest else { return false };
    let mut tags = text.split(',').map(str::trim);
    text.trim() == "*" || tags.any(|tag| tag == tag_of(digest))
}

pub(super) async fn read<T: PeerTransport>(
    State(state): State<HttpState<T>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answer(&uri, get(&state, &uri, &headers).await)
}

fn answer(uri: &Uri, outcome: Outcome) -> Response {
    outcome.unwrap_or_else(|failure| failure.into_response(uri))
}

async fn get<T: PeerTransport>(state: &HttpState<T>, uri: &Uri, headers: &HeaderMap) -> Outcome {
    let key = key_of(uri)?;
    let group = group_of(state, &key)?;
    let is_stale =
        uri.query().is_some_and(|query| query.split('&').any(|it| it == "consistency=stale"));
    // What is read afterwards is at most as old.
    let age = is_stale.then(|| (group.state_age(), Instant::now()));
    let entry = current(state, &group, &key, is_stale).await?;
    let mut response = match entry {
        StringEntry::Absent => {
            HttpFailure::new(StatusCode::NOT_FOUND, "the key does not exist").into_response(uri)
        }
        StringEntry::OtherType => {
            return Err(HttpFailure::new(StatusCode::CONFLICT, "the key holds a hash"));
        }
        StringEntry::Value { value, digest, left } => {
            let has = headers.get(IF_NONE_MATCH).is_some_and(|tags| names(tags, Some(digest)));
            let mut response =
                if has { StatusCode::NOT_MODIFIED.into_response() } else { value.into_response() };
            let tag = HeaderValue::from_str(&tag_of(digest));
            response.headers_mut().extend(tag.map(|tag| (ETAG, tag)));
            if let Some(left) = left {
                let left = HeaderValue::from_str(&format!("{:.3}", left.as_secs_f64()));
                response.headers_mut().extend(left.map(|left| (TTL, left)));
            }
            response
        }
    };
    if let Some((age, asked)) = age {
        let age = age.saturating_add(asked.elapsed());
        let age = HeaderValue::from_str(&format!("{:.3}", age.as_secs_f64()));
        response.headers_mut().extend(age.map(|age| (AGE, age)));
    }
    Ok(response)
}

pub(super) async fn write<T: PeerTransport>(
    State(state): State<HttpState<T>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(&uri, put(&state, &uri, &headers, body).await)
}

async fn put<T: PeerTransport>(
    state: &HttpState<T>,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Outcome {
    let key = key_of(uri)?;
    let group = group_of(state, &key)?;
    let arrived = tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, VALUE_SIZE_MAX)).await;
    let arrived = arrived.map_err(|_| {
        HttpFailure::new(StatusCode::REQUEST_TIMEOUT, "the value did not arrive in time")
    })?;
    let value = arrived.map_err(|_| {
        let detail = format!("a value can have {VALUE_SIZE_MAX} bytes");
        HttpFailure::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    })?;
    let mut command = vec![Bytes::from_static(b"SET"), key.clone(), value];
    if let Some(ttl) = headers.get(TTL) {
        let seconds: Option<f64> = ttl.to_str().ok().and_then(|text| text.parse().ok());
        let wrong = || {
            let detail = "`x-bitcask-ttl` has to be a number of seconds above 0";
            HttpFailure::new(StatusCode::BAD_REQUEST, detail)
        };
        let lives = seconds.and_then(|it| Duration::try_from_secs_f64(it).ok());
        let lives = lives.map(|it| it.as_millis()).filter(|it| *it > 0).ok_or_else(wrong)?;
        command.extend([Bytes::from_static(b"PX"), Bytes::from(lives.to_string())]);
    }
    change(state, &group, key, headers, command).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn delete<T: PeerTransport>(
    State(state): State<HttpState<T>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answer(&uri, remove(&state, &uri, &headers).await)
}

async fn remove<T: PeerTransport>(state: &HttpState<T>, uri: &Uri, headers: &HeaderMap) -> Outcome {
    let key = key_of(uri)?;
    let group = group_of(state, &key)?;
    let command = vec![Bytes::from_static(b"DEL"), key.clone()];
    match change(state, &group, key, headers, command).await? {
        Some(1) => Ok(StatusCode::NO_CONTENT.into_response()),
        _ => Err(HttpFailure::new(StatusCode::NOT_FOUND, "the key does not exist")),
    }
}

/// Has a command run, if the key is as the headers say. Returns the number that it replies.
async fn change<T: PeerTransport>(
    state: &HttpState<T>,
    group: &RaftGroup,
    key: Bytes,
    headers: &HeaderMap,
    command: Vec<Bytes>,
) -> Outcome<Option<i64>> {
    let differs =
        || HttpFailure::new(StatusCode::PRECONDITION_FAILED, "the key is not as expected");
    let (wanted, unwanted) = (headers.get(IF_MATCH), headers.get(IF_NONE_MATCH));
    let mut watched = Vec::new();
    if wanted.is_some() || unwanted.is_some() {
        let digest = match current(state, group, &key, false).await? {
            StringEntry::Absent => None,
            StringEntry::Value { digest, .. } => Some(digest),
            StringEntry::OtherType => return Err(differs()),
        };
        let is_met = wanted.is_none_or(|tags| names(tags, digest))
            && unwanted.is_none_or(|tags| !names(tags, digest));
        if !is_met {
            return Err(differs());
        }
        // Between this look and the entry of the log, the key may change.
        watched.push((key, digest));
    }
    let request = Request::Commands(CommandsRequest::new(vec![command], watched));
    let written = state.node.write(group, request).await.map_err(|error| state.failure(&error))?;
    let refused = |reason| state.failure(&ClusterError::Refused(reason));
    match written {
        Answered::Replies(None) => Err(differs()),
        Answered::Replies(Some(mut replies)) => match replies.pop() {
            Some(reply) => reply.into_number().map_err(refused),
            None => Ok(None),
        },
        Answered::Refused(reason) => Err(refused(reason)),
        _ => Err(refused("the answer is not that to a command".to_owned())),
    }
}
