//! Nodes as processes, which are killed and halted while clients work.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bitcask::cluster::{ClusterAdmin, GroupStatus, NodeStatus};

use crate::support::{Client, PATIENCE, free_address, patiently};

/// The secret of all clusters here.
const SECRET: &str = "a secret of tests";

/// Returns a program of another version, if the environment names one. An upgrade begins with it.
pub(crate) fn other_program() -> Option<String> {
    std::env::var("BITCASK_OTHER_PROGRAM").ok()
}

/// A node as a process, running or not.
pub(crate) struct NodeProcess {
    pub(crate) id: u64,
    pub(crate) cluster: String,
    pub(crate) redis: String,
    pub(crate) http: String,
    pub(crate) dir: PathBuf,
    /// The network namespace that the node runs in, if not in that of the test.
    pub(crate) namespace: Option<String>,
    pub(crate) variables: Vec<(String, String)>,
    /// Whether it forwards what other nodes lead.
    pub(crate) forwards: bool,
    /// Whether it runs the other program that the environment names.
    pub(crate) is_other: bool,
    child: Option<Child>,
}

impl NodeProcess {
    /// Returns a node on the loopback address, which is not started yet.
    pub(crate) fn new(id: u64, dir: &Path) -> Self {
        Self::at(id, dir, [free_address(), free_address(), free_address()])
    }

    /// Returns a node at its addresses for other nodes, for clients of Redis, and of HTTP.
    pub(crate) fn at(id: u64, dir: &Path, addresses: [String; 3]) -> Self {
        let dir = dir.join(id.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("secret"), SECRET).unwrap();
        let [cluster, redis, http] = addresses;
        let (namespace, variables, child) = (None, Vec::new(), None);
        let (forwards, is_other) = (false, false);
        Self { id, cluster, redis, http, dir, namespace, variables, forwards, is_other, child }
    }

    pub(crate) fn start(&mut self) {
        let other = other_program().filter(|_| self.is_other);
        let program = other.as_deref().unwrap_or(env!("CARGO_BIN_EXE_bitcask"));
        let mut command = Command::new(if self.namespace.is_some() { "ip" } else { program });
        if let Some(namespace) = &self.namespace {
            command.args(["netns", "exec", namespace, program]);
        }
        let (host, port) = self.redis.rsplit_once(':').unwrap();
        let http = self.http.rsplit_once(':').unwrap().1;
        command.arg("--dir").arg(self.dir.join("data")).args(["server", "start", "--cluster"]);
        command.args(["--node-id", &self.id.to_string(), "--cluster-listen", &self.cluster]);
        command.arg("--cluster-secret-file").arg(self.dir.join("secret"));
        command.args(["--host", host, "--port", http, "--resp-port", port, "--insecure"]);
        command.args(self.forwards.then_some("--forward"));
        // Two thirds of what is usual, so that tests take less time.
        command.args(["--cluster-heartbeat", "170", "--cluster-election", "1000"]);
        command.env("BITCASK_LOG_LEVEL", "off").stdout(Stdio::null()).stderr(Stdio::inherit());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.spawn().unwrap());
    }

    /// Kills the process at once.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Asks the process to end, and waits for that.
    pub(crate) fn stop(&mut self) {
        self.signal("TERM");
        if let Some(mut child) = self.child.take() {
            assert!(child.wait().unwrap().success());
        }
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        if let Some(pid) = self.pid() {
            let mut kill = Command::new("kill");
            let sent = kill.args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
            assert!(sent.success());
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
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
    let mut nodes: Vec<_> = (1..=nodes).map(|id| NodeProcess::new(id, dir)).collect();
    found(&mut nodes, shards);
    nodes
}

/// Starts nodes, and makes a cluster of them.
pub(crate) fn found(nodes: &mut [NodeProcess], shards: u16) {
    nodes.iter_mut().for_each(NodeProcess::start);
    patiently(|| nodes[0].admin().init(shards));
    for node in nodes.iter().skip(1) {
        patiently(|| node.admin().join(&*nodes[0].cluster));
    }
}

pub(crate) fn addresses(nodes: &[NodeProcess]) -> Vec<String> {
    nodes.iter().map(|node| node.redis.clone()).collect()
}

/// Returns what each node that runs says of itself.
pub(crate) fn statuses(nodes: &[NodeProcess]) -> Result<Vec<NodeStatus>, String> {
    let running = nodes.iter().filter(|node| node.child.is_some());
    running.map(|node| node.admin().status().map_err(|error| error.to_string())).collect()
}

/// Returns which of the nodes leads a group. Of two that say so, the one of before does not.
pub(crate) fn leader(nodes: &[NodeProcess], group: u64) -> usize {
    patiently(|| {
        let running = nodes.iter().filter(|node| node.child.is_some());
        let groups = running.filter_map(|node| node.admin().status().ok()).flat_map(|it| it.groups);
        let groups = groups.filter(|it| it.number == group && it.leader.is_some());
        let leader = groups.max_by_key(|it| it.term).and_then(|it| it.leader);
        let at = nodes.iter().position(|node| Some(node.id) == leader);
        at.filter(|at| nodes[*at].child.is_some()).ok_or("nobody leads")
    })
}

/// Waits until all nodes that run agree on a leader of each group, and on who votes.
pub(crate) fn await_leaders(nodes: &[NodeProcess]) -> Vec<NodeStatus> {
    agreed(nodes, |group| {
        format!("{:?} {} {:?} {:?}", group.leader, group.term, group.voters, group.failure)
    })
}

/// Waits until all nodes that run have applied the same, and all of it.
pub(crate) fn await_equal(nodes: &[NodeProcess]) -> Vec<NodeStatus> {
    agreed(nodes, |group| {
        let is_behind = group.applied != group.last_log;
        format!("{:?} {:?} {is_behind} {:?}", group.leader, group.applied, group.failure)
    })
}

/// Waits until each group looks the same on all nodes that run, has a leader, and works.
fn agreed(nodes: &[NodeProcess], shown: impl Fn(&GroupStatus) -> String) -> Vec<NodeStatus> {
    patiently(|| {
        let all = statuses(nodes)?;
        let views = all.iter().map(|it| it.groups.iter().map(&shown).collect::<Vec<_>>());
        let views: Vec<_> = views.collect();
        let is_well = |group: &GroupStatus| group.leader.is_some() && group.failure.is_none();
        let are_well = all.iter().all(|it| !it.groups.is_empty() && it.groups.iter().all(is_well));
        let are_equal = views.windows(2).all(|pair| pair[0] == pair[1]);
        let is_caught_up = !views.iter().flatten().any(|it| it.contains("true"));
        if are_well && are_equal && is_caught_up { Ok(all) } else { Err(format!("{views:?}")) }
    })
}

/// Connects to a node that may answer from what it has.
pub(crate) fn stale_client(node: &NodeProcess) -> Client {
    patiently(|| {
        let mut client = Client::new(&node.redis)?;
        client.run("READONLY").map(|reply| {
            assert_eq!(reply, "OK");
            client
        })
    })
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
    connection: Option<Client>,
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
            let connection = Client::new(address)?;
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
        let is_unknown = reply.starts_with("(error) ERR the group lost")
            || (reply.starts_with("(error) ERR") && reply.contains("does not take part"));
        self.connection = Some(connection);
        Ok(Some(if is_unknown { Tried::Unknown } else { Tried::Reply(reply) }))
    }
}
