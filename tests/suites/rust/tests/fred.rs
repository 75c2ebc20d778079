//! What applications use of the crate `fred`.

use std::collections::{BTreeMap, BTreeSet};

use fred::interfaces::TrackingInterface;
use fred::prelude::*;
use fred::types::RespVersion;
use fred::types::config::ServerConfig;
use futures::TryStreamExt as _;

/// Connects to a database, and empties it.
async fn connect(database: u8, version: RespVersion) -> Client {
    let mut config = Config { version, database: Some(database), ..Config::default() };
    config.server = ServerConfig::new_centralized("127.0.0.1", suites::port());
    let client = Builder::from_config(config).build().unwrap();
    client.init().await.unwrap();
    let () = client.custom(fred::cmd!("FLUSHDB"), Vec::<String>::new()).await.unwrap();
    client
}

#[tokio::test]
async fn strings_hashes_and_expiry_in_both_protocols() {
    for (database, version) in [(10, RespVersion::RESP2), (11, RespVersion::RESP3)] {
        let client = connect(database, version).await;
        let () = client.set("k", "v", Some(Expiration::EX(100)), None, false).await.unwrap();
        let (value, ttl): (String, i64) =
            (client.get("k").await.unwrap(), client.ttl("k").await.unwrap());
        assert_eq!((value.as_str(), ttl), ("v", 100));
        let old: Option<String> =
            client.set("k", "w", None, Some(SetOptions::NX), true).await.unwrap();
        assert_eq!(old.unwrap(), "v");
        let () = client.hset("h", [("a", 1), ("b", 2)]).await.unwrap();
        let all: BTreeMap<String, i64> = client.hgetall("h").await.unwrap();
        assert_eq!(all, BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]));
        client.quit().await.unwrap();
    }
}

#[tokio::test]
async fn pipelines_and_transactions() {
    let client = connect(12, RespVersion::RESP3).await;
    let pipeline = client.pipeline();
    for number in 0..500 {
        let () = pipeline.set(format!("k{number}"), number, None, None, false).await.unwrap();
        let () = pipeline.incr(format!("k{number}")).await.unwrap();
    }
    let replies: Vec<Value> = pipeline.all().await.unwrap();
    assert_eq!(replies.len(), 1000);
    let transaction = client.multi();
    let () = transaction.incr("k1").await.unwrap();
    let () = transaction.get("k2").await.unwrap();
    let replies: (i64, i64) = transaction.exec(true).await.unwrap();
    assert_eq!(replies, (3, 3));
    let found: BTreeSet<String> = client
        .scan_buffered("k*", Some(50), None)
        .map_ok(|key| key.as_str_lossy().into_owned())
        .try_collect()
        .await
        .unwrap();
    assert_eq!(found.len(), 500);
}

#[tokio::test]
async fn messages_arrive() {
    let client = connect(13, RespVersion::RESP3).await;
    let subscriber = client.clone_new();
    subscriber.init().await.unwrap();
    let mut messages = subscriber.message_rx();
    let () = subscriber.subscribe("fred").await.unwrap();
    let receivers: i64 = client.publish("fred", "hello").await.unwrap();
    assert_eq!(receivers, 1);
    let message = messages.recv().await.unwrap();
    assert_eq!(message.value.as_str().unwrap(), "hello");
}

#[tokio::test]
async fn caches_learn_of_changes() {
    let client = connect(14, RespVersion::RESP3).await;
    let other = client.clone_new();
    other.init().await.unwrap();
    let mut told = client.invalidation_rx();
    client.start_tracking(None, false, false, false, false).await.unwrap();
    let _: Option<String> = client.get("k").await.unwrap();
    let () = other.set("k", "2", None, None, false).await.unwrap();
    let told = told.recv().await.unwrap();
    assert_eq!(told.keys[0].as_str_lossy(), "k");
}

#[tokio::test]
async fn a_command_that_is_not_there_leaves_the_connection_alone() {
    let client = connect(15, RespVersion::RESP3).await;
    let refused = client.custom::<Value, _>(fred::cmd!("LPUSH"), vec!["list", "a"]).await;
    assert!(refused.unwrap_err().to_string().contains("has no lists"));
    let pong: String = client.ping(None).await.unwrap();
    assert_eq!(pong, "PONG");
}
