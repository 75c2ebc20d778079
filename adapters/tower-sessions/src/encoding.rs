//! How a session is stored: its id in the key, everything else in the value, as JSON.
//!
//! The README describes the encoding. What it says of stored sessions holds for later versions too.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{OffsetDateTime, UtcOffset};
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store::{Error, Result};

/// The value of a session.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    /// In UTC, with up to nine digits of a second.
    #[serde(with = "time::serde::rfc3339")]
    expires: OffsetDateTime,
    data: Cow<'a, HashMap<String, Value>>,
}

/// Returns the key of a session: the prefix, and the text that its cookie holds.
pub(crate) fn key(prefix: &str, id: Id) -> String {
    format!("{prefix}{id}")
}

pub(crate) fn encode(record: &Record) -> Result<Vec<u8>> {
    let expires = record.expiry_date.to_offset(UtcOffset::UTC);
    let stored = Stored { expires, data: Cow::Borrowed(&record.data) };
    serde_json::to_vec(&stored).map_err(|error| Error::Encode(error.to_string()))
}

pub(crate) fn decode(id: Id, bytes: &[u8]) -> Result<Record> {
    let stored = serde_json::from_slice::<Stored<'_>>(bytes);
    let stored = stored.map_err(|error| Error::Decode(format!("session {id}: {error}")))?;
    Ok(Record { id, data: stored.data.into_owned(), expiry_date: stored.expires })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    const ID: Id = Id(1);

    /// Stored sessions look like this for ever.
    #[test]
    fn a_session_is_stored_as_the_readme_says() {
        let data = HashMap::from([("count".to_owned(), json!(3))]);
        let expiry_date = datetime!(2026-11-29 13:30:00.000000001 +02:00);
        let record = Record { id: ID, data, expiry_date };
        let text = r#"{"expires":"2026-11-29T11:30:00.000000001Z","data":{"count":3}}"#;
        assert_eq!(String::from_utf8(encode(&record).unwrap()).unwrap(), text);
        assert_eq!(decode(ID, text.as_bytes()).unwrap(), record);
        assert_eq!(key("session/", ID), "session/AQAAAAAAAAAAAAAAAAAAAA");
        assert!(include_str!("../README.md").contains(r#"{"expires":"2026-11-29T11:30:00"#));
    }

    #[test]
    fn a_value_that_is_no_session_is_an_error_that_names_the_session() {
        for text in ["", "{}", "null", r#"{"expires":"soon","data":{}}"#] {
            let Err(Error::Decode(message)) = decode(ID, text.as_bytes()) else {
                panic!("{text} was decoded")
            };
            assert!(message.starts_with("session AQAA"), "{message}");
        }
    }

    /// A later version may add fields; this one leaves them alone.
    #[test]
    fn fields_that_are_not_known_are_ignored() {
        let text = r#"{"data":{},"expires":"2026-11-29T11:30:00Z","more":[1]}"#;
        assert!(decode(ID, text.as_bytes()).unwrap().data.is_empty());
    }
}
