//! The integration tests: one binary, which sees the public API alone.

mod format;
mod tidy;
