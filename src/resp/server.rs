//! Listening, and stopping.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection::serve;
use super::database::Databases;
use super::options::RespOptions;
use super::server_state::RespState;
use crate::listener;
use crate::store::Bitcask;

/// How long to wait before accepting again when the process has too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A server for clients of Redis. See the [module](super).
pub struct RespServer {
    listener: TcpListener,
    address: SocketAddr,
    state: Arc<RespState>,
    runtime: Runtime,
}

impl fmt::Debug for RespServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RespServer").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Stops a [`RespServer`], from any thread. Clones stop the same server.
#[derive(Clone)]
pub struct RespStopHandle {
    stop: Arc<watch::Sender<bool>>,
}

impl fmt::Debug for RespStopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RespStopHandle").field("is_stopped", &self.is_stopped()).finish()
    }
}

impl RespStopHandle {
    /// Makes [`RespServer::run`] return, once the commands that have arrived are answered. A server
    /// that is not running yet ends as soon as it runs. Returns at once.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Returns whether the server was stopped, by this handle or by a client's `SHUTDOWN`.
    pub fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }
}

impl RespServer {
    /// Binds an address. Clients can connect from now on, and are served once the server
    /// [runs](Self::run). Port 0 lets the system choose one, see [`address`](Self::address).
    ///
    /// The store is database 0. Other code of this process may use it at the same time; its changes
    /// count in `WATCH`, in keyspace notifications and in `CLIENT TRACKING`.
    ///
    /// Under [`SyncPolicy::Always`](crate::SyncPolicy::Always), a client gets the reply to a write
    /// once the write is durable. Clients that wait at the same time share a sync. Under the other
    /// policies, it gets the reply at once, and `SAVE` makes the writes so far durable.
    ///
    /// # Errors
    ///
    /// The errors of the operating system, if the address cannot be bound or threads cannot be
    /// started. [`PermissionDenied`](io::ErrorKind::PermissionDenied) for an address of all
    /// interfaces without a [password](RespOptions::password), unless the options say that this is
    /// [meant](RespOptions::insecure). The errors of a get in the store, as
    /// [`Other`](io::ErrorKind::Other).
    pub fn bind(
        address: impl ToSocketAddrs,
        store: Arc<Bitcask>,
        options: RespOptions,
    ) -> io::Result<Self> {
        let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
        check_open(&addresses, &options)?;
        let (follows, more) = (options.replica.is_some(), options.more.clone());
        let shards = options.shards.clone();
        let databases = Databases::new(store, follows, more, shards).map_err(io::Error::other)?;
        let (listener, address) = listener::bind(&*addresses)?;
        let mut builder = Builder::new_multi_thread();
        if let Some(threads) = options.threads {
            builder.worker_threads(threads);
        }
        let runtime = builder.thread_name("bitcask-resp").enable_all().build()?;
        let (stop, _) = watch::channel(false);
        let state = RespState::new(databases, options, Arc::new(stop), address.port());
        let state = Arc::new(state);
        state.databases.belong_to(&state);
        Ok(Self { listener, address, state, runtime })
    }

    /// Returns the address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a handle that stops the server.
    pub fn stop_handle(&self) -> RespStopHandle {
        RespStopHandle { stop: Arc::clone(&self.state.stop) }
    }

    /// Serves clients until the server is stopped, by a handle or by a client's `SHUTDOWN`. Then
    /// answers the commands that have arrived, disconnects the clients, closes the databases that
    /// it has opened, and returns. Do not call it within an async runtime.
    ///
    /// # Errors
    ///
    /// The errors of the operating system, if the socket cannot be used.
    pub fn run(self) -> io::Result<()> {
        let Self { listener, state, runtime, .. } = self;
        let result = runtime.block_on(accept(listener, &state));
        // Commands that still run are left to themselves; none of them waits for a client.
        runtime.shutdown_timeout(state.options.drain_max);
        state.stop.send_replace(true);
        state.followers.join();
        result
    }
}

/// Refuses addresses of all interfaces, unless there is a password or the options allow it.
fn check_open(addresses: &[SocketAddr], options: &RespOptions) -> io::Result<()> {
    // `::ffff:0.0.0.0` is all interfaces of IPv4, too.
    let is_open = |address: &SocketAddr| address.ip().to_canonical().is_unspecified();
    let is_open = addresses.iter().any(is_open);
    if is_open && options.password.is_none() && !options.insecure {
        let text = "the Redis port would be open to every network without a password; set \
                    one, choose another address, or allow it";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

/// Accepts clients until the server is stopped. Then waits for those that are there.
async fn accept(listener: TcpListener, state: &Arc<RespState>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut stop = state.stop.subscribe();
    let mut clients = JoinSet::new();
    while !*stop.borrow() {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => break,
            Some(_) = clients.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                clients.spawn(serve(Arc::clone(state), stream));
            }
            // Too many open files, or a client that is gone already.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    let all_gone = async { while clients.join_next().await.is_some() {} };
    // A client that reads nothing is disconnected after this time by its own task.
    drop(tokio::time::timeout(state.options.drain_max * 2, all_gone).await);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;
    use crate::Options;

    /// The server closed the socket with something unread, and the system threw replies away.
    #[test]
    fn a_client_that_goes_on_sending_is_read_from_after_the_server_has_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Options::new().open(dir.path()).unwrap());
        let server = RespServer::bind("127.0.0.1:0", store, RespOptions::new()).unwrap();
        let (address, stop) = (server.address(), server.stop_handle());
        let running = std::thread::spawn(move || server.run());
        let mut client = TcpStream::connect(address).unwrap();
        // There is a limit only so that a failure ends.
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        client.write_all(b"PING\r\n*2\r\n$4\r\nECHO\r\n").unwrap();
        let mut reply = [0; 7];
        client.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"+PONG\r\n");
        stop.stop();
        assert_eq!(client.read(&mut reply).unwrap(), 0);
        for _ in 0..1000 {
            client.write_all(b"x").unwrap();
            std::thread::yield_now();
        }
        drop(client);
        running.join().unwrap().unwrap();
    }
}
