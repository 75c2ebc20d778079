//! Asks a server: one request of HTTP/1.1, over a connection of its own.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use crate::failure::Failure;
use crate::program::Program;

/// How long to wait for a connection, and for each part of an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Maximum size of an answer, in bytes.
const ANSWER_SIZE_MAX: u64 = 1 << 20;

/// A server, as a URL names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteServer {
    host: String,
    port: u16,
}

/// What a server has answered.
#[derive(Debug)]
pub(crate) struct RemoteAnswer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl RemoteServer {
    /// Returns the server that the user has named, or the one in the settings.
    pub(crate) fn chosen(url: Option<&str>, program: &mut Program) -> Result<Self, Failure> {
        match url {
            None => program.settings()?.parsed("server", Self::parse),
            Some(url) => Self::parse(url).map_err(|reason| {
                Failure::usage(format!("`{url}` names no server: {reason}"), EXAMPLE)
            }),
        }
    }

    /// Reads a URL.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let Some(rest) = url.strip_prefix("http://") else {
            let is_tls = url.starts_with("https://");
            let reason = if is_tls { "this program speaks no TLS yet" } else { EXAMPLE };
            return Err(reason.into());
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        // An IPv6 address stands in brackets, and its colons are no ports.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (authority, "80"),
        };
        let port = port.parse().map_err(|_| format!("`{port}` is no port"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
            return Err(EXAMPLE.into());
        }
        Ok(Self { host: host.into(), port })
    }

    /// Returns the URL.
    pub(crate) fn url(&self) -> String {
        let host = &self.host;
        if host.contains(':') {
            format!("http://[{host}]:{}", self.port)
        } else {
            format!("http://{host}:{}", self.port)
        }
    }

    /// Sends a request without a body.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
    ) -> Result<RemoteAnswer, Failure> {
        let unreachable = |error: &io::Error| {
            let what = format!("no server answers at {}: {error}", self.url());
            Failure::store(
                what,
                "start one with `bitcask server start`, or name another with \
                                  --server or BITCASK_SERVER",
            )
        };
        let answer = self.exchange(method, path, token).map_err(|error| unreachable(&error))?;
        parsed(&answer).ok_or_else(|| {
            let what = format!("what answers at {} is no server of this program", self.url());
            Failure::store(what, "check the host and the port")
        })
    }

    fn exchange(&self, method: &str, path: &str, token: Option<&str>) -> io::Result<Vec<u8>> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => return self.talk(stream, method, path, token),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn talk(
        &self,
        mut stream: TcpStream,
        method: &str,
        path: &str,
        token: Option<&str>,
    ) -> io::Result<Vec<u8>> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let authority = self.url();
        let authority = authority.strip_prefix("http://").unwrap_or_default();
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\
             Content-Length: 0\r\n{}\r\n",
            token.unwrap_or_default()
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_SIZE_MAX).read_to_end(&mut answer)?;
        Ok(answer)
    }
}

/// What a URL looks like.
const EXAMPLE: &str = "expected a URL such as http://localhost:8000";

/// Takes an answer apart.
fn parsed(answer: &[u8]) -> Option<RemoteAnswer> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(RemoteAnswer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_and_a_port() {
        let url = |text: &str| RemoteServer::parse(text).map(|server| server.url());
        assert_eq!(url("http://localhost:8000/").unwrap(), "http://localhost:8000");
        assert_eq!(url("http://example.org").unwrap(), "http://example.org:80");
        assert_eq!(url("http://[::1]:7").unwrap(), "http://[::1]:7");
        assert_eq!(url("http://[::1]").unwrap(), "http://[::1]:80");
        for wrong in ["", "localhost:8000", "https://a", "http://", "http://a:b", "http://a/b:1"] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = parsed(b"HTTP/1.1 404 Not Found\r\na: b\r\n\r\n{}").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (404, "{}"));
        for wrong in [&b""[..], b"+PONG\r\n", b"HTTP/1.1 x y\r\n\r\n", b"HTTP/1.1 200 OK\r\n"] {
            assert!(parsed(wrong).is_none());
        }
    }
}
