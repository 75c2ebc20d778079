//! Clients that ask for too much, or read too little.

use std::time::Duration;

use bitcask::Options;
use bitcask::resp::{RespOptions, RespServer};
use resp_rs::resp3::Frame;

use crate::support::{Client, Served, encoded};

#[test]
fn too_many_clients_are_told_so() {
    let served = Served::with(&Options::new(), RespOptions::new().clients_max(2));
    let (mut first, mut second) = (served.client(), served.client());
    first.is("PING", "PONG");
    second.is("PING", "PONG");
    let mut third = served.client();
    assert_eq!(third.read(), "(error) ERR max number of clients reached");
    third.is_over();
    drop(first);
    loop {
        let mut client = served.client();
        if client.try_send_raw(&encoded(&[b"PING"])).is_err() {
            continue;
        }
        match client.try_read() {
            Some(frame) if crate::support::shown(&frame) == "PONG" => break,
            _ => {}
        }
    }
}

#[test]
fn an_argument_that_never_comes_takes_no_memory() {
    let served = Served::new();
    let mut waiting: Vec<Client> = (0..50).map(|_| served.client()).collect();
    for client in &mut waiting {
        client.send_raw(b"*2\r\n$3\r\nGET\r\n$536870912\r\nabc");
    }
    // If each of these had taken 512 MiB, this would have failed.
    served.client().is("PING", "PONG");
    let mut client = served.client();
    client.send_raw(b"*2\r\n$3\r\nGET\r\n$536870913\r\n");
    assert_eq!(client.read(), "(error) ERR Protocol error: invalid bulk length");
}

#[test]
fn a_subscriber_that_does_not_read_is_disconnected() {
    let served = Served::with(&Options::new(), RespOptions::new().output_max(1 << 20));
    let (mut idle, mut client) = (served.client(), served.client());
    idle.is("SUBSCRIBE c", "['subscribe' 'c' (1)]");
    let message = vec![b'x'; 256 << 10];
    let mut sent = 0;
    while client.run_args(&[b"PUBLISH", b"c", &message]) != "(0)" {
        sent += 1;
        assert!(sent < 10_000, "it is still there");
    }
    let info = client.run("INFO stats");
    assert!(info.contains("client_output_buffer_limit_disconnections:1"), "{info}");
}

#[test]
fn a_client_that_does_not_read_replies_is_disconnected() {
    let options = RespOptions::new().stall_max(Duration::from_millis(100));
    let served = Served::with(&Options::new(), options);
    let mut client = served.client();
    let value = vec![b'x'; 1 << 20];
    assert_eq!(client.run_args(&[b"SET", b"big", &value]), "OK");
    let gets = encoded(&[b"GET", b"big"]).repeat(200);
    // Sending fails as soon as the server has gone.
    drop(client.try_send_raw(&gets));
    let mut other = served.client();
    for _ in 0..6_000 {
        if other.run("INFO clients").contains("connected_clients:1") {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it is still there");
}

/// Most clients send all of a pipeline and then read. The server read nothing while replies waited,
/// so both waited for each other until the server gave up.
#[test]
fn a_client_may_send_a_whole_pipeline_before_it_reads() {
    const COUNT: usize = 100_000;
    let served = Served::new();
    let mut client = served.client();
    let value = vec![b'x'; 1000];
    let mut commands = encoded(&[b"SET", b"k", &value]);
    commands.extend(encoded(&[b"GETSET", b"k", &value]).repeat(COUNT));
    commands.extend(encoded(&[b"ECHO", b"last"]));
    client.send_raw(&commands);
    assert_eq!(client.read(), "OK");
    let stored = Frame::BulkString(Some(value.into()));
    for number in 0..COUNT {
        assert_eq!(client.try_read().as_ref(), Some(&stored), "{number}");
    }
    assert_eq!(client.read(), "'last'");
    client.is("PING", "PONG");
}

#[test]
fn a_client_that_sends_and_never_reads_is_disconnected() {
    let options = RespOptions::new().stall_max(Duration::from_millis(100));
    let served = Served::with(&Options::new(), options);
    let mut client = served.client();
    let echoes = encoded(&[b"ECHO", &[b'x'; 10_000]]).repeat(100);
    // It ends because the server goes, and not because the server reads no more.
    while client.try_send_raw(&echoes).is_ok() {}
    served.client().is("PING", "PONG");
}

#[test]
fn a_stranger_can_not_send_much() {
    let served = Served::with(&Options::new(), RespOptions::new().password("secret"));
    let mut client = served.client();
    client.send_raw(b"*11\r\n");
    assert_eq!(client.read(), "(error) ERR Protocol error: unauthenticated multibulk length");
    client.is_over();
    let mut client = served.client();
    client.send_raw(b"*1\r\n$100000\r\n");
    assert_eq!(client.read(), "(error) ERR Protocol error: unauthenticated bulk length");
    client.is_over();
}

#[test]
fn a_stranger_that_does_not_read_is_not_read_from() {
    let options = RespOptions::new().password("secret").stall_max(Duration::from_secs(1));
    let served = Served::with(&Options::new(), options);
    let mut stranger = served.client();
    let pings = encoded(&[b"PING"]).repeat(100_000);
    // It ends because the server goes.
    while stranger.try_send_raw(&pings).is_ok() {}
    let mut client = served.client();
    client.is("AUTH secret", "OK");
    let info = client.run("INFO stats");
    let (_, read) = info.split_once("total_net_input_bytes:").unwrap();
    let digits: String = read.chars().take_while(char::is_ascii_digit).collect();
    // The replies are larger, and the sockets hold a few megabytes of them.
    assert!(digits.parse::<u64>().unwrap() < 64 << 20, "{digits}");
}

#[test]
fn all_interfaces_need_a_password() {
    let dir = tempfile::tempdir().unwrap();
    let db = std::sync::Arc::new(Options::new().open(dir.path()).unwrap());
    let bind = |address: &str, options: RespOptions| {
        RespServer::bind(address, std::sync::Arc::clone(&db), options).map(drop)
    };
    for address in ["0.0.0.0:0", "[::ffff:0.0.0.0]:0"] {
        let refused = bind(address, RespOptions::new()).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied, "{address}");
    }
    bind("0.0.0.0:0", RespOptions::new().password("x")).unwrap();
    bind("0.0.0.0:0", RespOptions::new().insecure(true)).unwrap();
}

#[test]
fn large_keys_are_refused() {
    let served = Served::new();
    let mut client = served.client();
    let key = vec![b'k'; 65_536];
    let reply = client.run_args(&[b"SET", &key, b"v"]);
    assert!(reply.starts_with("(error) ERR the key has 65536 bytes"), "{reply}");
    assert_eq!(client.run_args(&[b"SET", &key[1..], b"v"]), "OK");
    assert_eq!(client.run_args(&[b"GET", &key]), "nil");
    let reply = client.run_args(&[b"HSET", b"h", &key[1..], b"v"]);
    assert!(reply.starts_with("(error) ERR the key has"), "{reply}");
    client.is("EXISTS h", "(0)");
}

#[test]
fn a_transaction_does_not_put_more_than_a_batch_holds() {
    let served = Served::new();
    let mut client = served.client();
    client.is("MULTI", "OK");
    for number in 0..12 {
        client.is(&format!("SETRANGE k{number} 62914559 x"), "QUEUED");
    }
    let reply = client.run("EXEC");
    // It was refused at the ninth, and not at the commit.
    assert!(reply.contains(&format!("the batch needs {} bytes", 9 * 62_914_560)), "{reply}");
    client.is("DBSIZE", "(0)");
    // What is put again, or removed, makes room.
    client.is("MULTI", "OK");
    for command in ["SETRANGE k 209715199 x", "APPEND k y", "APPEND k z", "DEL k"] {
        client.is(command, "QUEUED");
    }
    client.is("SETRANGE other 0 x", "QUEUED");
    client.is("EXEC", "[(209715200) (209715201) (209715202) (1) (1)]");
}

#[test]
fn replies_that_take_memory_are_limited() {
    let served = Served::new();
    let mut client = served.client();
    client.is("SETRANGE k 62914559 x", "(62914560)");
    client.is("MULTI", "OK");
    client.is("SET marked 1", "QUEUED");
    for _ in 0..12 {
        client.is("DUMP k", "QUEUED");
    }
    client.fails("EXEC", "ERR the replies are too large to be sent at once");
    client.is("EXISTS marked", "(0)");
}

#[test]
fn large_strings_are_sent_in_part() {
    let served = Served::new();
    let mut client = served.client();
    let mut string = b"\0bitcask".to_vec();
    string.resize(100_000, b'x');
    string.extend_from_slice(b"end");
    assert_eq!(client.run_args(&[b"SET", b"k", &string]), "OK");
    client.is("STRLEN k", "(100003)");
    client.is("GETRANGE k 1 8", "'bitcaskx'");
    client.is("GETRANGE k -4 -1", "'xend'");
    client.is("GETRANGE k 200000 -1", "''");
    client.is("GETRANGE missing 0 -1", "''");
    let whole = format!("'{}'", string.escape_ascii());
    assert_eq!(client.run("GETRANGE k 0 -1"), whole);
    assert_eq!(client.run("MGET k k"), format!("[{whole} {whole}]"));
}
