//! Transactions: a function of Python that the store runs, and runs again on a conflict.
//!
//! - The store lends the transaction to this thread while the function runs. The object that the
//!   function receives holds only a number, by which it finds the transaction again. So it is of no
//!   use once the function has returned, or in another thread.
//! - An exception of the function discards all writes, and is raised by the call.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Bound as End;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bitcask::{Bitcask, Result, Transaction, TransactionOptions, TransactionRange, Ttl, Value};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use scoped_tls_hkt::scoped_thread_local;

use crate::errors::{invalid, raise};
use crate::input::{octets, write_options};
use crate::scan::{Ends, Part, ends};

scoped_thread_local!(static mut RUNNING: Transaction);

thread_local! {
    /// The transactions of this thread, the innermost last, each with the address of its store.
    static STACK: RefCell<Vec<(u64, usize)>> = const { RefCell::new(Vec::new()) };
}

/// Numbers transactions.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Maximum number of pairs that a scan of a transaction reads ahead.
const AHEAD_MAX: usize = 64;

/// Puts a transaction on this thread's stack until it is dropped.
struct Entered(u64);

impl Entered {
    fn new(store: usize) -> Self {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        STACK.with_borrow_mut(|stack| stack.push((id, store)));
        Self(id)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        STACK.with_borrow_mut(Vec::pop);
    }
}

/// Returns whether this thread runs a transaction of a store.
pub(crate) fn is_within(store: usize) -> bool {
    STACK.with_borrow(|stack| stack.iter().any(|(_, other)| *other == store))
}

/// Runs a function in a transaction, until it commits or fails. `class` is what it receives.
pub(crate) fn run(
    py: Python<'_>,
    db: &Bitcask,
    store: usize,
    options: TransactionOptions,
    (function, class): (&Bound<'_, PyAny>, &Bound<'_, PyAny>),
) -> PyResult<Py<PyAny>> {
    let (function, class) = (function.clone().unbind(), class.clone().unbind());
    let mut outcome: Option<PyResult<Py<PyAny>>> = None;
    let committed = py.detach(|| {
        db.transaction_opt(options, |transaction| {
            let entered = Entered::new(store);
            let id = entered.0;
            RUNNING.set(transaction, || {
                Python::attach(|py| {
                    let call = || function.call1(py, (class.call1(py, (id,))?,));
                    outcome = Some(call());
                });
            });
            if matches!(outcome, Some(Err(_))) {
                transaction.rollback();
            }
            Ok(())
        })
    });
    match outcome {
        Some(Err(raised)) => Err(raised),
        Some(Ok(value)) => committed.map(|()| value).map_err(raise),
        None => committed.map(|()| py.None()).map_err(raise),
    }
}

/// What a function receives that runs in a transaction.
#[pyclass(frozen, subclass, module = "bitcask._bitcask", name = "Transaction")]
pub(crate) struct NativeTransaction {
    id: u64,
}

impl NativeTransaction {
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        run: impl FnOnce(&mut Transaction) -> Result<T> + Send,
    ) -> PyResult<T> {
        with(py, self.id, run)
    }
}

fn with<T: Send>(
    py: Python<'_>,
    id: u64,
    run: impl FnOnce(&mut Transaction) -> Result<T> + Send,
) -> PyResult<T> {
    let innermost = STACK.with_borrow(|stack| stack.last().map(|(innermost, _)| *innermost));
    if innermost != Some(id) {
        return Err(invalid(
            "the transaction has ended, belongs to another thread, or waits for one within it",
        ));
    }
    py.detach(|| RUNNING.with(run)).map_err(raise)
}

#[pymethods]
impl NativeTransaction {
    #[new]
    fn new(id: u64) -> Self {
        Self { id }
    }

    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let wanted = octets(key, "key")?;
        let value = self.with(py, |transaction| transaction.get(wanted))?;
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
        let key = octets(key, "key")?;
        let value = self.with(py, |transaction| transaction.get(key))?;
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
        self.with(py, |transaction| {
            transaction.put_opt(key, value, options);
            Ok(())
        })
    }

    fn delete(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let key = octets(key, "key")?;
        self.with(py, |transaction| {
            transaction.delete(key);
            Ok(())
        })
    }

    fn rollback(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |transaction| {
            transaction.rollback();
            Ok(())
        })
    }

    fn ttl(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
        let wanted = octets(key, "key")?;
        match self.with(py, |transaction| transaction.ttl(wanted))? {
            None => Err(PyKeyError::new_err(key.clone().unbind())),
            Some(Ttl::In(left)) => Ok(Some(left.as_secs_f64())),
            Some(_) => Ok(None),
        }
    }

    #[pyo3(signature = (part, start, stop, include_start, include_stop, reverse))]
    fn _scan(
        &self,
        part: &str,
        start: Option<&Bound<'_, PyAny>>,
        stop: Option<&Bound<'_, PyAny>>,
        include_start: bool,
        include_stop: bool,
        reverse: bool,
    ) -> PyResult<NativeTransactionScan> {
        let ends = ends(start, stop, include_start, include_stop)?;
        Ok(NativeTransactionScan::new(self.id, Part::read(part)?, ends, reverse))
    }

    fn _scan_prefix(
        &self,
        part: &str,
        prefix: &Bound<'_, PyAny>,
        reverse: bool,
    ) -> PyResult<NativeTransactionScan> {
        let ends = prefix_ends(octets(prefix, "prefix")?.as_ref());
        Ok(NativeTransactionScan::new(self.id, Part::read(part)?, ends, reverse))
    }
}

/// Returns the range of all keys with a prefix.
fn prefix_ends(prefix: &[u8]) -> Ends {
    // The lowest key above all of them is the prefix with its last byte that can rise raised.
    let mut above = prefix.to_vec();
    while let Some(last) = above.pop() {
        if let Some(raised) = last.checked_add(1) {
            above.push(raised);
            return (End::Included(prefix.to_vec()), End::Excluded(above));
        }
    }
    (End::Included(prefix.to_vec()), End::Unbounded)
}

/// An iterator over keys and values in a transaction.
///
/// A range of the store borrows the transaction, so this asks for a new one from time to time, and
/// reads a little ahead: as many pairs as it has returned, up to a maximum. What it has read counts
/// as read by the transaction.
#[pyclass(frozen, module = "bitcask._bitcask", name = "TransactionScan")]
pub(crate) struct NativeTransactionScan {
    id: u64,
    part: Part,
    is_reverse: bool,
    progress: Mutex<Progress>,
}

struct Progress {
    /// What has not been read yet.
    rest: Ends,
    ahead: VecDeque<(Value, Value)>,
    /// How many pairs to read next, or 0 at the end.
    count: usize,
}

impl Progress {
    fn read(&mut self, transaction: &Transaction, is_reverse: bool) -> Result<()> {
        let mut range = transaction.range(&self.rest);
        let step = if is_reverse { TransactionRange::next_back } else { TransactionRange::next };
        while self.ahead.len() < self.count {
            let Some(pair) = step(&mut range).transpose()? else {
                self.count = 0;
                return Ok(());
            };
            self.ahead.push_back(pair);
        }
        if let Some((key, _)) = self.ahead.back() {
            let passed = End::Excluded(key.to_vec());
            if is_reverse { self.rest.1 = passed } else { self.rest.0 = passed }
        }
        self.count = (self.count * 2).min(AHEAD_MAX);
        Ok(())
    }
}

impl NativeTransactionScan {
    fn new(id: u64, part: Part, rest: Ends, is_reverse: bool) -> Self {
        let progress = Mutex::new(Progress { rest, ahead: VecDeque::new(), count: 1 });
        Self { id, part, is_reverse, progress }
    }
}

#[pymethods]
impl NativeTransactionScan {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let found = with(py, self.id, |transaction| {
            let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            if progress.ahead.is_empty() && progress.count > 0 {
                progress.read(transaction, self.is_reverse)?;
            }
            Ok(progress.ahead.pop_front())
        })?;
        let Some((key, value)) = found else { return Ok(None) };
        self.part.of(py, (&key, &value)).map(Some)
    }
}
