//! The map of a cluster: its nodes, and which group has which slots. It is the state of group 0.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::resp::SLOT_COUNT;

/// Number of the group that holds the map. The shards are the groups from 1 on.
pub(crate) const MAP_GROUP: u64 = 0;

/// Maximum number of shards.
pub(crate) const SHARDS_MAX: u16 = 1024;

/// Where a node can be reached: each as `host:port`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeAddresses {
    /// By the other nodes.
    pub(crate) cluster: String,
    /// By clients of Redis.
    pub(crate) redis: String,
    /// By clients of HTTP.
    pub(crate) http: String,
    /// A random number that its directory was given. A node that has lost its directory has lost
    /// its votes too, and must not pass for the one that it was.
    pub(crate) incarnation: u128,
}

/// The nodes, and the shards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterMap {
    /// Number of changes so far.
    pub(crate) epoch: u64,
    pub(crate) nodes: BTreeMap<u64, NodeAddresses>,
    /// Numbers of nodes that were removed, or are being removed. No other node may have them.
    pub(crate) removed: BTreeSet<u64>,
    /// Number of shards. It never changes.
    pub(crate) shards: u16,
}

/// A change of the map.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum MapChange {
    /// Sets the number of shards, once.
    Create {
        shards: u16,
    },
    /// Adds a node, or changes its addresses.
    PutNode {
        id: u64,
        addresses: NodeAddresses,
    },
    /// Marks a node as one that is being removed. No group takes it from then on.
    BeginRemoval {
        id: u64,
        /// The nodes that vote in the group of the map. One of them has to stay.
        voters: BTreeSet<u64>,
    },
    RemoveNode {
        id: u64,
    },
}

impl ClusterMap {
    /// Makes a change, or says why it is refused.
    pub(crate) fn change(&mut self, change: &MapChange) -> Result<(), String> {
        match change {
            MapChange::Create { shards } if self.shards == 0 => self.shards = *shards,
            MapChange::Create { shards } if self.shards == *shards => return Ok(()),
            MapChange::Create { .. } => {
                return Err(format!("the cluster has {} shards already", self.shards));
            }
            MapChange::PutNode { id, addresses } => {
                let before = self.nodes.get(id);
                if before.is_none() && self.removed.contains(id) {
                    return Err(format!("a node {id} was removed: give this one another number"));
                }
                if before == Some(addresses) {
                    return Ok(());
                }
                if before.is_some_and(|before| before.incarnation != addresses.incarnation) {
                    return Err(format!(
                        "the cluster has another node {id}, or this one has lost its directory: \
                         remove that one, and give this one a number that no node has had"
                    ));
                }
                if before.is_some_and(|before| before.cluster != addresses.cluster) {
                    return Err(format!(
                        "the other nodes know node {id} by another address: remove it, and let it \
                         join under a new number"
                    ));
                }
                self.nodes.insert(*id, addresses.clone());
            }
            MapChange::BeginRemoval { id, voters } => {
                if self.removed.contains(id) {
                    return Ok(());
                }
                if !self.nodes.contains_key(id) {
                    return Err(format!("there is no node {id}"));
                }
                // A node that has not joined yet holds nothing.
                if voters.iter().all(|voter| voter == id || self.removed.contains(voter)) {
                    let leaving = voters.iter().filter(|voter| *voter != id);
                    let leaving: Vec<_> = leaving.map(|voter| format!("node {voter}")).collect();
                    let mut reason = "the last node of a cluster cannot be removed".to_owned();
                    if !leaving.is_empty() {
                        let leaving = leaving.join(", ");
                        reason = format!("{reason} (being removed already: {leaving})");
                    }
                    return Err(reason);
                }
                self.removed.insert(*id);
            }
            MapChange::RemoveNode { id } => {
                if self.nodes.remove(id).is_none() {
                    let is_gone = self.removed.contains(id);
                    return if is_gone { Ok(()) } else { Err(format!("there is no node {id}")) };
                }
                self.removed.insert(*id);
            }
        }
        self.epoch += 1;
        Ok(())
    }

    /// Returns the group of a slot.
    pub(crate) fn group_of(&self, slot: u16) -> u64 {
        (u64::from(slot) * u64::from(self.shards)) / u64::from(SLOT_COUNT) + 1
    }

    /// Returns the slots of a shard's group.
    pub(crate) fn slots_of(&self, group: u64) -> RangeInclusive<u16> {
        let shards = u64::from(self.shards.max(1));
        let first = |shard: u64| (shard * u64::from(SLOT_COUNT)).div_ceil(shards);
        let to_slot = |slot: u64| u16::try_from(slot).unwrap_or(SLOT_COUNT);
        let shard = group.saturating_sub(1);
        to_slot(first(shard))..=to_slot(first(shard + 1).saturating_sub(1))
    }

    /// Returns the groups of all shards.
    pub(crate) fn groups(&self) -> RangeInclusive<u64> {
        1..=u64::from(self.shards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_belongs_to_one_group() {
        for shards in [1, 2, 3, 5, 16, 1000, SHARDS_MAX] {
            let map = ClusterMap { shards, ..ClusterMap::default() };
            let mut next = 0;
            for group in map.groups() {
                let slots = map.slots_of(group);
                assert_eq!(*slots.start(), next);
                next = *slots.end() + 1;
                assert!(slots.into_iter().all(|slot| map.group_of(slot) == group));
            }
            assert_eq!(next, SLOT_COUNT);
        }
    }

    #[test]
    fn a_change_that_changes_nothing_leaves_the_epoch() {
        let mut map = ClusterMap::default();
        let put = MapChange::PutNode { id: 1, addresses: NodeAddresses::default() };
        for change in [MapChange::Create { shards: 3 }, put, MapChange::RemoveNode { id: 1 }] {
            map.change(&change).unwrap();
            let epoch = map.epoch;
            map.change(&change).unwrap();
            assert_eq!(map.epoch, epoch);
        }
        assert!(map.change(&MapChange::Create { shards: 4 }).is_err());
        assert!(map.change(&MapChange::RemoveNode { id: 2 }).is_err());
        assert_eq!(map.epoch, 3);
    }

    #[test]
    fn a_node_that_is_being_removed_stays_in_the_map_until_it_is_gone() {
        let put = |id| MapChange::PutNode { id, addresses: NodeAddresses::default() };
        let removal = |id| MapChange::BeginRemoval { id, voters: [1, 2].into() };
        let mut map = ClusterMap::default();
        map.change(&put(1)).unwrap();
        assert!(map.change(&removal(2)).is_err());
        map.change(&put(2)).unwrap();
        map.change(&removal(2)).unwrap();
        let refusal = map.change(&removal(1)).unwrap_err();
        assert!(
            refusal.ends_with("cannot be removed (being removed already: node 2)"),
            "{refusal}"
        );
        // It can still be reached, and may say where.
        map.change(&put(2)).unwrap();
        assert!(map.nodes.contains_key(&2) && map.removed.contains(&2));
        map.change(&MapChange::RemoveNode { id: 2 }).unwrap();
        map.change(&removal(2)).unwrap();
        assert!(map.change(&put(2)).is_err());
    }

    /// The second node was interrupted before it joined the group of the map.
    #[test]
    fn the_only_voter_is_not_marked_and_the_others_can_be_removed() {
        let put = |id| MapChange::PutNode { id, addresses: NodeAddresses::default() };
        let removal = |id| MapChange::BeginRemoval { id, voters: [1].into() };
        let mut map = ClusterMap::default();
        map.change(&put(1)).unwrap();
        map.change(&put(2)).unwrap();
        assert!(map.change(&removal(1)).is_err());
        map.change(&removal(2)).unwrap();
        assert!(map.change(&removal(1)).is_err());
        assert!(map.removed.iter().eq([&2]));
    }

    #[test]
    fn a_number_belongs_to_one_directory_for_ever() {
        let mut map = ClusterMap::default();
        let put = |incarnation, cluster: &str| {
            let (cluster, redis, http) = (cluster.to_owned(), String::new(), String::new());
            let addresses = NodeAddresses { cluster, redis, http, incarnation };
            MapChange::PutNode { id: 1, addresses }
        };
        map.change(&put(1, "a:1")).unwrap();
        assert!(map.change(&put(2, "a:1")).is_err());
        assert!(map.change(&put(1, "b:1")).is_err());
        map.change(&MapChange::RemoveNode { id: 1 }).unwrap();
        assert!(map.change(&put(1, "a:1")).is_err());
    }
}
