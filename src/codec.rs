//! Compression of values, by number. Stored on disk: never renumber.
//!
//! - Two bits of an entry's flags name the codec; this build has the one that changes nothing.

/// How a value's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// As they are.
    None,
}

impl Codec {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        (number == 0).then_some(Self::None)
    }
}
