//! Mistakes that tests have the engine make, to see that they are noticed.
//!
//! - Each is a rule of `docs/durability.md` or of the design that is left out at one place. Where it
//!   would be, the engine asks [`made`]; outside of the unit tests that is a constant `false`, and
//!   nothing of this is in a build.
//! - A thread makes mistakes for itself alone, so that tests beside it make none.

/// A rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// No file is ever synced.
    NoSync,
    /// What is appended is not synced, and yet called durable.
    LogNotSynced,
    /// Only the active segment is synced, not those that were rotated since the last sync.
    RotatedNotSynced,
    /// A durable write returns before its sync.
    ReturnsBeforeSync,
    /// A new segment's name is not made durable.
    CreateNotSynced,
    /// A new segment's header is not made durable.
    HeaderNotSynced,
    /// The manifest is renamed before its content is durable.
    ManifestNotSynced,
    /// The manifest's new name is not made durable.
    RenameNotSynced,
    /// A new manifest is written over the one that counts.
    SpareInPlace,
    /// A process that has just opened a store writes to the spare manifest before it is durable that this is
    /// not the one that counts.
    SpareUnsettled,
    /// The manifest is changed in memory alone when a merge swaps.
    ManifestStale,
    /// A segment is listed as sealed before it is durable.
    SealNotSynced,
    /// A merge lists its output before that is durable.
    OutputNotSynced,
    /// A merge drops what was overwritten before what overwrote it is durable.
    SwapBeforeLog,
    /// A merge removes its inputs before the manifest says so.
    RemovedFirst,
    /// A merge lists its output as the youngest segment.
    OutputYoungest,
    /// A merge drops every tombstone.
    TombstonesDropped,
    /// A merge drops an expired entry and leaves nothing of it.
    ExpiredForgotten,
    /// A batch counts as far as it was written.
    BatchTorn,
    /// Entries are not compared with their checksums.
    ChecksumOff,
    /// Hints are used whether they are whole or not.
    HintTrusted,
    /// A mark says that all of the log is durable.
    MarkAhead,
    /// A backup lists what it copied before that is durable.
    BackupNotSynced,
    /// Recovery lists segments as sealed before they are durable.
    RecoveryNotSynced,
    /// A segment is sealed while appends to it are in flight.
    SealedInFlight,
    /// A moment of the log is handed out while appends of before are in flight.
    MomentInFlight,
    /// A follower returns a change in flight.
    ToldInFlight,
    /// An append no longer counts as in flight before it is published.
    CountLoweredEarly,
    /// A segment can be read up to an entry's end before the entry is written.
    ReadableEarly,
    /// A writer lets go of its shard between log and keydir.
    ShardReleasedEarly,
    /// A merge makes a slot name its copy, whatever the slot names by then.
    SlotNotCompared,
    /// A slot is removed before the shard's time of removals says so.
    RemovalNotedLate,
    /// A segment's number can be used again while somebody may have seen a slot with it.
    NumberFreedEarly,
    /// A shard that is filled is filled again, with what was in the log when the store was opened.
    FilledAgain,
    /// The log counts as durable before it is synced.
    DurableBeforeSync,
    /// A writer that waits for a sync is content with the next one that ends, whatever that covers.
    ServedByAnySync,
    /// A delete that finds nothing does not wait until what has made it needless is durable.
    AbsenceNotDurable,
    /// Of several changes that are made together the deletes are left out.
    DeletesForgotten,
    /// Shards are released between the look at conditions and the change.
    ConditionsUnlocked,
    /// What is appended between a transaction's look at its ranges and its commit is not looked at.
    RangesNotLookedAtAgain,
    /// A transaction does not ask again, when nothing can be appended, whether a part of the log is gone.
    HistoryNotReadAgain,
    /// A snapshot notes its segments after its time.
    PinnedLate,
    /// A backup keeps nobody from removing files.
    BackupUnguarded,
}

#[cfg(test)]
thread_local! {
    static MADE: std::cell::Cell<Option<Mistake>> = const { std::cell::Cell::new(None) };
}

/// Returns whether the mistake is to be made here.
#[cfg(not(test))]
pub(crate) const fn made(_: Mistake) -> bool {
    false
}

#[cfg(test)]
pub(crate) fn made(mistake: Mistake) -> bool {
    MADE.get() == Some(mistake)
}

/// Has this thread make a mistake while the closure runs, which may panic.
#[cfg(test)]
pub(crate) fn make<T>(mistake: Mistake, during: impl FnOnce() -> T) -> std::thread::Result<T> {
    MADE.set(Some(mistake));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(during));
    MADE.set(None);
    result
}
