//! Puts the keys of a backup into a cluster, by requests like those of clients. So the cluster may
//! have other nodes and another number of shards.
//!
//! - Keys are read at the time of the backup, by no clock of today. Those that have expired since
//!   are put too, and the leaders, whose time counts, remove them at once.
//! - Any request may run twice. Those of a group run in their order, unless a node does not answer
//!   in time: it may still run later what others have run meanwhile, so the restore fails at its
//!   end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;

use super::admin::{ClusterAdmin, SHORT};
use super::backup::{PAUSE, odd, of_group, read_contents};
use super::consensus::{Consensus, Request};
use super::error::ClusterError;
use super::map::{ClusterMap, MAP_GROUP};
use super::network::AskFailure;
use super::network::messages::{PeerAnswer, PeerRequest, WriteOutcome};
use crate::error::{Error, shown_key};
use crate::raft::open_copy;
use crate::resp::{
    CommandsRequest, GrowingCommand, ReplicatedReply, decode_key, put_again, slot_of,
};

/// Size up to which commands are sent together, as requests are measured. A larger one goes alone.
const BATCH_SIZE: usize = 1 << 20;
/// How often a command is sent that is refused. It may share an entry with those of others, which
/// are the reason then.
const ATTEMPTS: usize = 20;
/// How often one is sent that is refused for a reason of its own.
const OWN_ATTEMPTS: usize = 3;
/// Number of fields that are looked for at once in a hash that is too large to be removed.
const SCAN_COUNT: usize = 100_000;

impl ClusterAdmin {
    /// Puts all keys of a [backup](Self::backup) into the cluster, whatever its number of shards.
    /// What the cluster has under other keys stays. Returns how many keys there were, also if they
    /// have expired since. A restore that was interrupted can be begun again.
    ///
    /// # Errors
    ///
    /// [`Refused`](ClusterError::Refused) if the directory has no complete backup, or the cluster
    /// refuses a key; errors of the disk, and a group that does not work for a minute, as
    /// [`Failed`](ClusterError::Failed); and those of [`join`](Self::join). Also `Failed` if all
    /// keys were put, but a node did not answer in time: what it was sent may undo a part of that
    /// later, so the restore has to be repeated once the node answers or was stopped.
    pub fn restore(&self, dir: impl AsRef<Path>) -> Result<u64, ClusterError> {
        let dir = dir.as_ref();
        let contents = read_contents(dir)?;
        let known = self.ask(&self.address, MAP_GROUP, &PeerRequest::GetMap, SHORT)?;
        let PeerAnswer::Cluster(known) = known else { return Err(odd("the question for the map")) };
        let others = known.map.nodes.values().map(|node| node.cluster.clone());
        let others = others.filter(|address| *address != self.address);
        let mut sending = SentBatches {
            admin: self,
            cluster: known.cluster,
            nodes: std::iter::once(self.address.clone()).chain(others).collect(),
            failures: 0,
            leaders: BTreeMap::new(),
            batches: BTreeMap::new(),
            silent: BTreeSet::new(),
        };
        let put = sending.put_all(dir, contents.shards, &known.map);
        if sending.silent.is_empty() {
            return put;
        }
        let silent = sending.silent.into_iter().collect::<Vec<_>>().join(", ");
        let late = format!(
            "{silent} did not answer in time, and may still do what was done by others meanwhile: \
             restore again once all nodes answer or were stopped"
        );
        Err(match put {
            Ok(count) => ClusterError::Failed(format!("{} put, but {late}", keys(count))),
            Err(ClusterError::Refused(why)) => {
                ClusterError::Refused(format!("{why}; also, {late}"))
            }
            Err(failure) => ClusterError::Failed(format!("{failure}; also, {late}")),
        })
    }
}

/// Says how many keys there are, or were.
fn keys(count: u64) -> String {
    if count == 1 { "1 key was".to_owned() } else { format!("{count} keys were") }
}

/// Commands that wait to be sent to the leader of a group.
#[derive(Default)]
struct CommandBatch {
    commands: Vec<Vec<Bytes>>,
    size: usize,
}

/// What has become of commands.
enum Sent {
    Replies(Vec<ReplicatedReply>),
    /// Nothing was done.
    Refused(String),
}

/// Sends commands to the leaders of their groups.
struct SentBatches<'a> {
    admin: &'a ClusterAdmin,
    /// The cluster that the keys are for. By now, a node of another one may be at an address.
    cluster: u128,
    /// Where the nodes are, each of which may know a leader.
    nodes: Vec<String>,
    /// Number of times that a node could not help.
    failures: usize,
    /// Where the leaders are, as far as known.
    leaders: BTreeMap<u64, String>,
    batches: BTreeMap<u64, CommandBatch>,
    /// Nodes that have not answered in time.
    silent: BTreeSet<String>,
}

impl SentBatches<'_> {
    /// Puts all keys of the groups of a backup. Returns how many there are.
    fn put_all(&mut self, dir: &Path, shards: u16, map: &ClusterMap) -> Result<u64, ClusterError> {
        let mut count = 0;
        for group in 1..=shards {
            let store = open_copy::<Consensus>(&dir.join(format!("group-{group}")))?;
            for stored_key in store.keys_unordered() {
                let stored_key = stored_key?;
                let Some(key) = decode_key(&stored_key) else { continue };
                let target = map.group_of(slot_of(key));
                let is_put = put_again(&store, &stored_key, |command| self.add(target, command));
                count += u64::from(is_put?);
            }
        }
        self.send_all()?;
        Ok(count)
    }

    fn add(&mut self, group: u64, command: Vec<Bytes>) -> Result<(), ClusterError> {
        let size = CommandsRequest::size_of_command(&command);
        let batch = self.batches.entry(group).or_default();
        if batch.size.saturating_add(size) > BATCH_SIZE {
            let before = std::mem::take(batch);
            self.send(group, before.commands)?;
        }
        let batch = self.batches.entry(group).or_default();
        batch.commands.push(command);
        batch.size += size;
        Ok(())
    }

    fn send_all(&mut self) -> Result<(), ClusterError> {
        for (group, batch) in std::mem::take(&mut self.batches) {
            self.send(group, batch.commands)?;
        }
        Ok(())
    }

    /// Has commands run in their order. Together, they may be too much for an entry of the log.
    fn send(&mut self, group: u64, commands: Vec<Vec<Bytes>>) -> Result<(), ClusterError> {
        if commands.len() > 1
            && let Sent::Replies(replies) = self.run(group, &commands)?
        {
            return commands.iter().zip(replies).try_for_each(|(command, reply)| {
                reply.into_number().map(drop).map_err(|why| refused(group, command, &why))
            });
        }
        commands.into_iter().try_for_each(|command| self.send_alone(group, command))
    }

    fn send_alone(&mut self, group: u64, command: Vec<Bytes>) -> Result<(), ClusterError> {
        let commands = [command];
        let [command] = &commands;
        let failed = |why: String| refused(group, command, &why);
        let mut attempts = 0;
        loop {
            let why = match self.run(group, &commands)? {
                Sent::Replies(replies) => {
                    let mut replies = replies.into_iter().map(ReplicatedReply::into_number);
                    return replies.try_for_each(|it| it.map(drop)).map_err(failed);
                }
                Sent::Refused(why) => why,
            };
            attempts += 1;
            if attempts >= if is_too_much(&why) { ATTEMPTS } else { OWN_ATTEMPTS } {
                return Err(failed(why));
            }
            // These remove what the key holds, which may be too much for one entry.
            if is_too_much(&why)
                && let [name, key, ..] = &**command
                && [&b"DEL"[..], b"SET"].contains(&&**name)
            {
                self.remove_fields(group, key)?;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Removes the fields of a hash, some at a time.
    fn remove_fields(&mut self, group: u64, key: &Bytes) -> Result<(), ClusterError> {
        let (text, mut count, mut attempts) = (Bytes::from_static, SCAN_COUNT, 0);
        loop {
            let (from, limit) = (text(b"0"), Bytes::from(count.to_string()));
            let scan =
                vec![text(b"HSCAN"), key.clone(), from, text(b"COUNT"), limit, text(b"NOVALUES")];
            let found = match self.run(group, std::slice::from_ref(&scan))? {
                Sent::Replies(replies) => {
                    replies.into_iter().next().map_or(Ok(Vec::new()), ReplicatedReply::into_scanned)
                }
                // The caller makes another attempt.
                Sent::Refused(_) => return Ok(()),
            };
            let mut removing = GrowingCommand::new("HDEL", key);
            match found {
                Ok(fields) if fields.is_empty() => return Ok(()),
                Ok(fields) => {
                    for field in fields {
                        removing.add(&[field]).map_or(Ok(()), |it| self.send_alone(group, it))?;
                    }
                    removing.take().map_or(Ok(()), |it| self.send_alone(group, it))?;
                }
                Err(why) if why.starts_with("WRONGTYPE") => return Ok(()),
                // The names may be too long to be sent together.
                Err(_) if count > 1 => count /= 10,
                // The replies of others in the same entry may leave no room for any.
                Err(_) if attempts < ATTEMPTS => {
                    attempts += 1;
                    std::thread::sleep(PAUSE);
                }
                Err(why) => return Err(refused(group, &scan, &why)),
            }
        }
    }

    /// Has commands run by the leader of a group, whoever that is. They may run twice.
    fn run(&mut self, group: u64, commands: &[Vec<Bytes>]) -> Result<Sent, ClusterError> {
        let request = CommandsRequest::new(commands.to_vec(), Vec::new());
        let request = PeerRequest::Write(Request::Commands(request));
        let until = Instant::now() + self.admin.patience;
        let mut why = ClusterError::NotLeader { leader: None }.to_string();
        loop {
            let known = self.leaders.remove(&group);
            let next = || self.nodes.get(self.failures % self.nodes.len()).cloned();
            let address = known.or_else(next).unwrap_or_default();
            let asked = Instant::now();
            match self.admin.ask_once(&address, self.cluster, group, &request) {
                Ok(PeerAnswer::Written(WriteOutcome::Replies(Some(replies)))) => {
                    self.leaders.insert(group, address);
                    return Ok(Sent::Replies(replies));
                }
                Ok(PeerAnswer::Written(WriteOutcome::Refused(why))) => {
                    self.leaders.insert(group, address);
                    return Ok(Sent::Refused(why));
                }
                // That one may have failed, of which this node has not heard yet.
                Ok(PeerAnswer::AskLeader { address: Some(leader), .. }) => {
                    self.leaders.insert(group, leader);
                }
                Ok(answer) => why = format!("{address}: {}", shown(answer)),
                Err(AskFailure::NotSent) => why = format!("{address} cannot be reached"),
                Err(AskFailure::Unknown) => {
                    why = format!("{address} does not answer");
                    // Otherwise the connection has ended, and what was sent by it with it.
                    if asked.elapsed() >= self.admin.answer_time {
                        self.silent.insert(address);
                    }
                }
            }
            if Instant::now() >= until {
                return Err(of_group(group, &ClusterError::Failed(why)));
            }
            if !self.leaders.contains_key(&group) {
                self.failures += 1;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Returns whether commands were refused since an entry would put or remove too much.
fn is_too_much(why: &str) -> bool {
    let error = Error::BatchTooLarge { size: 0, limit: 0 }.to_string();
    error.split('0').next().is_some_and(|beginning| why.contains(beginning))
}

/// Says why a node has not run commands.
fn shown(answer: PeerAnswer) -> String {
    match answer {
        PeerAnswer::Written(WriteOutcome::Busy) | PeerAnswer::Busy => {
            ClusterError::Busy.to_string()
        }
        PeerAnswer::Written(WriteOutcome::Unknown) => ClusterError::Unknown.to_string(),
        PeerAnswer::Written(WriteOutcome::Stopped(why)) => ClusterError::Stopped(why).to_string(),
        PeerAnswer::AskLeader { leader, .. } => ClusterError::NotLeader { leader }.to_string(),
        PeerAnswer::Failed(why) | PeerAnswer::Refused(why) => why,
        _ => odd("a write").to_string(),
    }
}

fn refused(group: u64, command: &[Bytes], why: &str) -> ClusterError {
    let [name, key, ..] = command else { return ClusterError::Refused(why.to_owned()) };
    let name = String::from_utf8_lossy(name);
    let failure = ClusterError::Refused(format!("{name} of key {}: {why}", shown_key(key)));
    of_group(group, &failure)
}
