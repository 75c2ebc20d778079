//! A directory that is held open, and the check that it still belongs to its holder.
//!
//! - Names below its path are looked up in the open directory itself. If the path leads elsewhere
//!   by then (a mount over it, a switched link, a new directory of the same name), nothing there is
//!   touched.
//! - A holder that has locked a file in the directory can check before each change whether the
//!   directory is still its own: the name still leads to the locked file, and the path leads to
//!   this directory or nowhere.

#![expect(clippy::disallowed_methods, reason = "only this module may call them")]

use std::fs::File as StdFile;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::Modes;
use super::at::{FileId, Name, Stat, stat};
use super::file::File;

/// The open directory.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    dir: StdFile,
    id: FileId,
    /// Permissions of new files and directories in it.
    modes: Modes,
    held: OnceLock<LockedFile>,
}

/// The locked file in the directory.
#[derive(Debug)]
struct LockedFile {
    file: File,
    id: FileId,
    /// Whether the file was reported to have a name when it was locked. Some file systems never
    /// report it.
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

    /// Returns a path's name within the directory. A path that lies elsewhere is returned
    /// unchanged.
    pub(super) fn name<'a>(&'a self, path: &Path) -> io::Result<Name<'a>> {
        match path.strip_prefix(&self.path) {
            Ok(own) if own.as_os_str().is_empty() => Name::new(Some(&self.dir), Path::new(".")),
            Ok(below) => Name::new(Some(&self.dir), below),
            Err(_) => Name::new(None, path),
        }
    }

    /// Returns the same directory without a locked file.
    pub(super) fn unheld(&self) -> io::Result<Self> {
        let (path, dir) = (self.path.clone(), self.dir.try_clone()?);
        Ok(Self { path, dir, id: self.id, modes: self.modes, held: OnceLock::new() })
    }

    /// Records the locked file for [`replaced`](Self::replaced). Only the first call has an effect.
    pub(super) fn hold(&self, file: &File) -> io::Result<()> {
        if let Some(stat) = file.stat()? {
            let held = LockedFile { file: file.clone(), id: stat.id, has_names: stat.has_names };
            let _ = self.held.set(held);
        }
        Ok(())
    }

    /// If the path no longer leads to this directory, or the directory no longer belongs to its
    /// holder, returns why. Anything that can't be checked for lack of permission counts as
    /// unchanged.
    pub(super) fn replaced(&self) -> Option<String> {
        self.moved().or_else(|| self.held.get().and_then(|held| self.usurped(held)))
    }

    /// Returns where the path leads, if not to this directory. It may lead nowhere: the directory
    /// was renamed, or the process now sees another part of the file system.
    fn moved(&self) -> Option<String> {
        let found = Name::new(None, &self.path).and_then(|name| name.stat()).ok()?;
        if found.id == self.id {
            return None;
        }
        let there = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let there = there.display();
        Some(format!(
            "the path now leads to {there} ({}), and the store is in {}",
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
                "its {name} ({}) is not the one that this store has locked ({})",
                found.id, held.id
            )),
            Err(error) if error.kind() == ErrorKind::NotFound || held.has_lost_its_name() => {
                Some(format!("its {name}, which this store has locked ({}), was removed", held.id))
            }
            Err(_) => None,
        }
    }

    /// Returns the directory's present name, if the system reports it.
    fn place(&self) -> String {
        use std::os::fd::AsRawFd;

        let found = std::fs::read_link(format!("/proc/self/fd/{}", self.dir.as_raw_fd()));
        let path =
            found.map_or_else(|_| "another directory".into(), |path| path.display().to_string());
        format!("{path} ({})", self.id)
    }
}
