//! Several nodes that hold the same keys, with the feature `cluster`.
//!
//! Consensus is [openraft](https://docs.rs/openraft/0.9)'s, and clients find their way by the Redis
//! Cluster protocol. The page `docs/cluster.md` of the repository says what a cluster promises, and
//! how it is run.

// - `node` has the groups of a node and answers the others, `membership` changes who belongs to
//   them, and `leading` who leads them. `network` is what goes over the wire.
// - A group has `consensus`, what is replicated; `apply`, what it does; `proposer` and
//   `read_index`, how clients' writes and reads get in, and `forwarding` from other nodes.
// - `shards` is the way in for the Redis port, and `http` that for HTTP.
// - `changes` follows what all shards have applied.
// - `state_age` says how old what a node has can be.
// - `map` says which group has which slots.

mod accepting;
mod admin;
mod answering;
mod apply;
mod asking;
mod backlog;
mod backup;
mod changes;
mod consensus;
mod drawn;
mod entering;
mod error;
mod forwarding;
mod group;
mod group_members;
mod http;
mod identity;
mod leading;
mod lending;
mod map;
mod membership;
mod network;
mod node;
mod options;
mod proposer;
mod read_index;
mod receiving;
mod restoring;
mod running;
mod shards;
mod state_age;
mod status;
#[cfg(test)]
mod tests;

pub use admin::{BalancedLeads, ClusterAdmin};
pub use changes::position::ClusterPosition;
pub use changes::{ClusterChange, ClusterChanges};
pub use error::ClusterError;
pub use network::SnapshotTransfer;
pub use options::ClusterOptions;
pub use running::ClusterNode;
pub use status::{GroupRole, GroupStatus, NodeEntry, NodeStatus};
