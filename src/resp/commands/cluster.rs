//! `CLUSTER`, by which clients find the leaders of slots.

use std::fmt::Write as _;

use bytes::Bytes;

use super::{arg, help, integer};
use crate::resp::clustered::refusal_of;
use crate::resp::encoding::decode_key;
use crate::resp::refusal::{Answer, refused};
use crate::resp::reply::{OK, Reply};
use crate::resp::session::Session;
use crate::resp::shards::{Topology, TopologyNode, TopologyShard, node_name};
use crate::resp::slots::{SLOT_COUNT, slot_of};

/// Maximum size of the keys that `CLUSTER GETKEYSINSLOT` replies, in bytes. There may be more.
const KEYS_SIZE_MAX: usize = 64 << 20;
const DISABLED: &str = "ERR This instance has cluster support disabled";
/// Offset of the port that nodes of Redis use among themselves. Clients do not use it.
const BUS_OFFSET: u32 = 10_000;

fn topology(session: &Session) -> Answer<Topology> {
    match &session.state.options.shards {
        Some(shards) => Ok(shards.topology()),
        None => refused(DISABLED),
    }
}

pub(in crate::resp) fn help_text(_session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(help(
        "CLUSTER",
        &[
            "COUNTKEYSINSLOT <slot>",
            "    Return the number of keys in <slot> that this node has.",
            "GETKEYSINSLOT <slot> <count>",
            "    Return keys in <slot> that this node has.",
            "INFO",
            "    Return information about the cluster.",
            "KEYSLOT <key>",
            "    Return the hash slot for <key>.",
            "MYID",
            "    Return the node id.",
            "NODES",
            "    Return the nodes, with their slots.",
            "SHARDS",
            "    Return the slots, with their nodes.",
            "SLOTS",
            "    Return the slots, with their nodes, for older clients.",
        ],
    ))
}

/// The nodes of a shard, its leader first. A node that leads another shard is left out: in this
/// protocol, each node is either a master or a replica.
fn members<'a>(topology: &'a Topology, shard: &'a TopologyShard) -> Vec<&'a TopologyNode> {
    let leads = |id: u64| topology.shards.iter().any(|shard| shard.leader == Some(id));
    let others = shard.members.iter().copied().filter(|id| !leads(*id));
    shard.leader.into_iter().chain(others).filter_map(|id| topology.node(id)).collect()
}

/// The nodes that `CLUSTER SLOTS` names for a shard. Clients give up a cluster in which a slot is
/// nobody's, so without a leader, this node comes first, and tells them to try again. They also
/// forget nodes that are named nowhere, so the others follow.
fn named_members<'a>(topology: &'a Topology, shard: &'a TopologyShard) -> Vec<&'a TopologyNode> {
    let mut nodes = members(topology, shard);
    if shard.leader.and_then(|leader| topology.node(leader)).is_none() {
        nodes.retain(|node| node.id != topology.me);
        nodes.splice(0..0, topology.node(topology.me));
    }
    nodes
}

pub(in crate::resp) fn slots(session: &mut Session, _args: &[Bytes]) -> Answer {
    let topology = topology(session)?;
    let rows = topology.shards.iter().filter_map(|shard| {
        let mut row = vec![Reply::count(*shard.slots.start()), Reply::count(*shard.slots.end())];
        let nodes = named_members(&topology, shard);
        // A node that was removed may know none. Clients cannot read such a row.
        if nodes.is_empty() {
            return None;
        }
        row.extend(nodes.into_iter().map(|node| {
            Reply::Array(vec![
                Reply::bulk(node.host.clone()),
                Reply::count(node.port),
                Reply::bulk(node_name(node.id)),
                Reply::Array(Vec::new()),
            ])
        }));
        Some(Reply::Array(row))
    });
    Ok(Reply::Array(rows.collect()))
}

pub(in crate::resp) fn shards(session: &mut Session, _args: &[Bytes]) -> Answer {
    let topology = topology(session)?;
    let rows = topology.shards.iter().map(|shard| {
        let slots = [*shard.slots.start(), *shard.slots.end()].map(Reply::count);
        let nodes = members(&topology, shard).into_iter().map(|node| {
            let role = if shard.leader == Some(node.id) { "master" } else { "replica" };
            let offset = shard.offsets.get(&node.id).copied().unwrap_or(0);
            let health = if node.is_silent { "fail" } else { "online" };
            Reply::Map(vec![
                (Reply::Text("id"), Reply::bulk(node_name(node.id))),
                (Reply::Text("port"), Reply::count(node.port)),
                (Reply::Text("ip"), Reply::bulk(node.host.clone())),
                (Reply::Text("endpoint"), Reply::bulk(node.host.clone())),
                (Reply::Text("role"), Reply::Text(role)),
                (Reply::Text("replication-offset"), Reply::count(offset)),
                (Reply::Text("health"), Reply::Text(health)),
            ])
        });
        Reply::Map(vec![
            (Reply::Text("slots"), Reply::Array(slots.into())),
            (Reply::Text("nodes"), Reply::Array(nodes.collect())),
        ])
    });
    Ok(Reply::Array(rows.collect()))
}

/// Returns the text that `CLUSTER NODES` shows. A node that leads no shard is shown as a replica of
/// the leader of the first one: the protocol has one leader for each replica.
fn nodes_text(topology: &Topology) -> String {
    let mut text = String::new();
    let any_leader = topology.shards.iter().find_map(|shard| shard.leader);
    for node in &topology.nodes {
        let led: Vec<_> =
            topology.shards.iter().filter(|shard| shard.leader == Some(node.id)).collect();
        let (role, master) = match any_leader.filter(|_| led.is_empty()) {
            Some(leader) => ("slave", node_name(leader)),
            None => ("master", "-".to_owned()),
        };
        let myself = if node.id == topology.me { "myself," } else { "" };
        let (silence, link) =
            if node.is_silent { (",fail?", "disconnected") } else { ("", "connected") };
        let TopologyNode { id, host, port, .. } = node;
        let (id, bus) = (node_name(*id), u32::from(*port) + BUS_OFFSET);
        let epoch = topology.epoch;
        let flags = format!("{myself}{role}{silence}");
        let _ = write!(text, "{id} {host}:{port}@{bus} {flags} {master} 0 0 {epoch} {link}");
        for shard in led {
            let (first, last) = (shard.slots.start(), shard.slots.end());
            let _ = write!(text, " {first}-{last}");
        }
        text.push('\n');
    }
    text
}

pub(in crate::resp) fn nodes(session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(Reply::Verbatim(nodes_text(&topology(session)?)))
}

pub(in crate::resp) fn keyslot(_session: &mut Session, args: &[Bytes]) -> Answer {
    Ok(Reply::count(slot_of(arg(args, 2))))
}

pub(in crate::resp) fn myid(session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(Reply::bulk(node_name(topology(session)?.me)))
}

pub(in crate::resp) fn info(session: &mut Session, _args: &[Bytes]) -> Answer {
    let topology = topology(session)?;
    let served = topology.shards.iter().filter(|shard| shard.leader.is_some());
    let served: usize = served.map(|shard| shard.slots.len()).sum();
    let is_whole = served == usize::from(SLOT_COUNT);
    let state = if is_whole { "ok" } else { "fail" };
    let failed = usize::from(SLOT_COUNT).saturating_sub(served);
    let (nodes, epoch) = (topology.nodes.len(), topology.epoch);
    let mut leaders: Vec<u64> = topology.shards.iter().filter_map(|shard| shard.leader).collect();
    leaders.sort_unstable();
    leaders.dedup();
    let lines = [
        ("cluster_state", state.to_owned()),
        ("cluster_slots_assigned", SLOT_COUNT.to_string()),
        ("cluster_slots_ok", served.to_string()),
        ("cluster_slots_pfail", "0".to_owned()),
        ("cluster_slots_fail", failed.to_string()),
        ("cluster_known_nodes", nodes.to_string()),
        ("cluster_size", leaders.len().to_string()),
        ("cluster_current_epoch", epoch.to_string()),
        ("cluster_my_epoch", epoch.to_string()),
    ];
    let mut text = lines.map(|(name, value)| format!("{name}:{value}\r\n")).concat();
    for shard in &topology.shards {
        let (number, age) = (shard.number, shard.age.as_millis());
        let _ = write!(text, "cluster_shard_{number}_age_ms:{age}\r\n");
    }
    Ok(Reply::Verbatim(text))
}

/// Calls a closure with each key of a slot that this node has, as long as it returns whether to go
/// on.
fn each_key_in(session: &Session, slot: &[u8], mut each: impl FnMut(&[u8]) -> bool) -> Answer<()> {
    let Some(shards) = &session.state.options.shards else { return refused(DISABLED) };
    let slot = u16::try_from(integer(slot)?).ok().filter(|slot| *slot < SLOT_COUNT);
    let Some(slot) = slot else { return refused("ERR Invalid or out of range slot") };
    let keys = shards.keys(shards.shard_of(slot)).map_err(|failure| refusal_of(slot, failure))?;
    for stored in keys.database.store.keys_unordered() {
        let stored = stored?;
        if let Some(key) = decode_key(&stored)
            && slot_of(key) == slot
            && !each(key)
        {
            break;
        }
    }
    Ok(())
}

pub(in crate::resp) fn countkeysinslot(session: &mut Session, args: &[Bytes]) -> Answer {
    let mut count = 0;
    each_key_in(session, arg(args, 2), |_| {
        count += 1;
        true
    })?;
    Ok(Reply::count(count))
}

pub(in crate::resp) fn getkeysinslot(session: &mut Session, args: &[Bytes]) -> Answer {
    let Ok(count) = usize::try_from(integer(arg(args, 3))?) else {
        return refused("ERR Invalid slot or number of keys");
    };
    let (mut keys, mut size) = (Vec::new(), 0);
    each_key_in(session, arg(args, 2), |key| {
        let has_room = keys.len() < count && size < KEYS_SIZE_MAX;
        if has_room {
            size += key.len() + size_of::<Reply>();
            keys.push(Reply::bulk(key.to_vec()));
        }
        has_room
    })?;
    Ok(Reply::Array(keys))
}

/// Lets the client read what this node has, or not any more.
fn set_reads_stale(session: &mut Session, yes: bool) -> Answer {
    topology(session)?;
    session.reads_stale = yes;
    Ok(OK)
}

pub(in crate::resp) fn readonly(session: &mut Session, _args: &[Bytes]) -> Answer {
    set_reads_stale(session, true)
}

pub(in crate::resp) fn readwrite(session: &mut Session, _args: &[Bytes]) -> Answer {
    set_reads_stale(session, false)
}

/// Accepted: no slot is ever on its way to another node.
pub(in crate::resp) fn asking(session: &mut Session, _args: &[Bytes]) -> Answer {
    topology(session)?;
    Ok(OK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    #[test]
    fn without_a_leader_the_node_that_is_asked_is_named_before_the_others() {
        let host = || "host".to_owned();
        let node = |id| TopologyNode { id, host: host(), port: 1, is_silent: false };
        let shard = |leader, members: &[u64]| TopologyShard {
            number: 1,
            slots: 0..=9,
            leader,
            members: members.to_vec(),
            offsets: BTreeMap::new(),
            age: Duration::ZERO,
        };
        let shards = vec![shard(Some(2), &[1, 2, 3]), shard(None, &[1, 2, 3, 4])];
        let mut topology = Topology { me: 3, epoch: 1, nodes: (1..=4).map(node).collect(), shards };
        let named = |topology: &Topology| -> Vec<Vec<u64>> {
            let ids = |shard| named_members(topology, shard).iter().map(|node| node.id).collect();
            topology.shards.iter().map(ids).collect()
        };
        assert_eq!(named(&topology), [vec![2, 1, 3], vec![3, 1, 4]]);
        topology.me = 5;
        topology.nodes.clear();
        assert_eq!(named(&topology), [Vec::<u64>::new(), Vec::new()]);
    }
}
