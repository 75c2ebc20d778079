//! What a node of a cluster is started with.

use std::path::PathBuf;
use std::sync::Arc;

use super::group::Timing;
use super::map::NodeAddresses;
use crate::options::Options;
use crate::store::Env;

/// The settings of a [`ClusterNode`](super::ClusterNode).
///
/// ```
/// use bitcask::cluster::ClusterOptions;
/// let options = ClusterOptions::new(1, "/var/lib/bitcask", "a long secret")
///     .listen("10.0.0.1:7000")
///     .redis_address("10.0.0.1:6379");
/// ```
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    pub(crate) id: u64,
    pub(crate) dir: PathBuf,
    pub(crate) secret: Arc<str>,
    pub(crate) listen: String,
    pub(crate) addresses: NodeAddresses,
    pub(crate) store: Options,
    pub(crate) timing: Timing,
    pub(crate) env: Env,
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
            env: Env::default(),
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

    /// Sets how often a leader shows that it is there, and after what time without a sign of it
    /// the others elect a new one, in milliseconds. The second should be at least five times the
    /// first, and the round trip between nodes far shorter than it. The default is 250 and 1,500.
    #[must_use]
    pub fn timing(mut self, heartbeat: u64, election: u64) -> Self {
        self.timing = Timing { heartbeat, election, ..self.timing };
        self
    }
}
