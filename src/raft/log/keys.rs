//! The keys of a log.
//!
//! | key | value |
//! | --- | --- |
//! | group, `c` | the log id up to which entries were committed |
//! | group, `e`, index | an entry |
//! | group, `p` | the log id up to which entries were purged |
//! | group, `r` | nothing: the group is being removed |
//! | group, `v` | the vote |
//!
//! Group and index have 8 bytes, big-endian, so that entries lie in the order of the log.

/// What a key is the name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogItem {
    Committed,
    Entry(u64),
    Purged,
    Removed,
    Vote,
}

/// The letter before the index of an entry.
const ENTRY: u8 = b'e';

/// Returns the beginning of all keys of a group.
fn group_prefix(group: u64) -> [u8; 8] {
    group.to_be_bytes()
}

/// Returns the beginning of the keys of a group's entries.
pub(super) fn entries_prefix(group: u64) -> Vec<u8> {
    [&group_prefix(group)[..], &[ENTRY]].concat()
}

pub(super) fn key_of(group: u64, item: LogItem) -> Vec<u8> {
    let mut key = group_prefix(group).to_vec();
    match item {
        LogItem::Committed => key.push(b'c'),
        LogItem::Purged => key.push(b'p'),
        LogItem::Removed => key.push(b'r'),
        LogItem::Vote => key.push(b'v'),
        LogItem::Entry(index) => {
            key.push(ENTRY);
            key.extend(index.to_be_bytes());
        }
    }
    key
}

/// Returns the index of the entry with this key.
pub(super) fn index_of(key: &[u8]) -> Option<u64> {
    let (_, index) = key.split_last_chunk::<8>()?;
    Some(u64::from_be_bytes(*index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lie_in_the_order_of_the_log() {
        let indexes = [0, 1, 255, 256, u64::MAX];
        let keys: Vec<_> = indexes.iter().map(|at| key_of(3, LogItem::Entry(*at))).collect();
        assert!(keys.is_sorted());
        for (key, index) in keys.iter().zip(indexes) {
            assert!(key.starts_with(&entries_prefix(3)));
            assert_eq!(index_of(key), Some(index));
        }
        for item in [LogItem::Committed, LogItem::Purged, LogItem::Removed, LogItem::Vote] {
            let key = key_of(3, item);
            assert!(key.starts_with(&group_prefix(3)) && !key.starts_with(&entries_prefix(3)));
        }
    }
}
