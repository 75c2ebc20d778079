//! Publishing, and what is published about keys.

use crate::support::Served;

#[test]
fn messages_reach_subscribers() {
    let served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    client.is("SUBSCRIBE a b", "['subscribe' 'a' (1)]");
    assert_eq!(client.read(), "['subscribe' 'b' (2)]");
    client.is("PSUBSCRIBE a*", "['psubscribe' 'a*' (3)]");
    other.is("PUBLISH a hello", "(2)");
    assert_eq!(client.read(), "['message' 'a' 'hello']");
    assert_eq!(client.read(), "['pmessage' 'a*' 'a' 'hello']");
    other.is("PUBLISH nobody hello", "(0)");
    let channels = other.run("PUBSUB CHANNELS");
    assert!(["['a' 'b']", "['b' 'a']"].contains(&&*channels), "{channels}");
    other.is("PUBSUB NUMSUB a x", "['a' (1) 'x' (0)]");
    other.is("PUBSUB NUMPAT", "(1)");
    client.fails("GET a", "ERR Can\\'t execute \\'get\\': only (P|S)SUBSCRIBE");
    client.is("PING", "['pong' '']");
    client.is("UNSUBSCRIBE a", "['unsubscribe' 'a' (2)]");
    client.is("UNSUBSCRIBE", "['unsubscribe' 'b' (1)]");
    client.is("PUNSUBSCRIBE", "['punsubscribe' 'a*' (0)]");
    client.is("UNSUBSCRIBE", "['unsubscribe' nil (0)]");
    client.is("PING", "PONG");
}

#[test]
fn a_subscriber_of_version_3_runs_commands() {
    let served = Served::new();
    let mut client = served.client();
    client.run("HELLO 3");
    client.is("SUBSCRIBE c", ">['subscribe' 'c' (1)]");
    client.is("SET a 1", "OK");
    client.is("PUBLISH c hello", ">['message' 'c' 'hello']");
    assert_eq!(client.read(), "(1)");
}

#[test]
fn what_happens_to_keys_is_published() {
    let served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    other.is("CONFIG SET notify-keyspace-events KEA", "OK");
    other.is("CONFIG GET notify-keyspace-events", "['notify-keyspace-events' 'AKE']");
    client.is("PSUBSCRIBE *", "['psubscribe' '*' (1)]");
    let mut next = |expected: &[(&str, &str)]| {
        for (event, key) in expected {
            let by_key = format!("['pmessage' '*' '__keyspace@0__:{key}' '{event}']");
            assert_eq!(client.read(), by_key);
            let by_event = format!("['pmessage' '*' '__keyevent@0__:{event}' '{key}']");
            assert_eq!(client.read(), by_event);
        }
    };
    other.is("SET foo bar", "OK");
    next(&[("set", "foo")]);
    other.is("SET foo bar EX 100", "OK");
    next(&[("set", "foo"), ("expire", "foo")]);
    other.is("INCR n", "(1)");
    next(&[("incrby", "n")]);
    other.is("DECR n", "(0)");
    other.is("DECRBY n 2", "(-2)");
    next(&[("incrby", "n"), ("incrby", "n")]);
    other.is("HSET h f v", "(1)");
    next(&[("hset", "h")]);
    other.is("HDEL h f", "(1)");
    next(&[("hdel", "h"), ("del", "h")]);
    other.is("RENAME foo foo2", "OK");
    next(&[("rename_from", "foo"), ("rename_to", "foo2")]);
    other.is("MULTI", "OK");
    other.is("SET x 1", "QUEUED");
    other.is("DEL x", "QUEUED");
    other.is("EXEC", "[OK (1)]");
    next(&[("set", "x"), ("del", "x")]);
    other.is("GET nothing", "nil");
    other.is("PSETEX soon 20 x", "OK");
    next(&[("set", "soon"), ("expire", "soon"), ("expired", "soon")]);
    // What the program itself does, without the port.
    served.db.put("program", "x").unwrap();
    next(&[("set", "program")]);
    served.db.delete("program").unwrap();
    next(&[("del", "program")]);
    other.is("DEL n", "(1)");
    next(&[("del", "n")]);
    other.is("CONFIG SET notify-keyspace-events KE$", "OK");
    other.is("DEL foo2", "(1)");
    other.is("SET last 1", "OK");
    next(&[("set", "last")]);
}

#[test]
fn monitors_see_commands() {
    let served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    client.is("MONITOR", "OK");
    other.is("SET a b", "OK");
    other.is("SELECT 1", "OK");
    other.run_args(&[b"ECHO", b"a \"quoted\"\r\n"]);
    let mut next = |expected: &str| {
        let line = client.read();
        assert!(line.ends_with(expected), "{line}");
    };
    next(r#"\"SET\" \"a\" \"b\""#);
    next(r#"\"SELECT\" \"1\""#);
    next(r#"\"ECHO\" \"a \\\"quoted\\\"\\r\\n\""#);
}

#[test]
fn monitors_see_a_transaction_when_it_runs() {
    let served = Served::new();
    let (mut monitor, mut client, mut other) = (served.client(), served.client(), served.client());
    monitor.is("MONITOR", "OK");
    client.is("WATCH k", "OK");
    client.is("MULTI", "OK");
    for command in ["SET a 1", "INCR k", "SELECT 1", "GET a", "PUBLISH c m"] {
        client.is(command, "QUEUED");
    }
    other.is("ECHO meanwhile", "'meanwhile'");
    client.is("EXEC", "[OK (1) OK nil (0)]");
    // Nothing of a transaction is shown that does not run.
    client.is("WATCH k", "OK");
    client.is("SET k 1", "OK");
    client.is("MULTI", "OK");
    client.is("GET k", "QUEUED");
    client.is("EXEC", "no array");
    client.is("MULTI", "OK");
    client.is("GET k", "QUEUED");
    client.is("DISCARD", "OK");
    let mut next = |database: usize, expected: &str| {
        let (line, command) = (monitor.read(), expected.replace(' ', "\\\" \\\""));
        let (_, after) = line.split_once(" [").unwrap();
        assert!(after.starts_with(&format!("{database} ")), "{line}");
        assert!(after.ends_with(&format!("] \\\"{command}\\\"")), "{line} {expected}");
    };
    for command in ["WATCH k", "MULTI", "ECHO meanwhile", "SET a 1", "INCR k"] {
        next(0, command);
    }
    for command in ["SELECT 1", "GET a", "PUBLISH c m", "EXEC"] {
        next(1, command);
    }
    for command in ["WATCH k", "SET k 1", "MULTI", "EXEC", "MULTI", "DISCARD"] {
        next(1, command);
    }
}

#[test]
fn passwords_are_shown_to_nobody() {
    let served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    client.is("MONITOR", "OK");
    other.is("CONFIG SET slowlog-log-slower-than 0", "OK");
    other.is("CONFIG SET timeout 0 RequirePass topsecret maxclients 100", "OK");
    other.is("ECHO done", "'done'");
    let line = client.read();
    assert!(line.ends_with("\\\"ECHO\\\" \\\"done\\\""), "{line}");
    let slow = other.run("SLOWLOG GET 10");
    assert!(slow.contains("'RequirePass' '(redacted)' 'maxclients' '100'"), "{slow}");
    assert!(!slow.contains("topsecret"), "{slow}");
}

#[test]
fn a_copy_to_a_database_that_nobody_has_selected_is_published() {
    let served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    other.is("CONFIG SET notify-keyspace-events EA", "OK");
    client.is("PSUBSCRIBE *", "['psubscribe' '*' (1)]");
    other.is("SET a 1", "OK");
    other.is("COPY a b DB 2", "(1)");
    assert_eq!(client.read(), "['pmessage' '*' '__keyevent@0__:set' 'a']");
    assert_eq!(client.read(), "['pmessage' '*' '__keyevent@2__:copy_to' 'b']");
}
