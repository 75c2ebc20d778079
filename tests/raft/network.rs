//! A network within the process: calls of one node to another are calls of a function.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use bitcask::raft::SnapshotFiles;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, RemoteError, ReplicationClosed, StreamingError,
    Unreachable,
};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, Raft, RaftNetwork, RaftNetworkFactory, Snapshot, Vote};

use crate::Config;

/// The nodes that can be reached.
#[derive(Clone, Default)]
pub(crate) struct Wires(Arc<Mutex<BTreeMap<u64, Raft<Config>>>>);

/// The way to one node.
pub(crate) struct Wire {
    wires: Wires,
    target: u64,
}

type Failed<E> = RPCError<u64, BasicNode, E>;

impl Wires {
    pub(crate) fn plug(&self, id: u64, node: Raft<Config>) {
        self.0.lock().unwrap().insert(id, node);
    }

    pub(crate) fn unplug(&self, id: u64) -> Option<Raft<Config>> {
        self.0.lock().unwrap().remove(&id)
    }
}

impl Wire {
    fn node(&self) -> Result<Raft<Config>, Unreachable> {
        let node = self.wires.0.lock().unwrap().get(&self.target).cloned();
        node.ok_or_else(|| Unreachable::new(&io::Error::other("the node is down")))
    }

    fn remote<E: std::error::Error>(&self, error: E) -> Failed<E> {
        RPCError::RemoteError(RemoteError::new(self.target, error))
    }
}

impl RaftNetworkFactory<Config> for Wires {
    type Network = Wire;

    async fn new_client(&mut self, target: u64, _: &BasicNode) -> Wire {
        Wire { wires: self.clone(), target }
    }
}

/// Copies a snapshot from one node to another.
fn copy(from: &SnapshotFiles, to: &SnapshotFiles) -> bitcask::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    for file in from.files()? {
        let mut offset = 0;
        while offset < file.size {
            let size = from.read(&file.name, offset, &mut buffer)?;
            to.write(&file.name, offset, &buffer[..size])?;
            offset += size as u64;
        }
    }
    Ok(())
}

impl RaftNetwork<Config> for Wire {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Config>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed<RaftError<u64>>> {
        self.node()?.append_entries(rpc).await.map_err(|error| self.remote(error))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        _: RPCOption,
    ) -> Result<VoteResponse<u64>, Failed<RaftError<u64>>> {
        self.node()?.vote(rpc).await.map_err(|error| self.remote(error))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<u64>,
        snapshot: Snapshot<Config>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Config, Fatal<u64>>> {
        let node = self.node()?;
        let begun = node.begin_receiving_snapshot().await;
        let received = begun.map_err(|error| NetworkError::new(&error))?;
        copy(&snapshot.snapshot, &received).map_err(|error| NetworkError::new(&error))?;
        let snapshot = Snapshot { meta: snapshot.meta, snapshot: received };
        let installed = node.install_full_snapshot(vote, snapshot).await;
        installed.map_err(|error| StreamingError::RemoteError(RemoteError::new(self.target, error)))
    }
}
