//! Copies a cluster to a directory.
//!
//! A backup has a directory for each group, `group-N`, which is a complete store, and the file
//! `CLUSTER`. That one is written last: without it, the backup is not complete.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::admin::ClusterAdmin;
use super::error::ClusterError;
use super::map::MAP_GROUP;
use super::network::messages::{LentFile, PeerAnswer, PeerRequest};
use super::status::NodeStatus;
use crate::fs::{self, Access, Fs};

/// Name of the file that completes a backup.
const NAME: &str = "CLUSTER";
/// Maximum size of that file, in bytes.
const SIZE_MAX: usize = 1 << 20;
/// Version of its contents.
const VERSION: u32 = 1;
/// Time in which a node has to copy a group: where it cannot link files, all of them.
const COPY_TIME: Duration = Duration::from_secs(600);
/// Time between two attempts.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// What the file says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BackupContents {
    version: u32,
    pub(super) shards: u16,
    /// The last entry of each group, from group 0 on.
    indexes: Vec<u64>,
}

/// Says which group has failed.
pub(super) fn of_group(group: u64, failure: &ClusterError) -> ClusterError {
    let text = format!("group {group}: {failure}");
    if matches!(failure, ClusterError::Refused(_)) {
        ClusterError::Refused(text)
    } else {
        ClusterError::Failed(text)
    }
}

/// Returns the error for an answer that is none to the question.
pub(super) fn odd(question: &str) -> ClusterError {
    ClusterError::Refused(format!("the answer to {question} is one to another question"))
}

impl ClusterAdmin {
    /// Copies all groups from the node to a new directory, each as a complete store, and makes the
    /// copy durable. Each is of a moment after this call has begun; the moments of the groups
    /// differ. Service goes on.
    ///
    /// # Errors
    ///
    /// [`Refused`](ClusterError::Refused) if the directory exists, errors of the disk as
    /// [`Failed`](ClusterError::Failed), and those of [`join`](Self::join). What was copied before
    /// stays, and is not complete.
    pub fn backup(&self, dir: impl AsRef<Path>) -> Result<(), ClusterError> {
        // The parent of a single word has no name, and has to be synced.
        let dir = &*fs::absolute(dir.as_ref())?;
        if Fs::DISK.exists(dir) {
            return Err(ClusterError::Refused(format!("{} exists", dir.display())));
        }
        let status = self.ask_patiently(MAP_GROUP, &PeerRequest::Status, self.answer_time)?;
        let PeerAnswer::Status(NodeStatus { shards, .. }) = status else {
            return Err(odd("the question for the status"));
        };
        let none = || ClusterError::Refused("this node belongs to no cluster".to_owned());
        let shards = shards.ok_or_else(none)?;
        let mut indexes = Vec::new();
        for group in MAP_GROUP..=u64::from(shards) {
            let copied = self.copy_group(group, &dir.join(format!("group-{group}")));
            indexes.push(copied.map_err(|failure| of_group(group, &failure))?);
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
        let lent = self.ask_patiently(group, &PeerRequest::LendCopy, COPY_TIME)?;
        let PeerAnswer::CopyLent { copy, index, files } = lent else {
            return Err(odd("the question for a copy"));
        };
        Fs::DISK.create_dirs(dir)?;
        let fetched = files.iter().try_for_each(|file| self.fetch(group, copy, file, dir));
        // The node removes what is not returned, only later.
        let returned = PeerRequest::ReturnCopy { copy };
        drop(self.ask(&self.address, group, &returned, self.answer_time));
        fetched?;
        Fs::DISK.sync_dir(dir)?;
        Ok(index)
    }

    /// Copies a file of a group.
    fn fetch(
        &self,
        group: u64,
        copy: u64,
        lent: &LentFile,
        dir: &Path,
    ) -> Result<(), ClusterError> {
        // The node has the secret of the cluster, but no say in where files are written.
        if lent.name.contains(['/', '\\']) || lent.name.starts_with('.') {
            return Err(odd("the question for a copy"));
        }
        let file = Fs::DISK.open(&dir.join(&lent.name), Access::Create)?;
        let mut offset = 0;
        while offset < lent.size {
            let piece = PeerRequest::GetPiece { copy, name: lent.name.clone(), offset };
            let PeerAnswer::Piece(bytes) = self.ask_patiently(group, &piece, self.answer_time)?
            else {
                return Err(odd("the question for a piece of a file"));
            };
            if bytes.is_empty() {
                let text = format!("{} ends at {offset}, before its size", lent.name);
                return Err(ClusterError::Failed(text));
            }
            file.write_within_limit(&bytes, offset)?;
            offset += bytes.len() as u64;
        }
        Ok(file.sync()?)
    }

    /// Asks the node, and again while it cannot be reached, or knows no leader.
    pub(super) fn ask_patiently(
        &self,
        group: u64,
        request: &PeerRequest,
        time: Duration,
    ) -> Result<PeerAnswer, ClusterError> {
        let until = Instant::now() + self.patience;
        loop {
            let answer = self.ask(&self.address, group, request, time);
            let may_change = matches!(
                answer,
                Err(ClusterError::Failed(_) | ClusterError::NotLeader { .. } | ClusterError::Busy)
            );
            match answer {
                _ if may_change && Instant::now() < until => {
                    std::thread::sleep(PAUSE);
                }
                answer => return answer,
            }
        }
    }
}

/// Reads the file that completes a backup.
pub(super) fn read_contents(dir: &Path) -> Result<BackupContents, ClusterError> {
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
