//! Which directories of a state machine count: the file `CURRENT`.
//!
//! | name | content |
//! | --- | --- |
//! | `CURRENT` | names the store and the snapshot |
//! | `LOCK` | locked while the state is open |
//! | `state-N` | a store, to which entries are applied |
//! | `snapshot-N` | a copy of a store, whose files never change |
//! | `incoming-N` | a snapshot that is being received |
//!
//! - A directory counts from the moment at which `CURRENT`, durably, names it. It is complete and
//!   durable before that. Directories that `CURRENT` does not name are what a crash has left, and
//!   are removed.
//! - `CURRENT` consists of 8 bytes that identify it, the names in the encoding of `encoding`, and a
//!   CRC-32 of both, big-endian. It is replaced as a whole.
//! - If `CURRENT` is missing although a state was in use, or if it names what does not exist, that
//!   is damage. A node that took it for an empty state would forget what it has promised.

use std::path::{Path, PathBuf};

use openraft::{RaftTypeConfig, SnapshotMeta};
use serde::{Deserialize, Serialize};

use super::files::has_manifest;
use crate::error::{Error, Result};
use crate::fs::{Fs, read_whole};
use crate::mistake::{Mistake, made};
use crate::raft::encoding::{decode, encode};

/// The first bytes of `CURRENT`.
const MAGIC: &[u8; 8] = b"BCRAFT01";

/// Maximum size of `CURRENT` in bytes. It holds a membership.
const SIZE_MAX: u64 = 16 << 20;

/// What `CURRENT` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct Pointer<C: RaftTypeConfig> {
    /// The number of the store's directory.
    pub(super) state: u64,
    pub(super) snapshot: Option<SnapshotRecord<C>>,
}

/// The current snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct SnapshotRecord<C: RaftTypeConfig> {
    /// The number of its directory.
    pub(super) number: u64,
    pub(super) meta: SnapshotMeta<C::NodeId, C::Node>,
}

/// The directory of a state machine.
#[derive(Debug, Clone)]
pub(super) struct StateDir {
    pub(super) fs: Fs,
    pub(super) path: PathBuf,
}

/// What a directory in that of a state machine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DirRole {
    State,
    Snapshot,
    Incoming,
}

impl DirRole {
    const ALL: [Self; 3] = [Self::State, Self::Snapshot, Self::Incoming];

    fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Snapshot => "snapshot",
            Self::Incoming => "incoming",
        }
    }
}

impl StateDir {
    pub(super) fn join(&self, role: DirRole, number: u64) -> PathBuf {
        self.path.join(format!("{}-{number}", role.name()))
    }

    fn current(&self) -> PathBuf {
        self.path.join("CURRENT")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.path.join("LOCK")
    }

    /// Returns the directories that exist.
    pub(super) fn directories(&self) -> Result<Vec<(DirRole, u64)>> {
        let entries = self.fs.list(&self.path)?;
        let parsed = entries.iter().filter(|entry| !entry.is_file).filter_map(|entry| {
            let (name, number) = entry.name.split_once('-')?;
            let role = DirRole::ALL.into_iter().find(|role| role.name() == name)?;
            let number: u64 = number.parse().ok()?;
            // Nothing is removed that has another name.
            (entry.name == format!("{}-{number}", role.name())).then_some((role, number))
        });
        Ok(parsed.collect())
    }

    /// Returns a number that no directory has.
    pub(super) fn free_number(&self) -> Result<u64> {
        let last = self.directories()?.into_iter().map(|(_, number)| number).max();
        Ok(last.map_or(1, |last| last.saturating_add(1)))
    }

    /// Reads `CURRENT`, if there is one.
    pub(super) fn read<C: RaftTypeConfig>(&self) -> Result<Option<Pointer<C>>> {
        let path = self.current();
        let Some(file) = self.fs.open_if_exists(&path)? else { return Ok(None) };
        let bytes = read_whole(&file, SIZE_MAX)?;
        let damaged = |reason: &str| Error::corrupt(&path, 0, reason);
        let (content, sum) =
            bytes.split_last_chunk::<4>().ok_or_else(|| damaged("it is too short"))?;
        if crc32fast::hash(content) != u32::from_be_bytes(*sum) {
            return Err(damaged("its checksum is wrong"));
        }
        let names = content.strip_prefix(MAGIC).ok_or_else(|| damaged("it is of another kind"))?;
        let pointer: Pointer<C> =
            decode(b"CURRENT", names).map_err(|error| damaged(&error.to_string()))?;
        self.check(&path, &pointer)?;
        Ok(Some(pointer))
    }

    fn check<C: RaftTypeConfig>(&self, path: &Path, pointer: &Pointer<C>) -> Result<()> {
        let snapshot = pointer.snapshot.as_ref().map(|it| (DirRole::Snapshot, it.number));
        for (role, number) in [(DirRole::State, pointer.state)].into_iter().chain(snapshot) {
            let named = self.join(role, number);
            if self.fs.is_dir(&named)? != Some(true) || !has_manifest(&self.fs, &named) {
                let name = named.file_name().unwrap_or_default().to_string_lossy();
                let reason = format!("it names {name}, which is not there or has no manifest");
                return Err(Error::corrupt(path, 0, reason));
            }
        }
        Ok(())
    }

    /// Makes other directories count. They are complete and durable.
    pub(super) fn write<C: RaftTypeConfig>(&self, pointer: &Pointer<C>) -> Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(encode(b"CURRENT", pointer)?);
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        // The names of the directories first.
        if !made(Mistake::RaftPointerEarly) {
            self.fs.sync_dir(&self.path)?;
        }
        self.fs.replace(&self.current(), &self.path.join("CURRENT.tmp"), &bytes)
    }
}
