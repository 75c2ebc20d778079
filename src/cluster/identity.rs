//! Which node of which cluster a directory belongs to: the file `NODE`.
//!
//! The log is created before the file. So a directory that has the file and no log has lost it,
//! with votes and entries that the others count on.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::consensus::Consensus;
use super::map::{MAP_GROUP, SHARDS_MAX};
use super::options::ClusterOptions;
use crate::error::{Error, Result};
use crate::fs::{Fs, parent, read_whole};
use crate::raft::LogStore;

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeIdentity {
    pub(crate) node: u64,
    pub(crate) cluster: u128,
    /// Number of shards of the cluster.
    pub(crate) shards: u16,
    /// Whether this node has founded the cluster. Any other has joined it.
    pub(crate) is_founder: bool,
    /// A random number that tells this directory from others of the same node.
    pub(crate) incarnation: u128,
}

/// Maximum size of the file in bytes.
const SIZE_MAX: u64 = 4096;

/// Size in bytes of the last line: the CRC-32 of what is before it, in hexadecimal digits.
const SUM_SIZE: usize = 10;

impl NodeIdentity {
    /// Reads the file. Returns `None` if there is none, since the node belongs to no cluster yet.
    pub(crate) fn read(fs: &Fs, dir: &Path) -> Result<Option<Self>> {
        Self::read_at(fs, &dir.join("NODE"))
    }

    /// Returns what the directory was about to become when it was asked to join a cluster. The
    /// cluster may know it by that already.
    pub(crate) fn begun(fs: &Fs, dir: &Path) -> Result<Option<Self>> {
        Self::read_at(fs, &dir.join("NODE.new"))
    }

    fn read_at(fs: &Fs, path: &Path) -> Result<Option<Self>> {
        let Some(file) = fs.open_if_exists(path)? else { return Ok(None) };
        let bytes = read_whole(&file, SIZE_MAX)?;
        Self::decode(&bytes).map(Some).map_err(|reason| Error::corrupt(path, 0, reason))
    }

    /// Notes what the directory is about to become. Durable when this returns, also if it was noted
    /// before by a call that has failed: the file is always a new one, since a second sync of one
    /// whose first has failed says nothing.
    ///
    /// Refuses a directory that has the log or the map of a node that it says nothing of.
    pub(crate) fn begin(&self, fs: &Fs, dir: &Path) -> Result<()> {
        if Self::begun(fs, dir)?.is_none() {
            refuse_lost(fs, dir)?;
        }
        fs.replace(&dir.join("NODE.new"), &dir.join("NODE.tmp"), &self.encode())?;
        // A log that is durable within a directory that is not would be lost with it.
        fs.sync_dir(parent(dir))
    }

    /// Writes the file. Durable when this returns.
    pub(crate) fn write(&self, fs: &Fs, dir: &Path) -> Result<()> {
        self.begin(fs, dir)?;
        fs.rename(&dir.join("NODE.new"), &dir.join("NODE"))?;
        fs.sync_dir(dir)
    }

    /// Creates the log, and writes the file. Durable when this returns. Does nothing but the second
    /// if there is a file, also without a log.
    pub(crate) fn settle(&self, options: &ClusterOptions) -> Result<()> {
        let (fs, dir) = (&options.env.fs, &options.dir);
        self.begin(fs, dir)?;
        if Self::read(fs, dir)?.is_none() {
            drop(log(options, true)?);
        }
        self.write(fs, dir)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        let sum = sum_of(&bytes);
        bytes.extend(sum.into_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (fields, sum) = bytes.split_last_chunk::<SUM_SIZE>().ok_or("it is too short")?;
        if sum_of(fields).as_bytes() != sum {
            return Err("its checksum is wrong".to_owned());
        }
        let identity: Self = serde_json::from_slice(fields).map_err(|error| error.to_string())?;
        if !(1..=SHARDS_MAX).contains(&identity.shards) {
            return Err(format!("no cluster has {} shards", identity.shards));
        }
        Ok(identity)
    }
}

/// Removes what a node that has the file was about to become once more. Otherwise that could be
/// taken for the beginning of a new node if the file is lost.
pub(crate) fn forget_begun(options: &ClusterOptions) -> Result<()> {
    options.env.fs.remove(&options.dir.join("NODE.new"))
}

/// Opens the log of a node that has the file.
pub(crate) fn open_log(options: &ClusterOptions) -> Result<LogStore<Consensus>> {
    log(options, false).map_err(|error| match error {
        Error::NotFound { path } => {
            let reason =
                "the log of this node is not there, and with it what the node has promised";
            Error::corrupt(&path, 0, reason)
        }
        error => error,
    })
}

fn log(options: &ClusterOptions, is_new: bool) -> Result<LogStore<Consensus>> {
    let store = options.store.clone().create_if_missing(is_new);
    LogStore::open_on(&options.env, &options.dir.join("log"), store, MAP_GROUP)
}

/// Returns the last line of a file with this content.
fn sum_of(fields: &[u8]) -> String {
    format!("\n{:08x}\n", crc32fast::hash(fields))
}

/// Refuses a directory whose `NODE` was lost. Under another identity, its node would forget what it
/// has promised.
fn refuse_lost(fs: &Fs, dir: &Path) -> Result<()> {
    let path = dir.join("NODE");
    if fs.open_if_exists(&path)?.is_some() {
        return Ok(());
    }
    for name in ["log", "group-0"] {
        if fs.is_dir(&dir.join(name))?.is_some() {
            return Err(Error::corrupt(&path, 0, format!("it is missing, but {name} is there")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::Access;
    use crate::testing::twin::{Call, Fault, FaultKind, Twin};

    const IDENTITY: NodeIdentity =
        NodeIdentity { node: 1, cluster: 2, shards: 3, is_founder: false, incarnation: 4 };

    fn disk() -> (Arc<Twin>, Fs, &'static Path) {
        let twin = Twin::new();
        let (fs, dir) = (Fs::Twin(Arc::clone(&twin)), Path::new("/data/node"));
        fs.create_dirs(dir).unwrap();
        (twin, fs, dir)
    }

    #[test]
    fn an_identity_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(NodeIdentity::read(&Fs::DISK, dir.path()).unwrap(), None);
        let identity = NodeIdentity {
            node: 3,
            cluster: u128::MAX,
            shards: 16,
            is_founder: true,
            incarnation: 5,
        };
        identity.write(&Fs::DISK, dir.path()).unwrap();
        identity.write(&Fs::DISK, dir.path()).unwrap();
        assert_eq!(NodeIdentity::read(&Fs::DISK, dir.path()).unwrap(), Some(identity));
    }

    /// A digit that has changed would be another number of groups, or another cluster.
    #[test]
    fn damage_is_noticed() {
        let bytes = IDENTITY.encode();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            for damaged in [&changed[..], &bytes[..at]] {
                let (_, fs, dir) = disk();
                let file = fs.open(&dir.join("NODE"), Access::Create).unwrap();
                file.write_within_limit(damaged, 0).unwrap();
                let error = NodeIdentity::read(&fs, dir).unwrap_err();
                assert!(error.is_corruption() && error.to_string().contains("/data/node/NODE"));
            }
        }
        for shards in [0, SHARDS_MAX + 1] {
            let bytes = NodeIdentity { shards, ..IDENTITY }.encode();
            assert!(NodeIdentity::decode(&bytes).unwrap_err().contains("shards"));
        }
    }

    #[test]
    fn an_identity_outlives_the_power_with_its_directory() {
        let (twin, fs, dir) = disk();
        IDENTITY.write(&fs, dir).unwrap();
        let left = Fs::Twin(twin.power_image(twin.op_count(), |_| false));
        assert_eq!(NodeIdentity::read(&left, dir).unwrap(), Some(IDENTITY));
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_none() {
        let (twin, fs, dir) = disk();
        let read = [NodeIdentity::begun, NodeIdentity::read];
        for (read, write) in read.into_iter().zip([NodeIdentity::begin, NodeIdentity::write]) {
            write(&IDENTITY, &fs, dir).unwrap();
            for call in [Call::Open, Call::ReadAt] {
                twin.fail(Fault::new(FaultKind::Eio).only(call));
                assert!(read(&fs, dir).is_err());
                assert_eq!(read(&fs, dir).unwrap(), Some(IDENTITY));
            }
        }
    }

    #[test]
    fn what_a_directory_is_about_to_become_outlives_the_power() {
        let (twin, fs, dir) = disk();
        assert_eq!(NodeIdentity::begun(&fs, dir).unwrap(), None);
        IDENTITY.begin(&fs, dir).unwrap();
        let begun = twin.op_count();
        IDENTITY.begin(&fs, dir).unwrap();
        IDENTITY.write(&fs, dir).unwrap();
        // At each moment from then on, one of the two says so.
        for ops in begun..=twin.op_count() {
            let left = Fs::Twin(twin.power_image(ops, |_| false));
            let read = NodeIdentity::read(&left, dir).unwrap();
            assert_eq!(read.or_else(|| NodeIdentity::begun(&left, dir).unwrap()), Some(IDENTITY));
        }
    }

    /// The node joins once more after the error, and the cluster hears of it.
    #[test]
    fn what_is_noted_after_an_error_outlives_the_power() {
        for call in [Call::Sync, Call::SyncDir] {
            for after in 0..3 {
                let (twin, fs, dir) = disk();
                twin.fail(Fault::new(FaultKind::Eio).only(call).after(after));
                if IDENTITY.begin(&fs, dir).is_ok() {
                    twin.clear_fault();
                }
                IDENTITY.begin(&fs, dir).unwrap();
                let left = Fs::Twin(twin.power_image(twin.op_count(), |_| false));
                assert_eq!(NodeIdentity::begun(&left, dir).unwrap(), Some(IDENTITY));
            }
        }
    }

    #[test]
    fn a_directory_whose_file_was_lost_does_not_become_another() {
        for name in ["log", "group-0"] {
            let (_, fs, dir) = disk();
            IDENTITY.write(&fs, dir).unwrap();
            fs.create_dir(&dir.join(name)).unwrap();
            // This one is known.
            IDENTITY.write(&fs, dir).unwrap();
            fs.remove(&dir.join("NODE")).unwrap();
            let error = IDENTITY.begin(&fs, dir).unwrap_err().to_string();
            assert!(error.contains(&format!("it is missing, but {name} is there")), "{error}");
        }
    }
}
