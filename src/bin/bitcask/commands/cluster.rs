//! `server start --cluster`, and `cluster`, which administers nodes.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bitcask::cluster::{
    BalancedLeads, ClusterAdmin, ClusterError, ClusterNode, ClusterOptions, NodeStatus,
};
use bitcask::resp::{RespOptions, RespStopHandle};
use clap::{Args, Subcommand};
use signal_hook::consts::SIGTERM;
use signal_hook::flag;

use super::redis_port::{RedisPort, RunningPort};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::{self, StoppableWork};
use crate::output::Format;
use crate::program::Program;
use crate::settings::{self, SettingOrigin};

/// How often a node looks whether it has to stop.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How a server takes part in a cluster.
#[derive(Debug, Default, Args)]
pub(crate) struct ClusterArgs {
    /// Takes part in a cluster: the nodes of the cluster hold the same keys.
    #[arg(long, requires_all = ["node_id", "cluster_secret_file"])]
    cluster: bool,
    /// Number of this node. No other node of the cluster may ever have had it.
    #[arg(long, value_name = "ID")]
    node_id: Option<u64>,
    /// Where to listen for the other nodes [default: 127.0.0.1:7000].
    #[arg(long, value_name = "HOST:PORT")]
    cluster_listen: Option<String>,
    /// Where the other nodes reach this one [default: where it listens].
    #[arg(long, value_name = "HOST:PORT")]
    cluster_address: Option<String>,
    /// Where clients of Redis reach this node [default: where it listens].
    #[arg(long, value_name = "HOST:PORT")]
    redis_address: Option<String>,
    /// Where clients of HTTP reach this node [default: where it listens].
    #[arg(long, value_name = "HOST:PORT")]
    http_address: Option<String>,
    /// Forwards requests to the node that leads, instead of telling clients where it is.
    #[arg(long, requires = "cluster")]
    forward: bool,
    /// How often a leader shows that it is there, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 250, requires = "cluster")]
    cluster_heartbeat: u64,
    /// How long a node waits for a sign of a leader, in milliseconds: at least five times
    /// --cluster-heartbeat, and at most 3,000. A failover takes three to four times this time.
    #[arg(long, value_name = "MS", default_value_t = 1500, requires = "cluster")]
    cluster_election: u64,
    /// File with what all nodes of the cluster know, and others do not.
    #[arg(long, value_name = "FILE")]
    cluster_secret_file: Option<PathBuf>,
}

/// Where a node serves clients.
pub(super) struct ClientPorts<'a> {
    pub(super) host: &'a str,
    pub(super) http: u16,
    pub(super) redis: Option<u16>,
    pub(super) token: Option<&'a str>,
    pub(super) is_insecure: bool,
}

impl ClusterArgs {
    pub(super) fn is_on(&self) -> bool {
        self.cluster
    }

    /// Runs a node until the user, or another process, wants it to stop.
    pub(super) fn serve(
        &self,
        dir: &Path,
        ports: &ClientPorts<'_>,
        program: &mut Program,
    ) -> Result<Exit, Failure> {
        let terminated = Arc::new(AtomicBool::new(false));
        // Without this, SIGTERM kills the program, and the node survives that too.
        let _ = flag::register(SIGTERM, Arc::clone(&terminated));
        let _stoppable = StoppableWork::begin();
        interrupt::check()?;
        let is_open = ports.host.parse::<IpAddr>().is_ok_and(|host| host.is_unspecified());
        if is_open && ports.token.is_none() && !ports.is_insecure {
            let what = "a node would be open to every network without a token";
            let advice = "set a token with --token-file or BITCASK_TOKEN, or add --insecure";
            return Err(Failure::usage(what, advice));
        }
        let options = self.options(dir, ports)?.store(program.settings()?.options()?);
        let node = ClusterNode::start(options).map_err(|error| failed(&error))?;
        let http = node.http((ports.host, ports.http), ports.token);
        let http = http.map_err(|error| failed(&error))?;
        let redis = redis(&node, ports)?;
        let printer = program.printer(Format::Plain)?;
        printer.line(&format!("serving other nodes at {}", node.address()))?;
        printer.line(&format!("serving {} at http://{http}", dir.display()))?;
        if let Some(redis) = &redis {
            printer.line(&format!("serving clients of Redis at {}", redis.url()))?;
        }
        printer.flush()?;
        let redis = redis.map(RedisPort::run);
        let handle = redis.as_ref().map(RunningPort::stop_handle);
        while !interrupt::is_requested()
            && !terminated.load(Ordering::SeqCst)
            && !handle.as_ref().is_some_and(RespStopHandle::is_stopped)
        {
            std::thread::sleep(LOOK_INTERVAL);
        }
        // Clients still find this node, which tells them who leads now.
        node.hand_leads_over();
        let ended = redis.map_or(Ok(()), RunningPort::end);
        drop(node);
        ended.map(|()| Exit::Done)
    }

    /// Returns the options of the node, but for those of its stores.
    fn options(&self, dir: &Path, ports: &ClientPorts<'_>) -> Result<ClusterOptions, Failure> {
        let secret = secret(self.cluster_secret_file.as_deref())?;
        let here = |port: u16| format!("{}:{port}", ports.host);
        let mut options = ClusterOptions::new(self.node_id.unwrap_or(0), dir, &secret)
            .forward(self.forward)
            .timing(self.cluster_heartbeat, self.cluster_election);
        if let Some(listen) = &self.cluster_listen {
            options = options.listen(listen);
        }
        // A port that the system chooses is announced to nobody.
        let http =
            self.http_address.clone().or_else(|| (ports.http != 0).then(|| here(ports.http)));
        if let Some(address) = http {
            options = options.http_address(address);
        }
        if let Some(address) = &self.cluster_address {
            options = options.cluster_address(address);
        }
        let announced = ports.redis.filter(|port| *port != 0).map(here);
        if let Some(address) = self.redis_address.clone().or(announced) {
            options = options.redis_address(address);
        }
        Ok(options)
    }
}

/// Refuses options of a server that a node would ignore, whether the command line, a variable or
/// the configuration file has them. Each has the name of its setting, and says whether it is on the
/// command line.
pub(super) fn refuse_unused(
    options: &[(&str, &str, bool)],
    program: &mut Program,
) -> Result<(), Failure> {
    let settings = program.settings()?;
    for (option, setting, is_given) in options {
        let (value, origin) = settings.get(setting);
        let usual = settings::find(setting).map_or("", |key| key.default);
        let (what, without) = if *is_given {
            (format!("--{option}"), "leave it out".to_owned())
        } else if value == usual || *origin == SettingOrigin::Default {
            continue;
        } else {
            let without = match origin {
                SettingOrigin::Variable(name) => format!("unset {name}"),
                _ => format!("run `bitcask config set {setting} {usual}`"),
            };
            (format!("the setting `{setting}` (from {origin})"), without)
        };
        let advice = if option.starts_with("tls-") {
            format!("{without}, and let a proxy in front of the node encrypt what clients send")
        } else {
            without
        };
        return Err(Failure::usage(format!("{what} has no effect with --cluster"), advice));
    }
    Ok(())
}

/// Binds the port for clients of Redis, if one was asked for.
fn redis(node: &ClusterNode, ports: &ClientPorts<'_>) -> Result<Option<RedisPort>, Failure> {
    let Some(port) = ports.redis else { return Ok(None) };
    let mut options = RespOptions::new().insecure(ports.is_insecure);
    if let Some(token) = ports.token {
        options = options.password(token);
    }
    RedisPort::bound(node.redis((ports.host, port), options), ports.host, port).map(Some)
}

/// Founds a cluster, changes which nodes belong to it, and shows how it is.
#[derive(Debug, Args)]
pub(crate) struct ClusterCommandArgs {
    /// The node that is asked: where it listens for the others.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7000")]
    node: String,
    /// File with the secret of the cluster.
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Founds a cluster of this node alone.
    Init {
        /// Number of shards, which never changes.
        #[arg(long, value_name = "NUMBER", default_value_t = 16)]
        shards: u16,
    },
    /// Has the node join the cluster that another one belongs to.
    Join {
        /// Where the other node listens for others.
        #[arg(value_name = "HOST:PORT")]
        address: String,
    },
    /// Removes a node from the cluster. It may be down.
    Remove {
        /// The number of the node.
        id: u64,
    },
    /// Shows what the node knows of the cluster and of its groups.
    Status {
        /// Shows it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Makes a node the leader of a group. Requests wait for a moment.
    Transfer {
        /// The number of the group.
        group: u64,
        /// The number of the node.
        id: u64,
    },
    /// Spreads the leads of the groups evenly over the nodes that answer, by one transfer after
    /// the other.
    Balance,
    /// Copies all groups from the node to a new directory.
    Backup {
        /// The directory, which must not exist.
        dir: PathBuf,
    },
    /// Puts all keys of a backup into the cluster, which may have another number of shards.
    Restore {
        /// The directory of the backup.
        dir: PathBuf,
    },
    /// Has the node build a snapshot of each group, after which it needs less of the log.
    Snapshot,
}

pub(crate) fn run(args: ClusterCommandArgs, program: &mut Program) -> Result<Exit, Failure> {
    let secret = secret(Some(&args.secret_file))?;
    let admin = ClusterAdmin::new(args.node, &secret).map_err(|error| failed(&error))?;
    let printer = program.printer(Format::Plain)?;
    let done = || "done".to_owned();
    let told = match args.command {
        ClusterCommand::Init { shards } => admin.init(shards).map(|()| done()),
        ClusterCommand::Join { address } => admin.join(address).map(|()| done()),
        ClusterCommand::Remove { id } => admin.remove(id).map(|()| done()),
        ClusterCommand::Transfer { group, id } => admin.transfer(group, id).map(|()| done()),
        ClusterCommand::Snapshot => admin.snapshot().map(|()| done()),
        ClusterCommand::Backup { dir } => admin.backup(dir).map(|()| done()),
        ClusterCommand::Restore { dir } => {
            admin.restore(dir).map(|keys| counted(keys, "key", "put"))
        }
        ClusterCommand::Balance => admin.balance().map(|leads| balanced(&leads)),
        ClusterCommand::Status { json } => {
            let status = admin.status().map_err(|error| failed(&error))?;
            if json {
                let text = serde_json::to_string_pretty(&status);
                printer.line(&text.map_err(|error| Failure::store(error.to_string(), ""))?)?;
            } else {
                for line in shown(&status) {
                    printer.line(&line)?;
                }
            }
            return Ok(Exit::Done);
        }
    };
    printer.line(&told.map_err(|error| failed(&error))?)?;
    Ok(Exit::Done)
}

/// Returns a status as lines for people.
fn shown(status: &NodeStatus) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(shards) = status.shards else {
        return vec![format!("node {} belongs to no cluster", status.id)];
    };
    let ending = if shards == 1 { "" } else { "s" };
    lines.push(format!("node {} of a cluster of {shards} shard{ending}", status.id));
    for node in &status.nodes {
        let (id, cluster, redis, http) = (node.id, &node.cluster, &node.redis, &node.http);
        lines.push(format!("  node {id}: nodes {cluster}, redis {redis}, http {http}"));
    }
    let index = |index: Option<u64>| index.map_or_else(|| "-".to_owned(), |it| it.to_string());
    for group in &status.groups {
        let slots = group
            .slots
            .map_or_else(|| "the map".to_owned(), |(first, last)| format!("slots {first}-{last}"));
        let leader = group.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
        // A node that joins the group, and does not vote yet.
        let learners = match &*group.learners {
            [] => String::new(),
            learners => format!(", learners {learners:?}"),
        };
        lines.push(format!(
            "  group {}: {slots}, {}, leader {leader}, term {}, voters {:?}{learners}, \
             applied {} of {}, keys {}",
            group.number,
            group.role.name(),
            group.term,
            group.voters,
            index(group.applied),
            index(group.last_log),
            group.keys,
        ));
        if let Some(failure) = &group.failure {
            lines.push(format!("    stopped: {failure}"));
        }
    }
    lines
}

fn secret(path: Option<&Path>) -> Result<String, Failure> {
    let Some(path) = path else {
        return Err(Failure::usage("there is no secret", "set --cluster-secret-file"));
    };
    let bytes = std::fs::read(path).map_err(|error| Failure::file("read", path, &error))?;
    let secret = String::from_utf8_lossy(&bytes).trim().to_owned();
    if secret.is_empty() {
        let what = format!("{} is empty", path.display());
        return Err(Failure::usage(what, "put a long random text into it"));
    }
    Ok(secret)
}

/// Says what was done to balance leads, and which nodes have no part in it.
fn balanced(leads: &BalancedLeads) -> String {
    let text = counted(leads.transferred as u64, "lead", "transferred");
    let left_out: Vec<_> = leads.left_out.iter().map(|id| format!("node {id}")).collect();
    if left_out.is_empty() {
        return text;
    }
    let reason = "down, joining or being removed";
    format!("{text}; left out ({reason}): {}", left_out.join(", "))
}

/// Says how many things a command has done.
fn counted(count: u64, thing: &str, done: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{ending} {done}")
}

fn failed(error: &ClusterError) -> Failure {
    let advice = match error {
        // These say by themselves what is wrong.
        ClusterError::Failed(_) | ClusterError::Refused(_) => "",
        ClusterError::Busy => "try again later",
        _ => "`bitcask cluster status` shows how the cluster is",
    };
    Failure::store(error.to_string(), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_names_the_nodes_that_do_not_vote_yet() {
        let line = |learners: &[u64]| {
            let status = serde_json::json!({
                "id": 1, "version": "", "shards": 1, "nodes": [],
                "groups": [{
                    "number": 0, "role": "Leader", "leader": 1, "term": 1, "voters": [1],
                    "learners": learners, "replicated": [], "transfers": [], "keys": 0, "size": 0,
                }],
            });
            shown(&serde_json::from_value(status).unwrap()).pop().unwrap()
        };
        assert!(line(&[2]).contains(", voters [1], learners [2], applied - of -, "));
        assert!(line(&[]).contains(", voters [1], applied - of -, "));
    }
}
