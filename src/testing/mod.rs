//! What tests and fuzz targets share. No other build contains it.

#[cfg(all(any(test, bitcask_fuzzing), not(loom)))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(any(test, bitcask_fuzzing))]
pub(crate) mod twin;
