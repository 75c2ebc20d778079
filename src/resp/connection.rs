//! The loop that serves one client: reads what has arrived, runs its commands, and sends the
//! replies.
//!
//! - All commands that have arrived together are run before anything is sent, up to a size of their
//!   replies. Some of those that follow each other run as one (`grouping`).
//! - Writes that have to be durable are synced once for all of these commands, on a thread that may
//!   block. Other clients that wait for a sync share it.
//! - No more commands run before the replies are sent. So a client that does not read them has one
//!   batch of them waiting, and is disconnected when it stalls for too long. What it sends
//!   meanwhile is read, up to a size: it may not read before it has sent everything.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;

use super::counts::add;
use super::outbox::Outbox;
use super::peers::Peer;
use super::read_ahead::ReadAhead;
use super::refusal::store_error;
use super::reply::{Protocol, Reply};
use super::reply_buffer::{ReplyBuffer, SentUpTo};
use super::server_state::RespState;
use super::session::Session;
use super::syncing::synced;
use crate::listener;
use crate::wire::{Decoder, FrameLimits, ProtocolError};

/// Size of replies at which they are sent before more commands run.
pub(super) const OUT_SIZE_SENT: usize = 256 << 10;
/// Capacity of an empty buffer of replies that is kept.
const OUT_CAPACITY_KEPT: usize = 64 << 10;
/// Time between two attempts to get memory for a client that the server cannot read from.
const ROOM_WAIT: Duration = Duration::from_millis(200);
/// How long a connection that ends is still read from, and how much. Tests depend on no time.
const LINGER_MAX: Duration = Duration::from_millis(if cfg!(test) { 60_000 } else { 500 });
const LINGER_SIZE_MAX: usize = 4 << 20;
/// Maximum number of reads of what has arrived when the server stops.
const READS_AT_END: usize = 1 << 10;
/// Maximum size of what a client has sent and that is no complete command, besides the command's
/// largest argument.
const UNREAD_MAX: usize = 1 << 30;

/// One client and its socket.
pub(super) struct Connection {
    pub(super) session: Session,
    decoder: Decoder,
    /// What has arrived after the bytes in the decoder.
    ahead: ReadAhead,
    /// Commands that have been decoded and not run, in reverse.
    pub(super) ready: Vec<Vec<Bytes>>,
    /// Why what comes after these can't be understood.
    wrong: Option<ProtocolError>,
    input: OwnedReadHalf,
    output: OwnedWriteHalf,
    stop: watch::Receiver<bool>,
}

/// Why the loop waits no longer.
enum Woken {
    Input,
    Message,
    Over,
}

/// Serves a client until one of both has had enough.
pub(super) async fn serve(state: Arc<RespState>, mut stream: TcpStream) {
    add(&state.counts.connections, 1);
    let address = |address: io::Result<std::net::SocketAddr>| {
        address.map_or_else(|_| "?:0".to_owned(), |address| address.to_string())
    };
    let (remote, local) = (address(stream.peer_addr()), address(stream.local_addr()));
    // Without it, replies that are sent in parts wait for each other.
    drop(stream.set_nodelay(true));
    listener::notice_dead_peer(&stream, state.options.stall_max);
    let limit = state.parameters.max_clients.load(Ordering::Relaxed);
    let outbox = Outbox::new(state.options.output_max);
    let Some(peer) = state.peers.add(remote, local, outbox, limit) else {
        add(&state.counts.rejected_connections, 1);
        let refusal = stream.write_all(b"-ERR max number of clients reached\r\n");
        drop(timeout(Duration::from_secs(1), refusal).await);
        return;
    };
    serve_peer(&state, &peer, stream).await;
    state.peers.remove(peer.id);
}

async fn serve_peer(state: &Arc<RespState>, peer: &Arc<Peer>, stream: TcpStream) {
    let Ok(session) = Session::new(state, Arc::clone(peer)) else { return };
    let (input, output) = stream.into_split();
    let (decoder, ready, stop) = (Decoder::default(), Vec::new(), state.stop.subscribe());
    let (wrong, ahead) = (None, ReadAhead::new(Arc::clone(&state.read_ahead)));
    let mut connection = Connection { session, decoder, ahead, ready, wrong, input, output, stop };
    // An error means that the client is gone.
    drop(connection.run().await);
    if peer.outbox.is_full() {
        add(&state.counts.full_outboxes, 1);
    }
    connection.session.leave();
}

impl Connection {
    async fn run(&mut self) -> io::Result<()> {
        loop {
            self.run_commands().await?;
            if self.session.is_closing {
                return self.linger().await;
            }
            match self.wait().await? {
                Woken::Input | Woken::Message => {}
                Woken::Over => return self.end().await,
            }
        }
    }

    /// Runs all commands that have arrived, and sends their replies.
    async fn run_commands(&mut self) -> io::Result<()> {
        loop {
            let is_over = self.run_batch();
            self.session.pass = None;
            if self.session.is_closing {
                self.depart();
            }
            self.send().await?;
            if !is_over {
                continue;
            }
            if self.session.is_closing || self.session.peer.outbox.is_ended() {
                return Ok(());
            }
            let Some(chunk) = self.ahead.take() else { return Ok(()) };
            self.decoder.buffer().extend_from_slice(&chunk);
            // Others are served between two chunks, as between two reads.
            tokio::task::yield_now().await;
        }
    }

    /// Makes the client absent for the others, before it reads the last reply. It gets no further
    /// message, and a client that tracks through it learns that it is gone.
    fn depart(&mut self) {
        self.session.leave();
        self.session.state.peers.remove(self.session.peer.id);
    }

    /// Runs commands until none is left, or their replies are large. Returns whether none is left.
    fn run_batch(&mut self) -> bool {
        let mut has_run = false;
        self.session.begin_batch();
        loop {
            if self.session.is_closing || self.session.peer.outbox.is_ended() {
                return true;
            }
            if self.session.out.len() >= OUT_SIZE_SENT {
                return false;
            }
            let Some(command) = self.next() else {
                if let Some(error) = self.wrong.take() {
                    let reply = Reply::Error(format!("ERR {error}"));
                    reply.write(self.session.protocol, &mut self.session.out);
                    self.session.is_closing = true;
                }
                if has_run {
                    self.session.share_counts();
                    self.session.show(self.decoder.len() + self.ahead.len());
                }
                return true;
            };
            has_run = true;
            self.run_grouped(command);
        }
    }

    /// Returns the next command that has arrived. After one that can't be understood, there is
    /// none.
    pub(super) fn next(&mut self) -> Option<Vec<Bytes>> {
        if let Some(command) = self.ready.pop() {
            return Some(command);
        }
        let limits = if self.session.is_stranger() {
            FrameLimits::stranger()
        } else {
            let limit = self.session.state.parameters.string_max.load(Ordering::Relaxed);
            FrameLimits::new(u64::try_from(limit).unwrap_or(u64::MAX))
        };
        if self.wrong.is_some() {
            return None;
        }
        self.decoder.next(limits).unwrap_or_else(|error| {
            self.wrong = Some(error);
            None
        })
    }

    /// Makes durable what has to be, and sends the replies and the messages.
    async fn send(&mut self) -> io::Result<()> {
        for database in std::mem::take(&mut self.session.unsynced) {
            let Err(error) = synced(database).await else { continue };
            // None of these writes may be acknowledged. They can't be undone either, so the client
            // has to ask what is there.
            self.session.out.clear(OUT_CAPACITY_KEPT);
            let reply = Reply::Error(store_error(&error));
            reply.write(Protocol::Resp2, &mut self.session.out);
            self.session.is_closing = true;
        }
        self.session.peer.outbox.take_into(&mut self.session.out);
        let mut out = std::mem::take(&mut self.session.out);
        self.write(&out).await?;
        out.clear(OUT_CAPACITY_KEPT);
        self.session.out = out;
        Ok(())
    }

    /// Writes replies, as long as the client reads some of them from time to time. Keeps what it
    /// sends meanwhile.
    async fn write(&mut self, out: &ReplyBuffer) -> io::Result<()> {
        let state = Arc::clone(&self.session.state);
        add(&state.counts.output_bytes, u64::try_from(out.len()).unwrap_or(0));
        let (mut sent, mut stalled_since) = (SentUpTo::default(), None);
        loop {
            // As a rule there is room at once, and no timer is needed.
            let written = {
                let (parts, count) = out.next(sent);
                if count == 0 {
                    return Ok(());
                }
                self.output.try_write_vectored(parts.get(..count).unwrap_or_default())
            };
            match written {
                Ok(size @ 1..) => {
                    out.advance(&mut sent, size);
                    stalled_since = None;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) => return Err(error),
            }
            let peer = Arc::clone(&self.session.peer);
            let is_stopping = *self.stop.borrow();
            let patience =
                if is_stopping { state.options.drain_max } else { state.options.stall_max };
            let stalled = stalled_since.get_or_insert_with(Instant::now).elapsed();
            // A stranger sends no pipeline, and takes none of the memory of others.
            let may_send = !is_stopping && !self.session.is_stranger();
            let wants_more = may_send && self.ahead.wants_more();
            let has_room = self.ahead.has_room();
            tokio::select! {
                biased;
                ready = self.output.writable() => ready?,
                () = killed(&peer) => return Err(io::ErrorKind::ConnectionAborted.into()),
                // Begins again with less patience.
                _ = self.stop.changed() => stalled_since = None,
                // What the client sends is no reason to wait longer.
                () = tokio::time::sleep(patience.saturating_sub(stalled)) => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                ready = self.input.readable(), if wants_more && has_room => {
                    ready?;
                    self.read_ahead()?;
                }
                () = tokio::time::sleep(ROOM_WAIT), if wants_more && !has_room => {}
            }
        }
    }

    /// Reads what the client has sent, although it does not read its replies.
    fn read_ahead(&mut self) -> io::Result<()> {
        match self.ahead.read(|chunk| self.input.try_read_buf(chunk)) {
            Ok(size) => {
                let size = u64::try_from(size).unwrap_or(0);
                add(&self.session.state.counts.input_bytes, size);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits for bytes or messages.
    async fn wait(&mut self) -> io::Result<Woken> {
        if self.decoder.len() > UNREAD_MAX {
            return Ok(Woken::Over);
        }
        let idle = self.session.state.parameters.timeout.load(Ordering::Relaxed);
        let idle = match u64::try_from(idle) {
            Ok(0) | Err(_) => Duration::MAX,
            Ok(_) if self.session.is_subscriber() => Duration::MAX,
            Ok(seconds) => Duration::from_secs(seconds),
        };
        let outbox = &self.session.peer.outbox;
        if *self.stop.borrow() || outbox.is_ended() {
            return Ok(Woken::Over);
        }
        // A message that came while replies were written has woken nobody.
        if !outbox.is_empty() {
            return Ok(Woken::Message);
        }
        let peer = Arc::clone(&self.session.peer);
        let buffer = self.decoder.buffer();
        tokio::select! {
            size = self.input.read_buf(buffer) => match size? {
                0 => Ok(Woken::Over),
                size => {
                    self.decoder.note_read(size);
                    let size = u64::try_from(size).unwrap_or(0);
                    add(&self.session.state.counts.input_bytes, size);
                    Ok(Woken::Input)
                }
            },
            () = peer.outbox.changed() => {
                Ok(if peer.outbox.is_ended() { Woken::Over } else { Woken::Message })
            }
            _ = self.stop.changed() => Ok(Woken::Over),
            () = sleep(idle) => Ok(Woken::Over),
        }
    }

    /// Ends the connection, and reads for a moment what the client still sends. If the socket were
    /// closed with something unread, the system would throw away replies that are on their way.
    async fn linger(&mut self) -> io::Result<()> {
        self.output.shutdown().await?;
        let drain = async {
            let mut buffer = [0; 4 << 10];
            let mut left = LINGER_SIZE_MAX;
            while let Ok(size @ 1..) = self.input.read(&mut buffer).await
                && left > size
            {
                left -= size;
            }
        };
        drop(timeout(LINGER_MAX, drain).await);
        Ok(())
    }

    /// Ends the connection. When the server stops, what the client has sent before is answered.
    async fn end(&mut self) -> io::Result<()> {
        let is_stopping = *self.stop.borrow() && !self.session.peer.outbox.is_ended();
        if is_stopping {
            // A client that goes on sending does not hold the server up.
            for _ in 0..READS_AT_END {
                if !matches!(self.input.try_read_buf(self.decoder.buffer()), Ok(1..)) {
                    break;
                }
            }
            // One that has sent something right before may send more.
            let may_send_more = self.decoder.len() + self.ahead.len() > 0;
            self.run_commands().await?;
            if may_send_more {
                return self.linger().await;
            }
        }
        self.output.shutdown().await
    }
}

/// Waits until another client ends this one's connection.
async fn killed(peer: &Peer) {
    while !peer.outbox.is_ended() {
        peer.outbox.changed().await;
    }
}

async fn sleep(duration: Duration) {
    if duration == Duration::MAX {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(duration).await;
}
