//! How the dialects read what another has stored.
//!
//! `/kv` has text, and stores it as it is. `/put` has JSON. It stores a string as plain text, so
//! that `/kv` reads the same string, unless that text would be taken for JSON; everything else is
//! stored as the JSON text that the client has sent, with all digits of its numbers.
//!
//! | stored through | bytes | `/kv` reads | `/get` reads |
//! | --- | --- | --- | --- |
//! | `/kv`: `blue` | `blue` | `blue` | `"blue"` |
//! | `/put`: `"blue"` | `blue` | `blue` | `"blue"` |
//! | `/put`: `{"a": 1}` | `{"a": 1}` | `{"a": 1}` | `{"a": 1}` |
//! | `/kv`: `42` | `42` | `42` | `42`, a number |
//! | `/put`: `42` | `42` | `42` | `42`, a number |
//! | `/put`: `"42"` | `"42"` | `"42"`, with quotes | `"42"` |
//!
//! So each dialect reads exactly what it has stored, and `/kv` never changes a byte. The one change
//! is that `/get` reads text of `/kv` as JSON if it is JSON.

use serde::Serialize;
use serde_json::value::RawValue;

/// Returns the bytes that `/put` stores for a JSON value.
pub(super) fn stored_form(value: &RawValue) -> Vec<u8> {
    let json = value.get();
    // A string with half of a surrogate pair is no text. It stays JSON.
    let text = serde_json::from_str::<String>(json).ok();
    text.filter(|text| as_json(text).is_none()).unwrap_or_else(|| json.to_owned()).into_bytes()
}

/// Stored bytes as `/get` shows them, without a copy.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum ShownJson<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

/// Returns stored bytes as `/get` shows them, or `None` if they are neither JSON nor text.
pub(super) fn json_of(bytes: &[u8]) -> Option<ShownJson<'_>> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some(as_json(text).map_or(ShownJson::Text(text), ShownJson::Json))
}

/// Returns text as JSON, if it is JSON.
fn as_json(text: &str) -> Option<&RawValue> {
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(bytes: &[u8]) -> String {
        serde_json::to_string(&json_of(bytes).unwrap()).unwrap()
    }

    /// What `/get` shows of what `/put` has stored.
    fn through_put(json: &str) -> String {
        let value: &RawValue = serde_json::from_str(json).unwrap();
        shown(&stored_form(value))
    }

    #[test]
    fn json_is_read_as_it_was_stored() {
        let values = [
            "null",
            "true",
            "\"\"",
            "\"blue\"",
            "\"42\"",
            "\"null\"",
            "\"\\\"quoted\\\"\"",
            "\" \"",
            "\"\\ud800\"",
            "123456789012345678901234567890.125",
            "{\"b\": [1, {}], \"a\":2}",
        ];
        for json in values {
            assert_eq!(through_put(json), json);
        }
    }

    #[test]
    fn a_string_is_plain_text_unless_that_is_json() {
        let stored = |json: &str| {
            let value: &RawValue = serde_json::from_str(json).unwrap();
            String::from_utf8(stored_form(value)).unwrap()
        };
        assert_eq!(stored("\"blue\""), "blue");
        assert_eq!(stored("\"\""), "");
        assert_eq!(stored("\"42\""), "\"42\"");
        assert_eq!(stored("\" 42\""), "\" 42\"");
        assert_eq!(stored("[1]"), "[1]");
    }

    #[test]
    fn bytes_that_are_no_text_are_no_json() {
        assert!(json_of(b"\xff").is_none());
        assert_eq!(shown(b"a\"b"), "\"a\\\"b\"");
        assert_eq!(shown(b"7"), "7");
    }

    proptest! {
        #[test]
        fn every_string_is_read_as_it_was_stored(text in ".*") {
            let json = serde_json::to_string(&text).unwrap();
            let read: String = serde_json::from_str(&through_put(&json)).unwrap();
            prop_assert_eq!(read, text);
        }
    }
}
