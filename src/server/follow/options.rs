//! Which leader a store follows, and how it is reached.

use std::fmt;
use std::time::Duration;

use crate::server::error::ServerError;

/// Usual pause after the first failure in a row, and longest pause, apart from chance.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Which leader a [`StoreFollower`](super::StoreFollower) follows, and how it reaches it.
///
/// ```
/// use bitcask::server::{FollowOptions, ServerOptions};
///
/// let leader = FollowOptions::new("https://leader.example:8000").token("correct horse");
/// let options = ServerOptions::new().follow(leader);
/// # drop(options);
/// ```
#[derive(Clone)]
#[must_use = "options do nothing until a follower is started with them"]
pub struct FollowOptions {
    pub(super) url: String,
    pub(super) token: Option<String>,
    pub(super) authority: Option<Vec<u8>>,
    pub(super) anew: bool,
    pub(super) pauses: (Duration, Duration),
}

impl FollowOptions {
    /// Returns the options for a leader: the URL of a server of this crate, which may be a follower
    /// itself.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: None,
            authority: None,
            anew: false,
            pauses: (PAUSE_MIN, PAUSE_MAX),
        }
    }

    /// Sets the token that the leader asks for. By default, none is sent.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sets the certificates, in PEM form, of the authorities that may have signed the leader's
    /// certificate. By default, these are the authorities that the operating system trusts.
    pub fn authority(mut self, certificates: impl Into<Vec<u8>>) -> Self {
        self.authority = Some(certificates.into());
        self
    }

    /// Allows the leader's data to replace data that the store has of its own: because it was
    /// promoted, or has never followed. By default, such a store does not follow. A store that
    /// follows already just goes on.
    pub fn anew(mut self, yes: bool) -> Self {
        self.anew = yes;
        self
    }

    /// Sets how long the follower pauses after the first failure in a row, and at most. The pause
    /// doubles with each further failure, and is up to twice as long by chance, so that followers
    /// do not all come back at the same moment. The default is 100 ms and 15 s.
    pub fn pauses(mut self, first: Duration, longest: Duration) -> Self {
        self.pauses = (first, longest);
        self
    }

    /// Returns the URL without a slash at the end.
    pub(super) fn leader(&self) -> Result<String, ServerError> {
        let url = self.url.trim_end_matches('/');
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let is_fine = rest.is_some_and(|rest| {
            let host = rest.split(['/', ':']).next().unwrap_or_default();
            let is_named = !host.is_empty() || rest.starts_with('[');
            is_named
                && !rest.contains(['@', '?', '#'])
                && rest.bytes().all(|it| it.is_ascii_graphic())
        });
        if is_fine {
            return Ok(url.to_owned());
        }
        let reason = "expected the URL of the leader, such as http://leader:8000, without a name or \
                      a password in it";
        // A password that is in the URL by mistake must not be shown.
        let value = if url.contains('@') { "a URL with an @".into() } else { url.to_owned() };
        Err(ServerError::InvalidServerOption { name: "follow", value, reason })
    }
}

/// Shows everything but the token.
impl fmt::Debug for FollowOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowOptions")
            .field("url", &self.url)
            .field("has_token", &self.token.is_some())
            .field("has_authority", &self.authority.is_some())
            .field("anew", &self.anew)
            .field("pauses", &self.pauses)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_named_by_a_plain_url() {
        let leader = |url: &str| FollowOptions::new(url).leader();
        assert_eq!(leader("http://a:8000/").unwrap(), "http://a:8000");
        assert_eq!(leader("https://[::1]:1/base").unwrap(), "https://[::1]:1/base");
        for wrong in
            ["", "a:8000", "ftp://a", "http://", "http://u:p@a", "http://a b", "http://a?x"]
        {
            assert!(leader(wrong).is_err(), "{wrong}");
        }
    }
}
