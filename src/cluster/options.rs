//! What a node of a cluster is started with.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::group::Timing;
use super::map::NodeAddresses;
use crate::options::Options;

/// The settings of a [`ClusterNode`](super::ClusterNode).
///
/// ```
/// use bitcask::cluster::ClusterOptions;
/// let options = ClusterOptions::new(1, "/var/lib/bitcask", "a long secret")
///     .listen("10.0.0.1:7000")
///     .redis_address("10.0.0.1:6379");
/// ```
#[derive(Clone)]
pub struct ClusterOptions {
    pub(crate) id: u64,
    pub(crate) dir: PathBuf,
    pub(crate) secret: Arc<str>,
    pub(crate) listen: String,
    pub(crate) addresses: NodeAddresses,
    pub(crate) store: Options,
    pub(crate) timing: Timing,
    pub(crate) forwards: bool,
}

impl fmt::Debug for ClusterOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterOptions")
            .field("id", &self.id)
            .field("dir", &self.dir)
            .field("listen", &self.listen)
            .field("addresses", &self.addresses)
            .field("store", &self.store)
            .field("timing", &self.timing)
            .field("forwards", &self.forwards)
            .finish_non_exhaustive()
    }
}

impl ClusterOptions {
    /// Creates the settings of a node: its number, which no other node of the cluster has ever had,
    /// its directory, and what the nodes of the cluster know and others do not.
    pub fn new(id: u64, dir: impl Into<PathBuf>, secret: &str) -> Self {
        Self {
            id,
            dir: dir.into(),
            secret: Arc::from(secret),
            listen: "127.0.0.1:7000".to_owned(),
            addresses: NodeAddresses::default(),
            store: Options::default(),
            timing: Timing::default(),
            forwards: false,
        }
    }

    /// Sets where the node listens for the others. By default, the others use this address too.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = address.into();
        self
    }

    /// Sets the address that the other nodes use, if it differs from the one to listen on.
    #[must_use]
    pub fn cluster_address(mut self, address: impl Into<String>) -> Self {
        self.addresses.cluster = address.into();
        self
    }

    /// Sets the address to which clients of Redis are sent.
    #[must_use]
    pub fn redis_address(mut self, address: impl Into<String>) -> Self {
        self.addresses.redis = address.into();
        self
    }

    /// Sets the address to which clients of HTTP are sent.
    #[must_use]
    pub fn http_address(mut self, address: impl Into<String>) -> Self {
        self.addresses.http = address.into();
        self
    }

    /// Sets the options of the stores. Their sync policy and their default time to live have no
    /// effect. All nodes need the same limits of keys and values.
    #[must_use]
    pub fn store(mut self, options: Options) -> Self {
        self.store = options;
        self
    }

    /// Sets whether the node forwards requests for shards that other nodes lead, so that clients
    /// which know nothing of clusters can use any node. By default, it tells clients where the
    /// leader is. A request that is forwarded takes one more way between nodes.
    #[must_use]
    pub fn forward(mut self, yes: bool) -> Self {
        self.forwards = yes;
        self
    }

    /// Sets how often a leader shows that it is there, and after what time without a sign of it
    /// the others elect a new one, in milliseconds. The second should be at least five times the
    /// first, and the round trip between nodes far shorter than it. The default is 250 and 1,500.
    #[must_use]
    pub fn timing(mut self, heartbeat: u64, election: u64) -> Self {
        self.timing = Timing { heartbeat, election };
        self
    }
}
