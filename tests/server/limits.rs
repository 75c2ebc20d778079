//! Slow, large, broken and greedy clients.

use std::time::Duration;

use bitcask::Bitcask;
use bitcask::server::{ServerError, ServerOptions};
use serde_json::json;

use crate::support::{Running, small};

#[test]
fn a_body_has_a_limit_whether_it_is_announced_or_not() {
    let server = Running::with(ServerOptions::new().body_size_limit(1000));
    server.send("PUT", "/v1/keys/k", &[], &[b'x'; 1000]).has(204);
    let refused = server.send("PUT", "/v1/keys/k", &[], &[b'y'; 1001]).has(413);
    assert_eq!(refused.value()["code"], "too_large");
    let mut client = server.client();
    client.raw(b"PUT /v1/keys/k HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = format!("1f4\r\n{}\r\n", "z".repeat(500));
    client.raw(chunk.repeat(3).as_bytes());
    client.answer("PUT").has(413);
    // Without a body, and with a lie about it.
    let mut client = server.client();
    client.begin("PUT", "/v1/keys/k", &[], usize::MAX / 2);
    client.answer("PUT").has(413);
    assert_eq!(server.get("/v1/keys/k").body, [b'x'; 1000]);
    server.json("PUT", "/kv/k", &json!({"value": "x".repeat(1000)}).to_string()).has(413);
}

#[test]
fn a_refusal_reaches_a_client_that_sends_everything_first() {
    let server = Running::with(ServerOptions::new().body_size_limit(1000).token("secret"));
    let token = ("authorization", "Bearer secret");
    let body = vec![b'x'; 32 << 20];
    for (headers, status) in [(&[token][..], 413), (&[], 401)] {
        // If the server closes the connection meanwhile, the rest cannot be sent.
        server.send("PUT", "/v1/keys/k", headers, &body).has(status);
    }
    // A client that asks first learns it first.
    let mut client = server.client();
    let headers = [token, ("expect", "100-continue")];
    client.begin("PUT", "/v1/keys/k", &headers, body.len());
    client.head().has(413);
}

#[test]
fn the_bodies_of_all_requests_have_a_limit() {
    let size = 1 << 20;
    let options = ServerOptions::new().body_size_limit(size).body_memory_limit(size);
    let server = Running::with(options);
    let mut first = server.client();
    let body = vec![b'x'; usize::try_from(size).unwrap()];
    first.begin("PUT", "/v1/keys/first", &[("expect", "100-continue")], body.len());
    assert_eq!(first.head().status, 100);
    first.raw(&body[1..]);
    // All memory is taken once most of the first body has arrived.
    let taken = format!("bitcask_http_body_bytes {size}\n");
    while !server.get("/metrics").has(200).text().contains(&taken) {}
    let refused = server.send("PUT", "/v1/keys/second", &[], &vec![b'x'; 32 << 10]).has(503);
    assert_eq!(refused.value()["code"], "busy");
    // Small ones are handled all the same.
    server.send("PUT", "/v1/keys/small", &[], &vec![b'x'; (32 << 10) - 1]).has(204);
    first.raw(&body[..1]);
    first.answer("PUT").has(204);
    server.send("PUT", "/v1/keys/second", &[], &body).has(204);
}

#[test]
fn headers_have_a_limit() {
    let server = Running::with(ServerOptions::new().header_size_limit(8192));
    let long = "x".repeat(10_000);
    server.send("GET", "/health", &[("long", &long)], b"").has(431);
    let many: Vec<(String, String)> = (0..200).map(|at| (format!("h{at}"), "v".into())).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    server.send("GET", "/health", &many, b"").has(431);
    server.get("/health").has(200);
    // To the byte, even if everything arrives at once.
    let head = "GET /health HTTP/1.1\r\nhost: localhost\r\nlong: \r\n\r\n";
    for (size, status) in [(8000, 200), (8192, 200), (8193, 431), (8300, 431)] {
        let long = format!("long: {}", "x".repeat(size - head.len()));
        let mut client = server.client();
        client.raw(head.replace("long: ", &long).as_bytes());
        client.answer("GET").has(status);
    }
}

#[test]
fn a_client_that_does_not_read_loses_its_connection() {
    let options = ServerOptions::new().connections_max(1).write_timeout(Duration::from_millis(100));
    let server = Running::filled(small().segment_size(256 << 20), options, |db| {
        db.put("k", vec![b'x'; 64 << 20]).unwrap();
    });
    let mut slow = server.client();
    slow.begin("GET", "/v1/keys/k", &[], 0);
    // There is room for one connection. So this is answered once the other one is closed.
    server.get("/health").has(200);
    assert!(slow.head().status == 200);
}

#[test]
fn a_client_that_sends_half_a_request_loses_its_connection() {
    let options = ServerOptions::new().connections_max(1).idle_timeout(Duration::from_millis(100));
    let server = Running::with(options);
    for half in [&b""[..], b"GET /health HTT", b"GET /health HTTP/1.1\r\nhost: localhost\r\n"] {
        let mut slow = server.client();
        slow.raw(half);
        server.get("/health").has(200);
        assert!(slow.is_closed());
    }
}

#[test]
fn a_body_that_does_not_arrive_ends_the_request() {
    let server = Running::with(ServerOptions::new().request_timeout(Duration::from_millis(100)));
    let mut slow = server.client();
    slow.begin("PUT", "/v1/keys/k", &[], 10);
    slow.raw(b"half");
    let refused = slow.answer("PUT").has(503);
    assert_eq!(refused.value()["code"], "timed_out");
    server.get("/v1/keys/k").has(404);
}

#[test]
fn a_body_that_is_cut_off_changes_nothing() {
    let server = Running::new();
    for _ in 0..10 {
        let mut client = server.client();
        client.begin("PUT", "/v1/keys/k", &[], 10);
        client.raw(b"half");
    }
    server.get("/v1/keys/k").has(404);
}

#[test]
fn a_client_has_a_rate() {
    let server = Running::with(ServerOptions::new().requests_per_second(5));
    let statuses: Vec<_> = (0..200).map(|_| server.get("/v1/keys/k").status).collect();
    assert!(statuses.iter().take(5).all(|status| *status == 404), "{statuses:?}");
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(refused > 0, "{statuses:?}");
    // Whoever looks after the server still sees it.
    server.get("/health").has(200);
}

#[test]
fn the_number_of_streams_is_limited() {
    let server = Running::with(ServerOptions::new().streams_max(1));
    let mut first = server.client();
    first.begin("GET", "/v1/changes", &[], 0);
    first.head().has(200);
    let refused = server.get("/v1/changes").has(503);
    assert_eq!(refused.value()["code"], "too_many_streams");
    server.get("/keys").has(503);
    server.get("/v1/keys").has(200);
    drop(first);
    // The place is free once the server has noticed.
    while server.get("/keys").status == 503 {}
}

#[test]
fn garbage_ends_a_connection_and_nothing_else() {
    let server = Running::new();
    let garbage: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"*1\r\n$4\r\nPING\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/keys/\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"PUT /v1/keys/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"PUT /v1/keys/k HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ];
    for bytes in garbage {
        let mut client = server.client();
        client.raw(bytes);
        let answer = client.head();
        assert!(answer.status >= 400, "{bytes:?}: {answer:?}");
    }
    server.get("/v1/keys/k").has(404);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Running::new();
    let mut client = server.client();
    let put = "PUT /v1/keys/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n1";
    let get = "GET /v1/keys/k HTTP/1.1\r\nhost: localhost\r\n\r\n";
    client.raw(format!("{put}{get}{get}").as_bytes());
    client.answer("PUT").has(204);
    assert_eq!(client.answer("GET").text(), "1");
    assert_eq!(client.answer("GET").text(), "1");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let refused = |options: ServerOptions| {
        let dir = tempfile::tempdir().unwrap();
        let db = Bitcask::open(dir.path(), small()).unwrap();
        let error = bitcask::server::Server::bind(db, options.address("127.0.0.1", 0)).unwrap_err();
        assert!(matches!(error, ServerError::InvalidServerOption { .. }), "{error}");
        error.to_string()
    };
    assert!(refused(ServerOptions::new().connections_max(0)).contains("connections_max"));
    assert!(refused(ServerOptions::new().header_size_limit(100)).contains("8192"));
    assert!(refused(ServerOptions::new().token("")).contains("token"));
    let none = ServerOptions::new().request_timeout(Duration::ZERO);
    assert!(refused(none).contains("request_timeout"));
    let dir = tempfile::tempdir().unwrap().path().join("none");
    assert!(refused(ServerOptions::new().backup_dir(dir)).contains("backup_dir"));
    assert!(refused(ServerOptions::new().body_memory_limit(1)).contains("body_memory_limit"));
}

#[test]
fn answers_that_nobody_reads_have_a_limit_together() {
    let size = 16 << 20;
    let options = ServerOptions::new().body_size_limit(1 << 20).body_memory_limit(size);
    let server = Running::filled(small().segment_size(64 << 20), options, |db| {
        // `/kv` and `/get` have this as text, six times as large: more than the sockets of a
        // connection hold.
        db.put("k", vec![1; 2 << 20]).unwrap();
        db.put("l", vec![b'x'; 11 << 20]).unwrap();
    });
    let requests = [("GET", "/kv/k", ""), ("GET", "/get/k", ""), ("GET", "/v1/keys?values", "")];
    for (method, target, body) in [("POST", "/v1/get", r#"{"keys":["l"]}"#)].iter().chain(&requests)
    {
        let mut slow = server.client();
        slow.begin(method, target, &[("content-type", "application/json")], body.len());
        slow.raw(body.as_bytes());
        slow.head().has(200);
        let refused = server.json(method, target, body).has(503);
        assert_eq!(refused.header("retry-after"), Some("1"), "{target}");
        assert!(refused.text().contains("memory"), "{}", refused.text());
        server.get("/kv/none").has(200);
        drop(slow);
        // The memory is free once the server has noticed.
        while server.json(method, target, body).status == 503 {}
    }
    while !server.get("/metrics").text().contains("bitcask_http_body_bytes 0\n") {}
}

#[test]
fn what_never_fits_is_refused_for_good_or_left_out() {
    let options = ServerOptions::new().body_size_limit(1 << 20).body_memory_limit(1 << 20);
    let server = Running::filled(small().segment_size(64 << 20), options, |db| {
        db.put("k", vec![1; 500_000]).unwrap();
        db.put("l", vec![0xff; 1 << 20]).unwrap();
        db.put("m", "small").unwrap();
    });
    for target in ["/kv/k", "/get/k"] {
        let refused = server.get(target).has(413);
        assert_eq!(refused.header("retry-after"), None, "{target}");
        assert!(refused.text().contains("/v1/keys/{key}"), "{}", refused.text());
    }
    let many = server.json("POST", "/v1/get", r#"{"keys":["l"]}"#).has(413);
    assert_eq!(many.value()["code"], "too_large");
    assert_eq!(server.get("/v1/keys/l").has(200).body.len(), 1 << 20);
    let page = server.get("/v1/keys?values=true").has(200).value();
    let expected = json!({
        "keys": [
            {"key": "k", "value_size": 500_000},
            {"key": "l", "value_size": 1 << 20},
            {"key": "m", "value": "small"},
        ],
        "next": null,
    });
    assert_eq!(page, expected);
}

/// Otherwise one page could read as many large values as it has keys.
#[test]
fn values_that_are_left_out_end_a_page_too() {
    let options = ServerOptions::new().body_size_limit(1 << 20).body_memory_limit(1 << 20);
    let server = Running::filled(small().segment_size(64 << 20), options, |db| {
        for key in ["a", "b", "c", "d"] {
            db.put(key, vec![b'x'; 3 << 20]).unwrap();
        }
    });
    let (mut target, mut lens) = ("/v1/keys?values=true".to_owned(), Vec::new());
    loop {
        let page = server.get(&target).has(200).value();
        lens.push(page["keys"].as_array().unwrap().len());
        let Some(next) = page["next"].as_str() else { break };
        next.clone_into(&mut target);
    }
    assert_eq!(lens, [2, 2, 0]);
}

/// Even a value that is larger than all memory is sent.
#[cfg(feature = "lz4")]
#[test]
fn a_value_that_is_larger_than_the_memory_takes_all_of_it() {
    let options = ServerOptions::new().body_size_limit(1 << 20).body_memory_limit(1 << 20);
    let store = small().segment_size(64 << 20).compression(bitcask::Compression::lz4());
    let server = Running::filled(store, options, |db| db.put("k", vec![0; 12 << 20]).unwrap());
    let mut slow = server.client();
    slow.begin("GET", "/v1/keys/k", &[], 0);
    slow.head().has(200);
    assert!(server.get("/metrics").text().contains("bitcask_http_body_bytes 1048576\n"));
    server.get("/v1/keys/k").has(503);
    assert_eq!(slow.rest(12 << 20), vec![0; 12 << 20]);
}

/// A snapshot is sent while it is read, but a value of it that is decompressed is in memory.
#[cfg(feature = "lz4")]
#[test]
fn values_of_snapshots_have_a_limit_together() {
    let options = ServerOptions::new().body_size_limit(1 << 20).body_memory_limit(20 << 20);
    let store = small().segment_size(64 << 20).compression(bitcask::Compression::lz4());
    let server = Running::filled(store, options, |db| {
        // More than the sockets of a connection hold.
        db.put("k", vec![0; 12 << 20]).unwrap();
    });
    let mut snapshots: Vec<_> = (0..4).map(|_| server.client()).collect();
    for snapshot in &mut snapshots {
        snapshot.begin("GET", "/v1/snapshot", &[], 0);
        snapshot.head().has(200);
    }
    // There is memory for one of them at a time, and so for no other answer of this size.
    while server.get("/v1/keys/k").status != 503 {}
    std::thread::scope(|scope| {
        for snapshot in &mut snapshots {
            scope.spawn(|| drop(snapshot.rest(12 << 20)));
        }
    });
    while server.get("/v1/keys/k").status == 503 {}
}

/// A value that is compressed takes memory of its own once it is read.
#[cfg(feature = "lz4")]
#[test]
fn values_that_nobody_reads_have_a_limit_together() {
    let options = ServerOptions::new().body_size_limit(1 << 20).body_memory_limit(16 << 20);
    let store = small().segment_size(64 << 20).compression(bitcask::Compression::lz4());
    let server = Running::filled(store, options, |db| {
        // More than the sockets of a connection hold.
        db.put("k", vec![0; 12 << 20]).unwrap();
    });
    let mut slow = server.client();
    slow.begin("GET", "/v1/keys/k", &[], 0);
    slow.head().has(200);
    server.get("/v1/keys/k").has(503);
    assert_eq!(slow.rest(12 << 20), vec![0; 12 << 20]);
    // The memory is free once the server has noticed.
    while server.get("/v1/keys/k").status == 503 {}
}

#[test]
fn a_new_client_takes_the_place_of_an_idle_connection() {
    let options = ServerOptions::new().connections_max(8).idle_timeout(Duration::from_secs(3600));
    let server = Running::with(options);
    let mut idle: Vec<_> = (0..8).map(|_| server.client()).collect();
    for client in idle.iter_mut().skip(1) {
        client.send("GET", "/health", &[], b"").has(200);
    }
    let mut ninth = server.client();
    ninth.send("GET", "/health", &[], b"").has(200);
    assert!(idle.remove(0).is_closed());
    // The others, among them one with half a request, go in their turn.
    idle[0].raw(b"GET /health HTT");
    ninth.send("GET", "/health", &[], b"").has(200);
    let mut tenth = server.client();
    tenth.send("GET", "/health", &[], b"").has(200);
    assert!(idle.remove(0).is_closed());
    for client in &mut idle {
        client.send("GET", "/health", &[], b"").has(200);
    }
}

#[test]
fn a_connection_with_a_request_keeps_its_place() {
    let options = ServerOptions::new().connections_max(2).idle_timeout(Duration::from_secs(3600));
    let server = Running::filled(small().segment_size(64 << 20), options, |db| {
        db.put("k", vec![b'x'; 16 << 20]).unwrap();
    });
    let mut half = server.client();
    half.begin("PUT", "/v1/keys/half", &[("expect", "100-continue")], 5);
    assert_eq!(half.head().status, 100);
    let mut slow = server.client();
    slow.begin("GET", "/v1/keys/k", &[], 0);
    let answer = slow.head().has(200);
    assert_eq!(answer.header("content-length"), Some("16777216"));
    let mut third = server.client();
    third.begin("GET", "/health", &[], 0);
    half.raw(b"value");
    half.answer("PUT").has(204);
    // Now there is an idle connection.
    third.answer("GET").has(200);
    assert!(half.is_closed());
    assert_eq!(slow.rest(16 << 20), vec![b'x'; 16 << 20]);
}
