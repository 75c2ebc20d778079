//! A TCP stream whose patience with a client that does not read has an end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::idle::ConnectionActivity;
use crate::listener;

/// Maximum size of what the kernel has not sent yet, in bytes. Without a limit, it takes megabytes,
/// and the next write waits until a third of them is free: a client that reads slowly, but all the
/// time, would seem not to read.
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNSENT_MAX: u32 = 256 << 10;

/// A stream that fails once a write has made no progress for a while. Without this, a client that
/// stops reading would keep its connection, and the answer in memory, for as long as it likes.
pub(super) struct PatientStream {
    stream: TcpStream,
    limit: Duration,
    activity: Arc<ConnectionActivity>,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl PatientStream {
    pub(super) fn new(
        stream: TcpStream,
        limit: Duration,
        activity: Arc<ConnectionActivity>,
    ) -> Self {
        listener::notice_dead_peer(&stream, limit);
        // If this fails, only clients that read slowly suffer.
        #[cfg(any(target_os = "android", target_os = "linux"))]
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_MAX);
        Self { stream, limit, activity, waiting: None }
    }

    /// Returns what a write has returned, or an error if it has waited for too long.
    fn watched<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.activity.set_writing(written.is_pending());
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(waiting.as_mut().poll(context));
        let reason = "the client has not read its answer";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, reason)))
    }
}

impl AsyncRead for PatientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PatientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watched(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watched(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watched(context, shut)
    }
}

#[cfg(all(test, any(target_os = "android", target_os = "linux")))]
mod tests {
    use super::*;

    #[test]
    fn little_of_an_answer_lies_unsent_in_the_kernel() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = tokio::net::TcpSocket::new_v4().unwrap();
            client.set_recv_buffer_size(64 << 10).unwrap();
            let client = client.connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = PatientStream::new(stream, Duration::from_secs(3600), Arc::default());
            let socket = socket2::SockRef::from(&stream.stream);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(stream.limit));
            assert!(socket.keepalive().unwrap());
            let piece = vec![b'x'; 64 << 10];
            let mut written = 0;
            // The client does not read, so this ends with a write that has to wait.
            loop {
                let polled = std::future::poll_fn(|context| {
                    Poll::Ready(Pin::new(&mut stream).poll_write(context, &piece))
                });
                match polled.await {
                    Poll::Ready(size) => written += size.unwrap(),
                    Poll::Pending => break,
                }
            }
            assert!(written < 1 << 20, "{written}");
            drop(client);
        });
    }
}
