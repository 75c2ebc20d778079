//! What a caller asks of an error before it decides what to do.

use std::path::Path;

use super::Error;

impl Error {
    /// Returns whether bytes on disk were found damaged or missing.
    pub fn is_corruption(&self) -> bool {
        match self {
            Self::Corrupt { .. } | Self::MissingSegment { .. } => true,
            Self::Poisoned { cause } => cause.is_corruption(),
            _ => false,
        }
    }

    /// Returns whether the store is held by another writer.
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

    /// Returns whether the disk was full. The write had no effect and can be tried again.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }

    /// Returns whether the store has stopped writing because of an earlier failure.
    pub fn is_poisoned(&self) -> bool {
        matches!(self, Self::Poisoned { .. })
    }

    /// Returns whether the store was opened by another process, from which this one was forked since.
    pub fn is_forked(&self) -> bool {
        matches!(self, Self::Forked { .. })
    }

    /// Returns whether changes can't be had from a position on, so that who follows the store has
    /// to read it anew; see [`Reader::changes`](crate::Reader::changes).
    pub fn needs_resync(&self) -> bool {
        matches!(
            self,
            Self::HistoryGone { .. } | Self::PositionLost { .. } | Self::ForeignPosition { .. }
        )
    }

    /// Returns whether a transaction was given up for others' writes; it can be run again.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// Returns whether a newer build, or one with more features, could read what this one can't.
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self,
            Self::UnsupportedVersion { .. }
                | Self::UnsupportedCodec { .. }
                | Self::UnsupportedFlags { .. }
        )
    }

    /// Returns whether the call itself was at fault: an oversized key, a bad option, a copy to
    /// where it can't be, a position that is none.
    pub fn is_invalid_input(&self) -> bool {
        matches!(
            self,
            Self::ReadOnly
                | Self::WithinMerge
                | Self::KeyTooLarge { .. }
                | Self::ValueTooLarge { .. }
                | Self::BatchTooLarge { .. }
                | Self::FileTooLarge { .. }
                | Self::InvalidOption { .. }
                | Self::InvalidTarget { .. }
                | Self::InvalidPosition { .. }
        )
    }

    pub(crate) fn corrupt(path: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_path_buf(), offset, reason: reason.into() }
    }
}
