//! System calls that std lacks, for files and processes; `fs/at.rs` has those for names.
//!
//! - All take an open file and plain numbers, so no memory of ours is at stake, but that of
//!   `left`, which fills what it returns.

#![expect(unsafe_code, reason = "foreign calls that std has no safe form of")]

use std::fs::File;
use std::io;

#[cfg(not(target_os = "linux"))]
use libc::fstatvfs;
#[cfg(target_os = "linux")]
use libc::fstatvfs64 as fstatvfs;

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

/// Returns how large a file may be that this process writes.
pub(super) fn file_size_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes to `limit` alone, which is this function's.
    let code = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    // Infinity is the highest number, or above all that a file can be.
    if code == 0 { limit.rlim_cur } else { u64::MAX }
}

/// Sets room aside for a file's first `size` bytes, without making the file longer.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn reserve(file: &File, size: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let size = libc::off_t::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?;
    loop {
        // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call touches no memory
        // of this process.
        let code = unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, size) };
        if code == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Elsewhere there is no call for it.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn reserve(_file: &File, _size: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Has a descriptor lead to something harmless that is open, in this process alone: what it was a copy of is
/// let go. Takes no descriptor more.
pub(super) fn lead_away(file: &File, harmless: &File) -> io::Result<()> {
    use std::os::fd::AsRawFd;

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

/// What is left of a file system.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    pub(super) bytes: u64,
    /// How many files can still be created; `None` where there is no limit.
    pub(super) files: Option<u64>,
}

/// Returns what is left of the file system that a file or directory is on.
pub(super) fn left(file: &File) -> io::Result<Left> {
    use std::os::fd::AsRawFd;

    let mut space = std::mem::MaybeUninit::uninit();
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call writes nothing but
    // the structure, which is writable and as large as its type says.
    if unsafe { fstatvfs(file.as_raw_fd(), space.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded, so it has filled the structure.
    let space = unsafe { space.assume_init() };
    let bytes = wide(space.f_bavail).saturating_mul(wide(space.f_frsize));
    let has_limit = wide(space.f_files) > 0;
    Ok(Left { bytes, files: has_limit.then_some(wide(space.f_favail)) })
}

/// The types of such figures differ between systems.
fn wide(figure: impl Into<u64>) -> u64 {
    figure.into()
}

/// Returns whether there is surely no process of this id any more, as far as this process can see. One
/// that has ended, and that its parent has not been told of yet, is not there any more either.
pub(crate) fn has_ended(pid: u32) -> bool {
    let Some(id) = libc::pid_t::try_from(pid).ok().filter(|id| *id > 0) else { return false };
    // SAFETY: signal 0 is none: the call looks for the process, and touches no memory of this one.
    if unsafe { libc::kill(id, 0) } != 0 {
        return io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
    }
    // Behind the name, which may hold anything, comes the state.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('Z' | 'X'))
}

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
