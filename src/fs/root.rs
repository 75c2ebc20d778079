//! A directory that is held open, and who may change it.
//!
//! - What lies below its path is looked up in the directory itself. So if the path leads elsewhere by
//!   then (a mount over it, a switched link, a new directory of the same name), nothing there is met.
//! - Whoever has locked a file in it can tell before each change whether the directory is still its own:
//!   the name still leads to the locked file, and the path leads to this directory or nowhere.

#![expect(clippy::disallowed_methods, reason = "this is the door that they are disallowed for")]

use std::fs::File as StdFile;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::Modes;
use super::at::{FileId, Name, Stat, stat};
use super::file::File;

/// The directory.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    dir: StdFile,
    id: FileId,
    /// Of what is created in it.
    modes: Modes,
    held: OnceLock<LockedFile>,
}

/// The file in it that is locked.
#[derive(Debug)]
struct LockedFile {
    file: File,
    id: FileId,
    /// Whether it was said to have a name when it was locked. Some file systems never say so.
    has_names: bool,
}

impl LockedFile {
    fn has_lost_its_name(&self) -> bool {
        let has_none = |stat: Option<Stat>| stat.is_some_and(|stat| !stat.has_names);
        self.has_names && self.file.stat().is_ok_and(has_none)
    }
}

impl Root {
    pub(super) fn open(path: &Path, modes: Modes) -> io::Result<Self> {
        let dir = Name::new(None, path)?.open(libc::O_RDONLY | libc::O_DIRECTORY)?;
        let id = stat(&dir)?.id;
        Ok(Self { path: path.to_path_buf(), dir, id, modes, held: OnceLock::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn modes(&self) -> Modes {
        self.modes
    }

    pub(super) fn dir(&self) -> &StdFile {
        &self.dir
    }

    /// Returns what a path is called in the directory; a path that lies elsewhere as it is.
    pub(super) fn name<'a>(&'a self, path: &Path) -> io::Result<Name<'a>> {
        match path.strip_prefix(&self.path) {
            Ok(own) if own.as_os_str().is_empty() => Name::new(Some(&self.dir), Path::new(".")),
            Ok(below) => Name::new(Some(&self.dir), below),
            Err(_) => Name::new(None, path),
        }
    }

    /// The same directory, without a file in it that is locked.
    pub(super) fn unheld(&self) -> io::Result<Self> {
        let (path, dir) = (self.path.clone(), self.dir.try_clone()?);
        Ok(Self { path, dir, id: self.id, modes: self.modes, held: OnceLock::new() })
    }

    /// Notes the file that was locked, for [`replaced`](Self::replaced). The first one counts.
    pub(super) fn hold(&self, file: &File) -> io::Result<()> {
        if let Some(stat) = file.stat()? {
            let held = LockedFile { file: file.clone(), id: stat.id, has_names: stat.has_names };
            let _ = self.held.set(held);
        }
        Ok(())
    }

    /// Returns why the directory is not the one any more that its path stands for, or not its holder's,
    /// if it is not. What can't be found out, for want of permission, counts as unchanged.
    pub(super) fn replaced(&self) -> Option<String> {
        self.moved().or_else(|| self.held.get().and_then(|held| self.usurped(held)))
    }

    /// Returns where the path leads, if that is not here. It may lead nowhere: the directory was
    /// renamed, or the process sees another part of the file system by now.
    fn moved(&self) -> Option<String> {
        let found = Name::new(None, &self.path).and_then(|name| name.stat()).ok()?;
        if found.id == self.id {
            return None;
        }
        let there = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let there = there.display();
        Some(format!(
            "it leads to {there} ({}) now, and the store is in {}",
            found.id,
            self.place()
        ))
    }

    fn usurped(&self, held: &LockedFile) -> Option<String> {
        let name = held.file.path().file_name().unwrap_or_default().display();
        let found = self.name(held.file.path()).and_then(|name| name.stat());
        match found {
            Ok(found) if found.id == held.id => None,
            Ok(found) => Some(format!(
                "its {name} ({}) is another one than this store has locked ({})",
                found.id, held.id
            )),
            Err(error) if error.kind() == ErrorKind::NotFound || held.has_lost_its_name() => {
                Some(format!("its {name}, which this store has locked ({}), is gone", held.id))
            }
            Err(_) => None,
        }
    }

    /// Names the directory as it is called now, if the system tells.
    fn place(&self) -> String {
        use std::os::fd::AsRawFd;

        let found = std::fs::read_link(format!("/proc/self/fd/{}", self.dir.as_raw_fd()));
        let path =
            found.map_or_else(|_| "another directory".into(), |path| path.display().to_string());
        format!("{path} ({})", self.id)
    }
}
