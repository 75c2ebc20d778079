//! What a caller chooses about the Redis port.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::database::MoreDatabases;
use super::shards::ClusterShards;
use crate::options::Options;
use crate::replica::Replica;

/// Options of a [`RespServer`](super::RespServer).
///
/// ```
/// use bitcask::resp::RespOptions;
/// let options = RespOptions::new().clients_max(100).password("secret");
/// ```
#[derive(Clone)]
#[must_use = "options do nothing until a server is bound with them"]
pub struct RespOptions {
    pub(super) clients_max: usize,
    pub(super) output_max: usize,
    pub(super) stall_max: Duration,
    pub(super) drain_max: Duration,
    pub(super) password: Option<Vec<u8>>,
    pub(super) insecure: bool,
    pub(super) threads: Option<usize>,
    pub(super) more: Option<MoreDatabases>,
    pub(super) replica: Option<Replica>,
    pub(super) shards: Option<Arc<dyn ClusterShards>>,
}

impl fmt::Debug for RespOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RespOptions")
            .field("clients_max", &self.clients_max)
            .field("output_max", &self.output_max)
            .field("stall_max", &self.stall_max)
            .field("drain_max", &self.drain_max)
            .field("has_password", &self.password.is_some())
            .field("insecure", &self.insecure)
            .field("threads", &self.threads)
            .field("more", &self.more)
            .field("replica", &self.replica)
            .field("shards", &self.shards)
            .finish()
    }
}

impl Default for RespOptions {
    fn default() -> Self {
        Self {
            clients_max: 10_000,
            output_max: 32 << 20,
            stall_max: Duration::from_secs(60),
            drain_max: Duration::from_secs(10),
            password: None,
            insecure: false,
            threads: None,
            more: None,
            replica: None,
            shards: None,
        }
    }
}

impl RespOptions {
    /// Returns the defaults: 10,000 clients, no password, one database.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum number of clients. One more is told so and disconnected. Default: 10,000.
    /// Clients can change it with `CONFIG SET maxclients`.
    pub fn clients_max(mut self, clients: usize) -> Self {
        self.clients_max = clients;
        self
    }

    /// Sets how many bytes of messages may wait for a client that does not read them, until it is
    /// disconnected. Default: 32 MiB. Messages are what a client gets without asking: those of
    /// channels, of `MONITOR`, and of `CLIENT TRACKING`.
    pub fn output_max(mut self, bytes: usize) -> Self {
        self.output_max = bytes;
        self
    }

    /// Sets how long a client may take to read anything of a reply, until it is disconnected.
    /// Default: 60 s. Meanwhile none of its commands runs, so no more than the replies to the
    /// commands of one read wait for it. What it sends is kept, up to a limit.
    pub fn stall_max(mut self, duration: Duration) -> Self {
        self.stall_max = duration;
        self
    }

    /// Sets how long a server that is stopping waits for clients that do not read the replies to
    /// what they have sent. Default: 10 s.
    pub fn drain_max(mut self, duration: Duration) -> Self {
        self.drain_max = duration;
        self
    }

    /// Sets the password that `AUTH` asks for. Default: none. It is compared in a time that does
    /// not depend on where it differs. Clients that know it can change it with `CONFIG SET
    /// requirepass`.
    pub fn password(mut self, password: impl Into<Vec<u8>>) -> Self {
        let password = password.into();
        self.password = (!password.is_empty()).then_some(password);
        self
    }

    /// Sets whether the server may listen on all interfaces without a password. Default: `false`,
    /// such an address is refused.
    pub fn insecure(mut self, yes: bool) -> Self {
        self.insecure = yes;
        self
    }

    /// Sets the number of threads that serve clients. Default: one for each core.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads.max(1));
        self
    }

    /// Says that the store follows a leader: until it is promoted, commands that write are refused
    /// with `READONLY`, and `INFO replication` and `ROLE` show a replica and its lag. While the
    /// store is being filled, commands on keys are refused with `LOADING`. Only database 0 follows.
    ///
    /// `Server::replica` and `StoreFollower::replica` of the module `server` return it.
    pub fn replica(mut self, replica: Replica) -> Self {
        self.replica = Some(replica);
        self
    }

    /// Has the shards of a cluster hold the keys, instead of the store of the server.
    #[cfg(feature = "cluster")]
    pub(crate) fn shards(mut self, shards: Arc<dyn ClusterShards>) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Sets where `SELECT n` finds the databases 1 to `count - 1`: each is a store of its own, in
    /// the directory of that number below `dir`. A store is created when it is first selected, with
    /// these options, and closed when the server ends. Default: there is database 0 only, which is
    /// the store that the server is bound with.
    pub fn databases(mut self, dir: impl Into<PathBuf>, count: usize, options: Options) -> Self {
        self.more = Some(MoreDatabases { dir: dir.into(), count, options });
        self
    }
}
