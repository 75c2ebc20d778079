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
        let file = fs.open(&path, Access::Read)?;
        let mut bytes = vec![0; SIZE_MAX];
        let size = file.read_at(&mut bytes, 0)?;
        bytes.truncate(size);
        let wrong = |error: serde_json::Error| Error::corrupt(&path, 0, error.to_string());
        serde_json::from_slice(&bytes).map(Some).map_err(wrong)
    }

    /// Writes the file. Durable when this returns.
    pub(crate) fn write(&self, fs: &Fs, dir: &Path) -> Result<()> {
        let (path, new) = (dir.join("NODE"), dir.join("NODE.new"));
        let bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        let file = fs.open(&new, Access::Create)?;
        // One that a crash has left may be longer.
        file.set_size(0)?;
        file.write_within_limit(&bytes, 0)?;
        file.sync()?;
        fs.rename(&new, &path)?;
        // A log that is durable within a directory that is not would be lost with it.
        fs.sync_dir(parent(&path))?;
        fs.sync_dir(parent(dir))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::twin::Twin;

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
}
