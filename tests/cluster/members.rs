//! Nodes that are added, replaced, removed and restarted while clients work, and one that comes
//! back after the others have purged what it lacks.

use std::time::Instant;

use crate::http::{figure, send};
use crate::processes::{
    CarefulClient, NodeProcess, Tried, addresses, await_equal, await_leaders, cluster, found,
    leader, other_program, stale_client,
};
use crate::recorder::{Dice, Fault, survive, times};
use crate::support::{PATIENCE, patiently};

/// Shards of the cluster, so that there are two groups and that of the map.
const SHARDS: u16 = 2;

fn running(nodes: &[NodeProcess]) -> Vec<usize> {
    (0..nodes.len()).filter(|at| nodes[*at].pid().is_some()).collect()
}

fn join(nodes: &mut [NodeProcess], at: usize) {
    let member = running(nodes)[0];
    nodes[at].start();
    let address = nodes[member].cluster.clone();
    patiently(|| nodes[at].admin().join(&*address));
    let all = await_leaders(nodes);
    let id = nodes[at].id;
    assert!(all.iter().flat_map(|it| &it.groups).all(|group| group.voters.contains(&id)));
}

fn remove(nodes: &[NodeProcess], at: usize) {
    let (id, others) = (nodes[at].id, running(nodes));
    let other = others.into_iter().find(|other| *other != at).unwrap();
    patiently(|| nodes[other].admin().remove(id));
    // The node that was asked may hear of it later.
    patiently(|| {
        let status = nodes[other].admin().status().map_err(|error| error.to_string())?;
        let is_known = status.nodes.iter().any(|node| node.id == id);
        if is_known { Err(format!("{:?}", status.nodes)) } else { Ok(()) }
    });
}

fn add(nodes: &mut [NodeProcess], _: &mut Dice) {
    join(nodes, 3);
}

/// Takes out the first node, in whose place there is another one by now. It hands over what it
/// leads.
fn take_out(nodes: &mut [NodeProcess], _: &mut Dice) {
    remove(nodes, 0);
    nodes[0].stop();
}

/// Replaces a node whose disk is lost.
fn replace_lost(nodes: &mut [NodeProcess], _: &mut Dice) {
    nodes[1].kill();
    remove(nodes, 1);
    join(nodes, 4);
}

fn roll(nodes: &mut [NodeProcess], _: &mut Dice) {
    for at in running(nodes) {
        // Each one hands over what it leads.
        nodes[at].stop();
        nodes[at].is_other = other_program().is_some() && !nodes[at].is_other;
        nodes[at].start();
        await_leaders(nodes);
    }
}

#[test]
fn members_change_and_restart_while_clients_work() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes: Vec<_> = (1..=5).map(|id| NodeProcess::new(id, dir.path())).collect();
    for node in &mut nodes {
        node.is_other = other_program().is_some();
    }
    found(&mut nodes[..3], SHARDS);
    let mut faults: Vec<Fault> = vec![
        ("a node is added", add),
        ("a node is removed", take_out),
        ("a lost node is replaced", replace_lost),
    ];
    faults.extend(vec![("one node after the other is restarted", roll as _); times()]);
    survive(&mut nodes, &faults, 17);
}

#[test]
fn a_leader_that_was_lost_a_moment_ago_can_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = cluster(3, 1, dir.path());
    let mut client = CarefulClient::new(addresses(&nodes));
    assert_eq!(client.run("SET key 1"), Tried::Reply("OK".into()));
    let at = leader(&nodes, 0);
    // It accepts connections, and answers nothing. The others still take it for the leader.
    nodes[at].signal("STOP");
    let (other, id) = (nodes[(at + 1) % 3].admin(), nodes[at].id);
    let removing = std::thread::spawn(move || other.remove(id));
    let begun = Instant::now();
    while !removing.is_finished() {
        assert!(begun.elapsed() < PATIENCE, "the others wait for the one that is lost");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    removing.join().unwrap().unwrap();
    nodes[at].kill();
    for status in await_leaders(&nodes) {
        assert!(status.groups.iter().all(|group| !group.voters.contains(&id)));
    }
    while client.run("SET key 2") != Tried::Reply("OK".into()) {}
}

/// Number of entries that are kept after a snapshot, and some more.
const ENTRIES: usize = 10_100;

#[test]
fn a_node_that_comes_back_after_its_log_was_purged_gets_a_snapshot() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let mut nodes: Vec<_> = (1..=3).map(|id| NodeProcess::new(id, dir.path())).collect();
    found(&mut nodes, 1);
    let mut client = CarefulClient::new(addresses(&nodes));
    let ok = Tried::Reply("OK".into());
    assert_eq!(client.run("SET before 1"), ok);
    let away = (leader(&nodes, 1) + 1) % 3;
    await_equal(&nodes);
    let had = nodes[away].admin().status().unwrap().groups[1].applied.unwrap();
    nodes[away].kill();
    // Each is an entry of its own. A busy machine may make a leader lose its lead.
    for number in 0..ENTRIES {
        while client.run(&format!("SET key:{} {number}", number % 1000)) != ok {}
    }
    for at in running(&nodes) {
        patiently(|| nodes[at].admin().snapshot());
        patiently(|| {
            let purged = nodes[at].admin().status().unwrap().groups[1].purged;
            if purged > Some(had) { Ok(()) } else { Err(format!("{purged:?} of {had}")) }
        });
        let metrics = send(&nodes[at], "GET /metrics", "", b"").body;
        assert!(figure(&metrics, "purged_index", 1) > Some(had), "{metrics}");
    }
    nodes[away].start();
    assert_eq!(client.run("SET after 1"), ok);
    await_equal(&nodes);
    let status = nodes[away].admin().status().unwrap();
    assert!(status.groups[1].snapshot > Some(had), "{status:?}");
    for node in &nodes {
        let mut client = stale_client(node);
        for number in ENTRIES - 1000..ENTRIES {
            let found = client.run(&format!("GET key:{}", number % 1000)).unwrap();
            assert_eq!(found, format!("'{number}'"));
        }
        assert_eq!(client.run("MGET before").unwrap(), "['1']");
        assert_eq!(client.run("GET after").unwrap(), "'1'");
    }
}
