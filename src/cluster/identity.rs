//! Which node of which cluster a directory belongs to: the file `NODE`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::fs::{self, Access, Fs};

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

/// Name of the file.
const NAME: &str = "NODE";
/// Name of the file of a node that has begun to join a cluster.
const JOINING_NAME: &str = "NODE.joining";
/// Maximum size of the file.
const SIZE_MAX: usize = 4096;

impl NodeIdentity {
    /// Reads the file. Returns `None` if there is none, since the node belongs to no cluster yet.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        Self::read_from(&dir.join(NAME))
    }

    /// Reads what the node was about to be when it began to join a cluster.
    pub(crate) fn read_joining(dir: &Path) -> Result<Option<Self>> {
        Self::read_from(&dir.join(JOINING_NAME))
    }

    fn read_from(path: &Path) -> Result<Option<Self>> {
        if !Fs::DISK.exists(path) {
            return Ok(None);
        }
        let file = Fs::DISK.open(path, Access::Read)?;
        let mut bytes = vec![0; SIZE_MAX];
        let size = file.read_at(&mut bytes, 0)?;
        bytes.truncate(size);
        let wrong = |error: serde_json::Error| Error::corrupt(path, 0, error.to_string());
        serde_json::from_slice(&bytes).map(Some).map_err(wrong)
    }

    /// Writes the file. Durable when this returns.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        self.write_to(dir, NAME)
    }

    /// Notes what the node is about to be. The cluster learns its incarnation before it belongs to
    /// it, and a join that is repeated has to come with the same.
    pub(crate) fn write_joining(&self, dir: &Path) -> Result<()> {
        self.write_to(dir, JOINING_NAME)
    }

    fn write_to(&self, dir: &Path, name: &str) -> Result<()> {
        let (path, new) = (dir.join(name), dir.join(format!("{name}.new")));
        let bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        let file = Fs::DISK.open(&new, Access::Create)?;
        // One that a crash has left may be longer.
        file.set_size(0)?;
        file.write_within_limit(&bytes, 0)?;
        file.sync()?;
        Fs::DISK.rename(&new, &path)?;
        Fs::DISK.sync_dir(fs::parent(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(NodeIdentity::read(dir.path()).unwrap(), None);
        let identity = NodeIdentity {
            node: 3,
            cluster: u128::MAX,
            shards: 16,
            is_founder: true,
            incarnation: 5,
        };
        identity.write_joining(dir.path()).unwrap();
        assert_eq!(NodeIdentity::read(dir.path()).unwrap(), None);
        assert_eq!(NodeIdentity::read_joining(dir.path()).unwrap(), Some(identity));
        identity.write(dir.path()).unwrap();
        identity.write(dir.path()).unwrap();
        assert_eq!(NodeIdentity::read(dir.path()).unwrap(), Some(identity));
        let file = Fs::DISK.open(&dir.path().join("NODE"), Access::Keep).unwrap();
        file.write_within_limit(b"[", 0).unwrap();
        assert!(NodeIdentity::read(dir.path()).unwrap_err().to_string().contains("NODE"));
    }
}
