//! Options of transactions.

use crate::error::{Error, Result};

/// Options of one transaction, for [`Bitcask::transaction_opt`](crate::Bitcask::transaction_opt).
///
/// ```
/// use bitcask::TransactionOptions;
/// let options = TransactionOptions::new().attempts(10).durable(true);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct TransactionOptions {
    pub(crate) attempts: u32,
    pub(crate) durable: Option<bool>,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self { attempts: Self::ATTEMPTS, durable: None }
    }
}

impl TransactionOptions {
    /// Default number of attempts.
    pub(crate) const ATTEMPTS: u32 = 100;

    /// Returns the defaults: a hundred attempts, and the store's [`SyncPolicy`](crate::SyncPolicy).
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum number of attempts. The closure runs again if something that it read has
    /// changed meanwhile. Minimum: 1.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets whether the transaction returns only once it is durable, whatever the store's policy.
    pub fn durable(mut self, yes: bool) -> Self {
        self.durable = Some(yes);
        self
    }

    pub(crate) fn check(self) -> Result<()> {
        if self.attempts == 0 {
            let reason = "a transaction must run at least once";
            return Err(Error::InvalidOption { name: "attempts", value: "0".into(), reason });
        }
        Ok(())
    }
}
