//! Builds, receives and installs snapshots.
//!
//! - A snapshot is a copy of the store, with links to its sealed segments. It holds exactly what
//!   was applied when it was made, and its last log id lies in it.
//! - Once a snapshot exists, openraft purges the log up to it. So the store itself is durable up to
//!   there first.
//! - To install a snapshot, a copy of it becomes the store. It counts once `CURRENT` names it.

use std::sync::Arc;

use openraft::{Entry, LogIdOptionExt as _, RaftTypeConfig, Snapshot, SnapshotMeta};

use super::apply::{Apply, Applying, CurrentPointer, OpenedState, StateCore};
use super::files::{SnapshotFiles, copy_snapshot};
use super::owned_dir::{OwnedDir, remove_tree};
use super::pointer::{DirRole, Pointer, SnapshotRecord};
use crate::error::{Error, Result};
use crate::mistake::{Mistake, made};
use crate::store::new_identity;

impl<C, A> StateCore<C, A>
where
    C: RaftTypeConfig<Entry = Entry<C>, SnapshotData = SnapshotFiles>,
    A: Apply<C>,
{
    /// Makes a snapshot of what is applied, and the current one of it.
    pub(super) fn build_snapshot(&self) -> Result<Snapshot<C>> {
        let _turn = self.turn.lock();
        let number = self.next_number();
        let path = self.dir.join(DirRole::Snapshot, number);
        let dir = Arc::new(OwnedDir::new(&self.dir.fs, path));
        // Removed, unless it becomes the current one.
        dir.supersede();
        let store = self.store();
        let mut now = store.db().backup_holding(dir.path(), || {
            let applying = self.applying.lock();
            let now = applying.now.clone();
            (applying, now)
        })?;
        if made(Mistake::RaftPlaceNotedLate) {
            now = self.applying.lock().now.clone();
        }
        if !made(Mistake::RaftStateNotSynced) {
            store.db().sync()?;
        }
        let last = now.log_id;
        // Another node that builds one of the same entries has other files. So the id is random.
        let random = new_identity().store_id;
        let snapshot_id = match &last {
            Some(last) => format!("{}-{}-{random:016x}", last.leader_id, last.index),
            None => format!("empty-{random:016x}"),
        };
        let meta = SnapshotMeta { last_log_id: last, last_membership: now.membership, snapshot_id };
        let snapshot = Some(SnapshotRecord { number, meta: meta.clone() });
        let names = Pointer { state: self.pointer.lock().names.state, snapshot };
        self.write(&names, &dir)?;
        self.advance(names, &dir);
        self.note_held(meta.last_log_id.index());
        Ok(Snapshot { meta, snapshot: Box::new(SnapshotFiles::new(dir)) })
    }

    /// Returns the current snapshot, if there is one.
    pub(super) fn current_snapshot(&self) -> Option<Snapshot<C>> {
        let pointer = self.pointer.lock();
        let meta = pointer.names.snapshot.as_ref()?.meta.clone();
        let files = SnapshotFiles::new(Arc::clone(pointer.snapshot.as_ref()?));
        Some(Snapshot { meta, snapshot: Box::new(files) })
    }

    /// Creates a directory for a snapshot that is about to be received.
    pub(super) fn begin_receiving(&self) -> Result<SnapshotFiles> {
        let path = self.dir.join(DirRole::Incoming, self.next_number());
        self.dir.fs.create_dir(&path)?;
        Ok(SnapshotFiles::new(Arc::new(OwnedDir::receiving(&self.dir.fs, path))))
    }

    /// Replaces the state by that of a snapshot, which becomes the current one.
    pub(super) fn install(
        &self,
        meta: &SnapshotMeta<C::NodeId, C::Node>,
        files: &SnapshotFiles,
    ) -> Result<()> {
        let _turn = self.turn.lock();
        files.seal();
        let number = self.next_number();
        let fs = &self.dir.fs;
        let dir = Arc::new(OwnedDir::new(fs, self.dir.join(DirRole::Snapshot, number)));
        dir.supersede();
        let state = self.dir.join(DirRole::State, number);
        let installed = copy_snapshot(fs, files.path(), dir.path())
            .and_then(|()| copy_snapshot(fs, dir.path(), &state))
            .and_then(|()| self.open_installed(number, meta));
        let opened = installed.inspect_err(|_| {
            // What cannot be removed now is removed when the state is opened again.
            let _ = remove_tree(fs, &state);
        })?;
        let OpenedState { store, time, mut applied } = opened;
        if made(Mistake::RaftPlaceOfBefore) {
            applied = self.applying.lock().now.clone();
            applied.put_alone(store.db())?;
        }
        self.application.opened(&store)?;
        let snapshot = Some(SnapshotRecord { number, meta: meta.clone() });
        let names = Pointer { state: number, snapshot };
        self.write(&names, &dir)?;
        self.advance(names, &dir);
        let mut applying = self.applying.lock();
        let before = self.replace_store(store);
        *applying = Applying { now: applied, time, failure: None };
        drop(applying);
        self.note_held(meta.last_log_id.index());
        before.supersede();
        Ok(())
    }

    /// Opens the store that a snapshot has become, and compares it with what it has to be.
    fn open_installed(
        &self,
        number: u64,
        meta: &SnapshotMeta<C::NodeId, C::Node>,
    ) -> Result<OpenedState<C>> {
        let opened = self.open_state(number)?;
        let Some(reason) = opened.applied.difference(meta) else { return Ok(opened) };
        Err(Error::InvalidSource { path: self.dir.join(DirRole::Snapshot, number), reason })
    }

    /// Makes other directories count. If that fails, they may count all the same: they stay, and
    /// those that `CURRENT` does not name are removed when the state is opened again.
    fn write(&self, names: &Pointer<C>, snapshot: &OwnedDir) -> Result<()> {
        self.dir.write(names).inspect_err(|_| snapshot.keep())
    }

    /// Notes that other directories count now. Those of before go once nobody uses them.
    fn advance(&self, names: Pointer<C>, snapshot: &Arc<OwnedDir>) {
        snapshot.keep();
        let new = CurrentPointer { names, snapshot: Some(Arc::clone(snapshot)) };
        let before = std::mem::replace(&mut *self.pointer.lock(), new);
        if let Some(dir) = before.snapshot {
            dir.supersede();
        }
    }
}
