//! When keys expire.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::Served;

#[test]
fn a_time_to_live_is_set_and_removed() {
    let served = Served::new();
    let mut client = served.client();
    client.is("SET k v", "OK");
    client.is("TTL k", "(-1)");
    client.is("TTL missing", "(-2)");
    client.is("EXPIRE k 100", "(1)");
    client.is("EXPIRE missing 100", "(0)");
    client.is("TTL k", "(100)");
    client.is("PERSIST k", "(1)");
    client.is("PERSIST k", "(0)");
    client.is("PEXPIREAT k 33177117420000", "(1)");
    client.is("EXPIRETIME k", "(33177117420)");
    client.is("PEXPIRETIME k", "(33177117420000)");
    client.is("EXPIREAT k 33177117421", "(1)");
    client.is("PEXPIRETIME k", "(33177117421000)");
    client.is("PEXPIRETIME missing", "(-2)");
    client.is("PEXPIRE k 1", "(1)");
    client.becomes("EXISTS k", "(0)");
}

#[test]
fn conditions_compare_the_times() {
    let served = Served::new();
    let mut client = served.client();
    client.is("SET k v", "OK");
    client.is("EXPIRE k 100 XX", "(0)");
    client.is("EXPIRE k 100 GT", "(0)");
    client.is("EXPIRE k 200 LT", "(1)");
    client.is("EXPIRE k 100 NX", "(0)");
    client.is("EXPIRE k 100 GT", "(0)");
    client.is("EXPIRE k 300 GT", "(1)");
    client.is("EXPIRE k 400 LT", "(0)");
    client.is("TTL k", "(300)");
    client.fails("EXPIRE k 1 NX XX", "ERR NX and XX, GT or LT options at the same time");
    client.fails("EXPIRE k 1 GT LT", "ERR GT and LT options at the same time");
    client.fails("EXPIRE k 1 FOO", "ERR Unsupported option FOO");
    client.fails("EXPIRE k 9223372036854775807", "ERR invalid expire time in \\'expire\\' command");
    client
        .fails("PEXPIRE k 9223372036854775807", "ERR invalid expire time in \\'pexpire\\' command");
}

#[test]
fn a_time_that_has_passed_removes_the_key() {
    let served = Served::new();
    let mut client = served.client();
    client.is("MSET a 1 b 2 c 3", "OK");
    client.is("HSET hash f v", "(1)");
    client.is("EXPIRE a -1", "(1)");
    client.is("EXPIREAT b 1", "(1)");
    client.is("PEXPIRE hash 0", "(1)");
    client.is("EXISTS a b c hash", "(1)");
    client.is("HSET hash g w", "(1)");
    client.is("HGETALL hash", "['g' 'w']");
}

#[test]
fn a_hash_expires_with_all_its_fields() {
    let served = Served::new();
    let mut client = served.client();
    client.is("HSET hash a 1 b 2", "(2)");
    let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() + 50;
    client.is(&format!("PEXPIREAT hash {soon}"), "(1)");
    client.becomes("EXISTS hash", "(0)");
    client.is("HGETALL hash", "[]");
    client.is("HSET hash c 3", "(1)");
    client.is("TTL hash", "(-1)");
    client.is("HKEYS hash", "['c']");
    // Only the header, the field, and the mark that there are hashes.
    assert_eq!(served.db.snapshot().len().unwrap(), 3);
}

#[test]
fn a_hash_that_expires_gets_fields_that_expire() {
    let served = Served::new();
    let mut client = served.client();
    client.is("HSET hash a 1", "(1)");
    client.is("EXPIREAT hash 33177117420", "(1)");
    client.is("HSET hash b 2", "(1)");
    client.is("EXPIRETIME hash", "(33177117420)");
    let expiring = served.db.keys_unordered().map(|key| served.db.expiry(key.unwrap()).unwrap());
    let expiring = expiring.filter(|it| matches!(it, Some(bitcask::Expiry::At(_)))).count();
    assert_eq!(expiring, 3);
    client.is("PERSIST hash", "(1)");
    client.is("TTL hash", "(-1)");
}
