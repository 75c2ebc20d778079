//! Transactions: what a function of Python reads and writes, until it is committed.
//!
//! - The object owns the transaction. No frame of Rust is on the stack while the function runs, so
//!   the function may switch to another greenlet, which takes the stack away, and no call of the
//!   store waits for it.
//! - Once the function has returned, the object is of no use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bitcask::{Result, Transaction, TransactionOptions, Ttl, Value};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{invalid, raise};
use crate::input::{octets, write_options};
use crate::origin::Origin;
use crate::pages;
use crate::scan::{Part, ends};
use crate::store::NativeStore;
use crate::transaction_scan::{NativeTransactionScan, Progress, prefix_ends};

/// A transaction, shared by the object that the function has received and its iterators.
pub(crate) struct Held {
    origin: Origin,
    /// `None` once the transaction has ended. Locked only without the interpreter's lock.
    running: Mutex<Option<Running>>,
}

/// A transaction that has not ended.
pub(crate) struct Running {
    pub(crate) transaction: Transaction,
    /// The iterators that may have read ahead.
    pub(crate) scans: Vec<Weak<Mutex<Progress>>>,
}

impl Running {
    /// Makes the iterators forget what they have read ahead and the transaction has changed: one
    /// key, or any.
    fn note_change(&mut self, key: Option<&[u8]>) {
        self.scans.retain(|scan| {
            let Some(scan) = scan.upgrade() else { return false };
            scan.lock().unwrap_or_else(PoisonError::into_inner).note_change(key);
            true
        });
    }
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the transaction without the interpreter's lock.
    pub(crate) fn with<T: Send>(
        &self,
        py: Python<'_>,
        run: impl FnOnce(&mut Running) -> Result<T> + Send,
    ) -> PyResult<T> {
        self.origin.check()?;
        let result = py.detach(|| self.lock().as_mut().map(run));
        result.ok_or_else(has_ended)?.map_err(raise)
    }

    fn take(&self, py: Python<'_>) -> PyResult<Option<Running>> {
        self.origin.check()?;
        Ok(py.detach(|| self.lock().take()))
    }
}

fn has_ended() -> PyErr {
    invalid("the transaction has ended")
}

/// What a function receives that runs in a transaction.
#[pyclass(frozen, subclass, module = "bitcask._bitcask", name = "Transaction")]
pub(crate) struct NativeTransaction {
    held: Arc<Held>,
}

impl NativeTransaction {
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        run: impl FnOnce(&mut Transaction) -> Result<T> + Send,
    ) -> PyResult<T> {
        self.held.with(py, |running| run(&mut running.transaction))
    }

    fn value(&self, py: Python<'_>, key: &[u8]) -> PyResult<Option<Value>> {
        self.with(py, |transaction| Ok(transaction.get(key)?.inspect(pages::load)))
    }

    /// Changes a key, or forgets all changes.
    fn change(
        &self,
        py: Python<'_>,
        key: Option<&[u8]>,
        change: impl FnOnce(&mut Transaction) + Send,
    ) -> PyResult<()> {
        self.held.with(py, |running| {
            change(&mut running.transaction);
            running.note_change(key);
            Ok(())
        })
    }
}

#[pymethods]
impl NativeTransaction {
    #[new]
    fn new(py: Python<'_>, store: &NativeStore) -> PyResult<Self> {
        let transaction = store.write(py, |db| Ok(db.begin()))?;
        let running = Mutex::new(Some(Running { transaction, scans: Vec::new() }));
        Ok(Self { held: Arc::new(Held { origin: Origin::here(), running }) })
    }

    /// Ends the transaction. Returns whether its writes took effect; if not, others have changed
    /// what it has read.
    fn _commit(
        &self,
        py: Python<'_>,
        store: &NativeStore,
        durable: Option<bool>,
    ) -> PyResult<bool> {
        let running = self.held.take(py)?.ok_or_else(has_ended)?;
        let mut options = TransactionOptions::new();
        if let Some(durable) = durable {
            options = options.durable(durable);
        }
        store.write(py, |db| db.commit(running.transaction, options))
    }

    /// Ends the transaction without an effect, unless it has ended.
    fn _end(&self, py: Python<'_>) {
        // In a forked process, the parent ends it.
        if let Ok(running) = self.held.take(py) {
            py.detach(|| drop(running));
        }
    }

    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let wanted = octets(key, "key")?;
        let value = self.value(py, wanted.as_ref())?;
        let value = value.ok_or_else(|| PyKeyError::new_err(key.clone().unbind()))?;
        Ok(PyBytes::new(py, &value))
    }

    fn __setitem__(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.put(py, key, value, None, None, false)
    }

    fn __delitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        if !self.__contains__(py, key)? {
            return Err(PyKeyError::new_err(key.clone().unbind()));
        }
        self.delete(py, key)
    }

    fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let key = octets(key, "key")?;
        self.with(py, |transaction| transaction.contains_key(key))
    }

    #[pyo3(signature = (key, default = None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let value = self.value(py, octets(key, "key")?.as_ref())?;
        Ok(value.map(|value| PyBytes::new(py, &value).into_any()).or(default))
    }

    #[pyo3(signature = (key, value, *, ttl = None, expires_at = None, keep_ttl = false))]
    fn put(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        expires_at: Option<&Bound<'_, PyAny>>,
        keep_ttl: bool,
    ) -> PyResult<()> {
        let options = write_options(ttl, expires_at, keep_ttl, None)?;
        let (key, value) = (octets(key, "key")?, octets(value, "value")?);
        let (key, value) = (key.as_ref(), value.as_ref());
        self.change(py, Some(key), |transaction| transaction.put_opt(key, value, options))
    }

    fn delete(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let key = octets(key, "key")?;
        let key = key.as_ref();
        self.change(py, Some(key), |transaction| transaction.delete(key))
    }

    fn rollback(&self, py: Python<'_>) -> PyResult<()> {
        self.change(py, None, Transaction::rollback)
    }

    fn ttl(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
        let wanted = octets(key, "key")?;
        match self.with(py, |transaction| transaction.ttl(wanted))? {
            None => Err(PyKeyError::new_err(key.clone().unbind())),
            Some(Ttl::In(left)) => Ok(Some(left.as_secs_f64())),
            Some(_) => Ok(None),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "only the package itself calls it")]
    fn _scan(
        &self,
        py: Python<'_>,
        part: &str,
        start: Option<&Bound<'_, PyAny>>,
        stop: Option<&Bound<'_, PyAny>>,
        include_start: bool,
        include_stop: bool,
        reverse: bool,
    ) -> PyResult<NativeTransactionScan> {
        let ends = ends(start, stop, include_start, include_stop)?;
        NativeTransactionScan::new(py, &self.held, Part::read(part)?, ends, reverse)
    }

    fn _scan_prefix(
        &self,
        py: Python<'_>,
        part: &str,
        prefix: &Bound<'_, PyAny>,
        reverse: bool,
    ) -> PyResult<NativeTransactionScan> {
        let ends = prefix_ends(octets(prefix, "prefix")?.as_ref());
        NativeTransactionScan::new(py, &self.held, Part::read(part)?, ends, reverse)
    }
}
