//! Copying what is live, and the tombstones that matter, from an input to an output.
//!
//! - An entry is live if its slot names it. The hint says which entries there are, the keydir which
//!   of them it names; only those are read, checked, and copied with what their flags say of the
//!   log around them set anew.
//! - A copy is written before its slot is made to name it, under the shard's lock, and only if the
//!   slot still names the original.
//! - *Collides* is set if another key with the same hash bits has a slot while the copy is made.
//!   One that gets its slot later has a younger entry, which is flagged because of this key's slot.
//! - An expired entry loses its slot, and leaves a tombstone by the rule for tombstones; but only if it
//!   is certain that it has expired, since this is for good.
//! - Of each key the order of timestamps is the order of its entries in the log, in copies too. Of
//!   several tombstones of a key the first is kept, so it gets a time that covers them all.

use std::collections::HashSet;

use super::{Host, Input, KeyState, Merge, MergeContext};
use crate::entry::{Flags, Header};
use crate::epoch::Guard;
use crate::error::Result;
use crate::fs::File;
use crate::key_hash::KeyHash;
use crate::keydir::Address;
use crate::manifest::Sealed;
use crate::mistake::{Mistake, made};
use crate::segment::header::Kind;
use crate::segment::hint::{HintBuilder, HintSource};
use crate::segment::read::pick::{LiveEntries, LiveEntry};
use crate::segment::read::scan::{Scanned, size_at};
use crate::segment::write::active::Active;
use crate::segment::write::draft::Draft;
use crate::segment::{FIRST_OFFSET, open_listed};

/// As many bytes of keys are remembered whose tombstones were copied.
const KEPT_SIZE_MAX: usize = if cfg!(any(test, bitcask_fuzzing)) { 64 } else { 16 << 20 };

/// As many entries ahead memory of the keydir is asked for.
const LOOKED_AHEAD: usize = 8;

/// An input that is being copied.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) input: Input,
    file: File,
    picks: LiveEntries,
}

/// A segment that is copied to.
#[derive(Debug)]
pub(super) struct Output {
    active: Active,
    number: u32,
    hint: HintBuilder,
}

/// The keys whose tombstones were copied to outputs that are not listed yet, so that of several one
/// is kept: it is listed above the youngest of them. Bounded: a tombstone too many costs its space
/// and nothing else.
#[derive(Debug, Default)]
pub(super) struct CopiedTombstones {
    keys: HashSet<Box<[u8]>>,
    size: usize,
}

impl CopiedTombstones {
    fn has(&self, key: &[u8]) -> bool {
        self.keys.contains(key)
    }

    fn add(&mut self, key: &[u8]) {
        if self.size + key.len() <= KEPT_SIZE_MAX && self.keys.insert(key.into()) {
            // What a set takes for each besides.
            self.size += key.len() + 32;
        }
    }
}

/// What is to become of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disposition {
    /// Its slot names the copy from now on.
    Moved,
    /// Its slot goes; if there is a copy, that is a tombstone.
    Expired,
    /// A tombstone is kept.
    CopiedTombstones,
}

/// A decision, and what is to be written for it.
struct Decided<'a> {
    fate: Disposition,
    draft: Option<Draft<'a>>,
}

/// What is to be done once copies can be read.
struct SlotUpdate<'a> {
    fate: Disposition,
    hash: KeyHash,
    old: Address,
    size: u64,
    copy: Option<Copied<'a>>,
}

struct Copied<'a> {
    address: Address,
    header: Header,
    key: &'a [u8],
}

impl Reading {
    /// Chooses the entries of an input that have to be looked at.
    pub(super) fn begin(
        merge: &mut Merge,
        context: &MergeContext<'_>,
        input: Input,
    ) -> Result<Self> {
        let file = open_listed(context.fs, input.segment.path())?;
        let mut picks = LiveEntries::default();
        let mut unknown = Vec::new();
        let guard = context.keydir.pin();
        context.for_each_slot(&input, |slot| {
            let wanted = if slot.is_tombstone() {
                let may_hold = merge.shadows.may_hold(slot.hash(), input.position);
                merge.report.tombstones_dropped += u64::from(!may_hold);
                may_hold
            } else {
                context.names(slot, &input, &guard)
            };
            match slot.size() {
                Some(size) if wanted => picks.add(slot.offset(), size),
                None if wanted => unknown.push(slot.offset()),
                _ => {}
            }
            true
        })?;
        for offset in unknown {
            picks.add(offset, size_at(&file, offset, input.segment.size())?);
        }
        picks.sort();
        Ok(Self { input, file, picks })
    }

    /// Returns how many bytes of the input are done.
    pub(super) fn read_size(&self) -> u64 {
        self.picks.read_until().unwrap_or(self.input.segment.size())
    }
}

impl Merge {
    /// Copies the next run of entries of an input; says how many bytes that were, nothing if there
    /// were none left.
    pub(super) fn copy_run(
        &mut self,
        host: &impl Host,
        reading: &mut Reading,
    ) -> Result<Option<u64>> {
        let context = host.merge_context();
        let Reading { input, file, picks } = reading;
        let Some(run) = picks.read(file, input.id())? else { return Ok(None) };
        let (mut changes, mut copied_size) = (Vec::with_capacity(run.len()), 0);
        let hashes: Vec<KeyHash> =
            run.iter().map(|picked| context.keydir.hash(picked.key)).collect();
        let mut guard = context.keydir.pin();
        for (at, (picked, hash)) in run.iter().zip(hashes.iter().copied()).enumerate() {
            if let Some(soon) = hashes.get(at + LOOKED_AHEAD) {
                context.keydir.prefetch(*soon, &guard);
            }
            let old = Address { segment: input.number, offset: picked.offset };
            let decided = self.decide(&context, picked, hash, old, input, &guard)?;
            let Some(Decided { fate, draft }) = decided else { continue };
            let mut copy = None;
            if let Some(draft) = draft {
                let size = draft.header.entry_size();
                if self.is_full(&context, size) {
                    self.apply(host, &context, input, &mut changes)?;
                    // Others need not wait with what they want freed.
                    guard.repin_after(|| self.publish(host))?;
                }
                copied_size += size;
                let timestamp = self.time_of_copy(fate, picked);
                copy = Some(self.append(host, &draft, picked, timestamp)?);
            }
            let size = picked.header.entry_size();
            changes.push(SlotUpdate { fate, hash, old, size, copy });
        }
        self.apply(host, &context, input, &mut changes)?;
        Ok(Some(copied_size))
    }

    /// Decides what becomes of an entry; nothing if it is dead.
    fn decide<'a>(
        &mut self,
        context: &MergeContext<'_>,
        picked: &LiveEntry<'a>,
        hash: KeyHash,
        old: Address,
        input: &Input,
        guard: &Guard<'_>,
    ) -> Result<Option<Decided<'a>>> {
        let (header, key) = (&picked.header, picked.key);
        if header.is_tombstone() {
            let KeyState { own, others } = context.find(hash, guard, |address| {
                context.segments.get(address.segment, guard).entry(address.offset)?.is_of(key)
            })?;
            if own || self.kept.has(key) {
                self.report.tombstones_dropped += 1;
                return Ok(None);
            }
            self.kept.add(key);
            let draft = Some(Draft::copy(picked, others));
            return Ok(Some(Decided { fate: Disposition::CopiedTombstones, draft }));
        }
        let KeyState { own, others } = context.find(hash, guard, |address| Ok(address == old))?;
        if !own {
            return Ok(None);
        }
        if header.expiry.is_none() || !header.is_expired(&context.clock.certain()) {
            let draft = Some(Draft::copy(picked, others));
            return Ok(Some(Decided { fate: Disposition::Moved, draft }));
        }
        let is_needed =
            self.shadows.may_hold(hash, input.position) && !made(Mistake::ExpiredForgotten);
        let draft = is_needed.then(|| {
            self.kept.add(key);
            let mut draft = Draft::tombstone(key);
            draft.header.flags = draft.header.flags.with_if(others, Flags::COLLIDES);
            draft
        });
        Ok(Some(Decided { fate: Disposition::Expired, draft }))
    }

    /// Returns the time of a copy: that of the entry, but for a tombstone that stands for all of its
    /// key's in the inputs. The key is absent, so whatever the inputs hold of it, up to their last
    /// time, is dead, and whoever puts it from now on has a later one.
    fn time_of_copy(&self, fate: Disposition, picked: &LiveEntry<'_>) -> u64 {
        if fate == Disposition::CopiedTombstones {
            self.last_timestamp.max(picked.header.timestamp)
        } else {
            picked.header.timestamp
        }
    }

    fn is_full(&self, context: &MergeContext<'_>, size: u64) -> bool {
        self.output.as_ref().is_some_and(|Output { active, .. }| {
            !active.has_room(size, context.segment_size)
                || active.entries() >= context.segment_entries
        })
    }

    fn append<'a>(
        &mut self,
        host: &impl Host,
        draft: &Draft<'_>,
        picked: &LiveEntry<'a>,
        timestamp: u64,
    ) -> Result<Copied<'a>> {
        let (context, size) = (host.merge_context(), draft.header.entry_size());
        let is_to_the_last_byte = self.is_to_the_last_byte;
        let look = || if is_to_the_last_byte { Ok(()) } else { context.leave_room(0) };
        let output = match &mut self.output {
            Some(output) => output,
            none => {
                look()?;
                let (active, number) = host.create_output(size)?;
                none.insert(Output { active, number, hint: HintBuilder::default() })
            }
        };
        output.active.reserve_for_copy(size, look)?;
        let place = output.active.append(draft, timestamp)?;
        let address = Address { segment: output.number, offset: place.offset };
        let mut header = draft.header;
        header.timestamp = timestamp;
        Ok(Copied { address, header, key: picked.key })
    }

    /// Makes copies readable, and slots name them.
    fn apply(
        &mut self,
        host: &impl Host,
        context: &MergeContext<'_>,
        input: &Input,
        changes: &mut Vec<SlotUpdate<'_>>,
    ) -> Result<()> {
        if let Some(output) = &mut self.output {
            output.active.flush()?;
        }
        for SlotUpdate { fate, hash, old, size, copy } in changes.drain(..) {
            if let (Some(Copied { address, header, key }), Some(output)) = (&copy, &mut self.output)
            {
                let (offset, header) = (address.offset, *header);
                output.hint.add(&Scanned { offset, header, key }, |_| hash);
            }
            let mut shard = context.keydir.shard(hash.shard());
            match (fate, copy, &self.output) {
                (Disposition::Moved, Some(copy), Some(output)) => {
                    if shard.relocate(hash, old, copy.address) {
                        output.active.segment().gained(copy.header.entry_size());
                        input.segment.lost(size);
                        self.report.live_entries += 1;
                    }
                }
                (Disposition::Expired, copy, _) => {
                    if shard.remove(hash, old, host.next_timestamp()) {
                        input.segment.lost(size);
                        self.report.expired_dropped += 1;
                    }
                    self.report.tombstones_kept += u64::from(copy.is_some());
                }
                _ => self.report.tombstones_kept += 1,
            }
        }
        Ok(())
    }

    /// Makes the output, if there is one, a sealed segment that is not listed yet.
    pub(super) fn close_output(&mut self, host: &impl Host) -> Result<()> {
        let context = host.merge_context();
        let Some(output) = &self.output else { return Ok(()) };
        // What could not be written behind this is no part of it.
        let (segment, file) = (output.active.segment().clone(), output.active.file().clone());
        let length = segment.size();
        if length > FIRST_OFFSET {
            output.active.room().cut(length)?;
            if !made(Mistake::OutputNotSynced) {
                file.sync().map_err(|error| host.poison_if_sync_failed(error))?;
            }
        }
        let Some(Output { number, hint, .. }) = self.output.take() else { return Ok(()) };
        if length == FIRST_OFFSET {
            context.segments.remove(number);
            // What can't be removed now is removed at the next open.
            let _ = context.fs.remove(segment.path());
            return Ok(());
        }
        let source = HintSource { id: segment.id(), identity: context.identity, length };
        let hint = hint.finish();
        hint.write(context.fs, context.dir, source)
            .map_err(|error| host.poison_if_sync_failed(error))?;
        segment.summarize(hint.summary);
        let sealed = Sealed { id: segment.id(), kind: Kind::Merged, length };
        self.written.push(sealed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_keys_are_remembered_and_no_more() {
        let mut kept = CopiedTombstones::default();
        kept.add(b"first");
        kept.add(b"first");
        assert_eq!(kept.size, 5 + 32);
        kept.add(&[7; KEPT_SIZE_MAX - 37]);
        kept.add(b"");
        assert!(kept.has(b"first") && kept.has(&[7; KEPT_SIZE_MAX - 37]) && !kept.has(b""));
    }
}
