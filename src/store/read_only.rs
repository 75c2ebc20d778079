//! A store opened read-only: opening and closing it. How it catches up with the writer is in
//! `follower`.

use std::path::Path;
use std::sync::Arc;

use super::{Env, Inner, Reader};
use crate::error::{Error, Result};
use crate::fs;
use crate::options::Options;
use crate::process::Opener;
use crate::segment::Dir;

/// A store that was opened for reading alone.
///
/// It takes no lock, so it can be opened beside the one writer, in the same process or in another, and
/// it changes nothing on disk. It shows the store as it was when it was opened, until
/// [`refresh`](Self::refresh) brings it up to date. Everything that it can read is a method of
/// [`Reader`], which it dereferences to; writing to it does not compile:
///
/// ```compile_fail
/// # use bitcask::{Options, ReadOnly};
/// # fn write(db: &ReadOnly) -> bitcask::Result<()> {
/// db.put("key", "value")
/// # }
/// ```
///
/// All methods take `&self` and block; share it between threads in an [`Arc`]. A process that is forked
/// from the one that has opened it is refused, as [`Bitcask`](crate::Bitcask) says.
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
    /// The store has to exist. All keys are gathered before this returns, from the hints of all segments:
    /// 16 bytes of memory for every entry in the log. The directory is held open, and the path is not
    /// followed again, as by [`Bitcask::open`](crate::Bitcask::open).
    ///
    /// Of the options only [`verify_reads`](Options::verify_reads) has an effect. The others are checked
    /// and otherwise ignored, so that a reader may be given the writer's options.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](Error::InvalidOption) for an option that makes no sense,
    /// [`NotFound`](Error::NotFound) and [`NotADirectory`](Error::NotADirectory) for a path that holds no
    /// store, [`Unfinished`](Error::Unfinished) for what a crash has left of a backup or a salvage,
    /// [`Corrupt`](Error::Corrupt) and [`MissingSegment`](Error::MissingSegment) if data known to be
    /// durable is damaged, [`UnsupportedVersion`](Error::UnsupportedVersion) and its kin for a store of a
    /// newer release, and whatever the operating system reports.
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
        Ok(Self { reader: Reader { inner }, open: true })
    }

    /// Brings the store up to date with a writer, in this process or in another one, and returns whether
    /// there was anything new.
    ///
    /// Costs a look at the manifest and at the end of the log, and the reading of what was written
    /// since; after a merge or a clear as much as opening does. Gets of other threads go on meanwhile,
    /// and see each change as soon as it is read, and all of them when this returns; what was got
    /// before stays as it is. Followers of the [`changes`](Reader::changes) of this store go on then. If
    /// two threads refresh at once, one waits for the other.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`DirectoryReplaced`](Error::DirectoryReplaced) if the path leads to
    /// another directory by now, as after a switch of a symbolic link: what is there is another store,
    /// to be opened anew. The store goes on with what it knew before, or a part of what is new;
    /// a later call loads everything anew.
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

    /// Closes the store. Values and snapshots may be held on; see [`Bitcask::close`](crate::Bitcask::close).
    ///
    /// # Errors
    ///
    /// [`Forked`](Error::Forked) in a process that was forked from the one that has opened the store.
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
        Inner::outlive(&self.inner);
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
