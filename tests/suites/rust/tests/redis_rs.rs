//! What applications use of the crate `redis`.

use std::collections::{BTreeMap, BTreeSet};

use redis::{AsyncCommands, Client, Commands, Connection, Expiry, SetExpiry, SetOptions};

/// Connects to a database, and empties it.
fn connect(database: u8, protocol: &str) -> (Client, Connection) {
    let url = format!("redis://127.0.0.1:{}/{database}{protocol}", suites::port());
    let client = Client::open(url).unwrap();
    let mut connection = client.get_connection().unwrap();
    redis::cmd("FLUSHDB").exec(&mut connection).unwrap();
    (client, connection)
}

#[test]
fn strings_hashes_and_expiry_in_both_protocols() {
    for (database, protocol) in [(3, ""), (4, "?protocol=resp3")] {
        let (_, mut redis) = connect(database, protocol);
        let options = SetOptions::default().with_expiration(SetExpiry::EX(100));
        let _: () = redis.set_options("k", "v", options).unwrap();
        let value: String = redis.get("k").unwrap();
        let ttl: i64 = redis.ttl("k").unwrap();
        assert_eq!(value, "v");
        assert!((1..=100).contains(&ttl), "{ttl}");
        let kept: String = redis.get_ex("k", Expiry::PERSIST).unwrap();
        assert_eq!(kept, "v");
        let number: i64 = redis.incr("n", 7).unwrap();
        assert_eq!(number, 7);
        let bytes = [0_u8, 255, 13, 10];
        let _: () = redis.set("bytes", &bytes[..]).unwrap();
        let stored: Vec<u8> = redis.get("bytes").unwrap();
        assert_eq!(stored, bytes);
        let _: () = redis.hset_multiple("h", &[("a", 1), ("b", 2)]).unwrap();
        let all: BTreeMap<String, i64> = redis.hgetall("h").unwrap();
        assert_eq!(all, BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]));
        let missing: Option<String> = redis.get("none").unwrap();
        assert_eq!(missing, None);
    }
}

#[test]
fn pipelines_and_transactions_that_watch() {
    let (client, mut redis) = connect(5, "");
    let mut pipeline = redis::pipe();
    for number in 0..1000 {
        pipeline.set(format!("k{number}"), number).ignore();
    }
    let () = pipeline.query(&mut redis).unwrap();
    let mut other = client.get_connection().unwrap();
    let mut attempts = 0;
    let (sum,): (i64,) = redis::transaction(&mut redis, &["k1"], |redis, pipeline| {
        let old: i64 = redis.get("k1")?;
        attempts += 1;
        if attempts == 1 {
            let _: () = other.set("k1", 100)?;
        }
        pipeline.set("k1", old + 1).ignore().get("k1").query(redis)
    })
    .unwrap();
    assert_eq!((sum, attempts), (101, 2));
}

#[test]
fn a_scan_finds_each_key() {
    let (_, mut redis) = connect(6, "?protocol=resp3");
    for number in 0..300 {
        let _: () = redis.set(format!("scan:{number}"), number).unwrap();
    }
    let found = redis.scan_match::<_, String>("scan:*").unwrap();
    let found: BTreeSet<String> = found.map(|key| key.unwrap()).collect();
    assert_eq!(found.len(), 300);
}

#[test]
fn messages_arrive() {
    let (client, mut redis) = connect(7, "");
    let mut subscriber = client.get_connection().unwrap();
    let mut channels = subscriber.as_pubsub();
    channels.subscribe("redis-rs").unwrap();
    channels.psubscribe("redis-r*").unwrap();
    let receivers: i64 = redis.publish("redis-rs", "hello").unwrap();
    assert_eq!(receivers, 2);
    for _ in 0..2 {
        let message = channels.get_message().unwrap();
        assert_eq!(message.get_payload::<String>().unwrap(), "hello");
    }
}

#[tokio::test]
async fn many_tasks_share_a_connection() {
    let (client, _) = connect(8, "?protocol=resp3");
    let redis = client.get_multiplexed_async_connection().await.unwrap();
    let tasks = (0..100).map(|_| {
        let mut redis = redis.clone();
        tokio::spawn(async move { redis.incr::<_, _, i64>("n", 1).await.unwrap() })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut seen = BTreeSet::new();
    for task in tasks {
        seen.insert(task.await.unwrap());
    }
    assert_eq!(seen, (1..=100).collect());
}

#[test]
fn a_command_that_is_not_there_leaves_the_connection_alone() {
    let (_, mut redis) = connect(9, "");
    let refused = redis.lpush::<_, _, i64>("list", 1).unwrap_err();
    assert!(refused.to_string().contains("has no lists"), "{refused}");
    let pong: String = redis::cmd("PING").query(&mut redis).unwrap();
    assert_eq!(pong, "PONG");
}
