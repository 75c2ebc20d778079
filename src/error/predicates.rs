//! Predicates with which a caller classifies an error.

use std::path::Path;

use super::Error;

impl Error {
    /// Returns whether the error reports damaged or missing bytes on disk.
    pub fn is_corruption(&self) -> bool {
        match self {
            Self::Corrupt { .. } | Self::MissingSegment { .. } => true,
            Self::Poisoned { cause } => cause.is_corruption(),
            _ => false,
        }
    }

    /// Returns whether another writer holds the store.
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Locked { .. })
    }

    /// Returns whether the store's directory was replaced, which may have
    /// [poisoned](Self::Poisoned) the store.
    pub fn is_directory_replaced(&self) -> bool {
        match self {
            Self::DirectoryReplaced { .. } => true,
            Self::Poisoned { cause } => cause.is_directory_replaced(),
            _ => false,
        }
    }

    /// Returns whether the disk was full. The write had no effect and can be retried.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }

    /// Returns whether the store has stopped writing because of an earlier failure.
    pub fn is_poisoned(&self) -> bool {
        matches!(self, Self::Poisoned { .. })
    }

    /// Returns whether another process opened the store and this process was forked from it later.
    pub fn is_forked(&self) -> bool {
        matches!(self, Self::Forked { .. })
    }

    /// Returns whether the changes after a position are unavailable, so that a follower has to read
    /// the whole store again; see [`Reader::changes`](crate::Reader::changes).
    pub fn needs_resync(&self) -> bool {
        matches!(
            self,
            Self::HistoryGone { .. } | Self::PositionLost { .. } | Self::ForeignPosition { .. }
        )
    }

    /// Returns whether a transaction was abandoned because of other writers; it can be run again.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// Returns whether a newer build, or one with more features, may be able to read the file.
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self,
            Self::UnsupportedVersion { .. }
                | Self::UnsupportedCodec { .. }
                | Self::UnsupportedFlags { .. }
        )
    }

    /// Returns whether a key or its value is not what a typed collection expects there.
    pub fn is_undecodable(&self) -> bool {
        matches!(self, Self::Undecodable { .. })
    }

    /// Returns whether the call itself was at fault: an oversized key, an invalid option, an
    /// unsuitable target for a copy or source of an import, an invalid position, a value that
    /// cannot be encoded.
    pub fn is_invalid_input(&self) -> bool {
        matches!(
            self,
            Self::ReadOnly
                | Self::WithinMerge
                | Self::MergesPaused
                | Self::KeyTooLarge { .. }
                | Self::ValueTooLarge { .. }
                | Self::BatchTooLarge { .. }
                | Self::FileTooLarge { .. }
                | Self::InvalidOption { .. }
                | Self::InvalidTarget { .. }
                | Self::InvalidSource { .. }
                | Self::InvalidPosition { .. }
                | Self::Unencodable { .. }
        )
    }

    pub(crate) fn corrupt(path: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_path_buf(), offset, reason: reason.into() }
    }
}
