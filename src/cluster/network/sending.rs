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
/// Time to install a snapshot that has arrived, without the time to read it.
const INSTALL_TIME: Duration = Duration::from_secs(300);
/// Size of what a node that installs a snapshot reads in a second at least.
const CHECKED_PER_SECOND: u64 = 16 << 20;
/// Time between two attempts to send a snapshot. It doubles each time that a node does not accept
/// what it was sent.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How often that time doubles.
const DOUBLINGS_MAX: u32 = 6;

impl<T: PeerTransport> PeerConnection<T> {
    /// Sends a snapshot. If that fails, openraft tries again at once, so this waits first. The
    /// node hears of its leader meanwhile, on another connection. It would not if openraft waited.
    pub(super) async fn send_patiently(
        &mut self,
        vote: Vote<u64>,
        sent: &Snapshot<Consensus>,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Consensus, Fatal<u64>>> {
        let failure = match self.send_snapshot(vote, sent).await {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        let doublings = self.failed_transfers.saturating_sub(1).min(DOUBLINGS_MAX);
        tokio::time::sleep(RETRY_PAUSE * 2_u32.pow(doublings)).await;
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
        let failed_before = std::mem::take(&mut self.failed_transfers);
        let begun = self.ask(&PeerRequest::BeginSnapshot, PIECE_TIME).await?;
        let PeerAnswer::SnapshotBegun(snapshot) = begun else { return Err(odd(&begun)) };
        self.failed_transfers = failed_before.saturating_add(1);
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
                let PeerAnswer::Done = put else { return Err(odd(&put)) };
                transfer.sent(size);
                offset += size;
            }
        }
        let meta = sent.meta.clone();
        let install = PeerRequest::InstallSnapshot { snapshot, vote, meta };
        let time = INSTALL_TIME + Duration::from_secs(size / CHECKED_PER_SECOND);
        match self.ask(&install, time).await? {
            PeerAnswer::SnapshotInstalled(response) => {
                self.failed_transfers = 0;
                Ok(response)
            }
            other => Err(odd(&other)),
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
