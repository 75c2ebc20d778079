//! The change feed, on a real server and over connections that break.

#![expect(clippy::unwrap_used, reason = "a test whose setup fails has failed")]

use bitcask::client::{Client, ClientError};
use bitcask::server::ServerOptions;
use bitcask::{Batch, Change, Operation, Position};

use crate::fake::{Fake, Reply};
use crate::support::{Running, prompt};

/// Waits for the next change, however long that takes.
fn next(changes: &mut bitcask::client::RemoteChanges) -> Change {
    loop {
        if let Some(change) = changes.recv().unwrap() {
            return change;
        }
    }
}

#[test]
fn changes_are_those_of_the_store() {
    let server = Running::new();
    let client = server.client();
    let hour = bitcask::WriteOptions::new().ttl(std::time::Duration::from_secs(3600));
    client.put_opt("a", b"\xff", hour).unwrap();
    client.write(Batch::new().put("b/1", "1").put("b/2", "2").delete("a")).unwrap();
    let mut own = server.db.changes(Position::START).unwrap();
    let mut remote = client.changes(Position::START);
    let mut middle = None;
    for _ in 0..4 {
        let expected = own.recv().unwrap().unwrap();
        assert_eq!(next(&mut remote), expected);
        assert_eq!(remote.resume_position(), expected.position);
        middle.get_or_insert(expected.position);
    }
    let mut resumed = client.changes(middle.unwrap()).prefix("b/").durable();
    server.db.sync().unwrap();
    assert_eq!(next(&mut resumed).key, "b/1");
    assert_eq!(next(&mut resumed).key, "b/2");
}

#[test]
fn a_watch_begins_now() {
    let server = Running::new();
    let client = server.client();
    client.put("w/before", "").unwrap();
    let mut changes = client.watch_prefix("w/").unwrap();
    assert_eq!(changes.resume_position(), server.db.position());
    client.put("other", "").unwrap();
    client.put("w/after", "v").unwrap();
    let change = next(&mut changes);
    assert_eq!(change.key, "w/after");
    let value = b"v".to_vec().into();
    assert_eq!(change.operation, Operation::Put { value, expires_at: None });
}

#[test]
fn a_value_that_is_left_out_is_an_error_after_which_the_feed_continues() {
    let server = Running::with(ServerOptions::new().body_size_limit(1000));
    server.db.put("large", vec![0; 2000]).unwrap();
    server.db.put("small", "v").unwrap();
    let mut changes = server.client().changes(Position::START);
    let error = changes.recv().unwrap_err();
    let ClientError::ValueLeftOut { key, size, .. } = error else { panic!("{error:?}") };
    assert_eq!((key, size), ("large".as_bytes().to_vec().into(), 2000));
    assert_eq!(next(&mut changes).key, "small");
}

#[test]
fn a_value_of_control_characters_arrives_like_any_other() {
    let server = Running::new();
    // As text in JSON, it would take six times as much.
    let value = vec![0; 2 << 20];
    server.db.put("k", &value).unwrap();
    let client = Client::new(prompt(&server.url).answer_size_limit(4 << 20)).unwrap();
    let Operation::Put { value: fed, .. } = next(&mut client.changes(Position::START)).operation
    else {
        panic!("it was put")
    };
    assert!(fed == value);
    let pairs: Vec<_> = client.iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(pairs, [(b"k".to_vec().into(), value.into())]);
}

#[test]
fn a_change_that_is_too_large_for_the_client_is_an_error_after_which_the_feed_continues() {
    let server = Running::new();
    let client = Client::new(prompt(&server.url).answer_size_limit(10_000)).unwrap();
    server.db.put("large", vec![b'x'; 20_000]).unwrap();
    server.db.put("small", "v").unwrap();
    let mut changes = client.changes(Position::START);
    let error = changes.recv().unwrap_err();
    assert!(matches!(error, ClientError::AnswerTooLarge { limit: 10_000, .. }), "{error:?}");
    assert_ne!(changes.resume_position(), Position::START);
    assert_eq!(next(&mut changes).key, "small");
    assert_eq!(changes.resume_position(), server.db.position());
}

#[test]
fn history_that_is_gone_is_an_error_of_its_own() {
    let server = Running::new();
    let client = server.client();
    client.put("k", "old").unwrap();
    let position = server.db.position();
    for round in 0..10_u8 {
        client.put("k", [round]).unwrap();
    }
    server.db.merge_opt(bitcask::MergeOptions::new().force(true)).unwrap();
    let error = client.changes(position).recv().unwrap_err();
    assert!(error.is_history_gone(), "{error:?}");
}

/// Returns the beginning of a stream, with an event for each of these changes.
fn stream(changes: &[(u64, &str)], end: &str) -> Reply {
    let id = |number: u64| format!("{:016x}-{number:016x}", 1);
    let mut text = "HTTP/1.1 200 OK\r\nrequest-id: fake\r\ncontent-type: text/event-stream\r\n\r\n\
                    : alive\n\n"
        .to_owned();
    text.push_str(&["event: position\nid: ", &id(1), "\ndata: {}\n\n"].concat());
    for (number, key) in changes {
        let time = "2026-11-28T12:00:00.000001Z";
        let data = format!(r#"{{"key":"{key}","value":"v","timestamp":"{time}"}}"#);
        text.push_str(&["event: put\nid: ", &id(*number), "\ndata: ", &data, "\n\n"].concat());
    }
    Reply::Bytes((text + end).into_bytes())
}

#[test]
fn a_feed_that_breaks_continues_behind_the_last_change() {
    let half = "event: put\nid: 0000000000000001-0000000000000003\ndata: {\"key\":";
    let fake = Fake::new([
        stream(&[(2, "a")], ""),
        Reply::Drop,
        stream(&[(3, "b")], half),
        stream(&[(4, "c")], "event: put\nid: 0000000000000001-0000000000000009\n"),
        stream(&[], ""),
    ]);
    let client = Client::new(prompt(&fake.url)).unwrap();
    let mut changes = client.changes(Position::START);
    for key in ["a", "b", "c"] {
        assert_eq!(next(&mut changes).key, key);
    }
    // A server that says nothing more is asked a few times.
    let error = changes.recv().unwrap_err();
    assert!(matches!(error, ClientError::Connection { .. }), "{error:?}");
    let ids = fake.headers("last-event-id");
    let shown = |number| Some(format!("{:016x}-{number:016x}", 1));
    let begun: Vec<_> = ids.into_iter().take(5).collect();
    assert_eq!(begun, [Some("start".into()), shown(2), shown(2), shown(3), shown(4)]);
}

#[test]
fn an_event_that_is_not_understood_is_an_error() {
    let end = "event: put\nid: x\ndata: {}\n\n";
    let other = "event: put\nid: 0000000000000001-0000000000000003\ndata: {}\n\n";
    let last = "event: error\ndata: {\"detail\":\"it is gone\",\"code\":\"history_gone\"}\n\n";
    for end in [end, other] {
        let fake = Fake::new([stream(&[], end)]);
        let client = Client::new(prompt(&fake.url)).unwrap();
        let error = client.changes(Position::START).recv().unwrap_err();
        assert!(matches!(error, ClientError::InvalidAnswer { .. }), "{error:?}");
    }
    let fake = Fake::new([stream(&[], last)]);
    let client = Client::new(prompt(&fake.url)).unwrap();
    let error = client.changes(Position::START).recv().unwrap_err();
    assert!(error.is_history_gone() && error.to_string().contains("it is gone"), "{error}");
}
