//! Both ports of a server whose clients are many, slow, greedy or hostile: it goes on, and its
//! memory stays small.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Command;

use crate::server::Serving;
use crate::support::Sandbox;

/// Number of clients that do nothing.
const IDLE: usize = 10_000;
/// Descriptors that a process needs for other things.
const SPARE: usize = 200;
/// Says that a process may open as many files as the system allows.
const RAISED: &str = "BITCASK_TEST_FILES_RAISED";
/// Maximum memory that an idle client may take, in bytes.
const IDLE_SIZE_MAX: u64 = 48 << 10;
/// Maximum memory that the greedy clients may take together, in bytes.
const GREEDY_SIZE_MAX: u64 = 200 << 20;
/// Size of the value that clients ask for and do not read.
const LARGE: usize = 1 << 20;

/// Returns how many files this process may open. The first process of the test raises the limit and
/// starts the test again, and gets `None`.
fn file_limit(test: &str) -> Option<usize> {
    if std::env::var_os(RAISED).is_none() {
        let raise = "ulimit -n \"$(ulimit -Hn)\" && exec \"$0\" \"$@\"";
        let mut again = Command::new("sh");
        again.args(["-c", raise]).arg(std::env::current_exe().unwrap());
        again.args(["--exact", test, "--nocapture"]).env(RAISED, "1");
        assert!(again.status().unwrap().success());
        return None;
    }
    let limit = Command::new("sh").args(["-c", "ulimit -n"]).output().unwrap().stdout;
    let limit = String::from_utf8(limit).unwrap();
    Some(limit.trim().parse().unwrap_or(usize::MAX))
}

/// Sends bytes, and returns how an answer begins.
fn answer(stream: &mut TcpStream, bytes: &[u8]) -> String {
    stream.write_all(bytes).unwrap();
    let mut start = [0; 15];
    stream.read_exact(&mut start[..5]).unwrap();
    String::from_utf8_lossy(&start[..5]).into_owned()
}

#[test]
fn ten_thousand_idle_clients_cost_little() {
    let Some(limit) = file_limit("abuse::ten_thousand_idle_clients_cost_little") else { return };
    // The server keeps half of its files for the store.
    let count = IDLE.min(limit / 2 - SPARE);
    println!("{count} clients of each port");
    for port in ["http", "redis"] {
        let sandbox = Sandbox::empty();
        let max = count.to_string();
        let args = ["server", "start", "--port", "0", "--resp-port", "0", "--connections", &max];
        let mut start = sandbox.bitcask(args);
        let (server, redis) = Serving::both(start.env("BITCASK_LOG_LEVEL", "off"));
        let (address, request, expected): (&str, &[u8], _) = match port {
            "http" => {
                (server.address(), b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n", "HTTP/")
            }
            _ => (&redis, b"PING\r\n", "+PONG"),
        };
        assert_eq!(answer(&mut TcpStream::connect(address).unwrap(), request), expected);
        let before = server.memory();
        let mut clients: Vec<_> =
            (0..count).map(|_| TcpStream::connect(address).unwrap()).collect();
        // All of them are accepted, in the order in which they have come.
        for client in [count - 1, count / 2, 0] {
            assert_eq!(answer(&mut clients[client], request), expected, "{port} {client}");
        }
        let each = server.memory().saturating_sub(before) / count as u64;
        println!("{port}: {each} bytes for each idle client");
        assert!(each < IDLE_SIZE_MAX, "{port}: {each}");
        drop(clients);
        server.signal("-TERM");
        assert_eq!(server.ended().0, Some(0));
    }
}

/// Sends as much as the server takes.
fn flood(stream: &mut TcpStream, bytes: &[u8]) {
    stream.set_nonblocking(true).unwrap();
    for chunk in bytes.chunks(1 << 16) {
        // An error means that the server has had enough, for now or for ever.
        if !stream.write(chunk).is_ok_and(|len| len == chunk.len()) {
            break;
        }
    }
}

#[test]
fn greedy_clients_do_not_take_the_memory() {
    let sandbox = Sandbox::empty();
    let mut start = sandbox.bitcask(["server", "start", "--port", "0", "--resp-port", "0"]);
    let (server, redis) = Serving::both(start.env("BITCASK_LOG_LEVEL", "off"));
    let put = server.ask("PUT /v1/keys/large", &"x".repeat(LARGE));
    assert!(put.starts_with("HTTP/1.1 204"), "{put}");
    let before = server.memory();
    let requests: [(&str, Vec<u8>); 9] = [
        // Replies that nobody reads.
        (&redis, b"GET large\r\n".repeat(10_000)),
        (&redis, [&b"MGET"[..], &b" large".repeat(1000), b"\r\n"].concat().repeat(10)),
        (
            server.address(),
            b"GET /v1/keys/large HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(10_000),
        ),
        // Sizes that are announced, and do not come.
        (&redis, b"*2\r\n$3\r\nGET\r\n$536870912\r\nabc".to_vec()),
        (&redis, b"*1048576\r\n$4\r\nMGET\r\n".to_vec()),
        (
            server.address(),
            b"PUT /v1/keys/k HTTP/1.1\r\ncontent-length: 67108864\r\n\r\n1".to_vec(),
        ),
        // Arrays within arrays, lines without an end, and what belongs to no protocol.
        (&redis, b"*1\r\n".repeat(100_000)),
        (&redis, vec![b'a'; 4 << 20]),
        (server.address(), (0..4 << 20).map(|number: u32| number.to_be_bytes()[2]).collect()),
    ];
    let mut greedy = Vec::new();
    for _ in 0..8 {
        for (address, request) in &requests {
            let mut stream = TcpStream::connect(address).unwrap();
            flood(&mut stream, request);
            greedy.push(stream);
        }
    }
    // Others are served meanwhile.
    let mut most = 0;
    for number in 0..200 {
        let set = crate::server::redis(&redis, &format!("SET key-{number} {number}"));
        assert!(set.starts_with("+OK"), "{set}");
        let got = server.ask(&format!("GET /v1/keys/key-{number}"), "");
        assert!(got.ends_with(&number.to_string()), "{got}");
        most = most.max(server.memory().saturating_sub(before));
    }
    println!("{} MiB for {} greedy clients", most >> 20, greedy.len());
    assert!(most < GREEDY_SIZE_MAX, "{most} bytes");
    for stream in greedy {
        let _ = stream.shutdown(Shutdown::Both);
    }
    server.signal("-TERM");
    assert_eq!(server.ended().0, Some(0));
    assert_eq!(sandbox.run(["get", "key-199"]).ended(0), "199");
}
