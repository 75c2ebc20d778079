//! The two system calls that std lacks, and nothing else.
//!
//! - Both take an open file and plain numbers, so no memory of ours is at stake.

#![expect(unsafe_code, reason = "foreign calls that std has no safe form of")]

use std::fs::File;
use std::io;

/// Sets room aside so that the file has at least `size` bytes.
///
/// `fs2::FileExt::allocate` would do the same, but 0.4.3 reports the last error of the thread
/// instead of the one that the call returned.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub(super) fn allocate(file: &File, size: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let size = libc::off_t::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?;
    loop {
        // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call touches
        // no memory of this process.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, size) } {
            0 => return Ok(()),
            libc::EINTR => {}
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// Elsewhere room cannot be set aside the same way: the size is set, once there is enough room.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(super) fn allocate(file: &File, size: u64) -> io::Result<()> {
    fs2::FileExt::allocate(file, size)
}

/// Asks the kernel to forget the file's clean pages. Advice: it may decline.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub(super) fn drop_cache(file: &File) {
    use std::os::fd::AsRawFd;

    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call touches no
    // memory of this process; mappings of the file stay valid, their pages are read again.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(super) fn drop_cache(_file: &File) {}
