//! Writes that have arrived together at a node of a cluster: one entry of the log for each shard.
//!
//! - Those of a shard run in their order. Different shards run theirs at the same time.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;

use super::clustered::{SlotPlace, blocking, copied, place_of, refusal_of, write as write_alone};
use super::commands_table::{CommandFlags, CommandSpec, Handler};
use super::refusal::Refusal;
use super::replicated::{CommandsRequest, ReplicatedReply};
use super::reply::Reply;
use super::session::Session;
use super::shards::ShardFailure;

/// A write that may share an entry with others.
#[derive(Debug, Clone, Copy)]
pub(super) struct SharedWrite {
    /// Its place in the table of commands.
    at: usize,
    spec: &'static CommandSpec,
    place: SlotPlace,
}

impl Session {
    /// Returns where a command runs that may share an entry of the log with the ones around it.
    pub(super) fn shared_write(&self, args: &[Bytes]) -> Option<SharedWrite> {
        let shards = self.state.options.shards.as_ref()?;
        if !self.has_plain_replies() {
            return None;
        }
        let (at, spec) = self.admit(args).ok()?;
        // Strings that are replied may be large, and would be held until all are there.
        let replies_string = spec.name.starts_with("get")
            || (spec.name == "set"
                && args.iter().skip(3).any(|arg| arg.eq_ignore_ascii_case(b"get")));
        let is_write = spec.flags.has(CommandFlags::WRITE) && matches!(spec.run, Handler::Keys(_));
        let is_write = is_write && !replies_string;
        let place = place_of(shards, args, spec).ok().flatten().filter(|_| is_write)?;
        Some(SharedWrite { at, spec, place })
    }

    /// Runs writes, and appends their replies.
    pub(super) fn write_together(&mut self, writes: &[(Vec<Bytes>, SharedWrite)]) {
        let Some(shards) = self.state.options.shards.clone() else { return };
        // What was confirmed before says nothing of what others have seen since.
        self.confirmed.clear();
        let mut by_shard: BTreeMap<u64, Vec<Vec<Bytes>>> = BTreeMap::new();
        for (args, write) in writes {
            by_shard.entry(write.place.shard).or_default().push(copied(args));
        }
        let order: Vec<u64> = by_shard.keys().copied().collect();
        let requests = by_shard
            .into_iter()
            .map(|(shard, commands)| (shard, CommandsRequest::new(commands, Vec::new())));
        let written = blocking(|| shards.write_all(requests.collect()));
        let written = order.into_iter().zip(written);
        let mut replies: BTreeMap<_, _> = written
            .map(|(shard, written)| (shard, written.map(|replies| replies.into_iter().flatten())))
            .collect();
        let now = Instant::now();
        let took = now.saturating_duration_since(std::mem::replace(&mut self.clock, now));
        let each = took.as_micros() / (writes.len().max(1) as u128);
        for (args, write) in writes {
            let reply = match replies.get_mut(&write.place.shard) {
                // Each alone may not be too much.
                Some(Err(ShardFailure::TooLarge(_))) => {
                    write_alone(&shards, write.place, args).unwrap_or_else(Refusal::into_reply)
                }
                Some(Ok(replies)) => {
                    replies.next().map_or(Reply::Null, |ReplicatedReply(reply)| reply)
                }
                Some(Err(failure)) => refusal_of(write.place.slot, failure.clone()).into_reply(),
                None => Reply::Error("ERR the shard has not answered".to_owned()),
            };
            self.last_command = write.spec.name;
            let failed = u64::from(self.count_error(&reply));
            self.reply(&reply, false);
            self.count(write.at, 1, u64::try_from(each).unwrap_or(u64::MAX), failed);
        }
    }
}
