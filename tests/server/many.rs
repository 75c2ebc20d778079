//! Many clients at once.

use bitcask::server::ServerOptions;
use bitcask::{Options, SyncPolicy};
use serde_json::json;

use crate::support::{Running, small};

#[test]
fn many_clients_see_what_they_have_written() {
    let server = Running::new();
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.client();
                for number in 0..100 {
                    let target = format!("/v1/keys/{thread}-{number}");
                    let value = format!("value {thread} {number}");
                    client.send("PUT", &target, &[], value.as_bytes()).has(204);
                    assert_eq!(client.send("GET", &target, &[], b"").has(200).text(), value);
                }
            });
        }
    });
    let (_dir, db) = server.stopped();
    assert_eq!(db.len().unwrap(), 1600);
    assert!(db.verify().unwrap().is_clean());
}

#[test]
fn one_of_many_clients_wins_a_compare_and_swap() {
    let server = Running::new();
    server.put("k", "0");
    // Each client adds one, again and again, if the value is still the one that it has read.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let (mut client, mut done) = (server.client(), 0);
                while done < 20 {
                    let read = client.send("GET", "/v1/keys/k", &[], b"");
                    let next = read.text().parse::<u64>().unwrap() + 1;
                    let tag = [("if-match", read.header("etag").unwrap())];
                    let put = client.send("PUT", "/v1/keys/k", &tag, next.to_string().as_bytes());
                    done += u32::from(put.status == 204);
                }
            });
        }
    });
    assert_eq!(server.get("/v1/keys/k").text(), "160");
}

#[test]
fn durable_writes_of_many_clients_share_syncs() {
    let store: Options = small().sync_policy(SyncPolicy::Always);
    let server = Running::of(store, ServerOptions::new());
    std::thread::scope(|scope| {
        for thread in 0..32 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.client();
                for number in 0..20 {
                    let target = format!("/v1/keys/{thread}-{number}");
                    client.send("PUT", &target, &[], b"value").has(204);
                }
            });
        }
    });
    let done = server.get("/v1/stats").has(200).value()["done"].clone();
    assert_eq!(done["puts"], json!(640));
    // How many writes share a sync depends on the disk, but a sync never covers none.
    assert!(done["syncs"].as_u64().unwrap() <= 640, "{done}");
}
