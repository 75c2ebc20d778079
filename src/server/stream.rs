//! Answers that are produced while they are sent, with a bounded number of pieces in memory.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use futures_core::Stream;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender};

/// The pieces that a thread has sent to a channel.
pub(crate) struct ChannelStream<T>(pub(crate) Receiver<T>);

impl<T> Stream for ChannelStream<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(context)
    }
}

/// Size at which a piece is sent, in bytes.
const PIECE_SIZE: usize = 64 << 10;

/// Gathers text into pieces, and sends them.
pub(crate) struct PieceWriter {
    sender: Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
    /// How long a piece waits for the client, if there is a limit.
    patience: Option<Duration>,
}

/// Nobody receives the answer any more.
#[derive(Debug)]
pub(crate) struct Unheard;

impl PieceWriter {
    pub(crate) fn new(sender: Sender<io::Result<Bytes>>) -> Self {
        Self { sender, piece: Vec::new(), patience: None }
    }

    /// Gives the client up if it receives nothing for this long. The thread that writes has to be
    /// one of a runtime.
    #[cfg_attr(
        not(any(feature = "cluster", test)),
        expect(dead_code, reason = "clusters alone need it")
    )]
    pub(crate) fn patience(self, patience: Duration) -> Self {
        Self { patience: Some(patience), ..self }
    }

    /// Adds bytes to the answer. Waits while the client has not received enough of it.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Unheard> {
        // A large value is not copied as a whole.
        for part in bytes.chunks(PIECE_SIZE) {
            self.piece.extend_from_slice(part);
            if self.piece.len() >= PIECE_SIZE {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Adds JSON to the answer, piece by piece.
    pub(crate) fn write_json<T: Serialize>(&mut self, json: &T) -> Result<(), Unheard> {
        // What is sent here can always be written as JSON.
        serde_json::to_writer(JsonPieces(self), json).map_err(|_| Unheard)
    }

    /// Sends what has been gathered.
    pub(crate) fn flush(&mut self) -> Result<(), Unheard> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        let Some(patience) = self.patience else {
            return self.sender.blocking_send(Ok(piece)).map_err(|_| Unheard);
        };
        let sent = async { self.sender.send_timeout(Ok(piece), patience).await };
        Handle::current().block_on(sent).map_err(|_| Unheard)
    }

    /// Returns whether the client has received so much that a piece can be sent without waiting.
    pub(super) fn has_room(&self) -> bool {
        self.sender.capacity() > 0
    }

    /// Adds bytes to the answer, unless they would complete a piece, which has to be sent. Returns
    /// whether it has added them. This never waits, so a task may call it.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> bool {
        let has_room = self.piece.len() + bytes.len() < PIECE_SIZE;
        if has_room {
            self.piece.extend_from_slice(bytes);
        }
        has_room
    }

    /// Sends what has been gathered, if that needs no waiting.
    pub(super) fn try_flush(&mut self) {
        if self.piece.is_empty() {
            return;
        }
        if let Ok(permit) = self.sender.try_reserve() {
            permit.send(Ok(Bytes::from(std::mem::take(&mut self.piece))));
        }
    }

    /// Returns whether nobody receives the answer any more.
    pub(crate) fn is_unheard(&self) -> bool {
        self.sender.is_closed()
    }

    /// Ends the answer.
    pub(crate) fn finish(mut self) {
        // If nobody hears the end, it does not matter.
        let _ = self.flush();
    }

    /// Breaks the answer off, so that the client sees that it is not complete.
    pub(super) fn fail(self, error: impl fmt::Display) {
        let _ = self.sender.blocking_send(Err(io::Error::other(error.to_string())));
    }
}

/// Takes JSON as it is written.
struct JsonPieces<'a>(&'a mut PieceWriter);

impl io::Write for JsonPieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes);
        written.map(|()| bytes.len()).map_err(|Unheard| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn a_client_that_receives_nothing_is_given_up() {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let (sender, mut receiver) = mpsc::channel(2);
        let mut writer = PieceWriter::new(sender).patience(Duration::from_millis(1));
        let writing = runtime.spawn_blocking(move || {
            let sent = (0..3).map(|_| writer.write(&vec![b'x'; PIECE_SIZE]).is_ok());
            sent.collect::<Vec<_>>()
        });
        assert_eq!(runtime.block_on(writing).unwrap(), [true, true, false]);
        assert_eq!(receiver.try_recv().unwrap().unwrap().len(), PIECE_SIZE);
    }
}
