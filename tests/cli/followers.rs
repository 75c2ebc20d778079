//! Followers as processes of their own, which are killed at any moment.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails the test"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Sandbox;

/// How long a test waits for what has to happen. Nothing depends on it otherwise.
const PATIENCE: Duration = Duration::from_secs(180);

/// A server on a port that stays its own when it is started again.
struct Process<'a> {
    sandbox: &'a Sandbox,
    port: u16,
    args: Vec<String>,
    child: Option<Child>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl<'a> Process<'a> {
    fn start(sandbox: &'a Sandbox, dir: &str, follow: Option<u16>) -> Self {
        let port = free_port();
        let words = ["--dir", dir, "server", "start", "--port"];
        let mut args: Vec<String> = words.into_iter().map(str::to_owned).collect();
        args.push(port.to_string());
        if let Some(leader) = follow {
            args.extend(["--follow".to_owned(), format!("http://127.0.0.1:{leader}")]);
        }
        let mut process = Self { sandbox, port, args, child: None };
        process.begin();
        process
    }

    fn begin(&mut self) {
        let mut command = self.sandbox.bitcask(&self.args);
        command.env("BITCASK_SYNC", "5ms").env("BITCASK_LOG_LEVEL", "off");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("serving "), "{line}");
        self.child = Some(child);
    }

    /// Kills the process with SIGKILL.
    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends a request. Returns `None` if nobody answers.
    fn ask(&self, method: &str, target: &str, body: &str) -> Option<(u16, Value)> {
        ask(self.port, method, target, body)
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

fn ask(port: u16, method: &str, target: &str, body: &str) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let size = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {size}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).unwrap_or_default()))
}

/// Waits until something is so.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "this does not happen: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Numbers that are the same for the same seed.
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

/// Writes batches to the leader, each with the same number under ten keys, until it is over.
fn write(port: u16, is_over: &AtomicBool, written: &AtomicU64) {
    let mut number = 0;
    while !is_over.load(Ordering::SeqCst) {
        let put = |key| json!({"op": "put", "key": format!("k{key}"), "value": number.to_string()});
        let mut operations: Vec<Value> = (0..10).map(put).collect();
        operations.push(json!({"op": "put", "key": format!("n{number}"), "value": "x"}));
        let body = json!({"operations": operations}).to_string();
        if ask(port, "POST", "/v1/batch", &body).is_some_and(|(status, _)| status == 200) {
            written.store(number, Ordering::SeqCst);
            number += 1;
        }
    }
}

/// Reads the ten keys of the follower at one moment, again and again. All of them have to be equal.
fn read(port: u16, is_over: &AtomicBool, seen: &AtomicU64) {
    while !is_over.load(Ordering::SeqCst) {
        let Some((200, page)) = ask(port, "GET", "/v1/keys?prefix=k&values", "") else { continue };
        let keys = page["keys"].as_array().unwrap();
        let values: Vec<&str> = keys.iter().map(|it| it["value"].as_str().unwrap()).collect();
        let first = values.first().copied();
        let all = values.iter().all(|value| Some(*value) == first);
        assert!(all && [0, 10].contains(&values.len()), "half of a batch: {values:?}");
        if let Some(first) = first {
            seen.store(first.parse().unwrap(), Ordering::SeqCst);
        }
    }
}

/// All keys and values.
fn everything(process: &Process<'_>) -> Option<Vec<Value>> {
    let (mut all, mut next) = (Vec::new(), "/v1/keys?limit=10000&values=true".to_owned());
    loop {
        let (200, page) = process.ask("GET", &next, "")? else { return None };
        all.extend(page["keys"].as_array()?.iter().cloned());
        match page["next"].as_str() {
            Some(path) => path.clone_into(&mut next),
            None => return Some(all),
        }
    }
}

#[test]
fn either_side_may_be_killed_at_any_moment() {
    for seed in [7, 8] {
        let mut random = seed;
        let sandbox = Sandbox::empty();
        let mut leader = Process::start(&sandbox, "leader", None);
        let mut follower = Process::start(&sandbox, "follower", Some(leader.port));
        let (is_over, written, seen) =
            (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let (to, from) = (leader.port, follower.port);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| write(to, &is_over, &written));
            let reader = scope.spawn(|| read(from, &is_over, &seen));
            for round in 0..8 {
                // Neither side is killed before the follower has got something new.
                let goal = seen.load(Ordering::SeqCst) + next(&mut random) % 20;
                until(&format!("seed {seed}, round {round}: the follower follows"), || {
                    assert!(!reader.is_finished() && !writer.is_finished());
                    seen.load(Ordering::SeqCst) > goal
                });
                match next(&mut random) % 3 {
                    0 => {
                        leader.kill();
                        leader.begin();
                    }
                    1 => {
                        follower.kill();
                        follower.begin();
                    }
                    _ => {
                        leader.kill();
                        follower.kill();
                        follower.begin();
                        leader.begin();
                    }
                }
            }
            is_over.store(true, Ordering::SeqCst);
        });
        let expected = everything(&leader).unwrap();
        assert!(expected.len() as u64 >= written.load(Ordering::SeqCst) + 11, "seed {seed}");
        until("both are equal", || everything(&follower).as_ref() == Some(&expected));
    }
}

#[test]
fn a_follower_is_promoted_by_a_command() {
    let sandbox = Sandbox::empty();
    let leader = Process::start(&sandbox, "leader", None);
    let put = r#"{"value":"Ada"}"#;
    assert_eq!(leader.ask("PUT", "/kv/name", put).unwrap().0, 200);
    let mut follower = Process::start(&sandbox, "follower", Some(leader.port));
    let url = format!("http://127.0.0.1:{}", follower.port);
    until("it has the key", || {
        follower.ask("GET", "/kv/name", "").is_some_and(|(status, _)| status == 200)
    });
    assert_eq!(follower.ask("PUT", "/kv/name", put).unwrap().0, 421);
    // A leader is no follower that could be promoted.
    let leader_url = format!("http://127.0.0.1:{}", leader.port);
    let promote = ["server", "promote", "--server"];
    sandbox.run(promote.iter().chain(&[leader_url.as_str()])).failed(3, "does not follow a leader");
    let promoted = sandbox.run(promote.iter().chain(&[url.as_str()]));
    assert_eq!(promoted.ended(0), format!("{url} accepts writes\n"));
    assert_eq!(follower.ask("PUT", "/kv/name", put).unwrap().0, 200);
    follower.kill();
    let start = ["--dir", "follower", "server", "start", "--port", "0"];
    let refused = sandbox.run(start.iter().chain(&["--follow", &leader_url]));
    refused.failed(2, "was promoted");
    sandbox.run(start.iter().chain(&["--follow", "leader:8000"])).failed(2, "option follow");
    sandbox.run(start.iter().chain(&["--follow-anew"])).failed(2, "set --follow as well");
    assert_eq!(sandbox.run(["--dir", "follower", "get", "name"]).ended(0), "Ada");
}

#[test]
fn nobody_but_its_leader_changes_the_store_of_a_follower() {
    let sandbox = Sandbox::empty();
    let leader = Process::start(&sandbox, "leader", None);
    assert_eq!(leader.ask("PUT", "/kv/name", r#"{"value":"Ada"}"#).unwrap().0, 200);
    let mut follower = Process::start(&sandbox, "follower", Some(leader.port));
    let has_key = |it: &Process<'_>| it.ask("GET", "/kv/name", "").is_some_and(|it| it.0 == 200);
    until("it has the key", || has_key(&follower));
    follower.kill();
    let pairs = "{\"key\":\"new\",\"value\":\"1\"}\n";
    std::fs::write(sandbox.path("pairs.json"), pairs).unwrap();
    let run = |words: &[&str]| sandbox.run(["--dir", "follower"].iter().chain(words));
    let leader_url = format!("http://127.0.0.1:{}", leader.port);
    for words in [
        &["put", "new", "1"][..],
        &["put", "new", "1", "--create"],
        &["delete", "name"],
        &["batch", "pairs.json"],
        &["incr", "number"],
        &["expire", "name", "1h"],
        &["persist", "name"],
        &["import", "pairs.json"],
        // Nothing is asked, either.
        &["clear"],
        &["clear", "--yes"],
    ] {
        let refused = run(words);
        refused.failed(2, &format!("follows {leader_url}"));
        refused.failed(2, "bitcask server promote");
    }
    // Upkeep is its own matter, and so is reading.
    run(&["merge"]).ended(0);
    run(&["backup", "backup"]).ended(0);
    assert_eq!(run(&["get", "name"]).ended(0), "Ada");
    assert_eq!(run(&["exists", "new"]).code, Some(1));
    // Once it was promoted, it accepts writes.
    follower.begin();
    let url = format!("http://127.0.0.1:{}", follower.port);
    sandbox.run(["server", "promote", "--server", url.as_str()]).ended(0);
    follower.kill();
    run(&["put", "new", "1"]).ended(0);
}

#[test]
fn what_a_follower_exports_follows_nobody() {
    let sandbox = Sandbox::empty();
    let leader = Process::start(&sandbox, "leader", None);
    assert_eq!(leader.ask("PUT", "/kv/name", r#"{"value":"Ada"}"#).unwrap().0, 200);
    let mut follower = Process::start(&sandbox, "follower", Some(leader.port));
    until("it has the key", || {
        follower.ask("GET", "/kv/name", "").is_some_and(|(status, _)| status == 200)
    });
    follower.kill();
    let from = |words: &[&str]| sandbox.run(["--dir", "follower"].iter().chain(words));
    let pair = "{\"key\":\"name\",\"value\":\"Ada\"}\n";
    assert_eq!(from(&["export"]).ended(0), pair);
    assert_eq!(from(&["export", "--format", "csv"]).text().lines().count(), 2);
    let watched = from(&["watch", "--since", "start", "--no-wait", "--output", "json"]);
    assert!(watched.ended(0).contains("name") && !watched.text().contains("follow"));
    // An export by an earlier version has the key.
    let note = r#"{"key":"\u0000follow","value":"following 1-2 http://leader:8000"}"#;
    std::fs::write(sandbox.path("old.json"), format!("{note}\n{pair}")).unwrap();
    let imported = sandbox.run(["--dir", "copy", "import", "old.json"]);
    imported.ended(0);
    assert!(imported.err.contains("skipped the key \\0follow"), "{}", imported.err);
    assert_eq!(sandbox.run(["--dir", "copy", "list"]).ended(0), "name\n");
    sandbox.run(["--dir", "copy", "put", "new", "1"]).ended(0);
}
