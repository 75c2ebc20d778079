//! What clients see while nodes cannot reach each other.

use std::thread::JoinHandle;
use std::time::Duration;

use bitcask::cluster::GroupRole;

use crate::chaos::{PROCESS_FAULTS, a_leader, a_shard, await_candidate, await_others, group_of};
use crate::namespaces::{Cut, limit, networked};
use crate::processes::{
    CarefulClient, NodeProcess, Tried, addresses, await_equal, found, leader, stale_client,
};
use crate::recorder::{Dice, Fault, survive, times};
use crate::support::{Client, patiently};

/// Clients reach all nodes all the time.
const NETWORK_FAULTS: &[Fault] = &[
    ("a leader is cut off from the others", isolate),
    ("a leader and a follower are cut off from three", cut_off_two),
    ("two followers are cut off from a majority with all leaders", cut_off_followers),
    ("a leader hears the others, which do not hear it", mute),
    ("a leader cannot ask a follower, which can ask it", one_sided),
    ("a leader is cut off and reached again, time after time", flap),
];

/// What happens seldom, and is left out unless there is much time.
const RARE_FAULTS: &[Fault] = &[
    ("a leader that is cut off is killed, and returns before it is reached", kill_cut_off),
    ("no node reaches another one", shatter),
    ("each node reaches two neighbours only", ring),
    ("a leader is cut off while another node is halted", halt_and_cut_off),
    ("a leader sends slowly", slow_network),
];

/// Returns all nodes but some.
fn but(nodes: &[NodeProcess], without: &[usize]) -> Vec<usize> {
    (0..nodes.len()).filter(|at| !without.contains(at)).collect()
}

fn either(dice: &mut Dice) -> Cut {
    if dice.roll(2) == 0 { Cut::Refused } else { Cut::Lost }
}

/// Divides the nodes in two parts, while something happens.
fn divided(nodes: &[NodeProcess], cut: Cut, minority: &[usize], meanwhile: impl FnOnce()) {
    let majority = but(nodes, minority);
    cut.make(nodes, minority, &majority);
    cut.make(nodes, &majority, minority);
    meanwhile();
    cut.heal(nodes, minority, &majority);
    cut.heal(nodes, &majority, minority);
}

fn isolate(nodes: &mut [NodeProcess], dice: &mut Dice) {
    let (at, cut) = (a_leader(nodes, dice), either(dice));
    divided(nodes, cut, &[at], || {
        await_others(nodes, &[at]);
        std::thread::sleep(dice.millis(2000));
    });
}

fn cut_off_two(nodes: &mut [NodeProcess], dice: &mut Dice) {
    let (at, cut) = (a_leader(nodes, dice), either(dice));
    let minority = [at, (at + 1) % nodes.len()];
    divided(nodes, cut, &minority, || {
        await_others(nodes, &minority);
        std::thread::sleep(dice.millis(2000));
    });
}

fn cut_off_followers(nodes: &mut [NodeProcess], dice: &mut Dice) {
    let leaders: Vec<_> = (0..3).map(|group| leader(nodes, group)).collect();
    let mut minority = but(nodes, &leaders);
    minority.truncate(2);
    let (cut, shard) = (either(dice), a_shard(dice));
    let term = patiently(|| group_of(&nodes[leaders[0]], shard)).term;
    // Both ask for votes, in vain.
    divided(nodes, cut, &minority, || {
        for at in &minority {
            await_candidate(&nodes[*at], shard, term);
        }
        std::thread::sleep(dice.millis(2000));
    });
}

fn mute(nodes: &mut [NodeProcess], dice: &mut Dice) {
    let at = a_leader(nodes, dice);
    let others = but(nodes, &[at]);
    Cut::Lost.make(nodes, &[at], &others);
    await_others(nodes, &[at]);
    Cut::Lost.heal(nodes, &[at], &others);
}

fn one_sided(nodes: &mut [NodeProcess], dice: &mut Dice) {
    let shard = a_shard(dice);
    let at = leader(nodes, shard);
    let other = [(at + 1 + dice.node(&nodes[1..])) % nodes.len()];
    let term = patiently(|| group_of(&nodes[at], shard)).term;
    Cut::Requests.make(nodes, &[at], &other);
    await_candidate(&nodes[other[0]], shard, term);
    std::thread::sleep(dice.millis(2000));
    Cut::Requests.heal(nodes, &[at], &other);
}

/// Waits until no majority has answered a leader for a second, or it leads no more.
fn await_silence(node: &NodeProcess, shard: u64) {
    patiently(|| {
        let group = group_of(node, shard)?;
        let is_heard = group.role == GroupRole::Leader && group.quorum_age < Some(1000);
        if is_heard { Err(format!("{:?}", group.quorum_age)) } else { Ok(()) }
    });
}

fn flap(nodes: &mut [NodeProcess], dice: &mut Dice) {
    let shard = a_shard(dice);
    let at = leader(nodes, shard);
    divided(nodes, Cut::Lost, &[at], || await_silence(&nodes[at], shard));
    for _ in 0..5 {
        let (cut, time) = (either(dice), dice.millis(1500));
        divided(nodes, cut, &[at], || std::thread::sleep(time));
        std::thread::sleep(dice.millis(500));
    }
}

fn kill_cut_off(nodes: &mut [NodeProcess], dice: &mut Dice) {
    let (at, cut) = (a_leader(nodes, dice), either(dice));
    let others = but(nodes, &[at]);
    cut.make(nodes, &[at], &others);
    cut.make(nodes, &others, &[at]);
    std::thread::sleep(dice.millis(8000));
    nodes[at].kill();
    nodes[at].start();
    std::thread::sleep(dice.millis(8000));
    cut.heal(nodes, &[at], &others);
    cut.heal(nodes, &others, &[at]);
}

fn shatter(nodes: &mut [NodeProcess], dice: &mut Dice) {
    let (all, cut) = (but(nodes, &[]), either(dice));
    cut.make(nodes, &all, &all);
    std::thread::sleep(Duration::from_secs(4) + dice.millis(8000));
    cut.heal(nodes, &all, &all);
}

fn ring(nodes: &mut [NodeProcess], dice: &mut Dice) {
    let cut = either(dice);
    for at in 0..nodes.len() {
        cut.make(nodes, &[at], &[(at + 2) % 5, (at + 3) % 5]);
    }
    std::thread::sleep(Duration::from_secs(8) + dice.millis(8000));
    for at in 0..nodes.len() {
        cut.heal(nodes, &[at], &[(at + 2) % 5, (at + 3) % 5]);
    }
}

fn halt_and_cut_off(nodes: &mut [NodeProcess], dice: &mut Dice) {
    let (at, cut) = (a_leader(nodes, dice), either(dice));
    let halted = (at + 1) % nodes.len();
    nodes[halted].signal("STOP");
    divided(nodes, cut, &[at], || {
        await_others(nodes, &[at, halted]);
        nodes[halted].signal("CONT");
        std::thread::sleep(dice.millis(4000));
    });
}

fn slow_network(nodes: &mut [NodeProcess], dice: &mut Dice) {
    let at = a_leader(nodes, dice);
    limit(&nodes[at], Some("rate 64kbit burst 16kbit latency 2s"));
    std::thread::sleep(Duration::from_secs(10));
    limit(&nodes[at], None);
}

#[test]
fn five_nodes_survive_partitions() {
    networked(5, |mut nodes| {
        found(&mut nodes, 2);
        let mut faults = NETWORK_FAULTS.to_vec();
        if times() > 1 {
            faults.extend([PROCESS_FAULTS, NETWORK_FAULTS, RARE_FAULTS].concat());
        }
        survive(&mut nodes, &faults.repeat(times()), 13);
    });
}

/// Sends a command to one node, while other things happen.
fn ask(node: &NodeProcess, line: &str) -> JoinHandle<String> {
    let (address, line) = (node.redis.clone(), line.to_owned());
    std::thread::spawn(move || Client::new(&address).unwrap().run(&line).unwrap())
}

#[test]
fn a_leader_that_is_cut_off_acknowledges_nothing_and_reads_nothing() {
    networked(3, |mut nodes| {
        found(&mut nodes, 1);
        let mut client = CarefulClient::new(addresses(&nodes));
        let ok = Tried::Reply("OK".into());
        assert_eq!(client.run("SET key old"), ok);
        let at = leader(&nodes, 1);
        divided(&nodes, Cut::Lost, &[at], || {
            // It still takes itself for the leader, and waits for an answer of the others.
            let early = [ask(&nodes[at], "GET key"), ask(&nodes[at], "SET key lost")];
            await_others(&nodes, &[at]);
            let others = addresses(&nodes).into_iter().filter(|it| *it != nodes[at].redis);
            let mut others = CarefulClient::new(others.collect());
            while others.run("SET key new") != ok {}
            for asked in early.into_iter().chain([ask(&nodes[at], "GET key")]) {
                let reply = asked.join().unwrap();
                assert!(reply.starts_with("(error) "), "{reply}");
            }
            // Those that have asked for it read the past.
            assert_eq!(stale_client(&nodes[at]).run("GET key").unwrap(), "'old'");
        });
        await_equal(&nodes);
        for node in &nodes {
            assert_eq!(stale_client(node).run("GET key").unwrap(), "'new'");
        }
        while client.run("GET key") != Tried::Reply("'new'".into()) {}
    });
}

#[test]
fn a_node_that_was_removed_while_it_was_cut_off_serves_nothing_and_disturbs_nobody() {
    networked(4, |mut nodes| {
        found(&mut nodes, 1);
        let mut client = CarefulClient::new(addresses(&nodes));
        let ok = Tried::Reply("OK".into());
        while client.run("SET key old") != ok {}
        let at = leader(&nodes, 1);
        divided(&nodes, Cut::Lost, &[at], || {
            await_others(&nodes, &[at]);
            patiently(|| nodes[(at + 1) % 4].admin().remove(nodes[at].id));
        });
        let others = addresses(&nodes).into_iter().filter(|it| *it != nodes[at].redis);
        let mut others = CarefulClient::new(others.collect());
        while others.run("SET key new") != ok {}
        let term = |at: usize| nodes[at].admin().status().unwrap().groups[1].term;
        let (before, alone) = (term((at + 1) % 4), term(at));
        // It asks for votes, time after time.
        patiently(|| if term(at) > alone + 3 { Ok(()) } else { Err("it asks nobody") });
        for line in ["GET key", "SET key lost"] {
            let reply = ask(&nodes[at], line).join().unwrap();
            assert!(reply.starts_with("(error) "), "{line}: {reply}");
        }
        assert_eq!(term((at + 1) % 4), before, "the others elect");
        assert_eq!(others.run("GET key"), Tried::Reply("'new'".into()));
    });
}

/// Returns how old a node says that its part of the first shard is, in milliseconds.
fn age(node: &NodeProcess) -> Result<u64, String> {
    let mut client = Client::new(&node.redis).map_err(|error| error.to_string())?;
    let info = client.run("CLUSTER INFO").map_err(|error| error.to_string())?;
    let age = info.lines().find_map(|line| line.strip_prefix("cluster_shard_1_age_ms:"));
    age.and_then(|age| age.parse().ok()).ok_or(info)
}

fn await_ages(nodes: &[NodeProcess], some: &[usize], is_right: impl Fn(u64) -> bool) {
    for node in some.iter().map(|at| &nodes[*at]) {
        patiently(|| match age(node)? {
            age if is_right(age) => Ok(()),
            age => Err(format!("node {} is {age} ms old", node.id)),
        });
    }
}

#[test]
fn what_a_minority_has_grows_old_although_its_leader_sends_heartbeats() {
    networked(5, |mut nodes| {
        found(&mut nodes, 1);
        await_equal(&nodes);
        // On a busy machine, a heartbeat may come too late, and the follower asks for votes.
        let is_seen = (0..10).any(|_| {
            let at = leader(&nodes, 1);
            let minority = [at, (at + 1) % 5];
            let mut is_led = false;
            await_ages(&nodes, &but(&nodes, &[]), |age| age < 3000);
            divided(&nodes, Cut::Lost, &minority, || {
                await_others(&nodes, &minority);
                await_ages(&nodes, &minority, |age| age > 6000);
                // The follower hears of no other leader, and has not stood for one.
                let group = patiently(|| group_of(&nodes[minority[1]], 1));
                is_led = group.leader == Some(nodes[at].id);
                await_ages(&nodes, &but(&nodes, &minority), |age| age < 3000);
            });
            await_ages(&nodes, &but(&nodes, &[]), |age| age < 3000);
            is_led
        });
        assert!(is_seen, "no follower stays with a leader that has no majority");
    });
}
