//! Options of an import.

use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use super::report::ImportProgress;
use crate::error::{Error, Result};

/// Default of [`ImportOptions::memory_max`].
const MEMORY_MAX: u64 = 256 << 20;

/// Smallest limit on memory.
const MEMORY_MIN: u64 = 64 << 10;

pub(super) type ImportCallback<'a> = Box<dyn FnMut(&ImportProgress) -> ControlFlow<()> + 'a>;

/// Options of an import.
///
/// ```
/// use std::ops::ControlFlow;
/// use bitcask::import::ImportOptions;
///
/// let options = ImportOptions::new().overwrite(false).progress(|progress| {
///     println!("{} of {} bytes", progress.size_done, progress.size_total);
///     ControlFlow::Continue(())
/// });
/// # let _ = options;
/// ```
#[must_use]
pub struct ImportOptions<'a> {
    pub(super) overwrite: bool,
    pub(super) memory_max: u64,
    pub(super) expire_after: Option<Duration>,
    pub(super) plain_strings: bool,
    pub(super) progress: Option<ImportCallback<'a>>,
}

impl Default for ImportOptions<'_> {
    fn default() -> Self {
        Self {
            overwrite: true,
            memory_max: MEMORY_MAX,
            expire_after: None,
            plain_strings: false,
            progress: None,
        }
    }
}

impl<'a> ImportOptions<'a> {
    /// Returns the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether a key that exists in the store gets the value and the expiry that it has in the
    /// source, if they differ. Default: `true`, so that an import that is run again brings the
    /// store up to date. With `false`, keys that exist are left alone.
    pub fn overwrite(mut self, yes: bool) -> Self {
        self.overwrite = yes;
        self
    }

    /// Sets the maximum memory for the table of the newest record of each key, in bytes. Default:
    /// 256 MiB, which suffices for 3.6 million keys. At least 64 KiB.
    ///
    /// If there are more keys, the source is read several times, and each time a part of the keys
    /// is imported. In addition, an import needs memory for about 1 MiB of pairs and for twice the
    /// largest value.
    pub fn memory_max(mut self, bytes: u64) -> Self {
        self.memory_max = bytes;
        self
    }

    /// Sets how long records live from the time at which they were written, which is the
    /// `expiry_secs` of a Basho cask, in whole seconds. Default: `None`, they do not expire.
    ///
    /// Only [`basho`](fn@super::basho) uses this. bitcaskpy and pybitcask have no expiry, and
    /// prologic's bitcask stores one with each record.
    pub fn expire_after(mut self, duration: Option<Duration>) -> Self {
        self.expire_after = duration;
        self
    }

    /// Sets whether a value of pybitcask that is a string becomes its plain text: `hello` instead
    /// of `"hello"`. Default: `false`, every value is JSON text.
    ///
    /// Plain text is what programs expect that only ever stored strings. If other values occur too,
    /// the string `"1"` and the number `1` can't be told apart any more. A string with half of a
    /// surrogate pair remains JSON text. Only [`pybitcask`](fn@super::pybitcask) uses this.
    pub fn plain_strings(mut self, yes: bool) -> Self {
        self.plain_strings = yes;
        self
    }

    /// Sets a function that receives the import's progress from time to time, and can stop the
    /// import. It may use the store.
    ///
    /// What has been imported by then stays in the store. The next import leaves it alone and does
    /// the rest.
    pub fn progress(mut self, call: impl FnMut(&ImportProgress) -> ControlFlow<()> + 'a) -> Self {
        self.progress = Some(Box::new(call));
        self
    }

    /// Returns an error that names the first invalid option.
    pub(super) fn check(&self) -> Result<()> {
        if self.memory_max < MEMORY_MIN {
            let (name, reason) = ("memory_max", "it must be at least 64 KiB");
            return Err(Error::InvalidOption { name, value: self.memory_max.to_string(), reason });
        }
        Ok(())
    }
}

impl fmt::Debug for ImportOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress = self.progress.as_ref().map(|_| format_args!(".."));
        f.debug_struct("ImportOptions")
            .field("overwrite", &self.overwrite)
            .field("memory_max", &self.memory_max)
            .field("expire_after", &self.expire_after)
            .field("plain_strings", &self.plain_strings)
            .field("progress", &progress)
            .finish()
    }
}
