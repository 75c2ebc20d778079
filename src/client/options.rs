//! Options of the client.

use std::fmt;
use std::time::Duration;

use super::error::ClientError;
use crate::dialect::ITEMS_MAX;

/// Where a server is if nobody says so.
const USUAL_URL: &str = "http://localhost:8000";
/// Environment variable with the URL of the server.
const URL_VARIABLE: &str = "BITCASK_SERVER";
/// Environment variable with the token.
const TOKEN_VARIABLE: &str = "BITCASK_TOKEN";

/// Options of a [`Client`](super::Client).
///
/// ```
/// use std::time::Duration;
/// use bitcask::client::{Client, ClientOptions};
/// # fn main() -> Result<(), bitcask::client::ClientError> {
/// let options = ClientOptions::new()
///     .url("https://db.example.org:8443")
///     .token("secret")
///     .timeout(Duration::from_secs(5));
/// let client = Client::new(options)?;
/// assert_eq!(client.url(), "https://db.example.org:8443");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "options do nothing until they are passed to a client"]
pub struct ClientOptions {
    pub(super) url: Option<String>,
    pub(super) token: Option<String>,
    pub(super) ca_certificates: Option<Vec<u8>>,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) idle_connections_max: usize,
    pub(super) retries: usize,
    pub(super) retry_delay: Duration,
    pub(super) breaker_failures: u32,
    pub(super) breaker_cooldown: Duration,
    pub(super) answer_size_limit: u64,
    pub(super) page_len: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            url: None,
            token: None,
            ca_certificates: None,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            idle_connections_max: 16,
            retries: 3,
            retry_delay: Duration::from_millis(50),
            breaker_failures: 10,
            breaker_cooldown: Duration::from_secs(5),
            answer_size_limit: 256 << 20,
            page_len: 1000,
        }
    }
}

impl ClientOptions {
    /// Returns the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets where the server is: a URL with `http` or `https`, a host, and perhaps a port. The
    /// default is the environment variable `BITCASK_SERVER`, or else `http://localhost:8000`.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// Sets the token that the server requires. The default is the environment variable
    /// `BITCASK_TOKEN`, or else none. An empty token is none.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sets the certificates that the server's must descend from, in PEM form, for `https`. The
    /// default is those that the system trusts.
    pub fn ca_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_certificates = Some(pem.into());
        self
    }

    /// Sets how long to wait for an answer. The default is 30 seconds. Repeated attempts begin
    /// within this time, so a call takes at most twice as long. Merges have no limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how long to wait for a connection. The default is 10 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how many connections are kept for later requests. The default is 16. There are as many
    /// connections as calls at the same time, whatever this is.
    pub fn idle_connections_max(mut self, count: usize) -> Self {
        self.idle_connections_max = count;
        self
    }

    /// Sets how often a request is repeated that has failed in passing. The default is 3; 0 repeats
    /// nothing. [`Client`](super::Client) says which requests are repeated.
    pub fn retries(mut self, count: usize) -> Self {
        self.retries = count;
        self
    }

    /// Sets the delay before the first repetition. The default is 50 ms. Each further delay is
    /// twice as long, up to 2 seconds, and each gets up to its own length on top, at random, so
    /// that many clients do not return at the same moment.
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.retry_delay = delay;
        self
    }

    /// Sets after how many failed attempts in a row the client stops sending requests, and for how
    /// long. The default is 10 attempts and 5 seconds; 0 attempts switches this off.
    ///
    /// Meanwhile, calls fail at once with [`CircuitOpen`](ClientError::CircuitOpen). After that
    /// time, one request is sent. If it succeeds, all are sent again, and otherwise the time begins
    /// anew. Failures are connections that fail, answers that do not come in time, and the statuses
    /// 502, 503 and 504, except that of a store that accepts no more writes but can be read.
    pub fn circuit_breaker(mut self, failures: u32, cooldown: Duration) -> Self {
        self.breaker_failures = failures;
        self.breaker_cooldown = cooldown;
        self
    }

    /// Sets the size of the largest answer that is read into memory, in bytes. The default is
    /// 256 MiB. A value that is larger cannot be read.
    pub fn answer_size_limit(mut self, bytes: u64) -> Self {
        self.answer_size_limit = bytes;
        self
    }

    /// Sets how many keys a listing reads with one request, from 1 to 10,000. The default is 1,000.
    pub fn page_len(mut self, count: usize) -> Self {
        self.page_len = count;
        self
    }

    /// Returns an error if an option makes no sense. Returns the URL without a slash at its end.
    pub(super) fn check(&self) -> Result<String, ClientError> {
        let invalid = |name, value: String, reason: &str| {
            Err(ClientError::InvalidClientOption { name, value, reason: reason.to_owned() })
        };
        if self.page_len == 0 || self.page_len > ITEMS_MAX {
            return invalid("page_len", self.page_len.to_string(), "it has to be from 1 to 10,000");
        }
        for (name, time) in [("timeout", self.timeout), ("connect_timeout", self.connect_timeout)] {
            if time.is_zero() {
                return invalid(name, "zero".into(), "it has to be longer");
            }
        }
        let token = self.token.as_deref().unwrap_or_default();
        if !token.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            let reason = "it has to be printable ASCII";
            return invalid("token", "(hidden)".into(), reason);
        }
        let url = self.url.clone().unwrap_or_else(|| USUAL_URL.into());
        match checked(&url) {
            Ok(checked) => Ok(checked),
            Err(reason) => invalid("url", url, reason),
        }
    }

    /// Fills in what the environment has and nobody has set.
    pub(super) fn with_environment(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        let found = |name| variable(name).filter(|text| !text.is_empty());
        self.url = self.url.or_else(|| found(URL_VARIABLE));
        self.token = self.token.or_else(|| found(TOKEN_VARIABLE));
        self.token = self.token.filter(|token| !token.is_empty());
        self
    }
}

/// Returns a URL without a slash at its end, or why it names no server.
fn checked(url: &str) -> Result<String, &'static str> {
    const EXPECTED: &str = "expected a URL such as http://localhost:8000";
    let uri: ureq::http::Uri = url.parse().map_err(|_| EXPECTED)?;
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    let authority = uri.authority().filter(|_| is_web).ok_or(EXPECTED)?;
    let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !url.contains('#');
    if !is_bare || authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(EXPECTED);
    }
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    if !port.is_empty() && authority.port_u16().is_none() {
        return Err("the port has to be a number up to 65535");
    }
    Ok(url.strip_suffix('/').unwrap_or(url).to_owned())
}

/// Shows everything but the secrets.
impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("url", &self.url)
            .field("has_token", &self.token.is_some())
            .field("has_ca_certificates", &self.ca_certificates.is_some())
            .field("timeout", &self.timeout)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_and_perhaps_a_port() {
        let check = |url: &str| ClientOptions::new().url(url).check();
        assert_eq!(check("http://localhost:8000/").unwrap(), "http://localhost:8000");
        assert_eq!(check("https://example.org").unwrap(), "https://example.org");
        assert_eq!(check("http://[::1]:7").unwrap(), "http://[::1]:7");
        let wrong = [
            "",
            "localhost:8000",
            "localhost",
            "ftp://a",
            "http://",
            "http://a:b",
            "http://a/b:1",
            "http://a?b",
            "http://u:p@a",
            "http://a:99999",
            "http://a b",
            "http://a#b",
        ];
        for url in wrong {
            assert!(check(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_environment_fills_in_what_is_not_set() {
        let variable = |name: &str| match name {
            URL_VARIABLE => Some("http://there:1".to_owned()),
            TOKEN_VARIABLE => Some("secret".to_owned()),
            _ => None,
        };
        let filled = ClientOptions::new().with_environment(variable);
        assert_eq!(filled.check().unwrap(), "http://there:1");
        assert_eq!(filled.token.as_deref(), Some("secret"));
        let set = ClientOptions::new().url("http://here").token("").with_environment(variable);
        assert_eq!((set.check().unwrap().as_str(), &set.token), ("http://here", &None));
        let bare = ClientOptions::new().with_environment(|_| Some(String::new()));
        assert_eq!((bare.check().unwrap().as_str(), bare.token), (USUAL_URL, None));
    }

    #[test]
    fn options_that_make_no_sense_are_refused_and_secrets_are_not_shown() {
        for options in [
            ClientOptions::new().page_len(0),
            ClientOptions::new().page_len(ITEMS_MAX + 1),
            ClientOptions::new().timeout(Duration::ZERO),
            ClientOptions::new().token("two\nlines"),
        ] {
            assert!(options.check().is_err(), "{options:?}");
        }
        let shown = format!("{:?}", ClientOptions::new().token("secret"));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
