//! Strings.

use crate::support::{Served, encoded};

#[test]
fn set_has_all_its_options() {
    let served = Served::new();
    let mut client = served.client();
    client.is("SET a 1 NX", "OK");
    client.is("SET a 2 NX", "nil");
    client.is("SET b 1 XX", "nil");
    client.is("SET a 2 XX GET", "'1'");
    client.is("SET a 3 NX GET", "'2'");
    client.is("SET c 1 GET", "nil");
    client.is("SET a 4 IFEQ 2", "OK");
    client.is("SET a 5 IFEQ 2", "nil");
    client.is("SET a 5 IFNE 4", "nil");
    client.is("SET missing 1 IFEQ 1", "nil");
    client.is("SET a 5 EX 100", "OK");
    client.is("SET a 6 KEEPTTL", "OK");
    client.is("TTL a", "(100)");
    client.is("SET a 7", "OK");
    client.is("TTL a", "(-1)");
    client.is("SET a 8 PXAT 33177117420000", "OK");
    client.is("PEXPIRETIME a", "(33177117420000)");
    client.is("SET a 9 EXAT 1", "OK");
    client.is("GET a", "nil");
    for wrong in
        ["SET a 1 NX XX", "SET a 1 EX", "SET a 1 EX 1 PX 1", "SET a 1 FOO", "SET a 1 EX 1 KEEPTTL"]
    {
        client.is(wrong, "(error) ERR syntax error");
    }
    client.fails("SET a 1 EX 0", "ERR invalid expire time in \\'set\\' command");
    client.fails("SET a 1 EX 9223372036854775807", "ERR invalid expire time in \\'set\\' command");
    client.fails("SET a 1 EX x", "ERR value is not an integer or out of range");
}

#[test]
fn numbers_are_counted() {
    let served = Served::new();
    let mut client = served.client();
    client.is("INCR n", "(1)");
    client.is("INCRBY n 41", "(42)");
    client.is("DECR n", "(41)");
    client.is("DECRBY n 50", "(-9)");
    client.is("SET n 9223372036854775807", "OK");
    client.fails("INCR n", "ERR increment or decrement would overflow");
    client.fails("DECRBY n -9223372036854775808", "ERR decrement would overflow");
    client.is("SET n 1x", "OK");
    client.fails("INCR n", "ERR value is not an integer or out of range");
    client.is("SET n 3", "OK");
    client.is("INCRBYFLOAT n 1.1", "'4.1'");
    client.is("INCRBYFLOAT n -4.2", "'-0.1'");
    client.fails("INCRBYFLOAT n nan", "ERR value is not a valid float");
    client.is("SET t 1 EX 100", "OK");
    client.is("INCR t", "(2)");
    client.is("TTL t", "(100)");
}

#[test]
fn parts_of_strings_are_read_and_written() {
    let served = Served::new();
    let mut client = served.client();
    client.is("APPEND s Hello", "(5)");
    client.is("APPEND s World", "(10)");
    client.is("GETRANGE s 0 4", "'Hello'");
    client.is("SUBSTR s -5 -1", "'World'");
    client.is("SETRANGE s 5 -", "(10)");
    client.is("GET s", "'Hello-orld'");
    client.is("SETRANGE new 3 x", "(4)");
    client.is("GET new", r"'\x00\x00\x00x'");
    client.is("STRLEN s", "(10)");
    client.is("STRLEN missing", "(0)");
    client.fails("SETRANGE s -1 x", "ERR offset is out of range");
    client.fails("SETRANGE s 536870911 xy", "ERR string exceeds maximum allowed size");
    client.is("EXISTS missing", "(0)");
}

#[test]
fn several_strings_are_set_at_once() {
    let served = Served::new();
    let mut client = served.client();
    client.is("MSET a 1 b 2", "OK");
    client.is("MSETNX c 3 a 4", "(0)");
    client.is("MSETNX c 3 d 4", "(1)");
    client.is("MGET a b missing c", "['1' '2' nil '3']");
    client.fails("MSET a", "ERR wrong number of arguments for \\'mset\\' command");
    client.fails("MSET a 1 b", "ERR wrong number of arguments for \\'mset\\' command");
    client.is("GETSET a 5", "'1'");
    client.is("GETDEL a", "'5'");
    client.is("GETDEL a", "nil");
    client.is("SETNX b 1", "(0)");
    client.is("SETEX e 100 x", "OK");
    client.is("PSETEX e 100000 x", "OK");
    client.is("TTL e", "(100)");
    client.is("GETEX e PERSIST", "'x'");
    client.is("TTL e", "(-1)");
    client.is("GETEX e EX 50", "'x'");
    client.is("TTL e", "(50)");
}

#[test]
fn a_value_is_compared_before_it_is_changed() {
    let served = Served::new();
    let mut client = served.client();
    client.is("SET k value", "OK");
    let digest = client.run("DIGEST k");
    assert_eq!(digest.len(), 18, "{digest}");
    let digest = digest.trim_matches('\'').to_owned();
    client.is("DELEX k IFEQ other", "(0)");
    client.is(&format!("SET k new IFDEQ {digest}"), "OK");
    client.is(&format!("DELEX k IFDEQ {digest}"), "(0)");
    client.is("DELEX k IFNE old", "(1)");
    client.is("DELEX k", "(0)");
    client.is("DIGEST k", "nil");
    client.fails("DELEX k IFDEQ 12", "ERR the digest must be");
}

#[test]
fn strings_lie_in_the_store_as_they_are() {
    let served = Served::new();
    let mut client = served.client();
    client.is("SET key value", "OK");
    assert_eq!(served.db.get("key").unwrap().unwrap(), "value");
    served.db.put("other", "from the program").unwrap();
    client.is("GET other", "'from the program'");
    // Keys and values that could be taken for something else.
    let keys: [&[u8]; 5] = [b"", b"\0", b"\0\0", b"\0hxxxxxxxxname", b"\0m"];
    for key in keys {
        let value = [b"\0bitcasks", key].concat();
        assert_eq!(client.run_args(&[b"SET", key, &value]), "OK");
    }
    for key in keys {
        let value = [b"\0bitcasks", key].concat();
        let reply = client.run_args(&[b"GET", key]);
        assert_eq!(reply, format!("'{}'", value.escape_ascii()));
    }
    client.is("DBSIZE", "(7)");
    assert_eq!(client.run_args(&[b"KEYS", b"\0*"]).matches('\'').count(), 8);
}

#[test]
fn a_damaged_string_fails_alone() {
    let mut served = Served::new();
    let mut client = served.client();
    for number in 0..20 {
        let value = format!("value{number:02}").repeat(10);
        client.is(&format!("SET k{number} {value}"), "OK");
    }
    served.end();
    drop(client);
    let dir = std::mem::replace(&mut served.dir, tempfile::tempdir().unwrap());
    drop(served);
    let wanted = "value07".repeat(10);
    for file in std::fs::read_dir(dir.path().join("0")).unwrap() {
        let path = file.unwrap().path();
        if !path.is_file() {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(wanted.len()).position(|part| part == wanted.as_bytes());
        if let Some(at) = found {
            bytes[at + 3] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let served = Served::within(dir, &bitcask::Options::new(), bitcask::resp::RespOptions::new());
    let mut client = served.client();
    let gets = (0..20).flat_map(|at| encoded(&[b"GET", format!("k{at}").as_bytes()]));
    client.send_raw(&gets.collect::<Vec<u8>>());
    for number in 0..20 {
        let reply = client.read();
        if number == 7 {
            assert!(reply.starts_with("(error) ERR"), "{reply}");
        } else {
            assert_eq!(reply, format!("'{}'", format!("value{number:02}").repeat(10)));
        }
    }
}

#[test]
fn options_are_checked_before_their_values() {
    let served = Served::new();
    let mut client = served.client();
    client.fails("SET k v EX abc BAD", "ERR syntax error");
    client.fails("SET k v EX abc", "ERR value is not an integer or out of range");
    client.fails("SET k v EX 10 PX 10", "ERR syntax error");
    client.fails("SET k v KEEPTTL EX 10", "ERR syntax error");
    client.is("SET k v EX 10 EX 2000", "OK");
    client.is("SET k v KEEPTTL KEEPTTL", "OK");
    client.is("TTL k", "(2000)");
    client.fails("EXPIRE k abc BAD", "ERR Unsupported option BAD");
    client.fails("EXPIRE k abc NX GT", "ERR NX and XX, GT or LT options at the same time");
    client.is("GETEX missing EX abc", "nil");
    client.fails("GETEX k EX abc", "ERR value is not an integer or out of range");
    client.fails("GETEX missing EX abc BAD", "ERR syntax error");
    client.is("HSET h f v", "(1)");
    client.fails("GETEX h EX 0", "WRONGTYPE");
    client.fails("HRANDFIELD h 9223372036854775807 WITHVALUES", "ERR value is out of range");
    client.fails("SLOWLOG GET abc", "ERR count should be greater than or equal to -1");
}
