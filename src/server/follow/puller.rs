//! The thread of a follower: it receives the leader's changes, applies them, and begins again when
//! something fails.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use uuid::Uuid;

use super::group::{ChangeGroup, TooLarge, batch_of, lifetime};
use super::link::{Leader, LeaderLink, LinkError};
use super::spool::Spool;
use super::stopping::FollowStop;
use crate::dialect;
use crate::error::{Error, Result};
use crate::replica::{Replica, ReplicaLag};
use crate::server::frames::{Frame, FrameError, FrameKind, FrameLag, read_frame};
use crate::store::{Bitcask, Position};

/// Why all data is read again after a batch that is too large for memory, or for this store.
const BATCH_TOO_LARGE: &str = "batch_too_large";

/// What the thread of a follower has.
pub(super) struct Puller {
    pub(super) db: Arc<Bitcask>,
    pub(super) leader: Leader,
    pub(super) replica: Replica,
    pub(super) spool: Spool,
    pub(super) stop: FollowStop,
    /// The first pause after a failure, and the longest.
    pub(super) pauses: (Duration, Duration),
    /// Where the store is, or `None` if it needs all of the leader's data.
    pub(super) position: Option<Position>,
    /// The leader's lease of the history behind the last snapshot.
    pub(super) lease: Option<Uuid>,
    /// Whether something of the leader was stored since the last failure, or there was nothing to
    /// store. That frames arrive is not enough: this store may be what fails.
    pub(super) has_progressed: bool,
}

/// Why the follower does not go on as it did.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Something failed that may work later.
    Failed(String),
    /// All data has to be read again, for this reason.
    Behind(&'static str),
    /// The options of the store do not allow to go on.
    Stuck(String),
    /// The follower has to end.
    Stopped,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::KeyTooLarge { size, limit } => too_large("key", size, limit),
            Error::ValueTooLarge { size, limit } => too_large("value", size, limit),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// Returns the trouble with a key or a value that only the leader may have.
pub(super) fn too_large(what: &str, size: u64, limit: u64) -> Trouble {
    Trouble::Stuck(format!(
        "the leader has a {what} of {size} bytes, and {what}-size-limit is {limit} here; start \
         this follower with at least the leader's limit"
    ))
}

impl From<LinkError> for Trouble {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Stopped => Self::Stopped,
            LinkError::Failed(reason) => Self::Failed(reason),
            LinkError::Refused { status, code, detail } => match code.as_str() {
                dialect::HISTORY_GONE => Self::Behind(dialect::HISTORY_GONE),
                "invalid_position" => Self::Behind("invalid_position"),
                _ => Self::Failed(format!("the leader has answered {status}: {detail}")),
            },
        }
    }
}

/// How much longer the pause is before a follower that is stuck tries again: the leader may have
/// other data by then, and its snapshot is perhaps read in vain.
const STUCK_FACTOR: u32 = 20;

impl Puller {
    /// Follows until the owner wants no more.
    pub(super) fn run(mut self) {
        let (first, longest) = self.pauses;
        let pauses = ExponentialBuilder::new()
            .with_min_delay(first)
            .with_max_delay(longest)
            .without_max_times()
            .with_jitter();
        let mut pause = pauses.build();
        self.spool.discard();
        loop {
            let Err(trouble) = self.follow();
            self.replica.note_connected(false);
            self.replica.note_resyncing(false);
            match trouble {
                Trouble::Stopped => break,
                _ if self.stop.is_raised() => break,
                Trouble::Failed(error) => {
                    tracing::warn!(
                        target: "bitcask::server",
                        event = "follow_failed",
                        leader = self.replica.leader(),
                        error = error.as_str()
                    );
                    self.replica.note_error(error);
                }
                Trouble::Behind(reason) => {
                    let leader = self.replica.leader();
                    tracing::warn!(target: "bitcask::server", event = "follow_behind", leader, reason);
                    self.replica.note_resync_reason(reason);
                    self.position = None;
                }
                Trouble::Stuck(error) => {
                    let leader = self.replica.leader();
                    let shown = error.as_str();
                    tracing::error!(target: "bitcask::server", event = "follow_stuck", leader, error = shown);
                    self.replica.note_stuck(error);
                    if self.stop.wait(longest.saturating_mul(STUCK_FACTOR)) {
                        break;
                    }
                    continue;
                }
            }
            if std::mem::take(&mut self.has_progressed) {
                pause = pauses.build();
            }
            if self.stop.wait(pause.next().unwrap_or(longest)) {
                break;
            }
        }
        self.spool.discard();
    }

    fn follow(&mut self) -> Result<Infallible, Trouble> {
        if self.spool.is_complete() {
            self.load()?;
        }
        let position = match self.position {
            Some(position) => position,
            None => self.resync()?,
        };
        self.receive(position)
    }

    /// Receives changes, and applies them.
    pub(super) fn receive(&mut self, since: Position) -> Result<Infallible, Trouble> {
        let target = format!("/v1/changes?format=frames&durable=true&since={since}");
        let mut link = self.leader.open(&target, self.lease, &self.stop)?;
        self.check_limits(&link)?;
        self.replica.note_connected(true);
        let leader = self.replica.leader();
        tracing::info!(target: "bitcask::server", event = "follow_connected", leader, %since);
        let mut group = ChangeGroup::default();
        loop {
            let frame = match read_frame(&mut link) {
                Ok((frame, _)) => frame,
                Err(error) => {
                    // Whole batches count, wherever the stream has broken off.
                    self.apply(&mut group)?;
                    return Err(self.broken_off(&error));
                }
            };
            match frame.kind {
                FrameKind::Put | FrameKind::Delete => {
                    if group.has_to_go_before(&frame) {
                        self.apply(&mut group)?;
                    }
                    if let Err(TooLarge) = group.add(frame) {
                        self.apply(&mut group)?;
                        return Err(Trouble::Behind(BATCH_TOO_LARGE));
                    }
                }
                FrameKind::Position => {
                    self.apply(&mut group)?;
                    self.note_report(&frame, &group)?;
                }
                FrameKind::Failure => {
                    self.apply(&mut group)?;
                    return Err(failure(&frame));
                }
                FrameKind::End => return Err(Trouble::Failed("the feed has ended".into())),
            }
            if group.is_due(|| link.has_more()) {
                self.apply(&mut group)?;
            }
        }
    }

    /// Returns an error if the leader accepts what this store refuses. Otherwise this would be
    /// found much later.
    pub(super) fn check_limits(&self, link: &LeaderLink) -> Result<(), Trouble> {
        let (own, theirs) = (self.db.options(), link.limits());
        for (what, own, theirs) in [
            ("key", own.get_key_size_limit(), theirs.key_size),
            ("value", own.get_value_size_limit(), theirs.value_size),
        ] {
            if let Some(theirs) = theirs.filter(|theirs| *theirs > own) {
                return Err(Trouble::Stuck(format!(
                    "the leader's {what}-size-limit is {theirs} bytes, and this store's is {own}; \
                     start this follower with at least the leader's limit"
                )));
            }
        }
        Ok(())
    }

    fn broken_off(&self, error: &FrameError) -> Trouble {
        if self.stop.is_raised() {
            return Trouble::Stopped;
        }
        Trouble::Failed(format!("the feed has broken off: {error}"))
    }

    /// Applies all batches that are whole, together with the position behind them.
    fn apply(&mut self, group: &mut ChangeGroup) -> Result<(), Trouble> {
        let Some((changes, position)) = group.take() else { return Ok(()) };
        match self.db.write(&batch_of(&changes, position, self.replica.leader())) {
            Err(Error::BatchTooLarge { .. }) => self.apply_large(&changes, position)?,
            result => result?,
        }
        (self.position, self.has_progressed) = (Some(position), true);
        self.replica.note_position(position, changes.len() as u64);
        Ok(())
    }

    /// Applies a change whose value is so large that the position does not fit in one batch with
    /// it. If the process ends in between, the same value is put again, which changes nothing.
    fn apply_large(&self, changes: &[Frame], position: Position) -> Result<(), Trouble> {
        let [change] = changes else {
            return Err(Trouble::Behind(BATCH_TOO_LARGE));
        };
        self.db.put_opt(&change.key, &change.value, lifetime(change))?;
        Ok(self.db.write(&batch_of(&[], position, self.replica.leader()))?)
    }

    /// Notes what the leader says about the distance.
    fn note_report(&mut self, frame: &Frame, group: &ChangeGroup) -> Result<(), Trouble> {
        if let Some(FrameLag { size, changes, age }) = FrameLag::decode(&frame.value) {
            self.replica.note_lag(ReplicaLag { size, changes, age: Duration::from_micros(age) });
            // If changes are missing, the follower may be stuck at the first of them.
            if changes == 0 {
                self.has_progressed = true;
                self.replica.note_following();
            }
        }
        // A leader whose changes are none of ours goes on all the same. Now and then this is noted,
        // before the position becomes too old.
        let segment = |position: Position| position.place().segment;
        let is_far = self.position.is_none_or(|own| segment(own) != segment(frame.position));
        if is_far && group.is_between_batches() {
            self.db.write(&batch_of(&[], frame.position, self.replica.leader()))?;
            (self.position, self.has_progressed) = (Some(frame.position), true);
            self.replica.note_position(frame.position, 0);
        }
        Ok(())
    }
}

/// Returns what the last frame of a feed says.
pub(super) fn failure(frame: &Frame) -> Trouble {
    let code = String::from_utf8_lossy(&frame.value).into_owned();
    if code == dialect::HISTORY_GONE {
        return Trouble::Behind(dialect::HISTORY_GONE);
    }
    Trouble::Failed(format!("the leader has ended the feed: {code}"))
}
