//! What the tombstones of a merge still shadow: puts in older segments outside the merge.
//!
//! - A merge keeps a tombstone as long as an older segment outside the merge may hold a put of its
//!   key. Hints answer by hash bits. A put that was not or can't be looked up may exist.
//! - An expired entry shadows older puts as a tombstone does, so it is looked up too.
//! - The lookup is bounded by a memory limit, and by the amount that the merge itself reads. Beyond
//!   that, the merge keeps tombstones, which costs only space.

use std::collections::HashMap;

use super::{Input, MergeContext};
use crate::error::Result;
use crate::key_hash::KeyHash;
use crate::mistake::{Mistake, made};
use crate::segment::hint::HintSlot;

/// Maximum number of tombstones that are looked up, at 32 bytes of memory each.
const LOOKED_UP_MAX: usize = if cfg!(any(test, bitcask_fuzzing)) { 8 } else { 1 << 20 };
/// The position of a put that was not found: younger than any other.
const NOWHERE: usize = usize::MAX;

/// The ages of the puts that tombstones may shadow, as positions in the manifest.
#[derive(Debug, Default)]
pub(crate) struct Shadows {
    /// The position of the oldest segment outside the merge. No put outside is older.
    oldest_outside: Option<usize>,
    /// For each hash that was looked up, the position of the oldest put outside the merge.
    oldest_put: HashMap<KeyHash, usize>,
}

/// What the keydir knows about a key.
pub(super) struct KeyState {
    /// Whether the key has a slot.
    pub(super) own: bool,
    /// Whether another key with the same hash bits has a slot.
    pub(super) others: bool,
}

impl Shadows {
    /// Looks up what the tombstones of the inputs shadow in the other segments. Both lists are
    /// oldest first.
    pub(super) fn new(context: &MergeContext<'_>, inputs: &[Input], others: &[Input]) -> Self {
        let oldest_outside = others.first().map(|other| other.position);
        let mut shadows = Self { oldest_outside, oldest_put: HashMap::new() };
        let youngest = inputs.last().map_or(0, |input| input.position);
        let older = || others.iter().filter(|other| other.position < youngest);
        let size =
            |segments: &[Input]| segments.iter().map(|input| input.segment.size()).sum::<u64>();
        let hints_size: u64 = older().map(Input::hint_size).sum();
        if oldest_outside.is_none_or(|oldest| oldest > youngest) || hints_size > size(inputs) {
            return shadows;
        }
        for input in inputs {
            // Damage is reported when the merge reads the input.
            let _ = shadows.collect(context, input);
        }
        let mut left = shadows.oldest_put.len();
        for other in older() {
            if left == 0 {
                break;
            }
            let looked_up = context.for_each_slot(other, |slot| {
                let put = if slot.is_tombstone() {
                    None
                } else {
                    shadows.oldest_put.get_mut(&slot.hash())
                };
                if let Some(oldest) = put.filter(|oldest| **oldest == NOWHERE) {
                    *oldest = other.position;
                    left -= 1;
                }
                left > 0
            });
            if looked_up.is_err() {
                let not_found =
                    shadows.oldest_put.values_mut().filter(|oldest| **oldest == NOWHERE);
                not_found.for_each(|oldest| *oldest = other.position);
                break;
            }
        }
        shadows
    }

    /// Collects the hashes of tombstones and expiring entries that may have to be kept of an input.
    fn collect(&mut self, context: &MergeContext<'_>, input: &Input) -> Result<()> {
        let guard = context.keydir.pin();
        let may_be_kept = |slot: HintSlot| {
            // A tombstone is not needed if a newer put of its key follows, whatever it shadows.
            let is_newest = |slot: HintSlot| context.keydir.likely(slot.hash(), &guard).is_none();
            if slot.is_tombstone() {
                is_newest(slot)
            } else {
                slot.expires() && context.names(slot, input, &guard)
            }
        };
        context.for_each_slot(input, |slot| {
            if may_be_kept(slot) {
                self.oldest_put.entry(slot.hash()).or_insert(NOWHERE);
            }
            self.oldest_put.len() < LOOKED_UP_MAX
        })
    }

    /// Returns whether a segment outside the merge that is older than this position may hold a put
    /// with this hash.
    pub(super) fn may_shadow(&self, hash: KeyHash, position: usize) -> bool {
        if made(Mistake::TombstonesDropped) {
            return false;
        }
        let oldest = self.oldest_put.get(&hash).copied().or(self.oldest_outside);
        oldest.is_some_and(|oldest| oldest < position)
    }
}
