//! Verifies and salvages stores that can't be opened or can't be trusted.
//!
//! [`verify`] reports what is wrong with a store and changes nothing. [`salvage`] copies everything
//! that is still intact into a new store. The store does not have to be one that can be opened.
//!
//! - The store is only read: nothing is locked, truncated, or written. It may be on a read-only
//!   disk.
//! - Only checksums are trusted; they also cover the place of the bytes. Nothing is read through a
//!   mapping.
//! - Damage never hides intact data after it.
//!
//! ```
//! # use std::ops::ControlFlow;
//! # use bitcask::{Bitcask, Options, repair};
//! # fn main() -> bitcask::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let (broken, rescued) = (dir.path().join("broken"), dir.path().join("rescued"));
//! # let db = Bitcask::open(&broken, Options::default())?;
//! # db.put("a", "1")?;
//! # db.put("b", "2")?;
//! # db.close()?;
//! # let segment = broken.join("0000000001.log");
//! # let mut bytes = std::fs::read(&segment).unwrap();
//! # bytes[70] ^= 1;
//! # std::fs::write(&segment, bytes).unwrap();
//! let diagnosis = repair::verify(&broken)?;
//! println!("{diagnosis}");
//! assert_eq!(diagnosis.damage[0].offset, 64);
//!
//! let report = repair::salvage(&broken, &rescued, |_| ControlFlow::Continue(()))?;
//! println!("{report}");
//! assert_eq!((report.keys, report.lost.len()), (1, 1));
//! let db = Bitcask::open(&rescued, Options::default())?;
//! assert_eq!(db.get("b")?.unwrap(), "2");
//! # db.close()
//! # }
//! ```

mod new_store;
mod plan;
mod replay;
mod report;
mod salvage;
mod survey;
pub(crate) mod verify;

use std::ops::ControlFlow;
use std::path::Path;

use crate::error::Result;
use crate::options::Options;
use crate::store::{Env, VerifyProgress};

pub use report::{Diagnosis, Lost, SalvageProgress, SalvageReport};

#[cfg(test)]
pub(crate) use salvage::salvage_on;
#[cfg(test)]
pub(crate) use verify::verify_on;

/// Reports what is wrong with a store, and what opening it would do.
///
/// Reads the whole log and changes nothing. It continues where opening gives up: after damage,
/// without a manifest, past missing segments. It compares each hint and each index with its
/// segment. The store may be in use: a write in progress is not reported as damage.
///
/// Needs memory for the findings, and for the hint of one segment (16 bytes for each entry) or
/// three times its index.
///
/// # Errors
///
/// [`NotFound`](crate::Error::NotFound) or [`NotADirectory`](crate::Error::NotADirectory) if the
/// path holds no store, [`UnsupportedVersion`](crate::Error::UnsupportedVersion) if a newer release
/// wrote the manifest, and whatever else prevents the verification, such as a shortage of file
/// descriptors. Problems of the store itself are not errors: they are part of the [`Diagnosis`].
///
/// ```
/// # use bitcask::{Bitcask, Options, repair};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// let db = Bitcask::open(path, Options::default())?;
/// db.put("key", "value")?;
/// db.close()?;
/// let diagnosis = repair::verify(path)?;
/// assert!(diagnosis.is_clean() && diagnosis.opening.is_ok());
/// assert_eq!((diagnosis.segments, diagnosis.entries), (1, 1));
/// # Ok(())
/// # }
/// ```
pub fn verify(path: impl AsRef<Path>) -> Result<Diagnosis> {
    verify_with(path, |_| ControlFlow::Continue(()))
}

/// Reports what is wrong with a store as [`verify`] does, and passes the progress to a closure.
///
/// The closure receives the progress after about every MiB and after each segment. It can end the
/// verification by returning [`ControlFlow::Break`]; [`Diagnosis::cancelled`] is then set. Before
/// the first report, the unsealed part of the log is read once to find out whether the store opens.
///
/// # Errors
///
/// As [`verify`].
///
/// ```
/// # use std::ops::ControlFlow;
/// # use bitcask::{Bitcask, Options, repair};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// # let db = Bitcask::open(path, Options::default())?;
/// # db.put("key", "value")?;
/// # db.close()?;
/// let diagnosis = repair::verify_with(path, |progress| {
///     println!("{} of {} bytes", progress.size_done, progress.size_total);
///     ControlFlow::Continue(())
/// })?;
/// assert!(diagnosis.is_clean());
/// let diagnosis = repair::verify_with(path, |_| ControlFlow::Break(()))?;
/// assert!(diagnosis.cancelled && !diagnosis.is_clean());
/// # Ok(())
/// # }
/// ```
pub fn verify_with(
    path: impl AsRef<Path>,
    mut progress: impl FnMut(&VerifyProgress) -> ControlFlow<()>,
) -> Result<Diagnosis> {
    verify::verify_with_on(&Env::default(), path.as_ref(), &mut progress)
}

/// Copies everything that is still intact in a store into a new store, and lists what could not be
/// read.
///
/// For each key, the newest intact entry counts. That is the one with the highest timestamp:
/// timestamps rise through the log whatever the clock does, and merges keep them. If the entry is a
/// put, it is copied with its expiry, whether it has expired or not. If it is a delete, the key is
/// left out. The new store holds one entry for each key and nothing else. It is durable when this
/// function returns, and has a new identity. `from` is not changed.
///
/// Needs memory for a keydir, as an open store does, and for the largest entry. Reads the store
/// three to four times.
///
/// What to know about the result:
///
/// - *Damaged entries can't be attributed to a key.* If the newest entry of a key is damaged, the
///   key has the value of an older entry, unless a merge has removed that entry. If the damaged
///   entry was a delete, the key is back.
/// - *Batches.* The intact parts of a batch are copied. [`SalvageReport::torn_batches`] lists the
///   batches that have lost a part. A batch without an end at the very end of an unsealed segment
///   was never acknowledged, and is left out, as it is when a store is opened.
/// - *Without a manifest* every segment is read. That includes segments that a merge or a clear had
///   superseded but a crash kept from being removed, so keys that were cleared or deleted may be
///   back. If the manifest is intact, such files are left out and listed in
///   [`SalvageReport::leftovers`].
/// - *Compressed values* are copied as they are. If this build has no codec for a value, neither
///   the value nor older values of its key are copied. [`SalvageReport::lost_keys`] lists these
///   keys.
/// - *Permissions.* The new store is created with the default permissions, whatever permissions the
///   damaged store had. To choose others, use [`salvage_opt`].
/// - *Quarantine.* Files that recovery has set aside are not read.
///   [`SalvageReport::quarantine`] lists them.
///
/// The closure receives the progress after about every MiB and after each segment. It can end the
/// salvage by returning [`ControlFlow::Break`]. In that case, and after a failure, `to` is emptied
/// again, or removed if it did not exist.
///
/// # Errors
///
/// [`InvalidTarget`](crate::Error::InvalidTarget) if `to` lies within `from` or is not empty,
/// [`Locked`](crate::Error::Locked) while another process or handle has either store open for
/// writing, the errors of [`verify`] for `from`, and whatever the operating system reports. If a
/// crash interrupts a salvage, opening `to` and the next salvage into it fail with
/// [`Unfinished`](crate::Error::Unfinished): remove the directory.
///
/// ```
/// # use std::ops::ControlFlow;
/// # use bitcask::{Bitcask, Options, repair};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let (from, to) = (dir.path().join("from"), dir.path().join("to"));
/// let db = Bitcask::open(&from, Options::default())?;
/// db.put("kept", "value")?;
/// db.put("gone", "value")?;
/// db.delete("gone")?;
/// db.close()?;
/// std::fs::remove_file(from.join("MANIFEST")).unwrap();
/// assert!(Bitcask::open(&from, Options::default()).is_err());
///
/// let report = repair::salvage(&from, &to, |progress| {
///     println!("{} of {} bytes", progress.size_done, progress.size_total);
///     ControlFlow::Continue(())
/// })?;
/// assert!(!report.had_manifest && report.lost.is_empty());
/// let db = Bitcask::open(&to, Options::default())?;
/// assert_eq!((db.len()?, db.get("gone")?), (1, None));
/// # db.close()
/// # }
/// ```
pub fn salvage(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    progress: impl FnMut(&SalvageProgress) -> ControlFlow<()>,
) -> Result<SalvageReport> {
    salvage_opt(from, to, &Options::default(), progress)
}

/// Salvages a store as [`salvage`] does, into a store with the permissions and the segment size of
/// these options.
///
/// [`dir_mode`](Options::dir_mode), [`file_mode`](Options::file_mode),
/// [`segment_size`](Options::segment_size) and [`segment_entries`](Options::segment_entries) count;
/// other options have no effect.
///
/// # Errors
///
/// [`InvalidOption`](crate::Error::InvalidOption) for an invalid option; otherwise as [`salvage`].
///
/// ```
/// # use std::ops::ControlFlow;
/// # use std::os::unix::fs::PermissionsExt;
/// # use bitcask::{Bitcask, Options, repair};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let (from, to) = (dir.path().join("from"), dir.path().join("to"));
/// # Bitcask::open(&from, Options::default())?.close()?;
/// let private = Options::new().dir_mode(0o700).file_mode(0o600);
/// repair::salvage_opt(&from, &to, &private, |_| ControlFlow::Continue(()))?;
/// assert_eq!(std::fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o700);
/// # Ok(())
/// # }
/// ```
pub fn salvage_opt(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    options: &Options,
    mut progress: impl FnMut(&SalvageProgress) -> ControlFlow<()>,
) -> Result<SalvageReport> {
    options.check()?;
    let env = Env::default().with_modes(options);
    salvage::salvage_on(&env, from.as_ref(), to.as_ref(), options, &mut progress)
}
