//! A service of notes with tokio and axum that ends gracefully.
//!
//! `cargo run --example tokio_axum --features server -- DIR ADDRESS` serves until Ctrl-C or
//! SIGTERM. Without arguments, it asks itself and ends. The feature only brings axum.

use std::{env, error::Error, fmt::Display, net::TcpListener, sync::Arc, thread, time::Duration};

use axum::extract::{Path, State};
use axum::{Router, body::Bytes, http::StatusCode, routing::get};
use bitcask::{Bitcask, Options, WriteOptions};
use tokio::signal::{ctrl_c, unix};
use tokio::{runtime::Runtime, select, sync::oneshot, task::spawn_blocking, time::timeout};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;
type Store = State<Arc<Bitcask>>;

fn failure(error: impl Display) -> StatusCode {
    eprintln!("{error}");
    StatusCode::INTERNAL_SERVER_ERROR
}

/// Runs here: a get waits only for keys that are being loaded after an open, or uncached pages.
async fn read(db: Store, name: Path<String>) -> Result<Bytes, StatusCode> {
    db.get_with(name.0, Bytes::copy_from_slice).map_err(failure)?.ok_or(StatusCode::NOT_FOUND)
}

/// A durable put waits for the disk. Puts that wait at the same time share a sync.
async fn write(db: Store, name: Path<String>, note: Bytes) -> Result<StatusCode, StatusCode> {
    let durable = WriteOptions::new().durable(true);
    let put = spawn_blocking(move || db.put_opt(name.0, note, durable)).await;
    put.map_err(failure)?.map_err(failure).map(|()| StatusCode::NO_CONTENT)
}

async fn signalled() -> Outcome<()> {
    let mut terminated = unix::signal(unix::SignalKind::terminate())?;
    select! { pressed = ctrl_c() => Ok(pressed?), _ = terminated.recv() => Ok(()) }
}

/// Serves until `stop` is done, and then until all requests that have begun are answered. A client
/// that does not finish its request delays that by ten seconds, or until the next signal.
fn serve(db: Bitcask, at: TcpListener, stop: impl Future<Output = Outcome<()>>) -> Outcome<()> {
    at.set_nonblocking(true)?;
    let (runtime, db) = (Runtime::new()?, Arc::new(db));
    let notes = Router::new().route("/notes/{name}", get(read).put(write)).with_state(db.clone());
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(at)?;
        let (ending, end) = oneshot::channel::<()>();
        let server = axum::serve(listener, notes).with_graceful_shutdown(async { drop(end.await) });
        let server = tokio::spawn(server.into_future());
        let (stopped, ()) = (stop.await, drop(ending));
        select! { _ = timeout(Duration::from_secs(10), server) => {}, end = signalled() => end? }
        stopped
    })?;
    drop(runtime); // No task has the store any more, so it can be closed.
    Ok(Arc::into_inner(db).ok_or("the store is in use")?.close()?)
}

fn main() -> Outcome<()> {
    if let [_, dir, address] = &env::args().collect::<Vec<_>>()[..] {
        let (db, listener) = (Options::new().open(dir)?, TcpListener::bind(address)?);
        println!("listening on {}", listener.local_addr()?);
        return serve(db, listener, signalled());
    }
    let dir = tempfile::tempdir()?;
    let (db, listener) = (Options::new().open(dir.path())?, TcpListener::bind("127.0.0.1:0")?);
    let url = format!("http://{}/notes/today", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let client = thread::spawn(move || {
        let _stop = stop; // Dropped when the client has ended, also by a panic.
        assert!(matches!(ureq::get(&url).call(), Err(ureq::Error::StatusCode(404))));
        assert_eq!(ureq::put(&url).send("buy apples")?.status(), StatusCode::NO_CONTENT);
        ureq::get(&url).call()?.into_body().read_to_string()
    });
    serve(db, listener, async { stopped.await.or(Ok(())) })?;
    println!("today: {}", client.join().map_err(|_| "the client has panicked")??);
    // The service has ended, and what it has stored is there.
    assert_eq!(Options::new().open(dir.path())?.get("today")?.as_deref(), Some(&b"buy apples"[..]));
    Ok(())
}
