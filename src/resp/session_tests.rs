//! Sessions without a socket: what comes before what, and what waits for a sync.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::sync::watch;

use super::admission::find;
use super::commands_table::table;
use super::database::{Database, Databases};
use super::events::EventClass;
use super::keyspace::{Keyspace, Lifespan};
use super::options::RespOptions;
use super::outbox::Outbox;
use super::reply::{OK, Protocol, Reply};
use super::reply_buffer::SentUpTo;
use super::reply_memory::ReplyMemory;
use super::server_state::RespState;
use super::session::Session;
use super::tracking::TrackingMode;
use crate::replica::Replica;
use crate::{Options, SyncPolicy};

/// A server with four databases that nobody can connect to.
pub(super) fn state() -> (TempDir, Arc<RespState>) {
    state_with(RespOptions::new())
}

pub(super) fn state_with(options: RespOptions) -> (TempDir, Arc<RespState>) {
    let dir = tempfile::tempdir().unwrap();
    let always = Options::new().sync_policy(SyncPolicy::Always);
    let store = Arc::new(always.clone().open(dir.path().join("0")).unwrap());
    let options = options.databases(dir.path(), 4, always);
    let databases = Databases::new(store, false, options.more.clone(), None).unwrap();
    let (stop, _) = watch::channel(false);
    (dir, Arc::new(RespState::new(databases, options, Arc::new(stop), 0)))
}

pub(super) fn session(state: &Arc<RespState>) -> Session {
    let outbox = Outbox::new(1 << 20);
    let peer = state.peers.add("a:1".into(), "b:1".into(), outbox, 10).unwrap();
    let mut session = Session::new(state, peer).unwrap();
    session.set_protocol(Protocol::Resp3);
    session
}

pub(super) fn args(line: &str) -> Vec<Bytes> {
    line.split(' ').map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect()
}

/// Takes everything that would be sent.
pub(super) fn sent(session: &mut Session) -> String {
    session.peer.outbox.take_into(&mut session.out);
    let (parts, count) = session.out.next(SentUpTo::default());
    let bytes: Vec<u8> = parts[..count].iter().flat_map(|part| part.to_vec()).collect();
    session.out.clear(0);
    String::from_utf8(bytes).unwrap()
}

/// Lets news come before a command and while it runs.
fn order_of(session: &mut Session, command: &str) -> String {
    let push = |text| Reply::Push(vec![Reply::Text(text)]);
    session.peer.outbox.send(&push("before"));
    let holds_news = session.begin_command(table().find(command).unwrap().1);
    session.peer.outbox.send(&push("during"));
    session.reply(&OK, holds_news);
    sent(session).replace("\r\n", " ")
}

#[test]
fn a_reply_to_a_read_comes_before_the_news_of_a_change() {
    let (_dir, state) = state();
    let mut session = session(&state);
    let (before, during) = (">1 $6 before ", ">1 $6 during ");
    assert_eq!(order_of(&mut session, "get"), format!("{before}{during}+OK "));
    session.tracking = Some(TrackingMode::default());
    for command in ["get", "mget", "hgetall", "exec"] {
        assert_eq!(order_of(&mut session, command), format!("{before}+OK {during}"), "{command}");
    }
    // What a client publishes to itself comes before the reply.
    assert_eq!(order_of(&mut session, "publish"), format!("{before}{during}+OK "));
}

#[test]
fn a_copy_waits_for_a_sync_of_the_other_database() {
    let (_dir, state) = state();
    let mut session = session(&state);
    session.run(&args("SET a 1"));
    for (lines, expected) in [
        (&["COPY a b DB 1"][..], &[1][..]),
        (&["MULTI", "SET x 1", "COPY a b DB 2 REPLACE", "EXEC"], &[0, 2]),
        (&["COPY a b DB 1"], &[]),
    ] {
        session.unsynced.clear();
        for line in lines {
            session.run(&args(line));
        }
        let numbers: Vec<usize> = session.unsynced.iter().map(|it| it.number).collect();
        assert_eq!(numbers, expected, "{lines:?}");
    }
    let replies = sent(&mut session);
    assert!(replies.ends_with("*2\r\n+OK\r\n:1\r\n:0\r\n"), "{replies}");
}

/// Returns the reply to a command, or `None` if it is refused.
fn reply_to(session: &mut Session, args: &[Bytes]) -> Option<Reply> {
    let (at, _) = find(args).ok()?;
    session.call(args, table().get(at)?).ok()
}

#[test]
fn replies_do_not_repeat_what_is_large() {
    let (_dir, state) = state();
    let mut session = session(&state);
    let name = "f".repeat(65_000);
    session.run(&args(&format!("HSET h {name} x")));
    let reply = reply_to(&mut session, &args("HRANDFIELD h -10000")).unwrap();
    let mut memory = ReplyMemory::default();
    memory.add(&OK).unwrap();
    memory.add(&reply).unwrap();
    let Reply::Array(names) = reply else { panic!("{reply:?}") };
    assert_eq!(names.len(), 10_000);
    assert!(matches!(&names[0], Reply::Stored(found) if *found == name));
    let many = args(&format!("COMMAND INFO{}", " client".repeat(100_000)));
    assert!(reply_to(&mut session, &many).is_none());
    let many = args(&format!("COMMAND DOCS{}", " client get".repeat(100_000)));
    let Some(Reply::Map(docs)) = reply_to(&mut session, &many) else { panic!("no map") };
    assert_eq!(docs.len(), 2);
}

#[test]
fn a_replica_says_so_and_whether_it_is_being_filled() {
    let replica = Replica::new("http://leader:8000".into());
    let (_dir, state) = state_with(RespOptions::new().replica(replica.clone()));
    state.databases.get(0).unwrap().store.put("k", "v").unwrap();
    let mut session = session(&state);
    session.run(&args("HELLO 3"));
    assert!(sent(&mut session).contains("role\r\n$7\r\nreplica\r\n"));
    let mut info = || {
        session.run(&args("INFO persistence keyspace"));
        sent(&mut session)
    };
    let ready = info();
    assert!(ready.contains("\r\nloading:0\r\n") && ready.contains("db0:keys=1,"), "{ready}");
    replica.begin_loading();
    let loading = info();
    assert!(loading.contains("\r\nloading:1\r\n") && !loading.contains("db0:"), "{loading}");
}

#[test]
fn the_names_that_a_client_keeps_are_limited() {
    let (_dir, state) = state();
    let mut session = session(&state);
    let large = "x".repeat(40 << 20);
    for command in ["SUBSCRIBE", "PSUBSCRIBE", "CLIENT TRACKING ON BCAST PREFIX"] {
        assert!(reply_to(&mut session, &args(&format!("{command} {large}"))).is_some());
        let second = args(&format!("{command} y{large}"));
        assert!(reply_to(&mut session, &second).is_none(), "{command}");
        for end in ["UNSUBSCRIBE", "PUNSUBSCRIBE"] {
            reply_to(&mut session, &args(end)).unwrap();
        }
        assert_eq!(session.subscribed_size, 0);
    }
    for number in 0..1000 {
        let prefixes = format!("CLIENT TRACKING ON BCAST PREFIX p{number:03}");
        assert_eq!(reply_to(&mut session, &args(&prefixes)).is_some(), number < 999);
    }
    let keys: Vec<_> = (0..300_000).map(|number| format!("k{number}")).collect();
    assert!(reply_to(&mut session, &args(&format!("WATCH {}", keys.join(" ")))).is_none());
    reply_to(&mut session, &args("UNWATCH")).unwrap();
    assert!(reply_to(&mut session, &args("WATCH k")).is_some());
    state.stop.send_replace(true);
    state.followers.join();
}

/// The follower tells such a change, since it has no note.
#[test]
fn a_command_that_began_before_anybody_followed_tells_of_no_change() {
    let (_dir, state) = state();
    let database = state.databases.get(0).unwrap();
    let mut space = Keyspace::new(&database);
    let key = Bytes::from_static(b"k");
    space
        .noted(&key, |space| {
            space.database.ledger.set_followed(true);
            space.database.store.put("k", "1")?;
            Ok(true)
        })
        .unwrap();
    space.event(EventClass::String, "set", &key);
    space.atomically(|space| space.put(b"new", b"1", Lifespan::Endless)).unwrap();
    assert!(space.deeds.events.is_empty() && space.deeds.has_written);
}

#[test]
fn a_key_is_not_new_if_its_write_fails() {
    let dir = tempfile::tempdir().unwrap();
    let store = Options::new().value_size_limit(4).open(dir.path()).unwrap();
    let database = Database::replicated(Arc::new(store)).unwrap();
    database.ledger.set_followed(true);
    let mut space = Keyspace::new(&database);
    space.put(b"k", b"12345", Lifespan::Endless).unwrap_err();
    assert!(space.deeds.events.is_empty());
    space.put(b"k", b"1234", Lifespan::Endless).unwrap();
    assert_eq!(space.deeds.events.len(), 1);
}

/// `DEBUG SLEEP` within `MULTI` held up as many threads as clients sent it.
#[test]
fn other_clients_are_served_while_a_transaction_takes_long() {
    let (_dir, state) = state();
    let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let (waits, begun) = mpsc::channel();
    let mut client = session(&state);
    let sleeping = runtime.spawn(async move {
        for line in ["MULTI", "DEBUG SLEEP 1000", "EXEC"] {
            waits.send(()).unwrap();
            client.run(&args(line));
        }
        sent(&mut client)
    });
    assert_eq!(begun.iter().take(3).count(), 3);
    let (served, other) = mpsc::channel();
    runtime.spawn(async move { served.send(()) });
    // There is a limit only so that a failure ends.
    let is_served = other.recv_timeout(Duration::from_secs(30)).is_ok();
    // Ends the sleep.
    state.stop.send_replace(true);
    let replies = runtime.block_on(sleeping).unwrap();
    assert!(is_served && replies.ends_with("*1\r\n+OK\r\n"), "{replies}");
}

#[test]
fn a_client_without_the_password_is_served_once_there_is_none() {
    let (_dir, state) = state_with(RespOptions::new().password("secret"));
    let mut session = session(&state);
    session.run(&args("GET k"));
    assert!(sent(&mut session).starts_with("-NOAUTH "));
    state.parameters.set(b"requirepass", b"");
    session.run(&args("GET k"));
    assert_eq!(sent(&mut session), "_\r\n");
    // It has not authenticated.
    state.parameters.set(b"requirepass", b"other");
    session.run(&args("GET k"));
    assert!(sent(&mut session).starts_with("-NOAUTH "));
}
