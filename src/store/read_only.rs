//! A store opened read-only: opening and closing. `follower` has how it catches up with the writer.

use std::path::Path;
use std::sync::Arc;

use super::{Env, Inner, Reader};
use crate::epoch::move_to_other_side;
use crate::error::{Error, Result};
use crate::fs;
use crate::options::Options;
use crate::process::Opener;
use crate::segment::Dir;

/// A store that is open for reading only.
///
/// It takes no lock, so it can be opened alongside the one writer, in the same process or in
/// another. It changes nothing on disk. It shows the store as of its opening, until
/// [`refresh`](Self::refresh) brings it up to date. All of its read operations are methods of
/// [`Reader`], to which it dereferences. Writing to it does not compile:
///
/// ```compile_fail
/// # use bitcask::{Options, ReadOnly};
/// # fn write(db: &ReadOnly) -> bitcask::Result<()> {
/// db.put("key", "value")
/// # }
/// ```
///
/// All methods take `&self` and block. To share the store between threads, put it in an [`Arc`]. A
/// process forked from the one that opened it cannot use it, see [`Bitcask`](crate::Bitcask).
///
/// ```
/// use bitcask::{Bitcask, Options, ReadOnly};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Bitcask::open(dir.path(), Options::default())?;
/// db.put("key", "value")?;
///
/// let reader = ReadOnly::open(dir.path(), Options::default())?;
/// assert_eq!(reader.get("key")?.unwrap(), "value");
///
/// db.put("key", "other")?;
/// assert_eq!(reader.get("key")?.unwrap(), "value");
/// reader.refresh()?;
/// assert_eq!(reader.get("key")?.unwrap(), "other");
/// # reader.close()?;
/// # db.close()
/// # }
/// ```
pub struct ReadOnly {
    pub(super) reader: Reader,
    open: bool,
}

impl ReadOnly {
    /// Opens the store in a directory for reading.
    ///
    /// The store must exist. Opening loads all keys before it returns, from the hints of all
    /// segments, 16 bytes for each entry in the log. The store holds its directory open and does
    /// not resolve the path again, as with [`Bitcask::open`](crate::Bitcask::open).
    ///
    /// Of the options, only [`verify_reads`](Options::verify_reads) has an effect. The others are
    /// validated and otherwise ignored, so a reader can use the writer's options.
    ///
    /// # Errors
    ///
    /// - [`InvalidOption`](Error::InvalidOption) for an invalid option.
    /// - [`NotFound`](Error::NotFound) and [`NotADirectory`](Error::NotADirectory) if the path
    ///   holds no store.
    /// - [`Unfinished`](Error::Unfinished) if a crash has left an incomplete backup or salvage.
    /// - [`Corrupt`](Error::Corrupt) and [`MissingSegment`](Error::MissingSegment) if data known to
    ///   be durable is damaged.
    /// - [`UnsupportedVersion`](Error::UnsupportedVersion) and similar errors for a store written
    ///   by a newer release.
    /// - Any error of the operating system.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        Self::open_on(&Env::default(), path.as_ref(), options)
    }

    pub(crate) fn open_on(env: &Env, path: &Path, options: Options) -> Result<Self> {
        options.check()?;
        let opener = fs::io_context("watch for forks with", path, Opener::this())?;
        let dir = Dir::new(fs::absolute(path)?);
        match env.fs.is_dir(dir.path())? {
            Some(true) => {}
            Some(false) => return Err(Error::NotADirectory { path: dir.path().into() }),
            None => return Err(Error::NotFound { path: dir.path().into() }),
        }
        let inner = Arc::new(Inner::open_read_only(&env.within(&dir)?, dir, options, opener)?);
        // A read-only store has no thread that could do it.
        move_to_other_side();
        Ok(Self { reader: Reader { inner }, open: true })
    }

    /// Brings the store up to date with its writer, in this process or another. Returns whether
    /// there was anything new.
    ///
    /// Reads the manifest and what was appended since the last time. After a merge or a clear, it
    /// costs as much as opening. Other threads can read meanwhile. They see each change as soon as
    /// it is read, and all of them once `refresh` returns. Values and snapshots obtained before
    /// stay as they are. Followers of this store's [`changes`](Reader::changes) continue when
    /// `refresh` has returned. If two threads refresh at once, one waits for the other.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open). [`DirectoryReplaced`](Error::DirectoryReplaced) if the path leads
    /// to another directory by now, for example because a symbolic link was changed: that directory
    /// holds another store, which the caller has to open. After an error, the store continues with
    /// what it knew before, or with part of what is new. A later call reloads everything.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options, ReadOnly};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let writer = Bitcask::open(dir.path(), Options::default())?;
    /// let reader = ReadOnly::open(dir.path(), Options::default())?;
    /// writer.put("key", "value")?;
    /// assert_eq!(reader.get("key")?, None);
    /// assert!(reader.refresh()?);
    /// assert_eq!(reader.get("key")?.unwrap(), "value");
    /// assert!(!reader.refresh()?);
    /// # writer.close()
    /// # }
    /// ```
    pub fn refresh(&self) -> Result<bool> {
        self.inner.here()?;
        let state = self.inner.hold_refresh();
        state.map_or(Ok(false), |mut state| self.inner.refresh(&mut state))
    }

    /// Closes the store. Values and snapshots stay valid; see
    /// [`Bitcask::close`](crate::Bitcask::close).
    ///
    /// # Errors
    ///
    /// [`Forked`](Error::Forked) in a process forked from the one that opened the store.
    pub fn close(mut self) -> Result<()> {
        self.shut()
    }

    fn shut(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.open, false) {
            return Ok(());
        }
        if !Inner::is_kept_here(&self.inner) {
            return Err(self.inner.opener.refusal());
        }
        Inner::prepare_to_outlive(&self.inner);
        self.inner.segments.free_retired();
        Ok(())
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        // `close` returns the error.
        let _ = self.shut();
    }
}
