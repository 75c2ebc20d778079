//! Waits for the disk before the interpreter's lock is taken.
//!
//! A value borrows mapped pages. If its checksum was not verified, nothing has read them yet, and
//! whoever copies them waits for the disk. So they are read first, while other threads of Python
//! run.

use std::hint::black_box;

use bitcask::Value;

/// The smallest size of a page of memory.
const PAGE_SIZE: usize = 4096;

/// Reads one byte of each page of a value.
pub(crate) fn load(value: &Value) {
    for part in value.chunks(PAGE_SIZE) {
        black_box(part.first().copied());
    }
    // The value need not begin where a page does.
    black_box(value.last().copied());
}
