//! Why a request is refused, and the answer that says so.
//!
//! All dialects say it as `{"detail": ...}`. In `/v1` there is also a `code`, which programs can
//! compare; the older dialects have no such field.

use axum::Json;
use axum::http::header::{CONNECTION, CONTENT_RANGE, ETAG, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value as JsonValue;
use utoipa::ToSchema;

use super::error::ServerError;
use crate::dialect;
use crate::error::Error;

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct ApiFailure {
    pub(super) status: StatusCode,
    pub(super) detail: FailureDetail,
    pub(super) code: &'static str,
    /// In a box, since results with a failure would be large otherwise.
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// What a refusal says.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum FailureDetail {
    Text(String),
    Fields(Vec<FieldProblem>),
}

/// What is wrong with a part of a request, as `FastAPI` says it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FieldProblem {
    /// Where it is: `body` or `path`, and the names of fields.
    #[schema(value_type = Vec<serde_json::Value>)]
    pub(super) loc: Vec<JsonValue>,
    pub(super) msg: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
}

/// A refusal.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FailureBody {
    /// What has happened, for people.
    pub(super) detail: FailureDetail,
    /// The same for programs. Only `/v1` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<&'static str>,
}

impl ApiFailure {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, detail: FailureDetail::Text(detail.into()), code, header: None }
    }

    fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some(Box::new((name, HeaderValue::from_static(value))));
        self
    }

    /// Returns the refusal of a change whose condition does not hold. `etag` is that of the key
    /// now.
    pub(super) fn unmet_condition(etag: Option<HeaderValue>) -> Self {
        let detail = "the key is not as If-Match or If-None-Match expects it";
        let failure = Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", detail);
        Self { header: etag.map(|etag| Box::new((ETAG, etag))), ..failure }
    }

    /// Returns the refusal of a range that lies behind the end of a value.
    pub(super) fn unsatisfiable_range(size: u64) -> Self {
        let detail =
            format!("the range begins behind the end of the value, which has {size} bytes");
        let failure = Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", detail);
        let whole = HeaderValue::from_str(&format!("bytes */{size}")).ok();
        Self { header: whole.map(|whole| Box::new((CONTENT_RANGE, whole))), ..failure }
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    /// Returns the refusal of a body or a path that has not the expected form.
    pub(super) fn fields(problem: FieldProblem) -> Self {
        let detail = FailureDetail::Fields(vec![problem]);
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self { status, detail, code: "invalid_request", header: None }
    }

    /// Returns the refusal that names the fields of two refusals.
    pub(super) fn and(mut self, other: Self) -> Self {
        if let (FailureDetail::Fields(all), FailureDetail::Fields(more)) =
            (&mut self.detail, other.detail)
        {
            all.extend(more);
        }
        self
    }

    pub(super) fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "Not Found")
    }

    pub(super) fn no_such_key() -> Self {
        Self::new(StatusCode::NOT_FOUND, dialect::KEY_NOT_FOUND, "the key does not exist")
    }

    pub(super) fn unauthorized() -> Self {
        let detail = "a token is required: send it as Authorization: Bearer TOKEN";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
            .with_header(WWW_AUTHENTICATE, "Bearer")
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    pub(super) fn reserved_key() -> Self {
        let detail = "the server keeps this key for itself";
        Self::new(StatusCode::FORBIDDEN, "reserved_key", detail)
    }

    /// Returns the refusal of a write by a follower.
    pub(super) fn follower(leader: &str) -> Self {
        let detail = format!("this server follows {leader} and accepts no writes; write there");
        Self::new(StatusCode::MISDIRECTED_REQUEST, "follower", detail)
    }

    /// Returns the refusal of a read while a follower replaces all of its data.
    pub(super) fn loading() -> Self {
        let detail = "this follower is receiving all of its leader's data; try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "loading", detail).with_header(RETRY_AFTER, "1")
    }

    pub(super) fn not_a_follower() -> Self {
        let detail = "this server does not follow a leader";
        Self::new(StatusCode::CONFLICT, "not_a_follower", detail)
    }

    pub(super) fn too_many_requests() -> Self {
        let detail = "too many requests from this address; try again in a second";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail)
            .with_header(RETRY_AFTER, "1")
    }

    pub(super) fn too_many_streams(max: usize) -> Self {
        let detail = format!("{max} followers and listings are open already; try again later");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", detail)
            .with_header(RETRY_AFTER, "10")
    }

    pub(super) fn busy_with_upkeep() -> Self {
        let detail = "a merge, a backup or a verification is running; try again when it has ended";
        Self::new(StatusCode::CONFLICT, "busy", detail)
    }

    /// Returns the refusal of a backup that the server has not completed before its end.
    pub(super) fn stopping() -> Self {
        let detail = "the server stops; the backup was given up, and what it had copied is removed";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", detail)
    }

    pub(super) fn body_too_large(limit: u64) -> Self {
        let detail = format!("the body is larger than the limit of {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
            .with_header(CONNECTION, "close")
    }

    pub(super) fn too_many_items(max: usize) -> Self {
        let detail = format!("the request has more than {max} items; split it");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub(super) fn headers_too_large(limit: usize) -> Self {
        let detail = format!("the line and the headers are larger than the limit of {limit} bytes");
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_large", detail)
            .with_header(CONNECTION, "close")
    }

    /// Returns the refusal of an answer that would not fit even if nothing else took memory.
    pub(super) fn answer_too_large(limit: u64) -> Self {
        let detail = format!(
            "the answer has more than {limit} bytes, all memory for bodies and answers; ask for \
             less, or read a large value at /v1/keys/{{key}}"
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub(super) fn out_of_body_memory() -> Self {
        let detail = "other requests use all memory for bodies and answers; try again in a moment";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail).with_header(RETRY_AFTER, "1")
    }

    pub(super) fn timed_out() -> Self {
        let detail = "the request took too long; a write may still take effect";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, dialect::TIMED_OUT, detail)
            .with_header(RETRY_AFTER, "1")
    }

    pub(super) fn cut_off() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", "the body of the request is cut off")
    }
}

impl From<Error> for ApiFailure {
    fn from(error: Error) -> Self {
        let (status, code) = match &error {
            Error::KeyTooLarge { .. }
            | Error::ValueTooLarge { .. }
            | Error::BatchTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Error::NoSpace { .. } => (StatusCode::INSUFFICIENT_STORAGE, "no_space"),
            Error::Poisoned { .. } => (StatusCode::SERVICE_UNAVAILABLE, dialect::POISONED),
            Error::MergesPaused | Error::WithinMerge | Error::Conflict { .. } => {
                (StatusCode::CONFLICT, "conflict")
            }
            Error::HistoryGone { .. } | Error::PositionLost { .. } => {
                (StatusCode::GONE, dialect::HISTORY_GONE)
            }
            Error::ForeignPosition { .. } | Error::InvalidPosition { .. } => {
                (StatusCode::BAD_REQUEST, "invalid_position")
            }
            Error::InvalidOption { .. } | Error::InvalidTarget { .. } => {
                (StatusCode::BAD_REQUEST, "invalid_request")
            }
            error if error.is_corruption() => (StatusCode::INTERNAL_SERVER_ERROR, "corrupt"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<ServerError> for ApiFailure {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::Store(error) => error.into(),
            ServerError::Replication { .. } => {
                Self::new(StatusCode::CONFLICT, "not_complete", error.to_string())
            }
            error => Self::internal(error.to_string()),
        }
    }
}

fn answer(status: StatusCode, body: &FailureBody) -> Response {
    (status, Json(body)).into_response()
}

impl IntoResponse for ApiFailure {
    fn into_response(self) -> Response {
        let body = FailureBody { detail: self.detail, code: Some(self.code) };
        let mut response = answer(self.status, &body);
        if let Some((name, value)) = self.header.map(|header| *header) {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// A refusal in the dialects of the older programs, without a code.
#[derive(Debug)]
pub(super) struct SeedFailure(ApiFailure);

impl<T: Into<ApiFailure>> From<T> for SeedFailure {
    fn from(failure: T) -> Self {
        Self(failure.into())
    }
}

impl IntoResponse for SeedFailure {
    fn into_response(self) -> Response {
        let body = FailureBody { detail: self.0.detail, code: None };
        let mut response = answer(self.0.status, &body);
        if let Some((name, value)) = self.0.header.map(|header| *header) {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// Answers a request for a path that does not exist.
pub(super) async fn no_such_path() -> SeedFailure {
    SeedFailure(ApiFailure::not_found())
}

/// Answers a request with a method that the path does not have. The router adds which it has.
pub(super) async fn no_such_method(_: Method) -> SeedFailure {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    SeedFailure(ApiFailure::new(status, "method_not_allowed", "Method Not Allowed"))
}

/// Returns the answer to a request whose handler has panicked.
pub(super) fn panicked() -> Response {
    ApiFailure::internal("Internal Server Error").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_dialects_get_no_code() {
        let of = |response: Response| {
            let handle = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let body = axum::body::to_bytes(response.into_body(), 1000);
            String::from_utf8(handle.block_on(body).unwrap().to_vec()).unwrap()
        };
        let seed = SeedFailure::from(ApiFailure::not_found()).into_response();
        assert_eq!(of(seed), r#"{"detail":"Not Found"}"#);
        let own = ApiFailure::not_found().into_response();
        assert_eq!(of(own), r#"{"detail":"Not Found","code":"not_found"}"#);
    }

    #[test]
    fn an_error_of_the_store_gets_a_fitting_status() {
        let status = |error: Error| ApiFailure::from(error).status.as_u16();
        assert_eq!(status(Error::KeyTooLarge { size: 9, limit: 1 }), 413);
        assert_eq!(status(Error::NoSpace { path: "p".into() }), 507);
        assert_eq!(status(Error::ReadOnly), 500);
        let gone = Error::HistoryGone { path: "p".into(), position: "q".into() };
        assert_eq!(status(gone), 410);
    }
}
