//! How a server ends.

use crate::support::{Served, encoded};

#[test]
fn what_has_arrived_is_answered() {
    let mut served = Served::new();
    let mut client = served.client();
    client.is("PING", "PONG");
    client.send_raw(&encoded(&[b"INCR", b"n"]).repeat(1000));
    // At least these have arrived now.
    for number in 1..=10 {
        assert_eq!(client.read(), format!("({number})"));
    }
    served.end();
    let mut last = 10;
    while let Some(frame) = client.try_read() {
        last += 1;
        assert_eq!(crate::support::shown(&frame), format!("({last})"));
    }
    let stored = served.db.get("n").unwrap().unwrap();
    assert_eq!(stored, last.to_string().as_str());
}

#[test]
fn shutdown_ends_the_server() {
    let mut served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    other.is("PING", "PONG");
    client.send(&[b"SHUTDOWN"]);
    client.is_over();
    other.is_over();
    served.wait();
    assert!(served.stop.is_stopped());
}

#[test]
fn followers_end_with_the_server() {
    let mut served = Served::new();
    let mut client = served.client();
    client.is("CONFIG SET notify-keyspace-events KEA", "OK");
    client.is("SET a 1", "OK");
    served.end();
}

#[test]
fn a_client_that_sleeps_does_not_keep_the_server() {
    let mut served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    client.send_raw(
        &[encoded(&[b"SET", b"k", b"v"]), encoded(&[b"DEBUG", b"SLEEP", b"60"])].concat(),
    );
    other.becomes("GET k", "'v'");
    served.end();
    assert_eq!(client.read(), "OK");
    assert_eq!(client.read(), "OK");
}
