//! Filling the keydir from hints, newest segment first.

use std::sync::Arc;

use super::{Recovered, Recovery};
use crate::error::Result;
use crate::keydir::{Address, Filling};
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
        fill_from(recovery, segments, number, segment, &hint)?;
    }
    recovery.keydir.each_shard().for_each(|mut shard| shard.filled());
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

fn fill_from(
    recovery: &Recovery<'_>,
    segments: &Segments,
    number: u32,
    segment: &Arc<Segment>,
    hint: &Hint,
) -> Result<()> {
    let open = |segment: &Segment| open_listed(recovery.fs, segment.path());
    let key_at = |address: Address| {
        let segment = segments.get(address.segment);
        scan::key_at(&open(&segment)?, segment.id(), address.offset, segment.size())
    };
    let same_key = |held, older| Ok(key_at(held)? == key_at(older)?);
    for run in hint.slots.chunk_by(|a, b| a.hash().shard() == b.hash().shard()) {
        let Some(first) = run.first() else { continue };
        let mut shard = recovery.keydir.shard(first.hash());
        shard.reserve(run.len());
        for slot in run {
            let (hash, tombstone) = (slot.hash(), slot.is_tombstone());
            let address = Address { segment: number, offset: slot.offset() };
            let filling = Filling { hash, address, tombstone, collides: slot.collides() };
            if shard.fill(filling, same_key)? && !tombstone {
                let size = match slot.size() {
                    Some(size) => size,
                    None => scan::size_at(&open(segment)?, slot.offset(), segment.size())?,
                };
                segment.gained(size);
            }
        }
    }
    Ok(())
}
