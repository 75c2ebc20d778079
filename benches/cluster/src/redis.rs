//! A client of a Redis Cluster, which the nodes of bitcask look like.

use crate::Failure;
use crate::resp::{Reply, RespConnection, write_command};

const SLOTS: u16 = 1 << 14;
/// Maximum number of nodes to which one request is sent.
const REDIRECTIONS_MAX: usize = 5;

/// A client that keeps a connection to each node that it needs, and follows `MOVED`.
pub(crate) struct RedisClient {
    nodes: Vec<String>,
    connections: Vec<Option<RespConnection>>,
    /// The place of the node that leads each slot.
    leaders: Vec<usize>,
    /// Whether a write counts only when a replica has it.
    waits: bool,
}

impl RedisClient {
    pub(crate) async fn connect(nodes: Vec<String>, waits: bool) -> Result<Self, Failure> {
        let connections = nodes.iter().map(|_| None).collect();
        let leaders = vec![0; usize::from(SLOTS)];
        let mut client = Self { nodes, connections, leaders, waits };
        client.learn_slots().await?;
        Ok(client)
    }

    async fn learn_slots(&mut self) -> Result<(), Failure> {
        let mut command = Vec::new();
        write_command(&[b"CLUSTER", b"SLOTS"], &mut command);
        let replies = self.exchange(0, &command, 1).await?;
        let [Reply::Array(ranges)] = &*replies else {
            return Err(format!("no slots: {replies:?}").into());
        };
        for range in ranges {
            let Reply::Array(parts) = range else { return Err("a range is no array".into()) };
            let [Reply::Integer(first), Reply::Integer(last), Reply::Array(node), ..] = &**parts
            else {
                return Err(format!("not a range: {parts:?}").into());
            };
            let [Reply::Bulk(Some(host)), Reply::Integer(port), ..] = &**node else {
                return Err(format!("not a node: {node:?}").into());
            };
            let address = format!("{}:{port}", str::from_utf8(host)?);
            let place = self.place_of(&address)?;
            self.leaders[usize::try_from(*first)?..=usize::try_from(*last)?].fill(place);
        }
        Ok(())
    }

    fn place_of(&self, address: &str) -> Result<usize, Failure> {
        let place = self.nodes.iter().position(|node| node == address);
        place.ok_or_else(|| format!("no node has the address {address}").into())
    }

    /// Sends commands to a node, and returns as many replies. After an error, or if nobody waits
    /// for the end, the connection is closed.
    async fn exchange(
        &mut self,
        place: usize,
        commands: &[u8],
        count: usize,
    ) -> Result<Vec<Reply>, Failure> {
        let mut connection = match self.connections[place].take() {
            Some(connection) => connection,
            None => RespConnection::open(&self.nodes[place]).await?,
        };
        connection.send(commands).await?;
        let mut replies = Vec::with_capacity(count);
        for _ in 0..count {
            replies.push(connection.reply().await?);
        }
        self.connections[place] = Some(connection);
        Ok(replies)
    }

    /// Sends commands to the node that leads the slot of the key. Only the first has the key.
    async fn call(
        &mut self,
        key: &[u8],
        commands: &[u8],
        count: usize,
    ) -> Result<Vec<Reply>, Failure> {
        let slot = usize::from(slot_of(key));
        for _ in 0..REDIRECTIONS_MAX {
            let replies = self.exchange(self.leaders[slot], commands, count).await?;
            let Some(Reply::Error(error)) = replies.first() else { return Ok(replies) };
            let Some(address) = moved_to(error) else { return Err(error.clone().into()) };
            self.leaders[slot] = self.place_of(address)?;
        }
        Err("the nodes send a request in circles".into())
    }

    pub(crate) async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let mut commands = Vec::with_capacity(key.len() + value.len() + 64);
        write_command(&[b"SET", key, value], &mut commands);
        if self.waits {
            write_command(&[b"WAIT", b"1", b"0"], &mut commands);
        }
        let replies = self.call(key, &commands, 1 + usize::from(self.waits)).await?;
        match &*replies {
            [Reply::Text(ok)] if ok == "OK" => Ok(()),
            [Reply::Text(ok), Reply::Integer(1..)] if ok == "OK" => Ok(()),
            other => Err(format!("not written: {other:?}").into()),
        }
    }

    pub(crate) async fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let mut command = Vec::with_capacity(key.len() + 32);
        write_command(&[b"GET", key], &mut command);
        match self.call(key, &command, 1).await?.pop() {
            Some(Reply::Bulk(value)) => Ok(value),
            other => Err(format!("not a value: {other:?}").into()),
        }
    }

    pub(crate) fn node_of(&self, key: &[u8]) -> usize {
        self.leaders[usize::from(slot_of(key))]
    }

    pub(crate) fn go_elsewhere(&mut self, key: &[u8]) {
        let leader = &mut self.leaders[usize::from(slot_of(key))];
        *leader = (*leader + 1) % self.nodes.len();
    }

    pub(crate) fn wait_for_no_replica(&mut self) {
        self.waits = false;
    }
}

/// Returns the address to which an error sends the client.
fn moved_to(error: &str) -> Option<&str> {
    error.strip_prefix("MOVED ")?.split(' ').nth(1)
}

/// Returns the slot of a key without a hash tag: CRC16 of it, with the polynomial of XMODEM.
fn slot_of(key: &[u8]) -> u16 {
    let mut crc = 0_u16;
    for byte in key {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
    }
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        // From the specification of Redis Cluster.
        assert_eq!(slot_of(b"123456789"), 0x31C3);
        // CLUSTER KEYSLOT of a redis-server.
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"bar"), 5061);
    }

    #[test]
    fn a_redirection_names_an_address() {
        assert_eq!(moved_to("MOVED 3999 127.0.0.1:6381"), Some("127.0.0.1:6381"));
        assert_eq!(moved_to("CLUSTERDOWN Hash slot not served"), None);
    }
}
