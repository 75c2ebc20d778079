//! What a follower has, and what its readers see.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bitcask::server::ServerOptions;
use bitcask::{Batch, WriteOptions};
use serde_json::Value;

use crate::support::Client;

use super::support::{FOLLOW_KEY, Node, content, following, store, until};

const CERTIFICATE: &[u8] = include_bytes!("../fixtures/cert.pem");
const KEY: &[u8] = include_bytes!("../fixtures/key.pem");

#[test]
fn a_follower_has_what_the_leader_has_with_expiry_and_all_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    let hour = SystemTime::now() + Duration::from_secs(3600);
    let expires = WriteOptions::new().expires_at(hour);
    leader.db.put("before", "1").unwrap();
    leader.db.put_opt("expires before", "1", expires).unwrap();
    leader.db.put(b"\xff\0", b"\xfe").unwrap();
    leader.db.put("", vec![1; 5_000_000]).unwrap();
    // The follower's own default must not apply.
    let ttl = store().default_ttl(Some(Duration::from_secs(5)));
    drop(ttl.open(dir.path().join("follower")).unwrap());
    let follower = Node::follower(&dir.path().join("follower"), &leader);
    follower.has_all_of(&leader);
    leader.db.put_opt("expires", "2", expires).unwrap();
    leader.db.put_opt("over", "2", WriteOptions::new().expires_at(SystemTime::UNIX_EPOCH)).unwrap();
    leader.db.delete("before").unwrap();
    leader.db.persist("expires before").unwrap();
    leader.db.put("large", vec![2; 5_000_000]).unwrap();
    leader.db.write(Batch::new().put("x", "1").put("y", vec![3; 100_000]).delete("")).unwrap();
    follower.has_all_of(&leader);
    assert_eq!(follower.replica().resyncs(), 1);
    // It goes on after a restart of either side.
    let (port, path) = (leader.address.port(), leader.dir().to_owned());
    leader.stopped();
    let leader = Node::on(&path, port, ServerOptions::new());
    leader.db.put("after a restart", "3").unwrap();
    follower.has_all_of(&leader);
    let path = follower.dir().to_owned();
    follower.stopped();
    leader.db.put("meanwhile", "4").unwrap();
    let follower = Node::follower(&path, &leader);
    follower.has_all_of(&leader);
    assert_eq!(follower.replica().resyncs(), 0);
}

/// Each of the batches writes its number under ten keys. A reader of the follower that ever sees
/// two different numbers at one moment has seen half of a batch.
#[test]
fn ten_thousand_batches_are_never_seen_half() {
    const BATCHES: u32 = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    let follower = Node::follower(&dir.path().join("follower"), &leader);
    let keys: Vec<String> = (0..10).map(|key| format!("key {key}")).collect();
    let (db, is_over) = (&leader.db, AtomicBool::new(false));
    let distinct = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut last, mut distinct) = (None, 0);
            while !is_over.load(Ordering::SeqCst) {
                let values = follower.db.snapshot().get_many(&keys).unwrap();
                let first = values[0].as_deref();
                assert!(values.iter().all(|value| value.as_deref() == first), "{values:?}");
                let number: Option<u32> =
                    first.map(|it| u32::from_be_bytes(it.try_into().unwrap()));
                assert!(number >= last, "{number:?} after {last:?}");
                distinct += u32::from(number != last);
                last = number;
            }
            distinct
        });
        for number in 1..=BATCHES {
            let batch: Batch = keys.iter().map(|key| (key, number.to_be_bytes())).collect();
            db.write(&batch).unwrap();
            // The follower gets them in many pieces, of which the reader can see some.
            if number % 50 == 0 {
                db.sync().unwrap();
                let arrived = || follower.db.get(&keys[9]).unwrap();
                until("the batch arrives", || arrived().as_deref() == Some(&number.to_be_bytes()));
            }
        }
        until("the last batch arrives", || {
            let value = follower.db.get(&keys[9]).unwrap();
            value.as_deref() == Some(&BATCHES.to_be_bytes())
        });
        is_over.store(true, Ordering::SeqCst);
        reader.join().unwrap()
    });
    assert!(distinct > 10, "the reader has seen {distinct} states only");
    let changes = follower.replica().changes();
    assert!(changes <= u64::from(BATCHES) * 10, "{changes} changes were applied");
}

#[test]
fn the_lag_is_reported_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    leader.db.put("k", "v").unwrap();
    let follower = Node::follower(&dir.path().join("follower"), &leader);
    follower.has_all_of(&leader);
    until("a report arrives", || follower.health()["replication"]["lag_entries"] == 0);
    let health = follower.health();
    let replication = &health["replication"];
    assert_eq!((&health["status"], &replication["role"]), (&"healthy".into(), &"follower".into()));
    assert_eq!((&replication["connected"], &replication["lag_bytes"]), (&true.into(), &0.into()));
    assert_eq!(replication["leader"], leader.url());
    assert!(replication["lag_seconds"].as_f64().unwrap() < 60.0);
    assert_eq!(leader.health().get("replication"), None);
    let metrics = follower.send("GET", "/metrics", b"").has(200).text();
    for line in ["bitcask_replica_lag_bytes 0\n", "bitcask_replica_connected 1\n"] {
        assert!(metrics.contains(line), "{metrics}");
    }
    for name in ["lag_entries", "lag_seconds", "changes_total", "resyncs_total", "following"] {
        assert!(metrics.contains(&format!("\nbitcask_replica_{name} ")), "{name}: {metrics}");
    }
    // Changes that are not durable are missing here, and are counted as such.
    leader.db.set_sync_policy(bitcask::SyncPolicy::Never).unwrap();
    for number in 0..7 {
        leader.db.put(format!("late {number}"), vec![0; 1000]).unwrap();
    }
    until("the lag is seven changes", || follower.health()["replication"]["lag_entries"] == 7);
    assert!(follower.health()["replication"]["lag_bytes"].as_u64().unwrap() > 7000);
    leader.db.sync().unwrap();
    until("the lag is gone", || follower.health()["replication"]["lag_entries"] == 0);
    leader.stopped();
    let replication = || follower.health()["replication"].clone();
    until("the leader is missed", || replication()["connected"] == false);
    until("it says why", || replication()["error"].is_string());
    let before = replication()["lag_seconds"].as_f64().unwrap();
    until("the age grows", || replication()["lag_seconds"].as_f64().unwrap() > before);
}

#[test]
fn a_chain_of_followers_ends_equal_and_keeps_its_records_apart() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    leader.db.put("k", "1").unwrap();
    let middle = Node::follower(&dir.path().join("middle"), &leader);
    middle.has_all_of(&leader);
    let last = Node::follower(&dir.path().join("last"), &middle);
    last.has_all_of(&leader);
    let record = |node: &Node| node.db.get(FOLLOW_KEY).unwrap().unwrap().to_vec();
    assert_ne!(record(&middle), record(&last));
    for number in 0..100 {
        leader.db.put(format!("k{number}"), "2").unwrap();
    }
    last.has_all_of(&leader);
    assert_eq!(last.replica().resyncs(), 1);
    // A clear is a resync of the one in the middle, and then of the last one.
    leader.db.clear().unwrap();
    leader.db.put("new", "3").unwrap();
    last.has_all_of(&leader);
    assert_eq!(content(&middle.db), content(&leader.db));
    assert_eq!(last.replica().resyncs(), 2);
}

#[test]
fn nobody_reads_a_follower_that_has_nothing_yet() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = ServerOptions::new().follow(following("http://127.0.0.1:1"));
    let node = Node::on(&dir.path().join("follower"), 0, nowhere);
    for target in ["/v1/keys/k", "/v1/keys", "/kv/k", "/keys", "/v1/changes", "/v1/snapshot"] {
        let refused = node.send("GET", target, b"").has(503);
        assert_eq!(refused.value()["code"], "loading", "{target}");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    node.send("POST", "/v1/get", br#"{"keys":["k"]}"#).has(503);
    for target in ["/metrics", "/v1/stats", "/openapi.json"] {
        node.send("GET", target, b"").has(200);
    }
    assert_eq!(node.send("GET", "/health", b"").has(503).value()["status"], "loading");
    // It may become a leader only with data.
    let refused = node.send("POST", "/v1/promote", b"").has(409).value();
    assert_eq!(refused["code"], "not_complete");
}

#[test]
fn a_leader_is_reached_with_tls_and_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let options = ServerOptions::new().tls(CERTIFICATE, KEY).token("secret");
    let leader = Node::on(&dir.path().join("leader"), 0, options);
    leader.db.put("k", "v").unwrap();
    let url = format!("https://localhost:{}", leader.address.port());
    let follow = following(&url).authority(CERTIFICATE);
    let wrong = Node::on(&dir.path().join("wrong"), 0, ServerOptions::new().follow(follow.clone()));
    let error = |node: &Node| node.health()["replication"]["error"].as_str().map(str::to_owned);
    until("it is refused", || error(&wrong).is_some_and(|error| error.contains("401")));
    let untrusted = ServerOptions::new().follow(following(&url).token("secret"));
    let untrusted = Node::on(&dir.path().join("untrusted"), 0, untrusted);
    until("it is not trusted", || error(&untrusted).is_some());
    assert!(untrusted.replica().is_loading());
    let right = ServerOptions::new().follow(follow.token("secret"));
    let right = Node::on(&dir.path().join("right"), 0, right);
    right.has_all_of(&leader);
}

#[test]
fn the_record_is_neither_listed_nor_read_nor_written() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    leader.db.put("k", "v").unwrap();
    let node = Node::follower(&dir.path().join("follower"), &leader);
    node.has_all_of(&leader);
    node.send("POST", "/v1/promote", b"").has(200);
    assert!(node.db.contains_key(FOLLOW_KEY).unwrap());
    for target in ["/v1/keys", "/kv", "/keys", "/v1/keys?values&reverse"] {
        let keys = node.send("GET", target, b"").has(200).value()["keys"].clone();
        assert_eq!(keys.as_array().unwrap().len(), 1, "{target}: {keys}");
    }
    assert_eq!(node.send("GET", "/", b"").value()["keys_count"], 1);
    for (method, target) in [
        ("GET", "/v1/keys/%00follow"),
        ("PUT", "/v1/keys/%00follow"),
        ("DELETE", "/v1/keys/%00follow"),
        ("GET", "/kv/%00follow"),
        ("PUT", "/kv/%00follow"),
        ("DELETE", "/delete/%00follow"),
    ] {
        node.send(method, target, br#"{"value":"x"}"#).has(403);
    }
    for (target, body) in [
        ("/v1/batch", r#"{"operations":[{"op":"delete","key":"\u0000follow"}]}"#),
        ("/v1/get", r#"{"keys":["\u0000follow"]}"#),
        ("/put", r#"{"key":"\u0000follow","value":1}"#),
        ("/batch", r#"{"data":{"\u0000follow":1}}"#),
    ] {
        let refused: Value = node.send("POST", target, body.as_bytes()).has(403).value();
        assert!(refused["detail"].as_str().unwrap().contains("keeps this key"), "{refused}");
    }
}

/// If the position were written by itself, a crash between the two writes would lose changes, or
/// apply them twice.
#[test]
fn every_batch_of_a_follower_begins_with_its_position() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    leader.db.put("k", "v").unwrap();
    let follower = Node::follower(&dir.path().join("follower"), &leader);
    follower.has_all_of(&leader);
    let since = follower.db.position();
    for number in 0..100 {
        let mut batch = Batch::new();
        for key in 0..=number % 3 {
            batch.put(format!("{key}"), format!("{number}"));
        }
        leader.db.write(&batch).unwrap();
        if number % 10 == 0 {
            leader.db.sync().unwrap();
        }
    }
    follower.has_all_of(&leader);
    let (mut changes, mut begins, mut batches) = (follower.db.changes(since).unwrap(), true, 0);
    while let Some(change) = changes.try_recv().unwrap() {
        assert_eq!(change.key == FOLLOW_KEY, begins, "{change:?}");
        batches += u32::from(begins);
        begins = !change.batch_continues;
    }
    assert!(begins && batches > 0);
}

#[test]
fn a_follower_does_not_wait_for_upkeep_before_it_replaces_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    leader.db.put("k", "old").unwrap();
    let node = Node::follower(&dir.path().join("follower"), &leader);
    node.has_all_of(&leader);
    let mut client = Client::over(TcpStream::connect(node.address).unwrap());
    let headers = [("content-type", "application/json"), ("expect", "100-continue")];
    client.begin("POST", "/v1/merge", &headers, 2);
    // The request is under way: the server waits for its body.
    assert!(client.line().starts_with("HTTP/1.1 100"));
    assert_eq!(client.line(), "");
    // A clear ends the history.
    leader.db.clear().unwrap();
    leader.db.put("k", "new").unwrap();
    leader.db.sync().unwrap();
    node.has_all_of(&leader);
    assert_eq!(node.replica().resyncs(), 2);
    client.raw(b"{}");
    client.answer("POST").has(200);
}
