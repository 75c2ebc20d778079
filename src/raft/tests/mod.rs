//! Tests of the log and the state machine.

#[cfg(not(shuttle))]
mod crash;
#[cfg(not(shuttle))]
mod left_out;
#[cfg(shuttle)]
mod schedules;
pub(super) mod suite;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId, Membership};
use serde::{Deserialize, Serialize};

use super::{Apply, LogStore, SnapshotFiles, StateMachine};
use crate::clock::Hands;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::key_hash::KeyHasher;
use crate::options::{Options, WriteOptions};
use crate::store::{Env, Transaction};
use crate::testing::twin::Twin;

openraft::declare_raft_types!(
    pub(super) TestConfig:
        D = Put,
        R = u64,
        SnapshotData = SnapshotFiles,
);

/// A request of the tests: sets a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Put {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    /// Seconds since the epoch, by the leader's clock.
    pub(super) now: u64,
    /// Seconds that the key lives.
    pub(super) ttl: Option<u64>,
}

/// Puts, and answers with the number of puts so far.
#[derive(Debug, Default)]
pub(super) struct Counting;

/// The key of a request that removes all keys.
pub(super) const CLEAR: &str = "clear";

/// The key of a request that fails.
pub(super) const BROKEN: &str = "broken";

/// The key of a request that panics.
pub(super) const PANICKING: &str = "panicking";

const COUNT: &str = "count of puts";

impl Apply<TestConfig> for Counting {
    fn apply(&self, tx: &mut Transaction, put: &Put) -> Result<u64> {
        let options = match put.ttl {
            Some(seconds) => WriteOptions::new().ttl(Duration::from_secs(seconds)),
            None => WriteOptions::new(),
        };
        match put.key.as_str() {
            CLEAR => tx.clear(),
            PANICKING => panic!("as if there were a mistake in it"),
            BROKEN => {
                let reason = "as if something outside of the store were wrong".to_owned();
                return Err(Error::InvalidSource { path: "elsewhere".into(), reason });
            }
            key => tx.put_opt(key, &put.value, options),
        }
        let count = tx.get(COUNT)?.map_or(0, |it| u64::from_be_bytes((&*it).try_into().unwrap()));
        tx.put(COUNT, (count + 1).to_be_bytes());
        Ok(count + 1)
    }

    fn without_request(&self) -> u64 {
        0
    }

    fn refused(&self, _: &Put, error: &Error) -> u64 {
        assert!(error.is_invalid_input());
        u64::MAX
    }

    fn time(&self, put: &Put) -> Option<SystemTime> {
        Some(UNIX_EPOCH + Duration::from_secs(put.now))
    }
}

/// The environment of stores on a disk in memory.
pub(super) fn env(twin: &Arc<Twin>) -> Env {
    let (fs, clock) = (Fs::Twin(Arc::clone(twin)), Hands::new().clock());
    Env { fs, clock, hasher: KeyHasher::new, threads: false }
}

/// Small segments, so that there are several.
pub(super) fn options() -> Options {
    Options::new().segment_size(1024)
}

pub(super) fn try_log(twin: &Arc<Twin>) -> Result<LogStore<TestConfig>> {
    LogStore::open_on(&env(twin), Path::new("/log"), options(), 0)
}

pub(super) fn try_state(twin: &Arc<Twin>) -> Result<StateMachine<TestConfig, Counting>> {
    StateMachine::open_on(&env(twin), Path::new("/state"), options(), Counting)
}

pub(super) fn log_id(term: u64, index: u64) -> LogId<u64> {
    LogId::new(CommittedLeaderId::new(term, 0), index)
}

/// An entry that sets a key to a value that tells where it comes from.
pub(super) fn entry(term: u64, index: u64) -> Entry<TestConfig> {
    let key = format!("key {}", index % 5);
    let value = format!("{term}/{index} {}", "x".repeat(50)).into_bytes();
    let put = Put { key, value, now: 1000 + index, ttl: None };
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(put) }
}

pub(super) fn members(term: u64, index: u64, ids: &[u64]) -> Entry<TestConfig> {
    let ids = vec![ids.iter().copied().collect()];
    let payload = EntryPayload::Membership(Membership::new(ids, None));
    Entry { log_id: log_id(term, index), payload }
}

/// Runs what waits for nothing but the disk in memory.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}
