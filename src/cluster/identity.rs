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

/// Maximum size of the file.
const SIZE_MAX: usize = 4096;

impl NodeIdentity {
    /// Reads the file. Returns `None` if there is none, since the node belongs to no cluster yet.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join("NODE");
        if !Fs::DISK.exists(&path) {
            return Ok(None);
        }
        let file = Fs::DISK.open(&path, Access::Read)?;
        let mut bytes = vec![0; SIZE_MAX];
        let size = file.read_at(&mut bytes, 0)?;
        bytes.truncate(size);
        let wrong = |error: serde_json::Error| Error::corrupt(&path, 0, error.to_string());
        serde_json::from_slice(&bytes).map(Some).map_err(wrong)
    }

    /// Writes the file. Durable when this returns.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let (path, new) = (dir.join("NODE"), dir.join("NODE.new"));
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
        identity.write(dir.path()).unwrap();
        identity.write(dir.path()).unwrap();
        assert_eq!(NodeIdentity::read(dir.path()).unwrap(), Some(identity));
        let file = Fs::DISK.open(&dir.path().join("NODE"), Access::Keep).unwrap();
        file.write_within_limit(b"[", 0).unwrap();
        assert!(NodeIdentity::read(dir.path()).unwrap_err().to_string().contains("NODE"));
    }
}
