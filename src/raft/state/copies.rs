//! Copies of the state for those outside of Raft, which hears nothing of them.

use std::path::Path;
use std::sync::Arc;

use openraft::{LogIdOptionExt as _, RaftTypeConfig};

use super::StateMachine;
use super::apply::applied_to;
use super::files::SnapshotFiles;
use super::owned_dir::OwnedDir;
use super::pointer::DirRole;
use crate::clock::GivenTime;
use crate::error::Result;
use crate::options::Options;
use crate::store::{Env, ReadOnly};

impl<C: RaftTypeConfig, A> StateMachine<C, A> {
    /// Makes a copy of what is applied, which goes with its last user. Returns the index of the
    /// last entry in it, too. Waits for a snapshot that is being built or installed.
    pub(crate) fn copy(&self) -> Result<(SnapshotFiles, Option<u64>)> {
        let core = &*self.0;
        let _turn = core.turn.lock();
        let path = core.dir.join(DirRole::Incoming, core.next_number());
        let dir = Arc::new(OwnedDir::new(&core.dir.fs, path));
        dir.supersede();
        let store = core.store();
        let index = store.db().backup_holding(dir.path(), || {
            let applying = core.applying.lock();
            let index = applying.now.log_id.index();
            (applying, index)
        })?;
        Ok((SnapshotFiles::new(dir), index))
    }
}

/// Opens a copy of a state, to read it at the time of the last entry that was applied to it.
pub(crate) fn open_copy<C: RaftTypeConfig>(path: &Path) -> Result<ReadOnly> {
    let time = GivenTime::default();
    let env = Env { clock: time.clock(), ..Env::default() };
    let store = ReadOnly::open_on(&env, path, Options::default())?;
    time.advance_to(applied_to::<C>(&store)?.time);
    Ok(store)
}
