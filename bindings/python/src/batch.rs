//! Batches: several changes that take effect together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcask::Batch;
use pyo3::prelude::*;

use crate::input::{octets, write_options};

/// Changes that are written together.
#[pyclass(frozen, subclass, module = "bitcask._bitcask", name = "Batch")]
pub(crate) struct NativeBatch {
    /// Locked only with the interpreter's lock. A write shares the changes, and the first change
    /// during a write copies them.
    batch: Mutex<Arc<Batch>>,
}

impl NativeBatch {
    fn lock(&self) -> MutexGuard<'_, Arc<Batch>> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the changes so far. They stay as they are: if the program adds others while these
    /// are written, it adds them to a copy.
    pub(crate) fn changes(&self) -> Arc<Batch> {
        Arc::clone(&self.lock())
    }

    fn change(&self, change: impl FnOnce(&mut Batch)) {
        change(Arc::make_mut(&mut self.lock()));
    }
}

#[pymethods]
impl NativeBatch {
    #[new]
    fn new() -> Self {
        Self { batch: Mutex::default() }
    }

    #[pyo3(signature = (key, value, *, ttl = None, expires_at = None, keep_ttl = false))]
    fn put(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        expires_at: Option<&Bound<'_, PyAny>>,
        keep_ttl: bool,
    ) -> PyResult<()> {
        let options = write_options(ttl, expires_at, keep_ttl, None)?;
        let (key, value) = (octets(key, "key")?, octets(value, "value")?);
        self.change(|batch| {
            batch.put_opt(key, value, options);
        });
        Ok(())
    }

    fn delete(&self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let key = octets(key, "key")?;
        self.change(|batch| {
            batch.delete(key);
        });
        Ok(())
    }

    fn __setitem__(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.put(key, value, None, None, false)
    }

    fn __delitem__(&self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        self.delete(key)
    }

    fn clear(&self) {
        *self.lock() = Arc::default();
    }

    fn __len__(&self) -> usize {
        self.lock().len()
    }

    #[getter]
    fn size(&self) -> u64 {
        self.lock().size()
    }
}
