//! Names in a directory that is held open: operations that std offers only for paths.
//!
//! A [`Name`] is a directory and a name that ends in a zero byte. Without a directory it is a path,
//! as in std. Descriptors opened here are closed when the process executes another program.

#![expect(unsafe_code, reason = "foreign calls without a safe equivalent in std")]

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::ptr::NonNull;

use libc::c_int;
#[cfg(not(target_os = "linux"))]
use libc::{fstat, fstatat, openat, readdir, stat as RawStat};
#[cfg(target_os = "linux")]
use libc::{
    fstat64 as fstat, fstatat64 as fstatat, openat64 as openat, readdir64 as readdir,
    stat64 as RawStat,
};

/// The identity of a file or a directory, independent of its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: libc::dev_t,
    #[cfg(target_os = "linux")]
    inode: libc::ino64_t,
    #[cfg(not(target_os = "linux"))]
    inode: libc::ino_t,
}

impl std::fmt::Display for FileId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "device {}, inode {}", self.device, self.inode)
    }
}

/// The attributes of a file or a directory.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is queried separately")]
pub(super) struct Stat {
    pub(super) id: FileId,
    pub(super) is_dir: bool,
    pub(super) is_link: bool,
    /// Whether it has a name.
    pub(super) has_names: bool,
    /// Whether it is a regular file with exactly one name.
    pub(super) is_sole_file: bool,
}

impl From<RawStat> for Stat {
    fn from(raw: RawStat) -> Self {
        let kind = raw.st_mode & libc::S_IFMT;
        Self {
            id: FileId { device: raw.st_dev, inode: raw.st_ino },
            is_dir: kind == libc::S_IFDIR,
            is_link: kind == libc::S_IFLNK,
            has_names: raw.st_nlink > 0,
            is_sole_file: kind == libc::S_IFREG && raw.st_nlink == 1,
        }
    }
}

fn syscall_result(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns the attributes of an open file or directory.
pub(super) fn stat(file: &File) -> io::Result<Stat> {
    let mut raw = MaybeUninit::<RawStat>::uninit();
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call writes only to
    // the structure, which is writable and as large as its type says.
    syscall_result(unsafe { fstat(file.as_raw_fd(), raw.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so it has filled the structure.
    Ok(unsafe { raw.assume_init() }.into())
}

/// A name in an open directory, or a path.
#[derive(Debug)]
pub(super) struct Name<'a> {
    dir: Option<&'a File>,
    name: CString,
}

impl<'a> Name<'a> {
    pub(super) fn new(dir: Option<&'a File>, name: &Path) -> io::Result<Self> {
        let name = CString::new(name.as_os_str().as_bytes())?;
        Ok(Self { dir, name })
    }

    /// Returns the directory's descriptor, which stays open while `self` borrows the directory.
    fn dir(&self) -> c_int {
        self.dir.map_or(libc::AT_FDCWD, AsRawFd::as_raw_fd)
    }

    /// Opens the file.
    pub(super) fn open(&self, flags: c_int) -> io::Result<File> {
        self.create(flags, 0)
    }

    /// Opens the named file, or creates it with these permissions, reduced by the umask.
    pub(super) fn create(&self, flags: c_int, mode: libc::c_uint) -> io::Result<File> {
        loop {
            // SAFETY: the directory is open, or stands for the working directory, and the name ends
            // in a zero byte. Both outlive the call, which writes no memory of this process.
            let file =
                unsafe { openat(self.dir(), self.name.as_ptr(), flags | libc::O_CLOEXEC, mode) };
            if file >= 0 {
                // SAFETY: the descriptor is new, and nothing else owns it.
                return Ok(unsafe { File::from_raw_fd(file) });
            }
            let error = io::Error::last_os_error();
            if error.kind() != ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Returns the attributes of the named file, following a symbolic link.
    pub(super) fn stat(&self) -> io::Result<Stat> {
        self.stat_with(0)
    }

    /// Returns the attributes of the named file, or of the symbolic link itself.
    pub(super) fn stat_link(&self) -> io::Result<Stat> {
        self.stat_with(libc::AT_SYMLINK_NOFOLLOW)
    }

    fn stat_with(&self, flags: c_int) -> io::Result<Stat> {
        let mut raw = MaybeUninit::<RawStat>::uninit();
        // SAFETY: as in `create` for the directory and the name; and the call writes only to the
        // structure, which is writable and as large as its type says.
        syscall_result(unsafe {
            fstatat(self.dir(), self.name.as_ptr(), raw.as_mut_ptr(), flags)
        })?;
        // SAFETY: the call succeeded, so it has filled the structure.
        Ok(unsafe { raw.assume_init() }.into())
    }

    pub(super) fn create_dir(&self, mode: libc::mode_t) -> io::Result<()> {
        // SAFETY: as in `create`.
        syscall_result(unsafe { libc::mkdirat(self.dir(), self.name.as_ptr(), mode) })
    }

    /// Removes the name of a file.
    pub(super) fn remove(&self) -> io::Result<()> {
        // SAFETY: as in `create`.
        syscall_result(unsafe { libc::unlinkat(self.dir(), self.name.as_ptr(), 0) })
    }

    pub(super) fn remove_dir(&self) -> io::Result<()> {
        // SAFETY: as in `create`.
        syscall_result(unsafe {
            libc::unlinkat(self.dir(), self.name.as_ptr(), libc::AT_REMOVEDIR)
        })
    }

    /// Gives a file a second name, which must not exist.
    pub(super) fn link(&self, to: &Name<'_>) -> io::Result<()> {
        // SAFETY: as in `create`, for both.
        syscall_result(unsafe {
            libc::linkat(self.dir(), self.name.as_ptr(), to.dir(), to.name.as_ptr(), 0)
        })
    }

    /// Renames a file, replacing whatever has the new name.
    pub(super) fn rename(&self, to: &Name<'_>) -> io::Result<()> {
        // SAFETY: as in `create`, for both.
        syscall_result(unsafe {
            libc::renameat(self.dir(), self.name.as_ptr(), to.dir(), to.name.as_ptr())
        })
    }

    /// Renames a file. If the new name exists, the error is `AlreadyExists`.
    ///
    /// If the system can't do that in one step, the file briefly has both names. If links are not
    /// supported either, another process may create the new name between check and rename.
    pub(super) fn rename_new(&self, to: &Name<'_>) -> io::Result<()> {
        match self.rename_with(to, RenameFlags::NoReplace) {
            Err(error) if is_unsupported(&error) => self.rename_by_link(to),
            result => result,
        }
    }

    fn rename_by_link(&self, to: &Name<'_>) -> io::Result<()> {
        match self.link(to) {
            // The new name is in place. If the old one stays, it is a leftover temporary file.
            Ok(()) => self.remove().or(Ok(())),
            Err(error) if is_unsupported(&error) => match to.stat_link() {
                Ok(_) => Err(ErrorKind::AlreadyExists.into()),
                Err(error) if error.kind() == ErrorKind::NotFound => self.rename(to),
                Err(error) => Err(error),
            },
            result => result,
        }
    }

    /// Exchanges two names in one step. Returns `false` if that is not supported or one is missing.
    pub(super) fn exchange(&self, other: &Name<'_>) -> io::Result<bool> {
        match self.rename_with(other, RenameFlags::Exchange) {
            Err(error) if is_unsupported(&error) || error.kind() == ErrorKind::NotFound => {
                Ok(false)
            }
            result => result.map(|()| true),
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn rename_with(&self, to: &Name<'_>, flags: RenameFlags) -> io::Result<()> {
        let (from_name, to_name) = (self.name.as_ptr(), to.name.as_ptr());
        let flags = match flags {
            RenameFlags::NoReplace => libc::RENAME_NOREPLACE,
            RenameFlags::Exchange => libc::RENAME_EXCHANGE,
        };
        // Not every C library has a function for it.
        // SAFETY: as in `create`, for both; these are the five arguments that the call takes.
        let result = unsafe {
            libc::syscall(libc::SYS_renameat2, self.dir(), from_name, to.dir(), to_name, flags)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn rename_with(&self, _to: &Name<'_>, _flags: RenameFlags) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
}

/// How a rename treats an existing target.
#[derive(Debug, Clone, Copy)]
enum RenameFlags {
    NoReplace,
    Exchange,
}

/// Returns whether a call is not supported here. Some systems report that as a missing permission.
fn is_unsupported(error: &io::Error) -> bool {
    let unsupported = [libc::EINVAL, libc::ENOSYS, libc::ENOTSUP, libc::EOPNOTSUPP, libc::EPERM];
    error.kind() == ErrorKind::Unsupported
        || error.raw_os_error().is_some_and(|code| unsupported.contains(&code))
}

/// A directory stream.
struct Listing(NonNull<libc::DIR>);

impl Drop for Listing {
    fn drop(&mut self) {
        // SAFETY: the stream is open, and this is the last use of it.
        unsafe { libc::closedir(self.0.as_ptr()) };
    }
}

/// Lists an open directory: names, and whether each is a directory, if that is known.
pub(super) fn list(dir: File) -> io::Result<Vec<(OsString, Option<bool>)>> {
    let descriptor = dir.into_raw_fd();
    // SAFETY: the descriptor is open and owned here. If the call succeeds, the stream owns it.
    let stream = unsafe { libc::fdopendir(descriptor) };
    let Some(stream) = NonNull::new(stream) else {
        let error = io::Error::last_os_error();
        // SAFETY: the call failed, so the descriptor is still open and owned here.
        drop(unsafe { File::from_raw_fd(descriptor) });
        return Err(error);
    };
    let listing = Listing(stream);
    let mut names = Vec::new();
    while let Some((name, kind)) = listing.next()? {
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            let is_dir = (kind != libc::DT_UNKNOWN).then_some(kind == libc::DT_DIR);
            names.push((name, is_dir));
        }
    }
    Ok(names)
}

impl Listing {
    /// Returns the next name and its type, or `None` at the end.
    fn next(&self) -> io::Result<Option<(OsString, u8)>> {
        clear_errno();
        // SAFETY: the stream is open, and only this thread uses it.
        let entry = unsafe { readdir(self.0.as_ptr()) };
        let Some(entry) = NonNull::new(entry) else {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(0) { Ok(None) } else { Err(error) };
        };
        // SAFETY: the returned entry is valid until the next call, and its name ends in a zero
        // byte. The pointers are to the two fields alone: an entry may be shorter than its type.
        let (name, kind) = unsafe {
            let entry = entry.as_ptr();
            (
                CStr::from_ptr((&raw const (*entry).d_name).cast()),
                (&raw const (*entry).d_type).read(),
            )
        };
        Ok(Some((OsString::from_vec(name.to_bytes().to_vec()), kind)))
    }
}

/// Clears this thread's last error, for calls that report a failure only through it.
fn clear_errno() {
    #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
    use libc::__errno as errno;
    #[cfg(any(target_os = "linux", target_os = "emscripten"))]
    use libc::__errno_location as errno;
    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    use libc::__error as errno;
    // SAFETY: the pointer is to this thread's own variable, which lives as long as the thread.
    unsafe { *errno() = 0 };
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::fs;

    use super::*;

    /// Returns an open directory whose name now belongs to another directory.
    fn replaced() -> (tempfile::TempDir, File) {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("dir");
        fs::create_dir(&path).unwrap();
        let dir = File::open(&path).unwrap();
        fs::rename(&path, parent.path().join("own")).unwrap();
        fs::create_dir(&path).unwrap();
        (parent, dir)
    }

    fn names(dir: &File) -> Vec<String> {
        let listed =
            list(Name::new(Some(dir), Path::new(".")).unwrap().open(libc::O_RDONLY).unwrap());
        let mut names: Vec<_> =
            listed.unwrap().into_iter().map(|(name, _)| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn names_are_looked_up_in_the_open_directory() {
        let (parent, dir) = replaced();
        let name = |name: &str| Name::new(Some(&dir), Path::new(name)).unwrap();
        let new = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        drop(name("a").open(new).unwrap());
        assert_eq!(name("a").open(new).unwrap_err().kind(), ErrorKind::AlreadyExists);
        name("sub").create_dir(0o777).unwrap();
        drop(name("sub/b").open(new).unwrap());
        name("sub/b").rename(&name("c")).unwrap();
        name("c").link(&name("d")).unwrap();
        assert!(name("sub").stat().unwrap().is_dir && !name("c").stat().unwrap().is_dir);
        assert_eq!(name("c").stat().unwrap().id, name("d").stat().unwrap().id);
        assert_eq!(names(&dir), ["a", "c", "d", "sub"]);
        name("sub").remove_dir().unwrap();
        for gone in ["a", "c"] {
            name(gone).remove().unwrap();
        }
        assert_eq!(names(&dir), ["d"]);
        let seen = |path: &str| fs::read_dir(parent.path().join(path)).unwrap().count();
        assert_eq!((seen("own"), seen("dir")), (1, 0));
        // A path without a directory works as usual.
        let path = parent.path().join("dir/e");
        drop(Name::new(None, &path).unwrap().open(new).unwrap());
        assert_eq!((seen("own"), seen("dir")), (1, 1));
        assert!(Name::new(None, Path::new("a\0b")).is_err());
    }

    #[test]
    fn neither_way_of_taking_a_new_name_replaces_anything() {
        let ways: [fn(&Name<'_>, &Name<'_>) -> io::Result<()>; 2] =
            [|from, to| from.rename_new(to), |from, to| from.rename_by_link(to)];
        for way in ways {
            let parent = tempfile::tempdir().unwrap();
            let dir = File::open(parent.path()).unwrap();
            let name = |name: &str| Name::new(Some(&dir), Path::new(name)).unwrap();
            for file in ["from", "taken"] {
                fs::write(parent.path().join(file), file).unwrap();
            }
            std::os::unix::fs::symlink("nowhere", parent.path().join("link")).unwrap();
            for taken in ["taken", "link"] {
                let error = way(&name("from"), &name(taken)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::AlreadyExists);
            }
            assert_eq!(fs::read(parent.path().join("taken")).unwrap(), b"taken");
            way(&name("from"), &name("to")).unwrap();
            assert_eq!(names(&dir), ["link", "taken", "to"]);
            assert_eq!(fs::read(parent.path().join("to")).unwrap(), b"from");
        }
    }

    #[test]
    fn a_file_without_a_name_is_recognized() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        let file = File::create(&path).unwrap();
        assert!(stat(&file).unwrap().has_names);
        fs::remove_file(&path).unwrap();
        assert!(!stat(&file).unwrap().has_names);
    }
}
