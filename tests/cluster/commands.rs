//! The commands by which clients of Redis Cluster find their way, and what a cluster refuses.

use std::fmt::Write as _;

use bitcask::cluster::NodeStatus;

use crate::support::{Client, Place, RunningNode, patiently};

const CROSS_SLOT: &str = "(error) CROSSSLOT Keys in request don't hash to the same slot";

/// The slots of three shards.
const SLOTS: [(u16, u16); 3] = [(0, 5461), (5462, 10_922), (10_923, 16_383)];

/// Three nodes with three shards. The first one leads all of them, unless another one was elected.
struct Trio {
    // The order matters: the nodes end before their directory is removed.
    nodes: Vec<RunningNode>,
    places: Vec<Place>,
    _dir: tempfile::TempDir,
}

impl Trio {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let places: Vec<Place> = (1..=3).map(|id| Place::new(id, dir.path())).collect();
        let nodes: Vec<_> = places.iter().map(Place::start).collect();
        nodes[0].node().init(3).unwrap();
        for node in nodes.iter().skip(1) {
            node.node().join(&places[0].cluster).unwrap();
        }
        Self { nodes, places, _dir: dir }
    }

    fn client(&self, at: usize) -> Client {
        Client::new(&self.places[at].redis).unwrap()
    }

    /// Returns the leaders of the shards, as a node knows them.
    fn leaders(status: &NodeStatus) -> Option<Vec<u64>> {
        let shards = status.groups.iter().filter(|group| group.slots.is_some());
        shards.map(|group| group.leader).collect()
    }

    /// Has a node answer until that is what the leaders let expect, and returns these.
    fn await_reply(&self, at: usize, line: &str, expected: impl Fn(&[u64]) -> String) -> Vec<u64> {
        let mut client = self.client(at);
        patiently(|| {
            let leaders = Self::leaders(&self.nodes[at].node().status()).ok_or("nobody leads")?;
            let (reply, expected) = (client.run(line).unwrap(), expected(&leaders));
            if reply == expected { Ok(leaders) } else { Err(format!("{reply}\n{expected}")) }
        })
    }

    /// Returns the nodes of a shard as the protocol has them: its leader, and those that lead none.
    fn named(&self, leaders: &[u64], leader: u64) -> Vec<(&Place, String)> {
        let others = self.places.iter().filter(|place| !leaders.contains(&place.id));
        let first = self.places.iter().filter(|place| place.id == leader);
        first.chain(others).map(|place| (place, name(place.id))).collect()
    }
}

fn name(id: u64) -> String {
    format!("{id:040x}")
}

fn port(place: &Place) -> &str {
    place.redis.rsplit_once(':').unwrap().1
}

#[test]
fn clients_are_told_which_node_has_which_slots() {
    let trio = Trio::new();
    for at in 0..3 {
        let mut client = trio.client(at);
        // Known from the documentation of Redis.
        for (key, slot) in [("somekey", 11_058), ("foo{hash_tag}", 2515), ("123456789", 12_739)] {
            let reply = client.run(&format!("CLUSTER KEYSLOT {key}")).unwrap();
            assert_eq!(reply, format!("({slot})"), "{key}");
        }
        let id = trio.places[at].id;
        assert_eq!(client.run("CLUSTER MYID").unwrap(), format!("'{}'", name(id)));
        assert_eq!(client.run("ASKING").unwrap(), "OK");
        trio.await_reply(at, "CLUSTER SLOTS", |leaders| {
            let rows = leaders.iter().zip(SLOTS).map(|(leader, (first, last))| {
                let mut row = format!("[({first}) ({last})");
                for (place, name) in trio.named(leaders, *leader) {
                    write!(row, " ['127.0.0.1' ({}) '{name}' []]", port(place)).unwrap();
                }
                row + "]"
            });
            format!("[{}]", rows.collect::<Vec<_>>().join(" "))
        });
        trio.await_reply(at, "CLUSTER NODES", |leaders| {
            let mut lines = String::new();
            let epoch = epoch(&mut trio.client(at));
            for place in &trio.places {
                let led = leaders.iter().zip(SLOTS).filter(|(leader, _)| **leader == place.id);
                let led: Vec<_> =
                    led.map(|(_, (first, last))| format!(" {first}-{last}")).collect();
                let (role, master) = if led.is_empty() {
                    ("slave", name(leaders[0]))
                } else {
                    ("master", "-".to_owned())
                };
                let me = if place.id == id { "myself," } else { "" };
                let (name, port, slots) = (name(place.id), port(place), led.concat());
                let bus = port.parse::<u32>().unwrap() + 10_000;
                writeln!(
                    lines,
                    "{name} 127.0.0.1:{port}@{bus} {me}{role} {master} 0 0 {epoch} connected{slots}"
                )
                .unwrap();
            }
            format!("'{lines}'")
        });
    }
}

fn epoch(client: &mut Client) -> String {
    let info = client.run("CLUSTER INFO").unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("cluster_current_epoch:"));
    line.unwrap().to_owned()
}

#[test]
fn clients_are_told_how_the_cluster_is() {
    let mut trio = Trio::new();
    for at in 0..3 {
        let mut client = trio.client(at);
        patiently(|| {
            let info = client.run("CLUSTER INFO").unwrap();
            let mut expected = vec![
                "cluster_state:ok",
                "cluster_slots_assigned:16384",
                "cluster_slots_ok:16384",
                "cluster_slots_fail:0",
                "cluster_known_nodes:3",
            ];
            expected.retain(|line| !info.lines().any(|found| found.trim_matches('\'') == *line));
            if expected.is_empty() { Ok(()) } else { Err(format!("{expected:?}: {info}")) }
        });
        let info = client.run("CLUSTER INFO").unwrap();
        for shard in 1..=3 {
            let name = format!("cluster_shard_{shard}_age_ms:");
            let age = info.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
            assert!(age.parse::<u64>().is_ok(), "{info}");
        }
        let shown = patiently(|| {
            let shown = client.run("CLUSTER SHARDS").unwrap();
            let count = |what| shown.matches(what).count();
            let are_led = count("'role' 'master'") == 3;
            let are_online = count("'health' 'online'") == count("'id'");
            // Each node knows at least up to where it has the log itself.
            let me = format!("'id' '{}'", name(trio.places[at].id));
            let offsets = shown.split(&me).skip(1);
            let mut offsets = offsets.map(|it| it.split("'replication-offset' ").nth(1).unwrap());
            let has_logs = offsets.all(|offset| !offset.starts_with("(0)"));
            if are_led && are_online && has_logs { Ok(shown) } else { Err(shown) }
        });
        for (first, last) in SLOTS {
            assert!(
                shown.contains(&format!("['slots' [({first}) ({last})] 'nodes' [[")),
                "{shown}"
            );
        }
        for place in &trio.places {
            let (id, port) = (name(place.id), port(place));
            let node = format!("'id' '{id}' 'port' ({port}) 'ip' '127.0.0.1'");
            assert!(shown.contains(&node), "{shown}");
        }
    }
    // A leader asks all the others, so it notices that one is gone.
    drop(trio.nodes.pop());
    patiently(|| {
        let shown = [0, 1].map(|at| trio.client(at).run("CLUSTER NODES").unwrap());
        let lines = shown.iter().flat_map(|shown| shown.lines());
        let is_lost = |line: &&str| line.trim_start_matches('\'').starts_with(&name(3));
        let mut lost = lines.filter(is_lost);
        let is_shown = lost.any(|line| line.contains(",fail? ") && line.contains("disconnected"));
        if is_shown { Ok(()) } else { Err(format!("{shown:?}")) }
    });
}

/// Runs commands that may run twice at the leader of a shard.
fn at_leader(trio: &Trio, shard: usize, lines: &[&str]) -> Vec<String> {
    patiently(|| {
        let leaders = Trio::leaders(&trio.nodes[0].node().status()).ok_or("nobody leads")?;
        let at = trio.places.iter().position(|place| place.id == leaders[shard]).unwrap();
        let mut client = trio.client(at);
        let replies: Vec<_> = lines.iter().map(|line| client.run(line).unwrap()).collect();
        // Elsewhere, or nobody knows whether they took effect.
        let lost = ["(error) MOVED", "(error) CLUSTERDOWN", "(error) ERR the group lost"];
        let is_lost = |reply: &String| lost.iter().any(|it| reply.starts_with(it));
        if replies.iter().any(is_lost) { Err(format!("{replies:?}")) } else { Ok(replies) }
    })
}

#[test]
fn keys_are_found_by_their_slot_and_read_by_those_that_ask_for_what_is_there() {
    let trio = Trio::new();
    // The slot of `foo` is 12182, in the third shard.
    assert_eq!(
        at_leader(
            &trio,
            2,
            &[
                "MSET {foo}1 one {foo}2 two {foo}3 three",
                "CLUSTER COUNTKEYSINSLOT 12182",
                "CLUSTER COUNTKEYSINSLOT 12183",
                "CLUSTER GETKEYSINSLOT 12183 10",
                "CLUSTER GETKEYSINSLOT 12182 0",
            ],
        ),
        ["OK", "(3)", "(0)", "[]", "[]"]
    );
    let found = at_leader(&trio, 2, &["CLUSTER GETKEYSINSLOT 12182 10"]).remove(0);
    let mut found: Vec<_> = found.trim_matches(['[', ']']).split(' ').collect();
    found.sort_unstable();
    assert_eq!(found, ["'{foo}1'", "'{foo}2'", "'{foo}3'"]);
    let some = at_leader(&trio, 2, &["CLUSTER GETKEYSINSLOT 12182 2"]).remove(0);
    assert_eq!(some.split(' ').count(), 2, "{some}");
    let mut client = trio.client(1);
    for line in ["CLUSTER COUNTKEYSINSLOT 16384", "CLUSTER GETKEYSINSLOT -1 1"] {
        let reply = client.run(line).unwrap();
        assert_eq!(reply, "(error) ERR Invalid or out of range slot", "{line}");
    }
    // Each node has the key, and those that do not lead tell it when they are asked for that.
    for at in 0..3 {
        let mut client = trio.client(at);
        assert_eq!(client.run("READONLY").unwrap(), "OK");
        patiently(|| match client.run("GET {foo}1").unwrap() {
            reply if reply == "'one'" => Ok(()),
            reply => Err(reply),
        });
        assert_eq!(client.run("READWRITE").unwrap(), "OK");
    }
    patiently(|| {
        let leaders = Trio::leaders(&trio.nodes[0].node().status()).ok_or("nobody leads")?;
        let leader = trio.places.iter().find(|place| place.id == leaders[2]).unwrap();
        let others = (0..3).filter(|at| trio.places[*at].id != leader.id);
        let moved = format!("(error) MOVED 12182 {}", leader.redis);
        let replies = others.map(|at| trio.client(at).run("GET {foo}1").unwrap());
        let replies: Vec<_> = replies.collect();
        if replies == [moved.clone(), moved] { Ok(()) } else { Err(format!("{replies:?}")) }
    });
}

#[test]
fn keys_of_several_slots_are_refused_in_one_command_and_in_one_transaction() {
    let trio = Trio::new();
    // Both are in the third shard, and not in the same slot.
    let (one, other) = ("foo", "a");
    let both = [format!("MSET {one} 1 {other} 2"), format!("DEL {one} {other}")];
    let set = [format!("SET {one} 1"), format!("SET {other} 2")];
    let watch = [format!("WATCH {one}"), format!("WATCH {other}")];
    let exists = [format!("EXISTS {one}"), format!("EXISTS {other}")];
    let exists = [&*exists[0], &*exists[1]];
    for (lines, expected) in [
        (vec![&*both[0]], vec![CROSS_SLOT]),
        (vec![&both[1]], vec![CROSS_SLOT]),
        (vec!["MULTI", &set[0], &set[1], "EXEC"], vec!["OK", "QUEUED", "QUEUED", CROSS_SLOT]),
        (
            vec!["MULTI", &both[0], "EXEC"],
            vec![
                "OK",
                CROSS_SLOT,
                "(error) EXECABORT Transaction discarded because of previous errors.",
            ],
        ),
        (vec![&watch[0], "MULTI", &set[1], "EXEC"], vec!["OK", "OK", "QUEUED", CROSS_SLOT]),
        (
            vec![&watch[0], &watch[1], "MULTI", &set[1], "EXEC"],
            vec!["OK", "OK", "OK", "QUEUED", CROSS_SLOT],
        ),
    ] {
        assert_eq!(at_leader(&trio, 2, &lines), expected, "{lines:?}");
        // Nothing of it was done.
        assert_eq!(at_leader(&trio, 2, &exists), ["(0)", "(0)"], "{lines:?}");
    }
    // Of one slot, they are fine.
    let lines = ["WATCH {foo}1", "MULTI", "MSET {foo}1 1 {foo}2 2", "DEL {foo}1 {foo}2", "EXEC"];
    let replies = at_leader(&trio, 2, &lines);
    assert_eq!(replies, ["OK", "OK", "QUEUED", "QUEUED", "[OK (2)]"]);
}
