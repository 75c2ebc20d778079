//! The commands of the program: what they print, and how they end.

use std::process::{Command, Output};

use crate::processes::{CarefulClient, NodeProcess, Tried, addresses};
use crate::support::patiently;

/// Has a node do something, as the command line says.
fn output(node: &NodeProcess, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitcask"));
    command.current_dir(&node.dir).args(["cluster", "--node", &node.cluster]);
    command.args(["--secret-file", "secret"]).args(line.split(' ')).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns what the command prints, or why it fails.
fn tried(node: &NodeProcess, line: &str) -> Result<String, String> {
    let output = output(node, line);
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Returns what the command prints. While nobody leads, it is repeated.
fn told(node: &NodeProcess, line: &str) -> String {
    patiently(|| tried(node, line))
}

/// Returns why the command fails.
fn refused(node: &NodeProcess, line: &str) -> String {
    let output = output(node, line);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(3), String::new()), "{line}");
    text(&output.stderr)
}

fn set(client: &mut CarefulClient, key: &str) {
    assert_eq!(client.run(&format!("SET {key} value")), Tried::Reply("OK".into()));
}

#[test]
fn each_command_says_what_it_has_done_or_what_is_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes: Vec<_> = (1..=3).map(|id| NodeProcess::new(id, dir.path())).collect();
    nodes.iter_mut().for_each(NodeProcess::start);
    for node in &nodes {
        let alone = format!("node {} belongs to no cluster\n", node.id);
        assert_eq!(told(node, "status"), alone);
        for line in ["transfer 1 2", "balance", "snapshot"] {
            assert_eq!(refused(node, line), format!("error: {alone}"), "{line}");
        }
    }
    let join = format!("join {}", nodes[0].cluster);
    let refusal = refused(&nodes[1], &join);
    let expected = format!("error: {} answers: this node belongs to no", nodes[0].cluster);
    assert!(refusal.starts_with(&expected), "{refusal}");
    assert_eq!(told(&nodes[0], "init --shards 1"), "done\n");
    assert!(refused(&nodes[0], "remove 1").starts_with("error: the last node of a cluster"));
    for node in &nodes[1..] {
        assert_eq!(told(node, &join), "done\n");
    }
    assert_eq!(refused(&nodes[0], "remove 9"), "error: there is no node 9\n");
    assert!(refused(&nodes[0], "transfer 7 2").contains("there is no group 7 here"));

    patiently(|| {
        assert_eq!(tried(&nodes[0], "transfer 1 2")?, "done\n");
        let status = tried(&nodes[1], "status")?;
        assert!(status.starts_with("node 2 of a cluster of 1 shard\n  node 1: nodes "), "{status}");
        let line = "\n  group 1: slots 0-16383, leader, leader 2, ";
        if status.contains(line) && status.contains("voters [1, 2, 3]") {
            return Ok(());
        }
        Err(status)
    });
    let mut client = CarefulClient::new(addresses(&nodes));
    set(&mut client, "one");
    set(&mut client, "two");
    assert_eq!(told(&nodes[0], "snapshot"), "done\n");
    assert_eq!(told(&nodes[0], "backup ../copy"), "done\n");
    assert!(refused(&nodes[0], "backup ../copy").ends_with("copy exists\n"));

    let mut other = [NodeProcess::new(4, dir.path())];
    other[0].start();
    assert_eq!(told(&other[0], "init --shards 2"), "done\n");
    assert!(refused(&other[0], "restore ../none").contains("no complete backup"));
    assert_eq!(told(&other[0], "restore ../copy"), "2 keys put\n");
    assert!(refused(&other[0], &join).starts_with("error: this node belongs to another cluster"));
    let mut client = CarefulClient::new(addresses(&other));
    assert_eq!(client.run("GET two"), Tried::Reply("'value'".into()));

    nodes[2].kill();
    let balanced = told(&nodes[0], "balance");
    assert!(
        balanced.ends_with("left out (down, joining or being removed): node 3\n"),
        "{balanced}"
    );
    let refusal = refused(&nodes[0], "transfer 1 3");
    let expected = format!("error: group 1: node 3: no answer from {}: ", nodes[2].cluster);
    assert!(refusal.starts_with(&expected), "{refusal}");
    assert!(refused(&nodes[2], "status").starts_with("error: no answer from "));
    assert_eq!(told(&nodes[0], "remove 3"), "done\n");
    patiently(|| {
        let status = tried(&nodes[0], "status")?;
        if status.contains("  node 3:") { Err(status) } else { Ok(()) }
    });
    std::fs::write(nodes[0].dir.join("secret"), "another").unwrap();
    assert!(refused(&nodes[0], "status").contains("the secret is not that of this cluster"));
}
