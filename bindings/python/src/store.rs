//! Stores.

use std::path::{Path, PathBuf};

use bitcask::import::{self, ImportOptions, ImportReport};
use bitcask::{Bitcask, MergeOptions, ReadOnly, Reader, Result, Ttl, Value};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::batch::NativeBatch;
use crate::errors::{invalid, raise};
use crate::gate::{Gate, Opened};
use crate::input::{duration, keys, octets, write_options};
use crate::options::Opening;
use crate::pages;
use crate::reports;
use crate::scan::{Extent, NativeScan, Part, ends};

/// An open store, for reading and writing or read-only.
#[pyclass(frozen, subclass, module = "bitcask._bitcask", name = "Store")]
pub(crate) struct NativeStore {
    gate: Gate,
    path: PathBuf,
    is_read_only: bool,
}

type Importer = fn(&Path, &Bitcask, ImportOptions<'_>) -> Result<ImportReport>;

/// Reads the pages of values.
pub(crate) fn load_all(values: &[Option<Value>]) {
    values.iter().flatten().for_each(pages::load);
}

/// Copies values into objects of Python.
pub(crate) fn values(
    py: Python<'_>,
    values: Vec<Option<Value>>,
) -> Vec<Option<Bound<'_, PyBytes>>> {
    let copy = |value: Value| PyBytes::new(py, &value);
    values.into_iter().map(|value| value.map(copy)).collect()
}

impl NativeStore {
    /// Calls the store without the interpreter's lock.
    pub(crate) fn read<T: Send>(
        &self,
        py: Python<'_>,
        read: impl FnOnce(&Reader) -> Result<T> + Send,
    ) -> PyResult<T> {
        self.gate.call(py, |opened| read(opened.reader()))
    }

    fn value(&self, py: Python<'_>, key: &[u8]) -> PyResult<Option<Value>> {
        self.read(py, |reader| Ok(reader.get(key)?.inspect(pages::load)))
    }

    /// Calls a store that was opened for writing, without the interpreter's lock.
    pub(crate) fn write<T: Send>(
        &self,
        py: Python<'_>,
        write: impl FnOnce(&Bitcask) -> Result<T> + Send,
    ) -> PyResult<T> {
        self.gate.call(py, |opened| write(opened.writer()?))
    }

    fn scan(
        &self,
        py: Python<'_>,
        part: &str,
        extent: Extent,
        is_reverse: bool,
    ) -> PyResult<NativeScan> {
        let part = Part::read(part)?;
        self.read(py, |reader| Ok(NativeScan::new(&reader.snapshot(), part, extent, is_reverse)))
    }
}

#[pymethods]
impl NativeStore {
    #[new]
    #[pyo3(signature = (path, **options))]
    fn new(py: Python<'_>, path: PathBuf, options: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let Opening { options, read_only } = Opening::read(options)?;
        let open = || {
            Ok(if read_only {
                Opened::Follower(ReadOnly::open(&path, options)?)
            } else {
                Opened::Writer(Bitcask::open(&path, options)?)
            })
        };
        let opened = py.detach(open).map_err(raise)?;
        Ok(Self { gate: Gate::new(opened), path, is_read_only: read_only })
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
        let (key, value) = (octets(key, "key")?, octets(value, "value")?);
        self.write(py, |db| db.put(key, value))
    }

    fn __delitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.delete(py, key, None)? {
            Ok(())
        } else {
            Err(PyKeyError::new_err(key.clone().unbind()))
        }
    }

    fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let key = octets(key, "key")?;
        self.read(py, |reader| reader.contains_key(key))
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        let len = self.read(py, Reader::len)?;
        Ok(usize::try_from(len)?)
    }

    fn __bool__(&self, py: Python<'_>) -> PyResult<bool> {
        // The store counts expired keys that nothing has removed yet; iteration never shows them.
        Ok(!self.read(py, |reader| reader.snapshot().is_empty())?)
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
        let read = |reader: &Reader| reader.get_many(&wanted).inspect(|found| load_all(found));
        Ok(values(py, self.read(py, read)?))
    }

    #[pyo3(signature = (key, value, *, ttl = None, expires_at = None, keep_ttl = false, durable = None))]
    #[expect(clippy::too_many_arguments, reason = "they are named in Python")]
    fn put(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        expires_at: Option<&Bound<'_, PyAny>>,
        keep_ttl: bool,
        durable: Option<bool>,
    ) -> PyResult<()> {
        let options = write_options(ttl, expires_at, keep_ttl, durable)?;
        let (key, value) = (octets(key, "key")?, octets(value, "value")?);
        self.write(py, |db| db.put_opt(key, value, options))
    }

    #[pyo3(signature = (key, value, *, ttl = None, expires_at = None, durable = None))]
    fn put_if_absent(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        expires_at: Option<&Bound<'_, PyAny>>,
        durable: Option<bool>,
    ) -> PyResult<bool> {
        let options = write_options(ttl, expires_at, false, durable)?;
        let (key, value) = (octets(key, "key")?, octets(value, "value")?);
        self.write(py, |db| db.put_if_absent_opt(key, value, options))
    }

    #[pyo3(signature = (key, *, durable = None))]
    fn delete(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        durable: Option<bool>,
    ) -> PyResult<bool> {
        let options = write_options(None, None, false, durable)?;
        let key = octets(key, "key")?;
        self.write(py, |db| db.delete_opt(key, options))
    }

    #[pyo3(name = "write", signature = (batch, *, durable = None))]
    fn write_batch(
        &self,
        py: Python<'_>,
        batch: &NativeBatch,
        durable: Option<bool>,
    ) -> PyResult<()> {
        let options = write_options(None, None, false, durable)?;
        let changes = batch.changes();
        self.write(py, |db| db.write_opt(&changes, options))
    }

    fn ttl(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
        let wanted = octets(key, "key")?;
        match self.read(py, |reader| reader.ttl(wanted))? {
            None => Err(PyKeyError::new_err(key.clone().unbind())),
            Some(Ttl::In(left)) => Ok(Some(left.as_secs_f64())),
            Some(_) => Ok(None),
        }
    }

    fn expire(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        ttl: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let (key, ttl) = (octets(key, "key")?, duration(ttl, "ttl")?);
        self.write(py, |db| db.expire(key, ttl))
    }

    fn persist(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let key = octets(key, "key")?;
        self.write(py, |db| db.persist(key))
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
    ) -> PyResult<NativeScan> {
        let extent = Extent::Within(ends(start, stop, include_start, include_stop)?);
        self.scan(py, part, extent, reverse)
    }

    fn _scan_prefix(
        &self,
        py: Python<'_>,
        part: &str,
        prefix: &Bound<'_, PyAny>,
        reverse: bool,
    ) -> PyResult<NativeScan> {
        let extent = Extent::Prefix(octets(prefix, "prefix")?.as_ref().to_vec());
        self.scan(py, part, extent, reverse)
    }

    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        self.write(py, Bitcask::clear)
    }

    #[pyo3(signature = (start = None, stop = None))]
    fn delete_range(
        &self,
        py: Python<'_>,
        start: Option<&Bound<'_, PyAny>>,
        stop: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        let ends = ends(start, stop, true, false)?;
        self.write(py, |db| db.delete_range(ends))
    }

    fn delete_prefix(&self, py: Python<'_>, prefix: &Bound<'_, PyAny>) -> PyResult<u64> {
        let prefix = octets(prefix, "prefix")?;
        self.write(py, |db| db.delete_prefix(prefix))
    }

    /// `shelve` calls this for read-only stores too, which have nothing to sync.
    fn sync(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_read_only {
            return self.read(py, |_| Ok(()));
        }
        self.write(py, Bitcask::sync)
    }

    #[pyo3(signature = (*, force = false))]
    fn merge<'py>(&self, py: Python<'py>, force: bool) -> PyResult<Bound<'py, PyDict>> {
        let report = self.write(py, |db| db.merge_opt(MergeOptions::new().force(force)))?;
        reports::of_merge(py, &report)
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        reports::of_stats(py, &self.read(py, |reader| Ok(reader.stats()))?)
    }

    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        reports::of_counters(py, &self.read(py, |reader| Ok(reader.counters()))?)
    }

    fn backup<'py>(&self, py: Python<'py>, path: PathBuf) -> PyResult<Bound<'py, PyDict>> {
        reports::of_backup(py, &self.write(py, |db| db.backup(path))?)
    }

    /// Lets a read-only store catch up with its writer. Another one is always up to date.
    fn refresh(&self, py: Python<'_>) -> PyResult<bool> {
        self.gate.call(py, |opened| match opened {
            Opened::Follower(db) => db.refresh(),
            Opened::Writer(_) => Ok(false),
        })
    }

    #[pyo3(signature = (system, path, *, overwrite = true, plain_strings = false))]
    fn import_from<'py>(
        &self,
        py: Python<'py>,
        system: &str,
        path: PathBuf,
        overwrite: bool,
        plain_strings: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let import: Importer = match system {
            "bitcaskpy" => |path, db, options| import::bitcaskpy(path, db, options),
            "pybitcask" => |path, db, options| import::pybitcask(path, db, options),
            "basho" => |path, db, options| import::basho(path, db, options),
            "prologic" => |path, db, options| import::prologic(path, db, options),
            _ => {
                return Err(invalid(&format!(
                    "there is no importer for {system:?}: there are bitcaskpy, pybitcask, basho \
                     and prologic"
                )));
            }
        };
        let report = self.write(py, move |db| {
            let options = ImportOptions::new().overwrite(overwrite).plain_strings(plain_strings);
            import(&path, db, options)
        })?;
        reports::of_import(py, &report)
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    #[getter]
    fn read_only(&self) -> bool {
        self.is_read_only
    }

    #[getter]
    fn closed(&self) -> bool {
        self.gate.is_closed()
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.gate.close(py)
    }
}
