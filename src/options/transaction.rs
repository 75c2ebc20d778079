//! How a transaction is run.

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
    /// As often a closure is run, unless another number is asked for.
    pub(crate) const ATTEMPTS: u32 = 100;

    /// A hundred attempts, and the store's own [`SyncPolicy`](crate::SyncPolicy).
    pub fn new() -> Self {
        Self::default()
    }

    /// How often the closure is run at the most, until nothing that it has read was changed
    /// meanwhile. At least one.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Whether the transaction returns only when it is durable, whatever the store's policy says.
    pub fn durable(mut self, yes: bool) -> Self {
        self.durable = Some(yes);
        self
    }

    pub(crate) fn check(self) -> Result<()> {
        if self.attempts == 0 {
            let reason = "a transaction has to be run once";
            return Err(Error::InvalidOption { name: "attempts", value: "0".into(), reason });
        }
        Ok(())
    }
}
