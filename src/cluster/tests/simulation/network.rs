//! TCP of the simulation.
//!
//! What is sent while the network is parted is lost, and nothing sends it again, as TCP would. So
//! connections across the gap break when it is closed, on both sides. And a connection that is not
//! made keeps its port for ever, so none is asked for where none can be made.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;

use crate::cluster::network::PeerTransport;

/// Connections between two machines, which break together.
#[derive(Debug, Default)]
struct Link {
    /// Whether nothing gets across, in one direction at least.
    is_parted: bool,
    /// How often they have broken.
    breaks: u64,
    /// Tasks that wait for something to arrive.
    waiting: Vec<Waker>,
}

type LinksByEnds = BTreeMap<(u64, u64), Arc<Mutex<Link>>>;

/// All links.
#[derive(Debug, Default)]
pub(super) struct Links {
    by_ends: Mutex<LinksByEnds>,
    /// Machines that are off.
    off: Mutex<BTreeSet<u64>>,
}

impl Links {
    fn between(&self, a: u64, b: u64) -> Arc<Mutex<Link>> {
        let mut all = self.by_ends.lock().unwrap();
        Arc::clone(all.entry((a.min(b), a.max(b))).or_default())
    }

    /// Notes that nothing gets from one machine to another.
    pub(super) fn part(&self, a: u64, b: u64) {
        self.between(a, b).lock().unwrap().is_parted = true;
    }

    /// Notes whether a machine is off.
    pub(super) fn switch(&self, id: u64, is_off: bool) {
        let mut off = self.off.lock().unwrap();
        if is_off {
            off.insert(id)
        } else {
            off.remove(&id)
        };
    }

    /// Notes that messages get across again. All connections from before are broken.
    pub(super) fn join(&self, a: u64, b: u64) {
        let link = self.between(a, b);
        let mut link = link.lock().unwrap();
        link.is_parted = false;
        link.breaks += 1;
        link.waiting.drain(..).for_each(Waker::wake);
    }
}

/// The network, as a machine sees it.
#[derive(Debug, Clone)]
pub(super) struct SimTcp {
    pub(super) id: u64,
    pub(super) links: Arc<Links>,
}

/// How long it takes to be told that nothing listens.
const ROUND_TRIP: Duration = Duration::from_millis(10);

/// Returns the number in the name of a machine. Those of clients have none.
fn id_of(name: &str) -> u64 {
    let number = name.strip_prefix('n').and_then(|name| name.split(':').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

impl SimTcp {
    pub(super) fn accepted(&self, stream: TcpStream, from: IpAddr) -> SimStream {
        self.stream(stream, id_of(&turmoil::reverse_lookup(from).unwrap_or_default()))
    }

    /// Connects to a machine.
    pub(super) async fn connected(&self, address: &str) -> io::Result<SimStream> {
        let other = id_of(address);
        let is_off = || self.links.off.lock().unwrap().contains(&other);
        if self.links.between(self.id, other).lock().unwrap().is_parted {
            std::future::pending::<()>().await;
        }
        if is_off() {
            tokio::time::sleep(ROUND_TRIP).await;
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let stream = TcpStream::connect(address).await?;
        Ok(self.stream(stream, other))
    }

    fn stream(&self, inner: TcpStream, other: u64) -> SimStream {
        let link = self.links.between(self.id, other);
        let breaks = link.lock().unwrap().breaks;
        SimStream { inner, link, breaks }
    }
}

impl PeerTransport for SimTcp {
    type Stream = SimStream;

    async fn connect(&self, address: &str) -> io::Result<SimStream> {
        self.connected(address).await
    }
}

/// A connection.
pub(super) struct SimStream {
    inner: TcpStream,
    link: Arc<Mutex<Link>>,
    /// How often the link had broken when the connection was made.
    breaks: u64,
}

impl SimStream {
    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        let mut link = self.link.lock().unwrap();
        if link.breaks != self.breaks {
            return Err(ErrorKind::ConnectionReset.into());
        }
        if !link.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            link.waiting.push(cx.waker().clone());
        }
        Ok(())
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
