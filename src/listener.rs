//! Sockets on which servers listen.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use socket2::SockRef;

/// Maximum number of connections that wait to be accepted; the system may allow fewer. With the 128
/// of the standard library, clients that all come at once wait a second or more for their next
/// attempt.
const BACKLOG: i32 = 4096;

/// Listens on the first address that can be bound. Accepting does not block.
pub(crate) fn bind(addresses: impl ToSocketAddrs) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(addresses)?;
    // On a socket that listens already, this changes the number alone.
    SockRef::from(&listener).listen(BACKLOG)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
