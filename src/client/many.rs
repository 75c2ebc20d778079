//! Several keys in one request.

use super::call::RemoteCall;
use super::json::{BatchToSend, FoundValues, KeyToSend, KeysToSend, OperationToSend};
use super::point::LifetimeToSend;
use super::{Client, ClientError, ClientResult};
use crate::dialect::{self, ITEMS_MAX};
use crate::options::WriteOptions;
use crate::store::Batch;
use crate::value::Value;

/// Size of the keys in a request after which the next one begins, in bytes.
const KEYS_SIZE_MAX: usize = 4 << 20;

impl Client {
    /// Returns the values of several keys, in the order of the keys; `None` for each key that is
    /// absent or expired.
    ///
    /// One request reads up to 10,000 keys and 16 MiB of values. For more, several are sent, and
    /// the values are not all of the same moment.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>, ClientError> {
        let mut values = Vec::new();
        let mut rest = keys;
        while !rest.is_empty() {
            let mut size = 0;
            let fits = |key: &&K| {
                size += key.as_ref().len();
                size <= KEYS_SIZE_MAX
            };
            let len = rest.iter().take(ITEMS_MAX).take_while(fits).count().max(1);
            let (now, later) = rest.split_at_checked(len).unwrap_or((rest, &[]));
            self.get_some(now, &mut values)?;
            rest = later;
        }
        Ok(values)
    }

    /// Reads keys with one request, or with several if their values are too many for one.
    fn get_some<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        values: &mut Vec<Option<Value>>,
    ) -> ClientResult<()> {
        if let [key] = keys {
            values.push(self.get(key)?);
            return Ok(());
        }
        let wanted =
            KeysToSend { keys: keys.iter().map(|key| KeyToSend::new(key.as_ref())).collect() };
        let body = encoded(&wanted)?;
        let answer = match self.call(&RemoteCall::new("POST", "/v1/get".into(), &[200]).json(&body))
        {
            Err(ClientError::Server { status: 413, .. }) => {
                let (one, other) = keys.split_at(keys.len() / 2);
                self.get_some(one, values)?;
                return self.get_some(other, values);
            }
            answer => answer?,
        };
        let found: FoundValues =
            serde_json::from_slice(&answer.body).map_err(|error| self.invalid(&answer, error))?;
        if found.values.len() != keys.len() {
            return Err(self.invalid(&answer, "it has not one value for each key"));
        }
        for pair in found.values {
            values.push(pair.into_value().map_err(|reason| self.invalid(&answer, reason))?);
        }
        Ok(())
    }

    /// Applies all changes of a batch, or none of them, even after a crash of the server.
    ///
    /// A batch has at most 10,000 changes, and the server limits its size.
    ///
    /// # Errors
    ///
    /// [`ClientError`]. After some of them the batch may have been written, see
    /// [`ClientError::may_have_taken_effect`].
    pub fn write(&self, batch: &Batch) -> Result<(), ClientError> {
        self.write_opt(batch, WriteOptions::new())
    }

    /// Applies all changes of a batch, or none of them, with options for all changes that have none
    /// of their own. Otherwise like [`write`](Self::write).
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn write_opt(&self, batch: &Batch, options: WriteOptions) -> Result<(), ClientError> {
        let operations =
            batch.changes().map(|(key, value, own)| operation(key, value, options, own));
        let durable = options.durable.or(batch.asks_to_be_durable().then_some(true));
        let body = encoded(&BatchToSend { operations: operations.collect(), durable })?;
        let call = RemoteCall::new("POST", "/v1/batch".into(), &[200]).json(&body).once();
        self.call(&call).map(drop)
    }
}

fn operation<'a>(
    key: &'a [u8],
    value: Option<&'a [u8]>,
    options: WriteOptions,
    own: WriteOptions,
) -> OperationToSend<'a> {
    let key = KeyToSend::new(key);
    let (text, value_base64) = value.map_or((None, None), dialect::text_or_base64);
    // A delete has no time to live.
    let lifetime = match value {
        Some(_) => LifetimeToSend::new(options.of_change(own)),
        None => LifetimeToSend::default(),
    };
    OperationToSend {
        op: if value.is_some() { "put" } else { "delete" },
        key,
        value: text,
        value_base64,
        ttl: lifetime.seconds,
        expires_at: lifetime.expires_at,
        keep_ttl: lifetime.keep,
    }
}

/// Encodes a body.
pub(super) fn encoded(body: &impl serde::Serialize) -> ClientResult<Vec<u8>> {
    serde_json::to_vec(body)
        .map_err(|error| ClientError::InvalidRequest { reason: error.to_string() })
}
