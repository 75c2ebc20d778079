//! What tower-sessions expects of a store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bitcask::{Ttl, WriteOptions};
use time::OffsetDateTime;
use tower_sessions::{CachingSessionStore, Session};
use tower_sessions_bitcask::BitcaskSessions;
use tower_sessions_core::SessionStore;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store::{Error, Result};

use crate::{close, created, open, record, with_sessions};

#[tokio::test]
async fn a_created_session_is_loaded_as_it_is() {
    with_sessions(async |sessions| {
        let mut created = record(1, 10);
        sessions.create(&mut created).await.unwrap();
        assert_eq!(created, record_like(&created, 1, 10));
        assert_eq!(sessions.load(&Id(1)).await.unwrap(), Some(created));
        assert_eq!(sessions.load(&Id(2)).await.unwrap(), None);
    })
    .await;
}

/// Makes a record with the expiry date of another one.
fn record_like(other: &Record, id: i128, number: u64) -> Record {
    Record { expiry_date: other.expiry_date, ..record(id, number) }
}

#[tokio::test]
async fn an_id_that_is_taken_is_replaced() {
    with_sessions(async |sessions| {
        let (mut first, mut second) = (record(1, 10), record(1, 20));
        sessions.create(&mut first).await.unwrap();
        sessions.create(&mut second).await.unwrap();
        assert_eq!(first.id, Id(1));
        assert_ne!(second.id, Id(1));
        assert_eq!(sessions.load(&first.id).await.unwrap(), Some(first));
        assert_eq!(sessions.load(&second.id).await.unwrap(), Some(second));
    })
    .await;
}

#[tokio::test]
async fn the_id_of_an_expired_session_is_free() {
    with_sessions(async |sessions| {
        sessions.create(&mut expired(record(1, 10))).await.unwrap();
        let mut created = record(1, 20);
        sessions.create(&mut created).await.unwrap();
        assert_eq!(created.id, Id(1));
        assert_eq!(sessions.load(&Id(1)).await.unwrap(), Some(created));
    })
    .await;
}

fn expired(record: Record) -> Record {
    Record { expiry_date: OffsetDateTime::now_utc() - Duration::from_secs(1), ..record }
}

#[tokio::test]
async fn saving_replaces_a_session() {
    with_sessions(async |sessions| {
        let mut created = record(1, 10);
        sessions.create(&mut created).await.unwrap();
        let saved = record(1, 20);
        sessions.save(&saved).await.unwrap();
        assert_eq!(sessions.load(&Id(1)).await.unwrap(), Some(saved));
    })
    .await;
}

#[tokio::test]
async fn saving_stores_nothing_if_the_session_does_not_exist() {
    with_sessions(async |sessions| {
        sessions.save(&record(1, 10)).await.unwrap();
        assert_eq!(sessions.load(&Id(1)).await.unwrap(), None);

        let ended = created(&sessions, expired(record(2, 10))).await;
        sessions.save(&record(2, 20)).await.unwrap();
        assert_eq!(sessions.load(&ended.id).await.unwrap(), None);
    })
    .await;
}

/// A request loads a session and is slow. Meanwhile, another one logs out. When the first one ended
/// and saved what it had changed, the user was logged in again.
#[tokio::test]
async fn a_request_that_ends_after_a_logout_does_not_undo_it() {
    with_sessions(async |sessions| {
        let store = Arc::new(sessions);
        let login = Session::new(None, store.clone(), None);
        login.insert("user", "ann").await.unwrap();
        login.save().await.unwrap();
        let (id, session) = (login.id().unwrap(), |id| Session::new(Some(id), store.clone(), None));
        let slow = session(id);
        assert_eq!(slow.get("user").await.unwrap(), Some("ann".to_owned()));
        session(id).flush().await.unwrap();
        slow.insert("seen", 1).await.unwrap();
        slow.save().await.unwrap();
        assert_eq!(store.load(&id).await.unwrap(), None);
    })
    .await;
}

/// Sessions in memory. `save` stores a session that does not exist, as caches do.
#[derive(Debug, Clone, Default)]
struct InMemory(Arc<Mutex<HashMap<Id, Record>>>);

#[async_trait]
impl SessionStore for InMemory {
    async fn save(&self, record: &Record) -> Result<()> {
        self.0.lock().unwrap().insert(record.id, record.clone());
        Ok(())
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        Ok(self.0.lock().unwrap().get(id).cloned())
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        self.0.lock().unwrap().remove(id);
        Ok(())
    }
}

/// The README once recommended a cache in front, and now warns of what is shown here.
#[tokio::test]
async fn a_cache_in_front_takes_back_a_session_that_saving_leaves_out() {
    with_sessions(async |sessions| {
        let cache = InMemory::default();
        let cached = CachingSessionStore::new(cache.clone(), sessions.clone());
        let mut login = record(1, 10);
        cached.create(&mut login).await.unwrap();
        cached.delete(&login.id).await.unwrap();
        cached.save(&login).await.unwrap();
        assert_eq!(cached.load(&login.id).await.unwrap(), Some(login.clone()));
        assert_eq!(sessions.load(&login.id).await.unwrap(), None);
        cache.delete(&login.id).await.unwrap();
        assert_eq!(cached.load(&login.id).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_deleted_session_is_gone_and_the_others_are_not() {
    with_sessions(async |sessions| {
        created(&sessions, record(1, 10)).await;
        let kept = created(&sessions, record(2, 20)).await;
        sessions.delete(&Id(1)).await.unwrap();
        assert_eq!(sessions.load(&Id(1)).await.unwrap(), None);
        assert_eq!(sessions.load(&Id(2)).await.unwrap(), Some(kept));
        // Deleting what is not there is no failure.
        sessions.delete(&Id(1)).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_expired_session_is_not_loaded() {
    with_sessions(async |sessions| {
        created(&sessions, record(1, 10)).await;
        sessions.save(&expired(record(1, 10))).await.unwrap();
        assert_eq!(sessions.load(&Id(1)).await.unwrap(), None);

        let mut old = record(2, 20);
        old.expiry_date = OffsetDateTime::UNIX_EPOCH - Duration::from_secs(1);
        created(&sessions, old).await;
        assert_eq!(sessions.load(&Id(2)).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn saving_again_extends_a_session() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let sessions = BitcaskSessions::new(db.clone());
    let mut saved = created(&sessions, record(1, 10)).await;
    saved.expiry_date += Duration::from_secs(3600);
    sessions.save(&saved).await.unwrap();
    let Some(Ttl::In(left)) = db.ttl(format!("session/{}", Id(1))).unwrap() else { panic!() };
    assert!(left > Duration::from_secs(3600), "{left:?}");
}

#[tokio::test]
async fn sessions_survive_a_restart() {
    for durable in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path());
        let saved: Vec<Record> = (0..100).map(|id| record(id, 7)).collect();
        let sessions = BitcaskSessions::new(db.clone()).durable(durable);
        for record in &saved {
            created(&sessions, record.clone()).await;
        }
        sessions.delete(&Id(5)).await.unwrap();
        drop(sessions);
        close(db);

        // Loading begins at once, while the keys are still being loaded.
        let sessions = BitcaskSessions::new(open(dir.path()));
        for record in saved {
            let expected = (record.id != Id(5)).then_some(record.clone());
            assert_eq!(sessions.load(&record.id).await.unwrap(), expected);
        }
    }
}

#[tokio::test]
async fn services_with_different_prefixes_share_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let (shop, blog) = (BitcaskSessions::new(db.clone()), BitcaskSessions::new(db.clone()));
    let blog = blog.prefix("blog/session/");
    created(&shop, record(1, 10)).await;
    assert_eq!(blog.load(&Id(1)).await.unwrap(), None);
    created(&blog, record(1, 20)).await;
    blog.delete(&Id(1)).await.unwrap();
    assert!(shop.load(&Id(1)).await.unwrap().is_some());
    assert_eq!(db.len().unwrap(), 1);
}

#[tokio::test]
async fn a_durable_change_has_been_synced() {
    let dir = tempfile::tempdir().unwrap();
    let options = bitcask::Options::new().sync_policy(bitcask::SyncPolicy::Never);
    let db = std::sync::Arc::new(options.open(dir.path()).unwrap());
    let sessions = BitcaskSessions::new(db.clone());
    // The first write creates the segment, which takes syncs of its own.
    created(&sessions, record(1, 10)).await;
    let syncs = || db.counters().syncs;
    let before = syncs();
    sessions.save(&record(1, 20)).await.unwrap();
    assert_eq!(syncs(), before);
    sessions.clone().durable(true).save(&record(1, 30)).await.unwrap();
    assert_eq!(syncs(), before + 1);
    sessions.delete(&Id(1)).await.unwrap();
    assert_eq!(syncs(), before + 2);
}

#[tokio::test]
async fn failures_say_what_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let sessions = BitcaskSessions::new(db.clone());
    db.put_opt(format!("session/{}", Id(1)), "no session", WriteOptions::new()).unwrap();
    assert!(matches!(sessions.load(&Id(1)).await, Err(Error::Decode(_))));

    let sessions = sessions.prefix("x".repeat(70_000));
    assert!(matches!(sessions.save(&record(1, 10)).await, Err(Error::Backend(_))));
    assert!(matches!(sessions.create(&mut record(1, 10)).await, Err(Error::Backend(_))));
}
