//! Clusters of several nodes, with sockets and stores on the disk: in this process, as processes of
//! the program, and as such in network namespaces.
//!
//! `BITCASK_LONG=n` repeats what is done to processes and networks n times, and `BITCASK_SEED`
//! chooses other moments and other nodes. With `BITCASK_CLUSTER_FAULTS=required`, a test that would
//! be skipped fails.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail loudly")]

mod admin;
mod backup;
mod changes;
mod chaos;
mod clocks;
mod commands;
mod cuts;
mod directories;
mod disks;
mod feed;
mod forwarding;
mod http;
mod members;
mod namespaces;
mod processes;
mod recorder;
mod register;
mod support;

use std::collections::BTreeSet;

use bitcask::cluster::ClusterAdmin;
use support::{Client, Place, Router};

/// Scans all keys that a node serves, one at a time. Returns how many there are.
fn scanned(address: &str) -> usize {
    let (mut client, mut keys, mut cursor) =
        (Client::new(address).unwrap(), BTreeSet::new(), "0".to_owned());
    for _ in 0..1000 {
        let reply = client.run(&format!("SCAN {cursor} COUNT 1")).unwrap();
        if reply.starts_with("(error) CLUSTERDOWN") {
            std::thread::sleep(std::time::Duration::from_millis(20));
            continue;
        }
        assert!(reply.starts_with('['), "{cursor}: {reply}");
        let mut parts =
            reply.trim_matches(['[', ']']).split(' ').map(|it| it.trim_matches(['[', '\'']));
        parts.next().unwrap().clone_into(&mut cursor);
        keys.extend(parts.filter(|key| !key.is_empty()).map(str::to_owned));
        if cursor == "0" {
            return keys.len();
        }
    }
    panic!("the scan has no end: it is at {cursor}, with {} keys", keys.len())
}

#[test]
fn three_nodes_hold_the_same_keys_and_survive_the_loss_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let places: Vec<Place> = (1..=3).map(|id| Place::new(id, dir.path())).collect();
    let mut nodes: Vec<_> = places.iter().map(|place| Some(place.start())).collect();
    nodes[0].as_ref().unwrap().node().init(3).unwrap();
    for node in nodes.iter().skip(1) {
        node.as_ref().unwrap().node().join(&places[0].cluster).unwrap();
    }
    let mut router = Router::new(&places.iter().collect::<Vec<_>>());
    for number in 0..100 {
        assert_eq!(router.run(&format!("SET key{number} {number}")), "OK");
    }
    assert_eq!(router.run("HSET {h}a f 1"), "(1)");
    assert_eq!(router.run("INCR counter"), "(1)");

    assert_eq!(router.run("COPY {h}a {h}b"), "(1)");
    assert_eq!(scanned(&places[0].redis), 103);

    // A lead is handed over, and then each node scans the shards that it leads. Another one may
    // have been elected meanwhile.
    ClusterAdmin::new(&*places[0].cluster, "secret").unwrap().transfer(1, 2).unwrap();
    let all = || places.iter().map(|place| scanned(&place.redis)).sum::<usize>();
    assert!((0..100).any(|_| all() == 103));
    for _ in 0..3 {
        assert_eq!(router.run("INCR {h}n").len(), 3);
    }
    assert_eq!(router.run("DEL {h}n"), "(1)");

    // The first one leads most shards. The others go on without it.
    drop(nodes[0].take());
    for number in 0..100 {
        assert_eq!(router.run(&format!("GET key{number}")), format!("'{number}'"));
    }
    assert_eq!(router.run("INCR counter"), "(2)");
    assert_eq!(router.run("HGET {h}a f"), "'1'");

    // An emptied node does not pass for the one that it was.
    let emptied = tempfile::tempdir().unwrap();
    let impostor = Place { dir: emptied.path().join("1"), ..places[0].clone() }.start();
    let refused = impostor.node().join(&places[1].cluster).unwrap_err().to_string();
    assert!(refused.contains("another node 1"), "{refused}");
    assert!(impostor.node().status().shards.is_none());
    drop(impostor);

    // It returns, and what it has missed arrives.
    nodes[0] = Some(places[0].start());
    let mut client = Client::new(&places[0].redis).unwrap();
    assert_eq!(client.run("READONLY").unwrap(), "OK");
    while client.run("GET counter").unwrap() != "'2'" {
        std::thread::yield_now();
    }
}
