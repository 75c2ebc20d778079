//! Commands of a client whose server is a node of a cluster.
//!
//! - A command runs where the leader of its slot is. Other nodes answer `MOVED`, and clients
//!   follow.
//! - A command that writes goes through the log of its shard. One that reads waits until this node
//!   knows that it still leads; a client that has sent `READONLY` reads what is here.
//! - Commands without keys work on the shards that this node leads.

use std::collections::btree_map::Entry;
use std::sync::Arc;

use bytes::Bytes;

use super::commands::scan::page;
use super::commands_table::{CommandFlags, CommandSpec, Handler};
use super::keyspace::Keyspace;
use super::refusal::{Answer, Refusal, refused, refused_with};
use super::replicated::{CommandsRequest, ReplicatedKeys, ReplicatedReply, digest};
use super::reply::{OK, Reply};
use super::reply_memory::ReplyMemory;
use super::session::{Session, size_of_names};
use super::shards::{ClusterShards, ShardFailure};
use super::slots::slot_of;
use super::transaction::CommandQueue;

const CROSS_SLOT: &str = "CROSSSLOT Keys in request don't hash to the same slot";
const NO_LEADER: &str = "CLUSTERDOWN Hash slot not served";

/// Number of shards that the cursors of scans tell apart.
const SHARD_PART: u64 = 1 << 10;

/// The slot of a command, and its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotPlace {
    pub(super) slot: u16,
    pub(super) shard: u64,
}

type Shards = Arc<dyn ClusterShards>;

/// Returns the slot of several keys, or `None` if there is no key.
fn common_slot<'a>(keys: impl IntoIterator<Item = &'a Bytes>) -> Answer<Option<u16>> {
    let mut common = None;
    for key in keys {
        let slot = slot_of(key);
        if common.is_some_and(|common| common != slot) {
            return refused(CROSS_SLOT);
        }
        common = Some(slot);
    }
    Ok(common)
}

/// Returns the error that sends a client to the right node.
pub(super) fn refusal_of(slot: u16, failure: ShardFailure) -> Refusal {
    Refusal::Text(match failure {
        ShardFailure::Moved(address) => format!("MOVED {slot} {address}").into(),
        ShardFailure::NoLeader => NO_LEADER.into(),
        ShardFailure::TooLarge(text) | ShardFailure::Failed(text) => text.into(),
    })
}

impl Session {
    /// Runs a command on keys.
    pub(super) fn call_in_cluster(
        &mut self,
        shards: &Shards,
        args: &[Bytes],
        spec: &'static CommandSpec,
    ) -> Answer {
        let is_write = spec.flags.has(CommandFlags::WRITE);
        if is_write {
            // What was confirmed before says nothing of what others have seen since.
            self.confirmed.clear();
        }
        let Some(place) = place_of(shards, args, spec)? else {
            return self.call_without_keys(shards, args, spec);
        };
        if is_write {
            return write(shards, place, args);
        }
        let keys = self.readable(shards, place)?;
        read(&keys, args, spec)
    }

    /// Returns the keys of a shard, once this client may read them.
    fn readable(&mut self, shards: &Shards, place: SlotPlace) -> Answer<Arc<ReplicatedKeys>> {
        let failed = |failure| refusal_of(place.slot, failure);
        // Everything that has arrived together was sent before, so one look is enough for it.
        if !self.reads_stale && !self.confirmed.contains(&place.shard) {
            blocking(|| shards.confirm(place.shard)).map_err(failed)?;
            self.confirmed.push(place.shard);
        }
        shards.keys(place.shard).map_err(failed)
    }

    /// Runs a command that works on all keys: those of the shards that this node leads, or of all
    /// shards if it forwards, or for a client that reads what is here.
    fn call_without_keys(
        &mut self,
        shards: &Shards,
        args: &[Bytes],
        spec: &'static CommandSpec,
    ) -> Answer {
        let topology = shards.topology();
        let reads_stale = self.reads_stale && !spec.flags.has(CommandFlags::WRITE);
        let is_anywhere = reads_stale || shards.forwards();
        let mine: Vec<SlotPlace> = topology
            .shards
            .iter()
            .filter(|shard| is_anywhere || shard.leader == Some(topology.me))
            .map(|shard| SlotPlace { slot: *shard.slots.start(), shard: shard.number })
            .collect();
        match spec.name {
            "flushdb" | "flushall" => flush(shards, args, &mine),
            "scan" => self.scan_shards(shards, args, spec, &mine),
            "dbsize" => {
                let mut sum = 0;
                for place in mine {
                    let keys = self.readable(shards, place)?;
                    if let Reply::Integer(count) = read(&keys, args, spec)? {
                        sum += count;
                    }
                }
                Ok(Reply::Integer(sum))
            }
            "keys" => {
                let (mut all, mut memory) = (Vec::new(), ReplyMemory::default());
                for place in mine {
                    let keys = self.readable(shards, place)?;
                    let found = read(&keys, args, spec)?;
                    memory.add(&found)?;
                    if let Reply::Array(found) = found {
                        all.extend(found);
                    }
                }
                Ok(Reply::Array(all))
            }
            "randomkey" => {
                let begin = super::commands::keys::index(mine.len());
                for place in mine.iter().cycle().skip(begin).take(mine.len()) {
                    let keys = self.readable(shards, *place)?;
                    let reply = read(&keys, args, spec)?;
                    if !matches!(reply, Reply::Null) {
                        return Ok(reply);
                    }
                }
                Ok(Reply::Null)
            }
            // Help, which looks at no key.
            "object" => match topology.shards.first() {
                Some(shard) => {
                    let keys = shards.keys(shard.number).map_err(|it| refusal_of(0, it))?;
                    read(&keys, args, spec)
                }
                None => refused(NO_LEADER),
            },
            name => refused_with(format!("ERR '{name}' is not supported in a cluster")),
        }
    }

    /// Scans one shard after the other. The lowest bits of the cursor say which.
    fn scan_shards(
        &mut self,
        shards: &Shards,
        args: &[Bytes],
        spec: &'static CommandSpec,
        mine: &[SlotPlace],
    ) -> Answer {
        let text = args.get(1).map(|it| String::from_utf8_lossy(it).into_owned());
        let Some(cursor) = text.and_then(|text| text.parse::<u64>().ok()) else {
            return refused("ERR invalid cursor");
        };
        let low = cursor & (SHARD_PART - 1);
        let mut places = mine.iter().skip_while(|place| place.shard - 1 < low);
        let Some(place) = places.next() else { return Ok(page(0, Vec::new())) };
        let number = place.shard - 1;
        // A shard that has another leader by now is left out, and the next one begins.
        let within = if number == low { cursor - low } else { 0 };
        let keys = self.readable(shards, *place)?;
        let (mut items, mut next) = scan_page(&keys, args, spec, within, None)?;
        // The cursor of a store has all bits. It is rounded up, and what lies between comes now.
        let rounded = next.checked_add(SHARD_PART - 1).map(|next| next / SHARD_PART * SHARD_PART);
        while next != 0 && rounded.is_none_or(|rounded| next < rounded) {
            let (more, after) = scan_page(&keys, args, spec, next, Some(1))?;
            // The cursor is that behind the key.
            if rounded.is_some_and(|rounded| after.wrapping_sub(1) >= rounded) {
                break;
            }
            items.extend(more);
            next = after;
        }
        let next = match rounded {
            Some(rounded) if next != 0 => rounded | number,
            _ => places.next().map_or(0, |place| place.shard - 1),
        };
        Ok(page(next, items))
    }

    /// Begins to watch a key.
    pub(super) fn watch_in_cluster(&mut self, shards: &Shards, key: &Bytes) -> Answer<()> {
        let slot = slot_of(key);
        let place = SlotPlace { slot, shard: shards.shard_of(slot) };
        let keys = self.readable(shards, place)?;
        let key = Bytes::copy_from_slice(key);
        if let Entry::Vacant(entry) = self.watched_contents.entry(key) {
            self.watched_size += size_of_names([entry.key()]);
            // All that a hash holds, as it is at one moment.
            let read = |space: &mut Keyspace<'_>| digest(space, entry.key());
            let digest = Keyspace::new(&keys.database).atomically(read)?;
            entry.insert(digest);
        }
        Ok(())
    }

    /// Runs the commands that wait, as one entry of the log.
    pub(super) fn exec_in_cluster(&mut self, shards: &Shards, queue: CommandQueue) -> Answer {
        let watched: Vec<_> = std::mem::take(&mut self.watched_contents).into_iter().collect();
        self.forget_watched();
        let commands = queue.into_commands();
        let on_keys = |spec: &CommandSpec| matches!(spec.run, Handler::Keys(_));
        let mut keys: Vec<&Bytes> = watched.iter().map(|(key, _)| key).collect();
        for (args, spec) in commands.iter().filter(|(_, spec)| on_keys(spec)) {
            keys.extend(spec.keys(args).unwrap_or_default());
        }
        let mut replies = Vec::new().into_iter();
        if let Some(slot) = common_slot(keys)? {
            let place = SlotPlace { slot, shard: shards.shard_of(slot) };
            let logged = commands.iter().filter(|(_, spec)| on_keys(spec));
            let logged = logged.map(|(args, _)| args.clone()).collect();
            let request = CommandsRequest { commands: logged, watched };
            self.confirmed.clear();
            let written = blocking(|| shards.write(place.shard, request));
            match written.map_err(|failure| refusal_of(slot, failure))? {
                Some(written) => replies = written.into_iter(),
                None => return Ok(Reply::NullArray),
            }
        }
        let mut all = Vec::with_capacity(commands.len());
        for (args, spec) in &commands {
            let reply = if on_keys(spec) {
                replies.next().map_or(Reply::Null, |ReplicatedReply(reply)| reply)
            } else {
                self.call(args, spec).unwrap_or_else(Refusal::into_reply)
            };
            self.show_monitors(args, spec);
            self.count_error(&reply);
            all.push(reply);
        }
        Ok(Reply::Array(all))
    }
}

/// Returns where a command has to run, or `None` if it has no keys.
pub(super) fn place_of(
    shards: &Shards,
    args: &[Bytes],
    spec: &CommandSpec,
) -> Answer<Option<SlotPlace>> {
    let slot = common_slot(spec.keys(args).unwrap_or_default())?;
    Ok(slot.map(|slot| SlotPlace { slot, shard: shards.shard_of(slot) }))
}

/// Checks a command that will wait for `EXEC`, so that a client learns at once of another node.
pub(super) fn check_queued(shards: &Shards, args: &[Bytes], spec: &CommandSpec) -> Answer<()> {
    let Handler::Keys(_) = spec.run else { return Ok(()) };
    let Some(place) = place_of(shards, args, spec)? else {
        let name = spec.name;
        return refused_with(format!("ERR '{name}' has no keys, and no place in a transaction"));
    };
    if shards.forwards() {
        return Ok(());
    }
    let topology = shards.topology();
    let leader = topology.shards.iter().find(|shard| shard.number == place.shard);
    let leader = leader.and_then(|shard| shard.leader);
    if leader == Some(topology.me) {
        return Ok(());
    }
    let node = leader.and_then(|leader| topology.node(leader));
    let failure = node.map_or(ShardFailure::NoLeader, |node| {
        ShardFailure::Moved(format!("{}:{}", node.host, node.port))
    });
    Err(refusal_of(place.slot, failure))
}

/// Removes all keys of shards. A failure after the first one is no refusal any more: it says that
/// some are flushed.
fn flush(shards: &Shards, args: &[Bytes], places: &[SlotPlace]) -> Answer {
    let mut is_begun = false;
    for place in places {
        let why = match write(shards, *place, args) {
            Ok(Reply::Error(text)) if !is_begun => return Ok(Reply::Error(text)),
            Ok(Reply::Error(text)) => text,
            Ok(_) => {
                is_begun = true;
                continue;
            }
            Err(refusal) if !is_begun => return Err(refusal),
            Err(refusal) => match refusal.into_reply() {
                Reply::Error(text) => text,
                _ => String::new(),
            },
        };
        return refused_with(format!(
            "ERR some shards of this node are flushed, others not: {why}"
        ));
    }
    Ok(OK)
}

/// Returns a page of the scan of one store, and the cursor behind it.
fn scan_page(
    keys: &ReplicatedKeys,
    args: &[Bytes],
    spec: &CommandSpec,
    cursor: u64,
    count: Option<u64>,
) -> Answer<(Vec<Reply>, u64)> {
    let mut args = args.to_vec();
    if let Some(place) = args.get_mut(1) {
        *place = Bytes::from(cursor.to_string());
    }
    if let Some(count) = count {
        args.extend([Bytes::from_static(b"COUNT"), Bytes::from(count.to_string())]);
    }
    let Reply::Array(mut parts) = read(keys, &args, spec)? else {
        return refused("ERR the scan has no page");
    };
    let (items, next) = (parts.pop(), parts.pop());
    let next = match &next {
        Some(Reply::Bulk(text)) => String::from_utf8_lossy(text).parse().unwrap_or(0),
        _ => 0,
    };
    Ok((if let Some(Reply::Array(items)) = items { items } else { Vec::new() }, next))
}

/// Copies arguments, which share the memory of everything that arrived with them.
pub(super) fn copied(args: &[Bytes]) -> Vec<Bytes> {
    args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect()
}

/// Has a command run on all nodes of its shard.
pub(super) fn write(shards: &Shards, place: SlotPlace, args: &[Bytes]) -> Answer {
    let request = CommandsRequest { commands: vec![copied(args)], watched: Vec::new() };
    let written = blocking(|| shards.write(place.shard, request));
    let written = written.map_err(|failure| refusal_of(place.slot, failure))?;
    let reply = written.into_iter().flatten().next();
    Ok(reply.map_or(Reply::Null, |ReplicatedReply(reply)| reply))
}

/// Runs a command that only reads.
fn read(keys: &ReplicatedKeys, args: &[Bytes], spec: &CommandSpec) -> Answer {
    let Handler::Keys(run) = spec.run else { return refused("ERR it does not work on keys") };
    run(&mut Keyspace::new(&keys.database), args)
}

/// Waits for the cluster. The other clients of this thread are served by another one meanwhile.
pub(super) fn blocking<T>(call: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(call)
}
