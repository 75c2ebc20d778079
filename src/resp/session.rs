//! What the server knows about one client, and how one of its commands runs.
//!
//! - The order of what a command causes is that of Redis: the messages that it sends to its own
//!   client, then its reply, then the news of keys that the client has cached.
//! - What others send while a client that tracks keys reads comes after the reply. The reply may
//!   have the value before a change, and the news of the change has to be the later of the two. So
//!   does what a transaction of such a client sends to the client itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;

use super::admission::is_http;
use super::clustered::check_queued;
use super::commands_table::{CommandFlags, CommandSpec, Handler};
use super::counts::add;
use super::database::Database;
use super::events::KeyEvent;
use super::keyspace::{Deeds, Keyspace};
use super::peers::Peer;
use super::presence::without_secrets;
use super::refusal::{Answer, Refusal};
use super::reply::{Protocol, Reply};
use super::reply_buffer::ReplyBuffer;
use super::server_state::RespState;
use super::tracking::TrackingMode;
use super::transaction::{CommandQueue, Watched};
use crate::replica::{Pass, Replica};

/// Number of arguments above which a command, or a transaction, counts as slow.
pub(super) const FEW_ARGUMENTS: usize = 1000;

/// Maximum size of the names that a client watches, and of those that it subscribes to.
pub(super) const NAMES_SIZE_MAX: usize = 64 << 20;
/// About how much memory a name takes besides its bytes.
const NAME_OVERHEAD: usize = 256;

/// Returns about how much memory names take.
pub(super) fn size_of_names<'a>(names: impl IntoIterator<Item = &'a Bytes>) -> usize {
    names.into_iter().map(|name| name.len() + NAME_OVERHEAD).sum()
}

/// Which replies a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyMode {
    On,
    Off,
    /// All but the reply to this command and to the next.
    SkipNext,
    /// All but the reply to this command.
    Skip,
}

/// Calls of one command that are not in the shared counts yet.
#[derive(Debug, Default)]
struct CallTally {
    /// The command's place in the table.
    at: usize,
    calls: u64,
    micros: u64,
    failed: u64,
}

/// One client.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "states that occur in any combination")]
pub(super) struct Session {
    pub(super) state: Arc<RespState>,
    pub(super) peer: Arc<Peer>,
    pub(super) database: Arc<Database>,
    pub(super) protocol: Protocol,
    pub(super) is_authenticated: bool,
    pub(super) queue: Option<CommandQueue>,
    /// By the number of the database, and the key.
    pub(super) watched: BTreeMap<(usize, Bytes), Watched>,
    pub(super) watched_size: usize,
    pub(super) channels: BTreeSet<Bytes>,
    pub(super) patterns: BTreeSet<Bytes>,
    pub(super) subscribed_size: usize,
    pub(super) tracking: Option<TrackingMode>,
    /// What `CLIENT CACHING` has said about the next command.
    pub(super) caching: Option<bool>,
    pub(super) replies: ReplyMode,
    pub(super) is_monitor: bool,
    /// Whether the connection ends after the replies so far.
    pub(super) is_closing: bool,
    /// Databases with writes that no sync has covered yet.
    pub(super) unsynced: Vec<Arc<Database>>,
    /// Replies that have not been sent.
    pub(super) out: ReplyBuffer,
    pub(super) last_command: &'static str,
    /// The right to read a store that follows a leader, or `None` while it is being filled. It
    /// lasts as long as a batch of commands.
    pub(super) pass: Option<Pass>,
    /// Whether the client reads what this node of a cluster has, although it may be stale.
    pub(super) reads_stale: bool,
    /// Shards of a cluster that are not stale for the commands of this batch.
    pub(super) confirmed: Vec<u64>,
    /// Keys of a cluster that the client watches, and the digests of what they held.
    pub(super) watched_contents: BTreeMap<Bytes, Option<u128>>,
    /// When the last command ended, or the batch began.
    pub(super) clock: Instant,
    tally: CallTally,
    /// Changed keys that caches are told of after the reply.
    changed: Vec<Bytes>,
    /// Whether caches are told after the reply that all keys are gone.
    has_flushed: bool,
}

impl Session {
    pub(super) fn new(state: &Arc<RespState>, peer: Arc<Peer>) -> Answer<Self> {
        let database = state.databases.get(0)?;
        Ok(Self {
            state: Arc::clone(state),
            peer,
            database,
            protocol: Protocol::Resp2,
            is_authenticated: !state.parameters.has_password(),
            queue: None,
            watched: BTreeMap::new(),
            watched_size: 0,
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            subscribed_size: 0,
            tracking: None,
            caching: None,
            replies: ReplyMode::On,
            is_monitor: false,
            is_closing: false,
            unsynced: Vec::new(),
            out: ReplyBuffer::default(),
            last_command: "",
            pass: None,
            reads_stale: false,
            confirmed: Vec::new(),
            watched_contents: BTreeMap::new(),
            clock: Instant::now(),
            tally: CallTally::default(),
            changed: Vec::new(),
            has_flushed: false,
        })
    }

    /// Begins to run commands that have arrived together.
    pub(super) fn begin_batch(&mut self) {
        self.clock = Instant::now();
        self.confirmed.clear();
        self.pass = self.state.options.replica.as_ref().and_then(Replica::enter);
    }

    /// Returns whether the store is being filled, so that nobody may read it.
    pub(super) fn is_kept_out(&self) -> bool {
        self.state.options.replica.is_some() && self.pass.is_none()
    }

    /// Runs a command and appends its reply.
    pub(super) fn run(&mut self, args: &[Bytes]) {
        if is_http(args) {
            self.is_closing = true;
            return;
        }
        let (found, reply) = match self.admit(args) {
            Ok((at, spec)) => {
                self.last_command = spec.name;
                let holds_news = self.begin_command(spec);
                let waits = self.queue.is_some() && !spec.flags.has(CommandFlags::IN_QUEUE_RUNS);
                let reply = self.execute(args, at, spec);
                // A command that waits for `EXEC` is shown when it runs, and `EXEC` after it.
                if !waits {
                    self.show_monitors(args, spec);
                }
                (Some((at, spec, holds_news)), reply)
            }
            Err((at, reply)) => {
                if let Some(queue) = &mut self.queue {
                    queue.is_broken = true;
                }
                if let Some(counts) = at.and_then(|at| self.state.counts.commands.get(at)) {
                    add(&counts.rejected, 1);
                }
                add(&self.state.counts.processed, 1);
                (None, reply)
            }
        };
        self.count_error(&reply);
        self.reply(&reply, found.is_some_and(|(_, _, holds_news)| holds_news));
        let (now, failed) = (Instant::now(), u64::from(reply.is_error()));
        let took = now.saturating_duration_since(std::mem::replace(&mut self.clock, now));
        let Some((at, spec, _)) = found else { return };
        if self.queue.is_none() && !spec.name.starts_with("client") {
            // It was said about this command, whether it has read a key or not.
            self.caching = None;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.count(at, 1, micros, failed);
        let parameters = &self.state.parameters;
        let limit = u64::try_from(parameters.slower_than.load(Ordering::Relaxed));
        if limit.is_ok_and(|limit| micros >= limit) && !spec.flags.has(CommandFlags::NO_SLOW_LOG) {
            let len = parameters.slow_len.load(Ordering::Relaxed);
            let args = without_secrets(args, spec);
            self.state.counts.note_slow(&args, took, &self.peer, len);
        }
    }

    /// Counts calls of a command. Those of one command in a row are shared at once.
    pub(super) fn count(&mut self, at: usize, calls: u64, micros: u64, failed: u64) {
        if self.tally.at != at {
            self.share_counts();
            self.tally.at = at;
        }
        self.tally.calls += calls;
        self.tally.micros += micros;
        self.tally.failed += failed;
    }

    /// Adds the calls so far to the shared counts.
    pub(super) fn share_counts(&mut self) {
        let CallTally { at, calls, micros, failed } = std::mem::take(&mut self.tally);
        if let Some(counts) = self.state.counts.commands.get(at).filter(|_| calls > 0) {
            add(&self.state.counts.processed, calls);
            add(&counts.calls, calls);
            add(&counts.micros, micros);
            add(&counts.failed, failed);
        }
    }

    /// Prepares for a command. Returns whether news that come from now on have to wait for its
    /// reply.
    pub(super) fn begin_command(&mut self, spec: &CommandSpec) -> bool {
        let reads = spec.flags.has(CommandFlags::READ) || spec.name == "exec";
        let holds_news = reads && self.tracking.is_some();
        if holds_news {
            self.peer.outbox.take_into(&mut self.out);
        }
        holds_news
    }

    /// Appends a reply, between what the command has sent before and what it causes after.
    pub(super) fn reply(&mut self, reply: &Reply, holds_news: bool) {
        if !holds_news {
            self.peer.outbox.take_into(&mut self.out);
        }
        let is_confirmation = matches!(reply, Reply::Several(_));
        match self.replies {
            // Subscriptions are confirmed as messages are sent: whether replies are wanted or not.
            _ if is_confirmation => reply.write(self.protocol, &mut self.out),
            ReplyMode::On => reply.write(self.protocol, &mut self.out),
            ReplyMode::Off => {}
            ReplyMode::SkipNext => self.replies = ReplyMode::Skip,
            ReplyMode::Skip => self.replies = ReplyMode::On,
        }
        if std::mem::take(&mut self.has_flushed) {
            self.state.tracker.all_changed(&self.state.peers);
        }
        if !self.changed.is_empty() {
            let mut keys = std::mem::take(&mut self.changed);
            keys.sort_unstable();
            keys.dedup();
            self.state.tracker.changed(&keys, Some(self.peer.id), &self.state.peers);
        }
    }

    fn execute(&mut self, args: &[Bytes], at: usize, spec: &'static CommandSpec) -> Reply {
        if let Some(queue) = &mut self.queue
            && !spec.flags.has(CommandFlags::IN_QUEUE_RUNS)
        {
            if let Some(shards) = &self.state.options.shards
                && let Err(refusal) = check_queued(shards, args, spec)
            {
                queue.is_broken = true;
                return refusal.into_reply();
            }
            return match queue.push(args, at) {
                Ok(()) => Reply::Simple("QUEUED"),
                Err(refusal) => refusal.into_reply(),
            };
        }
        let is_slow = spec.flags.has(CommandFlags::SLOW) || args.len() > FEW_ARGUMENTS;
        let runs_slow =
            || spec.name == "exec" && self.queue.as_ref().is_some_and(CommandQueue::is_slow);
        let result = if is_slow || runs_slow() {
            // The other clients of this thread are served by another one meanwhile.
            tokio::task::block_in_place(|| self.call(args, spec))
        } else {
            self.call(args, spec)
        };
        result.unwrap_or_else(Refusal::into_reply)
    }

    /// Calls what implements a command.
    pub(super) fn call(&mut self, args: &[Bytes], spec: &'static CommandSpec) -> Answer {
        match spec.run {
            Handler::Keys(_) if self.state.options.shards.is_some() => {
                let shards = self.state.options.shards.clone();
                shards.map_or(Ok(Reply::Null), |shards| self.call_in_cluster(&shards, args, spec))
            }
            Handler::Keys(run) => {
                self.remember_read(args, spec);
                let mut space = Keyspace::new(&self.database);
                let result = run(&mut space, args);
                let deeds = space.deeds;
                if deeds.has_written || !deeds.events.is_empty() || !deeds.elsewhere.is_empty() {
                    self.done_here(deeds);
                }
                result
            }
            Handler::Session(run) => run(self, args),
        }
    }

    /// Reports what a command has done in the selected database.
    fn done_here(&mut self, deeds: Deeds) {
        let needs_sync = deeds.has_written && self.database.syncs_each_write();
        let has_more = !deeds.events.is_empty() || !deeds.elsewhere.is_empty();
        if needs_sync || deeds.has_flushed || has_more {
            let database = Arc::clone(&self.database);
            self.done(&database, deeds);
        }
    }

    /// Reports what a command has done.
    pub(super) fn done(&mut self, database: &Arc<Database>, deeds: Deeds) {
        if deeds.has_written {
            self.note_write(database);
        }
        self.has_flushed |= deeds.has_flushed;
        for event in deeds.events {
            self.report(database, event);
        }
        for (other, deeds) in deeds.elsewhere {
            self.done(&other, deeds);
        }
    }

    fn report(&mut self, database: &Database, event: KeyEvent) {
        self.state.report(database, &event);
        if self.state.tracker.is_on() {
            self.changed.push(event.key);
        }
    }

    /// Notes that a database has writes that have to be synced before they are acknowledged.
    pub(super) fn note_write(&mut self, database: &Arc<Database>) {
        let is_noted = |noted: &Arc<Database>| Arc::ptr_eq(noted, database);
        if database.syncs_each_write() && !self.unsynced.iter().any(is_noted) {
            self.unsynced.push(Arc::clone(database));
        }
    }

    /// Remembers that the client is about to read keys, if it tracks them. A key that changes
    /// between this and the read is reported once too often, which is better than never.
    pub(super) fn remember_read(&mut self, args: &[Bytes], spec: &CommandSpec) {
        let Some(mode) = &self.tracking else { return };
        let caching = self.caching.take();
        let is_wanted = if mode.opt_in {
            caching == Some(true)
        } else {
            !(mode.opt_out && caching == Some(false))
        };
        if mode.by_prefix || !is_wanted || !spec.flags.has(CommandFlags::READ) {
            return;
        }
        let keys = spec.keys(args).unwrap_or_default();
        let limit = self.state.parameters.tracked_max.load(Ordering::Relaxed);
        let keys = keys.into_iter().map(|key| &**key);
        self.state.tracker.remember(self.peer.id, keys, limit, &self.state.peers);
    }

    /// Returns whether the client has to authenticate before anything else.
    pub(super) fn is_stranger(&self) -> bool {
        !self.is_authenticated && self.state.parameters.has_password()
    }

    pub(super) fn is_subscriber(&self) -> bool {
        !self.channels.is_empty() || !self.patterns.is_empty()
    }

    pub(super) fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.peer.outbox.set_protocol(protocol);
    }

    /// Counts an error. Returns whether the reply is one.
    pub(super) fn count_error(&self, reply: &Reply) -> bool {
        if let Reply::Error(text) = reply {
            self.state.counts.error(text);
        }
        reply.is_error()
    }
}
