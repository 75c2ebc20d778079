//! What a server's owner chooses, and its limits.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::error::ServerError;
use super::follow::FollowOptions;
use crate::fs::Fs;

/// Options of a [`Server`](super::Server).
///
/// The defaults suit a service on one machine: plain HTTP on 127.0.0.1, port 8000, without a token.
///
/// ```
/// use std::time::Duration;
/// use bitcask::server::ServerOptions;
///
/// let options = ServerOptions::new()
///     .address("0.0.0.0", 8000)
///     .token("correct horse battery staple")
///     .request_timeout(Duration::from_secs(5))
///     .requests_per_second(200);
/// # drop(options);
/// ```
#[derive(Clone)]
#[must_use = "options do nothing until a server is bound with them"]
pub struct ServerOptions {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) token: Option<String>,
    pub(super) tls: Option<TlsFiles>,
    pub(super) body_size_limit: u64,
    pub(super) body_memory_limit: u64,
    pub(super) header_size_limit: usize,
    pub(super) connections_max: usize,
    pub(super) streams_max: usize,
    pub(super) request_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) write_timeout: Duration,
    pub(super) drain_timeout: Duration,
    /// How long calls of the store may take after that.
    pub(super) calls_timeout: Duration,
    pub(super) requests_per_second: Option<u32>,
    pub(super) reactor_threads: Option<usize>,
    pub(super) store_threads: usize,
    pub(super) backup_dir: Option<PathBuf>,
    pub(super) follow: Option<FollowOptions>,
    pub(super) remote_stop: bool,
}

/// The bytes of a certificate chain and of its key, in PEM form.
#[derive(Clone)]
pub(super) struct TlsFiles {
    pub(super) certificates: Vec<u8>,
    pub(super) key: Vec<u8>,
}

/// Smallest limit on the size of headers that the HTTP implementation accepts.
const HEADER_SIZE_MIN: usize = 8192;

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 8000,
            token: None,
            tls: None,
            body_size_limit: 64 << 20,
            body_memory_limit: 512 << 20,
            header_size_limit: 64 << 10,
            connections_max: 4096,
            streams_max: 64,
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            calls_timeout: Duration::from_secs(10),
            requests_per_second: None,
            reactor_threads: None,
            store_threads: 64,
            backup_dir: None,
            follow: None,
            remote_stop: false,
        }
    }
}

impl ServerOptions {
    /// Returns the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets where the server listens: a host name or address, and a port. Port 0 lets the operating
    /// system choose one, which [`Server::address`](super::Server::address) returns. The default is
    /// 127.0.0.1 and 8000.
    pub fn address(mut self, host: impl Into<String>, port: u16) -> Self {
        (self.host, self.port) = (host.into(), port);
        self
    }

    /// Requires this token in every request, as `Authorization: Bearer TOKEN`. Only `/health`, the
    /// documentation and the page of the dashboard are open without it. By default, no token is
    /// required.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Serves HTTPS with a chain of certificates and a private key, both the content of a file in
    /// PEM form. By default, the server speaks plain HTTP.
    pub fn tls(mut self, certificates: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.tls = Some(TlsFiles { certificates: certificates.into(), key: key.into() });
        self
    }

    /// Sets the maximum size of a request's body, in bytes. The default is 64 MiB. A larger body is
    /// refused with 413.
    pub fn body_size_limit(mut self, bytes: u64) -> Self {
        self.body_size_limit = bytes;
        self
    }

    /// Sets how much memory the bodies of all requests may take together, in bytes. The default is
    /// 512 MiB. Answers in JSON take a part of it too, and values that do not lie in a mapped
    /// segment, such as compressed ones, until the client has received them. While all of it is
    /// taken, further ones are refused with 503. What is smaller than 32 KiB does not count.
    pub fn body_memory_limit(mut self, bytes: u64) -> Self {
        self.body_memory_limit = bytes;
        self
    }

    /// Sets the maximum size of a request's line and headers together, in bytes: at least 8 KiB.
    /// The default is 64 KiB. Larger ones are refused with 431.
    pub fn header_size_limit(mut self, bytes: usize) -> Self {
        self.header_size_limit = bytes;
        self
    }

    /// Sets the maximum number of connections. The default is 4,096. The server also leaves the
    /// store at least half of the files that the process may have open. A further connection
    /// takes the place of the one that has been without a request for longest. If all have
    /// requests, it waits.
    pub fn connections_max(mut self, count: usize) -> Self {
        self.connections_max = count;
        self
    }

    /// Sets the maximum number of answers that are streamed at the same time: followers of
    /// `/v1/changes`, and listings of all keys. Each takes a thread. The default is 64. Further
    /// ones are refused with 503.
    pub fn streams_max(mut self, count: usize) -> Self {
        self.streams_max = count;
        self
    }

    /// Sets how long a request may take until its answer begins, including its body. The default is
    /// 30 s. Merges, backups and verifications may take longer. A write that has reached the store
    /// by then is completed even though its answer is 503.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Sets how long a connection may take to send the headers of its next request, which is also
    /// how long it may be idle. The default is 60 s.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets how long a client may refuse to receive a part of an answer. The default is 30 s. Then
    /// the connection is closed.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// Sets how long accepted requests may take once the server stops. The default is 30 s. Then
    /// their connections are closed.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Limits the requests of each client address, with bursts of at most as many as in one second.
    /// Further ones are refused with 429. By default, there is no limit.
    pub fn requests_per_second(mut self, limit: u32) -> Self {
        self.requests_per_second = Some(limit);
        self
    }

    /// Sets the number of threads that handle connections. The default is the number of CPUs.
    pub fn reactor_threads(mut self, count: usize) -> Self {
        self.reactor_threads = Some(count);
        self
    }

    /// Sets the number of threads that call the store, which is how many writes can wait for the
    /// same sync. The default is 64. They are started when they are needed.
    pub fn store_threads(mut self, count: usize) -> Self {
        self.store_threads = count;
        self
    }

    /// Allows `POST /v1/backup`, which creates backups in directories below this one, which has to
    /// exist. By default,
    /// the server makes no backups, since a client could fill the disk with them.
    pub fn backup_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.backup_dir = Some(dir.into());
        self
    }

    /// Makes the server a follower: it keeps its store equal to that of another server, a moment
    /// later, and refuses writes until it is promoted (`POST /v1/promote`). See
    /// [`StoreFollower`](super::StoreFollower).
    pub fn follow(mut self, leader: FollowOptions) -> Self {
        self.follow = Some(leader);
        self
    }

    /// Allows `POST /v1/stop`, which stops the server. It is always allowed to clients on the same
    /// machine that need no token, or have it. By default, no other client may stop the server.
    pub fn remote_stop(mut self, yes: bool) -> Self {
        self.remote_stop = yes;
        self
    }

    /// Returns an error if an option makes no sense.
    pub(super) fn check(&self) -> Result<(), ServerError> {
        let at_least_one = "it has to be at least 1";
        let invalid = |name, value: String, reason| {
            Err(ServerError::InvalidServerOption { name, value, reason })
        };
        let counts = [
            ("connections_max", self.connections_max),
            ("streams_max", self.streams_max),
            ("store_threads", self.store_threads),
            ("reactor_threads", self.reactor_threads.unwrap_or(1)),
            ("requests_per_second", self.requests_per_second.map_or(1, |limit| limit as usize)),
        ];
        if let Some((name, count)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return invalid(name, count.to_string(), at_least_one);
        }
        if self.request_timeout.is_zero() {
            return invalid("request_timeout", "0".into(), "no request could be answered");
        }
        if self
            .backup_dir
            .as_ref()
            .is_some_and(|dir| !matches!(Fs::DISK.is_dir(dir), Ok(Some(true))))
        {
            let value = self.backup_dir.iter().map(|dir| dir.display().to_string()).collect();
            return invalid("backup_dir", value, "it has to be a directory that exists");
        }
        if self.header_size_limit < HEADER_SIZE_MIN {
            let value = self.header_size_limit.to_string();
            return invalid("header_size_limit", value, "it has to be at least 8192");
        }
        if self.body_memory_limit < self.body_size_limit {
            let value = self.body_memory_limit.to_string();
            return invalid("body_memory_limit", value, "one body has to fit, see body_size_limit");
        }
        match &self.token {
            Some(token) if token.is_empty() => {
                invalid("token", "empty".into(), "leave it out to require none")
            }
            _ => Ok(()),
        }
    }
}

/// Shows everything but the secrets.
impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("has_token", &self.token.is_some())
            .field("has_tls", &self.tls.is_some())
            .field("body_size_limit", &self.body_size_limit)
            .field("connections_max", &self.connections_max)
            .field("request_timeout", &self.request_timeout)
            .field("requests_per_second", &self.requests_per_second)
            .field("store_threads", &self.store_threads)
            .finish_non_exhaustive()
    }
}
