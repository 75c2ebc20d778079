//! The flags of an entry: what it is, what it carries, and what goes together.
//!
//! - Sixteen bits, nine of them known. A bit that is not known is refused, never ignored.

/// The flags of an entry. Stored on disk: never renumber.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(pub(super) u16);

impl Flags {
    /// A delete: no value, and the key is absent from here on.
    pub(crate) const TOMBSTONE: Self = Self(1 << 0);
    /// An expiry follows the fixed header.
    pub(crate) const EXPIRES: Self = Self(1 << 1);
    /// A durable mark follows: all of the log below that place was durable at this time.
    pub(crate) const MARK: Self = Self(1 << 2);
    /// The batch that this entry belongs to goes on with the next entry.
    pub(crate) const CONTINUES: Self = Self(1 << 3);
    /// Another key with the same hash bits had a slot when this entry was appended.
    pub(crate) const COLLIDES: Self = Self(1 << 4);
    /// The segment ends here; the value is the id of the next one.
    pub(crate) const END: Self = Self(1 << 5);
    /// The entry is there for its mark alone.
    pub(crate) const MARK_ONLY: Self = Self(1 << 6);
    /// Two bits that name the codec of the value.
    pub(super) const CODEC: Self = Self(0b11 << Self::CODEC_SHIFT);
    const CODEC_SHIFT: u16 = 7;

    const KNOWN: Self = Self((1 << 9) - 1);
    /// Those that say something about a key's entry; end entries and lone marks have none.
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

    /// Without those that say something about the log around an entry.
    pub(super) const fn without_the_log(self) -> Self {
        self.without(Self(Self::CONTINUES.0 | Self::MARK.0 | Self::COLLIDES.0))
    }

    pub(crate) const fn with_if(self, condition: bool, flag: Self) -> Self {
        if condition { self.with(flag) } else { self }
    }

    pub(super) const fn with_codec(self, number: u8) -> Self {
        self.with(Self((number as u16) << Self::CODEC_SHIFT))
    }

    /// The number of the value's codec; 0 for a value that lies there as it was put.
    pub(super) const fn codec(self) -> u8 {
        ((self.0 & Self::CODEC.0) >> Self::CODEC_SHIFT) as u8
    }

    pub(super) const fn unknown(self) -> u16 {
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
