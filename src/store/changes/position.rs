//! Positions in the log, which followers store.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::log::Log;
use crate::manifest::{BEGINNING, Manifest};
use crate::segment::header::Kind;
use crate::segment::{FIRST_OFFSET, Place, Segment, SegmentId};
use crate::store::follower::RefreshState;
use crate::store::{Inner, Reader, Role};

/// A place between two changes in the order of all changes of a store.
///
/// Opaque, and small enough to store with data derived from the changes. A position stays valid
/// after the store is closed and reopened, and in a [backup](crate::Bitcask::backup) made later.
/// Positions of one store are ordered like its changes; positions of different stores have no
/// meaningful order. See [`Reader::changes`].
///
/// ```
/// use bitcask::Position;
/// # use bitcask::{Bitcask, Options};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Bitcask::open(dir.path(), Options::default())?;
/// let before = db.position();
/// db.put("key", "value")?;
/// let after = db.position();
/// assert!(Position::START < before && before < after);
/// assert_eq!(Position::from_bytes(after.to_bytes()), after);
/// assert_eq!(after.to_string().parse::<Position>()?, after);
/// # db.close()
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    store_id: u64,
    /// Packed, so that positions are ordered like the log.
    place: u64,
}

impl Position {
    /// The position before the first change of any store.
    pub const START: Self = Self { store_id: 0, place: 0 };

    pub(crate) fn new(store_id: u64, place: Place) -> Self {
        Self { store_id, place: place.pack() }
    }

    pub(crate) fn store_id(self) -> u64 {
        self.store_id
    }

    pub(crate) fn place(self) -> Place {
        Place::unpack(self.place).max(BEGINNING)
    }

    /// Encodes the position. For positions of one store, the bytes have the same order as the
    /// positions.
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.store_id) << 64 | u128::from(self.place)).to_be_bytes()
    }

    /// Decodes a position. [`Reader::changes`] checks whether it is valid for a store.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_be_bytes);
        let (store_id, place) = bytes.split_at(8);
        Self { store_id: word(store_id), place: word(place) }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.store_id, self.place)
    }
}

impl FromStr for Position {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let word = |word: &str| u64::from_str_radix(word, 16).ok();
        let words = text.split_once('-').and_then(|(id, place)| Some((word(id)?, word(place)?)));
        let position = words.map(|(store_id, place)| Self { store_id, place });
        position.filter(|position| position.to_string() == text).ok_or_else(|| {
            let reason = "a position is two numbers of 16 hexadecimal digits, joined by a hyphen";
            Error::InvalidPosition { position: text.to_owned(), reason }
        })
    }
}

impl Reader {
    /// Returns the position after the last change. [`changes`](Self::changes) from there returns
    /// the changes made from now on. All changes before the position are readable when this
    /// returns.
    ///
    /// Waits for writers that have appended changes but not yet made them readable. In a read-only
    /// store, it waits for a [`refresh`](crate::ReadOnly::refresh) in progress and returns the
    /// position that the last successful one reached.
    pub fn position(&self) -> Position {
        let inner = &self.inner;
        if inner.here().is_err() {
            return Position::START;
        }
        match &inner.role {
            Role::Writer(writer) => {
                writer.log.at_one_moment(&inner.keydir, |log| inner.position_of(log))
            }
            Role::Follower(follower) => inner.position_read(&follower.refreshing.lock()),
        }
    }
}

impl Inner {
    /// Returns the position at the end of what a read-only store has read.
    pub(crate) fn position_read(&self, refreshing: &RefreshState) -> Position {
        self.position_at(refreshing.end.unwrap_or_else(|| self.found_end()))
    }

    /// Returns the position at the end of a locked log.
    pub(crate) fn position_of(&self, log: &Log) -> Position {
        let has_appended = log.end() >= BEGINNING;
        let found_end = || *self.found_end.get_or_init(|| self.found_end());
        self.position_at(if has_appended { log.end() } else { found_end() })
    }

    pub(crate) fn position_at(&self, place: Place) -> Position {
        Position::new(self.identity.store_id, place)
    }

    /// Returns the end of the log as found by opening, if nothing was appended since.
    pub(crate) fn found_end(&self) -> Place {
        let mut segments: Vec<_> = self.segments.all().into_iter().map(|(_, each)| each).collect();
        segments.retain(|segment| segment.kind() == Kind::Log);
        segments.sort_by_key(|segment| std::cmp::Reverse(segment.id()));
        // An empty segment is removed when it is sealed, so no position may point into it.
        let ends = segments.iter().map(Segment::last_end);
        let end = ends.into_iter().find(|end| end.offset > FIRST_OFFSET);
        // A merge may have removed later segments than those that are left.
        end.unwrap_or(Place::new(SegmentId(0), 0)).max(self.manifest.get(Manifest::history))
    }
}
