//! Copies in the order of the keys, so that a scan in order finds neighbours next to each other.
//!
//! - An ordered merge gathers checked entries in memory, from as many inputs as fit. It then copies
//!   them in the order of their keys. What was gathered at one time is one sorted run in the
//!   outputs.
//! - An input counts as copied whole only when all that was gathered from it is copied. If the
//!   merge stops before, the input stays. The copies that were made are valid, as those of any
//!   input that was copied in part.
//! - Entries are not copied in the order of their age, so a slot of an expired entry is removed
//!   only after everything else was copied. Otherwise a merge that stops in between would leave an
//!   expired entry without a slot, and a later merge would drop it, although an older input that
//!   stayed may hold a put of its key.

use std::sync::Arc;

use super::{Host, Input, Merge};
use crate::entry::ALIGNMENT;
use crate::error::Result;
use crate::key_hash::KeyHash;
use crate::keydir::Address;
use crate::merge::copy::Reading;
use crate::segment::Segment;
use crate::segment::read::pick::LiveEntry;
use crate::segment::read::scan::refusal;

/// Memory in bytes from which nothing more is gathered.
const GATHERED_SIZE_MAX: usize = if cfg!(any(test, bitcask_fuzzing)) { 1 << 10 } else { 64 << 20 };

/// Approximate number of bytes that are copied in one step.
const CHUNK_SIZE: u64 = if cfg!(any(test, bitcask_fuzzing)) { 256 } else { 64 << 10 };

/// Entries that wait to be copied in the order of their keys.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// The entries, one after another, as they were read.
    bytes: Vec<u8>,
    entries: Vec<GatheredEntry>,
    /// The inputs that the entries come from, oldest first.
    inputs: Vec<Input>,
    /// Those of them that were read to their ends.
    whole: Vec<Input>,
    /// Once the entries are sorted, the number of those that were copied.
    copied: Option<usize>,
    /// The slots to be removed once everything is copied.
    expired: Vec<ExpiredSlot>,
    /// Whether the disk is so full that the inputs have to be removed before others are read.
    is_urgent: bool,
}

/// A gathered entry.
#[derive(Debug)]
struct GatheredEntry {
    /// The first bytes of the key that not all gathered keys share, so that most comparisons need
    /// nothing else.
    prefix: u64,
    /// Where in the gathered bytes the entry starts.
    start: usize,
    /// The index of its input.
    input: u32,
    /// Where in its input it lies, in units of [`ALIGNMENT`].
    offset: u32,
    header_size: u16,
    key_size: u16,
}

/// A slot that names an expired entry of which nothing has to be copied.
#[derive(Debug)]
pub(super) struct ExpiredSlot {
    pub(super) hash: KeyHash,
    pub(super) entry: Address,
    pub(super) size: u64,
    pub(super) segment: Arc<Segment>,
}

impl GatheredEntry {
    fn key<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = self.start + usize::from(self.header_size);
        bytes.get(start..start + usize::from(self.key_size)).unwrap_or_default()
    }
}

impl Gathered {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns whether the entries are being copied.
    pub(super) fn is_sorted(&self) -> bool {
        self.copied.is_some()
    }

    /// Returns how many bytes of copies wait.
    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Leaves a slot to the end.
    pub(super) fn leave(&mut self, expired: ExpiredSlot) {
        self.expired.push(expired);
    }

    /// Adds an input that was read to its end. It counts as copied once the entries are.
    pub(super) fn end(&mut self, input: Input) {
        self.whole.push(input);
    }

    fn add(&mut self, entry: &LiveEntry<'_>, input: &Input) {
        if self.inputs.last().is_none_or(|last| last.number != input.number) {
            self.inputs.push(input.clone());
        }
        self.entries.push(GatheredEntry {
            prefix: 0,
            start: self.bytes.len(),
            input: u32::try_from(self.inputs.len() - 1).unwrap_or(u32::MAX),
            offset: u32::try_from(entry.offset / ALIGNMENT).unwrap_or(u32::MAX),
            header_size: u16::try_from(entry.header.size()).unwrap_or(u16::MAX),
            key_size: entry.header.key_size,
        });
        self.bytes.extend_from_slice(entry.bytes);
    }

    fn is_full(&self) -> bool {
        self.bytes.len() + self.entries.len() * size_of::<GatheredEntry>() >= GATHERED_SIZE_MAX
    }

    /// Sorts the entries, which are copied from now on. `is_urgent` says whether the disk is full.
    pub(super) fn sort(&mut self, is_urgent: bool) {
        let Self { bytes, entries, .. } = self;
        let Some(first) = entries.first().map(|entry| entry.key(bytes)) else { return };
        let common = entries.iter().fold(first.len(), |len, entry| {
            let pairs = first.iter().zip(entry.key(bytes)).take(len);
            pairs.take_while(|(one, other)| one == other).count()
        });
        for entry in entries.iter_mut() {
            let rest = entry.key(bytes).get(common..).unwrap_or_default();
            entry.prefix = rest
                .iter()
                .copied()
                .chain(std::iter::repeat(0))
                .take(8)
                .fold(0, |prefix, byte| prefix << 8 | u64::from(byte));
        }
        entries.sort_unstable_by(|a, b| {
            let by_key = || a.key(bytes).cmp(b.key(bytes));
            let by_age = || (a.input, a.offset).cmp(&(b.input, b.offset));
            a.prefix.cmp(&b.prefix).then_with(by_key).then_with(by_age)
        });
        (self.copied, self.is_urgent) = (Some(0), is_urgent);
    }

    /// Returns the entries to be copied next, each with its input.
    fn chunk(&self) -> Result<(Vec<LiveEntry<'_>>, Vec<&Input>)> {
        let rest = self.entries.get(self.copied.unwrap_or_default()..).unwrap_or_default();
        let (mut entries, mut inputs, mut size) = (Vec::new(), Vec::new(), 0);
        for gathered in rest {
            if size >= CHUNK_SIZE {
                break;
            }
            let Some(input) = self.inputs.get(gathered.input as usize) else { break };
            let bytes = self.bytes.get(gathered.start..).unwrap_or_default();
            let offset = u64::from(gathered.offset) * ALIGNMENT;
            let entry = LiveEntry::decode(bytes, offset);
            let entry = entry.map_err(|invalid| refusal(input.segment.path(), offset, invalid))?;
            size += entry.header.entry_size();
            entries.push(entry);
            inputs.push(input);
        }
        Ok((entries, inputs))
    }
}

impl Merge {
    /// Makes the merge write its copies in the order of their keys, or of their age.
    pub(crate) fn ordered(self, yes: bool) -> Self {
        Self { is_ordered: yes, ..self }
    }

    /// Gathers the next run of entries of an input. Returns `None` if no entries were left, and
    /// otherwise zero, since nothing was copied.
    pub(super) fn gather_run(&mut self, reading: &mut Reading) -> Result<Option<u64>> {
        let Some(run) = reading.live.read(&reading.file, reading.input.id())? else {
            return Ok(None);
        };
        for entry in &run {
            self.gathered.add(entry, &reading.input);
        }
        if self.gathered.is_full() {
            self.gathered.sort(false);
        }
        Ok(Some(0))
    }

    /// Copies the next of the sorted entries. Returns how many bytes were copied.
    ///
    /// After an error, nothing is gathered any more.
    pub(super) fn copy_gathered(&mut self, host: &impl Host) -> Result<u64> {
        let mut gathered = std::mem::take(&mut self.gathered);
        let (entries, inputs) = gathered.chunk()?;
        let copied_size = self.copy_entries(host, &entries, &inputs)?;
        self.progress.copied_size += copied_size;
        let copied = gathered.copied.unwrap_or_default() + entries.len();
        gathered.expired.append(&mut self.gathered.expired);
        if copied < gathered.entries.len() {
            gathered.copied = Some(copied);
            self.gathered = gathered;
            return Ok(copied_size);
        }
        // Nothing can fail from here on until the inputs count as copied.
        for ExpiredSlot { hash, entry, size, segment } in gathered.expired {
            let mut shard = host.merge_context().keydir.shard(hash.shard());
            if shard.remove(hash, entry, host.next_timestamp()) {
                segment.lost(size);
                self.report.expired_dropped += 1;
            }
        }
        self.copied.extend(gathered.whole);
        if gathered.is_urgent {
            self.publish(host)?;
        }
        Ok(copied_size)
    }
}
