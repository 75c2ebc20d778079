//! A client of etcd, which speaks its protocol of version 3: gRPC.

use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::Failure;

// The fields that are needed, with the numbers that etcd's `rpc.proto` and `kv.proto` give them.

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

/// Reads one key. It is linearizable unless `serializable`, field 7, is set.
#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    pairs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member: u64,
    #[prost(int64, tag = "3")]
    revision: i64,
}

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// A client that sends its requests to one node at a time, at first to the leader.
pub(crate) struct EtcdClient {
    nodes: Vec<Grpc<Channel>>,
    at: usize,
}

impl EtcdClient {
    pub(crate) async fn connect(nodes: &[String]) -> Result<Self, Failure> {
        let channels = nodes.iter().map(|node| {
            let endpoint = Endpoint::from_shared(format!("http://{node}"))?.tcp_nodelay(true);
            Ok(Grpc::new(endpoint.connect_lazy()))
        });
        let nodes = channels.collect::<Result<Vec<_>, tonic::transport::Error>>()?;
        let mut client = Self { nodes, at: 0 };
        for at in 0..client.nodes.len() {
            client.at = at;
            let path = "/etcdserverpb.Maintenance/Status";
            let status: StatusResponse = client.call(path, StatusRequest {}).await?;
            if status.leader != 0 && status.header.map(|it| it.member) == Some(status.leader) {
                return Ok(client);
            }
        }
        Err("no node of etcd leads".into())
    }

    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, Failure>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let node = &mut self.nodes[self.at];
        node.ready().await?;
        let path = PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, A>::default();
        let answer = node.unary(tonic::Request::new(request), path, codec).await;
        Ok(answer.map_err(|status| status.message().to_owned())?.into_inner())
    }

    pub(crate) async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let request = PutRequest { key: key.to_vec(), value: value.to_vec() };
        let answer: PutResponse = self.call("/etcdserverpb.KV/Put", request).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        if revision > 0 { Ok(()) } else { Err("etcd names no revision of the write".into()) }
    }

    pub(crate) async fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let request = RangeRequest { key: key.to_vec() };
        let mut answer: RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
        Ok(answer.pairs.pop().map(|pair| pair.value))
    }

    pub(crate) fn node(&self) -> usize {
        self.at
    }

    pub(crate) fn go_elsewhere(&mut self) {
        self.at = (self.at + 1) % self.nodes.len();
    }
}
