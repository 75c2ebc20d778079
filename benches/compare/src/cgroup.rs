//! A limit on the memory of a process, page cache included: a group of the `memory` controller of
//! cgroup version 1.

use std::path::{Path, PathBuf};
use std::process::exit;
use std::time::Duration;
use std::{fs, io};

const CONTROLLER: &str = "/sys/fs/cgroup/memory";
/// How often the removal of a group is tried. The kernel needs a moment after its last process.
const REMOVALS: u32 = 50;

/// A group that is removed when dropped.
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Creates a group. Ends the process with an explanation if that is not permitted.
    pub(crate) fn new(memory: u64) -> Self {
        let name = format!("bitcask-compare-{}", std::process::id());
        let group = Self { path: Path::new(CONTROLLER).join(name) };
        if let Err(error) = group.create(memory) {
            eprintln!(
                "cannot limit memory by {}: {error}\n\
                 This mode needs the `memory` controller of cgroup version 1 at {CONTROLLER}, and \
                 the right to create groups there. Run it as root; in a container, with \
                 --privileged and the controller mounted; on a host with cgroup version 2 alone, \
                 boot with systemd.unified_cgroup_hierarchy=0.",
                group.path.display()
            );
            exit(2);
        }
        group
    }

    fn create(&self, memory: u64) -> io::Result<()> {
        if !Path::new(CONTROLLER).join("memory.limit_in_bytes").exists() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "there is no such controller"));
        }
        fs::create_dir(&self.path)?;
        fs::write(self.path.join("memory.limit_in_bytes"), memory.to_string())
    }

    /// Returns whether the kernel has ended a process because it needed more memory.
    pub(crate) fn has_killed(&self) -> bool {
        let events = fs::read_to_string(self.path.join("memory.oom_control")).unwrap_or_default();
        events.lines().any(|line| line.starts_with("oom_kill ") && line != "oom_kill 0")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Moves this process to a group.
pub(crate) fn join(path: &Path) {
    fs::write(path.join("cgroup.procs"), std::process::id().to_string()).unwrap();
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..REMOVALS {
            // Drops the page cache that the group still owns; what is left moves to its parent.
            let _ = fs::write(self.path.join("memory.force_empty"), "0");
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        eprintln!("{} could not be removed", self.path.display());
    }
}
