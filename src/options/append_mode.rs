//! How entries are appended to the log.

/// How entries are appended to the log. Both modes write the same bytes and make the same promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppendMode {
    /// Copies entries into a shared mapping of the active segment, without a system call.
    ///
    /// Space is allocated and touched before an entry is copied, so a full disk causes an error
    /// rather than a signal. If the file system fails anyway, for example because the disk was
    /// pulled out, the process ends with SIGBUS. Falls back to `Positioned` on kernels older than
    /// 5.14, where mapping fails, and on copy-on-write file systems: btrfs, bcachefs, NILFS2 and
    /// ZFS.
    Mapped,
    /// Writes entries with `pwrite`. Several times slower. Recommended on network file systems, and
    /// on an overlay above a copy-on-write file system, where allocated space is not guaranteed.
    Positioned,
}

impl Default for AppendMode {
    fn default() -> Self {
        if cfg!(target_os = "linux") { Self::Mapped } else { Self::Positioned }
    }
}
