//! System calls that std lacks, for files and processes; `fs/at.rs` has those for names.
//!
//! - All of them take an open file and plain numbers, so they can't damage memory, except `left`,
//!   which fills a structure.

#![expect(unsafe_code, reason = "foreign calls without a safe equivalent in std")]

use std::fs::File;
use std::io;

#[cfg(not(target_os = "linux"))]
use libc::fstatvfs;
#[cfg(target_os = "linux")]
use libc::fstatvfs64 as fstatvfs;

/// Allocates space from `from`, which is at or before the end of the file, so that the file has at
/// least `size` bytes.
///
/// Nothing before `from` is touched. If the file system can't allocate, the C library reads one
/// byte of each block in the range and writes it back if it is zero; a byte stored through a
/// mapping in between would be lost.
///
/// `fs2::FileExt::allocate` would do the same, but 0.4.3 reports the thread's last error instead of
/// the error that the call returned.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub(super) fn allocate(file: &File, from: u64, size: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let Some(len) = size.checked_sub(from).filter(|len| *len > 0) else { return Ok(()) };
    let from = libc::off_t::try_from(from).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let len = libc::off_t::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
    loop {
        // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call touches no
        // memory of this process.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), from, len) } {
            0 => return Ok(()),
            libc::EINTR => {}
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// Other systems can't allocate in the same way: sets the size, once there is enough space.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(super) fn allocate(file: &File, _from: u64, size: u64) -> io::Result<()> {
    fs2::FileExt::allocate(file, size)
}

/// Returns the largest file size that this process may write.
pub(super) fn file_size_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes only to `limit`, which is a local variable.
    let code = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    // Infinity is the highest number, or above any possible file size.
    if code == 0 { limit.rlim_cur } else { u64::MAX }
}

/// Reserves space for a file's first `size` bytes, without making the file longer.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn reserve(file: &File, size: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let size = libc::off_t::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?;
    loop {
        // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call touches no
        // memory of this process.
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

/// Other systems have no call for it.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn reserve(_file: &File, _size: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Makes a descriptor refer to another, harmless open file, in this process only. This releases the
/// file that it referred to. Needs no further descriptor.
pub(super) fn redirect(file: &File, harmless: &File) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    // SAFETY: both descriptors are open for as long as the files are borrowed. The number stays
    // open and stays owned by `file`, which closes it. Later code relies only on its being open.
    let redirected = unsafe { libc::dup2(harmless.as_raw_fd(), file.as_raw_fd()) };
    // SAFETY: as above, and this touches no memory of this process.
    if redirected < 0 || unsafe { libc::fcntl(redirected, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Asks the kernel to drop the file's clean pages. This is advice: the kernel may decline.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub(super) fn drop_cache(file: &File) {
    use std::os::fd::AsRawFd;

    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call touches no
    // memory of this process. Mappings of the file stay valid; their pages are read again.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(super) fn drop_cache(_file: &File) {}

/// The remaining capacity of a file system.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    pub(super) bytes: u64,
    /// Number of files that can still be created; `None` if there is no limit.
    pub(super) files: Option<u64>,
}

/// The numbers of file systems that write changed bytes to a new place: btrfs, bcachefs, NILFS2 and
/// ZFS.
const COPYING: [u32; 4] = [0x9123_683E, 0xCA45_1A4E, 0x3434, 0x2FC1_2FC1];
/// The number of XFS.
const XFS: u32 = 0x5846_5342;

/// Returns whether the file's file system may write changed bytes to a new place, so that a page
/// that was written once needs space again when it changes.
///
/// An overlay hides what is below it.
pub(super) fn copies_on_write(file: &File) -> bool {
    number(file).is_some_and(|number| COPYING.contains(&number))
}

/// Returns how much free space the file system requires before it creates a file, apart from what
/// the file takes.
///
/// XFS sets aside what a new name could take at worst: about 200 KiB.
pub(super) fn creation_size(file: &File) -> u64 {
    if number(file) == Some(XFS) { 256 << 10 } else { 0 }
}

/// Returns the number by which the kernel identifies the kind of the file's file system.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn number(file: &File) -> Option<u32> {
    use std::os::fd::AsRawFd;

    let mut about = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call writes only to
    // the structure, which is writable and as large as its type says.
    if unsafe { libc::fstatfs(file.as_raw_fd(), about.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call succeeded, so it has filled the structure.
    let about = unsafe { about.assume_init() };
    u32::try_from(about.f_type).ok()
}

/// Other systems have other numbers.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn number(_file: &File) -> Option<u32> {
    None
}

/// Returns the remaining capacity of the file system of a file or directory.
pub(super) fn left(file: &File) -> io::Result<Left> {
    use std::os::fd::AsRawFd;

    let mut space = std::mem::MaybeUninit::uninit();
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call writes only to
    // the structure, which is writable and as large as its type says.
    if unsafe { fstatvfs(file.as_raw_fd(), space.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has filled the structure.
    let space = unsafe { space.assume_init() };
    let bytes = wide(space.f_bavail).saturating_mul(wide(space.f_frsize));
    let has_limit = wide(space.f_files) > 0;
    Ok(Left { bytes, files: has_limit.then_some(wide(space.f_favail)) })
}

/// Widens a figure, whose type differs between systems.
fn wide(figure: impl Into<u64>) -> u64 {
    figure.into()
}

/// Returns whether a process with this id certainly no longer exists, as far as this process can
/// see. A process that has ended but not been waited for by its parent counts as ended.
pub(crate) fn has_ended(pid: u32) -> bool {
    let Some(id) = libc::pid_t::try_from(pid).ok().filter(|id| *id > 0) else { return false };
    // SAFETY: signal 0 only checks that the process exists, and touches no memory of this one.
    if unsafe { libc::kill(id, 0) } != 0 {
        return io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
    }
    // The state follows the name, which may contain anything.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('Z' | 'X'))
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn allocation_extends_the_file_and_touches_nothing_before_its_end() {
        let file = tempfile::tempfile().unwrap();
        // A hole stays a hole unless it is touched.
        file.set_len(4 << 20).unwrap();
        allocate(&file, 4 << 20, 5 << 20).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 5 << 20);
        assert!(metadata.blocks() * 512 < 3 << 20, "{} blocks", metadata.blocks());
        // Existing bytes need no space.
        allocate(&file, 5 << 20, 1 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 5 << 20);
    }
}
