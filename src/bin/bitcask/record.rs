//! Pairs and changes as JSON lines.
//!
//! A key or a value that is text stands there as text, and any other as base64 under a name of its
//! own. What one command writes, the others read.

use std::time::{Duration, SystemTime};

use bitcask::{Error, Options};
use serde::{Deserialize, Serialize};

use crate::output::bytes::{decoded, encoded};
use crate::units;

/// What a line says about its key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verb {
    #[default]
    Put,
    Delete,
}

/// A line as it is written.
#[derive(Debug, Default, Serialize)]
pub(crate) struct LineOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) op: Option<Verb>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_continues: Option<bool>,
}

impl<'a> LineOut<'a> {
    /// Returns a line about a key. With `base64`, even text is written as base64.
    pub(crate) fn new(key: &'a [u8], base64: bool) -> Self {
        let (key, key_base64) = text_or_base64(key, base64);
        Self { key, key_base64, ..Self::default() }
    }

    pub(crate) fn value(mut self, value: &'a [u8], base64: bool) -> Self {
        (self.value, self.value_base64) = text_or_base64(value, base64);
        self
    }

    pub(crate) fn expires_at(mut self, time: Option<SystemTime>) -> Self {
        self.expires_at = time.map(units::show_time);
        self
    }

    /// Adds what only a change has.
    pub(crate) fn change(
        mut self,
        op: Verb,
        timestamp: SystemTime,
        position: String,
        continues: bool,
    ) -> Self {
        self.op = Some(op);
        self.timestamp = Some(units::show_time(timestamp));
        self.position = Some(position);
        self.batch_continues = continues.then_some(true);
        self
    }
}

fn text_or_base64(bytes: &[u8], base64: bool) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) if !base64 => (Some(text), None),
        _ => (None, Some(encoded(bytes))),
    }
}

/// A line as it is read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LineIn {
    #[serde(default)]
    op: Verb,
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    ttl: Option<TtlIn>,
    expires_at: Option<String>,
    // What else `watch` adds, which says nothing about the pair.
    #[serde(rename = "timestamp")]
    _timestamp: Option<String>,
    /// Where `watch` resumes after this line.
    position: Option<String>,
    #[serde(rename = "batch_continues")]
    _batch_continues: Option<bool>,
}

/// A time to live: seconds as a number, or a duration as text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TtlIn {
    Seconds(f64),
    Text(String),
}

/// How long a key lives that a line puts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// The line says nothing. The settings decide, or what the lines are for.
    Unsaid,
    Forever,
    For(Duration),
    Until(SystemTime),
}

impl Life {
    /// Returns the options of the write.
    pub(crate) fn options(self) -> bitcask::WriteOptions {
        match self {
            Self::Unsaid => bitcask::WriteOptions::new(),
            // The setting `default-ttl` must not take its place.
            Self::Forever => bitcask::WriteOptions::new().ttl(Duration::MAX),
            Self::For(ttl) => bitcask::WriteOptions::new().ttl(ttl),
            Self::Until(time) => bitcask::WriteOptions::new().expires_at(time),
        }
    }
}

/// A change that a line or a row records.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RecordedChange {
    Put { key: Vec<u8>, value: Vec<u8>, life: Life },
    Delete { key: Vec<u8> },
}

/// The largest keys and values that a store accepts, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SizeLimits {
    key: u64,
    value: u64,
}

impl SizeLimits {
    pub(crate) fn of(options: &Options) -> Self {
        Self { key: options.get_key_size_limit(), value: options.get_value_size_limit() }
    }

    /// Returns the largest size of a JSON line about a pair. Each byte of a text takes up to six
    /// there.
    pub(crate) fn line_size(self) -> u64 {
        self.key.saturating_add(self.value).saturating_mul(6).saturating_add(4096)
    }

    /// Says what is wrong with a change that the store would not accept.
    pub(crate) fn check(self, change: &RecordedChange) -> Result<(), String> {
        let (key, value_size, key_limit) = match change {
            RecordedChange::Put { key, value, .. } => (key, value.len() as u64, self.key),
            // A key that was put under a higher limit can still be deleted.
            RecordedChange::Delete { key } => (key, 0, Options::new().get_key_size_limit()),
        };
        let key_size = key.len() as u64;
        if key_size > key_limit {
            return Err(Error::KeyTooLarge { size: key_size, limit: key_limit }.to_string());
        }
        if value_size > self.value {
            return Err(Error::ValueTooLarge { size: value_size, limit: self.value }.to_string());
        }
        Ok(())
    }
}

/// A change, and where `watch` resumes after it if `watch` has written the line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RecordedLine {
    pub(crate) change: RecordedChange,
    pub(crate) position: Option<String>,
}

/// Reads a line. With `base64`, `key` and `value` are base64 too.
pub(crate) fn read(line: &[u8], base64: bool) -> Result<RecordedLine, String> {
    let found: LineIn = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let key = one_of("key", found.key, found.key_base64, base64)?.ok_or("`key` is missing")?;
    let value = one_of("value", found.value, found.value_base64, base64)?;
    let lifetime = match (found.ttl, found.expires_at) {
        (None, None) => Life::Unsaid,
        (Some(_), Some(_)) => return Err("it has both `ttl` and `expires_at`".into()),
        (None, Some(time)) => Life::Until(units::time(&time)?),
        (Some(TtlIn::Text(text)), None) => Life::For(units::duration(&text)?),
        (Some(TtlIn::Seconds(seconds)), None) => Life::For(
            Duration::try_from_secs_f64(seconds).map_err(|error| format!("`ttl`: {error}"))?,
        ),
    };
    let change = match found.op {
        Verb::Put => {
            let value = value.ok_or("`value` is missing")?;
            RecordedChange::Put { key, value, life: lifetime }
        }
        Verb::Delete if value.is_some() || lifetime != Life::Unsaid => {
            return Err("a delete has only a key".into());
        }
        Verb::Delete => RecordedChange::Delete { key },
    };
    Ok(RecordedLine { change, position: found.position })
}

fn one_of(
    name: &str,
    text: Option<String>,
    base64: Option<String>,
    all_base64: bool,
) -> Result<Option<Vec<u8>>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("it has both `{name}` and `{name}_base64`")),
        (Some(text), None) if !all_base64 => Ok(Some(text.into_bytes())),
        (Some(text), None) | (None, Some(text)) => decoded(text.as_bytes()).map(Some),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let until = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
        for (key, value) in [("a\"b\n", &b"text"[..]), ("", b"\xff\x00"), ("\u{e9}", b"")] {
            for base64 in [false, true] {
                let line = LineOut::new(key.as_bytes(), base64).value(value, base64);
                let line = serde_json::to_vec(&line.expires_at(Some(until))).unwrap();
                let (key, value) = (key.as_bytes().to_vec(), value.to_vec());
                let expected = RecordedChange::Put { key, value, life: Life::Until(until) };
                assert_eq!(read(&line, false).unwrap().change, expected);
                if base64 {
                    assert_eq!(read(&line, true).unwrap().change, expected);
                }
            }
        }
        let change = LineOut::new(b"k", false).change(Verb::Delete, until, "p".into(), true);
        let line = serde_json::to_vec(&change).unwrap();
        let deleted = RecordedChange::Delete { key: b"k".to_vec() };
        let expected = RecordedLine { change: deleted, position: Some("p".into()) };
        assert_eq!(read(&line, false).unwrap(), expected);
    }

    #[test]
    fn with_base64_keys_and_values_are_base64() {
        let line = br#"{"key":"aw==","value":"dg=="}"#;
        let put = |key: &[u8], value: &[u8]| {
            let (key, value) = (key.to_vec(), value.to_vec());
            RecordedChange::Put { key, value, life: Life::Unsaid }
        };
        assert_eq!(read(line, true).unwrap().change, put(b"k", b"v"));
        assert_eq!(read(line, false).unwrap().change, put(b"aw==", b"dg=="));
        assert!(read(br#"{"key":"k","value":"dg=="}"#, true).is_err());
    }

    #[test]
    fn a_line_that_is_not_clear_is_refused() {
        let refused = [
            r#"{"key":"k"}"#,
            r#"{"value":"v"}"#,
            r#"{"key":"k","key_base64":"aw==","value":"v"}"#,
            r#"{"key":"k","value":"v","ttl":1,"expires_at":"2030-01-01T00:00:00Z"}"#,
            r#"{"key":"k","value":"v","ttl":-1}"#,
            r#"{"key":"k","value":"v","colour":"red"}"#,
            r#"{"key":"k","value":7}"#,
            r#"{"op":"delete","key":"k","value":"v"}"#,
            r#"{"op":"move","key":"k"}"#,
            r#"["k","v"]"#,
            "",
        ];
        for line in refused {
            assert!(read(line.as_bytes(), false).is_err(), "{line}");
        }
        let ttl = Life::For(Duration::from_secs(90));
        for line in
            [r#"{"key":"k","value":"v","ttl":90}"#, r#"{"key":"k","value":"v","ttl":"1m30s"}"#]
        {
            let read = read(line.as_bytes(), false).unwrap();
            let RecordedChange::Put { life, .. } = read.change else { panic!() };
            assert_eq!(life, ttl);
        }
    }
}
