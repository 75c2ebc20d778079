//! Many tasks, on several threads.

use std::collections::HashSet;

use serde_json::json;
use tower_sessions_core::SessionStore;
use tower_sessions_core::session::Id;

use crate::{created, record, with_sessions};

const TASKS: u64 = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_that_create_the_same_id_get_different_ones() {
    with_sessions(async |sessions| {
        let tasks = (0..TASKS).map(|number| {
            let sessions = sessions.clone();
            tokio::spawn(async move {
                let mut created = record(1, number);
                sessions.create(&mut created).await.unwrap();
                created
            })
        });
        let mut ids = HashSet::new();
        for task in tasks.collect::<Vec<_>>() {
            let created = task.await.unwrap();
            assert!(ids.insert(created.id), "two sessions have one id");
            assert_eq!(sessions.load(&created.id).await.unwrap(), Some(created));
        }
        assert!(ids.contains(&Id(1)), "one task has got the id");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_is_always_one_that_was_saved() {
    with_sessions(async |sessions| {
        created(&sessions, record(1, 0)).await;
        let tasks = (0..TASKS).map(|number| {
            let sessions = sessions.clone();
            tokio::spawn(async move {
                let mut saved = record(1, number);
                saved.data.insert("copy".to_owned(), json!(number));
                saved.data.insert("filler".to_owned(), json!("x".repeat(1000)));
                for _ in 0..10 {
                    sessions.save(&saved).await.unwrap();
                    let loaded = sessions.load(&Id(1)).await.unwrap().unwrap();
                    assert_eq!(loaded.data.get("number"), loaded.data.get("copy"));
                    tokio::task::yield_now().await;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    })
    .await;
}
