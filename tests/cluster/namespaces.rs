//! Networks of namespaces: each node has one of its own, on a bridge in another one, from which
//! clients reach all nodes. Nothing of it is seen outside.
//!
//! Only root may make them. Where it is not permitted, tests say why, and are skipped.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::processes::NodeProcess;
use crate::support::skip;

/// What the names of all namespaces here begin with. Then come the process and a number.
const PREFIX: &str = "bitcask-test-";

/// A bridge, and the namespaces of nodes. It is removed when it is dropped.
pub(crate) struct BridgedNetwork {
    name: String,
    nodes: u64,
}

/// Runs `ip` with arguments that spaces divide.
fn ip(line: &str) -> Result<String, String> {
    run("ip", line)
}

fn run(program: &str, line: &str) -> Result<String, String> {
    let done = Command::new(program).args(line.split(' ')).output();
    let done = done.map_err(|error| format!("`{program}` does not run: {error}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    Err(format!("`{program} {line}`: {}", String::from_utf8_lossy(&done.stderr).trim()))
}

/// Removes what tests have left behind that were killed.
fn sweep() {
    let Ok(listed) = ip("netns list") else { return };
    for name in listed.lines().filter_map(|line| line.split(' ').next()) {
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|it| !Path::new("/proc").join(it).exists()) {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

impl BridgedNetwork {
    /// Returns why not, if it cannot be made here.
    pub(crate) fn new(nodes: u64) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        ip(&format!("netns add {name}"))?;
        let network = Self { name, nodes };
        network.build()?;
        Ok(network)
    }

    fn build(&self) -> Result<(), String> {
        let hub = &self.name;
        ip(&format!("-n {hub} link set lo up"))?;
        ip(&format!("-n {hub} link add bridge type bridge"))?;
        ip(&format!("-n {hub} addr add 10.0.0.254/24 dev bridge"))?;
        ip(&format!("-n {hub} link set bridge up"))?;
        for id in 1..=self.nodes {
            let node = self.of(id);
            ip(&format!("netns add {node}"))?;
            ip(&format!("-n {hub} link add to{id} type veth peer name eth0 netns {node}"))?;
            ip(&format!("-n {hub} link set to{id} master bridge up"))?;
            ip(&format!("-n {node} addr add 10.0.0.{id}/24 dev eth0"))?;
            ip(&format!("-n {node} link set lo up"))?;
            ip(&format!("-n {node} link set eth0 up"))?;
        }
        Ok(())
    }

    /// Returns the namespace of a node.
    fn of(&self, id: u64) -> String {
        format!("{}-{id}", self.name)
    }

    /// Returns the nodes, which are not started yet.
    fn nodes(&self, dir: &Path) -> Vec<NodeProcess> {
        let nodes = (1..=self.nodes).map(|id| {
            let addresses = [7000, 6379, 8000].map(|port| format!("10.0.0.{id}:{port}"));
            let mut node = NodeProcess::at(id, dir, addresses);
            node.namespace = Some(self.of(id));
            node
        });
        nodes.collect()
    }

    /// Has this thread, and those that it will start, see this network and no other.
    #[expect(unsafe_code, reason = "std has no way into a namespace")]
    fn enter(&self) {
        let namespace = File::open(Path::new("/run/netns").join(&self.name)).unwrap();
        // SAFETY: The descriptor is open, and only this thread is concerned.
        let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for BridgedNetwork {
    fn drop(&mut self) {
        let nodes = (1..=self.nodes).map(|id| self.of(id));
        for name in nodes.chain([self.name.clone()]) {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

/// Runs a test on a thread that sees only a network of its own, with so many nodes.
pub(crate) fn networked(nodes: u64, test: impl FnOnce(Vec<NodeProcess>) + Send) {
    let network = match BridgedNetwork::new(nodes) {
        Ok(network) => network,
        Err(reason) => return skip(&reason),
    };
    let dir = tempfile::tempdir().unwrap();
    let ended = std::thread::scope(|scope| {
        let test = scope.spawn(|| {
            network.enter();
            test(network.nodes(dir.path()));
        });
        test.join()
    });
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

/// Limits how much a node sends, or no longer.
pub(crate) fn limit(node: &NodeProcess, rate: Option<&str>) {
    let namespace = node.namespace.as_ref().unwrap();
    let line = match rate {
        Some(rate) => format!("-n {namespace} qdisc add dev eth0 root tbf {rate}"),
        None => format!("-n {namespace} qdisc del dev eth0 root"),
    };
    run("tc", &line).unwrap();
}

/// How a node is kept from sending to another one.
#[derive(Clone, Copy)]
pub(crate) enum Cut {
    /// Nothing is sent, and whoever wants to hears of it at once.
    Refused,
    /// What is sent arrives nowhere.
    Lost,
    /// Requests to the other node are refused. Its own requests are answered.
    Requests,
}

impl Cut {
    /// Returns what makes the cut, or what heals it.
    fn line(self, from: &NodeProcess, to: &NodeProcess, is_made: bool) -> String {
        let (address, port) = to.cluster.rsplit_once(':').unwrap();
        let verb = match (is_made, self) {
            (false, _) => "del",
            (true, Self::Lost) => "replace",
            (true, _) => "add",
        };
        let namespace = from.namespace.as_ref().unwrap();
        match self {
            Self::Refused => format!("-n {namespace} route {verb} blackhole {address}/32"),
            Self::Lost => format!(
                "-n {namespace} neigh {verb} {address} lladdr 02:00:00:00:00:fe dev eth0 nud permanent"
            ),
            Self::Requests => format!(
                "-n {namespace} rule {verb} to {address} ipproto tcp dport {port} blackhole"
            ),
        }
    }

    /// Keeps each of some nodes from sending to each of others.
    pub(crate) fn make(self, nodes: &[NodeProcess], from: &[usize], to: &[usize]) {
        self.apply(nodes, from, to, true);
    }

    /// Lets them send again.
    pub(crate) fn heal(self, nodes: &[NodeProcess], from: &[usize], to: &[usize]) {
        self.apply(nodes, from, to, false);
    }

    fn apply(self, nodes: &[NodeProcess], from: &[usize], to: &[usize], is_made: bool) {
        for from in from {
            for to in to.iter().filter(|to| *to != from) {
                ip(&self.line(&nodes[*from], &nodes[*to], is_made)).unwrap();
            }
        }
    }
}
