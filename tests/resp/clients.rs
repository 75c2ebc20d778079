//! Clients, passwords, parameters, and what is counted.

use bitcask::Options;
use bitcask::resp::RespOptions;

use crate::support::Served;

#[test]
fn a_password_is_asked_for() {
    let served = Served::with(&Options::new(), RespOptions::new().password("secret"));
    let mut client = served.client();
    client.fails("GET a", "NOAUTH Authentication required.");
    client.fails("HELLO 3", "NOAUTH HELLO must be called with the client already authenticated");
    client.fails("AUTH wrong", "WRONGPASS");
    client.fails("AUTH other secret", "WRONGPASS");
    client.is("AUTH default secret", "OK");
    client.is("GET a", "nil");
    let mut other = served.client();
    assert!(other.run("HELLO 3 AUTH default secret").starts_with("{'server'"));
    client.is(
        "CONFIG SET requirepass",
        "(error) ERR wrong number of arguments for \\'config|set\\' command",
    );
    assert_eq!(client.run_args(&[b"CONFIG", b"SET", b"requirepass", b""]), "OK");
    let mut third = served.client();
    third.is("GET a", "nil");
    third.fails("AUTH x", "ERR AUTH <password> called without any password configured");
}

#[test]
fn clients_have_names_and_are_listed() {
    let served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    client.is("CLIENT GETNAME", "nil");
    client.is("CLIENT SETNAME me", "OK");
    client.is("CLIENT SETINFO lib-name lib", "OK");
    client.is("CLIENT SETINFO LIB-VER 1.2", "OK");
    let bad = client.run_args(&[b"CLIENT", b"SETNAME", b"a b"]);
    assert!(bad.starts_with("(error) ERR Client names cannot contain spaces"), "{bad}");
    let list = other.run("CLIENT LIST");
    assert!(list.contains(" name=me ") && list.contains("lib-name=lib lib-ver=1.2"), "{list}");
    assert!(list.contains("cmd=client|list"), "{list}");
    let id = client.run("CLIENT ID").trim_matches(['(', ')']).to_owned();
    let list = other.run(&format!("CLIENT LIST ID {id} {id} {id}"));
    assert_eq!(list.matches(" name=me ").count(), 1, "{list}");
    other.is(&format!("CLIENT KILL ID {id}"), "(1)");
    client.is_over();
    other.is("CLIENT KILL ID 999", "(0)");
    other.fails("CLIENT KILL 1.2.3.4:5", "ERR No such client");
    other.is("CLIENT NO-EVICT on", "OK");
}

#[test]
fn a_client_may_want_no_replies() {
    let served = Served::new();
    let mut client = served.client();
    client.send(&[b"CLIENT", b"REPLY", b"OFF"]);
    client.send(&[b"SET", b"a", b"1"]);
    client.send(&[b"SUBSCRIBE", b"c"]);
    assert_eq!(client.read(), "['subscribe' 'c' (1)]");
    client.send(&[b"UNSUBSCRIBE", b"c"]);
    assert_eq!(client.read(), "['unsubscribe' 'c' (0)]");
    client.is("CLIENT REPLY ON", "OK");
    client.send(&[b"CLIENT", b"REPLY", b"SKIP"]);
    client.send(&[b"SET", b"a", b"2"]);
    client.is("GET a", "'2'");
}

#[test]
fn parameters_are_shown_and_changed() {
    let served = Served::new();
    let mut client = served.client();
    client.is("CONFIG GET maxclients", "['maxclients' '10000']");
    client.is("CONFIG SET timeout 100 slowlog-max-len 5", "OK");
    client.is("CONFIG GET timeout", "['timeout' '100']");
    client.fails(
        "CONFIG SET foo 1",
        "ERR Unknown option or number of arguments for CONFIG SET - \\'foo\\'",
    );
    client.fails(
        "CONFIG SET timeout x",
        "ERR CONFIG SET failed (possibly related to argument \\'timeout\\')",
    );
    client.is("CONFIG SET save x", "OK");
    for (name, value) in [("hz", "x"), ("appendonly", "maybe"), ("maxmemory", "1xb")] {
        let error = format!("ERR CONFIG SET failed (possibly related to argument \\'{name}\\')");
        client.fails(&format!("CONFIG SET {name} {value}"), &error);
    }
    client.is("CONFIG SET maxmemory 2mb appendonly YES oom-score-adj relative", "OK");
    client.is("CONFIG GET maxmemory", "['maxmemory' '2097152']");
    client.is("CONFIG GET sav*", "['save' 'x']");
    client.is("CONFIG RESETSTAT", "OK");
}

#[test]
fn what_happens_is_counted() {
    let served = Served::new();
    let mut client = served.client();
    client.is("SET a 1", "OK");
    client.is("GET a", "'1'");
    client.fails("INCR b c", "ERR wrong");
    client.fails("HGET a f", "WRONGTYPE");
    client.is("HSET h f v g w", "(2)");
    let info = client.run("INFO everything");
    for part in [
        "redis_version:7.0.15\\r\\n",
        "connected_clients:1\\r\\n",
        "cmdstat_get:calls=1,",
        "rejected_calls=1,failed_calls=0",
        "errorstat_WRONGTYPE:count=1\\r\\n",
        "db0:keys=2,",
    ] {
        assert!(info.contains(part), "{part} is not in {info}");
    }
    client.is("CONFIG SET slowlog-log-slower-than 0", "OK");
    client.is("PING", "PONG");
    let slow = client.run("SLOWLOG GET 1");
    assert!(slow.contains("['PING']"), "{slow}");
    client.is("SLOWLOG RESET", "OK");
    client.is("WAIT 0 0", "(0)");
    client.is("SAVE", "OK");
    client.is("DEBUG SLEEP 0", "OK");
    assert!(client.run("MEMORY USAGE a").starts_with('('));
    client.is("OBJECT ENCODING a", "'int'");
}

#[test]
fn no_parameter_shuts_everybody_out() {
    let served = Served::new();
    let mut client = served.client();
    for line in ["CONFIG SET proto-max-bulk-len 1048575", "CONFIG SET maxclients 0"] {
        client.fails(line, "ERR CONFIG SET failed (possibly related to argument");
    }
    client.is("CONFIG SET proto-max-bulk-len 1048576 maxclients 1", "OK");
    client.is("CONFIG SET slowlog-log-slower-than -1", "OK");
    client.is("PING", "PONG");
}
