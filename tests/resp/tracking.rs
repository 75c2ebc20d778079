//! `CLIENT TRACKING`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{Served, shown};

#[test]
fn a_client_is_told_when_a_key_changes_that_it_has_read() {
    let served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    client.run("HELLO 3");
    client.is("CLIENT TRACKING on", "OK");
    client.is("SET k 1", "OK");
    client.is("MGET k other", "['1' null]");
    other.is("SET k 2", "OK");
    assert_eq!(client.read(), ">['invalidate' ['k']]");
    // It has not read the key again.
    other.is("SET k 3", "OK");
    other.is("SET other 1", "OK");
    assert_eq!(client.read(), ">['invalidate' ['other']]");
    client.is("GET k", "'3'");
    served.db.put("k", "from the program").unwrap();
    assert_eq!(client.read(), ">['invalidate' ['k']]");
    client.is("GET k", "'from the program'");
    other.is("FLUSHALL", "OK");
    assert_eq!(client.read(), ">['invalidate' null]");
    client.is("CLIENT TRACKING off", "OK");
    client.is("GET k", "null");
    other.is("SET k 4", "OK");
    client.is("PING", "PONG");
}

#[test]
fn a_client_is_told_after_the_reply_to_its_own_command() {
    let served = Served::new();
    let mut client = served.client();
    client.run("HELLO 3");
    client.is("CLIENT TRACKING on", "OK");
    client.is("GET k", "null");
    client.is("SET k 1", "OK");
    assert_eq!(client.read(), ">['invalidate' ['k']]");
    client.is("CLIENT TRACKING on NOLOOP", "OK");
    client.is("CLIENT TRACKING off", "OK");
    client.is("CLIENT TRACKING on NOLOOP", "OK");
    client.is("GET k", "'1'");
    client.is("SET k 2", "OK");
    client.is("PING", "PONG");
}

#[test]
fn prefixes_are_told_of_each_change() {
    let served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    client.run("HELLO 3");
    client.is("CLIENT TRACKING on BCAST PREFIX a: PREFIX b:", "OK");
    client.fails("CLIENT TRACKING on BCAST PREFIX a:b", "ERR Prefix \\'a:b\\' overlaps");
    client.fails(
        "CLIENT TRACKING on BCAST PREFIX x PREFIX xy",
        "ERR Prefix \\'x\\' overlaps with another",
    );
    other.is("MSET a:1 x a:2 y c: z", "OK");
    assert_eq!(client.read(), ">['invalidate' ['a:1' 'a:2']]");
    other.is("SET c:1 x", "OK");
    other.is("SET b:1 x", "OK");
    assert_eq!(client.read(), ">['invalidate' ['b:1']]");
    let info = client.run("CLIENT TRACKINGINFO");
    assert_eq!(info, "{'flags': ~['on' 'bcast'], 'redirect': (0), 'prefixes': ['a:' 'b:']}");
}

#[test]
fn another_client_can_be_told_instead() {
    let served = Served::new();
    let (mut client, mut told, mut other) = (served.client(), served.client(), served.client());
    let id = told.run("CLIENT ID").trim_matches(['(', ')']).to_owned();
    told.is("SUBSCRIBE __redis__:invalidate", "['subscribe' '__redis__:invalidate' (1)]");
    client.is(&format!("CLIENT TRACKING on REDIRECT {id}"), "OK");
    client.is("CLIENT GETREDIR", &format!("({id})"));
    client.is("GET k", "nil");
    other.is("SET k 1", "OK");
    assert_eq!(told.read(), "['message' '__redis__:invalidate' ['k']]");
    client.fails("CLIENT TRACKING on REDIRECT 12345", "ERR The client ID you want redirect to");
}

#[test]
fn a_client_chooses_what_it_caches() {
    let served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    client.run("HELLO 3");
    client.fails("CLIENT CACHING YES", "ERR CLIENT CACHING can be called only when");
    client.is("CLIENT TRACKING on OPTIN", "OK");
    client.is("GET a", "null");
    client.is("CLIENT CACHING YES", "OK");
    client.is("GET b", "null");
    other.is("MSET a 1 b 1", "OK");
    assert_eq!(client.read(), ">['invalidate' ['b']]");
    client.is("CLIENT TRACKING off", "OK");
    client.is("CLIENT TRACKING on OPTOUT", "OK");
    client.is("CLIENT CACHING NO", "OK");
    client.is("GET a", "'1'");
    client.is("CLIENT CACHING NO", "OK");
    client.is("PING", "PONG");
    client.is("GET b", "'1'");
    other.is("MSET a 2 b 2", "OK");
    assert_eq!(client.read(), ">['invalidate' ['b']]");
    client.is("PING", "PONG");
}

#[test]
fn a_key_that_is_no_longer_remembered_is_told_as_changed() {
    let served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    client.run("HELLO 3");
    client.is("CLIENT TRACKING on", "OK");
    client.is("MGET a b", "[null null]");
    other.is("CONFIG SET tracking-table-max-keys 1", "OK");
    let told = client.read();
    assert!(["a", "b"].iter().any(|key| told == format!(">['invalidate' ['{key}']]")), "{told}");
    assert!(other.run("INFO stats").contains("tracking_total_keys:1"));
}

#[test]
fn a_client_that_has_quit_is_gone_before_it_reads_the_reply() {
    let served = Served::new();
    let (mut client, mut told, mut other) = (served.client(), served.client(), served.client());
    client.run("HELLO 3");
    let id = told.run("CLIENT ID").trim_matches(['(', ')']).to_owned();
    told.is("SUBSCRIBE __redis__:invalidate", "['subscribe' '__redis__:invalidate' (1)]");
    client.is(&format!("CLIENT TRACKING on REDIRECT {id}"), "OK");
    client.is("GET k", "null");
    told.is("QUIT", "OK");
    other.is("PUBLISH __redis__:invalidate x", "(0)");
    other.is("SET k 1", "OK");
    assert_eq!(client.read(), format!(">['tracking-redir-broken' ({id})]"));
}

#[test]
fn keys_count_once_for_each_client_that_has_them() {
    let served = Served::new();
    let (mut first, mut second) = (served.client(), served.client());
    for client in [&mut first, &mut second] {
        client.run("HELLO 3");
        client.is("CLIENT TRACKING on", "OK");
        client.is("GET k", "null");
    }
    let info = first.run("INFO stats");
    assert!(info.contains("tracking_total_keys:1"), "{info}");
    assert!(info.contains("tracking_total_items:2"), "{info}");
}

#[test]
fn a_client_is_told_once_and_after_the_reply_that_all_keys_are_gone() {
    let served = Served::new();
    let mut client = served.client();
    client.run("HELLO 3");
    client.is("CLIENT TRACKING on", "OK");
    for in_transaction in [false, true] {
        client.is("SET k 1", "OK");
        client.is("GET k", "'1'");
        if in_transaction {
            client.is("MULTI", "OK");
            client.is("FLUSHDB", "QUEUED");
            client.is("EXEC", "[OK]");
        } else {
            client.is("FLUSHDB", "OK");
        }
        assert_eq!(client.read(), ">['invalidate' null]");
        client.is("PING", "PONG");
    }
}

#[test]
fn a_client_is_told_when_others_clear_the_store() {
    let served = Served::new();
    let mut client = served.client();
    client.run("HELLO 3");
    client.is("CLIENT TRACKING on", "OK");
    for _ in 0..20 {
        // Changes that a clear removes leave nothing behind that hides later ones.
        client.is("SET k 1", "OK");
        client.is("FLUSHALL", "OK");
        assert_eq!(client.read(), ">['invalidate' null]");
        client.is("SET k 2", "OK");
        client.is("GET k", "'2'");
        served.db.put("k", "3").unwrap();
        assert_eq!(client.read(), ">['invalidate' ['k']]");
        client.is("GET k", "'3'");
        served.db.clear().unwrap();
        assert_eq!(client.read(), ">['invalidate' null]");
        client.is("GET k", "null");
        served.db.put("k", "4").unwrap();
        assert_eq!(client.read(), ">['invalidate' ['k']]");
    }
}

#[test]
fn a_copy_to_another_database_is_told_to_those_that_have_the_key() {
    let served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    client.run("HELLO 3");
    client.is("SELECT 1", "OK");
    client.is("CLIENT TRACKING on", "OK");
    other.is("SET a new", "OK");
    for in_transaction in [false, true] {
        client.run("GET b");
        if in_transaction {
            other.is("MULTI", "OK");
            other.is("COPY a b DB 1 REPLACE", "QUEUED");
            other.is("EXEC", "[(1)]");
        } else {
            other.is("COPY a b DB 1 REPLACE", "(1)");
        }
        assert_eq!(client.read(), ">['invalidate' ['b']]");
    }
    other.is("CONFIG SET notify-keyspace-events KEA", "OK");
    client.is("PSUBSCRIBE __keyspace*", ">['psubscribe' '__keyspace*' (1)]");
    other.is("COPY a c DB 1", "(1)");
    let told = client.read();
    assert_eq!(told, ">['pmessage' '__keyspace*' '__keyspace@1__:c' 'copy_to']");
}

#[test]
fn a_change_after_a_key_that_came_and_went_is_told() {
    let served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    client.run("HELLO 3");
    client.is("CLIENT TRACKING on", "OK");
    for number in 0..20 {
        client.is("GET k", "null");
        other.is("MULTI", "OK");
        other.is("SET k 1", "QUEUED");
        other.is("DEL k", "QUEUED");
        other.is("EXEC", "[OK (1)]");
        assert_eq!(client.read(), ">['invalidate' ['k']]");
        client.is("GET k", "null");
        served.db.put("k", format!("{number}")).unwrap();
        assert_eq!(client.read(), ">['invalidate' ['k']]");
        served.db.delete("k").unwrap();
    }
}

#[test]
fn a_client_is_told_of_changes_after_any_number_of_clears() {
    let served = Served::new();
    let mut client = served.client();
    client.run("HELLO 3");
    client.is("CLIENT TRACKING on BCAST", "OK");
    for _ in 0..300 {
        served.db.clear().unwrap();
    }
    let is_told = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_told.load(Ordering::Relaxed) {
                served.db.put("k", "v").unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        while let Some(frame) = client.try_read() {
            if shown(&frame) == ">['invalidate' ['k']]" {
                break;
            }
        }
        is_told.store(true, Ordering::Relaxed);
    });
}
