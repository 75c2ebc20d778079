//! A cluster is copied, and the copy is put into another one.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bitcask::Options;
use bitcask::cluster::{ClusterAdmin, ClusterNode, ClusterOptions};
use bitcask::resp::{RespOptions, RespStopHandle};

use super::processes::{
    CarefulClient, NodeProcess, Tried, addresses, await_equal, cluster, leader, stale_client,
};
use super::support::{Client, free_address, patiently};

/// A node with a client.
struct SmallCluster {
    admin: ClusterAdmin,
    client: Client,
    stop: RespStopHandle,
    _node: ClusterNode,
}

impl SmallCluster {
    /// Founds a cluster of one node.
    fn new(dir: &Path, shards: u16) -> Self {
        let (listen, redis) = (free_address(), free_address());
        let options = ClusterOptions::new(1, dir, "secret").listen(&listen).redis_address(&redis);
        let options = options.store(Options::new().segment_size(1 << 20));
        let node = patiently(|| ClusterNode::start(options.clone()));
        node.init(shards).unwrap();
        let server = patiently(|| node.redis(&redis, RespOptions::new().threads(2)));
        let stop = server.stop_handle();
        std::thread::spawn(move || server.run());
        let (admin, client) =
            (ClusterAdmin::new(listen, "secret").unwrap(), Client::new(&redis).unwrap());
        Self { admin, client, stop, _node: node }
    }
}

impl Drop for SmallCluster {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

#[test]
fn a_backup_can_be_restored_to_a_cluster_with_other_shards() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = SmallCluster::new(&dir.path().join("before"), 2);
    let large = "x".repeat(5 << 20);
    for number in 0..100 {
        assert_eq!(before.client.run(&format!("SET key{number} {number}")).unwrap(), "OK");
    }
    assert_eq!(before.client.run(&format!("SET large {large}")).unwrap(), "OK");
    assert_eq!(before.client.run("SET empty ").unwrap(), "OK");
    assert_eq!(before.client.run("SET brief value EX 3000").unwrap(), "OK");
    assert_eq!(before.client.run("HSET hash a 1 b two").unwrap(), "(2)");
    assert_eq!(before.client.run("EXPIRE hash 5000").unwrap(), "(1)");
    let copy = dir.path().join("copy");
    before.admin.backup(&copy).unwrap();
    assert!(before.admin.backup(&copy).unwrap_err().to_string().contains("exists"));
    // What comes later is not in the copy.
    assert_eq!(before.client.run("SET later 1").unwrap(), "OK");

    let mut after = SmallCluster::new(&dir.path().join("after"), 3);
    assert_eq!(after.client.run("HSET hash stale 1").unwrap(), "(1)");
    assert_eq!(after.client.run("SET key1 stale").unwrap(), "OK");
    assert_eq!(after.admin.restore(&copy).unwrap(), 104);
    assert_eq!(after.admin.restore(&copy).unwrap(), 104);
    for number in 0..100 {
        assert_eq!(after.client.run(&format!("GET key{number}")).unwrap(), format!("'{number}'"));
    }
    assert_eq!(after.client.run("GET large").unwrap(), format!("'{large}'"));
    assert_eq!(after.client.run("GET empty").unwrap(), "''");
    assert_eq!(after.client.run("HGETALL hash").unwrap(), "['a' '1' 'b' 'two']");
    assert_eq!(after.client.run("DBSIZE").unwrap(), "(104)");
    for key in ["brief", "hash"] {
        let time =
            |cluster: &mut SmallCluster| cluster.client.run(&format!("PEXPIRETIME {key}")).unwrap();
        assert_eq!(time(&mut before), time(&mut after), "{key}");
    }

    // One without the file that completes it is none.
    std::fs::remove_file(copy.join("CLUSTER")).unwrap();
    let refused = after.admin.restore(&copy).unwrap_err().to_string();
    assert!(refused.contains("no complete backup"), "{refused}");
}

/// A request has at most 16 MiB, and counts eight bytes for each argument.
#[test]
fn hashes_that_are_too_large_for_a_request_are_restored() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = SmallCluster::new(&dir.path().join("before"), 1);
    let field = |size: usize| "x".repeat(size);
    before.client.run(&format!("HSET mixed a {}", field(39 << 17))).unwrap();
    assert_eq!(before.client.run("EXPIRE mixed 5000").unwrap(), "(1)");
    before.client.run(&format!("HSET mixed b {}", field(125 << 17))).unwrap();
    before.client.run(&format!("HSET mixed c {}", field((16 << 20) - 100))).unwrap();
    // The key takes part in the size, and can become longer.
    before.client.run(&format!("HSET {{r}} a {}", field((16 << 20) - 100))).unwrap();
    let renamed = format!("{{r}}{}", field(60_000));
    assert_eq!(before.client.run(&format!("RENAME {{r}} {renamed}")).unwrap(), "OK");
    // Names of four bytes. What a busy machine cannot put within ten seconds is not acknowledged.
    let char = |number: u32| char::from_u32(u32::from(b'0') + number % 64).unwrap();
    let name = |number: u32| [18, 12, 6, 0].map(|shift| char(number >> shift));
    for part in 0..9 {
        let fields = (part * 90_000..(part + 1) * 90_000).map(name);
        let fields = fields.map(|name| format!(" {} 1", String::from_iter(name)));
        let reply = before.client.run(&format!("HSET many{}", fields.collect::<String>()));
        assert_eq!(reply.unwrap(), "(90000)");
    }
    let copy = dir.path().join("copy");
    before.admin.backup(&copy).unwrap();

    let mut after = SmallCluster::new(&dir.path().join("after"), 2);
    assert_eq!(after.admin.restore(&copy).unwrap(), 3);
    let lengths = ["mixed a", "mixed b", "mixed c", &format!("{renamed} a")];
    let lengths = lengths.map(|field| format!("HSTRLEN {field}"));
    for read in [&lengths[..], &["HLEN many".to_owned()]].concat() {
        let was = before.client.run(&read).unwrap();
        assert!(was != "(0)" && after.client.run(&read).unwrap() == was, "{read:.20}");
    }
    let time = |cluster: &mut SmallCluster| cluster.client.run("PEXPIRETIME mixed").unwrap();
    assert_eq!(time(&mut before), time(&mut after));
}

/// Large values, so that a restore takes many requests.
const LARGE: usize = 100;

/// Two keys, one in each half of the slots.
const TAGS: [&str; 2] = ["{b}", "{a}"];

/// Runs a command that may run twice, until it is done.
fn certainly(client: &mut CarefulClient, line: &str) -> String {
    loop {
        if let Tried::Reply(reply) = client.run(line) {
            return reply;
        }
    }
}

/// Makes a backup while a client writes. Returns how many writes that client had acknowledged at
/// least before it, and has tried at most.
fn back_up(nodes: &[NodeProcess], copy: &Path) -> (usize, usize) {
    let (written, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let written_since = |before: usize| {
        let is_written = || written.load(Ordering::Acquire) > before;
        patiently(|| if is_written() { Ok(()) } else { Err("nothing is written") });
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut client = CarefulClient::new(addresses(nodes));
            while !is_over.load(Ordering::Acquire) {
                let number = written.load(Ordering::Acquire);
                for tag in TAGS {
                    certainly(&mut client, &format!("SET {tag}:{number} {number}"));
                }
                written.store(number + 1, Ordering::Release);
            }
        });
        written_since(10);
        let before = written.load(Ordering::Acquire);
        // It waits for a leader itself. A second attempt would find the directory of the first.
        nodes[1].admin().backup(copy).unwrap();
        // They go on all the time.
        written_since(written.load(Ordering::Acquire));
        is_over.store(true, Ordering::Release);
        writer.join().unwrap();
        (before, written.load(Ordering::Acquire))
    })
}

/// Restores a backup, and kills the leader of the last shard as soon as something has arrived. The
/// keys of that shard come last. Returns how many keys there were, and whether the restore was
/// under way.
fn restore_while_a_leader_is_lost(nodes: &mut [NodeProcess], copy: &Path) -> (u64, bool) {
    let lost = leader(nodes, 3);
    let asked = (lost + 1) % 3;
    let (admin, copy) = (nodes[asked].admin(), copy.to_owned());
    let mut seen = stale_client(&nodes[asked]);
    let restoring = std::thread::spawn(move || admin.restore(&copy));
    patiently(|| {
        let size = seen.run("DBSIZE").unwrap();
        if size == "(0)" { Err("nothing arrives") } else { Ok(()) }
    });
    nodes[lost].kill();
    let is_under_way = !restoring.is_finished();
    let count = restoring.join().unwrap().unwrap();
    nodes[lost].start();
    (count, is_under_way)
}

#[test]
fn three_nodes_are_copied_while_clients_write_and_restored_while_a_leader_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let large = "x".repeat(100 << 10);
    let nodes = cluster(3, 2, &dir.path().join("before"));
    let mut before = CarefulClient::new(addresses(&nodes));
    for number in 0..LARGE {
        certainly(&mut before, &format!("SET large:{number} {number}{large}"));
    }
    for number in 0..50 {
        certainly(&mut before, &format!("HSET hash:{number} a {number} b two"));
        certainly(&mut before, &format!("SET brief:{number} {number} EX 3000"));
    }
    let copy = dir.path().join("copy");
    let (least, most) = back_up(&nodes, &copy);

    let mut others = cluster(3, 3, &dir.path().join("after"));
    let count = loop {
        let (count, is_under_way) = restore_while_a_leader_is_lost(&mut others, &copy);
        if is_under_way {
            break count;
        }
    };
    let mut after = CarefulClient::new(addresses(&others));
    let of_hashes = (0..50).map(|it| format!("HGETALL hash:{it}"));
    let of_times = (0..50).map(|it| format!("PEXPIRETIME brief:{it}"));
    let of_values = (0..LARGE).map(|it| format!("GET large:{it}"));
    let briefs = (0..50).map(|it| format!("GET brief:{it}"));
    for line in of_hashes.chain(of_times).chain(of_values).chain(briefs) {
        let (was, is) = (certainly(&mut before, &line), certainly(&mut after, &line));
        assert!(was == is && was != "nil" && !was.starts_with("(-"), "{line}: {was:.40} {is:.40}");
    }
    // Of each shard, the copy is one moment while the backup was made.
    let mut found = LARGE + 100;
    for tag in TAGS {
        let mut has = |number: usize| {
            let reply = certainly(&mut after, &format!("GET {tag}:{number}"));
            assert!(reply == "nil" || reply == format!("'{number}'"), "{tag}:{number} is {reply}");
            reply != "nil"
        };
        let end = (0..most).find(|number| !has(*number)).unwrap_or(most);
        assert!(end >= least, "{tag} ends at {end}, and {least} were acknowledged before");
        assert!(!(end..most).any(has), "{tag} has a gap at {end}");
        found += end;
    }
    assert_eq!(count, found as u64);
    await_equal(&others);
    for node in &others {
        assert_eq!(stale_client(node).run("DBSIZE").unwrap(), format!("({found})"));
    }
}
