//! Sockets on which servers listen, and those of their clients.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Maximum number of connections that wait to be accepted; the system may allow fewer. With the 128
/// of the standard library, clients that all come at once wait a second or more for their next
/// attempt.
const BACKLOG: i32 = 4096;

/// Time without a word of a client after which the system asks whether it is still there.
const ASKED_AFTER: Duration = Duration::from_secs(60);
/// Time between two such questions.
#[cfg(any(target_os = "android", target_os = "linux", target_os = "macos"))]
const ASKED_EVERY: Duration = Duration::from_secs(20);
/// Shortest time in which a client that says nothing is given up. One question that gets lost, or
/// its answer, does not end a connection.
#[cfg(any(target_os = "android", target_os = "linux"))]
const GIVEN_UP_AFTER: Duration = Duration::from_secs(120);

/// Listens on the first address that can be bound. Accepting does not block.
pub(crate) fn bind(addresses: impl ToSocketAddrs) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(addresses)?;
    // On a socket that listens already, this changes the number alone.
    SockRef::from(&listener).listen(BACKLOG)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Has the system end the connection of a client that has vanished without a word, as one whose
/// machine or network fails. It does so once the client has answered nothing for `unread`, or for
/// two minutes if that is longer; where it cannot be told that, after a time of its own.
pub(crate) fn notice_dead_peer(stream: &impl AsFd, unread: Duration) {
    let (socket, keepalive) = (SockRef::from(stream), TcpKeepalive::new().with_time(ASKED_AFTER));
    // If this fails, such clients keep their connections for longer.
    #[cfg(any(target_os = "android", target_os = "linux", target_os = "macos"))]
    let keepalive = keepalive.with_interval(ASKED_EVERY);
    drop(socket.set_tcp_keepalive(&keepalive));
    // This takes the place of a number of questions.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    drop(socket.set_tcp_user_timeout(Some(unread.max(GIVEN_UP_AFTER))));
    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    let _ = unread;
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn the_system_looks_whether_clients_are_there() {
        let (_listener, address) = bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(address).unwrap();
        notice_dead_peer(&client, Duration::from_secs(30));
        let socket = SockRef::from(&client);
        assert!(socket.keepalive().unwrap());
        #[cfg(any(target_os = "android", target_os = "linux"))]
        {
            assert_eq!(socket.tcp_keepalive_time().unwrap(), ASKED_AFTER);
            let given_up = socket.tcp_user_timeout().unwrap().unwrap();
            assert!(given_up >= ASKED_AFTER + 3 * socket.tcp_keepalive_interval().unwrap());
        }
    }
}
