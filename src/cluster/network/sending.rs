//! Sends snapshots.

use std::io;
use std::time::Duration;

use openraft::error::{Fatal, NetworkError, StreamingError};
use openraft::raft::SnapshotResponse;
use openraft::{ErrorSubject, ErrorVerb, Snapshot, StorageError, StorageIOError, Vote};

use super::client::{PeerConnection, odd};
use super::messages::{PIECE_SIZE, PeerAnswer, PeerRequest};
use super::transport::PeerTransport;
use crate::cluster::consensus::Consensus;
use crate::raft::{SnapshotFiles, blocking};

/// Time for one piece of a snapshot.
const PIECE_TIME: Duration = Duration::from_secs(30);
/// Time to install a snapshot that has arrived.
const INSTALL_TIME: Duration = Duration::from_secs(300);

impl<T: PeerTransport> PeerConnection<T> {
    /// Sends all files of a snapshot, and has it installed.
    pub(super) async fn send_snapshot(
        &mut self,
        vote: Vote<u64>,
        sent: &Snapshot<Consensus>,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Consensus, Fatal<u64>>> {
        let begun = self
            .ask(&PeerRequest::BeginSnapshot, PIECE_TIME)
            .await
            .map_err(|error| network(&error))?;
        let PeerAnswer::SnapshotBegun(snapshot) = begun else { return Err(network(&odd(&begun))) };
        let files = sent.snapshot.files().map_err(|error| unreadable(&error))?;
        let size = files.iter().map(|file| file.size).sum();
        let transfer = self.network.progress.begin(self.target.unwrap_or(0), size);
        for file in files {
            let mut offset = 0;
            while offset < file.size {
                let bytes = blocking(|| piece(&sent.snapshot, &file.name, offset))
                    .map_err(|error| unreadable(&error))?;
                let size = bytes.len() as u64;
                if size == 0 {
                    let (name, expected) = (&file.name, file.size);
                    let text = format!("{name} ends at {offset}, and should have {expected} bytes");
                    return Err(network(&io::Error::other(text)));
                }
                let name = file.name.clone();
                let put = PeerRequest::PutPiece { snapshot, name, offset, bytes: bytes.into() };
                let put = self.ask(&put, PIECE_TIME).await.map_err(|error| network(&error))?;
                let PeerAnswer::Done = put else { return Err(network(&odd(&put))) };
                transfer.sent(size);
                offset += size;
            }
        }
        let meta = sent.meta.clone();
        let install = PeerRequest::InstallSnapshot { snapshot, vote, meta };
        match self.ask(&install, INSTALL_TIME).await.map_err(|error| network(&error))? {
            PeerAnswer::SnapshotInstalled(response) => Ok(response),
            other => Err(network(&odd(&other))),
        }
    }
}

/// Reads a piece of a file.
fn piece(files: &SnapshotFiles, name: &str, offset: u64) -> crate::error::Result<Vec<u8>> {
    let mut bytes = vec![0; PIECE_SIZE];
    let size = files.read(name, offset, &mut bytes)?;
    bytes.truncate(size);
    Ok(bytes)
}

fn unreadable(error: &crate::error::Error) -> StreamingError<Consensus, Fatal<u64>> {
    let cause = StorageIOError::new(
        ErrorSubject::Snapshot(None),
        ErrorVerb::Read,
        openraft::AnyError::new(error),
    );
    StreamingError::StorageError(StorageError::IO { source: cause })
}

fn network(error: &io::Error) -> StreamingError<Consensus, Fatal<u64>> {
    StreamingError::Network(NetworkError::new(error))
}
