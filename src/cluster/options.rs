//! What a node of a cluster is started with.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::http::HeaderValue;

use super::error::ClusterError;
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
    pub(crate) env: Env,
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

    /// Sets whether the node forwards requests for shards that other nodes lead, so that clients
    /// which know nothing of clusters can use any node. By default, it tells clients where the
    /// leader is. A request that is forwarded takes one more way between nodes.
    #[must_use]
    pub fn forward(mut self, yes: bool) -> Self {
        self.forwards = yes;
        self
    }

    /// Sets how often a leader shows that it is there, and after what time without a sign of it
    /// the others elect a new one, in milliseconds. The second has to be at least five times the
    /// first and at most 3,000, and the round trip between nodes far shorter than it. The default
    /// is 250 and 1,500.
    #[must_use]
    pub fn timing(mut self, heartbeat: u64, election: u64) -> Self {
        self.timing = Timing { heartbeat, election, ..self.timing };
        self
    }

    /// Refuses what no node can be started with.
    pub(super) fn check(&self) -> Result<(), ClusterError> {
        check_announced(&self.addresses)?;
        check_secret(&self.secret)?;
        self.timing.check()
    }
}

/// Refuses addresses at which nobody else reaches this node.
fn check_announced(addresses: &NodeAddresses) -> Result<(), ClusterError> {
    for address in [&addresses.cluster, &addresses.redis, &addresses.http] {
        let found = address.parse::<SocketAddr>();
        if found.is_ok_and(|it| it.ip().to_canonical().is_unspecified() || it.port() == 0) {
            return Err(ClusterError::Refused(format!(
                "others cannot reach this node at {address}: set the address that they use"
            )));
        }
    }
    Ok(())
}

/// Refuses secrets that are none, or that no request can carry.
fn check_secret(secret: &str) -> Result<(), ClusterError> {
    if secret.is_empty() || secret.trim() != secret || HeaderValue::from_str(secret).is_err() {
        let reason = "the secret has to be a text of one line, without blanks around it";
        return Err(ClusterError::Refused(reason.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_which_groups_would_not_work_are_refused() {
        let check = |heartbeat, election| {
            ClusterOptions::new(1, "node", "secret").timing(heartbeat, election).check().is_ok()
        };
        assert!(check(250, 1500) && check(1, 5) && check(600, 3000));
        for (heartbeat, election) in [(0, 1500), (301, 1500), (250, 3001), (1, u64::MAX)] {
            assert!(!check(heartbeat, election), "{heartbeat} {election}");
        }
        assert!(!check(u64::MAX, u64::MAX));
    }
}
