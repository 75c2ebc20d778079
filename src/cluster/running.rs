//! A node as a program has it: with threads and sockets of its own.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::timeout;

use super::accepting::serve_each;
use super::changes::ClusterChanges;
use super::changes::position::ClusterPosition;
use super::entering::Count;
use super::error::{ClusterError, failed};
use super::http;
use super::network::Tcp;
use super::network::server::serve;
use super::node::Node;
use super::options::ClusterOptions;
use super::shards::NodeShards;
use super::status::NodeStatus;
use crate::listener;
use crate::resp::{RespOptions, RespServer};
use crate::store::Bitcask;

/// Time in which the tasks of a node that is stopped have to end.
const END_TIME: Duration = Duration::from_secs(10);
/// Time in which a node that is about to stop hands over what it leads.
const HAND_OVER_TIME: Duration = Duration::from_secs(10);

/// A node of a cluster. It has threads of its own, and takes part until it is dropped.
///
/// A new node belongs to no cluster. It [founds](Self::init) one, or [joins](Self::join) one.
pub struct ClusterNode {
    node: Arc<Node<Tcp>>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    runtime: Option<Runtime>,
}

impl fmt::Debug for ClusterNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterNode").field("address", &self.address).finish_non_exhaustive()
    }
}

impl ClusterNode {
    /// Starts a node, which goes on where it was stopped.
    ///
    /// # Errors
    ///
    /// [`Failed`](ClusterError::Failed) if the address cannot be used, or the directory cannot be
    /// read, and [`Refused`](ClusterError::Refused) if it belongs to another node.
    pub fn start(mut options: ClusterOptions) -> Result<Self, ClusterError> {
        let (listener, address) =
            listener::bind(&*options.listen).map_err(|error| unheard(&options.listen, &error))?;
        if options.listen.ends_with(":0") {
            options.listen = address.to_string();
        }
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.thread_name("bitcask-cluster").enable_all().build();
        let runtime = runtime.map_err(|error| failed(&error))?;
        let node = runtime.block_on(Node::start(options, Tcp))?;
        let (stop, stopping) = watch::channel(false);
        let listener = {
            let _within = runtime.enter();
            TcpListener::from_std(listener).map_err(|error| failed(&error))?
        };
        let peer = Arc::new(Arc::clone(&node));
        runtime
            .spawn(serve_each(listener, stopping, move |stream| serve(stream, Arc::clone(&peer))));
        Ok(Self { node, address, stop, runtime: Some(runtime) })
    }

    /// Returns where the node listens for the others.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Founds a cluster that consists of this node, with a number of shards that never changes.
    /// Changes nothing if the node has founded it already.
    ///
    /// # Errors
    ///
    /// [`Refused`](ClusterError::Refused) if the node belongs to a cluster with another number of
    /// shards, and the errors of the disk as [`Failed`](ClusterError::Failed).
    pub fn init(&self, shards: u16) -> Result<(), ClusterError> {
        self.run(self.node.init(shards))
    }

    /// Joins the cluster that another node belongs to. Returns when the node votes in all groups. A
    /// join that was interrupted goes on when it is called again.
    ///
    /// # Errors
    ///
    /// [`Refused`](ClusterError::Refused) if the node belongs to another cluster, or the cluster
    /// has a node with this number; and what the other nodes answer.
    pub fn join(&self, address: &str) -> Result<(), ClusterError> {
        self.run(self.node.join(address))
    }

    /// Removes a node from the cluster. It may be down.
    ///
    /// # Errors
    ///
    /// What the other nodes answer.
    pub fn remove(&self, id: u64) -> Result<(), ClusterError> {
        self.run(self.node.remove(id))
    }

    /// Has other nodes lead the shards that this one leads, as far as they can. Call this before
    /// you stop a node: clients then wait for a moment, and not until the others miss it. From then
    /// on, the node takes no lead over. Takes ten seconds at most.
    ///
    /// ```no_run
    /// use bitcask::cluster::{ClusterNode, ClusterOptions};
    ///
    /// # fn main() -> Result<(), bitcask::cluster::ClusterError> {
    /// let node = ClusterNode::start(ClusterOptions::new(1, "/var/lib/bitcask", "a long secret"))?;
    /// // Until the program is to end.
    /// node.hand_leads_over();
    /// drop(node);
    /// # Ok(())
    /// # }
    /// ```
    pub fn hand_leads_over(&self) {
        if let Some(runtime) = &self.runtime {
            let handed_over = self.node.hand_leads_over();
            // What is not handed over by then fails over.
            drop(runtime.block_on(async { timeout(HAND_OVER_TIME, handed_over).await }));
        }
    }

    /// Returns what this node knows of the cluster and of its groups.
    pub fn status(&self) -> NodeStatus {
        self.node.status()
    }

    /// Returns the position behind everything that this node has applied.
    ///
    /// # Errors
    ///
    /// [`Stopped`](ClusterError::Stopped) if the node belongs to no cluster.
    pub fn position(&self) -> Result<ClusterPosition, ClusterError> {
        self.node.position()
    }

    /// Returns the changes of all keys behind a position: every put, with its expiry, and every
    /// delete. The node need not lead. What is returned was committed by a majority, and no failure
    /// of a node undoes it.
    ///
    /// The position may be one that another node has returned. If this node has not come there yet,
    /// its changes follow as soon as it has. To resume, here or on any other node, take the
    /// [position](ClusterChanges::position) of the last entry that you have handled.
    ///
    /// Stores keep changes for a limited time: see
    /// [`keep_history`](crate::Options::keep_history), which is ten minutes and 64 MiB for each
    /// shard in a cluster, unless the [options](ClusterOptions::store) say more.
    ///
    /// # Errors
    ///
    /// [`HistoryGone`](ClusterError::HistoryGone) if this node has not all changes behind the
    /// position any more, [`ForeignPosition`](ClusterError::ForeignPosition) if it is one of
    /// another cluster, [`Failed`](ClusterError::Failed) if the store cannot be read, and
    /// [`Stopped`](ClusterError::Stopped) if the node belongs to no cluster.
    ///
    /// ```no_run
    /// use bitcask::Operation;
    /// use bitcask::cluster::{ClusterNode, ClusterOptions};
    /// # fn handle(key: &[u8], value: Option<&[u8]>) {}
    /// # fn store(position: String) {}
    /// # fn stored() -> String { "start".to_owned() }
    /// # fn main() -> Result<(), bitcask::cluster::ClusterError> {
    /// let node = ClusterNode::start(ClusterOptions::new(1, "/var/lib/bitcask", "a long secret"))?;
    /// let mut changes = node.changes(&stored().parse()?)?.prefix("user/");
    /// while let Some(change) = changes.next().transpose()? {
    ///     match &change.operation {
    ///         Operation::Put { value, .. } => handle(&change.key, Some(value)),
    ///         _ => handle(&change.key, None),
    ///     }
    ///     if !change.entry_continues {
    ///         store(changes.position().to_string());
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn changes(&self, since: &ClusterPosition) -> Result<ClusterChanges, ClusterError> {
        self.node.changes(Some(since), None)
    }

    /// Binds an address for clients of Redis. The server runs as [`RespServer::run`] says.
    ///
    /// # Errors
    ///
    /// Those of [`RespServer::bind`].
    pub fn redis(
        &self,
        address: impl ToSocketAddrs,
        options: RespOptions,
    ) -> io::Result<RespServer> {
        let Some(runtime) = &self.runtime else { return Err(io::ErrorKind::NotConnected.into()) };
        let (node, runtime) = (Arc::clone(&self.node), runtime.handle().clone());
        // Connections need a store of their own, which stays empty.
        let local = Bitcask::open(node.options.dir.join("local"), node.options.store.clone());
        let local = Arc::new(local.map_err(io::Error::other)?);
        let shards = Arc::new(NodeShards { node, runtime, waiting: Count::default() });
        RespServer::bind(address, local, options.shards(shards))
    }

    /// Serves clients of HTTP at an address, until the node is dropped. They have to send the
    /// token, if there is one. Returns the address, whose port the system has chosen if it was 0.
    ///
    /// # Errors
    ///
    /// [`Failed`](ClusterError::Failed) if the address cannot be used.
    pub fn http(
        &self,
        address: impl ToSocketAddrs,
        token: Option<&str>,
    ) -> Result<SocketAddr, ClusterError> {
        let Some(runtime) = &self.runtime else {
            return Err(ClusterError::Stopped("the node is stopping".to_owned()));
        };
        let (listener, address) =
            listener::bind(address).map_err(|error| unheard("the address for HTTP", &error))?;
        if !address.ip().is_loopback() && token.is_none() {
            tracing::warn!(
                target: "bitcask::cluster",
                event = "open_to_the_network",
                %address,
                advice = "every machine that reaches this address can read and change the keys of \
                          the cluster; set a token"
            );
        }
        let _within = runtime.enter();
        let listener = TcpListener::from_std(listener).map_err(|error| failed(&error))?;
        let (node, token) = (Arc::clone(&self.node), token.map(Arc::from));
        runtime.spawn(http::run(listener, node, token, self.stop.subscribe()));
        Ok(address)
    }

    fn run<T>(
        &self,
        call: impl Future<Output = Result<T, ClusterError>>,
    ) -> Result<T, ClusterError> {
        match &self.runtime {
            Some(runtime) => runtime.block_on(call),
            None => Err(ClusterError::Stopped("the node is stopping".to_owned())),
        }
    }
}

fn unheard(address: &str, error: &io::Error) -> ClusterError {
    failed(&format!("cannot listen at {address}: {error}"))
}

impl Drop for ClusterNode {
    /// Stops the node. What it has acknowledged is durable.
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.block_on(self.node.stop());
            runtime.shutdown_timeout(END_TIME);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::consensus::{Answered, Request};
    use crate::cluster::map::MAP_GROUP;
    use crate::cluster::network::messages::PeerRequest;

    fn started(id: u64, dir: &tempfile::TempDir) -> ClusterNode {
        let dir = dir.path().join(id.to_string());
        ClusterNode::start(ClusterOptions::new(id, dir, "secret").listen("127.0.0.1:0")).unwrap()
    }

    #[test]
    fn a_leader_that_is_to_yield_to_itself_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let running = started(1, &dir);
        running.init(1).unwrap();
        let group = running.node.group(1).unwrap();
        running.run(group.yield_lead(&running.node, 1)).unwrap();
        assert!(matches!(running.run(group.write(Request::Tick)), Ok(Answered::Ticked)));
    }

    /// The node goes on to join groups that the removal has passed.
    #[test]
    fn a_node_that_is_being_removed_is_no_member_again() {
        let dir = tempfile::tempdir().unwrap();
        let (founder, second) = (started(1, &dir), started(2, &dir));
        founder.init(1).unwrap();
        second.join(&founder.address().to_string()).unwrap();
        let order = |group, request: fn() -> PeerRequest| {
            founder.run(founder.node.at_leader(group, request)).map(drop)
        };
        order(MAP_GROUP, || PeerRequest::BeginRemoval { id: 2 }).unwrap();
        order(1, || PeerRequest::RemoveMember { id: 2 }).unwrap();
        let add = || PeerRequest::AddMember { id: 2, address: "127.0.0.1:1".to_owned() };
        let refusal = order(1, add).unwrap_err();
        assert!(refusal.to_string().starts_with("node 2 was removed"), "{refusal}");
        let members = || {
            let metrics = founder.node.group(1).unwrap().metrics();
            metrics.membership_config.nodes().map(|(id, _)| *id).collect::<Vec<_>>()
        };
        assert_eq!(members(), [1]);
        founder.remove(2).unwrap();
        assert_eq!(founder.status().nodes.len(), 1);
    }
}
