//! Questions that a node, or something else at its address, does not answer with 200.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::client::{AskFailure, PeerNetwork};
use super::messages::{PeerAnswer, PeerRequest};
use super::transport::Tcp;

/// Returns what is said of a question that a node answers with a status.
async fn asked(status: u16) -> Result<PeerAnswer, AskFailure> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 10];
        stream.read_exact(&mut head).await.unwrap();
        let answer = format!("HTTP/1.1 {status} No\r\ncontent-length: 3\r\n\r\nwhy");
        stream.write_all(answer.as_bytes()).await.unwrap();
        // Until the other side is done.
        drop(stream.read_to_end(&mut Vec::new()).await);
    });
    let (idle, progress, age) = (Arc::default(), Arc::default(), Arc::default());
    let (transport, cluster, secret) = (Tcp, None, Arc::from("secret"));
    let network = PeerNetwork { transport, group: 1, cluster, secret, idle, progress, age };
    let mut connection = network.connection_to(Some(1), &address);
    connection.ask_once(&PeerRequest::ReadIndex, Duration::from_secs(10)).await
}

#[tokio::test]
async fn a_node_that_fails_behind_a_request_may_have_done_it() {
    for status in [500, 503] {
        assert_eq!(asked(status).await.unwrap_err(), AskFailure::Unknown, "{status}");
    }
    for status in [400, 401, 404, 413] {
        let answer = asked(status).await.unwrap();
        let is_refused = matches!(answer, PeerAnswer::Failed(_) | PeerAnswer::Refused(_));
        assert!(is_refused, "{status}: {answer:?}");
    }
}
