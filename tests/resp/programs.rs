//! Programs that others have written, where they are installed.

use std::process::{Command, Stdio};

use crate::support::Served;

fn is_installed(program: &str) -> bool {
    let version = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    let is_there = version.is_ok_and(|status| status.success());
    if !is_there {
        println!("skipped: {program} is not installed");
    }
    is_there
}

#[test]
fn redis_cli_understands_the_server() {
    if !is_installed("redis-cli") {
        return;
    }
    let served = Served::new();
    let port = served.address.port().to_string();
    for version in ["-2", "-3"] {
        let cli = |args: &[&str]| {
            let output =
                Command::new("redis-cli").args(["-p", &port, version]).args(args).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(cli(&["SET", "key", "value"]), "OK\n");
        assert_eq!(cli(&["GET", "key"]), "value\n");
        assert_eq!(cli(&["HSET", "hash", "a", "1"]).len(), 2);
        assert!(cli(&["INFO", "server"]).contains("redis_version"));
        assert!(cli(&["--scan"]).contains("key"));
        assert!(cli(&["CLIENT", "LIST"]).contains("addr="));
    }
}

#[test]
fn redis_benchmark_runs_against_the_server() {
    if !is_installed("redis-benchmark") {
        return;
    }
    let served = Served::new();
    let port = served.address.port().to_string();
    let args = [
        "-p",
        &port,
        "-n",
        "2000",
        "-c",
        "10",
        "-P",
        "16",
        "-t",
        "set,get,incr,mset,hset",
        "--csv",
    ];
    let output = Command::new("redis-benchmark").args(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for name in ["SET", "GET", "INCR", "MSET", "HSET"] {
        assert!(text.contains(&format!("\"{name}")), "{text}");
    }
}
