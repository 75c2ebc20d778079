//! What a store remembers about the leader that it follows, under a key of its own.
//!
//! - The record is written in the same batch as the changes up to its position. So after a crash,
//!   the store has exactly the changes that the record says.
//! - It comes first in its batch. A feed that leaves it out still ends the batch where it ends.
//! - Nobody reads or writes the key through a server. It begins with the byte that the Redis port
//!   reserves, so clients of Redis do not see it either.

use std::time::Duration;

use crate::error::Result;
use crate::options::WriteOptions;
use crate::store::{Batch, Position, Reader};

/// The key of the record. Stored on disk: never change.
pub(in super::super) const FOLLOW_KEY: &[u8] = b"\0follow";

/// What the store is to its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FollowRecord {
    /// The store has all of the leader's changes up to this position, and no others.
    Following(Position),
    /// The store is being filled from a snapshot, and has only a part of it.
    Loading,
    /// The store has accepted writes of its own since this position of its leader.
    Promoted(Position),
    /// Another version has written the record.
    Unknown,
}

impl FollowRecord {
    /// Returns the record of a store, or `None` if it has never followed.
    pub(super) fn read(db: &Reader) -> Result<Option<Self>> {
        Ok(db.get(FOLLOW_KEY)?.map(|value| Self::decode(&value)))
    }

    /// Adds the record to a batch that has nothing yet.
    pub(super) fn add_to(self, batch: &mut Batch) {
        let endless = WriteOptions::new().ttl(Duration::MAX);
        batch.put_opt(FOLLOW_KEY, self.encode(), endless);
    }

    fn encode(self) -> String {
        match self {
            Self::Following(position) => format!("following {position}"),
            Self::Loading => "loading".to_owned(),
            Self::Promoted(position) => format!("promoted {position}"),
            Self::Unknown => String::new(),
        }
    }

    fn decode(value: &[u8]) -> Self {
        let text = std::str::from_utf8(value).unwrap_or_default();
        let (word, position) = text.split_once(' ').unwrap_or((text, ""));
        match (word, position.parse()) {
            ("following", Ok(position)) => Self::Following(position),
            ("promoted", Ok(position)) => Self::Promoted(position),
            ("loading", _) => Self::Loading,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let position = Position::from_bytes([9; 16]);
        for record in [
            FollowRecord::Following(position),
            FollowRecord::Loading,
            FollowRecord::Promoted(position),
        ] {
            assert_eq!(FollowRecord::decode(record.encode().as_bytes()), record);
        }
        for other in ["", "following", "promoted 1", "leading 2"] {
            assert_eq!(FollowRecord::decode(other.as_bytes()), FollowRecord::Unknown, "{other}");
        }
    }
}
