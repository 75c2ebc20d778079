//! The change feed: server-sent events that resume where they ended.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::collections::VecDeque;

use bitcask::server::ServerOptions;
use serde_json::{Value, json};

use crate::support::{Client, Running, small};

/// An event.
#[derive(Debug)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

/// A connection on which events arrive.
struct Feed {
    client: Client,
    /// What has arrived, and belongs to lines that were not returned yet.
    arrived: VecDeque<u8>,
    /// Size of the largest chunk, in bytes.
    chunk_size: usize,
}

impl Feed {
    fn new(server: &Running, target: &str, headers: &[(&str, &str)]) -> Self {
        let mut client = server.client();
        client.begin("GET", target, headers, 0);
        let head = client.head().has(200);
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        Self { client, arrived: VecDeque::new(), chunk_size: 0 }
    }

    /// Returns the next line, or `None` at the end of the stream.
    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        loop {
            while let Some(byte) = self.arrived.pop_front() {
                if byte == b'\n' {
                    return Some(String::from_utf8(line).unwrap());
                }
                line.push(byte);
            }
            let size = usize::from_str_radix(&self.client.line(), 16).unwrap();
            if size == 0 {
                assert!(line.is_empty());
                return None;
            }
            self.arrived.extend(self.client.rest(size));
            self.chunk_size = self.chunk_size.max(size);
            assert_eq!(self.client.line(), "");
        }
    }

    /// Returns the next event, or `None` at the end of the stream.
    fn event(&mut self) -> Option<Event> {
        let mut event = Event { name: String::new(), id: String::new(), data: Value::Null };
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                Some(("event", name)) => name.clone_into(&mut event.name),
                Some(("id", id)) => id.clone_into(&mut event.id),
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                _ if line.is_empty() && !event.name.is_empty() => return Some(event),
                _ => {}
            }
        }
    }

    /// Returns the next event that is a change.
    fn change(&mut self) -> Event {
        loop {
            let event = self.event().unwrap();
            if event.name != "position" {
                return event;
            }
        }
    }
}

#[test]
fn changes_arrive_in_order_and_resume_where_they_ended() {
    let server = Running::new();
    server.put("a", "1");
    server.put("b", "two");
    server.send("DELETE", "/v1/keys/a", &[], b"").has(204);
    let mut feed = Feed::new(&server, "/v1/changes?since=start", &[]);
    let begin = feed.event().unwrap();
    assert_eq!(begin.name, "position");
    let (first, second) = (feed.change(), feed.change());
    assert_eq!((first.name.as_str(), &first.data["key"]), ("put", &json!("a")));
    assert_eq!(second.data["value"], "two");
    let third = feed.change();
    assert_eq!((third.name.as_str(), &third.data["key"]), ("delete", &json!("a")));
    assert!(third.data.get("value").is_none());
    // A change that is made while the follower waits.
    server.send("PUT", "/v1/keys/%ff", &[("x-bitcask-ttl", "60")], b"\xfe").has(204);
    let fourth = feed.change();
    let bytes = (&fourth.data["key_base64"], &fourth.data["value_base64"]);
    assert_eq!(bytes, (&json!("/w=="), &json!("/g==")));
    assert!(fourth.data["expires_at"].as_str().unwrap().ends_with('Z'));
    // The id comes before the parameter, as a browser resumes.
    let resumed = [("last-event-id", second.id.as_str())];
    let mut again = Feed::new(&server, "/v1/changes?since=start", &resumed);
    assert_eq!(again.change().id, third.id);
    let mut again = Feed::new(&server, &format!("/v1/changes?since={}", begin.id), &[]);
    assert_eq!(again.change().id, first.id);
}

#[test]
fn a_follower_sees_its_prefix_from_now_on() {
    let server = Running::new();
    server.put("user%2F1", "before");
    let mut feed = Feed::new(&server, "/v1/changes?prefix=user/&durable", &[]);
    server.put("order%2F1", "other");
    let batch = r#"{"operations":[{"op":"put","key":"user/2","value":"a"},
        {"op":"put","key":"user/3","value":"b"}],"durable":true}"#;
    server.json("POST", "/v1/batch", batch).has(200);
    let (first, second) = (feed.change(), feed.change());
    assert_eq!(
        (&first.data["key"], &first.data["batch_continues"]),
        (&json!("user/2"), &json!(true))
    );
    assert_eq!((&second.data["key"], second.data.get("batch_continues")), (&json!("user/3"), None));
}

/// A clear deletes the server's own key with all others, wherever that comes in the batch.
#[test]
fn a_batch_ends_although_the_servers_own_key_comes_last() {
    let server = Running::filled(small(), ServerOptions::new(), |db| {
        let promoted = format!("promoted {}", db.position());
        db.put("\0follow", &promoted).unwrap();
        db.put("a", "1").unwrap();
        db.transaction(|tx| {
            tx.clear();
            tx.put("a", "2");
            Ok(())
        })
        .unwrap();
        db.delete("a").unwrap();
        db.put("\0follow", &promoted).unwrap();
        db.put("\0\0", "3").unwrap();
        db.transaction(|tx| {
            tx.clear();
            Ok(())
        })
        .unwrap();
    });
    let mut feed = Feed::new(&server, "/v1/changes?since=start", &[]);
    let expected =
        [("put", "a"), ("put", "a"), ("delete", "a"), ("put", "\0\0"), ("delete", "\0\0")];
    for (name, key) in expected {
        let change = feed.change();
        assert_eq!((change.name.as_str(), &change.data["key"]), (name, &json!(key)));
        assert_eq!(change.data.get("batch_continues"), None, "{name} {key:?}");
    }
}

#[test]
fn a_position_that_makes_no_sense_is_refused() {
    let server = Running::new();
    for since in ["x", "%ff", "0000000000000001-0000000000000001"] {
        let refused = server.get(&format!("/v1/changes?since={since}"));
        assert!([400, 410].contains(&refused.status), "{since}: {}", refused.status);
    }
}

#[test]
fn a_follower_whose_changes_are_gone_is_told() {
    let server = Running::new();
    server.put("k", "first");
    let begin = Feed::new(&server, "/v1/changes?since=start", &[]).change().id;
    for _ in 0..3 {
        server.put("k", vec![b'x'; 700_000]);
    }
    // Segments are sealed in the background, and a merge takes those that are.
    let gone = loop {
        server.json("POST", "/v1/merge", r#"{"force":true}"#).has(200);
        let mut client = server.client();
        client.begin("GET", &format!("/v1/changes?since={begin}"), &[], 0);
        if client.head().status == 410 {
            break server.get(&format!("/v1/changes?since={begin}")).has(410).value();
        }
    };
    assert_eq!(gone["code"], "history_gone");
}

#[test]
fn a_stream_ends_when_the_server_stops() {
    let server = Running::new();
    let mut feed = Feed::new(&server, "/v1/changes", &[]);
    assert_eq!(feed.event().unwrap().name, "position");
    server.tell_to_stop();
    while feed.event().is_some() {}
    let (_dir, db) = server.ended();
    assert!(db.is_empty().unwrap());
}

#[test]
fn a_value_that_is_too_large_for_an_event_is_announced() {
    let options = ServerOptions::new().body_size_limit(1000);
    let server = Running::filled(small(), options, |db| {
        db.put("fits", vec![b'x'; 1000]).unwrap();
        db.put("large", vec![b'x'; 1001]).unwrap();
    });
    let mut feed = Feed::new(&server, "/v1/changes?since=start", &[]);
    assert_eq!(feed.change().data["value"].as_str().unwrap().len(), 1000);
    let large = feed.change();
    assert_eq!((&large.data["value_size"], large.data.get("value")), (&json!(1001), None));
    assert_eq!(server.get("/v1/keys/large").body.len(), 1001);
}

#[test]
fn a_large_value_is_sent_piece_by_piece() {
    let store = small().segment_size(16 << 20);
    let values = [vec![1; 1 << 20], vec![0xff; 1 << 20]];
    let server = Running::filled(store, ServerOptions::new(), |db| {
        for value in &values {
            db.put("k", value).unwrap();
        }
    });
    let mut feed = Feed::new(&server, "/v1/changes?since=start", &[]);
    // Six times as large in JSON.
    assert_eq!(feed.change().data["value"].as_str().unwrap().as_bytes(), values[0]);
    let base64 = feed.change().data["value_base64"].as_str().unwrap().to_owned();
    assert_eq!(base64.len(), (1_usize << 20).div_ceil(3) * 4);
    assert!(feed.chunk_size <= 128 << 10, "{}", feed.chunk_size);
}

#[test]
fn a_follower_gets_what_lies_behind_many_changes_of_others() {
    let server = Running::filled(small(), ServerOptions::new(), |db| {
        for number in 0..20 {
            db.put(format!("other/{number}"), vec![b'x'; 900_000]).unwrap();
        }
        db.put("user/1", "found").unwrap();
    });
    let mut feed = Feed::new(&server, "/v1/changes?since=start&prefix=user/", &[]);
    assert_eq!(feed.change().data["key"], "user/1");
    server.put("user%2F2", "later");
    assert_eq!(feed.change().data["value"], "later");
}

/// A value that is compressed takes memory of its own once it is read.
#[cfg(feature = "lz4")]
#[test]
fn a_large_change_waits_for_memory() {
    let size = 12 << 20;
    let options = ServerOptions::new().body_memory_limit(16 << 20).body_size_limit(16 << 20);
    let store = small().segment_size(64 << 20).compression(bitcask::Compression::lz4());
    let server = Running::filled(store, options, |db| {
        db.put("small", "value").unwrap();
        // More than the sockets of a connection hold.
        db.put("large", vec![b'x'; size]).unwrap();
    });
    let mut slow = server.client();
    slow.begin("GET", "/v1/keys/large", &[], 0);
    slow.head().has(200);
    let mut feed = Feed::new(&server, "/v1/changes?since=start", &[]);
    assert_eq!(feed.change().data["key"], "small");
    assert!(feed.arrived.is_empty());
    slow.rest(size);
    drop(slow);
    assert_eq!(feed.change().data["value"].as_str().unwrap().len(), size);
}
