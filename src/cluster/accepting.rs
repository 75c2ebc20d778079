//! Accepts connections, from other nodes and from clients of HTTP.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::listener;

/// Maximum number of connections of a port. More wait until they are accepted.
const CONNECTIONS_MAX: usize = 4096;
/// Time in which whoever receives an answer has to take a part of it.
const UNREAD_MAX: Duration = Duration::from_secs(60);
/// How long to wait before accepting again when the process has too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves each connection in a task of its own, until the node is stopped.
pub(super) async fn serve_each<F>(
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
    serve: impl Fn(TcpStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    while !*stop.borrow() {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                // Without it, answers that are sent in parts wait for each other.
                drop(stream.set_nodelay(true));
                // Others that have vanished would keep their connections for ever.
                listener::notice_dead_peer(&stream, UNREAD_MAX);
                let served = serve(stream);
                connections.spawn(async move {
                    served.await;
                    drop(permit);
                });
            }
            // Too many open files, or a peer that is gone already.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}
