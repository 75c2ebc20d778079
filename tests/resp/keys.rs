//! Keys, whatever they hold.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::Served;

#[test]
fn keys_are_listed_and_counted() {
    let served = Served::new();
    let mut client = served.client();
    client.is("MSET key:1 a key:2 b other c", "OK");
    client.is("HSET key:hash f v", "(1)");
    client.is("DBSIZE", "(4)");
    client.is("KEYS oth*", "['other']");
    assert_eq!(client.run("KEYS key:[12]").matches("key").count(), 2);
    assert_eq!(client.run("KEYS *").matches('\'').count(), 8);
    client.is("TYPE key:1", "string");
    client.is("TYPE key:hash", "hash");
    client.is("TYPE missing", "none");
    client.is("EXISTS key:1 key:1 missing", "(2)");
    client.is("TOUCH key:1 missing", "(1)");
    client.is("DEL key:1 key:hash missing", "(2)");
    client.is("UNLINK key:2", "(1)");
    client.is("RANDOMKEY", "'other'");
    client.is("FLUSHDB", "OK");
    client.is("RANDOMKEY", "nil");
    client.is("DBSIZE", "(0)");
    client.fails("FLUSHALL FOO", "ERR syntax error");
}

#[test]
fn random_keys_are_all_keys_in_turn() {
    for (count, draws) in [(2, 100), (20, 400), (200, 8000)] {
        let served = Served::new();
        let mut client = served.client();
        for number in 0..count {
            client.is(&format!("SET key{number} x"), "OK");
        }
        let seen: BTreeSet<_> = (0..draws).map(|_| client.run("RANDOMKEY")).collect();
        assert_eq!(seen.len(), count);
    }
}

#[test]
fn a_scan_returns_every_key_that_stays() {
    let served = Served::new();
    let mut client = served.client();
    for number in 0..500 {
        client.is(&format!("SET key{number} x"), "OK");
    }
    client.is("HSET hash a 1 b 2", "(2)");
    let (mut cursor, mut seen) = ("0".to_owned(), BTreeSet::new());
    loop {
        let reply = client.run(&format!("SCAN {cursor} COUNT 50"));
        let mut parts = reply.trim_matches(['[', ']']).split(' ');
        cursor = parts.next().unwrap().trim_matches('\'').to_owned();
        seen.extend(parts.map(|key| key.trim_matches(['[', ']', '\'']).to_owned()));
        client.is("SET other x", "OK");
        if cursor == "0" {
            break;
        }
    }
    seen.retain(|key| key.starts_with("key") || key == "hash");
    assert_eq!(seen.len(), 501);
    let hashes = client.run("SCAN 0 COUNT 100000 TYPE hash");
    assert_eq!(hashes, "['0' ['hash']]");
    let some = client.run("SCAN 0 COUNT 100000 MATCH key49?");
    assert_eq!(some.matches("key49").count(), 10);
    client.fails("SCAN x", "ERR invalid cursor");
    client.fails("SCAN 0 COUNT 0", "ERR syntax error");
}

#[test]
fn keys_are_renamed_and_copied() {
    let served = Served::new();
    let mut client = served.client();
    client.is("SET a 1 EX 1000", "OK");
    client.is("HSET h f v", "(1)");
    client.is("RENAME a b", "OK");
    client.is("TTL b", "(1000)");
    client.fails("RENAME a c", "ERR no such key");
    client.is("RENAMENX b h", "(0)");
    client.is("RENAME h hash", "OK");
    client.is("HGETALL hash", "['f' 'v']");
    client.is("COPY hash copy", "(1)");
    client.is("HSET copy f w", "(0)");
    client.is("HGET hash f", "'v'");
    client.is("COPY hash copy", "(0)");
    client.is("COPY hash copy REPLACE", "(1)");
    client.is("HGET copy f", "'v'");
    client.is("COPY b b2 DB 2", "(1)");
    client.is("SELECT 2", "OK");
    client.is("GET b2", "'1'");
    client.is("TTL b2", "(1000)");
    client.is("SELECT 0", "OK");
    client.fails("COPY b b", "ERR source and destination objects are the same");
    // A string that replaces a hash leaves nothing of it.
    client.is("RENAME b hash", "OK");
    client.is("GET hash", "'1'");
    client.is("DEL copy hash", "(2)");
    assert_eq!(served.db.snapshot().len().unwrap(), 1);
}

#[test]
fn what_was_dumped_is_restored() {
    let served = Served::new();
    let mut client = served.client();
    client.is("SET s text", "OK");
    client.is("HSET h a 1 b 2", "(2)");
    for key in ["s", "h"] {
        client.send(&[b"DUMP", key.as_bytes()]);
        let Some(resp_rs::resp3::Frame::BulkString(Some(payload))) = client.try_read() else {
            panic!("no payload")
        };
        let copy = format!("{key}2");
        let restored = client.run_args(&[b"RESTORE", copy.as_bytes(), b"0", &payload]);
        assert_eq!(restored, "OK");
        let again = client.run_args(&[b"RESTORE", copy.as_bytes(), b"0", &payload]);
        assert_eq!(again, "(error) BUSYKEY Target key name already exists.");
        client.send(&[b"RESTORE", copy.as_bytes(), b"100000", &payload, b"REPLACE"]);
        assert_eq!(client.read(), "OK");
        client.is(&format!("TTL {copy}"), "(100)");
        let mut damaged = payload.to_vec();
        damaged[0] ^= 1;
        let refused = client.run_args(&[b"RESTORE", b"x", b"0", &damaged]);
        assert!(refused.starts_with("(error) ERR DUMP payload version or checksum"), "{refused}");
    }
    client.is("GET s2", "'text'");
    client.is("HGETALL h2", "['a' '1' 'b' '2']");
    client.is("DUMP missing", "nil");
}

#[test]
fn databases_are_apart() {
    let mut served = Served::new();
    let mut client = served.client();
    client.is("SET k 0", "OK");
    client.is("SELECT 1", "OK");
    client.is("GET k", "nil");
    client.is("SET k 1", "OK");
    client.is("SELECT 0", "OK");
    client.is("GET k", "'0'");
    client.fails("SELECT 4", "ERR DB index is out of range");
    client.fails("SELECT x", "ERR value is not an integer or out of range");
    client.is("FLUSHDB", "OK");
    client.is("SELECT 1", "OK");
    client.is("GET k", "'1'");
    served.end();
    let store = bitcask::Bitcask::open(served.dir.path().join("1"), bitcask::Options::new());
    let store = store.unwrap();
    assert_eq!(store.get("k").unwrap().unwrap(), "1");
    store.close().unwrap();
}

#[test]
fn databases_that_nobody_has_selected_are_flushed_too() {
    let mut served = Served::new();
    let mut client = served.client();
    client.is("SELECT 2", "OK");
    client.is("SET k 2", "OK");
    served.end();
    let dir = std::mem::replace(&mut served.dir, tempfile::tempdir().unwrap());
    drop(served);
    let served = Served::within(dir, &bitcask::Options::new(), bitcask::resp::RespOptions::new());
    let mut client = served.client();
    let info = client.run("INFO keyspace");
    assert!(info.contains("db2:keys=1,") && !info.contains("db1:"), "{info}");
    client.is("FLUSHALL", "OK");
    client.is("SELECT 2", "OK");
    client.is("GET k", "nil");
    assert!(!served.dir.path().join("3").exists());
}

#[test]
fn a_key_that_can_not_exist_is_absent() {
    let served = Served::new();
    let mut client = served.client();
    let long = vec![b'k'; 70_000];
    client.is("MSET a 1 b 2", "OK");
    assert_eq!(client.run_args(&[b"DEL", b"a", &long, b"b"]), "(2)");
    assert_eq!(client.run_args(&[b"DEL", &long]), "(0)");
    client.is("HSET h f v", "(1)");
    assert_eq!(client.run_args(&[b"UNLINK", &long, b"h"]), "(1)");
    client.is("MULTI", "OK");
    for command in [&b"GET"[..], b"EXISTS", b"TTL", b"PEXPIRETIME"] {
        assert_eq!(client.run_args(&[command, &long]), "QUEUED");
    }
    client.is("SET a 1", "QUEUED");
    client.is("EXEC", "[nil (0) (-2) (-2) OK]");
}

#[test]
fn a_restore_that_fails_removes_nothing() {
    let served = Served::new();
    let mut client = served.client();
    client.is("SET k precious", "OK");
    let mut payload = b"h".to_vec();
    for part in [&b"a"[..], b"1", &vec![b'f'; 65_530], b"v"] {
        payload.extend_from_slice(&u32::try_from(part.len()).unwrap().to_be_bytes());
        payload.extend_from_slice(part);
    }
    payload.push(1);
    let checksum = xxhash_rust::xxh3::xxh3_64(&payload);
    payload.extend_from_slice(&checksum.to_be_bytes());
    client.is("MULTI", "OK");
    let queued = client.run_args(&[b"RESTORE", b"k", b"0", &payload, b"REPLACE"]);
    assert_eq!(queued, "QUEUED");
    let reply = client.run("EXEC");
    assert!(reply.starts_with("[(error) ERR DUMP payload"), "{reply}");
    client.is("GET k", "'precious'");
}

#[test]
fn several_keys_are_looked_up_at_one_moment() {
    let served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    client.is("SET a 1", "OK");
    client.is("HSET h f v", "(1)");
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                for (key, gone) in [("b", "a"), ("a", "b")] {
                    other.is("MULTI", "OK");
                    for line in [&*format!("DEL {gone}"), &*format!("SET {key} 1")] {
                        other.is(line, "QUEUED");
                    }
                    for line in ["DEL h", "HSET h f v"] {
                        other.is(line, "QUEUED");
                    }
                    other.is("EXEC", "[(1) OK (1) (1)]");
                }
            }
        });
        for _ in 0..2000 {
            let replies =
                [client.run("EXISTS a b"), client.run("TOUCH b a"), client.run("HGET h f")];
            if replies != ["(1)", "(1)", "'v'"] {
                is_done.store(true, Ordering::Relaxed);
                panic!("{replies:?}");
            }
        }
        is_done.store(true, Ordering::Relaxed);
    });
}
