//! Iterators over keys and values, in order.

use std::ops::Bound as End;
use std::sync::{Mutex, PoisonError};

use bitcask::{Range, RangeKeys, Result, Snapshot, Value};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::errors::{invalid, raise};
use crate::input::octets;
use crate::origin::Origin;
use crate::pages;

/// Both ends of a range of keys.
pub(crate) type Ends = (End<Vec<u8>>, End<Vec<u8>>);

/// Reads both ends of a range.
pub(crate) fn ends(
    start: Option<&Bound<'_, PyAny>>,
    stop: Option<&Bound<'_, PyAny>>,
    include_start: bool,
    include_stop: bool,
) -> PyResult<Ends> {
    let end = |key: Option<&Bound<'_, PyAny>>, is_included: bool| {
        let Some(key) = key else { return Ok(End::Unbounded) };
        let key = octets(key, "key")?.as_ref().to_vec();
        PyResult::Ok(if is_included { End::Included(key) } else { End::Excluded(key) })
    };
    Ok((end(start, include_start)?, end(stop, include_stop)?))
}

/// Which keys a scan returns.
pub(crate) enum Extent {
    Within(Ends),
    Prefix(Vec<u8>),
}

/// What a scan returns of each key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Items,
    Keys,
    Values,
}

impl Part {
    pub(crate) fn read(name: &str) -> PyResult<Self> {
        match name {
            "items" => Ok(Self::Items),
            "keys" => Ok(Self::Keys),
            "values" => Ok(Self::Values),
            _ => Err(invalid(&format!("a scan has items, keys or values, not {name:?}"))),
        }
    }

    /// Returns what Python receives of a pair.
    pub(crate) fn of<'py>(
        self,
        py: Python<'py>,
        (key, value): (&[u8], &[u8]),
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self {
            Self::Items => {
                PyTuple::new(py, [PyBytes::new(py, key), PyBytes::new(py, value)])?.into_any()
            }
            Self::Keys => PyBytes::new(py, key).into_any(),
            Self::Values => PyBytes::new(py, value).into_any(),
        })
    }
}

enum Steps {
    Pairs(Range),
    Keys(RangeKeys),
}

impl Steps {
    fn next(&mut self, is_reverse: bool) -> Option<Result<(Value, Option<Value>)>> {
        let pair = |(key, value)| (key, Some(value));
        match (self, is_reverse) {
            (Self::Pairs(range), false) => range.next().map(|found| found.map(pair)),
            (Self::Pairs(range), true) => range.next_back().map(|found| found.map(pair)),
            (Self::Keys(range), false) => range.next().map(|found| found.map(|key| (key, None))),
            (Self::Keys(range), true) => {
                range.next_back().map(|found| found.map(|key| (key, None)))
            }
        }
    }
}

/// An iterator over a snapshot. It outlives the store.
#[pyclass(frozen, module = "bitcask._bitcask", name = "Scan")]
pub(crate) struct NativeScan {
    origin: Origin,
    steps: Mutex<Steps>,
    part: Part,
    is_reverse: bool,
}

impl NativeScan {
    /// Begins a scan of a snapshot. Reads nothing yet.
    pub(crate) fn new(snapshot: &Snapshot, part: Part, extent: Extent, is_reverse: bool) -> Self {
        let steps = match (part, extent) {
            (Part::Keys, Extent::Within(ends)) => Steps::Keys(snapshot.range_keys(ends)),
            (Part::Keys, Extent::Prefix(prefix)) => Steps::Keys(snapshot.prefix_keys(prefix)),
            (_, Extent::Within(ends)) => Steps::Pairs(snapshot.range(ends)),
            (_, Extent::Prefix(prefix)) => Steps::Pairs(snapshot.prefix(prefix)),
        };
        Self { origin: Origin::here(), steps: Mutex::new(steps), part, is_reverse }
    }
}

#[pymethods]
impl NativeScan {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.origin.check()?;
        let next = py.detach(|| {
            let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
            let next = steps.next(self.is_reverse);
            drop(steps);
            if let Some(Ok((key, value))) = &next {
                pages::load(key);
                value.iter().for_each(pages::load);
            }
            next
        });
        let Some(found) = next else { return Ok(None) };
        let (key, value) = found.map_err(raise)?;
        self.part.of(py, (&key, value.as_deref().unwrap_or_default())).map(Some)
    }
}
