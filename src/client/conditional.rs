//! Writes under a condition. A condition is a version of the key, which HTTP calls an entity tag.
//!
//! They are sent once: if the first attempt has been made and its answer was lost, the second one
//! would fail because of the first.

use std::time::Duration;

use super::call::RemoteCall;
use super::point::{durable, path, with_options};
use super::{Client, ClientError, ClientResult};
use crate::options::WriteOptions;
use crate::store::{CompareAndSwapError, Version};

/// Maximum number of attempts of a change whose key others change between its read and its write.
const ATTEMPTS_MAX: u32 = 100;

impl Client {
    /// Stores a value unless the key exists. Returns whether it was stored.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn put_if_absent(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<bool, ClientError> {
        self.put_if_absent_opt(key, value, WriteOptions::new())
    }

    /// Stores a value unless the key exists, with options. Returns whether it was stored.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn put_if_absent_opt(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> Result<bool, ClientError> {
        self.change_if(key.as_ref(), None, Some(value.as_ref()), options)
    }

    /// Sets a key's value to `new` if it is currently `expected`. On either side, `None` stands for
    /// an absent key. See [`compare_and_swap_opt`](Self::compare_and_swap_opt).
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<Result<(), CompareAndSwapError>, ClientError> {
        self.compare_and_swap_opt(key, expected, new, WriteOptions::new())
    }

    /// Sets a key's value to `new` if it is currently `expected`, with options. On either side,
    /// `None` stands for an absent key.
    ///
    /// The value is read and compared here, and written if the key still has the version that was
    /// read, so this takes at least two requests.
    ///
    /// # Errors
    ///
    /// [`ClientError`]. If the value is not the expected one, the inner result holds the one that
    /// the key had.
    pub fn compare_and_swap_opt(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        options: WriteOptions,
    ) -> Result<Result<(), CompareAndSwapError>, ClientError> {
        let key = key.as_ref();
        for _ in 0..ATTEMPTS_MAX {
            let (value, version) = self.get_versioned(key)?.unzip();
            if value.as_deref() != expected {
                return Ok(Err(CompareAndSwapError { current: value, version }));
            }
            if self.change_if(key, version, new, options)? {
                return Ok(Ok(()));
            }
        }
        Err(self.conflict())
    }

    /// Sets a key's value to `new` if the key still has the version `expected`. On either side,
    /// `None` stands for an absent key. See
    /// [`compare_and_swap_versioned_opt`](Self::compare_and_swap_versioned_opt).
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn compare_and_swap_versioned(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<Version>,
        new: Option<&[u8]>,
    ) -> Result<Result<(), CompareAndSwapError>, ClientError> {
        self.compare_and_swap_versioned_opt(key, expected, new, WriteOptions::new())
    }

    /// Sets a key's value to `new` if the key still has the version `expected`, with options. On
    /// either side, `None` stands for an absent key.
    ///
    /// # Errors
    ///
    /// [`ClientError`]. If the version is not the expected one, the inner result holds the state of
    /// the key as it was read right afterwards.
    pub fn compare_and_swap_versioned_opt(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<Version>,
        new: Option<&[u8]>,
        options: WriteOptions,
    ) -> Result<Result<(), CompareAndSwapError>, ClientError> {
        let key = key.as_ref();
        if self.change_if(key, expected, new, options)? {
            return Ok(Ok(()));
        }
        let (current, version) = self.get_versioned(key)?.unzip();
        Ok(Err(CompareAndSwapError { current, version }))
    }

    /// Makes a key live for this long from now on. Returns whether it existed.
    ///
    /// The value is read and written again, under the condition that nobody has changed it.
    ///
    /// # Errors
    ///
    /// [`ClientError`], [`Conflict`](ClientError::Conflict) in particular.
    pub fn expire(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool, ClientError> {
        let (key, options) = (key.as_ref(), WriteOptions::new().ttl(ttl));
        for _ in 0..ATTEMPTS_MAX {
            let Some((value, version)) = self.get_versioned(key)? else { return Ok(false) };
            if self.change_if(key, Some(version), Some(&value), options)? {
                return Ok(true);
            }
        }
        Err(self.conflict())
    }

    /// Makes a key live until it is deleted. Returns whether it existed. Costs as much as
    /// [`expire`](Self::expire).
    ///
    /// # Errors
    ///
    /// As [`expire`](Self::expire).
    pub fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool, ClientError> {
        self.expire(key, Duration::MAX)
    }

    /// Puts or deletes a key if it still has a version. Returns whether it had.
    fn change_if(
        &self,
        key: &[u8],
        expected: Option<Version>,
        new: Option<&[u8]>,
        options: WriteOptions,
    ) -> ClientResult<bool> {
        let method = if new.is_some() { "PUT" } else { "DELETE" };
        let mut call = RemoteCall::new(method, path(key), &[204, 404, 412]).once();
        if let Some(value) = new {
            call = with_options(call.body(value), options);
        } else {
            call = durable(call, options);
        }
        let call = match expected {
            Some(version) => call.header("if-match", format!("\"{version}\"")),
            None => call.header("if-none-match", "*"),
        };
        // A key that is to be absent, and is, is not there to be deleted.
        Ok(self.call(&call)?.status != 412)
    }

    fn conflict(&self) -> ClientError {
        let request_id = self.last_request_id().unwrap_or_default();
        ClientError::Conflict { attempts: ATTEMPTS_MAX, request_id }
    }
}
