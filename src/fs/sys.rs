//! The system calls that std lacks, and nothing else.
//!
//! - All take an open file and plain numbers, so no memory of ours is at stake.

#![expect(unsafe_code, reason = "foreign calls that std has no safe form of")]

use std::fs::File;
use std::io;

/// Sets room aside from `from`, the file's end or before it, so that it has at least `size` bytes.
///
/// Nothing below `from` is touched. Where the file system can't set room aside, the C library reads
/// one byte of each block in the range and writes it back if it is zero; a byte that somebody
/// stores through a mapping in between would be lost.
///
/// `fs2::FileExt::allocate` would do the same, but 0.4.3 reports the last error of the thread
/// instead of the one that the call returned.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub(super) fn allocate(file: &File, from: u64, size: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let Some(len) = size.checked_sub(from).filter(|len| *len > 0) else { return Ok(()) };
    let from = libc::off_t::try_from(from).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let len = libc::off_t::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
    loop {
        // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call touches
        // no memory of this process.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), from, len) } {
            0 => return Ok(()),
            libc::EINTR => {}
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// Elsewhere room cannot be set aside the same way: the size is set, once there is enough room.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(super) fn allocate(file: &File, _from: u64, size: u64) -> io::Result<()> {
    fs2::FileExt::allocate(file, size)
}

/// Has a descriptor lead to something harmless, in this process alone: what it was a copy of is let go.
pub(super) fn lead_away(file: &File) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let harmless = File::open("/")?;
    // SAFETY: both descriptors are open for as long as the files are borrowed. The number stays open
    // and stays `file`'s, which closes it; nothing but that it is open is ever asked of it again.
    let led = unsafe { libc::dup2(harmless.as_raw_fd(), file.as_raw_fd()) };
    // SAFETY: as above, and this touches no memory of this process.
    if led < 0 || unsafe { libc::fcntl(led, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
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

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn room_is_set_aside_behind_the_end_and_nothing_before_it_is_touched() {
        let file = tempfile::tempfile().unwrap();
        // A hole stays one unless it is touched.
        file.set_len(4 << 20).unwrap();
        allocate(&file, 4 << 20, 5 << 20).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 5 << 20);
        assert!(metadata.blocks() * 512 < 3 << 20, "{} blocks", metadata.blocks());
        // What is there already needs no room.
        allocate(&file, 5 << 20, 1 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 5 << 20);
    }
}
