//! The names of a store's files.

use std::path::{Path, PathBuf};

use super::{Place, SegmentId};

/// The directory of a store, and the names of the files in it.
#[derive(Debug, Clone)]
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn log(&self, id: SegmentId) -> PathBuf {
        self.0.join(format!("{id}.log"))
    }

    pub(crate) fn hint(&self, id: SegmentId) -> PathBuf {
        self.0.join(format!("{id}.hint"))
    }

    pub(crate) fn index(&self, id: SegmentId) -> PathBuf {
        self.0.join(format!("{id}.index"))
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join("LOCK")
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.0.join("MANIFEST")
    }

    /// The file that the next manifest is written to.
    pub(crate) fn spare(&self) -> PathBuf {
        self.0.join("MANIFEST.spare")
    }

    /// The temporary name of a file that is not complete yet.
    pub(crate) fn temporary(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".tmp");
        PathBuf::from(name)
    }

    /// The directory for bytes that recovery could not read.
    pub(crate) fn quarantine(&self) -> PathBuf {
        self.0.join("quarantine")
    }

    /// The quarantine file for the bytes after a place. A place is never reused, so no two cuts
    /// share a name.
    pub(crate) fn quarantined(&self, place: Place) -> PathBuf {
        self.quarantine().join(format!("{}-{}.bytes", place.segment, place.offset))
    }
}

/// The kind of a file in the store's directory, judged by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Log(SegmentId),
    Hint(SegmentId),
    Index(SegmentId),
    /// A file of the store that was incomplete when its writer stopped.
    Temporary,
    /// The manifest, its spare, the lock, or a file that does not belong to the store.
    Other,
}

impl FileKind {
    pub(crate) fn of(name: &str) -> Self {
        if let Some(complete) = name.strip_suffix(".tmp") {
            let ours = complete == "MANIFEST" || !matches!(Self::of(complete), Self::Other);
            return if ours { Self::Temporary } else { Self::Other };
        }
        let Some((digits, extension)) = name.split_once('.') else { return Self::Other };
        if digits.len() != 10 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Self::Other;
        }
        match (digits.parse().map(SegmentId), extension) {
            (Ok(id), "log") => Self::Log(id),
            (Ok(id), "hint") => Self::Hint(id),
            (Ok(id), "index") => Self::Index(id),
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_names_and_foreign_ones_are_not() {
        let id = SegmentId(42);
        let dir = Dir::new("/store".into());
        let kind = |path: PathBuf| FileKind::of(path.file_name().unwrap().to_str().unwrap());
        assert_eq!(dir.log(id), Path::new("/store/0000000042.log"));
        assert_eq!(kind(dir.log(id)), FileKind::Log(id));
        assert_eq!(kind(dir.hint(id)), FileKind::Hint(id));
        assert_eq!(kind(dir.index(id)), FileKind::Index(id));
        assert_eq!(kind(Dir::temporary(&dir.log(id))), FileKind::Temporary);
        assert_eq!(kind(Dir::temporary(&dir.hint(id))), FileKind::Temporary);
        assert_eq!(kind(Dir::temporary(&dir.index(id))), FileKind::Temporary);
        assert_eq!(kind(Dir::temporary(&dir.manifest())), FileKind::Temporary);
        for name in ["MANIFEST", "LOCK", "quarantine", "42.log", "0000000042.log.bak", "a.tmp"] {
            assert_eq!(FileKind::of(name), FileKind::Other, "{name}");
        }
        for name in ["+000000042.log", "9999999999.log", "0000000042.log.tmp.tmp2", ".log", ""] {
            assert_eq!(FileKind::of(name), FileKind::Other, "{name}");
        }
    }
}
