//! Nodes as processes, which are killed and halted while clients work.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bitcask::cluster::ClusterAdmin;

use crate::support::{PATIENCE, free_address, patiently};

/// The secret of all clusters here.
const SECRET: &str = "a secret of tests";

/// A node as a process, running or not.
pub(crate) struct NodeProcess {
    pub(crate) id: u64,
    pub(crate) cluster: String,
    pub(crate) redis: String,
    dir: PathBuf,
    child: Option<Child>,
}

impl NodeProcess {
    pub(crate) fn new(id: u64, dir: &Path) -> Self {
        let dir = dir.join(id.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("secret"), SECRET).unwrap();
        let (cluster, redis) = (free_address(), free_address());
        let mut node = Self { id, cluster, redis, dir, child: None };
        node.start();
        node
    }

    pub(crate) fn start(&mut self) {
        let port = self.redis.rsplit_once(':').unwrap().1;
        let mut command = Command::new(env!("CARGO_BIN_EXE_bitcask"));
        command.arg("--dir").arg(self.dir.join("data")).args(["server", "start", "--cluster"]);
        command.args(["--node-id", &self.id.to_string(), "--cluster-listen", &self.cluster]);
        command.arg("--cluster-secret-file").arg(self.dir.join("secret"));
        command.args(["--port", "0", "--resp-port", port]);
        command.env("BITCASK_LOG_LEVEL", "off").stdout(Stdio::null()).stderr(Stdio::inherit());
        self.child = Some(command.spawn().unwrap());
    }

    /// Kills the process at once.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            let mut kill = Command::new("kill");
            let sent = kill.args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
            assert!(sent.success());
        }
    }

    pub(crate) fn admin(&self) -> ClusterAdmin {
        ClusterAdmin::new(&*self.cluster, SECRET).unwrap()
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts a cluster of some nodes.
pub(crate) fn cluster(nodes: u64, shards: u16, dir: &Path) -> Vec<NodeProcess> {
    let nodes: Vec<_> = (1..=nodes).map(|id| NodeProcess::new(id, dir)).collect();
    patiently(|| nodes[0].admin().init(shards));
    for node in nodes.iter().skip(1) {
        patiently(|| node.admin().join(&*nodes[0].cluster));
    }
    nodes
}

/// What came of a command that must not be repeated blindly.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    Reply(String),
    /// It may have taken effect.
    Unknown,
}

/// A client that sends each command until a node has taken it, and never again after that.
pub(crate) struct CarefulClient {
    addresses: Vec<String>,
    at: usize,
    connection: Option<crate::support::Client>,
    /// How long to wait for a reply.
    pub(crate) patience: Duration,
}

impl CarefulClient {
    pub(crate) fn new(addresses: Vec<String>) -> Self {
        Self { addresses, at: 0, connection: None, patience: Duration::from_secs(15) }
    }

    /// Ends the connection. The next command begins another one.
    pub(crate) fn reconnect(&mut self) {
        self.connection = None;
    }

    /// Sends a command to one node, and nowhere else if that node refuses it. Within a transaction,
    /// another connection knows nothing of the commands before.
    pub(crate) fn run_here(&mut self, line: &str) -> Option<Tried> {
        self.try_run(line).unwrap_or_else(|_| {
            self.at += 1;
            None
        })
    }

    pub(crate) fn run(&mut self, line: &str) -> Tried {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            match self.try_run(line) {
                Ok(Some(tried)) => return tried,
                Ok(None) => {}
                // Nobody listens, so nothing was sent.
                Err(_) => self.at += 1,
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("nobody takes {line:?}")
    }

    /// Returns `None` if the node has refused the command before it did anything.
    fn try_run(&mut self, line: &str) -> io::Result<Option<Tried>> {
        let mut connection = if let Some(connection) = self.connection.take() {
            connection
        } else {
            let address = &self.addresses[self.at % self.addresses.len()];
            let connection = crate::support::Client::new(address)?;
            connection.limit(self.patience)?;
            connection
        };
        let Ok(reply) = connection.run(line) else {
            self.at += 1;
            return Ok(Some(Tried::Unknown));
        };
        if let Some(moved) = reply.strip_prefix("(error) MOVED ") {
            let address = moved.split(' ').nth(1).unwrap();
            let known = self.addresses.iter().position(|it| it == address);
            self.at = known.unwrap_or(self.at + 1);
            return Ok(None);
        }
        if reply.starts_with("(error) CLUSTERDOWN") || reply.starts_with("(error) TRYAGAIN") {
            self.at += 1;
            return Ok(None);
        }
        let is_unknown = reply.starts_with("(error) ERR the group lost");
        self.connection = Some(connection);
        Ok(Some(if is_unknown { Tried::Unknown } else { Tried::Reply(reply) }))
    }
}
