//! Sends snapshots.

use std::io;
use std::time::Duration;

use openraft::error::{Fatal, NetworkError, StreamingError};
use openraft::raft::SnapshotResponse;
use openraft::{Snapshot, Vote};

use super::client::{PeerConnection, odd};
use super::messages::{PIECE_SIZE, PeerAnswer, PeerRequest};
use super::transport::PeerTransport;
use crate::cluster::consensus::Consensus;
use crate::raft::{SnapshotFiles, blocking};

/// Time for one piece of a snapshot.
const PIECE_TIME: Duration = Duration::from_secs(30);
/// Time for a question whether a snapshot that has arrived is installed. The node goes on with it
/// meanwhile, for as long as that takes.
const INSTALL_TIME: Duration = Duration::from_secs(30);
/// Time between two such questions, if the first one has no answer.
const INSTALL_PAUSE: Duration = Duration::from_secs(1);
/// Time after which a node that installs a snapshot is given up, if it answers nothing at all.
const UNREACHABLE_TIME: Duration = Duration::from_secs(30);
/// Time between two attempts to send a snapshot. It doubles each time that a node refuses what it
/// was sent.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Maximum of that time.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(300);
/// How often that time doubles at most.
const DOUBLINGS_MAX: u32 = 10;

impl<T: PeerTransport> PeerConnection<T> {
    /// Sends a snapshot. If that fails, openraft tries again at once, so this waits first. The
    /// node hears of its leader meanwhile, on another connection. It would not if openraft waited.
    pub(super) async fn send_patiently(
        &mut self,
        vote: Vote<u64>,
        sent: &Snapshot<Consensus>,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Consensus, Fatal<u64>>> {
        let before = self.failed_transfers;
        let failure = match self.send_snapshot(vote, sent).await {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        // A connection that breaks says nothing of the next attempt.
        let is_refused = self.failed_transfers > before;
        let doublings = if is_refused { before.min(DOUBLINGS_MAX) } else { 0 };
        tokio::time::sleep((RETRY_PAUSE * 2_u32.pow(doublings)).min(RETRY_PAUSE_MAX)).await;
        // Whatever was wrong here too, such as too many open files, may pass: it must not stop the
        // group, as an error of the storage would.
        Err(StreamingError::Network(NetworkError::new(&failure)))
    }

    /// Sends all files of a snapshot, and has it installed.
    async fn send_snapshot(
        &mut self,
        vote: Vote<u64>,
        sent: &Snapshot<Consensus>,
    ) -> io::Result<SnapshotResponse<u64>> {
        let begun = self.ask(&PeerRequest::BeginSnapshot, PIECE_TIME).await?;
        let PeerAnswer::SnapshotBegun(snapshot) = begun else { return Err(odd(&begun)) };
        let files = blocking(|| sent.snapshot.files()).map_err(io::Error::other)?;
        let size = files.iter().map(|file| file.size).sum();
        let transfer = self.network.progress.begin(self.target.unwrap_or(0), size);
        for file in files {
            let mut offset = 0;
            while offset < file.size {
                let bytes = blocking(|| piece(&sent.snapshot, &file.name, offset));
                let bytes = bytes.map_err(io::Error::other)?;
                let size = bytes.len() as u64;
                if size == 0 {
                    let (name, expected) = (&file.name, file.size);
                    let text = format!("{name} ends at {offset}, and should have {expected} bytes");
                    return Err(io::Error::other(text));
                }
                let name = file.name.clone();
                let put = PeerRequest::PutPiece { snapshot, name, offset, bytes: bytes.into() };
                let put = self.ask(&put, PIECE_TIME).await?;
                let PeerAnswer::Done = put else {
                    self.failed_transfers = self.failed_transfers.saturating_add(1);
                    return Err(odd(&put));
                };
                transfer.sent(size);
                offset += size;
            }
        }
        let meta = sent.meta.clone();
        let install = PeerRequest::InstallSnapshot { snapshot, vote, meta };
        self.failed_transfers = self.failed_transfers.saturating_add(1);
        match self.ask_to_install(&install).await? {
            PeerAnswer::SnapshotInstalled(response) => {
                self.failed_transfers = 0;
                Ok(response)
            }
            other => Err(odd(&other)),
        }
    }

    /// Asks to install a snapshot until the node answers. It reads all of it first, and others may
    /// come before it.
    async fn ask_to_install(&mut self, install: &PeerRequest) -> io::Result<PeerAnswer> {
        loop {
            let failure = match self.ask(install, INSTALL_TIME).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let silent = &self.network.idle.silent;
            // It answers heartbeats and other groups, on other connections.
            let silence = self.target.map_or(Duration::MAX, |target| silent.silence_of(target));
            if silence >= UNREACHABLE_TIME {
                return Err(failure);
            }
            tokio::time::sleep(INSTALL_PAUSE).await;
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
