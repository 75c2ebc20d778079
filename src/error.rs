//! The crate's single error type.
//!
//! - Every message says what happened, where (file and offset), and what to do about it.
//! - Only `fs` builds `Error::Io`, because only `fs` knows the action and the path.
//! - A missing key is not an error: lookups return `Ok(None)`.

mod predicates;
mod shown;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use shown::{counted, shown_key};
use shown::{holder, shown, shown_undecodable};

/// A result whose error type is this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, grouped by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation on a file or directory failed.
    #[error("cannot {action} {}: {source}", shown(path))]
    Io {
        /// The action that failed, as a verb: "open", "write", "sync".
        action: &'static str,
        /// The file or directory that the action was applied to.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },

    /// Bytes on disk differ from what was written there, although they were known to be durable.
    ///
    /// The store changed nothing. Restore the file from a copy, or
    /// [salvage](crate::repair::salvage) the intact entries into a new store.
    #[error("{} is corrupt at offset {offset}: {reason}; nothing was changed, restore the file \
             from a copy or salvage the store", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where the damage was found, in bytes from the start of the file.
        offset: u64,
        /// Which check failed.
        reason: String,
    },

    /// A segment that the manifest or the log names does not exist.
    #[error("{} is missing, but the store's manifest or log names it; nothing was changed, put \
             the file back", path.display())]
    MissingSegment {
        /// The path at which the segment should be.
        path: PathBuf,
    },

    /// The writer in another process removed a segment that this read-only store was reading
    /// without a mapping. By now its content is elsewhere in the store: call
    /// [`refresh`](crate::ReadOnly::refresh) and read again. Raising the process's limits on
    /// mappings and open files makes this rarer: more segments are mapped or kept open then.
    #[error("{} was removed by the process that writes to the store; call `refresh` and read again",
            path.display())]
    SegmentRemoved {
        /// The removed segment.
        path: PathBuf,
    },

    /// A newer version of this format wrote the file.
    #[error("{} has format version {found}, but this build reads at most {supported}; open it \
             with a newer release", path.display())]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// The format version stated in the file.
        found: u16,
        /// The newest version that this build reads.
        supported: u16,
    },

    /// An entry is compressed with a codec that this build does not include.
    #[error("{} has an entry at offset {offset} compressed with codec {codec}, which this build \
             lacks; open it with a build that has it", path.display())]
    UnsupportedCodec {
        /// The segment.
        path: PathBuf,
        /// The entry's offset, in bytes from the start of the file.
        offset: u64,
        /// The codec's number.
        codec: u8,
    },

    /// An entry's checksum matches, but the entry carries flags that this build does not know.
    #[error("{} has an entry at offset {offset} with unknown flags {flags:#06x}; open it with a \
             newer release", path.display())]
    UnsupportedFlags {
        /// The segment.
        path: PathBuf,
        /// The entry's offset, in bytes from the start of the file.
        offset: u64,
        /// The unknown flag bits.
        flags: u16,
    },

    /// Another process, or another handle in this process, has the store open for writing.
    #[error("{} is locked by {}; close it there, or open it read-only here", path.display(),
            holder(*pid, *ended))]
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// The process that took the lock, as it recorded in `LOCK`, or `None` if that could not be
        /// read.
        pid: Option<u32>,
        /// Whether no process with that id is running. In that case a process that it forked holds
        /// the lock, or `pid` is the holder's id in another container.
        ended: bool,
    },

    /// The directory in which the store was opened, or the `LOCK` in it, has been replaced:
    /// something was mounted over the directory, it was removed or renamed and created again, a
    /// symbolic link was switched, or `LOCK` was removed.
    ///
    /// The store accepts no more writes, as after any other [poisoning](Self::Poisoned). It has
    /// changed nothing in the new directory. Everything that it reported as durable is in its
    /// original directory, wherever that is now. A store opened read-only keeps serving the state
    /// it has.
    #[error("{} is no longer the directory of this store: {reason}; nothing was changed there, \
             close this store and open the intended one", path.display())]
    DirectoryReplaced {
        /// The store's directory, as it was opened.
        path: PathBuf,
        /// What the store found, and what it expected.
        reason: String,
    },

    /// The directory holds no store, and the options did not allow creating one.
    #[error("there is no store at {}; create one with `Bitcask::open` and \
             `Options::create_if_missing(true)`", path.display())]
    NotFound {
        /// The directory that was to be opened.
        path: PathBuf,
    },

    /// A [backup](crate::Bitcask::backup) or a [salvage](crate::repair::salvage) into this
    /// directory has not completed, so the directory is not a store.
    #[error("{} shows that a backup or a salvage into this directory was interrupted, or is \
             still running; if it was interrupted, remove the directory and run it again",
            path.display())]
    Unfinished {
        /// The file that stands in place of the manifest.
        path: PathBuf,
    },

    /// The path exists and is not a directory.
    #[error("{} is not a directory; a store needs a directory to itself", path.display())]
    NotADirectory {
        /// The path that was to be opened.
        path: PathBuf,
    },

    /// A merge's progress callback called a method that has to wait for the merge to end: another
    /// merge, or [`clear`](crate::Bitcask::clear).
    #[error("a merge's progress callback can't wait for the merge; stop the merge first")]
    WithinMerge,

    /// Merges are paused: [`pause_merges`](crate::Bitcask::pause_merges). Nothing was changed.
    #[error("merges are paused; end the pause first")]
    MergesPaused,

    /// The store can't be copied to this directory. Nothing was changed.
    #[error("cannot copy the store to {}: {reason}", path.display())]
    InvalidTarget {
        /// The target directory of the copy.
        path: PathBuf,
        /// Why the directory is unsuitable, and what to do.
        reason: &'static str,
    },

    /// The directory to import from is not a store of that program. Nothing was changed.
    #[error("cannot import from {}: {reason}", path.display())]
    InvalidSource {
        /// The directory, or a file in it.
        path: PathBuf,
        /// Why it is unsuitable, and what to do.
        reason: String,
    },

    /// The log no longer holds all changes after a position: a merge has removed some of them, or a
    /// [`clear`](crate::Bitcask::clear) has removed everything.
    ///
    /// Note the store's current position, read the whole store, and continue from that position. To
    /// let followers be away for longer, set
    /// [`Options::keep_history`](crate::Options::keep_history).
    #[error("a merge or a clear removed the changes after position {position} of {}; read \
             the whole store and continue from its current position", path.display())]
    HistoryGone {
        /// The store's directory.
        path: PathBuf,
        /// The position, as text.
        position: String,
    },

    /// A transaction or an [`update`](crate::Bitcask::update) used up its attempts: each time,
    /// another writer changed something that it had read before it could commit.
    ///
    /// Run it again when there is less contention, allow the transaction more attempts, or read
    /// less in it. A closure conflicts with itself on every attempt if it writes a key that it has
    /// read directly to the store.
    #[error(
        "a change conflicted with other writers {attempts} times; nothing was written, \
             try it again"
    )]
    Conflict {
        /// The number of attempts.
        attempts: u32,
    },

    /// The store has never reached this position, or a crash took what the store held there.
    /// A follower at this position may have seen changes that did not survive. Note the store's
    /// current position, read the whole store, and continue from that position.
    #[error("{} holds nothing at position {position}, perhaps after a crash; read the whole store \
             and continue from its current position", path.display())]
    PositionLost {
        /// The store's directory.
        path: PathBuf,
        /// The position, as text.
        position: String,
    },

    /// The position belongs to another store.
    #[error("position {position} does not belong to {}; read the whole store and \
             continue from one of its own positions", path.display())]
    ForeignPosition {
        /// The store's directory.
        path: PathBuf,
        /// The position, as text.
        position: String,
    },

    /// The text is not a position, or no change in the store ends at this position.
    #[error("`{position}` is not a position: {reason}")]
    InvalidPosition {
        /// The position that was passed.
        position: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// Ends work that only a writer does, inside the crate, in a store opened read-only. No public
    /// method returns it: read-only stores have no methods that write.
    #[doc(hidden)]
    #[error("the store was opened read-only")]
    ReadOnly,

    /// This process is a child, forked after its parent opened the store.
    ///
    /// A forked child has none of the store's threads, and its writes would collide with the
    /// parent's. A store therefore belongs to the process that opened it: in a child, every
    /// fallible call returns this error and changes nothing. Drop the store in the child. Open it
    /// again after the parent has closed it or has exited, or fork before opening it.
    ///
    /// The same holds for the threads of a [`Background`](crate::Background): a child can't open a
    /// store with its parent's threads, and has to start its own.
    #[error(
        "process {opener} opened the store or started its threads, and this is process {process}, \
             which was forked later; drop them here and reopen the store, or fork before that"
    )]
    Forked {
        /// The process that opened the store.
        opener: u32,
        /// The process that made the call.
        process: u32,
    },

    /// The operating system refused a thread for a [`Background`](crate::Background).
    #[error("cannot start a background thread: {source}; take fewer, or raise the limit on them")]
    Threads {
        /// The operating system's error.
        source: io::Error,
    },

    /// The key exceeds the size limit.
    #[error("the key has {size} bytes, the limit is {limit}")]
    KeyTooLarge {
        /// The key's size in bytes.
        size: u64,
        /// The largest size allowed, in bytes.
        limit: u64,
    },

    /// The value exceeds the size limit.
    #[error("the value has {size} bytes, the limit is {limit}")]
    ValueTooLarge {
        /// The value's size in bytes.
        size: u64,
        /// The largest size allowed, in bytes.
        limit: u64,
    },

    /// The batch's entries do not fit into one segment.
    #[error("the batch needs {size} bytes on disk, the limit is {limit}; split it")]
    BatchTooLarge {
        /// The size of the batch's entries on disk, in bytes.
        size: u64,
        /// The largest size allowed, in bytes.
        limit: u64,
    },

    /// The entry or batch needs a file larger than this process may write: the process's file size
    /// limit (`RLIMIT_FSIZE`) is below the size of a segment.
    #[error(
        "this needs a file of {size} bytes, but this process may write at most {limit} \
             (RLIMIT_FSIZE); raise that limit or write less per call"
    )]
    FileTooLarge {
        /// The file size needed, in bytes.
        size: u64,
        /// The largest size allowed, in bytes.
        limit: u64,
    },

    /// An option has an invalid value.
    #[error("the option `{name}` is {value}: {reason}")]
    InvalidOption {
        /// The option's name, which is the name of its setter.
        name: &'static str,
        /// The invalid value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// What is stored under a key is not what a typed collection (the feature `serde`) expects.
    #[error("{}", shown_undecodable(key, reason))]
    Undecodable {
        /// The key's bytes.
        key: Vec<u8>,
        /// Which type was expected, and what is wrong.
        reason: String,
    },

    /// The encoding of a typed collection cannot express the value. Nothing was written.
    #[error("cannot encode the value of key {}: {reason}; nothing was written", shown_key(key))]
    Unencodable {
        /// The key's bytes.
        key: Vec<u8>,
        /// What the encoding does not allow.
        reason: String,
    },

    /// The disk is full, or a quota is used up. Nothing was written, and the store stays usable. A
    /// merge may free space, but not that of kept [history](crate::Stats::history_size).
    #[error("no space left for {}; the store is intact, free some space and try again",
            path.display())]
    NoSpace {
        /// The file that could not grow.
        path: PathBuf,
    },

    /// The store has reached its limit on segments. A few segments are reserved for deletes, merges
    /// and clears, which free space.
    #[error(
        "the store has {limit} segments or more, and can't add one for this; merge it, and use \
             larger segments"
    )]
    TooManySegments {
        /// The largest number of segments allowed for this operation.
        limit: u64,
    },

    /// The timestamp of the log's last entry is close to the largest possible timestamp, and every
    /// entry has to be later than the one before it. Nothing was written; reads still work.
    /// No clock reaches this time within 292,000 years, so a file was damaged or crafted. Copy the
    /// pairs to a new store.
    #[error("the log of {} has reached the largest timestamp, so no entry can follow; copy its \
             pairs to a new store", path.display())]
    EndOfTime {
        /// The store's directory.
        path: PathBuf,
    },

    /// What worked for a store in the background, here for Raft, has ended with a panic.
    #[error("what worked for {} in the background has panicked; open it again", path.display())]
    Panicked {
        /// The directory of the store, or of what consists of several.
        path: PathBuf,
    },

    /// An earlier write or sync failed part-way, so no later one may succeed. Reads still work.
    /// Close the store and open it again: opening recovers everything that was durable.
    #[error(
        "the store accepts no more writes after an earlier failure; reopen it to recover: \
             {cause}"
    )]
    Poisoned {
        /// The first failure.
        #[source]
        cause: Arc<Error>,
    },
}
