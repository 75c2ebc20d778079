//! How a server ends: what it has accepted is answered, and the store is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bitcask::server::{Server, ServerError, ServerOptions};
use bitcask::{Bitcask, Error};

use crate::support::{Running, small};

#[test]
fn a_request_that_was_accepted_is_answered() {
    let server = Running::new();
    let mut client = server.client();
    client.begin("PUT", "/v1/keys/k", &[("expect", "100-continue")], 5);
    // The server has the request once it asks for the body.
    assert_eq!(client.head().status, 100);
    server.tell_to_stop();
    client.raw(b"value");
    client.answer("PUT").has(204);
    assert!(client.is_closed());
    let (_dir, db) = server.ended();
    assert_eq!(db.get("k").unwrap().unwrap(), "value");
}

#[test]
fn an_idle_connection_does_not_keep_a_server() {
    let server = Running::new();
    let mut idle = server.client();
    idle.send("GET", "/health", &[], b"").has(200);
    let mut silent = server.client();
    let (_dir, db) = server.stopped();
    assert!(idle.is_closed() && silent.is_closed());
    drop(db);
}

#[test]
fn a_request_that_never_ends_is_given_up() {
    let options = ServerOptions::new().drain_timeout(std::time::Duration::from_millis(100));
    let server = Running::with(options);
    let mut client = server.client();
    client.begin("PUT", "/v1/keys/k", &[("expect", "100-continue")], 5);
    assert_eq!(client.head().status, 100);
    let (_dir, db) = server.stopped();
    assert!(client.is_closed());
    assert!(db.get("k").unwrap().is_none());
}

#[test]
fn a_client_on_this_machine_can_stop_a_server() {
    let server = Running::new();
    server.json("POST", "/v1/stop", "").has(202);
    drop(server.ended());
}

#[test]
fn a_function_of_the_owner_stops_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), small()).unwrap();
    let server = Server::bind(db, ServerOptions::new().address("127.0.0.1", 0)).unwrap();
    let flag = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&flag);
    let running = std::thread::spawn(move || server.run_until(move || seen.load(Ordering::SeqCst)));
    flag.store(true, Ordering::SeqCst);
    running.join().unwrap().unwrap();
    // The store is closed, so it can be opened again.
    Bitcask::open(dir.path(), small()).unwrap().close().unwrap();
}

#[test]
fn a_store_that_the_program_has_kept_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    let db = Arc::new(Bitcask::open(dir.path(), small()).unwrap());
    let options = ServerOptions::new().address("127.0.0.1", 0);
    let server = Server::bind(Arc::clone(&db), options).unwrap();
    let stop = server.stop_handle();
    let running = std::thread::spawn(move || server.run());
    stop.stop();
    running.join().unwrap().unwrap();
    db.put("k", "v").unwrap();
    assert!(matches!(Bitcask::open(dir.path(), small()), Err(Error::Locked { .. })));
    Arc::into_inner(db).unwrap().close().unwrap();
}

#[test]
fn an_address_that_is_taken_is_an_error() {
    let server = Running::new();
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), small()).unwrap();
    let options = ServerOptions::new().address("127.0.0.1", server.address.port());
    let error = Server::bind(db, options).unwrap_err();
    assert!(matches!(error, ServerError::Bind { .. }), "{error}");
    assert!(error.to_string().contains(&server.address.to_string()), "{error}");
}

#[test]
fn half_a_request_does_not_keep_a_server() {
    let hour = std::time::Duration::from_secs(3600);
    let server = Running::with(ServerOptions::new().idle_timeout(hour).drain_timeout(hour));
    let mut half = server.client();
    half.raw(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nGET /heal");
    half.answer("GET").has(200);
    let (_dir, db) = server.stopped();
    assert!(half.is_closed());
    drop(db);
}
