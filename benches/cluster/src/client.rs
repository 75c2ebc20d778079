//! A client of any of the systems.

use crate::Failure;
use crate::arguments::{Arguments, System};
use crate::etcd::EtcdClient;
use crate::redis::RedisClient;

pub(crate) enum Client {
    Redis(RedisClient),
    Etcd(EtcdClient),
}

impl Client {
    /// Connects to the nodes, and finds out which of them leads.
    pub(crate) async fn connect(arguments: &Arguments) -> Result<Self, Failure> {
        let nodes = arguments.nodes.clone();
        Ok(match arguments.system {
            System::Bitcask => Self::Redis(RedisClient::connect(nodes, false).await?),
            System::Redis => Self::Redis(RedisClient::connect(nodes, true).await?),
            System::Etcd => Self::Etcd(EtcdClient::connect(&nodes).await?),
        })
    }

    /// Returns when the value is written, and replicated.
    pub(crate) async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Redis(client) => client.put(key, value).await,
            Self::Etcd(client) => client.put(key, value).await,
        }
    }

    pub(crate) async fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        match self {
            Self::Redis(client) => client.get(key).await,
            Self::Etcd(client) => client.get(key).await,
        }
    }

    /// Returns the place of the node to which this client sends requests for a key.
    pub(crate) fn node_of(&self, key: &[u8]) -> usize {
        match self {
            Self::Redis(client) => client.node_of(key),
            Self::Etcd(client) => client.node(),
        }
    }

    /// Sends the next request for a key to another node.
    pub(crate) fn go_elsewhere(&mut self, key: &[u8]) {
        match self {
            Self::Redis(client) => client.go_elsewhere(key),
            Self::Etcd(client) => client.go_elsewhere(),
        }
    }

    /// Counts a write to Redis from now on as soon as the master has it.
    pub(crate) fn wait_for_no_replica(&mut self) {
        if let Self::Redis(client) = self {
            client.wait_for_no_replica();
        }
    }
}
