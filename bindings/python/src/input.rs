//! Reads arguments: bytes, times, and options of writes.

use std::time::{Duration, SystemTime};

use bitcask::WriteOptions;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyMemoryView, PyString};

use crate::errors::invalid;

/// The bytes of an argument. Those of `bytes` are not copied: they can't change, and live as long
/// as the argument.
pub(crate) enum Octets<'a> {
    Shared(&'a [u8]),
    Own(Vec<u8>),
}

impl AsRef<[u8]> for Octets<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

/// Reads a key or a value: `bytes`, `bytearray` or `memoryview`.
pub(crate) fn octets<'a>(value: &'a Bound<'_, PyAny>, what: &str) -> PyResult<Octets<'a>> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Octets::Shared(bytes.as_bytes()));
    }
    if let Ok(bytes) = value.cast::<PyByteArray>() {
        return Ok(Octets::Own(bytes.to_vec()));
    }
    if value.is_instance_of::<PyMemoryView>() {
        let bytes = value.call_method0("tobytes")?;
        return Ok(Octets::Own(bytes.cast::<PyBytes>()?.as_bytes().to_vec()));
    }
    let advice = if value.is_instance_of::<PyString>() {
        "; encode the text, for example with `.encode()`"
    } else {
        ""
    };
    let name = value.get_type().name()?;
    Err(PyTypeError::new_err(format!("a {what} has to be bytes, not {name}{advice}")))
}

/// Reads the keys of an iterable.
pub(crate) fn keys(values: &Bound<'_, PyAny>) -> PyResult<Vec<Vec<u8>>> {
    let mut keys = Vec::new();
    for value in values.try_iter()? {
        keys.push(octets(&value?, "key")?.as_ref().to_vec());
    }
    Ok(keys)
}

/// Reads a duration: a number of seconds or a `timedelta`. Infinity is the longest one.
pub(crate) fn duration(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Duration> {
    let seconds: f64 = if value.hasattr("total_seconds")? {
        value.call_method0("total_seconds")?.extract()?
    } else {
        number(value, name)?
    };
    if seconds == f64::INFINITY {
        return Ok(Duration::MAX);
    }
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| invalid(&format!("`{name}` is {seconds} seconds: {error}")))
}

/// Reads a number. A flag is none, although Python would take `True` for 1.
fn number(value: &Bound<'_, PyAny>, name: &str) -> PyResult<f64> {
    if value.is_instance_of::<PyBool>() {
        return Err(invalid(&format!("`{name}` is {value}, which is no number of seconds")));
    }
    value.extract()
}

/// Reads a time: seconds since the epoch or a `datetime`. Every time before the epoch is the epoch,
/// which has passed too.
fn time(value: &Bound<'_, PyAny>, name: &str) -> PyResult<SystemTime> {
    let seconds: f64 = if value.hasattr("timestamp")? {
        value.call_method0("timestamp")?.extract()?
    } else {
        number(value, name)?
    };
    let since_epoch = Duration::try_from_secs_f64(seconds.max(0.0)).ok();
    let time = since_epoch.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    time.filter(|_| !seconds.is_nan())
        .ok_or_else(|| invalid(&format!("`{name}` is {seconds}, which is no time")))
}

/// Reads the options of a write.
pub(crate) fn write_options(
    ttl: Option<&Bound<'_, PyAny>>,
    expires_at: Option<&Bound<'_, PyAny>>,
    keep_ttl: bool,
    durable: Option<bool>,
) -> PyResult<WriteOptions> {
    let mut options = WriteOptions::new().keep_ttl(keep_ttl);
    match (ttl, expires_at) {
        (Some(_), Some(_)) => return Err(invalid("give `ttl` or `expires_at`, not both")),
        (Some(ttl), None) => options = options.ttl(duration(ttl, "ttl")?),
        (None, Some(at)) => options = options.expires_at(time(at, "expires_at")?),
        (None, None) => {}
    }
    if let Some(durable) = durable {
        options = options.durable(durable);
    }
    Ok(options)
}
