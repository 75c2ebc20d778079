//! Copies what is live, and the tombstones that are still needed, from an input to an output.
//!
//! - An entry is live if its slot in the keydir names it. The hint lists the entries of the input,
//!   and the keydir decides which of them are live. Only those are read, checked and copied. The
//!   copy gets new values for the flags that describe the log around an entry.
//! - A copy is written before its slot names it. The slot is changed under the shard's lock, and
//!   only if it still names the original.
//! - The flag *collides* is set if another key with the same hash bits has a slot while the copy is
//!   made. A key that gets its slot later has a younger entry, which has the flag because of this
//!   key's slot.
//! - An expired entry loses its slot for good, so the merge drops it only if it has certainly
//!   expired. It leaves a tombstone where a tombstone of its key would be kept.
//! - For each key, the order of timestamps is the order of entries in the log, in copies too. Of
//!   several tombstones of a key the merge keeps the first, which therefore gets a timestamp that
//!   covers all of them.

use std::collections::HashSet;
use std::sync::Arc;

use super::ordered::ExpiredSlot;
use super::shadow::KeyState;
use super::{Host, Input, Merge, MergeContext};
use crate::entry::Flags;
use crate::epoch::Guard;
use crate::error::Result;
use crate::fs::File;
use crate::key_hash::KeyHash;
use crate::keydir::Address;
use crate::manifest::Sealed;
use crate::mistake::{Mistake, made};
use crate::segment::read::pick::{LiveEntries, LiveEntry};
use crate::segment::read::scan::{Scanned, size_at};
use crate::segment::write::draft::Draft;
use crate::segment::write::output::Output;
use crate::segment::{Segment, open_listed};

/// Maximum memory in bytes for the keys whose tombstones were copied.
const COPIED_TOMBSTONES_SIZE_MAX: usize =
    if cfg!(any(test, bitcask_fuzzing)) { 64 } else { 16 << 20 };

/// Memory in bytes that a set of keys takes for each key, in addition to the key itself.
const KEY_OVERHEAD: usize = 32;

/// Prefetch distance in the keydir, in entries.
const PREFETCH_DISTANCE: usize = 8;

/// An input that is being copied.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) input: Input,
    pub(super) file: File,
    pub(super) live: LiveEntries,
}

/// An output that is being filled, and the number by which slots name it.
#[derive(Debug)]
pub(super) struct NumberedOutput {
    output: Output,
    number: u32,
}

/// The keys whose tombstones were copied to outputs that are not listed yet. Of several tombstones
/// of a key only one is kept, because it is listed above the youngest of them.
///
/// The set is bounded. Keeping a tombstone without need costs only its space.
#[derive(Debug, Default)]
pub(super) struct CopiedTombstones {
    keys: HashSet<Box<[u8]>>,
    size: usize,
}

impl CopiedTombstones {
    fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains(key)
    }

    fn insert(&mut self, key: &[u8]) {
        if self.size + key.len() <= COPIED_TOMBSTONES_SIZE_MAX && self.keys.insert(key.into()) {
            self.size += key.len() + KEY_OVERHEAD;
        }
    }
}

/// What becomes of an entry that is not simply dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disposition {
    /// Its slot names the copy from now on.
    Moved,
    /// Its slot is removed. If there is a copy, the copy is a tombstone.
    Expired,
    /// It is a tombstone, and is kept.
    Tombstone,
}

/// The disposition of an entry, and the entry to write for it.
struct Decision<'a> {
    disposition: Disposition,
    draft: Option<Draft<'a>>,
}

/// A change of a slot that waits until its copy can be read.
struct SlotUpdate<'a> {
    disposition: Disposition,
    hash: KeyHash,
    old: Address,
    /// The segment of the original.
    segment: &'a Arc<Segment>,
    /// The size of the original.
    size: u64,
    copy: Option<Copied<'a>>,
}

struct Copied<'a> {
    segment: u32,
    entry: Scanned<'a>,
}

impl Reading {
    /// Opens an input and chooses the entries that have to be read.
    pub(super) fn begin(
        merge: &mut Merge,
        context: &MergeContext<'_>,
        input: Input,
    ) -> Result<Self> {
        let file = open_listed(context.fs, input.segment.path())?;
        let mut live = LiveEntries::default();
        let mut without_size = Vec::new();
        let guard = context.keydir.pin();
        context.for_each_slot(&input, |slot| {
            let is_wanted = if slot.is_tombstone() {
                let may_shadow = merge.shadows.may_shadow(slot.hash(), input.position);
                merge.report.tombstones_dropped += u64::from(!may_shadow);
                may_shadow
            } else {
                context.names(slot, &input, &guard)
            };
            match slot.size() {
                Some(size) if is_wanted => live.add(slot.offset(), size),
                None if is_wanted => without_size.push(slot.offset()),
                _ => {}
            }
            true
        })?;
        for offset in without_size {
            live.add(offset, size_at(&file, offset, input.segment.size())?);
        }
        live.sort();
        Ok(Self { input, file, live })
    }

    /// Returns how many bytes of the input have been processed.
    pub(super) fn read_size(&self) -> u64 {
        self.live.read_until().unwrap_or(self.input.segment.size())
    }
}

impl Merge {
    /// Copies the next run of entries of an input. Returns how many bytes were copied, or `None` if
    /// no entries were left.
    pub(super) fn copy_run(
        &mut self,
        host: &impl Host,
        reading: &mut Reading,
    ) -> Result<Option<u64>> {
        let Reading { input, file, live } = reading;
        let Some(run) = live.read(file, input.id())? else { return Ok(None) };
        let inputs = vec![&*input; run.len()];
        self.copy_entries(host, &run, &inputs).map(Some)
    }

    /// Copies entries that were read, each from the input at the same index. Returns how many bytes
    /// were copied.
    pub(super) fn copy_entries(
        &mut self,
        host: &impl Host,
        run: &[LiveEntry<'_>],
        inputs: &[&Input],
    ) -> Result<u64> {
        let context = host.merge_context();
        let (mut updates, mut copied_size) = (Vec::with_capacity(run.len()), 0);
        let hashes: Vec<KeyHash> = run.iter().map(|entry| context.keydir.hash(entry.key)).collect();
        let mut guard = context.keydir.pin();
        for (at, ((entry, input), hash)) in run.iter().zip(inputs).zip(&hashes).enumerate() {
            if let Some(soon) = hashes.get(at + PREFETCH_DISTANCE) {
                context.keydir.prefetch(*soon, &guard);
            }
            let (hash, segment) = (*hash, &input.segment);
            let old = Address { segment: input.number, offset: entry.offset };
            let decision = self.decide(&context, entry, hash, old, input, &guard)?;
            let Some(Decision { disposition, draft }) = decision else { continue };
            let size = entry.header.entry_size();
            let mut copy = None;
            if let Some(draft) = draft {
                let size = draft.header.entry_size();
                if self.is_output_full(&context, size) {
                    self.apply(host, &context, &mut updates)?;
                    // Publishing takes a while. Without the guard, memory that others retire
                    // meanwhile can be freed.
                    guard.repin_after(|| self.publish(host))?;
                }
                copied_size += size;
                let timestamp = self.timestamp_of_copy(disposition, entry);
                copy = Some(self.append(host, &draft, timestamp)?);
            } else if self.is_ordered {
                let segment = Arc::clone(segment);
                self.gathered.leave(ExpiredSlot { hash, entry: old, size, segment });
                continue;
            }
            updates.push(SlotUpdate { disposition, hash, old, segment, size, copy });
        }
        self.apply(host, &context, &mut updates)?;
        Ok(copied_size)
    }

    /// Decides what becomes of an entry. Returns `None` if it is dead.
    fn decide<'a>(
        &mut self,
        context: &MergeContext<'_>,
        entry: &LiveEntry<'a>,
        hash: KeyHash,
        old: Address,
        input: &Input,
        guard: &Guard<'_>,
    ) -> Result<Option<Decision<'a>>> {
        let (header, key) = (&entry.header, entry.key);
        if header.is_tombstone() {
            let KeyState { own, others } = context.find(hash, guard, |address| {
                context.segments.get(address.segment, guard).entry(address.offset)?.is_of(key)
            })?;
            if own || self.copied_tombstones.contains(key) {
                self.report.tombstones_dropped += 1;
                return Ok(None);
            }
            self.copied_tombstones.insert(key);
            let draft = Some(Draft::copy(entry, others));
            return Ok(Some(Decision { disposition: Disposition::Tombstone, draft }));
        }
        let KeyState { own, others } = context.find(hash, guard, |address| Ok(address == old))?;
        if !own {
            return Ok(None);
        }
        if header.expiry.is_none() || !header.is_expired(&context.clock.certain()) {
            let draft = Some(Draft::copy(entry, others));
            return Ok(Some(Decision { disposition: Disposition::Moved, draft }));
        }
        let is_tombstone_needed =
            self.shadows.may_shadow(hash, input.position) && !made(Mistake::ExpiredForgotten);
        let draft = is_tombstone_needed.then(|| {
            self.copied_tombstones.insert(key);
            let mut draft = Draft::tombstone(key);
            draft.header.flags = draft.header.flags.with_if(others, Flags::COLLIDES);
            draft
        });
        Ok(Some(Decision { disposition: Disposition::Expired, draft }))
    }

    /// Returns the timestamp of a copy, which is that of the original, except for a tombstone.
    ///
    /// A tombstone stands for all tombstones of its key in the inputs. Its key is absent, so
    /// everything that the inputs hold of the key, up to their last timestamp, is dead. A later put
    /// of the key gets a later timestamp.
    fn timestamp_of_copy(&self, disposition: Disposition, entry: &LiveEntry<'_>) -> u64 {
        if disposition == Disposition::Tombstone {
            self.last_timestamp.max(entry.header.timestamp)
        } else {
            entry.header.timestamp
        }
    }

    fn is_output_full(&self, context: &MergeContext<'_>, size: u64) -> bool {
        let MergeContext { segment_size, segment_entries, .. } = *context;
        let output = self.output.as_ref();
        output.is_some_and(|open| open.output.is_full(size, segment_size, segment_entries))
    }

    /// Appends a copy to the output, and creates an output if there is none.
    fn append<'a>(
        &mut self,
        host: &impl Host,
        draft: &Draft<'a>,
        timestamp: u64,
    ) -> Result<Copied<'a>> {
        let (context, takes_last_space) = (host.merge_context(), self.takes_last_space);
        let check_space = || if takes_last_space { Ok(()) } else { context.check_space(0) };
        let open = match &mut self.output {
            Some(open) => open,
            none => {
                check_space()?;
                let (output, number) = host.create_output(draft.header.entry_size())?;
                none.insert(NumberedOutput { output, number })
            }
        };
        let entry = open.output.append(draft, timestamp, check_space)?;
        Ok(Copied { segment: open.number, entry })
    }

    /// Makes copies readable, and then points the slots at them.
    fn apply(
        &mut self,
        host: &impl Host,
        context: &MergeContext<'_>,
        updates: &mut Vec<SlotUpdate<'_>>,
    ) -> Result<()> {
        if let Some(NumberedOutput { output, .. }) = &mut self.output {
            output.flush()?;
        }
        for SlotUpdate { disposition, hash, old, segment: original, size, copy } in
            updates.drain(..)
        {
            if let (Some(Copied { entry, .. }), Some(open)) = (&copy, &mut self.output) {
                open.output.list(entry, hash);
            }
            let mut shard = context.keydir.shard(hash.shard());
            match (disposition, copy, &self.output) {
                (Disposition::Moved, Some(Copied { segment, entry }), Some(open)) => {
                    if shard.relocate(hash, old, Address { segment, offset: entry.offset }) {
                        open.output.segment().gained(entry.header.entry_size());
                        original.lost(size);
                        self.report.live_entries += 1;
                    }
                }
                (Disposition::Expired, copy, _) => {
                    if shard.remove(hash, old, host.next_timestamp()) {
                        original.lost(size);
                        self.report.expired_dropped += 1;
                    }
                    self.report.tombstones_kept += u64::from(copy.is_some());
                }
                _ => self.report.tombstones_kept += 1,
            }
        }
        Ok(())
    }

    /// Turns the output, if there is one, into a sealed segment that is not listed yet.
    ///
    /// Entries that could not be written are not part of it.
    pub(super) fn close_output(&mut self, host: &impl Host) -> Result<()> {
        let context = host.merge_context();
        let Some(NumberedOutput { output, number }) =
            self.output.take_if(|open| open.output.is_empty())
        else {
            return self.finish_output(host, &context);
        };
        context.segments.remove(number);
        // If the file can't be removed now, the next open removes it.
        let _ = context.fs.remove(output.segment().path());
        Ok(())
    }

    fn finish_output(&mut self, host: &impl Host, context: &MergeContext<'_>) -> Result<()> {
        let Some(NumberedOutput { output, .. }) = &self.output else { return Ok(()) };
        output.sync().map_err(|error| host.poison_if_sync_failed(error))?;
        let Some(NumberedOutput { output, .. }) = self.output.take() else { return Ok(()) };
        let segment = output
            .finish(context.fs, context.dir)
            .map_err(|error| host.poison_if_sync_failed(error))?;
        self.written.push(Sealed::of(&segment));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_of_copied_tombstones_is_bounded() {
        let mut copied = CopiedTombstones::default();
        copied.insert(b"first");
        copied.insert(b"first");
        assert_eq!(copied.size, 5 + KEY_OVERHEAD);
        let large = [7; COPIED_TOMBSTONES_SIZE_MAX - 5 - KEY_OVERHEAD];
        copied.insert(&large);
        copied.insert(b"");
        assert!(copied.contains(b"first") && copied.contains(&large) && !copied.contains(b""));
    }
}
