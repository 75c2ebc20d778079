//! `MULTI` and `WATCH`.

use std::sync::atomic::{AtomicBool, Ordering};

use bitcask::Options;
use bitcask::resp::RespOptions;

use crate::support::Served;

#[test]
fn commands_wait_for_exec() {
    let served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    client.is("MULTI", "OK");
    client.is("SET a 1", "QUEUED");
    client.is("INCR a", "QUEUED");
    client.is("HSET a f v", "QUEUED");
    client.is("PING", "QUEUED");
    client.is("GET a", "QUEUED");
    other.is("GET a", "nil");
    let reply = client.run("EXEC");
    assert!(reply.starts_with("[OK (2) (error) WRONGTYPE"), "{reply}");
    assert!(reply.ends_with("PONG '2']"), "{reply}");
    client.is("MULTI", "OK");
    client.is("EXEC", "[]");
    client.fails("EXEC", "ERR EXEC without MULTI");
    client.fails("DISCARD", "ERR DISCARD without MULTI");
    client.is("MULTI", "OK");
    client.fails("MULTI", "ERR MULTI calls can not be nested");
    client.fails("WATCH a", "ERR WATCH inside MULTI is not allowed");
    client.is("SET a 5", "QUEUED");
    client.is("DISCARD", "OK");
    client.is("GET a", "'2'");
}

#[test]
fn a_refused_command_discards_the_transaction() {
    let served = Served::new();
    let mut client = served.client();
    client.is("MULTI", "OK");
    client.is("SET a 1", "QUEUED");
    client.fails("FOO", "ERR unknown command");
    client.fails("EXEC", "EXECABORT Transaction discarded because of previous errors.");
    client.is("GET a", "nil");
    client.is("MULTI", "OK");
    client.fails("SUBSCRIBE c", "ERR Command not allowed inside a transaction");
    client.fails("EXEC", "EXECABORT");
}

#[test]
fn a_watched_key_that_changes_discards_the_transaction() {
    let served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    for (change, expected) in [
        ("SET k 1", "OK"),
        ("HSET h f 2", "(1)"),
        ("HSET h f 3", "(0)"),
        ("EXPIRE k 100", "(1)"),
        ("DEL k", "(1)"),
        ("FLUSHALL", "OK"),
    ] {
        client.is("WATCH k h", "OK");
        other.is(change, expected);
        client.is("MULTI", "OK");
        client.is("SET done 1", "QUEUED");
        client.is("EXEC", "no array");
        client.is("EXISTS done", "(0)");
    }
    client.is("WATCH k", "OK");
    other.is("SET other 1", "OK");
    client.is("MULTI", "OK");
    client.is("PING", "QUEUED");
    client.is("EXEC", "[PONG]");
    client.is("WATCH k", "OK");
    other.is("SET k 1", "OK");
    client.is("UNWATCH", "OK");
    client.is("MULTI", "OK");
    client.is("EXEC", "[]");
}

#[test]
fn other_code_changes_watched_keys_too() {
    let served = Served::new();
    let mut client = served.client();
    client.is("WATCH k", "OK");
    served.db.put("k", "changed").unwrap();
    client.is("MULTI", "OK");
    client.is("SET k mine", "QUEUED");
    client.is("EXEC", "no array");
}

#[test]
fn transactions_are_serializable() {
    let served = Served::new();
    served.client().is("MSET a 0 b 0", "OK");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut client = served.client();
            scope.spawn(move || {
                for _ in 0..50 {
                    client.is("MULTI", "OK");
                    client.is("INCR a", "QUEUED");
                    client.is("INCR b", "QUEUED");
                    let reply = client.run("EXEC");
                    let (a, b) = reply.trim_matches(['[', ']']).split_once(' ').unwrap();
                    assert_eq!(a, b);
                }
            });
        }
        let mut reader = served.client();
        scope.spawn(move || {
            for _ in 0..100 {
                let reply = reader.run("MGET a b");
                let (a, b) = reply.trim_matches(['[', ']']).split_once(' ').unwrap();
                assert_eq!(a, b);
            }
        });
    });
    served.client().is("MGET a b", "['200' '200']");
}

#[test]
fn a_transaction_may_flush_and_go_on() {
    let served = Served::new();
    let mut client = served.client();
    client.is("SET old 1", "OK");
    client.is("MULTI", "OK");
    client.is("FLUSHALL", "QUEUED");
    client.is("SET new 1", "QUEUED");
    client.is("DBSIZE", "QUEUED");
    client.is("KEYS *", "QUEUED");
    client.is("EXEC", "[OK OK (1) ['new']]");
}

#[test]
fn a_transaction_may_select_a_database() {
    let served = Served::new();
    let mut client = served.client();
    client.is("MULTI", "OK");
    client.is("SET a 0", "QUEUED");
    client.is("SELECT 1", "QUEUED");
    client.is("SET a 1", "QUEUED");
    client.is("EXEC", "[OK OK OK]");
    client.is("GET a", "'1'");
    client.is("SELECT 0", "OK");
    client.is("GET a", "'0'");
}

#[test]
fn a_flush_in_a_transaction_waits_for_the_commit() {
    let served = Served::with(&Options::new().value_size_limit(1000), RespOptions::new());
    let mut client = served.client();
    client.is("SELECT 1", "OK");
    client.is("SET other 1", "OK");
    client.is("SELECT 0", "OK");
    client.is("HSET h f v", "(1)");
    client.is("MULTI", "OK");
    client.is("FLUSHALL", "QUEUED");
    client.is("SETRANGE large 1000 x", "QUEUED");
    let reply = client.run("EXEC");
    assert!(reply.starts_with("(error) ERR string exceeds maximum allowed size"), "{reply}");
    client.is("HGET h f", "'v'");
    // Its fields go with it.
    client.is("DEL h", "(1)");
    assert_eq!(served.db.prefix_keys("\0h").count(), 0);
    client.is("SELECT 1", "OK");
    client.is("GET other", "'1'");
    client.is("MULTI", "OK");
    client.is("FLUSHALL", "QUEUED");
    client.is("HSET h f v", "QUEUED");
    client.is("EXEC", "[OK (1)]");
    client.is("DEL h", "(1)");
    client.is("GET other", "nil");
    assert_eq!(served.db.len().unwrap(), 0);
}

/// A flush read all keys of its database, so that any write of another client made it run again.
#[test]
fn a_flush_in_a_transaction_is_made_while_others_write() {
    let served = Served::new();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let (mut client, is_over) = (served.client(), &is_over);
            scope.spawn(move || {
                for number in 0..100_000 {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    client.is(&format!("MSET {writer}:{number}:a 1 {writer}:{number}:b 1"), "OK");
                }
            });
        }
        let mut client = served.client();
        let replies: Vec<String> = (0..20)
            .map(|_| {
                client.is("MULTI", "OK");
                for command in ["FLUSHDB", "SET mark 1", "KEYS *", "DBSIZE"] {
                    client.is(command, "QUEUED");
                }
                client.run("EXEC")
            })
            .collect();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(replies, ["[OK OK ['mark'] (1)]"; 20]);
    });
    // Both keys of a pair were removed, or none.
    let snapshot = served.db.snapshot();
    for key in snapshot.keys() {
        let key = String::from_utf8(key.unwrap().to_vec()).unwrap();
        if let Some(pair) = key.strip_suffix(":a") {
            assert!(snapshot.contains_key(format!("{pair}:b")).unwrap(), "{key}");
        }
    }
    assert!(snapshot.contains_key("mark").unwrap());
}

#[test]
fn a_flush_in_a_transaction_is_no_news_of_each_key() {
    let served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    other.is("CONFIG SET notify-keyspace-events KEA", "OK");
    client.is("PSUBSCRIBE __keyevent@0__:*", "['psubscribe' '__keyevent@0__:*' (1)]");
    other.is("SET a 1", "OK");
    other.is("MULTI", "OK");
    other.is("SET b 1", "QUEUED");
    other.is("FLUSHDB", "QUEUED");
    other.is("SET c 1", "QUEUED");
    other.is("EXEC", "[OK OK OK]");
    // The program's own change of a key that was flushed.
    served.db.put("a", "2").unwrap();
    for (event, key) in [("set", "a"), ("set", "b"), ("set", "c"), ("set", "a")] {
        let told = format!("['pmessage' '__keyevent@0__:*' '__keyevent@0__:{event}' '{key}']");
        assert_eq!(client.read(), told);
    }
}

#[test]
fn a_watched_key_that_keeps_its_lifetime_is_unchanged() {
    let served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    client.is("SET k v", "OK");
    for (before, expected) in [("PING", "['v']"), ("EXPIRE k 100", "no array")] {
        other.run(before);
        client.is("WATCH k", "OK");
        other.is("GETEX k PERSIST", "'v'");
        client.is("MULTI", "OK");
        client.is("GET k", "QUEUED");
        client.is("EXEC", expected);
        client.is("TTL k", "(-1)");
    }
}
