//! Moves the data of another bitcask into a store: that of bitcaskpy, pybitcask, Basho's bitcask
//! (the one in Riak) or prologic's bitcask for Go.
//!
//! Each function reads the directory of one of these systems and puts its pairs into an open store:
//!
//! - *The other store is only read.* Nothing in its directory is created, locked or changed; it may
//!   be on a read-only disk. Stop the other system first, or stop it later and import once more:
//!   what is written meanwhile may be missing.
//! - *Damage does not end an import.* Torn tails, missing or stale hint files, and damaged records
//!   cost only what they damage. The [report](ImportReport) lists each stretch of bytes that was
//!   skipped, with file, offset and reason.
//! - *It can be repeated.* A key that the store has with the same value and expiry is not written
//!   again. So an import that was stopped, or that a full disk has ended, is completed by running
//!   it again, and a second import after the first brings the store up to date.
//! - *Keys are put, never deleted.* A key that was deleted in the source is not imported. If an
//!   earlier import has brought it, it stays.
//! - *Expiries are kept* where they exist, and a key without one does not expire, whatever
//!   [`Options::default_ttl`](crate::Options::default_ttl) says. The times at which records were
//!   written decide which one is the newest. The store gives its entries new ones.
//! - *Memory is bounded*, whatever a file says: see [`ImportOptions::memory_max`].
//!
//! What each function reads, and what the system itself could not read any more:
//!
//! - [`bitcaskpy`](fn@bitcaskpy) reads `segment_N.log`: non-ASCII keys and values, in spite of
//!   wrong `.hint` and `.index` files, and what follows a torn record.
//! - [`pybitcask`](fn@pybitcask) reads `data_N.db`: ten files or more in the right order, both
//!   encodings in one file, and what follows a torn record.
//! - [`basho`](fn@basho) reads `N.bitcask.data`: also files with more damaged records than the 20
//!   that it tolerates.
//! - [`prologic`](fn@prologic) reads `NNNNNNNNN.data`: what follows a torn or damaged record, which
//!   the program's own recovery removes.
//!
//! bitcaskpy and pybitcask store no checksums, and prologic's bitcask none of its keys. A changed
//! byte within such a key or value can't be noticed. A changed size is noticed, because the next
//! record then does not begin where it should.
//!
//! ```
//! use bitcask::import::{self, ImportOptions};
//! use bitcask::{Bitcask, Options};
//! # fn main() -> bitcask::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let (old, new) = (dir.path().join("old"), dir.path().join("new"));
//! # std::fs::create_dir(&old).unwrap();
//! # let record = b"\x41\xd9\x55\xc0\x6d\x20\x00\x00\0\0\0\x04\0\0\0\x02\0caf\xc3\xa9hi";
//! # std::fs::write(old.join("segment_0.log"), record).unwrap();
//! let db = Bitcask::open(&new, Options::default())?;
//! let report = import::bitcaskpy(&old, &db, ImportOptions::new())?;
//! println!("{report}");
//! assert!(report.is_complete());
//! assert_eq!(db.get("caf\u{e9}")?.unwrap(), "hi");
//!
//! // Nothing is written a second time.
//! let again = import::bitcaskpy(&old, &db, ImportOptions::new())?;
//! assert_eq!((again.written, again.unchanged), (0, 1));
//! # db.close()
//! # }
//! ```

mod basho;
mod bitcaskpy;
mod driver;
mod format;
mod json;
mod newest;
mod options;
mod prologic;
mod pybitcask;
mod report;
mod source;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;

use crate::error::Result;
use crate::fs::Fs;
use crate::store::Bitcask;

pub use options::ImportOptions;
pub use report::{ImportProgress, ImportReport, Skipped};

/// Imports a store of bitcaskpy: the files `segment_N.log` of its data directory.
///
/// Keys and values become the UTF-8 bytes of their text. For each key the last record counts, in
/// the order of the segments' numbers. `.hint` and `.index` files are not read.
///
/// bitcaskpy has stored the lengths of keys and values in characters and reads as many bytes, so it
/// cannot read a record that is not ASCII. This function can. Since there are no checksums, a
/// record counts only if the next one begins where it ends, or if the file ends there.
///
/// # Errors
///
/// [`InvalidSource`](crate::Error::InvalidSource) if the directory has no such file,
/// [`InvalidOption`](crate::Error::InvalidOption) for an invalid option, the errors of
/// [`Bitcask::write`], and whatever the operating system reports. What was imported before an error
/// stays, and the next import does the rest. Damage in the source is not an error: it goes into the
/// report.
///
/// The example of the [module](self) uses this function.
pub fn bitcaskpy(
    from: impl AsRef<Path>,
    to: &Bitcask,
    options: ImportOptions<'_>,
) -> Result<ImportReport> {
    driver::import_on(&Fs::DISK, from.as_ref(), to, &mut bitcaskpy::Bitcaskpy, options)
}

/// Imports a store of pybitcask: the files `data_N.db` of its data directory, in either encoding.
///
/// Keys become the UTF-8 bytes of their text, and values become their JSON text, as it stands in
/// the file: a stored `"hello"` keeps its quotes, and a stored `None` is `null`.
/// [`ImportOptions::plain_strings`] removes the quotes. For each key the record with the latest
/// timestamp counts, and of equal ones the last, in the numeric order of the files.
///
/// A JSON line whose key has half of a surrogate pair is skipped, because such a key is no UTF-8.
///
/// # Errors
///
/// As [`bitcaskpy`](fn@bitcaskpy).
///
/// ```
/// use bitcask::import::{self, ImportOptions};
/// # use bitcask::{Bitcask, Options};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let (old, new) = (dir.path().join("old"), dir.path().join("new"));
/// # std::fs::create_dir(&old).unwrap();
/// # let line = "\u{2}{\"key\": \"name\", \"value\": \"ann\", \"timestamp\": 1700000000000}\n";
/// # std::fs::write(old.join("data_1.db"), line).unwrap();
/// # let db = Bitcask::open(&new, Options::default())?;
/// import::pybitcask(&old, &db, ImportOptions::new())?;
/// assert_eq!(db.get("name")?.unwrap(), "\"ann\"");
///
/// let _ = import::pybitcask(&old, &db, ImportOptions::new().plain_strings(true))?;
/// assert_eq!(db.get("name")?.unwrap(), "ann");
/// # db.close()
/// # }
/// ```
pub fn pybitcask(
    from: impl AsRef<Path>,
    to: &Bitcask,
    options: ImportOptions<'_>,
) -> Result<ImportReport> {
    let mut format = pybitcask::Pybitcask { plain_strings: options.plain_strings };
    driver::import_on(&Fs::DISK, from.as_ref(), to, &mut format, options)
}

/// Imports a cask of Basho's bitcask: the files `N.bitcask.data` of its directory.
///
/// Keys and values are taken as they are. Riak encodes bucket and key into the keys of its casks,
/// one cask for each partition; run the import once for each. The checksum of every record is
/// verified. Tombstones of all three versions are recognized: like bitcask, this function takes
/// every value that begins with `bitcask_tombstone` for one. For each key the record with the
/// latest timestamp counts, of equal ones that in the file with the highest number, and the last in
/// it. Hint files are not read.
///
/// Files that a merge has marked for deletion by their permissions are left out, and listed in
/// [`ImportReport::leftovers`]. If all files are marked, the marks are ignored:
/// [`ImportReport::marks_ignored`].
///
/// Set [`ImportOptions::expire_after`] to the cask's `expiry_secs`, if it had one: bitcask does not
/// store it.
///
/// # Errors
///
/// As [`bitcaskpy`](fn@bitcaskpy).
///
/// ```
/// use std::time::Duration;
/// use bitcask::import::{self, ImportOptions};
/// # use bitcask::{Bitcask, Options};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let (old, new) = (dir.path().join("old"), dir.path().join("new"));
/// # std::fs::create_dir(&old).unwrap();
/// # std::fs::write(old.join("1.bitcask.data"), "").unwrap();
/// # let db = Bitcask::open(&new, Options::default())?;
/// let day = Duration::from_secs(24 * 3600);
/// let report = import::basho(&old, &db, ImportOptions::new().expire_after(Some(day)))?;
/// println!("{report}");
/// # db.close()
/// # }
/// ```
pub fn basho(
    from: impl AsRef<Path>,
    to: &Bitcask,
    options: ImportOptions<'_>,
) -> Result<ImportReport> {
    let mut format = basho::Basho { expire_after: options.expire_after };
    driver::import_on(&Fs::DISK, from.as_ref(), to, &mut format, options)
}

/// Imports a database of prologic's bitcask for Go: the files `NNNNNNNNN.data` of its directory.
///
/// Keys, values and expiries are taken as they are. A record whose value is empty is a delete, as
/// it is for that program when it reads its files. The checksum of every value is verified. For
/// each key the last record counts. `index`, `ttl_index` and the other files are not read. Both
/// formats are read: version 1, and version 0 without expiries.
///
/// The fork `octu0/bitcaskdb` stores checksum and expiry before the key. Its files are recognized
/// by their names or by their first record, and rejected.
///
/// # Errors
///
/// As [`bitcaskpy`](fn@bitcaskpy), and [`InvalidSource`](crate::Error::InvalidSource) for a
/// database of the fork.
///
/// ```
/// use bitcask::import::{self, ImportOptions};
/// # use bitcask::{Bitcask, Options};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let (old, new) = (dir.path().join("old"), dir.path().join("new"));
/// # std::fs::create_dir(&old).unwrap();
/// # std::fs::write(old.join("000000000.data"), "").unwrap();
/// # let db = Bitcask::open(&new, Options::default())?;
/// let report = import::prologic(&old, &db, ImportOptions::new())?;
/// for skipped in &report.skipped {
///     eprintln!("{skipped}");
/// }
/// # db.close()
/// # }
/// ```
pub fn prologic(
    from: impl AsRef<Path>,
    to: &Bitcask,
    options: ImportOptions<'_>,
) -> Result<ImportReport> {
    let mut format = prologic::Prologic::default();
    driver::import_on(&Fs::DISK, from.as_ref(), to, &mut format, options)
}

/// Imports from the format with a number, on any disk. Fuzz targets choose a format by its number.
#[cfg(any(test, bitcask_fuzzing))]
pub(crate) fn import_numbered(
    fs: &Fs,
    from: &Path,
    to: &Bitcask,
    number: usize,
    options: ImportOptions<'_>,
) -> Result<ImportReport> {
    let plain_strings = options.plain_strings;
    match number {
        0 => driver::import_on(fs, from, to, &mut bitcaskpy::Bitcaskpy, options),
        1 => driver::import_on(fs, from, to, &mut pybitcask::Pybitcask { plain_strings }, options),
        2 => driver::import_on(fs, from, to, &mut basho::Basho { expire_after: None }, options),
        _ => driver::import_on(fs, from, to, &mut prologic::Prologic::default(), options),
    }
}
