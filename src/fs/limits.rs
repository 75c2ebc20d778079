//! What the system says about this process: limits on mappings and open files, and page faults.

#![expect(unsafe_code, reason = "a foreign call without a safe equivalent in std")]

use std::path::Path;
use std::sync::OnceLock;

/// Number of mappings that Linux allows a process by default.
const MAPPINGS_USUAL: usize = 65_530;

/// Number of open files assumed if the system does not report a limit or sets none.
const FILES_USUAL: usize = 1024;

/// Returns how many mappings the kernel allows a process. The value is read once.
pub(crate) fn mappings_limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let limit_text = std::fs::read_to_string(Path::new("/proc/sys/vm/max_map_count"));
        limit_text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(MAPPINGS_USUAL)
    })
}

/// Returns how many files this process may have open now. A program may change that.
pub(crate) fn files_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a whole `rlimit` that outlives the call, which writes to nothing else.
    let asked = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    let is_known = asked == 0 && limit.rlim_cur != libc::RLIM_INFINITY;
    if is_known { usize::try_from(limit.rlim_cur).unwrap_or(FILES_USUAL) } else { FILES_USUAL }
}

/// Returns how many page faults of the calling thread had to read from the disk so far, or `None`
/// if the system does not tell. A system call.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn disk_faults() -> Option<i64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is a whole `rusage` that outlives the call, which writes to nothing else.
    let told = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) } == 0;
    // SAFETY: zeros are a valid `rusage`, which consists of integers, whether or not the call has
    // written to it.
    let usage = unsafe { usage.assume_init() };
    told.then_some(usage.ru_majflt)
}

/// Returns `None`: other systems tell this only about whole processes.
#[cfg(not(all(target_os = "linux", not(miri))))]
pub(crate) fn disk_faults() -> Option<i64> {
    None
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn the_system_reports_its_limits() {
        assert!(mappings_limit() >= 1024, "{}", mappings_limit());
        assert!(files_limit() >= 16, "{}", files_limit());
    }

    #[test]
    fn the_system_counts_the_faults_of_a_thread() {
        let before = disk_faults().unwrap();
        assert!(before >= 0 && disk_faults().unwrap() >= before);
    }
}
