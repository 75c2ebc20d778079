//! A client of a server: the feature `client`.
//!
//! A [`Client`] reads and writes the store that a `bitcask::server::Server` in another process
//! serves, for example `bitcask server start`. Its methods are those of an embedded store, and it
//! implements the same traits, [`ReadStore`](crate::ReadStore) and
//! [`WriteStore`](crate::WriteStore), so that code can move from one to the other. It blocks, and
//! no type of an HTTP library appears here.
//!
//! ```no_run
//! use bitcask::client::Client;
//! # fn main() -> Result<(), bitcask::client::ClientError> {
//! let db = Client::at("http://localhost:8000")?;
//! db.put("user/1", "Ada")?;
//! assert_eq!(db.get("user/1")?.unwrap(), "Ada");
//! for pair in db.prefix("user/") {
//!     let (key, value) = pair?;
//!     println!("{key:?} = {value:?}");
//! }
//! # Ok(())
//! # }
//! ```

// - `http` makes calls, each of one or more attempts; `call` is what is sent, `attempt` what has
//   failed, `breaker` when nothing is sent, `agents` the connections.
// - `point`, `conditional`, `many`, `listing`, `feed` and `admin` have the methods of the client.
// - `json` has the shapes of bodies. How keys, values and times are written is in `dialect`, which
//   the server uses too.

mod admin;
mod agents;
mod attempt;
mod breaker;
mod call;
mod conditional;
mod error;
mod feed;
mod http;
mod json;
mod listing;
mod many;
mod options;
mod point;
mod store;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

pub use admin::{RemoteStats, ServerHealth};
pub use error::ClientError;
pub use feed::RemoteChanges;
pub use listing::{RemoteKeys, RemotePairs};
pub use options::ClientOptions;

use call::{RemoteAnswer, RemoteCall};
use http::Transport;

/// A result of the client.
type ClientResult<T> = Result<T, ClientError>;

/// A store in another process, which a server serves.
///
/// A client keeps connections open and uses them again. Its clones share them, and what the client
/// knows of the server. All methods take `&self` and block, so a client can be shared between
/// threads, by reference or as clones.
///
/// # Repeated requests
///
/// A request that fails in passing is sent again after a short delay, three times by default:
/// because the connection has failed, or with the statuses 429, 502, 503 and 504. This concerns
/// reads, and puts and deletes without a condition, which come to the same if they are made twice:
/// [`delete`](Self::delete) then returns whether the key existed at the last attempt. Batches and
/// conditional writes are sent again only if the connection could not be made, so that they have
/// certainly not reached the server. A request that has timed out is not sent again.
///
/// # Errors
///
/// All methods return [`ClientError`]. [`ClientError::may_have_taken_effect`] says whether a write
/// that has failed may have been made all the same.
///
/// # Request ids
///
/// Each call has an id, which is in the log of the server. An error has it, and
/// [`last_request_id`](Self::last_request_id) returns that of the last answer.
pub struct Client {
    transport: Arc<Transport>,
    /// Lock 0: the id of the last answer. It is never held while anything is called.
    last_request_id: Mutex<Option<String>>,
}

impl Client {
    /// Returns a client with options. Makes no connection yet.
    ///
    /// # Errors
    ///
    /// [`InvalidClientOption`](ClientError::InvalidClientOption).
    pub fn new(options: ClientOptions) -> Result<Self, ClientError> {
        let transport = Arc::new(Transport::new(options)?);
        Ok(Self { transport, last_request_id: Mutex::new(None) })
    }

    /// Returns a client of the server at a URL, with the default options.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn at(url: impl Into<String>) -> Result<Self, ClientError> {
        Self::new(ClientOptions::new().url(url))
    }

    /// Returns a client of the server that the environment variable `BITCASK_SERVER` names, or else
    /// of the one at port 8000 of this machine.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn from_env() -> Result<Self, ClientError> {
        Self::new(ClientOptions::new())
    }

    /// Returns the URL of the server, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.transport.url
    }

    /// Returns the id of the last request that was answered through this handle, also if it was
    /// refused. If threads share one handle, it may be that of another thread; a clone has an id of
    /// its own.
    pub fn last_request_id(&self) -> Option<String> {
        self.last_request_id.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a call, and notes its id.
    fn call(&self, call: &RemoteCall<'_>) -> ClientResult<RemoteAnswer> {
        let id = self.transport.new_id();
        let result = self.transport.call(call, &id);
        match &result {
            Ok(answer) => self.note(&answer.request_id),
            Err(ClientError::Server { request_id, .. }) => self.note(request_id),
            Err(_) => {}
        }
        result
    }

    fn note(&self, id: &str) {
        let mut last = self.last_request_id.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(id.to_owned());
    }

    /// Returns the error of an answer that has an unexpected form.
    fn invalid(&self, answer: &RemoteAnswer, reason: impl fmt::Display) -> ClientError {
        self.transport.invalid(&answer.request_id, reason.to_string())
    }
}

/// The clone shares connections, and has no last request id yet.
impl Clone for Client {
    fn clone(&self) -> Self {
        Self { transport: Arc::clone(&self.transport), last_request_id: Mutex::new(None) }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.url()).finish_non_exhaustive()
    }
}
