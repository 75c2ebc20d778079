//! Clusters of several nodes in this process, with sockets and stores on the disk.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail loudly")]

mod chaos;
mod processes;
mod support;

use support::{Client, Place, Router};

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

    // The first one led all shards. The others go on without it.
    drop(nodes[0].take());
    for number in 0..100 {
        assert_eq!(router.run(&format!("GET key{number}")), format!("'{number}'"));
    }
    assert_eq!(router.run("INCR counter"), "(2)");
    assert_eq!(router.run("HGET {h}a f"), "'1'");

    // It returns, and what it has missed arrives.
    nodes[0] = Some(places[0].start());
    let mut client = Client::new(&places[0].redis).unwrap();
    assert_eq!(client.run("READONLY").unwrap(), "OK");
    while client.run("GET counter").unwrap() != "'2'" {
        std::thread::yield_now();
    }
}
