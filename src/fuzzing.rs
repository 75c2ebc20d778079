//! What fuzz targets run: one function each, from any bytes to a property that has to hold.
//!
//! - Built for tests and under `cfg(fuzzing)` alone, so that nothing of it is part of the crate;
//!   `fuzz/` has the targets, which do no more than call these, and the inputs that were found.
//! - A broken property panics. An error of the store is none: bad bytes have to be refused.
