//! What a store remembers about the leader that it follows, under a key of its own.
//!
//! - The record is written in the same batch as the changes up to its position. So after a crash,
//!   the store has exactly the changes that the record says.
//! - It comes first in its batch. A feed that leaves it out still ends the batch where it ends.
//! - It names the leader, for people who find the store. The options decide which one is followed.
//! - Nobody reads or writes the key through a server. It begins with the byte that the Redis port
//!   reserves, so clients of Redis do not see it either.

use std::time::Duration;

use crate::error::Result;
use crate::followed::{FOLLOW_KEY, PROMOTED};
use crate::options::WriteOptions;
use crate::store::{Batch, Bitcask, Position, Reader};

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
    pub(super) fn add_to(self, batch: &mut Batch, leader: &str) {
        let endless = WriteOptions::new().ttl(Duration::MAX);
        batch.put_opt(FOLLOW_KEY, self.encode(leader), endless);
    }

    /// Writes the record alone, and makes it durable: a clear before it is durable too, and a store
    /// that is only partly filled must not look like one that has never followed.
    pub(super) fn write_to(self, db: &Bitcask, leader: &str) -> Result<()> {
        let mut batch = Batch::new();
        self.add_to(&mut batch, leader);
        db.write_opt(&batch, WriteOptions::new().durable(true))
    }

    fn encode(self, leader: &str) -> String {
        match self {
            Self::Following(position) => format!("following {position} {leader}"),
            Self::Loading => format!("loading {leader}"),
            Self::Promoted(position) => format!("{PROMOTED} {position}"),
            Self::Unknown => String::new(),
        }
    }

    fn decode(value: &[u8]) -> Self {
        let text = std::str::from_utf8(value).unwrap_or_default();
        // Records without a leader were written before there was one in them.
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let position = rest.split(' ').next().unwrap_or_default();
        match (word, position.parse()) {
            ("following", Ok(position)) => Self::Following(position),
            (PROMOTED, Ok(position)) => Self::Promoted(position),
            ("loading", _) => Self::Loading,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::followed::leader_in;
    use crate::options::{Options, SyncPolicy};

    #[test]
    fn a_record_alone_is_durable_whatever_the_policy() {
        let dir = tempfile::tempdir().unwrap();
        let db = Options::new().sync_policy(SyncPolicy::Never).open(dir.path()).unwrap();
        FollowRecord::Loading.write_to(&db, "http://leader:8000").unwrap();
        let mut durable = db.changes(Position::START).unwrap().durable();
        assert_eq!(durable.try_recv().unwrap().unwrap().key, FOLLOW_KEY);
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let (position, leader) = (Position::from_bytes([9; 16]), "http://leader:8000");
        for (record, followed) in [
            (FollowRecord::Following(position), Some(leader)),
            (FollowRecord::Loading, Some(leader)),
            (FollowRecord::Promoted(position), None),
        ] {
            let encoded = record.encode(leader);
            assert_eq!(FollowRecord::decode(encoded.as_bytes()), record);
            assert_eq!(leader_in(encoded.as_bytes()).as_deref(), followed);
        }
        let old = format!("following {position}");
        assert_eq!(FollowRecord::decode(old.as_bytes()), FollowRecord::Following(position));
        for other in ["", "following", "promoted 1", "leading 2"] {
            assert_eq!(FollowRecord::decode(other.as_bytes()), FollowRecord::Unknown, "{other}");
        }
    }
}
