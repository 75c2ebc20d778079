//! The time from the death of a leader until its keys can be written again, and the pause for which
//! they cannot be written when it is stopped.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::Failure;
use crate::arguments::Arguments;
use crate::client::Client;

/// Number of writes before the kill.
const WRITES: u64 = 200;
/// How long a write may take before it is sent to another node.
const ATTEMPT_MAX: Duration = Duration::from_millis(100);
/// Pause after an attempt that has failed.
const PAUSE: Duration = Duration::from_millis(5);
/// How long writes go on after the process has ended.
const AFTER: Duration = Duration::from_secs(1);
/// How long a failover may take.
const FAILOVER_MAX: Duration = Duration::from_secs(90);

/// Writes one key, kills the node that leads it, and returns when a write succeeded again.
pub(crate) async fn run(arguments: &Arguments) -> Result<Value, Failure> {
    let (mut client, key, value) = written(arguments).await?;
    let leader = client.node_of(&key);
    let (address, pid) = (&arguments.nodes[leader], arguments.pids[leader]);
    // The replica of a Redis master has none of its own when it takes over.
    client.wait_for_no_replica();
    let killed = Instant::now();
    signal("-KILL", pid)?;
    // A write that a dying process still acknowledges would look like a fast failover.
    while TcpStream::connect(address).await.is_ok() {
        sleep(Duration::from_millis(1)).await;
    }
    let mut failures: BTreeMap<String, u64> = BTreeMap::new();
    while killed.elapsed() < FAILOVER_MAX {
        let failure = match timeout(ATTEMPT_MAX, client.put(&key, &value)).await {
            Ok(Ok(())) => {
                let milliseconds = killed.elapsed().as_secs_f64() * 1e3;
                return Ok(json!({
                    "killed": address,
                    "milliseconds": milliseconds,
                    "failures": failures,
                }));
            }
            Ok(Err(failure)) => failure.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        *failures.entry(failure).or_default() += 1;
        client.go_elsewhere(&key);
        sleep(PAUSE).await;
    }
    Err(format!("no write succeeds: {failures:?}").into())
}

/// Writes one key while the node that leads it is asked to end. Returns the longest time between
/// two writes that succeeded.
pub(crate) async fn stop(arguments: &Arguments) -> Result<Value, Failure> {
    let (mut client, key, value) = written(arguments).await?;
    let leader = client.node_of(&key);
    let (address, pid) = (&arguments.nodes[leader], arguments.pids[leader]);
    let mut last = Instant::now();
    let (mut ended, mut pause) = (None, Duration::ZERO);
    let mut failures: BTreeMap<String, u64> = BTreeMap::new();
    signal("-TERM", pid)?;
    while last.elapsed() < FAILOVER_MAX {
        let failure = match timeout(ATTEMPT_MAX, client.put(&key, &value)).await {
            Ok(Ok(())) => {
                pause = pause.max(last.elapsed());
                last = Instant::now();
                if TcpStream::connect(address).await.is_err() {
                    let ended: Instant = *ended.get_or_insert(last);
                    if ended.elapsed() > AFTER {
                        let milliseconds = pause.as_secs_f64() * 1e3;
                        return Ok(json!({
                            "stopped": address,
                            "milliseconds": milliseconds,
                            "failures": failures,
                        }));
                    }
                }
                continue;
            }
            Ok(Err(failure)) => failure.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        *failures.entry(failure).or_default() += 1;
        client.go_elsewhere(&key);
        sleep(PAUSE).await;
    }
    Err(format!("no write succeeds: {failures:?}").into())
}

/// Writes one key some times. Returns the client, the key and its value.
async fn written(arguments: &Arguments) -> Result<(Client, Vec<u8>, Vec<u8>), Failure> {
    let mut client = Client::connect(arguments).await?;
    let key = arguments.key(arguments.seed);
    let value = arguments.value(&key);
    for _ in 0..WRITES {
        client.put(&key, &value).await?;
    }
    Ok((client, key, value))
}

fn signal(name: &str, pid: u32) -> Result<(), Failure> {
    if Command::new("kill").args([name, &pid.to_string()]).status()?.success() {
        return Ok(());
    }
    Err(format!("process {pid} cannot be sent {name}").into())
}
