//! Followers that refuse writes, and that become leaders.

use std::sync::Arc;

use bitcask::server::{FollowOptions, ServerError, ServerOptions, StoreFollower};

use super::support::{FOLLOW_KEY, Node, content, following, store};

#[test]
fn a_follower_refuses_every_write_and_says_where_the_leader_is() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    leader.db.put("k", "v").unwrap();
    let node = Node::follower(&dir.path().join("follower"), &leader);
    node.has_all_of(&leader);
    for (method, target) in [
        ("PUT", "/v1/keys/a%2Fb"),
        ("DELETE", "/v1/keys/k"),
        ("POST", "/v1/batch"),
        ("PUT", "/kv/k"),
        ("DELETE", "/kv/k"),
        ("POST", "/put"),
        ("POST", "/batch"),
        ("DELETE", "/delete/k"),
        ("POST", "/clear"),
    ] {
        let refused = node.send(method, target, b"").has(421);
        assert_eq!(refused.header("x-bitcask-leader"), Some(leader.url().as_str()));
        let there = format!("{}{target}", leader.url());
        assert_eq!(refused.header("location"), Some(there.as_str()), "{method} {target}");
        let body = refused.value();
        assert_eq!(body["code"], "follower");
        assert!(body["detail"].as_str().unwrap().contains(&leader.url()), "{body}");
    }
    assert_eq!(content(&node.db), content(&leader.db));
    // Reads, and what changes no data.
    node.send("GET", "/v1/keys/k", b"").has(200);
    node.send("POST", "/v1/get", br#"{"keys":["k"]}"#).has(200);
    node.send("POST", "/v1/merge", b"").has(200);
    node.send("POST", "/v1/verify", b"").has(200);
}

#[test]
fn a_promoted_follower_accepts_writes_and_remembers_it() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    leader.db.put("k", "v").unwrap();
    let path = dir.path().join("follower");
    let node = Node::follower(&path, &leader);
    node.has_all_of(&leader);
    assert_eq!(leader.send("POST", "/v1/promote", b"").has(409).value()["code"], "not_a_follower");
    for _ in 0..2 {
        let promoted = node.send("POST", "/v1/promote", b"").has(200).value();
        assert_eq!(promoted["role"], "leader");
        assert!(promoted["leader_position"].is_string(), "{promoted}");
    }
    assert_eq!(node.health()["replication"]["role"], "leader");
    node.send("PUT", "/v1/keys/own", b"1").has(204);
    leader.db.put("late", "2").unwrap();
    leader.db.sync().unwrap();
    node.stopped();
    let follow = || ServerOptions::new().follow(following(leader.url()));
    let refused = Node::try_on(&path, 0, follow()).err().unwrap();
    assert!(matches!(&refused, ServerError::Replication { .. }), "{refused}");
    assert!(refused.to_string().contains("was promoted"), "{refused}");
    // As a leader it goes on, and has followers of its own.
    let node = Node::on(&path, 0, ServerOptions::new());
    let other = Node::follower(&dir.path().join("other"), &node);
    other.has_all_of(&node);
    assert_eq!(content(&node.db).len(), 2);
    // A clear deletes its note about its earlier leader too, at the end of the batch.
    node.db
        .transaction(|tx| {
            tx.clear();
            tx.put("k", "2");
            tx.put("own", "2");
            Ok(())
        })
        .unwrap();
    other.has_all_of(&node);
    assert_eq!(other.db.get("own").unwrap().unwrap(), "2");
    drop(other);
    node.stopped();
    let anew = ServerOptions::new().follow(following(leader.url()).anew(true));
    let node = Node::on(&path, 0, anew);
    node.has_all_of(&leader);
    node.stopped();
    // Having begun anew, it just follows.
    Node::on(&path, 0, follow()).has_all_of(&leader);
}

#[test]
fn a_store_with_data_of_its_own_does_not_follow_by_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    leader.db.put("k", "v").unwrap();
    let own = Node::leader(&dir.path().join("own"));
    own.db.put("own", "1").unwrap();
    own.stopped();
    let follow = following(leader.url());
    let options = ServerOptions::new().follow(follow.clone());
    let refused = Node::try_on(&dir.path().join("own"), 0, options).err().unwrap().to_string();
    assert!(refused.contains("has data of its own"), "{refused}");
    let db = store().open(dir.path().join("own")).unwrap();
    assert_eq!(db.get("own").unwrap().unwrap(), "1");
    drop(db);
    let options = ServerOptions::new().follow(follow.anew(true));
    Node::on(&dir.path().join("own"), 0, options).has_all_of(&leader);
}

#[test]
fn a_follower_is_not_served_as_a_leader() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    leader.db.put("k", "v").unwrap();
    let path = dir.path().join("follower");
    let node = Node::follower(&path, &leader);
    node.has_all_of(&leader);
    node.stopped();
    let refused = Node::try_on(&path, 0, ServerOptions::new()).err().unwrap().to_string();
    assert!(refused.contains("follows a leader"), "{refused}");
}

#[test]
fn a_follower_works_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    leader.db.put("k", "v").unwrap();
    let db = Arc::new(store().open(dir.path().join("follower")).unwrap());
    let follower = StoreFollower::start(Arc::clone(&db), &following(leader.url())).unwrap();
    super::support::until("it has the key", || !follower.replica().is_loading());
    assert_eq!(content(&db), content(&leader.db));
    assert!(follower.replica().position().is_some());
    follower.promote().unwrap();
    assert!(!follower.replica().is_follower());
    drop(follower);
    db.put("own", "1").unwrap();
    assert!(db.get(FOLLOW_KEY).unwrap().unwrap().starts_with(b"promoted "));
    let wrong = StoreFollower::start(db, &FollowOptions::new("leader:8000"));
    assert!(matches!(wrong, Err(ServerError::InvalidServerOption { name: "follow", .. })));
}

/// The name of a snapshot that has been received.
const SNAPSHOT: &str = "FOLLOW.snapshot";

#[test]
fn promotion_removes_a_snapshot_that_was_about_to_be_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    leader.db.put("k", "of the leader").unwrap();
    let path = dir.path().join("follower");
    let node = Node::follower(&path, &leader);
    node.has_all_of(&leader);
    let received = leader.send("GET", "/v1/snapshot", b"").has(200).body;
    std::fs::write(path.join(SNAPSHOT), received).unwrap();
    node.send("POST", "/v1/promote", b"").has(200);
    assert!(!path.join(SNAPSHOT).exists());
    // The clear removes the record of the promotion, too.
    node.send("POST", "/clear", b"").has(200);
    node.send("PUT", "/v1/keys/own", b"1").has(204);
    let own = content(&node.db);
    node.stopped();
    let nowhere = ServerOptions::new().follow(following("http://127.0.0.1:1"));
    let refused = Node::try_on(&path, 0, nowhere).err().unwrap().to_string();
    assert!(refused.contains("has data of its own"), "{refused}");
    assert_eq!(content(&Node::on(&path, 0, ServerOptions::new()).db), own);
}

#[test]
fn an_old_snapshot_never_replaces_data_of_the_store_s_own() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    leader.db.put("k", "of the leader").unwrap();
    let received = leader.send("GET", "/v1/snapshot", b"").has(200).body;
    let nowhere = || following("http://127.0.0.1:1");
    for record in [None, Some(format!("promoted {}", leader.db.position()))] {
        let path = dir.path().join(if record.is_some() { "promoted" } else { "cleared" });
        let db = store().open(&path).unwrap();
        db.put("own", "1").unwrap();
        if let Some(record) = &record {
            db.put(FOLLOW_KEY, record).unwrap();
        }
        let own = content(&db);
        drop(db);
        let spoil = || std::fs::write(path.join(SNAPSHOT), &received).unwrap();
        spoil();
        let follow = ServerOptions::new().follow(nowhere());
        let refused = Node::try_on(&path, 0, follow).err().unwrap();
        assert!(matches!(refused, ServerError::Replication { .. }), "{refused}");
        // Even if the data is to be replaced, it is kept until the leader has been reached.
        let anew = ServerOptions::new().follow(nowhere().anew(true));
        let node = Node::on(&path, 0, anew);
        assert!(!node.replica().is_loading() && !path.join(SNAPSHOT).exists());
        super::support::until("it looks for its leader", || node.replica().last_error().is_some());
        assert_eq!(content(&node.db), own);
        node.stopped();
        spoil();
        let node = Node::on(&path, 0, ServerOptions::new());
        assert!(!path.join(SNAPSHOT).exists());
        assert_eq!(content(&node.db), own);
    }
}
