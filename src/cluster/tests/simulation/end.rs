//! What is left when everything is mended: all nodes hold the same, and it is what clients saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use turmoil::Sim;

use super::clients::LISTS;
use super::machines::{CALM_TIME, Machines};
use crate::cluster::map::MAP_GROUP;
use crate::resp::StringEntry;

/// Everything that a node holds in a group, with the place in the log, the time and the members.
type Contents = Vec<(Vec<u8>, Vec<u8>)>;

/// Waits until all nodes hold the same.
pub(super) fn settle(sim: &mut Sim<'_>, machines: &Arc<Machines>) -> Result<(), String> {
    let until = sim.elapsed() + CALM_TIME;
    loop {
        for _ in 0..20 {
            sim.step().map_err(|why| why.to_string())?;
            machines.look(sim.elapsed());
        }
        if let Some(why) = machines.failure() {
            return Err(why);
        }
        let Err(why) = compare(machines) else { return Ok(()) };
        if sim.elapsed() > until {
            return Err(why);
        }
    }
}

fn compare(machines: &Arc<Machines>) -> Result<(), String> {
    let members = machines.members();
    for number in MAP_GROUP..=machines.shards.into() {
        let mut first: Option<Contents> = None;
        for id in &members {
            let group = machines.group(*id, number);
            let group = group.ok_or_else(|| format!("node {id} has no group {number}"))?;
            let metrics = group.metrics();
            let voters: BTreeSet<_> = metrics.membership_config.membership().voter_ids().collect();
            if !voters.iter().eq(&members) {
                return Err(format!("node {id} takes {voters:?} for the voters of {members:?}"));
            }
            let pairs = group.state().store().iter().map(|pair| {
                let (key, value) = pair.unwrap();
                (key.to_vec(), value.to_vec())
            });
            let contents: Contents = pairs.collect();
            let first = first.get_or_insert_with(|| contents.clone());
            if *first != contents {
                return Err(difference(*id, number, first, &contents));
            }
        }
    }
    Ok(())
}

fn difference(id: u64, number: u64, first: &Contents, contents: &Contents) -> String {
    let shown = |(key, value): &(Vec<u8>, Vec<u8>)| {
        format!("{:?}: {:?}", String::from_utf8_lossy(key), String::from_utf8_lossy(value))
    };
    let only = |a: &Contents, b: &Contents| -> Vec<String> {
        a.iter().filter(|pair| !b.contains(pair)).map(shown).collect()
    };
    let (here, there) = (only(contents, first), only(first, contents));
    format!("node {id} differs in group {number}: {here:?} instead of {there:?}")
}

/// Judges what clients saw. Returns the number of operations that had an answer.
pub(super) fn judge(machines: &Arc<Machines>) -> Result<usize, String> {
    let id = machines.members()[0];
    let mut lists = BTreeMap::new();
    for key in 0..usize::try_from(LISTS).unwrap() {
        let group = machines.group(id, machines.group_of_list(key)).unwrap();
        let keys = group.keys().map_err(|why| why.to_string())?;
        match keys.string(machines.list_name(key).as_bytes())? {
            StringEntry::Value { value, .. } => {
                lists.insert(key, String::from_utf8(value).unwrap());
            }
            other => return Err(format!("list {key} is {other:?}")),
        }
    }
    machines.history(|history| history.judge(&lists).map(|()| history.answered()))
}
