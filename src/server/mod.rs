//! An HTTP server for a store: the feature `server`.
//!
//! [`Server`] serves one store to many processes. It speaks three dialects on one port: those of
//! bitcaskpy and pybitcask, so that their clients work unchanged, and `/v1`, which offers all of
//! the store. The document `docs/server.md` of this crate describes them.
//!
//! The server has threads of its own, and no type of an async runtime appears here.
//! [`run`](Server::run) blocks until the server is stopped, then answers the requests that it has
//! accepted, and closes the store.
//!
//! ```
//! use std::io::{Read as _, Write as _};
//! use std::net::TcpStream;
//! use bitcask::{Bitcask, Options};
//! use bitcask::server::{Server, ServerOptions};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let db = Bitcask::open(dir.path(), Options::default())?;
//! db.put("greeting", "hello")?;
//! // Port 0: any that is free.
//! let server = Server::bind(db, ServerOptions::new().address("127.0.0.1", 0))?;
//! let (address, stop) = (server.address(), server.stop_handle());
//! let running = std::thread::spawn(move || server.run());
//!
//! let mut connection = TcpStream::connect(address)?;
//! let head = "GET /kv/greeting HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
//! connection.write_all(head.as_bytes())?;
//! let mut answer = String::new();
//! connection.read_to_string(&mut answer)?;
//! assert!(answer.ends_with(r#"{"key":"greeting","value":"hello","found":true}"#));
//!
//! stop.stop();
//! running.join().expect("the server does not panic")?;
//! # Ok(())
//! # }
//! ```

// - `run` and `connection` accept connections; `gate` stands before all routes; `seeds`, `v1` and
//   `meta` have the routes. `follow` keeps the store equal to another server's.
// - The store blocks, and the threads that handle connections must not. `state` decides which calls
//   run where: decision 58.
// - Nothing here grows without a limit: connections, bodies, lists, streams, waiting calls.

mod answer;
mod body;
mod bytes;
mod connection;
mod error;
mod failure;
mod follow;
mod frames;
mod gate;
mod idle;
mod leases;
mod meta;
mod options;
mod patient;
mod query;
mod reserved;
mod routes;
mod run;
mod seeds;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod unread;
mod v1;

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

#[cfg(feature = "cluster")]
pub(crate) use bytes::percent_decoded;
pub use error::ServerError;
pub use follow::{FollowOptions, StoreFollower};
pub use options::ServerOptions;
#[cfg(feature = "cluster")]
pub(crate) use stream::{ChannelStream, PieceWriter, Unheard};
#[cfg(feature = "cluster")]
pub(crate) use v1::change_event::ChangeEvent;
#[cfg_attr(
    not(feature = "cluster"),
    expect(unused_imports, reason = "clusters alone need it")
)]
pub(crate) use {gate::host::is_plain, meta::pages::page};

use crate::listener;
use crate::replica::Replica;
use crate::store::Bitcask;
use state::{ServerState, StopSignal};
use tls::TlsSetup;

/// An HTTP server that listens, and serves once it [runs](Self::run).
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsSetup>,
    state: Arc<ServerState>,
}

impl Server {
    /// Begins to listen. Clients can connect from now on, and are served by [`run`](Self::run).
    ///
    /// The server closes the store when it ends. If the program keeps an [`Arc`] of the store, for
    /// example for another server, it closes the store itself.
    ///
    /// # Errors
    ///
    /// [`Bind`](ServerError::Bind) if the address cannot be used,
    /// [`Tls`](ServerError::Tls) if the certificate or the key cannot, and
    /// [`InvalidServerOption`](ServerError::InvalidServerOption). The errors of
    /// [`StoreFollower::start`] if the options say that the store
    /// [follows](ServerOptions::follow), and [`Replication`](ServerError::Replication) if the store
    /// is a follower's and they do not.
    pub fn bind(db: impl Into<Arc<Bitcask>>, options: ServerOptions) -> Result<Self, ServerError> {
        options.check()?;
        let tls = options.tls.as_ref().map(TlsSetup::new).transpose()?;
        let host = options.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let bound = listener::bind((host.as_str(), options.port));
        let (listener, address) = bound.map_err(|source| ServerError::Bind {
            address: format!("{}:{}", options.host, options.port),
            source,
        })?;
        let db = db.into();
        let follower = match &options.follow {
            Some(leader) => Some(StoreFollower::start(Arc::clone(&db), leader)?),
            None => follow::refuse_follower(&db).map(|()| None)?,
        };
        let state = Arc::new(ServerState::new(db, options, follower));
        Ok(Self { listener, address, tls, state })
    }

    /// Returns where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL of the server, for clients on this machine.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Returns a handle that stops the server, from any thread.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.state.stop.clone())
    }

    /// Returns the state of the store as a replica, if the server was bound to
    /// [follow](ServerOptions::follow) a leader. The Redis port of the same store needs it.
    pub fn replica(&self) -> Option<Replica> {
        self.state.replica().cloned()
    }

    /// Serves until the server is stopped by a [handle](Self::stop_handle) or a request. Then it
    /// answers the requests that it has accepted, for at most
    /// [`drain_timeout`](ServerOptions::drain_timeout), waits for the calls of the store that have
    /// begun, for at most 10 s, and closes the store. If a call takes longer, such as a backup, the
    /// store is made durable, and closed when the call ends.
    ///
    /// # Errors
    ///
    /// [`Runtime`](ServerError::Runtime) if threads cannot be started, and the errors of
    /// [`Bitcask::close`].
    pub fn run(self) -> Result<(), ServerError> {
        self.run_until(|| false)
    }

    /// Serves as [`run`](Self::run) does, and also stops once a function returns `true`. It is
    /// called about twenty times per second; a program passes one that looks at a flag which its
    /// signal handler sets.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_until(
        self,
        should_stop: impl FnMut() -> bool + Send + 'static,
    ) -> Result<(), ServerError> {
        run::run(self, should_stop)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Stops a [`Server`], from any thread. It may outlive the server.
#[derive(Debug, Clone)]
pub struct StopHandle(StopSignal);

impl StopHandle {
    /// Stops the server: it accepts no more connections, and [`Server::run`] returns when the
    /// accepted requests are answered. Returns at once.
    pub fn stop(&self) {
        self.0.raise();
    }
}
