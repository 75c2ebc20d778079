//! The flags of an entry: its kind, its optional fields, and which flags may be combined.
//!
//! - Sixteen bits, nine of them known. An unknown bit is refused, never ignored.

use super::Invalid;
use crate::codec::Codec;

/// The flags of an entry. Stored on disk: never renumber.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(pub(super) u16);

impl Flags {
    /// A delete: there is no value, and the key is absent from here on.
    pub(crate) const TOMBSTONE: Self = Self(1 << 0);
    /// An expiry follows the fixed header.
    pub(crate) const EXPIRES: Self = Self(1 << 1);
    /// A durable mark follows: all of the log below that place was durable at this time.
    pub(crate) const MARK: Self = Self(1 << 2);
    /// The batch to which this entry belongs continues with the next entry.
    pub(crate) const CONTINUES: Self = Self(1 << 3);
    /// Another key with the same hash bits had a slot when this entry was appended.
    pub(crate) const COLLIDES: Self = Self(1 << 4);
    /// The segment ends here; the value is the id of the next one.
    pub(crate) const END: Self = Self(1 << 5);
    /// The entry exists only for its mark.
    pub(crate) const MARK_ONLY: Self = Self(1 << 6);
    /// Two bits that name the codec of the value.
    pub(super) const CODEC: Self = Self(0b11 << Self::CODEC_SHIFT);
    const CODEC_SHIFT: u16 = 7;

    const KNOWN: Self = Self((1 << 9) - 1);
    /// Flags that describe a key's entry. End entries and lone marks have none of them.
    pub(super) const OF_A_KEY: Self = Self(
        Self::TOMBSTONE.0 | Self::EXPIRES.0 | Self::CONTINUES.0 | Self::COLLIDES.0 | Self::CODEC.0,
    );

    pub(crate) const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 == flag.0
    }

    pub(super) const fn any(self, flags: Self) -> bool {
        self.0 & flags.0 != 0
    }

    pub(crate) const fn with(self, flag: Self) -> Self {
        Self(self.0 | flag.0)
    }

    pub(super) const fn without(self, flags: Self) -> Self {
        Self(self.0 & !flags.0)
    }

    /// Returns the flags without those that describe the log around an entry.
    pub(super) const fn without_the_log(self) -> Self {
        self.without(Self(Self::CONTINUES.0 | Self::MARK.0 | Self::COLLIDES.0))
    }

    /// Returns whether the entry is a put, and its header has no optional fields.
    pub(super) const fn add_no_field(self) -> bool {
        self.without(Self(Self::CONTINUES.0 | Self::COLLIDES.0)).0 == 0
    }

    pub(crate) const fn with_if(self, condition: bool, flag: Self) -> Self {
        if condition { self.with(flag) } else { self }
    }

    pub(super) const fn with_codec(self, number: u8) -> Self {
        self.with(Self((number as u16) << Self::CODEC_SHIFT))
    }

    /// Returns the number of the value's codec, 0 for an uncompressed value.
    pub(crate) const fn codec(self) -> u8 {
        ((self.0 & Self::CODEC.0) >> Self::CODEC_SHIFT) as u8
    }

    /// Returns whether the entry is a put or a delete, and not a note of the log itself.
    pub(crate) const fn are_of_a_put_or_delete(self) -> bool {
        !self.any(Self::END.with(Self::MARK_ONLY))
    }

    /// Checks that this build supports everything that the flags require.
    #[inline]
    pub(crate) fn understood(self) -> Result<(), Invalid> {
        match (self.unknown(), self.codec()) {
            (0, 0) => Ok(()),
            (0, number) if Codec::from_number(number).is_some() => Ok(()),
            (0, number) => Err(Invalid::UnknownCodec(number)),
            (unknown, _) => Err(Invalid::UnknownFlags(unknown)),
        }
    }

    const fn unknown(self) -> u16 {
        self.0 & !Self::KNOWN.0
    }
}

impl std::fmt::Debug for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [
            (Self::TOMBSTONE, "tombstone"),
            (Self::EXPIRES, "expires"),
            (Self::MARK, "mark"),
            (Self::CONTINUES, "continues"),
            (Self::COLLIDES, "collides"),
            (Self::END, "end"),
            (Self::MARK_ONLY, "mark only"),
        ];
        let set = names.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| *name);
        let codec = (self.codec() != 0).then(|| format!("codec {}", self.codec()));
        let set: Vec<_> = set.map(str::to_owned).chain(codec).collect();
        write!(f, "{:#06x} {set:?}", self.0)
    }
}
