//! Snapshots: the store as it was at one moment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcask::{Result, Snapshot, Value};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{closed, raise};
use crate::input::{keys, octets};
use crate::pages;
use crate::scan::{Extent, NativeScan, Part, ends};
use crate::store::{NativeStore, load_all, values};

/// A snapshot that can be closed. It outlives the store.
#[pyclass(frozen, subclass, module = "bitcask._bitcask", name = "Snapshot")]
pub(crate) struct NativeSnapshot {
    snapshot: Mutex<Option<Arc<Snapshot>>>,
}

impl NativeSnapshot {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Snapshot>>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> PyResult<Arc<Snapshot>> {
        self.lock().clone().ok_or_else(|| closed("snapshot"))
    }

    fn read<T: Send>(
        &self,
        py: Python<'_>,
        read: impl FnOnce(&Snapshot) -> Result<T> + Send,
    ) -> PyResult<T> {
        let snapshot = self.open()?;
        py.detach(|| read(&snapshot)).map_err(raise)
    }

    fn value(&self, py: Python<'_>, key: &[u8]) -> PyResult<Option<Value>> {
        self.read(py, |snapshot| Ok(snapshot.get(key)?.inspect(pages::load)))
    }
}

#[pymethods]
impl NativeSnapshot {
    #[new]
    fn new(store: &NativeStore, py: Python<'_>) -> PyResult<Self> {
        let snapshot = store.read(py, |reader| Ok(reader.snapshot()))?;
        Ok(Self { snapshot: Mutex::new(Some(Arc::new(snapshot))) })
    }

    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let found = octets(key, "key")?;
        let value = self.value(py, found.as_ref())?;
        let value = value.ok_or_else(|| PyKeyError::new_err(key.clone().unbind()))?;
        Ok(PyBytes::new(py, &value))
    }

    fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let key = octets(key, "key")?;
        self.read(py, |snapshot| snapshot.contains_key(key))
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        let len = self.read(py, Snapshot::len)?;
        Ok(usize::try_from(len)?)
    }

    fn __bool__(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(!self.read(py, Snapshot::is_empty)?)
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

    #[pyo3(name = "get_many")]
    fn read_many<'py>(
        &self,
        py: Python<'py>,
        wanted: &Bound<'py, PyAny>,
    ) -> PyResult<Vec<Option<Bound<'py, PyBytes>>>> {
        let wanted = keys(wanted)?;
        let read =
            |snapshot: &Snapshot| snapshot.get_many(&wanted).inspect(|found| load_all(found));
        Ok(values(py, self.read(py, read)?))
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
    ) -> PyResult<NativeScan> {
        let extent = Extent::Within(ends(start, stop, include_start, include_stop)?);
        Ok(NativeScan::new(&*self.open()?, Part::read(part)?, extent, reverse))
    }

    fn _scan_prefix(
        &self,
        part: &str,
        prefix: &Bound<'_, PyAny>,
        reverse: bool,
    ) -> PyResult<NativeScan> {
        let extent = Extent::Prefix(octets(prefix, "prefix")?.as_ref().to_vec());
        Ok(NativeScan::new(&*self.open()?, Part::read(part)?, extent, reverse))
    }

    #[getter]
    fn closed(&self) -> bool {
        self.lock().is_none()
    }

    fn close(&self, py: Python<'_>) {
        let snapshot = self.lock().take();
        py.detach(|| drop(snapshot));
    }
}
