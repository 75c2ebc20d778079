//! Nodes that forward, so that clients which know nothing of clusters can use any of them.

use bitcask::Options;
use bitcask::cluster::{ClusterAdmin, ClusterNode, ClusterOptions};
use bitcask::resp::RespOptions;

use super::chaos::{SHARDS, halt, kill};
use super::processes::{NodeProcess, found};
use super::recorder::{Fault, survive, times};
use super::support::{Client, free_address, patiently};

#[test]
fn a_client_that_follows_nobody_can_use_any_node_that_forwards() {
    let dir = tempfile::tempdir().unwrap();
    let (mut nodes, mut clients, mut servers) = (Vec::new(), Vec::new(), Vec::new());
    let mut addresses: Vec<String> = Vec::new();
    for id in 1..=3 {
        let (listen, redis) = (free_address(), free_address());
        let options = ClusterOptions::new(id, dir.path().join(id.to_string()), "secret")
            .listen(&listen)
            .redis_address(&redis)
            .forward(true)
            .store(Options::new().segment_size(1 << 20));
        let node = patiently(|| ClusterNode::start(options.clone()));
        match addresses.first() {
            None => node.init(3).unwrap(),
            Some(first) => node.join(first).unwrap(),
        }
        let server = patiently(|| node.redis(&redis, RespOptions::new().threads(2)));
        let stop = server.stop_handle();
        servers.push((stop, std::thread::spawn(move || server.run())));
        clients.push(Client::new(&redis).unwrap());
        addresses.push(listen);
        nodes.push(node);
    }

    // Each write goes to one node, and is read at once at the others.
    for round in 0..30 {
        let key = format!("key{round}");
        let reply = patiently(|| done(&mut clients[round % 3], &format!("SET {key} {round}")));
        assert_eq!(reply, "OK");
        for client in &mut clients {
            assert_eq!(patiently(|| done(client, &format!("GET {key}"))), format!("'{round}'"));
        }
    }
    for (at, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.run("MULTI").unwrap(), "OK");
        assert_eq!(client.run("INCR {n}counter").unwrap(), "QUEUED");
        assert_eq!(client.run("HSET {n}hash field value").unwrap(), "QUEUED");
        let added = i32::from(at == 0);
        assert_eq!(client.run("EXEC").unwrap(), format!("[({}) ({added})]", at + 1));
        assert_eq!(client.run("HGETALL {n}hash").unwrap(), "['field' 'value']");
        assert_eq!(client.run("DBSIZE").unwrap(), "(32)");
        assert!(client.run("APPEND {n}hash x").unwrap().starts_with("(error) WRONGTYPE"));
    }

    // What arrives together is shared out among the shards, and answered in its order.
    let mut lines: Vec<String> = (0..40).map(|at| format!("INCRBY p{} {at}", at % 7)).collect();
    lines.insert(20, "GET p0".to_owned());
    lines.push("SET p0 end GET".to_owned());
    lines.push("HSET p1 field value".to_owned());
    let mut expected = std::collections::BTreeMap::from([(0, 0)]);
    let replies = clients[2].pipeline(&lines).unwrap();
    let (mut at, mut replies) = (0, replies.into_iter().enumerate());
    while at < 40 {
        let (place, reply) = replies.next().unwrap();
        if place == 20 {
            assert_eq!(reply, format!("'{}'", expected[&0]));
            continue;
        }
        *expected.entry(at % 7).or_insert(0) += at;
        assert_eq!(reply, format!("({})", expected[&(at % 7)]));
        at += 1;
    }
    assert_eq!(replies.next().unwrap().1, format!("'{}'", expected[&0]));
    assert!(replies.next().unwrap().1.starts_with("(error) WRONGTYPE"));
    // One node leads all groups so far.
    let admin = ClusterAdmin::new(&*addresses[1], "secret").unwrap();
    assert!(admin.balance().unwrap().transferred > 0);
    for client in &mut clients {
        assert_eq!(patiently(|| done(client, "GET {n}counter")), "'3'");
    }
    for (stop, serving) in servers {
        stop.stop();
        serving.join().unwrap().unwrap();
    }
}

/// Runs a command, unless the cluster cannot at the moment.
fn done(client: &mut Client, line: &str) -> Result<String, String> {
    // After an error, a reply to this command could be taken for that to the next.
    let reply = client.run(line).unwrap();
    if reply.starts_with("(error) CLUSTERDOWN") { Err(reply) } else { Ok(reply) }
}

#[test]
fn nodes_that_forward_survive_the_loss_of_leaders() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes: Vec<_> = (1..=3).map(|id| NodeProcess::new(id, dir.path())).collect();
    for node in &mut nodes {
        node.forwards = true;
    }
    found(&mut nodes, SHARDS);
    let faults: [Fault; 2] = [
        ("a leader that others forward to is halted", halt),
        ("a leader that others forward to is killed", kill),
    ];
    survive(&mut nodes, &faults.repeat(times()), 19);
}
