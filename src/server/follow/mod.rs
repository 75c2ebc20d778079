//! Followers: a store that has what another one has, a moment later.
//!
//! - `puller` receives the leader's changes and applies them, whole batches at a time (`group`),
//!   each time together with the position behind them (`record`).
//! - `resync` reads all of the leader's data when its changes are not enough, through a file
//!   (`spool`).
//! - `link` sends the requests, `stopping` ends the thread, `options` say which leader it is.
//! - Nothing but the follower may write to its store. The servers see to that by `Replica`; a
//!   program that has the store itself must not.

mod group;
mod link;
mod options;
mod puller;
mod record;
mod resync;
mod spool;
mod stopping;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use options::FollowOptions;

use super::error::ServerError;
use crate::error::Error;
use crate::options::WriteOptions;
use crate::replica::Replica;
use crate::store::{Batch, Bitcask, Position};
use link::Leader;
use puller::Puller;
use record::FollowRecord;
use spool::Spool;
use stopping::FollowStop;

/// Keeps a store equal to another one, a moment later: it receives the changes of a server, and
/// applies each of them exactly once.
///
/// A [`Server`](super::Server) has one if its options say so
/// ([`follow`](super::ServerOptions::follow)), and refuses writes then. A program may also start
/// one by itself, without a server, and must not write to the store as long as it follows.
/// Dropping it ends it; the store stays as it is, and can go on later.
///
/// Reads of the program itself are not refused while all data is being replaced:
/// [`Replica::is_loading`] says when that is so.
pub struct StoreFollower {
    db: Arc<Bitcask>,
    replica: Replica,
    leader: Leader,
    pauses: (Duration, Duration),
    /// Lock 0: the thread, while the store follows. It is held while a follower is promoted.
    thread: Mutex<Option<FollowThread>>,
}

/// A thread that follows, and how it is ended.
struct FollowThread {
    stop: FollowStop,
    handle: JoinHandle<()>,
}

impl FollowThread {
    fn end(self) {
        self.stop.raise();
        // A panic was reported by the thread.
        let _ = self.handle.join();
    }
}

/// Why a store does not follow, or is not served.
mod reasons {
    pub(super) const PROMOTED: &str = "was promoted, and may have accepted writes of its own \
        since; to replace its data by the leader's, let it follow anew (--follow-anew)";
    pub(super) const OWN_DATA: &str = "has data of its own; to replace it by the leader's, let it \
        follow anew (--follow-anew)";
    pub(super) const UNKNOWN: &str = "has a note about its leader from another version of this \
        program; use that version";
    pub(super) const FOLLOWS: &str = "follows a leader; start the server with --follow, and \
        promote it if it shall accept writes";
    pub(super) const EMPTY: &str = "does not have all of its leader's data yet; wait until it has, \
        or promote another follower";
}

fn refused<T>(db: &Bitcask, reason: &'static str) -> Result<T, ServerError> {
    Err(ServerError::Replication { path: db.path().to_owned(), reason })
}

/// Returns an error if a store follows a leader, and so must not be written to.
pub(super) fn refuse_follower(db: &Bitcask) -> Result<(), ServerError> {
    let record = FollowRecord::read(db)?;
    match record {
        Some(FollowRecord::Unknown) => refused(db, reasons::UNKNOWN),
        Some(FollowRecord::Following(_) | FollowRecord::Loading) => refused(db, reasons::FOLLOWS),
        Some(FollowRecord::Promoted(_)) | None if has_to_load(db, record)? => {
            refused(db, reasons::FOLLOWS)
        }
        Some(FollowRecord::Promoted(_)) | None => Ok(()),
    }
}

/// Returns whether a store has to be filled from the snapshot that lies beside it. A snapshot that
/// must not replace the store's data any more is removed.
fn has_to_load(db: &Bitcask, record: Option<FollowRecord>) -> Result<bool, ServerError> {
    let spool = Spool::new(db.path());
    if !spool.is_complete() {
        return Ok(false);
    }
    let has_to_load = match record {
        Some(FollowRecord::Following(_) | FollowRecord::Loading) => true,
        // Filling begins with a clear, which removes the record. So data without a record did not
        // come from a leader.
        None => db.is_empty()?,
        Some(FollowRecord::Promoted(_) | FollowRecord::Unknown) => false,
    };
    if !has_to_load {
        spool.remove()?;
    }
    Ok(has_to_load)
}

impl StoreFollower {
    /// Begins to follow, on a thread of its own. The leader need not be reachable: the follower
    /// tries for ever, with pauses of up to half a minute.
    ///
    /// A store that has never followed has to be empty, and first gets all of the leader's data.
    ///
    /// # Errors
    ///
    /// [`Replication`](ServerError::Replication) if the store has data of its own and the options
    /// do not allow to replace it, [`InvalidServerOption`](ServerError::InvalidServerOption) and
    /// [`Tls`](ServerError::Tls) if the options make no sense,
    /// [`Runtime`](ServerError::Runtime) if no thread can be started, and the errors of a get and
    /// a put.
    pub fn start(db: Arc<Bitcask>, options: &FollowOptions) -> Result<Self, ServerError> {
        let url = options.leader()?;
        let (leader, replica) = (Leader::new(url.clone(), options)?, Replica::new(url));
        let record = FollowRecord::read(&db)?;
        let position = match record {
            Some(FollowRecord::Unknown) => return refused(&db, reasons::UNKNOWN),
            Some(FollowRecord::Following(position)) => Some(position),
            Some(FollowRecord::Promoted(_)) if !options.anew => {
                return refused(&db, reasons::PROMOTED);
            }
            None if !options.anew && !db.is_empty()? => return refused(&db, reasons::OWN_DATA),
            Some(FollowRecord::Loading | FollowRecord::Promoted(_)) | None => None,
        };
        // A part of the leader's data is not for readers, and no more is no data at all.
        let is_partial = record == Some(FollowRecord::Loading);
        if has_to_load(&db, record)? || is_partial || db.is_empty()? {
            replica.begin_loading();
        }
        if let Some(position) = position {
            replica.note_position(position, 0);
            // The store names the leader that it follows from now on.
            if db.followed_leader()?.as_deref() != Some(replica.leader()) {
                FollowRecord::Following(position).write_to(&db, replica.leader())?;
            }
        }
        let (pauses, thread) = (options.pauses, Mutex::new(None));
        let follower = Self { db, replica, leader, pauses, thread };
        let thread = follower.spawn(position)?;
        *follower.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(follower)
    }

    fn spawn(&self, position: Option<Position>) -> Result<FollowThread, ServerError> {
        let stop = FollowStop::default();
        let puller = Puller {
            db: Arc::clone(&self.db),
            leader: self.leader.clone(),
            replica: self.replica.clone(),
            spool: Spool::new(self.db.path()),
            stop: stop.clone(),
            pauses: self.pauses,
            position,
            lease: None,
            has_progressed: false,
        };
        let thread = thread::Builder::new().name("bitcask-follow".into());
        let handle = thread.spawn(move || puller.run());
        let handle = handle.map_err(|source| ServerError::Runtime { source })?;
        Ok(FollowThread { stop, handle })
    }

    /// Returns the state of the store as a replica: its lag, for example.
    pub fn replica(&self) -> Replica {
        self.replica.clone()
    }

    /// Makes the store a leader: it follows no more, and accepts writes. Does nothing if it is one
    /// already. Durable when this returns: after a restart, the store does not follow unless
    /// [that is meant](FollowOptions::anew).
    ///
    /// Whatever the leader has committed and this follower has not received is lost for it.
    /// Whether the leader still runs is not checked: see to it that nobody writes there any more.
    ///
    /// # Errors
    ///
    /// [`Replication`](ServerError::Replication) if the store does not have all of the leader's
    /// data yet, and the errors of a put. The store then goes on following.
    pub fn promote(&self) -> Result<(), ServerError> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.replica.is_follower() {
            return Ok(());
        }
        if self.replica.is_loading() {
            return refused(&self.db, reasons::EMPTY);
        }
        if let Some(thread) = thread.take() {
            thread.end();
        }
        let record = FollowRecord::read(&self.db);
        if let Ok(Some(FollowRecord::Following(position))) = record
            && !self.replica.is_loading()
        {
            if let Err(error) = self.write_promotion(position) {
                *thread = Some(self.spawn(Some(position))?);
                return Err(error.into());
            }
            self.replica.note_promoted();
            let leader = self.replica.leader();
            tracing::warn!(target: "bitcask::server", event = "promoted", leader, %position);
            return Ok(());
        }
        // The thread was just about to replace all data, or has never got any.
        *thread = Some(self.spawn(self.replica.position())?);
        record?;
        refused(&self.db, reasons::EMPTY)
    }

    /// Makes it durable that the store does not follow any more.
    fn write_promotion(&self, position: Position) -> Result<(), Error> {
        // A snapshot that was about to replace the data must not do so after a restart.
        let spool = Spool::new(self.db.path());
        if spool.is_complete() {
            spool.remove()?;
        }
        let mut batch = Batch::new();
        FollowRecord::Promoted(position).add_to(&mut batch, self.replica.leader());
        self.db.write_opt(&batch, WriteOptions::new().durable(true))
    }
}

impl Drop for StoreFollower {
    fn drop(&mut self) {
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            thread.end();
        }
    }
}

impl fmt::Debug for StoreFollower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreFollower").field("replica", &self.replica).finish_non_exhaustive()
    }
}
