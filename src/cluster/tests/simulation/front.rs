//! How clients reach the shards of a node: what the Redis port does with a command, without the
//! protocol and its threads.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::history::MARK_SIZE;
use super::machines::SimNode;
use super::network::{SimStream, SimTcp};
use crate::cluster::consensus::{Answered, Request};
use crate::cluster::error::ClusterError;
use crate::cluster::shards::shown;
use crate::resp::{CommandsRequest, ShardFailure, StringEntry, slot_of};

/// What a client asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Ask {
    Append { key: String, mark: String },
    Read { key: String, is_stale: bool },
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Told {
    /// The append is the one at this position.
    At(usize),
    Found(String),
    Moved(String),
    NoLeader,
    /// The error of a reply, which begins with its code.
    Failed(String),
}

/// Serves a client until it is gone.
pub(super) async fn serve(mut stream: SimStream, node: SimNode) {
    while let Ok(ask) = receive(&mut stream).await {
        let told = answer(&node, ask).await;
        if send(&mut stream, &told).await.is_err() {
            return;
        }
    }
}

async fn answer(node: &SimNode, ask: Ask) -> Told {
    let (Ask::Append { key, .. } | Ask::Read { key, .. }) = &ask;
    let Some(group) = node.group(node.map().group_of(slot_of(key.as_bytes()))) else {
        return Told::NoLeader;
    };
    let told = match &ask {
        Ask::Append { key, mark } => {
            let words = ["APPEND", key, mark];
            let words = words.map(|word| Bytes::copy_from_slice(word.as_bytes())).to_vec();
            let request = CommandsRequest::new(vec![words], Vec::new());
            node.write(&group, Request::Commands(request)).await.map(|answered| match answered {
                Answered::Replies(Some(replies)) => {
                    let size = replies.into_iter().next().unwrap().into_number();
                    Told::At(usize::try_from(size.unwrap().unwrap()).unwrap() / MARK_SIZE)
                }
                other => panic!("{other:?}"),
            })
        }
        Ask::Read { key, is_stale } => {
            let confirmed = if *is_stale { Ok(()) } else { node.read_index(&group).await };
            confirmed.and_then(|()| group.keys()).map(|keys| match keys.string(key.as_bytes()) {
                Ok(StringEntry::Absent) => Told::Found(String::new()),
                Ok(StringEntry::Value { value, .. }) => {
                    Told::Found(String::from_utf8(value).unwrap())
                }
                other => panic!("{other:?}"),
            })
        }
    };
    told.unwrap_or_else(|error| failed(node, error))
}

fn failed(node: &SimNode, error: ClusterError) -> Told {
    match shown(node, error) {
        ShardFailure::Moved(address) => Told::Moved(address),
        ShardFailure::NoLeader => Told::NoLeader,
        ShardFailure::TooLarge(text) | ShardFailure::Failed(text) => Told::Failed(text),
    }
}

async fn receive<T: for<'de> Deserialize<'de>>(stream: &mut SimStream) -> io::Result<T> {
    let size = stream.read_u32().await?;
    let mut bytes = vec![0; size as usize];
    stream.read_exact(&mut bytes).await?;
    postcard::from_bytes(&bytes).map_err(io::Error::other)
}

async fn send<T: Serialize>(stream: &mut SimStream, message: &T) -> io::Result<()> {
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(body);
    stream.write_all(&bytes).await
}

/// A client's way to one node.
pub(super) struct Way {
    tcp: SimTcp,
    address: String,
    stream: Option<SimStream>,
}

/// What came of a question.
pub(super) enum Asked {
    Told(Told),
    /// The node was not reached.
    NotSent,
    /// The node may have got the question.
    NoAnswer,
}

impl Way {
    pub(super) fn new(tcp: SimTcp, address: String) -> Self {
        Self { tcp, address, stream: None }
    }

    /// Goes to another node.
    pub(super) fn go(&mut self, address: String) {
        (self.address, self.stream) = (address, None);
    }

    /// Asks the node, which has a time to answer.
    pub(super) async fn ask(&mut self, ask: &Ask, time: Duration) -> Asked {
        if self.stream.is_none() {
            let connecting = self.tcp.connected(&self.address);
            match tokio::time::timeout(Duration::from_millis(300), connecting).await {
                Ok(Ok(stream)) => self.stream = Some(stream),
                _ => return Asked::NotSent,
            }
        }
        let Some(mut stream) = self.stream.take() else { return Asked::NotSent };
        let asked = async {
            send(&mut stream, ask).await?;
            receive(&mut stream).await
        };
        match tokio::time::timeout(time, asked).await {
            Ok(Ok(told)) => {
                self.stream = Some(stream);
                Asked::Told(told)
            }
            _ => Asked::NoAnswer,
        }
    }
}
