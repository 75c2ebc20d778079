//! Filling the keydir from hints, newest segment first.

use std::sync::Arc;

use super::{Recovered, Recovery};
use crate::error::Result;
use crate::keydir::{Address, Filling, SHARD_COUNT};
use crate::segment::hint::{Hint, Source};
use crate::segment::{Segment, Segments, open_listed, scan};

/// Adds the segments to the set and fills the keydir; rebuilds the hints that can't be used.
///
/// Returns the highest timestamp in the log.
pub(crate) fn fill(
    recovery: &Recovery<'_>,
    recovered: &mut Recovered,
    segments: &Segments,
    for_writing: bool,
) -> Result<u64> {
    let mut last_timestamp = 0;
    let mut sources = Vec::new();
    let identity = recovered.manifest.identity;
    for (segment, hint) in recovered.segments.iter_mut().rev() {
        let source = Source { id: segment.id(), identity, length: segment.size() };
        let known = hint.take().or_else(|| Hint::read(recovery.fs, recovery.dir, source));
        let hint = if let Some(hint) = known {
            hint
        } else {
            recovered.report.rebuilt_hints += 1;
            rebuild(recovery, source, for_writing)?
        };
        last_timestamp = last_timestamp.max(hint.summary.last_timestamp);
        let number = segments.add(Arc::clone(segment))?;
        sources.push((number, Arc::clone(segment), hint));
    }
    for number in 0..SHARD_COUNT {
        fill_shard(recovery, number, &sources)?;
    }
    Ok(last_timestamp)
}

fn rebuild(recovery: &Recovery<'_>, source: Source, for_writing: bool) -> Result<Hint> {
    let file = open_listed(recovery.fs, &recovery.dir.log(source.id))?;
    let hint = Hint::build(&file, source, |key| recovery.keydir.hash(key))?;
    if for_writing {
        hint.write(recovery.fs, recovery.dir, source)?;
    }
    Ok(hint)
}

fn fill_shard(
    recovery: &Recovery<'_>,
    number: usize,
    sources: &[(u32, Arc<Segment>, Hint)],
) -> Result<()> {
    let open = |segment: &Segment| open_listed(recovery.fs, segment.path());
    let key_at = |address: Address| {
        let Some((_, segment, _)) = sources.iter().find(|(number, ..)| *number == address.segment)
        else {
            unreachable!("a shard is filled from the sources alone")
        };
        scan::key_at(&open(segment)?, segment.id(), address.offset, segment.size())
    };
    let same_key = |held, older| Ok(key_at(held)? == key_at(older)?);
    let runs = sources.iter().map(|(at, segment, hint)| {
        let below = |end: usize| hint.slots.partition_point(|slot| slot.hash().shard() < end);
        (*at, segment, hint.slots.get(below(number)..below(number + 1)).unwrap_or_default())
    });
    let runs: Vec<_> = runs.collect();
    let mut shard = recovery.keydir.shard(number);
    let mut fill = shard.start_filling(runs.iter().map(|(.., run)| run.len()).sum());
    for (at, segment, run) in runs {
        for slot in run {
            let (hash, tombstone) = (slot.hash(), slot.is_tombstone());
            let address = Address { segment: at, offset: slot.offset() };
            let filling = Filling { hash, address, tombstone, collides: slot.collides() };
            if fill.add(filling, same_key)? && !tombstone {
                let size = match slot.size() {
                    Some(size) => size,
                    None => scan::size_at(&open(segment)?, slot.offset(), segment.size())?,
                };
                segment.gained(size);
            }
        }
    }
    shard.filled(fill);
    Ok(())
}
