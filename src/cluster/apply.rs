//! What a node does with the entries of a group that are committed.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::consensus::{Answered, Answers, Consensus, Proposal, Request};
use super::map::{ClusterMap, MapChange};
use crate::error::{Error, Result};
use crate::raft::{Apply, REQUEST_SIZE_MAX, StateStore, WRITE_OVERHEAD};
use crate::resp::{ENTRY_WRITE_OVERHEAD, ENTRY_WRITES_MAX, ReplicatedKeys, SharedEntry};
use crate::store::Transaction;

/// The key of the map in the store of its group. Stored on disk: never change.
const MAP_KEY: &[u8] = b"\0raft.map";

/// Version of the encoding of the map, its first byte.
const MAP_VERSION: u8 = 1;

// Commands refuse by themselves what the state would refuse with all of an entry.
const _: () =
    assert!(ENTRY_WRITES_MAX == REQUEST_SIZE_MAX && ENTRY_WRITE_OVERHEAD == WRITE_OVERHEAD);

/// Applies the entries of one group.
#[derive(Debug)]
pub(crate) struct Applier {
    /// Lock 0, only for a moment: the keys in the store of now.
    keys: RwLock<Option<Arc<ReplicatedKeys>>>,
    map: watch::Sender<Arc<ClusterMap>>,
    /// Number of times that something was applied, or the store was replaced.
    news: watch::Sender<u64>,
}

impl Applier {
    pub(crate) fn new() -> Self {
        Self {
            keys: RwLock::default(),
            map: watch::Sender::default(),
            news: watch::Sender::default(),
        }
    }

    /// Returns the keys, as the store of now has them. There are none before the store is open.
    pub(crate) fn keys(&self) -> Result<Arc<ReplicatedKeys>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        keys.ok_or(Error::ReadOnly)
    }

    /// Returns the map as of the last entry, in the group that has it.
    pub(crate) fn map(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.map.subscribe()
    }

    /// Returns what changes when there is something to read for those who follow the changes.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn announce(&self) {
        self.news.send_modify(|number| *number = number.wrapping_add(1));
    }

    /// Shows a change of the map that was not applied.
    pub(super) fn show(&self, change: &MapChange) {
        self.map.send_if_modified(|map| Arc::make_mut(map).change(change).is_ok());
    }
}

/// Makes a change of the map, or returns why it is refused.
fn change_map(tx: &mut Transaction, change: &MapChange) -> Result<Result<(), String>> {
    let mut map = read_map(tx.get(MAP_KEY)?.as_deref())?;
    let changed = map.change(change);
    if changed.is_ok() {
        tx.put(MAP_KEY, encode_map(&map)?);
    }
    Ok(changed)
}

fn undecodable() -> Error {
    Error::Undecodable { key: MAP_KEY.to_vec(), reason: "it is no map of a cluster".to_owned() }
}

pub(super) fn encode_map(map: &ClusterMap) -> Result<Vec<u8>> {
    postcard::to_extend(map, vec![MAP_VERSION]).map_err(|_| undecodable())
}

pub(super) fn read_map(stored: Option<&[u8]>) -> Result<ClusterMap> {
    stored.map_or_else(
        || Ok(ClusterMap::default()),
        |bytes| match bytes.split_first() {
            Some((&MAP_VERSION, map)) => postcard::from_bytes(map).map_err(|_| undecodable()),
            _ => Err(undecodable()),
        },
    )
}

impl Apply<Consensus> for Applier {
    fn apply(&self, tx: &mut Transaction, proposal: &Proposal) -> Result<Answers> {
        let keys = self.keys()?;
        let mut entry = SharedEntry::new(proposal.seed);
        let mut answers = Vec::with_capacity(proposal.requests.len());
        for request in &proposal.requests {
            answers.push(match request {
                Request::Commands(request) => {
                    Answered::Replies(keys.apply(tx, request, &mut entry)?)
                }
                Request::Map(wanted) => Answered::Map(change_map(tx, wanted)?),
                Request::Tick => Answered::Ticked,
            });
        }
        Ok(Answers(answers))
    }

    fn without_request(&self) -> Answers {
        Answers::default()
    }

    fn refused(&self, proposal: &Proposal, error: &Error) -> Answers {
        let refused = |_| Answered::Refused(error.to_string());
        Answers(proposal.requests.iter().map(refused).collect())
    }

    fn time(&self, proposal: &Proposal) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(proposal.time))
    }

    fn opened(&self, store: &Arc<StateStore>) -> Result<()> {
        let map = read_map(store.get(MAP_KEY)?.as_deref()).map_err(|_| {
            Error::corrupt(store.path(), 0, "its map of the cluster cannot be decoded")
        })?;
        let keys = ReplicatedKeys::new(store.shared(), Arc::clone(store))?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys));
        self.map.send_replace(Arc::new(map));
        self.announce();
        Ok(())
    }

    fn applied(&self, store: &StateStore, proposal: &Proposal) {
        self.announce();
        let is_map = |request: &Request| matches!(request, Request::Map(_));
        if proposal.requests.iter().any(is_map)
            && let Ok(map) = store.get(MAP_KEY).and_then(|stored| read_map(stored.as_deref()))
        {
            self.map.send_replace(Arc::new(map));
        }
    }
}
