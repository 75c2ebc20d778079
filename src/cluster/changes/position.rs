//! Positions in the changes of a cluster, which followers store.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::cluster::error::ClusterError;
use crate::raft::EntryPlace;

/// A place in the changes of a cluster: for each shard, the last entry of its log that a follower
/// has handled. All nodes have the same entries, so it means the same on each of them.
///
/// As text, it is the cluster, and for each shard the index of the entry and the term of its
/// leader: `5e0c2f9b7a114d83-1:57@2,2:33@2`. A shard that is missing begins at its first entry. The
/// same position always has the same text.
///
/// ```
/// use bitcask::cluster::ClusterPosition;
/// let position: ClusterPosition = "5e0c2f9b7a114d83-1:57@2,2:33@2".parse()?;
/// assert_eq!(position.index(1), 57);
/// assert_eq!(position.index(3), 0);
/// assert_eq!(position.to_string(), "5e0c2f9b7a114d83-1:57@2,2:33@2");
/// assert_eq!(ClusterPosition::START.to_string(), "start");
/// # Ok::<(), bitcask::cluster::ClusterError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterPosition {
    /// The first half of the cluster's number, or 0 for any cluster.
    cluster: u64,
    shards: BTreeMap<u64, EntryPlace>,
}

impl ClusterPosition {
    /// The position before the first change of any cluster.
    pub const START: Self = Self { cluster: 0, shards: BTreeMap::new() };

    /// Returns this position as one of a cluster. `None` if it is one of another.
    pub(super) fn within(&self, cluster: u128) -> Option<Self> {
        let cluster = u64::try_from(cluster >> 64).unwrap_or(0);
        let is_same = self.cluster == cluster || *self == Self::START;
        is_same.then(|| Self { cluster, shards: self.shards.clone() })
    }

    /// Returns the index of the last entry of a shard that is before the position, or 0.
    pub fn index(&self, shard: u64) -> u64 {
        self.place(shard).index
    }

    pub(super) fn place(&self, shard: u64) -> EntryPlace {
        self.shards.get(&shard).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, shard: u64, place: EntryPlace) {
        self.shards.insert(shard, place);
    }

    /// Returns the greatest number of a shard that it names.
    pub(super) fn last_shard(&self) -> u64 {
        self.shards.last_key_value().map_or(0, |(shard, _)| *shard)
    }
}

impl fmt::Display for ClusterPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::START {
            return f.write_str("start");
        }
        write!(f, "{:016x}-", self.cluster)?;
        for (at, (shard, EntryPlace { index, term })) in self.shards.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{shard}:{index}")?;
            if *term != 0 {
                write!(f, "@{term}")?;
            }
        }
        Ok(())
    }
}

/// Reads a place of a shard.
fn shard_read(text: &str) -> Option<(u64, EntryPlace)> {
    let (shard, place) = text.split_once(':')?;
    let (index, term) = place.split_once('@').unwrap_or((place, "0"));
    let place = EntryPlace { index: index.parse().ok()?, term: term.parse().ok()? };
    Some((shard.parse().ok()?, place))
}

impl FromStr for ClusterPosition {
    type Err = ClusterError;

    fn from_str(text: &str) -> Result<Self, ClusterError> {
        if text == "start" {
            return Ok(Self::START);
        }
        let read = || {
            let (cluster, shards) = text.split_once('-')?;
            let cluster = u64::from_str_radix(cluster, 16).ok()?;
            let parts = shards.split(',').filter(|part| !part.is_empty());
            Some(Self { cluster, shards: parts.map(shard_read).collect::<Option<_>>()? })
        };
        read().filter(|position| position.to_string() == text).ok_or_else(|| {
            ClusterError::Refused(format!("`{text}` is no position in the changes of a cluster"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        let mut position = ClusterPosition::START.within(0xabc << 64).unwrap();
        for text in ["0000000000000abc-", "0000000000000abc-2:7@3", "0000000000000abc-2:7@3,10:0"] {
            assert_eq!(position.to_string(), text);
            assert_eq!(text.parse::<ClusterPosition>().unwrap(), position);
            let (shard, term) = if position.index(2) == 0 { (2, 3) } else { (10, 0) };
            position.set(shard, EntryPlace { index: 7 * u64::from(shard == 2), term });
        }
        assert_eq!("start".parse::<ClusterPosition>().unwrap(), ClusterPosition::START);
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in [
            "",
            "-",
            "1:57",
            "abc-1:57",
            "0000000000000ABC-1:57",
            "0000000000000abc-1",
            "0000000000000abc-1:57@",
            "0000000000000abc-1:57@0",
            "0000000000000abc-2:1,1:1",
            "0000000000000abc-1:1,1:1",
            "0000000000000abc-1:1,",
            "0000000000000abc-1:-1",
            "0000000000000000-",
        ] {
            assert!(text.parse::<ClusterPosition>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_position_belongs_to_one_cluster() {
        let position: ClusterPosition = "0000000000000abc-1:5".parse().unwrap();
        assert_eq!(position.within(0xabc << 64), Some(position.clone()));
        assert_eq!(position.within(0xabd << 64), None);
        assert!(ClusterPosition::START.within(0xabd << 64).is_some());
    }
}
