//! What connections of nodes are made of: TCP, or what a test puts in its place.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::listener;

/// Time in which the other node has to take a part of what it is sent.
const UNREAD_MAX: Duration = Duration::from_secs(60);

/// A way to connect to other nodes.
pub(crate) trait PeerTransport: Clone + Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn connect(&self, address: &str) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// TCP.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tcp;

impl PeerTransport for Tcp {
    type Stream = TcpStream;

    async fn connect(&self, address: &str) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        // An administrator waits for hours while a node joins. If its machine vanishes, so does the
        // connection, after two minutes.
        listener::notice_dead_peer(&stream, UNREAD_MAX);
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_system_looks_whether_the_other_node_is_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stream = Tcp.connect(&address).await.unwrap();
        assert!(SockRef::from(&stream).keepalive().unwrap());
    }
}
