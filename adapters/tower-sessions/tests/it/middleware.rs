//! The middleware of tower-sessions in a service.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use axum::routing::{get, post};
use bitcask::Bitcask;
use time::Duration;
use tower::ServiceExt as _;
use tower_sessions::{Expiry, Session, SessionManagerLayer};
use tower_sessions_bitcask::BitcaskSessions;

use crate::{close, open};

async fn count(session: Session) -> String {
    let count = session.get::<u32>("count").await.unwrap().unwrap_or(0) + 1;
    session.insert("count", count).await.unwrap();
    count.to_string()
}

/// Gives the session another id, as a service does when a user logs in.
async fn log_in(session: Session) {
    session.cycle_id().await.unwrap();
}

async fn log_out(session: Session) {
    session.flush().await.unwrap();
}

fn service(db: &Arc<Bitcask>) -> Router {
    let sessions = SessionManagerLayer::new(BitcaskSessions::new(Arc::clone(db)));
    let sessions = sessions.with_expiry(Expiry::OnInactivity(Duration::hours(1)));
    let router = Router::new().route("/", get(count));
    router.route("/in", post(log_in)).route("/out", post(log_out)).layer(sessions)
}

/// Makes a request. Returns the body, and the cookie if it has one.
async fn ask(db: &Arc<Bitcask>, method: &str, path: &str, cookie: &str) -> (String, String) {
    let request = Request::builder().method(method).uri(path).header(header::COOKIE, cookie);
    let answer = service(db).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let cookie = answer.headers().get(header::SET_COOKIE).map(|cookie| cookie.to_str().unwrap());
    let cookie = cookie.and_then(|cookie| cookie.split(';').next()).unwrap_or_default().to_owned();
    let body = to_bytes(answer.into_body(), 1000).await.unwrap();
    (String::from_utf8(body.to_vec()).unwrap(), cookie)
}

#[tokio::test]
async fn a_service_counts_the_requests_of_a_session_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let (first, ann) = ask(&db, "GET", "/", "").await;
    let (second, _) = ask(&db, "GET", "/", &ann).await;
    let (other, bob) = ask(&db, "GET", "/", "").await;
    assert_eq!((&first[..], &second[..], &other[..]), ("1", "2", "1"));
    assert_ne!(ann, bob);
    // The key is what the cookie holds.
    let (_, id) = ann.split_once('=').unwrap();
    assert!(db.contains_key(format!("session/{id}")).unwrap());
    close(db);

    let db = open(dir.path());
    assert_eq!(ask(&db, "GET", "/", &ann).await.0, "3");
    assert_eq!(db.len().unwrap(), 2);
}

#[tokio::test]
async fn a_login_changes_the_id_and_a_logout_ends_the_session() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let (_, before) = ask(&db, "GET", "/", "").await;
    let (_, after) = ask(&db, "POST", "/in", &before).await;
    assert_ne!(before, after);
    assert_eq!(ask(&db, "GET", "/", &after).await.0, "2");
    assert_eq!(ask(&db, "GET", "/", &before).await.0, "1", "the old id is worth nothing");

    ask(&db, "POST", "/out", &after).await;
    assert_eq!(ask(&db, "GET", "/", &after).await.0, "1");
}
