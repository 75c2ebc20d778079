//! For a store that can't be opened, or that nobody trusts: look at it, and save what can be saved.
//!
//! [`verify`] says what is wrong with a store, and changes nothing; [`salvage`] copies everything
//! that still checks into a fresh one. Neither needs the store to be one that opens.
//!
//! - The store that is looked at is only read: no lock, no truncation, no hint. It may lie on a
//!   read-only disk.
//! - Nothing is believed but checksums, which know their places. Nothing is read through a mapping.
//! - Damage never hides what lies behind it.
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

mod output;
mod plan;
mod replay;
mod report;
mod salvage;
mod survey;
mod verify;

use std::ops::ControlFlow;
use std::path::Path;

use crate::error::Result;
use crate::options::Options;
use crate::store::Env;

pub use report::{Diagnosis, Lost, SalvageProgress, SalvageReport};

#[cfg(test)]
pub(crate) use salvage::salvage_on;
#[cfg(test)]
pub(crate) use verify::verify_on;

/// Looks at a store that need not open, and tells what is wrong with it and what opening would do.
///
/// Reads the whole log, with nothing but reads. It goes on where opening gives up: behind damage,
/// without a manifest, past segments that are missing. Each hint is compared with its segment, and
/// each index. The store may be in use: what a writer is just doing is no damage. Memory for the hint
/// of one segment, 16 bytes for each entry in it, or three times its index, and for what is found.
///
/// # Errors
///
/// [`NotFound`](crate::Error::NotFound) and [`NotADirectory`](crate::Error::NotADirectory) for a path
/// that holds no store, [`UnsupportedVersion`](crate::Error::UnsupportedVersion) for the manifest of
/// a newer release, and what keeps it from looking, such as a shortage of file descriptors. What it
/// finds is in the [`Diagnosis`].
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
    verify::verify_on(&Env::default(), path.as_ref())
}

/// Copies everything of a store that still checks into a fresh store, and lists what it could not
/// read.
///
/// For each key the newest entry that checks counts: the one with the highest timestamp, which rises
/// through the log whatever the clock does, and which merges keep. If that is a put, it is copied with
/// its expiry as it is, expired or not; if it is a delete, the key is left out. The new store holds one
/// entry for each key and nothing else. It is durable when this returns, and has an identity of its
/// own. `from` is not changed. Memory for a keydir, as an open store has it, and for the largest
/// entry. The store is read three to four times.
///
/// What to know of the result:
///
/// - *What is damaged can't be named.* A key whose newest entry is damaged has the value of an older
///   one, if that has not been merged away; and if it was its delete that is damaged, it is back.
/// - *Batches.* What checks of a batch is copied, and [`SalvageReport::torn_batches`] tells of those
///   that have lost a part. A batch without an end at the very end of an unsealed segment was never
///   acknowledged, and is left out as when a store is opened.
/// - *Without a manifest* every segment is read. What a merge or a clear had superseded, and a crash
///   kept from being removed, is then read too: keys that were cleared or deleted may be back. With a
///   manifest that checks such files are left out, and [`SalvageReport::leftovers`] names them.
/// - *Compressed values* are copied as they are. Those that this build has no codec for are not copied,
///   and neither are older values of their keys: [`SalvageReport::lost_keys`] names them.
/// - *Quarantine.* What recovery has set aside is not read; [`SalvageReport::quarantine`] names it.
///
/// The closure is told about every MiB, and after each segment, how far it is, and ends it with [`ControlFlow::Break`]: then,
/// as on failure, `to` is emptied again, or removed if it was not there.
///
/// # Errors
///
/// [`InvalidTarget`](crate::Error::InvalidTarget) if `to` lies within `from` or is not empty,
/// [`Locked`](crate::Error::Locked) while somebody writes to either; as [`verify`] for `from`; and
/// whatever the operating system says. What a crash leaves at `to` is refused when it is
/// opened, as [`Unfinished`](crate::Error::Unfinished), and by the next salvage into it; remove it.
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
    mut progress: impl FnMut(&SalvageProgress) -> ControlFlow<()>,
) -> Result<SalvageReport> {
    let options = Options::default();
    salvage::salvage_on(&Env::default(), from.as_ref(), to.as_ref(), &options, &mut progress)
}
