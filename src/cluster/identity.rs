//! Which node of which cluster a directory belongs to: the file `NODE`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::fs::{Access, Fs, parent};

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

/// Maximum size of the file.
const SIZE_MAX: usize = 4096;

impl NodeIdentity {
    /// Reads the file. Returns `None` if there is none, since the node belongs to no cluster yet.
    pub(crate) fn read(fs: &Fs, dir: &Path) -> Result<Option<Self>> {
        let path = dir.join("NODE");
        if !fs.exists(&path) {
            return Ok(None);
        }
        Self::read_at(fs, &path).map(Some)
    }

    fn read_at(fs: &Fs, path: &Path) -> Result<Self> {
        let wrong = |error: serde_json::Error| Error::corrupt(path, 0, error.to_string());
        serde_json::from_slice(&read_file(fs, path)?).map_err(wrong)
    }

    /// Returns what the directory was about to become when it was asked to join a cluster. The
    /// cluster may know it by that already.
    pub(crate) fn begun(fs: &Fs, dir: &Path) -> Result<Option<Self>> {
        let path = dir.join("NODE.new");
        if !fs.exists(&path) {
            return Ok(None);
        }
        // One that is not complete was never durable, so nobody has heard of it.
        Ok(serde_json::from_slice(&read_file(fs, &path)?).ok())
    }

    /// Notes what the directory is about to become. Durable when this returns.
    pub(crate) fn begin(&self, fs: &Fs, dir: &Path) -> Result<()> {
        if Self::begun(fs, dir)? == Some(*self) {
            return Ok(());
        }
        let bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        let file = fs.open(&dir.join("NODE.new"), Access::Create)?;
        // One that a crash has left may be longer.
        file.set_size(0)?;
        file.write_within_limit(&bytes, 0)?;
        file.sync()?;
        // A log that is durable within a directory that is not would be lost with it.
        fs.sync_dir(dir)?;
        fs.sync_dir(parent(dir))
    }

    /// Writes the file. Durable when this returns.
    pub(crate) fn write(&self, fs: &Fs, dir: &Path) -> Result<()> {
        self.begin(fs, dir)?;
        fs.rename(&dir.join("NODE.new"), &dir.join("NODE"))?;
        fs.sync_dir(dir)
    }
}

fn read_file(fs: &Fs, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = vec![0; SIZE_MAX];
    let size = fs.open(path, Access::Read)?.read_at(&mut bytes, 0)?;
    bytes.truncate(size);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::twin::{Call, Fault, FaultKind, Twin};

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
        let file = Fs::DISK.open(&dir.path().join("NODE"), Access::Keep).unwrap();
        file.write_within_limit(b"[", 0).unwrap();
        assert!(
            NodeIdentity::read(&Fs::DISK, dir.path()).unwrap_err().to_string().contains("NODE")
        );
    }

    #[test]
    fn an_identity_outlives_the_power_with_its_directory() {
        let twin = Twin::new();
        let (fs, dir) = (Fs::Twin(Arc::clone(&twin)), Path::new("/data/node"));
        fs.create_dirs(dir).unwrap();
        let identity =
            NodeIdentity { node: 1, cluster: 2, shards: 3, is_founder: true, incarnation: 4 };
        identity.write(&fs, dir).unwrap();
        let left = Fs::Twin(twin.power_image(twin.op_count(), |_| false));
        assert_eq!(NodeIdentity::read(&left, dir).unwrap(), Some(identity));
    }

    #[test]
    fn a_note_that_cannot_be_read_is_not_taken_for_none() {
        let twin = Twin::new();
        let (fs, dir) = (Fs::Twin(Arc::clone(&twin)), Path::new("/node"));
        fs.create_dirs(dir).unwrap();
        let identity =
            NodeIdentity { node: 1, cluster: 2, shards: 3, is_founder: false, incarnation: 4 };
        identity.begin(&fs, dir).unwrap();
        twin.fail(Fault::new(FaultKind::Eio).only(Call::ReadAt));
        assert!(NodeIdentity::begun(&fs, dir).is_err());
        assert_eq!(NodeIdentity::begun(&fs, dir).unwrap(), Some(identity));
    }

    #[test]
    fn what_a_directory_is_about_to_become_outlives_the_power() {
        let twin = Twin::new();
        let (fs, dir) = (Fs::Twin(Arc::clone(&twin)), Path::new("/node"));
        fs.create_dirs(dir).unwrap();
        assert_eq!(NodeIdentity::begun(&fs, dir).unwrap(), None);
        let identity =
            NodeIdentity { node: 1, cluster: 2, shards: 3, is_founder: false, incarnation: 4 };
        identity.begin(&fs, dir).unwrap();
        let begun = twin.op_count();
        identity.begin(&fs, dir).unwrap();
        identity.write(&fs, dir).unwrap();
        // At each moment from then on, one of the two says so.
        for ops in begun..=twin.op_count() {
            let left = Fs::Twin(twin.power_image(ops, |_| false));
            let read = NodeIdentity::read(&left, dir).unwrap();
            assert_eq!(read.or_else(|| NodeIdentity::begun(&left, dir).unwrap()), Some(identity));
        }
    }
}
