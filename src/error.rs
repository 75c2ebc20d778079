//! The one error type of the crate.
//!
//! - Every message says what happened, where (file and offset), and what to do about it.
//! - `Error::Io` is built by `fs` alone, which knows the action and the path.
//! - A key that is not there is no error: look-ups answer `Ok(None)`.

mod predicates;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A result whose error is this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", shown(path))]
    Io {
        /// What was tried, as a verb: "open", "write", "sync".
        action: &'static str,
        /// The file or directory it was tried on.
        path: PathBuf,
        /// The operating system's own answer.
        source: io::Error,
    },

    /// Bytes on disk are not what was written there, and they were known to be durable.
    ///
    /// Nothing was changed. Restore the file from a copy, or [salvage](crate::repair::salvage) what
    /// still checks into a fresh store.
    #[error("{} is corrupt at offset {offset}: {reason}; restore it from a copy or salvage the \
             store, nothing was changed", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where the damage was met, in bytes from the start of the file.
        offset: u64,
        /// What does not check.
        reason: String,
    },

    /// A segment that the store's files name is not there.
    #[error("{} is missing, and the store's manifest or log names it; put the file back, nothing \
             was changed", path.display())]
    MissingSegment {
        /// Where the segment should be.
        path: PathBuf,
    },

    /// The writer in another process has removed a segment that this store, opened read-only, was
    /// reading without a mapping. What it held is elsewhere in the store by now.
    ///
    /// Call [`refresh`](crate::ReadOnly::refresh) and read again. A process that may map more, or have
    /// more files open, meets this later: segments have mappings or open files as far as these go.
    #[error("{} was removed by the process that writes to the store; call `refresh` and read again",
            path.display())]
    SegmentRemoved {
        /// The segment that is gone.
        path: PathBuf,
    },

    /// A file was written by a newer version of this format.
    #[error("{} has format version {found}, this build reads up to {supported}; open it with a \
             newer release", path.display())]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// The version it names.
        found: u16,
        /// The newest version that this build reads.
        supported: u16,
    },

    /// An entry is compressed with a codec that this build does not have.
    #[error("{} has an entry at offset {offset} compressed with codec {codec}, which this build \
             lacks; open it with a build that has it", path.display())]
    UnsupportedCodec {
        /// The segment.
        path: PathBuf,
        /// The entry's place, in bytes from the start of the file.
        offset: u64,
        /// The codec's number.
        codec: u8,
    },

    /// An entry checks, but carries flags that this build does not know.
    #[error("{} has an entry at offset {offset} with unknown flags {flags:#06x}; open it with a \
             newer release", path.display())]
    UnsupportedFlags {
        /// The segment.
        path: PathBuf,
        /// The entry's place, in bytes from the start of the file.
        offset: u64,
        /// The flag bits that are not known.
        flags: u16,
    },

    /// Another process, or another handle of this one, writes to this store.
    #[error("{} is locked by {}; close it there, or open it read-only here", path.display(),
            holder(*pid, *ended))]
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// The process that took the lock, as it has noted it in `LOCK`, if that could be read.
        pid: Option<u32>,
        /// Whether no process of that id is running. Then the lock is held by a process that it has
        /// forked, or `pid` is its id in another container.
        ended: bool,
    },

    /// The directory that the store was opened in, or the `LOCK` in it, is another one now: something
    /// was mounted over it, it was removed or renamed and created again, a symbolic link was switched,
    /// or somebody removed `LOCK`.
    ///
    /// The store writes no more, as after any [poison](Self::Poisoned); it has changed nothing of what
    /// is there now. What it had reported as durable is in its own directory, wherever that is. A store
    /// opened read-only goes on with what it knew.
    #[error("{} is not what this store was opened in any more: {reason}; nothing was changed there, \
             close this store and open the one that is meant", path.display())]
    DirectoryReplaced {
        /// The store's directory, as it was opened.
        path: PathBuf,
        /// What is there now, and what was.
        reason: String,
    },

    /// There is no store here, and none was to be created.
    #[error("there is no store at {}; create one with `Bitcask::open` and \
             `Options::create_if_missing(true)`", path.display())]
    NotFound {
        /// The directory that was to be opened.
        path: PathBuf,
    },

    /// A [backup](crate::Bitcask::backup) or a [salvage](crate::repair::salvage) into this directory
    /// has not come to its end, so it is no store.
    #[error("{} says that a backup or a salvage into this directory was interrupted, unless it is \
             still running; remove the directory and run it again", path.display())]
    Unfinished {
        /// What stands in the place of the manifest.
        path: PathBuf,
    },

    /// The path exists and is not a directory.
    #[error("{} is not a directory; a store is a directory of its own", path.display())]
    NotADirectory {
        /// The path that was to be opened.
        path: PathBuf,
    },

    /// A merge's progress callback asked for something that has to wait for the merge to end:
    /// another merge, or [`clear`](crate::Bitcask::clear).
    #[error("a merge's callback can't wait for the merge; stop it first")]
    WithinMerge,

    /// A copy of a store can't be made there. Nothing was changed.
    #[error("cannot copy the store to {}: {reason}", path.display())]
    InvalidTarget {
        /// The directory that was to hold the copy.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: &'static str,
    },

    /// What was changed behind a position is no longer in the log: a merge has removed a part of it, or
    /// a [`clear`](crate::Bitcask::clear) everything.
    ///
    /// Read the store anew, and go on from the position that it had before that.
    #[error("the changes behind position {position} of {} are gone with a merge or a clear; read \
             the store anew and go on from the position it has now", path.display())]
    HistoryGone {
        /// The store's directory.
        path: PathBuf,
        /// The position, as text.
        position: String,
    },

    /// A transaction or an [`update`](crate::Bitcask::update) was run as often as it may be, and each time
    /// something that it had read was changed by others before it could end.
    ///
    /// Run it again when there is less to do, allow a transaction more attempts, or have it read less. A
    /// closure that puts by itself what it has read is in conflict with that each time.
    #[error(
        "a change was in conflict with other writers {attempts} times; nothing of it was written, \
             try it again"
    )]
    Conflict {
        /// How often it was run.
        attempts: u32,
    },

    /// The store has never come to a position, or lost in a crash what it held there.
    ///
    /// Who got that far may know of changes that never were. Read the store anew, and go on from
    /// the position that it had before that.
    #[error("{} holds nothing at position {position}, a crash may have taken it; read the store \
             anew and go on from the position it has now", path.display())]
    PositionLost {
        /// The store's directory.
        path: PathBuf,
        /// The position, as text.
        position: String,
    },

    /// A position is another store's.
    #[error("position {position} is not one of {}; read the store anew and go on from a position \
             of its own", path.display())]
    ForeignPosition {
        /// The store's directory.
        path: PathBuf,
        /// The position, as text.
        position: String,
    },

    /// This is no position, or no change of the store ends there.
    #[error("`{position}` is no position: {reason}")]
    InvalidPosition {
        /// What was given.
        position: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// Ends work inside the crate that only a writer does, in a store opened read-only. No method
    /// returns it: those that write do not exist there.
    #[doc(hidden)]
    #[error("the store was opened read-only")]
    ReadOnly,

    /// The process that has opened the store was forked since, and this is the child.
    ///
    /// A fork has no copy of the store's threads, and would write where its parent writes. So a store
    /// belongs to the process that has opened it: in a child every call that can fail returns this,
    /// and changes nothing. Drop the store there, and open it again once the parent has closed it or
    /// has ended; or fork first.
    #[error(
        "the store was opened by process {opener}, and this is process {process}, which was forked \
             since; drop the store here and open it again, or fork before it is opened"
    )]
    Forked {
        /// The process that has opened the store.
        opener: u32,
        /// The one that has called.
        process: u32,
    },

    /// The key is larger than the store takes.
    #[error("the key has {size} bytes, the limit is {limit}")]
    KeyTooLarge {
        /// The key's size in bytes.
        size: u64,
        /// The largest size allowed, in bytes.
        limit: u64,
    },

    /// The value is larger than the store takes.
    #[error("the value has {size} bytes, the limit is {limit}")]
    ValueTooLarge {
        /// The value's size in bytes.
        size: u64,
        /// The largest size allowed, in bytes.
        limit: u64,
    },

    /// The batch's entries do not fit in one segment.
    #[error("the batch takes {size} bytes on disk, the limit is {limit}; split it")]
    BatchTooLarge {
        /// What the batch's entries would take on disk, in bytes.
        size: u64,
        /// The largest size allowed, in bytes.
        limit: u64,
    },

    /// The entry, or the batch, fits in no file that this process may write: a limit of the process
    /// (`RLIMIT_FSIZE`), which is below the size of a segment.
    #[error(
        "this takes a file of {size} bytes, and this process may write none above {limit} \
             (RLIMIT_FSIZE); raise that limit or write less at once"
    )]
    FileTooLarge {
        /// How large the file would have to be, in bytes.
        size: u64,
        /// The largest size allowed, in bytes.
        limit: u64,
    },

    /// An option has a value that makes no sense.
    #[error("the option `{name}` is {value}: {reason}")]
    InvalidOption {
        /// The option's name, as its setter is called.
        name: &'static str,
        /// The value that was given.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// The disk is full, or a quota is used up. Nothing was written; the store stays usable.
    #[error("no space left for {}; free some and try again, the store is intact", path.display())]
    NoSpace {
        /// The file that could not grow.
        path: PathBuf,
    },

    /// The store has as many segments as it may have. Some more are left to deletes, merges and clears,
    /// which make room.
    #[error(
        "the store has {limit} segments or more, and takes no new one for this; merge it, and use \
             larger segments"
    )]
    TooManySegments {
        /// The largest number of segments for what was tried.
        limit: u64,
    },

    /// The last entry of the log has nearly the latest time that there is, and every entry has to be later
    /// than the one before. Nothing was written; reads go on.
    ///
    /// No clock comes to that in 292,000 years: a file was damaged, or made so. Copy the pairs to a fresh
    /// store.
    #[error("the log of {} has come to the end of time, and no entry can be later; copy what it holds to \
             a fresh store", path.display())]
    EndOfTime {
        /// The store's directory.
        path: PathBuf,
    },

    /// An earlier write or sync failed half-way, so that no later one may succeed. Reads go on.
    ///
    /// Close the store and open it again: opening recovers what was durable.
    #[error(
        "the store takes no more writes since an earlier failure; reopen it to recover: \
             {cause}"
    )]
    Poisoned {
        /// The first failure.
        #[source]
        cause: Arc<Error>,
    },
}

/// A path as messages have it; one that is empty would not be seen.
fn shown(path: &Path) -> String {
    if path.as_os_str().is_empty() { "\"\"".to_owned() } else { path.display().to_string() }
}

fn holder(pid: Option<u32>, ended: bool) -> String {
    match pid {
        None => "another handle".to_owned(),
        Some(pid) if pid == std::process::id() => {
            format!("process {pid}, which is this one, by another handle")
        }
        Some(pid) if ended => format!(
            "process {pid}, which is not running any more: a process that it has forked still holds \
             the lock, or {pid} is its id in another container"
        ),
        Some(pid) => format!("process {pid}"),
    }
}
