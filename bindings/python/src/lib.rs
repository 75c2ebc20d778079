//! The native part of the Python package `bitcask`: the module `bitcask._bitcask`.
//!
//! - It converts arguments, calls the store, and converts results and errors. Whatever can be said
//!   in Python, such as the mixins of `MutableMapping`, is in `python/bitcask`.
//! - The interpreter's lock is released during every call of the store, so threads of Python share
//!   a store as threads of Rust do.
//! - There is no `unsafe` code.

mod batch;
mod errors;
mod gate;
mod input;
mod options;
mod origin;
mod pages;
mod reports;
mod scan;
mod snapshot;
mod store;
mod transaction;
mod transaction_scan;

use pyo3::prelude::*;

/// The native module. `bitcask/_bitcask.pyi` describes what it has.
#[pymodule]
fn _bitcask(module: &Bound<'_, PyModule>) -> PyResult<()> {
    origin::watch_forks(module)?;
    module.add_class::<store::NativeStore>()?;
    module.add_class::<snapshot::NativeSnapshot>()?;
    module.add_class::<batch::NativeBatch>()?;
    module.add_class::<scan::NativeScan>()?;
    module.add_class::<transaction::NativeTransaction>()
}
