//! The Redis port of a follower.

#![cfg(feature = "resp")]
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bitcask::resp::{RespOptions, RespServer, RespStopHandle};
use bitcask::server::ServerOptions;

use super::support::{Node, following, until};

/// The Redis port of a store.
struct Port {
    address: SocketAddr,
    stop: RespStopHandle,
    thread: Option<JoinHandle<()>>,
}

impl Port {
    fn of(node: &Node) -> Self {
        let options = node
            .replica
            .clone()
            .map_or(RespOptions::new(), |replica| RespOptions::new().replica(replica));
        let server = RespServer::bind("127.0.0.1:0", Arc::clone(&node.db), options).unwrap();
        let (address, stop) = (server.address(), server.stop_handle());
        let thread = Some(std::thread::spawn(move || server.run().unwrap()));
        Self { address, stop, thread }
    }

    /// Sends inline commands, and returns everything that comes back until the connection ends.
    fn ask(&self, commands: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(format!("{commands}\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.strip_suffix("+OK\r\n").unwrap().to_owned()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.stop.stop();
        let _ = self.thread.take().unwrap().join();
    }
}

const READ_ONLY: &str = "-READONLY You can't write against a read only replica. Its leader is ";

#[test]
fn the_redis_port_of_a_follower_is_that_of_a_replica() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    let leading = Port::of(&leader);
    assert_eq!(leading.ask("SET k v"), "+OK\r\n");
    assert_eq!(leading.ask("HSET h f 1"), ":1\r\n");
    let node = Node::follower(&dir.path().join("follower"), &leader);
    let port = Port::of(&node);
    node.has_all_of(&leader);
    for command in ["SET k w", "DEL k", "HSET h f 2", "FLUSHALL", "EXPIRE k 1", "INCR n", "GETEX k"]
    {
        let refused = format!("{READ_ONLY}http://{}\r\n", leader.address);
        assert_eq!(port.ask(command), refused, "{command}");
    }
    let transaction = port.ask("MULTI\r\nSET k w\r\nEXEC");
    assert!(
        transaction.ends_with("-EXECABORT Transaction discarded because of previous errors.\r\n")
    );
    assert_eq!(port.ask("GET k"), "$1\r\nv\r\n");
    assert_eq!(port.ask("GET k\r\nGET k"), "$1\r\nv\r\n$1\r\nv\r\n");
    assert_eq!(port.ask("HGET h f"), "$1\r\n1\r\n");
    assert_eq!(port.ask("DBSIZE"), ":2\r\n");
    assert!(!port.ask("KEYS *").contains("follow"));
    let role = port.ask("ROLE");
    let address = leader.address;
    let expected = format!("$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:{}\r\n", address.port());
    assert!(role.contains(&expected) || role.contains("+slave"), "{role}");
    until("the port reports the lag", || {
        port.ask("INFO replication").contains("replica_lag_entries:0\r\n")
    });
    let info = port.ask("INFO replication");
    for line in [
        "role:slave\r\n",
        "master_host:127.0.0.1\r\n",
        "master_link_status:up\r\n",
        "slave_read_only:1\r\n",
        "replica_lag_bytes:0\r\n",
        "replica_lag_seconds:",
    ] {
        assert!(info.contains(line), "{line}: {info}");
    }
    assert!(info.contains(&format!("master_port:{}\r\n", address.port())), "{info}");
    node.send("POST", "/v1/promote", b"").has(200);
    assert_eq!(port.ask("SET k w"), "+OK\r\n");
    // The fields of a hash that came from the leader go with it.
    assert_eq!(port.ask("SET h s"), "+OK\r\n");
    assert_eq!(node.db.prefix_keys("\0h").count(), 0);
    assert!(port.ask("INFO replication").contains("role:master\r\n"));
    assert!(port.ask("ROLE").contains("master"));
}

#[test]
fn the_redis_port_says_that_the_store_is_loading() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = ServerOptions::new().follow(following("http://127.0.0.1:1"));
    let node = Node::on(&dir.path().join("follower"), 0, nowhere);
    let port = Port::of(&node);
    for command in ["GET k", "GET k\r\nGET k", "DBSIZE", "KEYS *", "TTL k"] {
        let answer = port.ask(command);
        assert!(answer.lines().all(|line| line.starts_with("-LOADING ")), "{command}: {answer}");
    }
    assert_eq!(port.ask("PING"), "+PONG\r\n");
    assert!(port.ask("INFO replication").contains("master_link_status:down\r\n"));
}
