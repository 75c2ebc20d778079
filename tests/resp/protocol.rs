//! What arrives on a socket, and what is sent back.

use crate::support::{Served, encoded};

#[test]
fn a_command_may_arrive_in_any_pieces() {
    let served = Served::new();
    let mut client = served.client();
    for byte in encoded(&[b"SET", b"key", b"a\r\nb\0"]) {
        client.send_raw(&[byte]);
    }
    assert_eq!(client.read(), "OK");
    client.is("GET key", r"'a\r\nb\x00'");
}

#[test]
fn commands_that_arrive_together_are_answered_in_order() {
    let served = Served::new();
    let mut client = served.client();
    let mut bytes = Vec::new();
    for number in 0..1000 {
        let (key, value) = (format!("key{number}"), number.to_string());
        bytes.extend(encoded(&[b"SET", key.as_bytes(), value.as_bytes()]));
    }
    for number in 0..1000 {
        bytes.extend(encoded(&[b"get", format!("key{number}").as_bytes()]));
    }
    bytes.extend(encoded(&[b"GET", b"missing"]));
    bytes.extend(encoded(&[b"HSET", b"hash", b"f", b"v"]));
    bytes.extend(encoded(&[b"GET", b"key1"]));
    bytes.extend(encoded(&[b"GET", b"hash"]));
    bytes.extend(encoded(&[b"PING"]));
    client.send_raw(&bytes);
    for _ in 0..1000 {
        assert_eq!(client.read(), "OK");
    }
    for number in 0..1000 {
        assert_eq!(client.read(), format!("'{number}'"));
    }
    assert_eq!(client.read(), "nil");
    assert_eq!(client.read(), "(1)");
    assert_eq!(client.read(), "'1'");
    assert!(client.read().starts_with("(error) WRONGTYPE"));
    assert_eq!(client.read(), "PONG");
}

#[test]
fn people_can_type_commands() {
    let served = Served::new();
    let mut client = served.client();
    client.send_raw(b"\r\n  set  \"a key\" 'it\\'s'\nget \"a key\"\r\n");
    assert_eq!(client.read(), "OK");
    assert_eq!(client.read(), "'it\\'s'");
}

#[test]
fn an_unknown_command_is_an_error_and_no_more() {
    let served = Served::new();
    let mut client = served.client();
    client.is(
        "FOO a b",
        "(error) ERR unknown command \\'FOO\\', with args beginning with: \\'a\\' \\'b\\' ",
    );
    client.fails("CLIENT FOO", "ERR unknown subcommand \\'FOO\\'. Try CLIENT HELP.");
    client.fails("GET", "ERR wrong number of arguments for \\'get\\' command");
    client.fails("CLIENT ID 1", "ERR wrong number of arguments for \\'client|id\\' command");
    client.fails("LPUSH list a", "ERR \\'lpush\\' is not supported: this server has no lists");
    client.fails("EVAL x 0", "ERR \\'eval\\' is not supported: this server has no scripts");
    client.is("PING", "PONG");
}

#[test]
fn what_is_no_protocol_ends_the_connection_after_an_error() {
    let served = Served::new();
    let cases: [(&[u8], &str); 5] = [
        (b"*1\r\n:1\r\n", "expected \\'$\\', got \\':\\'"),
        (b"*abc\r\n", "invalid multibulk length"),
        (b"*1\r\n$-5\r\n", "invalid bulk length"),
        (b"set \"a\r\n", "unbalanced quotes in request"),
        (b"*2\r\n*1\r\n$1\r\nx\r\n$1\r\ny\r\n", "expected \\'$\\', got \\'*\\'"),
    ];
    for (bytes, why) in cases {
        let mut client = served.client();
        let (ping, get) = (encoded(&[b"PING"]), encoded(&[b"GET", b"a"]));
        client.send_raw(&[&*ping, &get, &get, bytes].concat());
        assert_eq!(client.read(), "PONG");
        assert_eq!(client.read(), "nil");
        assert_eq!(client.read(), "nil");
        assert_eq!(client.read(), format!("(error) ERR Protocol error: {why}"));
        client.is_over();
    }
}

#[test]
fn both_versions_of_the_protocol_are_spoken() {
    let served = Served::new();
    let mut client = served.client();
    client.is("HSET hash a 1", "(1)");
    client.is("HGETALL hash", "['a' '1']");
    client.is("GET missing", "nil");
    let hello = client.run("HELLO 3 SETNAME me");
    assert!(hello.starts_with("{'server': 'redis', 'version': '"), "{hello}");
    assert!(hello.contains("'proto': (3)"), "{hello}");
    client.is("HGETALL hash", "{'a': '1'}");
    client.is("GET missing", "null");
    client.is("CLIENT GETNAME", "'me'");
    client.is("HRANDFIELD hash 1 WITHVALUES", "[['a' '1']]");
    client.fails("HELLO 4", "NOPROTO unsupported protocol version");
    assert!(client.run("HELLO 2").starts_with("['server' 'redis'"));
    client.is("RESET", "RESET");
    client.is("CLIENT GETNAME", "nil");
}

#[test]
fn an_error_can_not_pretend_to_be_another_reply() {
    let served = Served::new();
    let mut client = served.client();
    let reply = client.run_args(&[b"BAD\r\n+OK", b"x\r\n:1"]);
    assert!(reply.starts_with("(error) ERR unknown command"), "{reply}");
    client.is("PING", "PONG");
}

#[test]
fn quit_is_answered() {
    let served = Served::new();
    let mut client = served.client();
    client.is("QUIT", "OK");
    client.is_over();
}

#[test]
fn a_web_page_runs_no_commands() {
    let served = Served::new();
    let mut client = served.client();
    client.is("SET precious data", "OK");
    let posted: &[u8] = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nFLUSHALL\r\n";
    let mut page = served.client();
    page.send_raw(posted);
    page.is_over();
    let mut page = served.client();
    page.send_raw(b"PUT / HTTP/1.1\r\nhost: x\r\n\r\nFLUSHALL\r\n");
    assert!(page.read().starts_with("(error) ERR unknown command"));
    page.is_over();
    client.is("GET precious", "'data'");
}
