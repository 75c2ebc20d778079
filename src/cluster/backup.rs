//! Copies a cluster to a directory, and puts such a copy into a cluster.
//!
//! - A backup has a directory for each group, `group-N`, which is a complete store, and the file
//!   `CLUSTER`. That one is written last: without it, the backup is not complete.
//! - To restore is to put all keys again, by requests like those of clients. So the cluster may
//!   have other nodes and another number of shards.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::admin::ClusterAdmin;
use super::consensus::Request;
use super::error::ClusterError;
use super::map::MAP_GROUP;
use super::network::messages::{PeerAnswer, PeerRequest, WriteOutcome};
use crate::fs::{self, Access, Fs};
use crate::options::Options;
use crate::resp::{CommandsRequest, decode_key, put_again, slot_of};
use crate::store::ReadOnly;

/// Name of the file that completes a backup.
const NAME: &str = "CLUSTER";
/// Maximum size of that file, in bytes.
const SIZE_MAX: usize = 1 << 20;
/// Version of its contents.
const VERSION: u32 = 1;
/// Time for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// How long a shard may have no leader before a restore gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Size of commands that are sent together, in bytes.
const BATCH_SIZE: usize = 1 << 20;

/// What the file says.
#[derive(Debug, Serialize, Deserialize)]
struct BackupContents {
    version: u32,
    shards: u16,
    /// The last entry of each group, from group 0 on.
    indexes: Vec<u64>,
}

fn odd<T>() -> Result<T, ClusterError> {
    Err(ClusterError::Refused("the answer is not that to the question".to_owned()))
}

impl ClusterAdmin {
    /// Copies all groups from the node to a new directory, each as a complete store, and makes the
    /// copy durable. Each is of a moment after this call has begun; the moments of the groups
    /// differ. Service goes on.
    ///
    /// # Errors
    ///
    /// [`Refused`](ClusterError::Refused) if the directory exists, errors of the disk as
    /// [`Failed`](ClusterError::Failed), and those of [`join`](Self::join).
    pub fn backup(&self, dir: impl AsRef<Path>) -> Result<(), ClusterError> {
        // The parent of a single word has no name, and has to be synced.
        let dir = &*fs::absolute(dir.as_ref())?;
        if Fs::DISK.exists(dir) {
            return Err(ClusterError::Refused(format!("{} exists", dir.display())));
        }
        let shards = self.status()?.shards;
        let none = || ClusterError::Refused("the node belongs to no cluster".to_owned());
        let shards = shards.ok_or_else(none)?;
        let mut indexes = Vec::new();
        for group in MAP_GROUP..=u64::from(shards) {
            indexes.push(self.copy_group(group, &dir.join(format!("group-{group}")))?);
        }
        let contents = BackupContents { version: VERSION, shards, indexes };
        let bytes = serde_json::to_vec_pretty(&contents).unwrap_or_default();
        let file = Fs::DISK.open(&dir.join(NAME), Access::Create)?;
        file.write_within_limit(&bytes, 0)?;
        file.sync()?;
        Fs::DISK.sync_dir(dir)?;
        Ok(Fs::DISK.sync_dir(fs::parent(dir))?)
    }

    /// Copies the files of a group. Returns the index of its last entry.
    fn copy_group(&self, group: u64, dir: &Path) -> Result<u64, ClusterError> {
        let lent = self.ask_here(group, &PeerRequest::LendSnapshot)?;
        let PeerAnswer::SnapshotLent { snapshot, index, files } = lent else { return odd() };
        Fs::DISK.create_dirs(dir)?;
        for lent in files {
            // The node has the secret of the cluster, but no say in where files are written.
            if lent.name.contains(['/', '\\']) || lent.name.starts_with('.') {
                return odd();
            }
            let file = Fs::DISK.open(&dir.join(&lent.name), Access::Create)?;
            let mut offset = 0;
            while offset < lent.size {
                let name = lent.name.clone();
                let piece =
                    self.ask_here(group, &PeerRequest::GetPiece { snapshot, name, offset })?;
                let PeerAnswer::Piece(bytes) = piece else { return odd() };
                if bytes.is_empty() {
                    let text = format!("{} ends at {offset}, before its size", lent.name);
                    return Err(ClusterError::Failed(text));
                }
                file.write_within_limit(&bytes, offset)?;
                offset += bytes.len() as u64;
            }
            file.sync()?;
        }
        Fs::DISK.sync_dir(dir)?;
        self.ask_here(group, &PeerRequest::ReturnSnapshot)?;
        Ok(index)
    }

    fn ask_here(&self, group: u64, request: &PeerRequest) -> Result<PeerAnswer, ClusterError> {
        self.ask(&self.address, group, request, ANSWER_TIME)
    }

    /// Puts all keys of a [backup](Self::backup) into the cluster, whatever its number of shards.
    /// What the cluster has under other keys stays. Returns how many keys there were. A restore
    /// that was interrupted can be begun again.
    ///
    /// # Errors
    ///
    /// [`Refused`](ClusterError::Refused) if the directory has no complete backup, or the cluster
    /// refuses a key; errors of the disk as [`Failed`](ClusterError::Failed), and those of
    /// [`join`](Self::join).
    pub fn restore(&self, dir: impl AsRef<Path>) -> Result<u64, ClusterError> {
        let dir = dir.as_ref();
        let contents = read_contents(dir)?;
        let known = self.ask_here(MAP_GROUP, &PeerRequest::GetMap)?;
        let PeerAnswer::Cluster(known) = known else { return odd() };
        let mut sending =
            SentBatches { admin: self, leaders: BTreeMap::new(), batches: BTreeMap::new() };
        let mut count = 0;
        for group in 1..=contents.shards {
            let store = ReadOnly::open(dir.join(format!("group-{group}")), Options::default())?;
            for stored_key in store.keys_unordered() {
                let stored_key = stored_key?;
                let Some(key) = decode_key(&stored_key) else { continue };
                let target = known.map.group_of(slot_of(key));
                let is_put = put_again(&store, &stored_key, |command| sending.add(target, command));
                count += u64::from(is_put?);
            }
        }
        sending.send_all()?;
        Ok(count)
    }
}

fn read_contents(dir: &Path) -> Result<BackupContents, ClusterError> {
    let path = dir.join(NAME);
    let refused = |reason: String| ClusterError::Refused(format!("{}: {reason}", path.display()));
    if !Fs::DISK.exists(&path) {
        return Err(refused("there is no complete backup of a cluster".to_owned()));
    }
    let mut bytes = vec![0; SIZE_MAX];
    let size = Fs::DISK.open(&path, Access::Read)?.read_at(&mut bytes, 0)?;
    bytes.truncate(size);
    let contents: BackupContents =
        serde_json::from_slice(&bytes).map_err(|error| refused(error.to_string()))?;
    if contents.version == VERSION {
        Ok(contents)
    } else {
        Err(refused("it is of a newer version".to_owned()))
    }
}

/// Commands that wait to be sent to the leaders of their groups.
struct SentBatches<'a> {
    admin: &'a ClusterAdmin,
    /// Where the leaders are, as far as known.
    leaders: BTreeMap<u64, String>,
    /// The commands, and their size.
    batches: BTreeMap<u64, (Vec<Vec<Bytes>>, usize)>,
}

impl SentBatches<'_> {
    fn add(&mut self, group: u64, command: Vec<Bytes>) -> Result<(), ClusterError> {
        let (commands, size) = self.batches.entry(group).or_default();
        *size += command.iter().map(Bytes::len).sum::<usize>();
        commands.push(command);
        if *size < BATCH_SIZE {
            return Ok(());
        }
        let commands = std::mem::take(commands);
        *size = 0;
        self.send(group, commands)
    }

    fn send_all(&mut self) -> Result<(), ClusterError> {
        for (group, (commands, _)) in std::mem::take(&mut self.batches) {
            self.send(group, commands)?;
        }
        Ok(())
    }

    /// Has commands run by the leader of a group. They may run twice.
    fn send(&mut self, group: u64, commands: Vec<Vec<Bytes>>) -> Result<(), ClusterError> {
        if commands.is_empty() {
            return Ok(());
        }
        let request = CommandsRequest::new(commands, Vec::new());
        let request = PeerRequest::Write(Request::Commands(request));
        let until = Instant::now() + PATIENCE;
        loop {
            let address = self.leaders.get(&group).unwrap_or(&self.admin.address).clone();
            let failure = match self.admin.try_ask(&address, group, &request, ANSWER_TIME) {
                Ok(PeerAnswer::Written(WriteOutcome::Replies(Some(replies)))) => {
                    for reply in replies {
                        reply.into_number().map_err(ClusterError::Refused)?;
                    }
                    return Ok(());
                }
                Ok(
                    PeerAnswer::Written(WriteOutcome::Refused(reason)) | PeerAnswer::Failed(reason),
                ) => {
                    return Err(ClusterError::Refused(reason));
                }
                Ok(PeerAnswer::AskLeader { address: Some(address), .. }) => {
                    self.leaders.insert(group, address);
                    ClusterError::NotLeader { leader: None }
                }
                Ok(PeerAnswer::Written(_) | PeerAnswer::AskLeader { .. }) => {
                    ClusterError::NotLeader { leader: None }
                }
                Ok(_) => return odd(),
                Err(error) => {
                    self.leaders.remove(&group);
                    error
                }
            };
            if Instant::now() > until {
                return Err(failure);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
