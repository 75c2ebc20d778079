//! A server that answers what a test has written, or does not.

#![expect(clippy::unwrap_used, reason = "a test whose setup fails has failed")]

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What becomes of a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// The connection is closed once the request was read.
    Drop,
    /// Nothing, but the connection stays open.
    Hang,
    /// These bytes, and then the connection is closed.
    Bytes(Vec<u8>),
}

/// A server that answers each request with the next reply. The last one counts for all others.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) url: String,
    /// The heads of the requests.
    requests: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

/// Returns an answer as a server gives it.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> Reply {
    let len = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nrequest-id: fake\r\ncontent-length: {len}\r\n");
    Reply::Bytes(format!("{head}connection: close\r\n{headers}\r\n{body}").into_bytes())
}

/// Returns a refusal.
pub(crate) fn refusal(status: u16, code: &str) -> Reply {
    answer(status, "", &format!(r#"{{"detail":"it is {code}","code":"{code}"}}"#))
}

impl Fake {
    pub(crate) fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (noted, replies) = (Arc::clone(&requests), replies.into_iter().collect());
        let thread = Some(std::thread::spawn(move || serve(&listener, replies, &noted)));
        Self { url, requests, thread }
    }

    /// Returns the heads of the requests that were made.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Returns a header of each request.
    pub(crate) fn headers(&self, name: &str) -> Vec<Option<String>> {
        let of = |head: &String| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            let mut found = lines.filter(|(found, _)| found.eq_ignore_ascii_case(name));
            found.next().map(|(_, value)| value.to_owned())
        };
        self.requests().iter().map(of).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        // A connection without a request ends the server.
        let _ = TcpStream::connect(self.url.strip_prefix("http://").unwrap());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, mut replies: VecDeque<Reply>, noted: &Mutex<Vec<String>>) {
    let mut hanging = Vec::new();
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        let Some(head) = request(&stream) else { return };
        noted.lock().unwrap().push(head);
        let reply = if replies.len() > 1 { replies.pop_front() } else { replies.front().cloned() };
        match reply.unwrap() {
            Reply::Drop => {}
            Reply::Hang => hanging.push(stream),
            // A client that has given up does not read it.
            Reply::Bytes(bytes) => drop(stream.write_all(&bytes)),
        }
    }
}

/// Reads a request, and returns its head, or `None` if there is none.
fn request(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut len) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("content-length")
        {
            len = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        head += &line;
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    Some(head)
}
