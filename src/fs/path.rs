//! Paths: diagnosing them, resolving them, and creating the directories on the way.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::at::Name;
use super::{Fs, io_context};
use crate::error::Result;

/// Returns the directory that contains a path.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a path absolute, so that a later change of the working directory does not affect it.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    let result = if path.as_os_str().is_empty() {
        let why = "the path is empty; name a directory";
        Err(io::Error::new(ErrorKind::InvalidInput, why))
    } else {
        std::path::absolute(path)
    };
    io_context("resolve", path, result)
}

/// Explains why a path can't be followed, if there is more to say than that nothing exists there.
pub(super) fn in_words(path: &Path, error: io::Error) -> io::Error {
    let broken = |path: &&Path| {
        std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
            && std::fs::metadata(path).is_err()
    };
    let file = |path: &&Path| std::fs::metadata(path).is_ok_and(|found| !found.is_dir());
    let why = match error.kind() {
        ErrorKind::NotFound => path.ancestors().find(broken).map(|link| {
            let target = std::fs::read_link(link).unwrap_or_default();
            let (link, target) = (link.display(), target.display());
            format!("{link} is a symbolic link to {target}, which does not exist")
        }),
        ErrorKind::NotADirectory => path.ancestors().find(file).map(|file| {
            format!("{} is not a directory, so it can't contain anything", file.display())
        }),
        _ => None,
    };
    let kind = error.kind();
    why.map_or(error, |why| io::Error::new(kind, why))
}

impl Fs {
    /// Creates a directory and its missing ancestors. Returns the created directories, the
    /// outermost first. A failure removes them again. On success, all names except the last are
    /// durable.
    pub(crate) fn create_dirs(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let mut missing = Vec::new();
        for dir in path.ancestors() {
            if self.is_dir(dir)?.is_some() {
                break;
            }
            missing.push(dir);
        }
        let mut made = Vec::new();
        for dir in missing.into_iter().rev() {
            let create = self.create_dir(dir).and_then(|is_new| {
                if is_new {
                    made.push(dir.to_path_buf());
                }
                if dir == path { Ok(()) } else { self.sync_dir(parent(dir)) }
            });
            create.inspect_err(|_| self.remove_dirs(&made))?;
        }
        Ok(made)
    }

    /// Removes created directories that are still empty.
    pub(crate) fn remove_dirs(&self, made: &[PathBuf]) {
        for dir in made.iter().rev() {
            let _ = self.remove_dir(dir);
        }
    }

    /// Returns whether `dir` is the directory at `outer`, which may be held open, or lies within
    /// it, through whatever links.
    pub(crate) fn encloses(&self, outer: &Path, dir: &Path) -> Result<bool> {
        let within = || -> io::Result<bool> {
            let outer = self.name(outer)?.stat()?.id;
            let is_outer = |dir: &Path| Ok(Name::new(None, dir)?.stat()?.id == outer);
            let real_path = std::fs::canonicalize(dir)?;
            let found: io::Result<Vec<bool>> = real_path.ancestors().map(is_outer).collect();
            Ok(found?.contains(&true))
        };
        let result = match self {
            Self::Disk(_) | Self::Within(_) => within(),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => {
                twin.is_dir(dir).and_then(|_| twin.is_dir(outer)).map(|_| dir.starts_with(outer))
            }
        };
        io_context("resolve", dir, result)
    }
}
