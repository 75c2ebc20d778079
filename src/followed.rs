//! What a store that follows a leader says about it: the part that programs without a server know.
//!
//! - The record lies under a key of its own, in the store. `server::follow::record` writes it.
//! - A program that exports or copies keys one by one leaves it out: the copy does not follow.

use crate::error::Result;
use crate::store::Reader;

/// The key of the record. Stored on disk: never change.
pub(crate) const FOLLOW_KEY: &[u8] = b"\0follow";

/// The first word of the record of a store that follows no more. Stored on disk: never change.
pub(crate) const PROMOTED: &str = "promoted";

impl Reader {
    /// The key under which a follower notes its position in its leader's log, and whether it was
    /// promoted.
    ///
    /// A program that copies all keys of a store to another one leaves this key out: the copy does
    /// not follow. [`followed_leader`](Self::followed_leader) reads it.
    pub const FOLLOW_KEY: &[u8] = FOLLOW_KEY;

    /// Returns the URL of the server that this store follows, or `None` if it follows none or was
    /// promoted. The URL is empty if another version of this crate has noted it.
    ///
    /// A store that follows is written to by its follower alone: whatever another program writes
    /// differs from the leader's data, and may be replaced at any time. So a program that did not
    /// create the store asks this before it writes.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// assert_eq!(db.followed_leader()?, None);
    /// # db.close()
    /// # }
    /// ```
    pub fn followed_leader(&self) -> Result<Option<String>> {
        Ok(self.get(FOLLOW_KEY)?.and_then(|record| leader_in(&record)))
    }
}

/// Returns the leader that a record names, or `None` if it says that the store follows no more.
pub(crate) fn leader_in(record: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(record).unwrap_or_default();
    let mut words = text.split(' ');
    if words.next() == Some(PROMOTED) {
        return None;
    }
    Some(words.next_back().filter(|word| word.contains("://")).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_the_leader_unless_the_store_was_promoted() {
        let leader = |record: &str| leader_in(record.as_bytes());
        assert_eq!(leader("following 1-2 http://a:8000").as_deref(), Some("http://a:8000"));
        assert_eq!(leader("loading http://a:8000").as_deref(), Some("http://a:8000"));
        for other in ["following 1-2", "loading", "", "whatever a later version writes"] {
            assert_eq!(leader(other).as_deref(), Some(""), "{other}");
        }
        assert_eq!(leader("promoted 1-2"), None);
        assert_eq!(leader_in(b"\xff").as_deref(), Some(""));
    }
}
