//! One key: reads, and writes without a condition.

use std::time::Duration;

use super::call::{RemoteAnswer, RemoteCall};
use super::{Client, ClientError, ClientResult};
use crate::clock::{micros_since_epoch, system_time};
use crate::dialect;
use crate::options::{Lifetime, WriteOptions};
use crate::store::{Ttl, Version};
use crate::value::Value;

/// The number of seconds that stands for a key that does not expire: it reaches beyond the last
/// year in which one can.
const FOREVER: f64 = 1e13;

/// A time to live as a request has it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct LifetimeToSend {
    pub(super) seconds: Option<f64>,
    pub(super) expires_at: Option<String>,
    pub(super) keep: bool,
}

impl LifetimeToSend {
    pub(super) fn new(options: WriteOptions) -> Self {
        let keep = options.keep_ttl;
        let (seconds, expires_at) = match options.lifetime {
            Lifetime::OfStore => (None, None),
            Lifetime::For(ttl) => (Some(ttl.as_secs_f64().min(FOREVER)), None),
            Lifetime::Until(micros) => {
                let shown = dialect::time_shown(system_time(micros));
                // Times after the year 9999 cannot be written as text.
                if dialect::time_read(&shown).map(micros_since_epoch) == Some(micros) {
                    (None, Some(shown))
                } else {
                    (Some(FOREVER), None)
                }
            }
        };
        Self { seconds, expires_at, keep }
    }
}

/// Returns the path of a key.
pub(super) fn path(key: &[u8]) -> String {
    // Some programs between client and server take dots for directories.
    let key = match key {
        b"." => "%2E".into(),
        b".." => "%2E%2E".into(),
        key => dialect::percent_encoded(key),
    };
    format!("/v1/keys/{key}")
}

/// Adds what the options of a write say.
pub(super) fn with_options(mut call: RemoteCall<'_>, options: WriteOptions) -> RemoteCall<'_> {
    let LifetimeToSend { seconds, expires_at, keep } = LifetimeToSend::new(options);
    let seconds = seconds.map(|seconds| seconds.to_string());
    let ttl = match (seconds, keep) {
        (None, false) => None,
        (None, true) => Some("keep".to_owned()),
        (Some(seconds), false) => Some(seconds),
        (Some(seconds), true) => Some(seconds + ", keep"),
    };
    for (name, value) in [(dialect::TTL, ttl), (dialect::EXPIRES_AT, expires_at)] {
        if let Some(value) = value {
            call = call.header(name, value);
        }
    }
    durable(call, options)
}

/// Adds whether the write has to be durable.
pub(super) fn durable(call: RemoteCall<'_>, options: WriteOptions) -> RemoteCall<'_> {
    match options.durable {
        Some(durable) => call.header(dialect::DURABLE, durable.to_string()),
        None => call,
    }
}

impl Client {
    /// Returns the value of a key, or `None` if the key is absent or expired.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>, ClientError> {
        let answer = self.call(&RemoteCall::new("GET", path(key.as_ref()), &[200, 404]))?;
        Ok((answer.status == 200).then(|| answer.body.into()))
    }

    /// Returns the value of a key and the key's version, or `None` if the key is absent or expired.
    /// See [`Reader::get_versioned`](crate::Reader::get_versioned).
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn get_versioned(
        &self,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<(Value, Version)>, ClientError> {
        let answer = self.call(&RemoteCall::new("GET", path(key.as_ref()), &[200, 404]))?;
        if answer.status == 404 {
            return Ok(None);
        }
        let version = self.version(&answer)?;
        Ok(Some((answer.body.into(), version)))
    }

    /// Returns whether a key exists and has not expired. Its value is not sent.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool, ClientError> {
        Ok(self.head(key.as_ref())?.is_some())
    }

    /// Returns how long a key has left, to the millisecond, or `None` if it is absent or expired.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Ttl>, ClientError> {
        let Some(answer) = self.head(key.as_ref())? else { return Ok(None) };
        let Some(seconds) = answer.header(dialect::TTL) else { return Ok(Some(Ttl::Never)) };
        let left = seconds.parse().ok().and_then(|left| Duration::try_from_secs_f64(left).ok());
        let left = left.ok_or_else(|| self.invalid(&answer, "a time to live is no number"))?;
        Ok(Some(Ttl::In(left.max(Duration::from_micros(1)))))
    }

    /// Stores a value under a key.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), ClientError> {
        self.put_opt(key, value, WriteOptions::new())
    }

    /// Stores a value under a key, with options: a time to live, and whether to wait for
    /// durability.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn put_opt(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> Result<(), ClientError> {
        let call = RemoteCall::new("PUT", path(key.as_ref()), &[204]).body(value.as_ref());
        self.call(&with_options(call, options)).map(drop)
    }

    /// Removes a key. Returns whether it existed.
    ///
    /// If the answer to a first attempt is lost and a second one succeeds, it returns `false`
    /// although the first one has removed the key.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, ClientError> {
        self.delete_opt(key, WriteOptions::new())
    }

    /// Removes a key, with options. Returns whether it existed, as [`delete`](Self::delete) does. A
    /// time to live has no effect here.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn delete_opt(
        &self,
        key: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> Result<bool, ClientError> {
        let call = RemoteCall::new("DELETE", path(key.as_ref()), &[204, 404]);
        Ok(self.call(&durable(call, options))?.status == 204)
    }

    /// Returns the headers of a key, or `None` if it is absent or expired.
    fn head(&self, key: &[u8]) -> ClientResult<Option<RemoteAnswer>> {
        let answer = self.call(&RemoteCall::new("HEAD", path(key), &[200, 404]))?;
        Ok((answer.status == 200).then_some(answer))
    }

    /// Returns the version in an answer.
    fn version(&self, answer: &RemoteAnswer) -> ClientResult<Version> {
        let tag = answer.header("etag").map(|tag| tag.strip_prefix("W/").unwrap_or(tag));
        let number = tag.and_then(|tag| tag.trim_matches('"').parse::<u64>().ok());
        number.map(Version::from).ok_or_else(|| self.invalid(answer, "it has no version"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn a_path_has_one_part_for_any_key() {
        assert_eq!(path(b"a/b c"), "/v1/keys/a%2Fb%20c");
        assert_eq!(path(b""), "/v1/keys/");
        assert_eq!([path(b"."), path(b"..")], ["/v1/keys/%2E", "/v1/keys/%2E%2E"]);
        assert_eq!(path(b"\xff%"), "/v1/keys/%FF%25");
    }

    #[test]
    fn lifetimes_are_written_so_that_the_server_reads_the_same() {
        let options = WriteOptions::new();
        assert_eq!(LifetimeToSend::new(options), LifetimeToSend::default());
        let ttl = |ttl| LifetimeToSend::new(options.ttl(ttl).keep_ttl(true));
        let seconds = Some(0.25);
        let expected = LifetimeToSend { seconds, keep: true, expires_at: None };
        assert_eq!(ttl(Duration::from_millis(250)), expected);
        assert_eq!(ttl(Duration::MAX).seconds, Some(FOREVER));
        let until = |time| LifetimeToSend::new(options.expires_at(time));
        let moment = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001);
        let shown = Some("2023-11-14T22:13:20.000001Z".to_owned());
        assert_eq!(until(moment), LifetimeToSend { expires_at: shown, ..Default::default() });
        let late = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        let seconds = Some(FOREVER);
        assert_eq!(until(late), LifetimeToSend { seconds, ..Default::default() });
    }
}
