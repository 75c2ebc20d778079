//! Reads the options of `bitcask.open`.

use std::time::Duration;

use bitcask::{Compression, MergePolicy, Options, SyncPolicy};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict};

use crate::errors::invalid;
use crate::input::duration;

/// The shortest interval between syncs. The store refuses it too, but names the options of Rust.
const SYNC_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// How a store is to be opened.
pub(crate) struct Opening {
    pub(crate) options: Options,
    pub(crate) read_only: bool,
}

impl Opening {
    /// Reads keyword arguments. One that is `None` has its default.
    pub(crate) fn read(given: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let mut opening = Self { options: Options::new(), read_only: false };
        for (name, value) in given.into_iter().flatten() {
            if !value.is_none() {
                opening = opening.with(&name.extract::<String>()?, &value)?;
            }
        }
        Ok(opening)
    }

    fn with(self, name: &str, value: &Bound<'_, PyAny>) -> PyResult<Self> {
        let Self { options, mut read_only } = self;
        let options = match name {
            "read_only" => {
                read_only = value.extract()?;
                options
            }
            "create" => options.create_if_missing(value.extract()?),
            "sync" => options.sync_policy(sync_policy(value)?),
            "merge" => options.merge_policy(merge_policy(value)?),
            "compression" => options.compression(compression(value)?),
            "default_ttl" => options.default_ttl(Some(duration(value, name)?)),
            "verify_reads" => options.verify_reads(value.extract()?),
            "segment_size" => options.segment_size(value.extract()?),
            "segment_entries" => options.segment_entries(value.extract()?),
            "key_size_limit" => options.key_size_limit(value.extract()?),
            "value_size_limit" => options.value_size_limit(value.extract()?),
            "dir_mode" => options.dir_mode(value.extract()?),
            "file_mode" => options.file_mode(value.extract()?),
            _ => return Err(PyTypeError::new_err(format!("there is no option `{name}`"))),
        };
        Ok(Self { options, read_only })
    }
}

fn sync_policy(value: &Bound<'_, PyAny>) -> PyResult<SyncPolicy> {
    match value.extract::<String>() {
        Ok(name) if name == "always" => Ok(SyncPolicy::Always),
        Ok(name) if name == "never" => Ok(SyncPolicy::Never),
        Ok(name) => Err(invalid(&format!(
            "`sync` is {name:?}: it can be \"always\", \"never\", or an interval in seconds"
        ))),
        Err(_) => {
            if value.is_instance_of::<PyBool>() {
                return Err(invalid(&format!(
                    "`sync` is {value}: use `sync=\"always\"` to make every write durable, or leave \
                     it out"
                )));
            }
            let interval = duration(value, "sync")?;
            if interval < SYNC_INTERVAL_MIN {
                return Err(invalid(&format!(
                    "`sync` is {} seconds: an interval must be at least a millisecond; use \
                     `sync=\"always\"`",
                    interval.as_secs_f64()
                )));
            }
            Ok(SyncPolicy::Interval(interval))
        }
    }
}

fn merge_policy(value: &Bound<'_, PyAny>) -> PyResult<MergePolicy> {
    match value.extract::<String>()?.as_str() {
        "auto" => Ok(MergePolicy::default()),
        "manual" => Ok(MergePolicy::Manual),
        name => Err(invalid(&format!("`merge` is {name:?}: it can be \"auto\" or \"manual\""))),
    }
}

fn compression(value: &Bound<'_, PyAny>) -> PyResult<Compression> {
    match value.extract::<String>()?.as_str() {
        "none" => Ok(Compression::None),
        "lz4" => Ok(Compression::lz4()),
        name => Err(invalid(&format!("`compression` is {name:?}: it can be \"none\" or \"lz4\""))),
    }
}
