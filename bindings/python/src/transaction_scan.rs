//! Iterators over keys and values in a transaction.

use std::collections::VecDeque;
use std::ops::Bound as End;
use std::sync::{Arc, Mutex, PoisonError};

use bitcask::{Result, Transaction, TransactionRange, Value};
use pyo3::prelude::*;

use crate::pages;
use crate::scan::{Ends, Part};
use crate::transaction::Held;

/// Maximum number of pairs that an iterator reads ahead.
const AHEAD_MAX: usize = 64;

/// Returns the range of all keys with a prefix.
pub(crate) fn prefix_ends(prefix: &[u8]) -> Ends {
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
/// as read by the transaction. If the transaction changes a key that was read ahead, that is read
/// again, so an iterator shows each key as it is when it gets there.
#[pyclass(frozen, module = "bitcask._bitcask", name = "TransactionScan")]
pub(crate) struct NativeTransactionScan {
    held: Arc<Held>,
    part: Part,
    /// Locked only while the transaction is.
    progress: Arc<Mutex<Progress>>,
}

/// How far an iterator has come.
pub(crate) struct Progress {
    /// The keys that have not been returned yet.
    rest: Ends,
    is_reverse: bool,
    ahead: VecDeque<(Value, Value)>,
    /// Whether `ahead` has everything up to the end.
    has_all: bool,
    /// Whether the end has been returned.
    is_over: bool,
    /// How many pairs to read next.
    count: usize,
}

impl Progress {
    fn next(&mut self, transaction: &Transaction) -> Result<Option<(Value, Value)>> {
        if self.ahead.is_empty() && !self.has_all {
            self.read(transaction)?;
        }
        let next = self.ahead.pop_front();
        match &next {
            Some((key, _)) => {
                let passed = End::Excluded(key.to_vec());
                if self.is_reverse { self.rest.1 = passed } else { self.rest.0 = passed }
            }
            None => self.is_over = true,
        }
        Ok(next)
    }

    fn read(&mut self, transaction: &Transaction) -> Result<()> {
        let mut range = transaction.range(&self.rest);
        let step =
            if self.is_reverse { TransactionRange::next_back } else { TransactionRange::next };
        while self.ahead.len() < self.count {
            let Some(pair) = step(&mut range).transpose()? else {
                self.has_all = true;
                break;
            };
            self.ahead.push_back(pair);
        }
        self.count = (self.count * 2).min(AHEAD_MAX);
        Ok(())
    }

    /// Forgets what was read ahead if a change of a key, or of any key, may concern it.
    pub(crate) fn note_change(&mut self, key: Option<&[u8]>) {
        if !self.is_over && key.is_none_or(|key| self.is_read_ahead(key)) {
            self.ahead.clear();
            self.has_all = false;
            self.count = 1;
        }
    }

    fn is_read_ahead(&self, key: &[u8]) -> bool {
        if !is_within(&self.rest, key) {
            return false;
        }
        let Some((last, _)) = self.ahead.back() else { return self.has_all };
        let is_passed = if self.is_reverse { key >= &**last } else { key <= &**last };
        self.has_all || is_passed
    }
}

fn is_within((start, stop): &Ends, key: &[u8]) -> bool {
    let is_after_start = match start {
        End::Included(start) => key >= start.as_slice(),
        End::Excluded(start) => key > start.as_slice(),
        End::Unbounded => true,
    };
    is_after_start
        && match stop {
            End::Included(stop) => key <= stop.as_slice(),
            End::Excluded(stop) => key < stop.as_slice(),
            End::Unbounded => true,
        }
}

impl NativeTransactionScan {
    pub(crate) fn new(
        py: Python<'_>,
        held: &Arc<Held>,
        part: Part,
        rest: Ends,
        is_reverse: bool,
    ) -> PyResult<Self> {
        let progress = Arc::new(Mutex::new(Progress {
            rest,
            is_reverse,
            ahead: VecDeque::new(),
            has_all: false,
            is_over: false,
            count: 1,
        }));
        held.with(py, |running| {
            running.scans.retain(|scan| scan.strong_count() > 0);
            running.scans.push(Arc::downgrade(&progress));
            Ok(())
        })?;
        Ok(Self { held: Arc::clone(held), part, progress })
    }
}

#[pymethods]
impl NativeTransactionScan {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let found = self.held.with(py, |running| {
            let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            let next = if progress.is_over { None } else { progress.next(&running.transaction)? };
            Ok(next.inspect(|(key, value)| {
                pages::load(key);
                pages::load(value);
            }))
        })?;
        let Some((key, value)) = found else { return Ok(None) };
        self.part.of(py, (&key, &value)).map(Some)
    }
}
