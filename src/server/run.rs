//! The life of a server: it accepts connections, and ends in order.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::connection::{self, ConnectionContext};
use super::error::ServerError;
use super::idle::RegisteredConnection;
use super::state::{ServerState, SharedServer};
use super::{Server, routes};

/// How often the owner's function is asked whether to stop.
const ASKED: Duration = Duration::from_millis(50);
/// How long to wait after the operating system could not give a connection.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Serves until the server stops, and closes the store.
pub(super) fn run(
    server: Server,
    should_stop: impl FnMut() -> bool + Send + 'static,
) -> Result<(), ServerError> {
    let Server { listener, address, tls, state } = server;
    let runtime = runtime(&state)?;
    log_start(&state, address);
    let asking = ask(should_stop, &state)?;
    runtime.spawn(Arc::clone(&state).observe());
    let context = ConnectionContext::new(routes::router(&state), tls, &state);
    let ended = runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        accept(listener, context, &state).await;
        Ok::<_, std::io::Error>(())
    });
    state.stop.raise();
    asking.thread().unpark();
    // If the function has panicked, the server could only be stopped by others.
    let _ = asking.join();
    // Waits for the calls of the store that have begun. A backup cannot be told to stop, and a disk
    // may hang.
    runtime.shutdown_timeout(state.options.calls_timeout);
    tracing::info!(target: "bitcask::server", event = "server_stopped", %address);
    let closed = close(state);
    ended.map_err(|source| ServerError::Runtime { source }).and(closed)
}

/// Asks whether to stop, on a thread of its own: the threads that handle requests may be busy.
fn ask(
    mut should_stop: impl FnMut() -> bool + Send + 'static,
    state: &ServerState,
) -> Result<JoinHandle<()>, ServerError> {
    let stop = state.stop.clone();
    let asking = std::thread::Builder::new().name("bitcask-server-stop".into()).spawn(move || {
        while !stop.is_raised() {
            if should_stop() {
                stop.raise();
            }
            std::thread::park_timeout(ASKED);
        }
    });
    asking.map_err(|source| ServerError::Runtime { source })
}

fn runtime(state: &ServerState) -> Result<Runtime, ServerError> {
    let mut builder = Builder::new_multi_thread();
    if let Some(count) = state.options.reactor_threads {
        builder.worker_threads(count);
    }
    builder.max_blocking_threads(state.blocking_threads());
    let built = builder.thread_name("bitcask-server").enable_all().build();
    built.map_err(|source| ServerError::Runtime { source })
}

/// Accepts connections until the server stops, and waits for their requests.
async fn accept(listener: TcpListener, context: ConnectionContext, state: &SharedServer) {
    let max = state.connections_max().min(Semaphore::MAX_PERMITS);
    let permits = Arc::new(Semaphore::new(max));
    let (idle, context) = (Arc::clone(&context.idle), Arc::new(context));
    loop {
        let accepted = async {
            let accepted = listener.accept().await;
            let permit = if accepted.is_ok() { idle.make_room(&permits).await } else { None };
            (permit, accepted)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = state.stop.raised() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let context = Arc::clone(&context);
                // Here, so that connections are idle in the order in which they were accepted.
                let registered = RegisteredConnection::new(&idle);
                tokio::spawn(async move {
                    connection::serve(stream, peer, registered, &context).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(target: "bitcask::server", event = "accept_failed", error = %error);
                sleep(AFTER_FAILURE).await;
            }
        }
    }
    // The port is free for a successor from here on.
    drop(listener);
    let all = u32::try_from(max).unwrap_or(u32::MAX);
    let drained = timeout(state.options.drain_timeout, permits.acquire_many(all)).await;
    if drained.is_err() {
        let open = max - permits.available_permits();
        tracing::warn!(target: "bitcask::server", event = "drain_timed_out", connections = open);
    }
}

/// Closes the store, unless the program has kept a handle to it.
fn close(state: SharedServer) -> Result<(), ServerError> {
    match Arc::try_unwrap(state) {
        Ok(ServerState { db, follower, .. }) => {
            // Once the follower is gone, nothing else of the server has the store.
            drop(follower);
            Arc::into_inner(db).map_or(Ok(()), |db| Ok(db.close()?))
        }
        // A call of the store goes on. It closes the store when it ends, if the program does not
        // end before. Then the next open finds a store as after a crash, with all that was written.
        Err(state) => {
            tracing::warn!(target: "bitcask::server", event = "calls_timed_out");
            Ok(state.db.sync()?)
        }
    }
}

/// Reports where the server listens, under the names that bitcaskpy uses, and what deserves a
/// warning.
fn log_start(state: &ServerState, address: std::net::SocketAddr) {
    let options = &state.options;
    let (tls, token) = (options.tls.is_some(), options.token.is_some());
    tracing::info!(
        target: "bitcask::server",
        event = "Server Starting",
        host = %address.ip(),
        port = address.port(),
        tls,
        token
    );
    tracing::info!(
        target: "bitcask::server",
        event = "Server configuration",
        data_dir = %state.db.path().display(),
        body_size_limit = options.body_size_limit,
        connections_max = state.connections_max(),
        store_threads = options.store_threads,
        request_timeout_ms = options.request_timeout.as_secs_f64() * 1000.0
    );
    if !address.ip().is_loopback() && !token {
        tracing::warn!(
            target: "bitcask::server",
            event = "open_to_the_network",
            %address,
            advice = "every machine that reaches this address can read and change the store; set \
                      a token"
        );
    }
}
