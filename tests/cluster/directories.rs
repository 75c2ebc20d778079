//! Where a node keeps what it has, and where a backup goes.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

#[test]
fn a_directory_may_be_named_by_a_single_word() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "a secret of tests").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitcask"));
    command.current_dir(dir.path()).args(["--dir", "data", "server", "start", "--cluster"]);
    command.args(["--node-id", "1", "--cluster-listen", "127.0.0.1:0", "--port", "0"]);
    command.args(["--cluster-secret-file", "secret"]).env("BITCASK_LOG_LEVEL", "off");
    let mut node = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(node.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit(' ').next().unwrap_or_default();
    let administer = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bitcask"));
        command.current_dir(dir.path()).args(["cluster", "--node", address]);
        command.args(["--secret-file", "secret"]).args(args).status().unwrap().success()
    };
    let is_copied = administer(&["init", "--shards", "1"]) && administer(&["backup", "copy"]);
    node.kill().unwrap();
    node.wait().unwrap();
    assert!(line.starts_with("serving other nodes at 127.0.0.1:"), "{line:?}");
    assert!(dir.path().join("data").is_dir());
    assert!(is_copied && dir.path().join("copy/CLUSTER").is_file());
}
