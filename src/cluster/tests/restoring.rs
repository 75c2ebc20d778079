//! The commands that put the keys of a copy again.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::applying::{AppliedGroup, texts};
use crate::cluster::admin::ClusterAdmin;
use crate::cluster::consensus::{Answered, Consensus, Request};
use crate::cluster::error::ClusterError;
use crate::cluster::network::messages::{PeerAnswer, PeerRequest, WriteOutcome};
use crate::cluster::options::ClusterOptions;
use crate::cluster::running::ClusterNode;
use crate::raft::open_copy;
use crate::resp::{CommandsRequest, put_again};

/// Maximum size of a command with several fields, and of a piece of a string, in tests.
const PIECE_SIZE: usize = 8 << 10;

/// Returns the commands that put everything again that a group has, and how many keys that is.
fn commands(group: &AppliedGroup) -> (Vec<Vec<Bytes>>, usize) {
    let (files, _) = group.state.copy().unwrap();
    let store = open_copy::<Consensus>(files.path()).unwrap();
    let (mut commands, mut count) = (Vec::new(), 0);
    for key in store.keys_unordered() {
        let put = put_again::<ClusterError>(&store, &key.unwrap(), |command| {
            commands.push(command);
            Ok(())
        });
        count += usize::from(put.unwrap());
    }
    (commands, count)
}

/// Applies commands, each as an entry. None of them may be refused.
async fn apply(group: &mut AppliedGroup, time: u64, commands: &[Vec<Bytes>]) {
    for command in commands {
        let request = CommandsRequest::new(vec![command.clone()], Vec::new());
        let answers = group.propose(time, vec![Request::Commands(request)]).await;
        assert!(matches!(answers[0], Answered::Replies(_)), "{:?}", texts(&answers[0]));
    }
}

/// A hash that expires, and that is too large for a single entry.
async fn large_hash(group: &mut AppliedGroup) {
    let value = "v".repeat(20 << 10);
    group.run(1000, &format!("HSET large first {value}")).await;
    group.run(1000, "EXPIRE large 100").await;
    for field in 0..6 {
        let reply = group.run(1000, &format!("HSET large f{field} {value}")).await;
        assert!(reply.contains("Integer(1)"), "{reply}");
    }
}

#[tokio::test]
async fn every_key_comes_in_commands_that_a_cluster_accepts() {
    let mut before = AppliedGroup::new();
    // Many small fields: what they take is more than their bytes.
    for part in 0..20 {
        let fields = (0..100).map(|field| format!(" {:04} 1", part * 100 + field));
        let fields: String = fields.collect();
        before.run(1000, &format!("HSET small{fields}")).await;
    }
    // A large field behind others.
    before.run(1000, &format!("HSET mixed a {} b 1", "a".repeat(7 << 10))).await;
    before.run(1000, &format!("HSET mixed c {} d 1", "c".repeat(60 << 10))).await;
    large_hash(&mut before).await;
    before.run(1000, &format!("SET string {}", "s".repeat(50 << 10))).await;
    before.run(1000, "PEXPIREAT string 1234567").await;
    before.run(1000, "SET empty ").await;

    let (commands, count) = commands(&before);
    assert_eq!(count, 5);
    for command in &commands {
        let size = CommandsRequest::size_of(command);
        let is_within = match &*command[0] {
            b"HSET" => size <= PIECE_SIZE || command.len() == 4,
            _ => size <= PIECE_SIZE + 100,
        };
        assert!(is_within, "{size}");
    }
    let sizes = commands.iter().map(|it| CommandsRequest::size_of(it)).sum::<usize>();
    assert!(commands.len() < 2 * sizes / PIECE_SIZE, "{} of {sizes}", commands.len());

    let mut after = AppliedGroup::new();
    after.run(1000, "HSET empty stale 1").await;
    apply(&mut after, 1000, &commands).await;
    for read in [
        "HGETALL small",
        "HLEN small",
        "HGETALL mixed",
        "HGETALL large",
        "PTTL large",
        "GET string",
        "PTTL string",
        "GET empty",
        "TTL small",
        "DBSIZE",
    ] {
        assert_eq!(before.run(1000, read).await, after.run(1000, read).await, "{read}");
    }
    assert!(after.run(1000, "PTTL large").await.contains("Integer(100000)"));
    assert!(after.run(1000, "HLEN large").await.contains("Integer(7)"));
}

#[tokio::test]
async fn the_time_of_the_leader_decides_what_has_expired() {
    // By the clock of this machine, all of it has expired for decades.
    let mut before = AppliedGroup::new();
    before.run(900, "SET gone 1 EX 50").await;
    before.run(1000, "SET brief 1 EX 50").await;
    large_hash(&mut before).await;
    before.run(1000, &format!("SET long {}", "l".repeat(20 << 10))).await;
    before.run(1000, "EXPIRE long 100").await;
    let (commands, count) = commands(&before);
    assert_eq!(count, 3);

    let mut soon = AppliedGroup::new();
    apply(&mut soon, 1010, &commands).await;
    assert!(soon.run(1010, "TTL brief").await.contains("Integer(40)"));
    assert!(soon.run(1010, "HLEN large").await.contains("Integer(7)"));
    assert!(soon.run(1010, "STRLEN long").await.contains("Integer(20480)"));

    // At whatever moment a key expires while it is put, nothing is left of it.
    for number in 0..=commands.len() {
        let mut late = AppliedGroup::new();
        let (first, rest) = commands.split_at(number);
        apply(&mut late, 1010, first).await;
        apply(&mut late, 2000, rest).await;
        let left = late.run(2000, "DBSIZE").await;
        assert!(left.contains("Integer(0)"), "{number}: {left}");
    }
}

/// A cluster of one node and one shard.
struct OneNode {
    admin: ClusterAdmin,
    _node: ClusterNode,
}

impl OneNode {
    fn new(dir: &Path) -> Self {
        let options = ClusterOptions::new(1, dir, "secret").listen("127.0.0.1:0");
        let node = ClusterNode::start(options).unwrap();
        node.init(1).unwrap();
        let address = node.status().nodes[0].cluster.clone();
        Self { admin: ClusterAdmin::new(address, "secret").unwrap(), _node: node }
    }

    /// Sends commands, as another node would.
    fn send(&self, commands: Vec<Vec<Bytes>>) -> WriteOutcome {
        let request = Request::Commands(CommandsRequest::new(commands, Vec::new()));
        let (address, request) = (&self.admin.address, PeerRequest::Write(request));
        let answer = self.admin.ask(address, 1, &request, Duration::from_secs(15)).unwrap();
        let PeerAnswer::Written(outcome) = answer else { panic!("{answer:?}") };
        outcome
    }

    /// Runs a command, and returns the number that it replies.
    fn run(&self, line: &str) -> Option<i64> {
        let command = line.split(' ').map(|arg| arg.to_owned().into()).collect();
        let outcome = self.send(vec![command]);
        let WriteOutcome::Replies(Some(mut replies)) = outcome else { panic!("{outcome:?}") };
        replies.remove(0).into_number().unwrap()
    }

    fn put_fields(&self, key: &str, range: Range<u32>) {
        for field in range.step_by(100) {
            let fields: Vec<_> = (field..field + 100).map(|it| format!("f{it} 1")).collect();
            assert_eq!(self.run(&format!("HSET {key} {}", fields.join(" "))), Some(100));
        }
    }
}

/// A single entry cannot remove as many fields.
#[test]
fn a_restore_replaces_hashes_that_one_command_cannot_remove() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    let node = OneNode::new(&dir.path().join("node"));
    node.put_fields("large", 0..100);
    assert_eq!(node.run("EXPIRE large 1000"), Some(1));
    node.put_fields("large", 100..3000);
    node.run("SET string value");
    node.run("HSET small a 1");
    node.admin.backup(&copy).unwrap();

    node.put_fields("large", 3000..4000);
    node.run("DEL string");
    node.put_fields("string", 0..3000);
    node.put_fields("small", 0..3000);
    for _ in 0..2 {
        assert_eq!(node.admin.restore(&copy).unwrap(), 3);
        assert_eq!(node.run("HLEN large"), Some(3000));
        assert!(node.run("TTL large").is_some_and(|left| left > 0));
        assert_eq!(node.run("HLEN small"), Some(1));
        assert_eq!(node.run("STRLEN string"), Some(5));
    }
}

/// Such a request got into the log, where each node stopped at it, whenever it was started.
#[test]
fn commands_that_no_node_could_apply_do_not_get_into_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let node = OneNode::new(&dir.path().join("node"));
    for line in ["", "UNHEARD k", "GET", "INCR k 1", "PING", "EXEC", "OBJECT", "CONFIG GET x"] {
        let set = vec![Bytes::from("SET"), "k".into(), "1".into()];
        let args = line.split(' ').map(|arg| Bytes::from(arg.to_owned())).collect();
        for command in [args, Vec::new()] {
            let outcome = node.send(vec![set.clone(), command]);
            let WriteOutcome::Refused(why) = outcome else { panic!("{line:?}: {outcome:?}") };
            assert!(why.starts_with("the leader's version"), "{why}");
        }
    }
    // Nor does one of any number of commands that have no arguments.
    let WriteOutcome::Refused(why) = node.send(vec![Vec::new(); 1 << 20]) else { panic!() };
    assert!(why.contains("too large"), "{why}");
    assert_eq!(node.run("EXISTS k"), Some(0));
    assert_eq!(node.run("INCR k"), Some(1));
}
