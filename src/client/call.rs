//! What is sent, and what comes back.

use serde::Deserialize;
use ureq::http::HeaderMap;

/// A request, and which answers to it are no failures.
#[derive(Debug)]
pub(super) struct RemoteCall<'a> {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<&'a [u8]>,
    pub(super) accepted: &'static [u16],
    pub(super) is_repeatable: bool,
    pub(super) is_upkeep: bool,
}

/// An answer that is no failure.
#[derive(Debug)]
pub(super) struct RemoteAnswer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) request_id: String,
    pub(super) headers: HeaderMap,
}

/// What a refusal says.
#[derive(Debug, Deserialize)]
struct RefusalBody {
    detail: serde_json::Value,
    code: Option<String>,
}

impl<'a> RemoteCall<'a> {
    /// Returns a call that may be repeated.
    pub(super) fn new(method: &'static str, path: String, accepted: &'static [u16]) -> Self {
        let (headers, body) = (Vec::new(), None);
        Self { method, path, headers, body, accepted, is_repeatable: true, is_upkeep: false }
    }

    /// Adds a header, which has to be printable ASCII.
    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn body(mut self, bytes: &'a [u8]) -> Self {
        self.body = Some(bytes);
        self
    }

    pub(super) fn json(self, bytes: &'a [u8]) -> Self {
        self.header("content-type", "application/json").body(bytes)
    }

    /// Makes the call one that is sent once, unless it has certainly not reached the server.
    pub(super) fn once(mut self) -> Self {
        self.is_repeatable = false;
        self
    }

    /// Makes the call one that may take any time.
    pub(super) fn upkeep(mut self) -> Self {
        self.is_upkeep = true;
        self
    }
}

impl RemoteAnswer {
    /// Returns the text of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

/// Returns what a refusal says, and its code.
pub(super) fn refusal(body: &[u8]) -> Option<(String, Option<String>)> {
    let RefusalBody { detail, code } = serde_json::from_slice(body).ok()?;
    let detail = detail.as_str().map_or_else(|| detail.to_string(), str::to_owned);
    Some((detail, code))
}

/// Returns the beginning of a body that is no refusal of a server, for people.
pub(super) fn shortened(body: &[u8]) -> String {
    const SIZE_MAX: usize = 200;
    let text = String::from_utf8_lossy(body.get(..SIZE_MAX).unwrap_or(body));
    if text.trim().is_empty() { "no reason is given".into() } else { text.trim().to_owned() }
}

/// Returns the text of a header.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
