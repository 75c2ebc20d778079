//! TCP of the simulation.
//!
//! What is sent while the network is parted is lost, and nothing sends it again, as TCP would. So
//! connections across the gap break when it is closed, on both sides.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;

use crate::cluster::network::PeerTransport;

/// Connections between two machines, which break together.
#[derive(Debug, Default)]
struct Link {
    /// How often they have broken.
    breaks: u64,
    /// Tasks that wait for something to arrive.
    waiting: Vec<Waker>,
}

/// All links.
#[derive(Debug, Default)]
pub(super) struct Links {
    by_ends: Mutex<BTreeMap<(u64, u64), Arc<Mutex<Link>>>>,
}

impl Links {
    fn between(&self, a: u64, b: u64) -> Arc<Mutex<Link>> {
        let mut all = self.by_ends.lock().unwrap();
        Arc::clone(all.entry((a.min(b), a.max(b))).or_default())
    }

    /// Breaks all connections between two machines.
    pub(super) fn break_between(&self, a: u64, b: u64) {
        let link = self.between(a, b);
        let mut link = link.lock().unwrap();
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

/// Returns the number in the name of a machine. Those of clients have none.
fn id_of(name: &str) -> u64 {
    let number = name.strip_prefix('n').and_then(|name| name.split(':').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

impl SimTcp {
    pub(super) fn accepted(&self, stream: TcpStream, from: IpAddr) -> SimStream {
        self.stream(stream, id_of(&turmoil::reverse_lookup(from).unwrap_or_default()))
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
        let stream = TcpStream::connect(address).await?;
        Ok(self.stream(stream, id_of(address)))
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
