//! A cluster is copied, and the copy is put into another one.

use std::path::Path;

use bitcask::Options;
use bitcask::cluster::{ClusterAdmin, ClusterNode, ClusterOptions};
use bitcask::resp::{RespOptions, RespStopHandle};

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
    // Names of four bytes.
    let char = |number: u32| char::from_u32(u32::from(b'0') + number % 64).unwrap();
    let name = |number: u32| [18, 12, 6, 0].map(|shift| char(number >> shift));
    for part in 0..2 {
        let fields = (part * 450_000..(part + 1) * 450_000).map(name);
        let fields = fields.map(|name| format!(" {} 1", String::from_iter(name)));
        let reply = before.client.run(&format!("HSET many{}", fields.collect::<String>()));
        assert_eq!(reply.unwrap(), "(450000)");
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
