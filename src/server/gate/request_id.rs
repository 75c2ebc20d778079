//! The id of a request: the client's, or a random one.

use axum::http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use crate::dialect;

/// Maximum length of an id that a client sends, in bytes.
const LEN_MAX: usize = 128;

/// The id of a request.
#[derive(Debug, Clone)]
pub(super) struct RequestId(String);

/// Returns the id that the client has sent as `x-request-id`, if it is one word of printable ASCII,
/// so that it cannot forge a line of the log. Otherwise, returns a new one.
pub(super) fn of(headers: &HeaderMap) -> RequestId {
    let sent = headers.get(dialect::CLIENT_REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_fine = |id: &&str| {
        (1..=LEN_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let id = sent.filter(is_fine).map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
    RequestId(id)
}

impl RequestId {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn header(&self) -> HeaderValue {
        // Every id is printable ASCII.
        HeaderValue::from_str(&self.0).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_over_or_made() {
        let id = |sent: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_bytes(sent.as_bytes()).unwrap());
            of(&headers).as_str().to_owned()
        };
        assert_eq!(id("abc-1"), "abc-1");
        let long = "x".repeat(LEN_MAX + 1);
        for refused in ["", "two words", &long] {
            let made = id(refused);
            assert_eq!(Uuid::parse_str(&made).unwrap().get_version_num(), 4, "{made}");
        }
        assert_ne!(of(&HeaderMap::new()).as_str(), of(&HeaderMap::new()).as_str());
    }
}
