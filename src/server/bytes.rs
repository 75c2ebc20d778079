//! Keys and values in URLs and in JSON, as requests have them. `dialect` says how they are written.

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use super::failure::ApiFailure;
use crate::dialect;
pub(super) use crate::dialect::percent_encoded;

/// Decodes a part of a URL. In a query, a plus is a space. Returns `None` if an escape is broken.
pub(crate) fn percent_decoded(text: &str, in_query: bool) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => 16 * digit(rest.next()?)? + digit(rest.next()?)?,
            b'+' if in_query => b' ',
            byte => byte,
        });
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

/// Bytes that JSON has in base64, without a copy of all of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base64Text<'a>(&'a [u8]);

impl Serialize for Base64Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0, &STANDARD))
    }
}

/// Returns bytes as text or as base64, as `dialect` says, without a copy.
pub(super) fn lent_text_or_base64(bytes: &[u8]) -> (Option<&str>, Option<Base64Text<'_>>) {
    match dialect::as_text(bytes) {
        Some(text) => (Some(text), None),
        None => (None, Some(Base64Text(bytes))),
    }
}

/// Returns bytes as text or as base64, as `dialect` says.
fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    let (text, base64) = dialect::text_or_base64(bytes);
    (text.map(str::to_owned), base64)
}

/// Reads what a request has as text or as base64.
pub(super) fn one_of(
    name: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Vec<u8>>, ApiFailure> {
    match (text, base64) {
        (Some(_), Some(_)) => {
            Err(ApiFailure::invalid(format!("there are both `{name}` and `{name}_base64`")))
        }
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(text)) => {
            let bytes = dialect::base64_decoded(&text);
            bytes
                .map(Some)
                .map_err(|error| ApiFailure::invalid(format!("`{name}_base64`: {error}")))
        }
        (None, None) => Ok(None),
    }
}

/// A key in JSON: `key` if it is text, otherwise `key_base64`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyField {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
}

impl KeyField {
    pub(super) fn new(key: &[u8]) -> Self {
        let (key, key_base64) = text_or_base64(key);
        Self { key, key_base64 }
    }
}

/// A key in the body of a request, in the same form.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GivenKey {
    key: Option<String>,
    key_base64: Option<String>,
}

impl GivenKey {
    pub(super) fn into_bytes(self) -> Result<Vec<u8>, ApiFailure> {
        let key = one_of("key", self.key, self.key_base64)?;
        key.ok_or_else(|| ApiFailure::invalid("`key` is missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(percent_decoded(&percent_encoded(&all), false).unwrap(), all);
        assert_eq!(percent_decoded(&percent_encoded(&all), true).unwrap(), all);
        assert_eq!(percent_encoded(b"a/b c"), "a%2Fb%20c");
        assert_eq!(percent_decoded("a+b", true).unwrap(), b"a b");
        assert_eq!(percent_decoded("a+b", false).unwrap(), b"a+b");
    }

    #[test]
    fn a_broken_escape_is_refused() {
        for text in ["%", "%2", "%2x", "%+1", "a%"] {
            assert_eq!(percent_decoded(text, false), None, "{text}");
        }
    }

    #[test]
    fn base64_that_is_written_piece_by_piece_is_that_of_the_whole() {
        for len in (0..70).chain(4000..4010) {
            let bytes: Vec<u8> = (0..=255).rev().cycle().take(len).collect();
            let lent = serde_json::to_value(Base64Text(&bytes)).unwrap();
            assert_eq!(dialect::base64_decoded(lent.as_str().unwrap()).unwrap(), bytes);
        }
        assert!(matches!(lent_text_or_base64(b"k"), (Some("k"), None)));
        assert!(matches!(lent_text_or_base64(b"\xff"), (None, Some(_))));
    }

    #[test]
    fn a_key_is_text_or_base64_and_never_both() {
        let text = serde_json::to_string(&KeyField::new(b"k")).unwrap();
        assert_eq!(text, r#"{"key":"k"}"#);
        let other = serde_json::to_string(&KeyField::new(b"\xff")).unwrap();
        assert_eq!(other, r#"{"key_base64":"/w=="}"#);
        let read = |text: &str| serde_json::from_str::<GivenKey>(text).unwrap().into_bytes();
        assert_eq!(read(&other).unwrap(), b"\xff");
        for wrong in [r#"{"key":"k","key_base64":"aw=="}"#, "{}", r#"{"key_base64":"?"}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
