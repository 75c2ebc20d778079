//! How `/v1` writes keys, values and times: the part of the HTTP dialect that the server and the
//! client share.
//!
//! - Keys and values can be any bytes. A URL has them percent-encoded.
//! - JSON has text where the bytes are text, as `key` and `value`, and base64 otherwise, as
//!   `key_base64` and `value_base64`. A large text with many escapes is in base64 too.
//! - No request and no store is known here.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Header with the id that a client gives to its request.
pub(crate) const CLIENT_REQUEST_ID: &str = "x-request-id";
/// Header of an answer with the id of its request. Every answer has it.
pub(crate) const REQUEST_ID: &str = "request-id";
/// Header with the seconds that a key has left or gets, or `keep`, or both with a comma between
/// them.
pub(crate) const TTL: &str = "x-bitcask-ttl";
/// Header with the time at which a key expires.
pub(crate) const EXPIRES_AT: &str = "x-bitcask-expires-at";
/// Header that makes a write durable before it is answered, or not.
pub(crate) const DURABLE: &str = "x-bitcask-durable";
/// Header with the position at which a follower resumes.
pub(crate) const LAST_EVENT_ID: &str = "last-event-id";

/// Maximum number of operations or keys in a request, and of keys on a page.
pub(crate) const ITEMS_MAX: usize = 10_000;

/// Maximum size of a text that JSON has as text whatever its escapes take, in bytes.
const ESCAPED_MAX: usize = 1 << 20;

/// The code of a refusal because a key does not exist.
pub(crate) const KEY_NOT_FOUND: &str = "key_not_found";
/// The code of a refusal because the store accepts no more writes.
pub(crate) const POISONED: &str = "poisoned";
/// The code of a request that the server has not answered in time.
pub(crate) const TIMED_OUT: &str = "timed_out";
/// The code of a refusal because the changes after a position are gone.
pub(crate) const HISTORY_GONE: &str = "history_gone";

/// Latest time that can be written as text: the end of the year 9999, in seconds.
const LAST: u64 = 253_402_300_799;

/// Encodes bytes so that they are one part of a path or of a query.
pub(crate) fn percent_encoded(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            // Writing to a string never fails.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// Returns bytes as JSON has them: as text if they are text, and as base64 otherwise.
pub(crate) fn text_or_base64(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match as_text(bytes) {
        Some(text) => (Some(text), None),
        None => (None, Some(STANDARD.encode(bytes))),
    }
}

/// Returns bytes as text if JSON has them as text.
///
/// A large text whose escapes take more room than base64 does is not: a value of the largest size
/// that the server accepts could otherwise take six times as much, more than a client reads.
pub(crate) fn as_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_compact = bytes.len() <= ESCAPED_MAX || {
        let escapes = bytes.iter().map(|byte| match byte {
            b'"' | b'\\' | b'\x08' | b'\t' | b'\n' | b'\x0c' | b'\r' => 1,
            0..0x20 => 5,
            _ => 0,
        });
        escapes.sum::<usize>() <= bytes.len() / 3
    };
    is_compact.then_some(text)
}

/// Decodes base64.
pub(crate) fn base64_decoded(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    STANDARD.decode(text)
}

/// Writes a time of day, in UTC, to the microsecond.
pub(crate) fn time_shown(time: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(LAST);
    humantime::format_rfc3339_micros(time.clamp(SystemTime::UNIX_EPOCH, last)).to_string()
}

/// Reads a time of day, in UTC.
pub(crate) fn time_read(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339_weak(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_was_written_is_read_again() {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001);
        assert_eq!(time_read(&time_shown(moment)), Some(moment));
        let late = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(time_shown(late), "9999-12-31T23:59:59.000000Z");
        assert_eq!(time_read("soon"), None);
    }

    #[test]
    fn bytes_that_are_no_text_become_base64() {
        assert_eq!(text_or_base64(b"k"), (Some("k"), None));
        let (text, base64) = text_or_base64(b"\xff");
        assert_eq!((text, base64.as_deref()), (None, Some("/w==")));
        assert_eq!(base64_decoded("/w==").unwrap(), b"\xff");
        assert!(base64_decoded("?").is_err());
    }

    #[test]
    fn a_large_text_takes_at_most_as_much_as_base64() {
        let json = |bytes: &[u8]| {
            let (text, base64) = text_or_base64(bytes);
            (text.is_some(), serde_json::to_string(&(text, base64)).unwrap().len())
        };
        let large = |byte: u8| vec![byte; ESCAPED_MAX + 1];
        for byte in 0..0x80 {
            let is_escaped = byte < 0x20 || b"\"\\".contains(&byte);
            let (is_text, size) = json(&large(byte));
            assert_eq!(is_text, !is_escaped, "{byte:#x}");
            assert!(size <= ESCAPED_MAX / 3 * 4 + 100, "{byte:#x}: {size}");
        }
        // Prose has a few line ends, and a small value is text whatever is in it.
        assert!(json("line\n".repeat(ESCAPED_MAX / 4).as_bytes()).0);
        assert!(json(&vec![0; ESCAPED_MAX]).0);
    }
}
