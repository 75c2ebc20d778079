//! `MULTI`, `WATCH` and `EXEC`, through the store's transactions.
//!
//! - The commands that work on keys run in one transaction of the store, which is serializable. It
//!   runs again if something that it has read has changed, until it can be committed.
//! - A watched key is compared by its version, within the transaction. So nothing can happen
//!   between the comparison and the commands.
//! - Commands that do not work on keys run when the transaction is committed, and their replies
//!   take their places among the others.
//! - If the commands select several databases, there is a transaction for each stretch of them, and
//!   for each `COPY` to another database.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use bytes::Bytes;

use super::commands::rename::target_of;
use super::commands_table::{CommandFlags, CommandSpec, Handler, table};
use super::database::Database;
use super::encoding::encode_key;
use super::keyspace::{Keyspace, check_key};
use super::keyspace_hashes::at_length;
use super::keyspace_transaction::in_transaction;
use super::refusal::{Answer, Refusal, refused};
use super::reply::Reply;
use super::reply_memory::ReplyMemory;
use super::session::{FEW_ARGUMENTS, NAMES_SIZE_MAX, Session, size_of_names};
use crate::store::Version;

/// Maximum size of the commands that wait for `EXEC`.
const QUEUE_SIZE_MAX: usize = 256 << 20;

/// The commands of a client since `MULTI`.
#[derive(Debug, Default)]
pub(super) struct CommandQueue {
    /// The arguments, and the place in the table.
    commands: Vec<(Vec<Bytes>, usize)>,
    size: usize,
    /// Number of all arguments.
    args_count: usize,
    /// Whether a command may take long.
    has_slow: bool,
    /// Whether a command was refused, so that `EXEC` will be.
    pub(super) is_broken: bool,
}

impl CommandQueue {
    pub(super) fn len(&self) -> i64 {
        i64::try_from(self.commands.len()).unwrap_or(i64::MAX)
    }

    /// Returns whether the commands may take long, so that `EXEC` does not run on a thread that
    /// serves other clients.
    pub(super) fn is_slow(&self) -> bool {
        self.has_slow || self.args_count > FEW_ARGUMENTS
    }

    /// Returns the commands, with their arguments.
    pub(super) fn into_commands(self) -> Vec<(Vec<Bytes>, &'static CommandSpec)> {
        let found = |(args, at)| table().get(at).map(|spec| (args, spec));
        self.commands.into_iter().filter_map(found).collect()
    }

    pub(super) fn push(&mut self, args: &[Bytes], at: usize) -> Answer<()> {
        let size: usize = args.iter().map(|arg| arg.len() + size_of::<Bytes>()).sum();
        if self.size + size > QUEUE_SIZE_MAX {
            self.is_broken = true;
            return refused("ERR the commands of this transaction are too large");
        }
        self.size += size;
        self.args_count += args.len();
        self.has_slow |= table().get(at).is_some_and(|spec| spec.flags.has(CommandFlags::SLOW));
        // Copies, since the arguments share the memory of everything that arrived with them.
        let args = args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect();
        self.commands.push((args, at));
        Ok(())
    }
}

/// A key that a client watches.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) database: Arc<Database>,
    pub(super) key: Bytes,
    pub(super) version: Option<Version>,
}

/// One command of a transaction.
struct Queued {
    args: Vec<Bytes>,
    /// The place in the table.
    at: usize,
    spec: &'static CommandSpec,
}

/// Commands that run in one transaction.
struct QueuedRun {
    database: Arc<Database>,
    /// Whether it is a single command that writes to another database. That happens at once, so
    /// nothing may make its transaction run again.
    is_alone: bool,
    commands: Vec<Queued>,
}

impl Session {
    /// Watches no key any more. Returns those that were watched.
    pub(super) fn forget_watched(&mut self) -> BTreeMap<(usize, Bytes), Watched> {
        self.watched_size = 0;
        self.watched_contents.clear();
        std::mem::take(&mut self.watched)
    }

    /// Begins to watch a key.
    pub(super) fn watch(&mut self, key: &Bytes) -> Answer<()> {
        if check_key(key).is_err() {
            // It never exists.
            return Ok(());
        }
        if self.watched_size > NAMES_SIZE_MAX {
            return refused("ERR too many keys are watched");
        }
        if let Some(shards) = self.state.options.shards.clone() {
            return self.watch_in_cluster(&shards, key);
        }
        let name = (self.database.number, Bytes::copy_from_slice(key));
        if let Entry::Vacant(entry) = self.watched.entry(name) {
            let database = Arc::clone(&self.database);
            let found = database.store.get_versioned(encode_key(key))?;
            let version = found.map(|(_, version)| version);
            let key = entry.key().1.clone();
            self.watched_size += size_of_names([&key]);
            entry.insert(Watched { database, key, version });
        }
        Ok(())
    }

    /// Runs the commands that wait.
    pub(super) fn exec(&mut self) -> Answer {
        let Some(queue) = self.queue.take() else { return refused("ERR EXEC without MULTI") };
        let shards = self.state.options.shards.clone();
        if let Some(shards) = shards.filter(|_| !queue.is_broken) {
            return self.exec_in_cluster(&shards, queue);
        }
        let watched = self.forget_watched();
        if queue.is_broken {
            return refused("EXECABORT Transaction discarded because of previous errors.");
        }
        let stretches = self.stretches(queue);
        let databases: Vec<_> = stretches.iter().map(|it| Arc::clone(&it.database)).collect();
        // What is watched in a database that no command uses is compared now.
        for it in watched.values() {
            let is_used = databases.first().is_some_and(|first| Arc::ptr_eq(first, &it.database));
            if !is_used && !is_unchanged(it)? {
                return Ok(Reply::NullArray);
            }
        }
        let (mut replies, mut memory) = (Vec::new(), ReplyMemory::default());
        for (at, stretch) in stretches.into_iter().enumerate() {
            let mine = watched.values().filter(|it| Arc::ptr_eq(&it.database, &stretch.database));
            let mine: Vec<&Watched> = if at == 0 { mine.collect() } else { Vec::new() };
            match self.run_stretch(stretch, &mine, &mut memory)? {
                Some(more) => replies.extend(more),
                None => return Ok(Reply::NullArray),
            }
        }
        Ok(Reply::Array(replies))
    }

    /// Divides the commands by the database that they run in.
    fn stretches(&mut self, queue: CommandQueue) -> Vec<QueuedRun> {
        let mut database = Arc::clone(&self.database);
        let mut stretches: Vec<QueuedRun> = Vec::new();
        for (args, at) in queue.commands {
            let Some(spec) = table().get(at) else { continue };
            let number = (spec.name == "select")
                .then(|| args.get(1))
                .flatten()
                .and_then(|text| super::commands::keys::database_number(text).ok());
            if let Some(number) = number
                && let Ok(selected) = self.state.databases.get(number)
            {
                database = selected;
            }
            let target = (spec.name == "copy").then(|| target_of(&args)).flatten();
            let is_alone = target.is_some_and(|number| number != database.number);
            let queued = Queued { args, at, spec };
            match stretches.last_mut() {
                Some(last)
                    if Arc::ptr_eq(&last.database, &database) && !last.is_alone && !is_alone =>
                {
                    last.commands.push(queued);
                }
                _ => {
                    let database = Arc::clone(&database);
                    stretches.push(QueuedRun { database, is_alone, commands: vec![queued] });
                }
            }
        }
        stretches
    }

    /// Runs commands in one transaction. Returns `None` if a watched key has changed.
    fn run_stretch(
        &mut self,
        stretch: QueuedRun,
        watched: &[&Watched],
        memory: &mut ReplyMemory,
    ) -> Answer<Option<Vec<Reply>>> {
        let QueuedRun { database, commands, .. } = stretch;
        // What was said before `MULTI` counts for all of its commands.
        let caching = self.caching;
        for command in commands.iter().filter(|it| matches!(it.spec.run, Handler::Keys(_))) {
            self.caching = caching;
            self.remember_read(&command.args, command.spec);
        }
        let before = memory.clone();
        let run = |space: &mut Keyspace<'_>| -> Answer<Option<Vec<Option<Reply>>>> {
            memory.clone_from(&before);
            for it in watched {
                let key = encode_key(&it.key);
                let version = match &space.tx {
                    Some(tx) => tx.version(&key)?,
                    None => None,
                };
                if version != it.version {
                    return Ok(None);
                }
            }
            let mut replies = Vec::with_capacity(commands.len());
            for command in &commands {
                let Handler::Keys(run) = command.spec.run else {
                    replies.push(None);
                    continue;
                };
                let reply = match run(space, &command.args) {
                    Ok(reply) => reply,
                    Err(Refusal::Store(error)) => return Err(Refusal::Store(error)),
                    Err(refusal) => refusal.into_reply(),
                };
                memory.add(&reply)?;
                replies.push(Some(reply));
            }
            Ok(Some(replies))
        };
        let work = || in_transaction(&database, run);
        // Any of the keys may hold a large hash.
        let (result, deeds) = if database.has_hashes() { at_length(work)? } else { work()? };
        let Some(replies) = result? else { return Ok(None) };
        let cleared = if deeds.has_flushed_all { database.clear_others() } else { Ok(()) };
        // The transaction counts all the same, so only `FLUSHALL` has failed.
        let not_cleared = cleared.err().map(Refusal::into_reply);
        self.done(&database, deeds);
        Ok(Some(self.finish(replies, &commands, not_cleared.as_ref(), memory)))
    }

    /// Runs the commands that do not work on keys, and returns all replies. `not_cleared` is why
    /// `FLUSHALL` could not clear the other databases.
    fn finish(
        &mut self,
        replies: Vec<Option<Reply>>,
        commands: &[Queued],
        not_cleared: Option<&Reply>,
        memory: &mut ReplyMemory,
    ) -> Vec<Reply> {
        let mut all = Vec::with_capacity(replies.len());
        for (reply, command) in replies.into_iter().zip(commands) {
            let reply = match reply {
                Some(Reply::Simple(ok)) if command.spec.name == "flushall" => {
                    not_cleared.cloned().unwrap_or(Reply::Simple(ok))
                }
                Some(reply) => reply,
                None => {
                    let called = self.call(&command.args, command.spec);
                    let reply = called.unwrap_or_else(Refusal::into_reply);
                    memory.add(&reply).map_or_else(Refusal::into_reply, |()| reply)
                }
            };
            self.show_monitors(&command.args, command.spec);
            let failed = u64::from(self.count_error(&reply));
            self.count(command.at, 1, 0, failed);
            all.push(reply);
        }
        all
    }
}

/// Returns whether a watched key is as it was.
fn is_unchanged(watched: &Watched) -> Answer<bool> {
    let found = watched.database.store.get_versioned(encode_key(&watched.key))?;
    Ok(found.map(|(_, version)| version) == watched.version)
}

#[cfg(test)]
mod tests {
    use super::super::session_tests::{args, session, state};
    use super::*;

    #[test]
    fn a_copy_to_another_database_has_a_transaction_of_its_own() {
        let (_dir, state) = state();
        let mut session = session(&state);
        let mut queue = CommandQueue::default();
        for line in ["SET a 1", "COPY a b DB 0", "COPY a b DB 1", "SET c 1", "GET c"] {
            let args = args(line);
            let name = String::from_utf8_lossy(&args[0]).to_lowercase();
            queue.push(&args, table().find(&name).unwrap().0).unwrap();
        }
        let stretches = session.stretches(queue);
        let sizes: Vec<usize> = stretches.iter().map(|it| it.commands.len()).collect();
        assert_eq!(sizes, [2, 1, 2]);
    }
}
