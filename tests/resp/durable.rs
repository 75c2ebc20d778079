//! Writes that are durable when they are answered.

use bitcask::resp::RespOptions;
use bitcask::{Options, SyncPolicy};

use crate::support::{Served, encoded};

#[test]
fn writes_that_arrive_together_share_a_sync() {
    let always = Options::new().sync_policy(SyncPolicy::Always);
    let served = Served::with(&always, RespOptions::new());
    let mut client = served.client();
    client.is("SET first 1", "OK");
    let before = served.db.stats().syncs;
    client.send_raw(&encoded(&[b"INCR", b"n"]).repeat(100));
    for number in 1..=100 {
        assert_eq!(client.read(), format!("({number})"));
    }
    let syncs = served.db.stats().syncs - before;
    assert!((1..=50).contains(&syncs), "{syncs} syncs");
    client.is("GET n", "'100'");
    assert_eq!(served.db.stats().syncs - before, syncs);
}

#[test]
fn what_was_answered_is_there_after_a_restart() {
    let mut served = Served::new();
    let mut client = served.client();
    client.is("SET s v", "OK");
    client.is("HSET h f v", "(1)");
    served.end();
    drop(client);
    let dir = tempfile::tempdir().unwrap();
    served.db.backup(dir.path().join("0")).unwrap();
    let again = Served::within(dir, &Options::new(), RespOptions::new());
    let mut client = again.client();
    client.is("GET s", "'v'");
    client.is("HGETALL h", "['f' 'v']");
    client.is("SET h x", "OK");
    client.is("DBSIZE", "(2)");
    assert_eq!(again.db.snapshot().len().unwrap(), 3);
}
