//! Deliberate mistakes of the engine, with which tests prove that they would notice them.
//!
//! - Each mistake leaves out one rule of `docs/durability.md` or of the design at one place. At
//!   that place the engine calls [`made`]. Outside of unit tests this is a constant `false`, so
//!   builds contain none of it.
//! - A mistake applies only to the thread that makes it, so tests that run concurrently are
//!   unaffected.

/// A rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// No file is ever synced.
    NoSync,
    /// Appended entries are reported as durable without a sync.
    LogNotSynced,
    /// Only the active segment is synced, not the segments that were rotated since the last sync.
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
    /// A new manifest is written over the current one.
    SpareInPlace,
    /// A process that has just opened a store writes to the spare manifest before it is durable
    /// that the spare is not the current manifest.
    SpareUnsettled,
    /// A merge's swap changes the manifest in memory only.
    ManifestStale,
    /// A segment is listed as sealed before it is durable.
    SealNotSynced,
    /// A merge lists its output before the output is durable.
    OutputNotSynced,
    /// A merge drops overwritten entries before the entries that overwrote them are durable.
    SwapBeforeLog,
    /// A merge removes its inputs before the manifest no longer lists them.
    RemovedFirst,
    /// A merge lists its output as the youngest segment.
    OutputYoungest,
    /// A merge drops every tombstone.
    TombstonesDropped,
    /// A merge drops an expired entry without a trace.
    ExpiredForgotten,
    /// A partly written batch counts up to where it was written.
    BatchTorn,
    /// Entries are not compared with their checksums.
    ChecksumOff,
    /// Hints are used whether they are complete or not.
    HintTrusted,
    /// A mark claims that the whole log is durable.
    MarkAhead,
    /// A backup lists what it copied before the copy is durable.
    BackupNotSynced,
    /// A change of the sync policy does not sync earlier writes.
    PolicyNotSynced,
    /// Recovery lists segments as sealed before they are durable.
    RecoveryNotSynced,
    /// A segment is sealed while appends to it are in flight.
    SealedInFlight,
    /// A moment of the log is returned while earlier appends are in flight.
    MomentInFlight,
    /// A follower returns a change that is in flight.
    ToldInFlight,
    /// An append stops counting as in flight before it is published.
    CountLoweredEarly,
    /// A segment can be read up to an entry's end before the entry is written.
    ReadableEarly,
    /// A writer releases its shard between log and keydir.
    ShardReleasedEarly,
    /// A merge takes segments that are kept for their history.
    HistoryMerged,
    /// A merge points a slot at its copy, whatever the slot names by then.
    SlotNotCompared,
    /// A slot is removed before the shard's removal time is raised.
    RemovalNotedLate,
    /// Entries of a Raft log, and votes, count as durable before their sync.
    #[cfg(feature = "raft")]
    RaftDoneBeforeSync,
    /// Entries are applied without a note of their place in the Raft log.
    #[cfg(feature = "raft")]
    RaftPlaceForgotten,
    /// A snapshot for Raft exists before the state itself is durable.
    #[cfg(feature = "raft")]
    RaftStateNotSynced,
    /// The place of a snapshot for Raft is noted after the snapshot was made.
    #[cfg(feature = "raft")]
    RaftPlaceNotedLate,
    /// A vote for Raft counts as durable before its sync.
    #[cfg(feature = "raft")]
    RaftVoteNotSynced,
    /// A removal of the end of a Raft log returns before its sync.
    #[cfg(feature = "raft")]
    RaftTruncationNotSynced,
    /// A removal of the end of a Raft log is not counted, so readers from before go on.
    #[cfg(feature = "raft")]
    RaftTruncationNotCounted,
    /// The end of a Raft log is removed with its first entry first.
    #[cfg(feature = "raft")]
    RaftTruncatedFromFront,
    /// Entries of a Raft log are purged before the state holds what they led to.
    #[cfg(feature = "raft")]
    RaftPurgedEarly,
    /// What was purged of a Raft log is noted when the entries are gone.
    #[cfg(feature = "raft")]
    RaftPurgeNotedLate,
    /// A snapshot for Raft is installed before what was received of it is durable.
    #[cfg(feature = "raft")]
    RaftReceivedNotSynced,
    /// A snapshot for Raft is installed before the names of its files are durable.
    #[cfg(feature = "raft")]
    RaftFilesNotNamed,
    /// The pointer of a state machine names directories whose names are not durable.
    #[cfg(feature = "raft")]
    RaftPointerEarly,
    /// An entry is applied with the place of the one before it.
    #[cfg(feature = "raft")]
    RaftPlaceBehind,
    /// A snapshot for Raft is installed with the place in the log, and the members, of before.
    #[cfg(feature = "raft")]
    RaftPlaceOfBefore,
    /// A change of the members is applied without a note of who they are.
    #[cfg(feature = "raft")]
    RaftMembersOfBefore,
    /// A node of a cluster answers a read without asking whether it still leads.
    #[cfg(feature = "cluster")]
    ReadNotConfirmed,
    /// A write that may take effect is answered with a redirect, after which clients repeat it.
    #[cfg(feature = "cluster")]
    UnknownRedirected,
    /// A change of the members counts for a new voter that was not asked, so that the voters of
    /// before commit it alone.
    #[cfg(feature = "cluster")]
    NewVoterNotAsked,
    /// A node of a cluster does not say who leads instead of it.
    #[cfg(feature = "cluster")]
    RedirectLost,
    /// A change of the map of a cluster shows before it is committed.
    #[cfg(feature = "cluster")]
    MapShownEarly,
    /// A segment's number can be reused while a reader may still hold a slot with it.
    NumberFreedEarly,
    /// A filled shard is filled again, from the log as it was when the store was opened.
    FilledAgain,
    /// The log counts as durable before it is synced.
    DurableBeforeSync,
    /// A writer that waits for a sync accepts the next sync that ends, whatever that one covers.
    ServedByAnySync,
    /// A delete that finds no key does not wait until the entry that removed the key is durable.
    AbsenceNotDurable,
    /// Deletes are left out of an atomic group of changes.
    DeletesForgotten,
    /// The shards are released between checking conditions and making the change.
    ConditionsUnlocked,
    /// Entries appended between a transaction's check of its ranges and its commit are not checked.
    RangesNotLookedAtAgain,
    /// When nothing can be appended any more, a transaction does not check again whether a part of
    /// the log was removed.
    HistoryNotReadAgain,
    /// A snapshot pins its segments after it has taken its time.
    PinnedLate,
    /// A merge marks itself as at work only after it has checked for pauses.
    PauseSeenEarly,
    /// A backup does not block the removal of files.
    BackupUnguarded,
}

#[cfg(test)]
thread_local! {
    static MADE: std::cell::Cell<Option<Mistake>> = const { std::cell::Cell::new(None) };
}

/// Returns whether to make the mistake here.
#[cfg(not(test))]
pub(crate) const fn made(_: Mistake) -> bool {
    false
}

#[cfg(test)]
pub(crate) fn made(mistake: Mistake) -> bool {
    MADE.get() == Some(mistake)
}

/// Makes this thread make a mistake while the closure runs. The closure may panic.
#[cfg(test)]
pub(crate) fn make<T>(mistake: Mistake, during: impl FnOnce() -> T) -> std::thread::Result<T> {
    MADE.set(Some(mistake));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(during));
    MADE.set(None);
    result
}
