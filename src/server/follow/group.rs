//! Changes that were received and not applied yet.
//!
//! - A batch of the leader is applied as a whole, so the changes of one wait until its last one has
//!   arrived. Whole batches that arrive together become one batch here.
//! - What waits is limited. A batch above the limit can only have been compressed at the leader;
//!   the follower then reads a snapshot instead, whose values come one by one.

use std::time::{Duration, SystemTime};

use super::record::FollowRecord;
use crate::followed::FOLLOW_KEY;
use crate::options::WriteOptions;
use crate::server::frames::{Frame, FrameKind};
use crate::store::{Batch, Position};

/// Size of whole batches at which they are applied, even if more has arrived, in bytes.
const APPLIED_AT: usize = 1 << 20;
/// Maximum size of one batch, in bytes. The store has no larger ones.
const BATCH_SIZE_MAX: usize = 512 << 20;

/// A batch is too large to be held in memory.
#[derive(Debug)]
pub(super) struct TooLarge;

/// Changes in the order of the leader.
#[derive(Debug, Default)]
pub(super) struct ChangeGroup {
    changes: Vec<Frame>,
    /// Number of changes of whole batches.
    whole: usize,
    /// Size of the changes of whole batches, in bytes.
    whole_size: usize,
    /// Size of the changes of a batch of which more is to come, in bytes.
    partial_size: usize,
    /// The position behind the whole batches.
    position: Option<Position>,
}

impl ChangeGroup {
    /// Adds a change.
    pub(super) fn add(&mut self, frame: Frame) -> Result<(), TooLarge> {
        let (continues, position) = (frame.continues, frame.position);
        // What the leader remembers about its own leader is not for its followers.
        if frame.key != FOLLOW_KEY {
            self.partial_size += frame.key.len() + frame.value.len();
            self.changes.push(frame);
        }
        if continues {
            return if self.partial_size > BATCH_SIZE_MAX { Err(TooLarge) } else { Ok(()) };
        }
        self.whole = self.changes.len();
        self.whole_size += std::mem::take(&mut self.partial_size);
        self.position = Some(position);
        Ok(())
    }

    /// Returns whether the whole batches have to be applied before a change is added. So several
    /// batches never become one that is too large for the store.
    pub(super) fn has_to_go_before(&self, next: &Frame) -> bool {
        let next_size = next.key.len() + next.value.len();
        self.position.is_some() && self.whole_size + self.partial_size + next_size > APPLIED_AT
    }

    /// Returns whether nothing has arrived of a batch that is not complete.
    pub(super) fn is_between_batches(&self) -> bool {
        self.whole == self.changes.len()
    }

    /// Returns whether there is something to apply, and no reason to wait for more of it.
    pub(super) fn is_due(&self, mut has_more: impl FnMut() -> bool) -> bool {
        self.position.is_some() && (self.whole_size >= APPLIED_AT || !has_more())
    }

    /// Takes the whole batches, and the position behind them.
    pub(super) fn take(&mut self) -> Option<(Vec<Frame>, Position)> {
        let position = self.position.take()?;
        let rest = self.changes.split_off(self.whole);
        let whole = std::mem::replace(&mut self.changes, rest);
        (self.whole, self.whole_size) = (0, 0);
        Some((whole, position))
    }
}

/// Returns a batch that makes these changes and says so.
pub(super) fn batch_of(changes: &[Frame], position: Position, leader: &str) -> Batch {
    let mut batch = Batch::new();
    FollowRecord::Following(position).add_to(&mut batch, leader);
    for change in changes {
        add_change(&mut batch, change);
    }
    batch
}

/// Adds a change to a batch.
pub(super) fn add_change(batch: &mut Batch, change: &Frame) {
    if change.kind == FrameKind::Delete {
        batch.delete(&change.key);
    } else {
        batch.put_opt(&change.key, &change.value, lifetime(change));
    }
}

/// Returns the options that give a key the expiry that it has at the leader, and never the usual
/// one of this store.
pub(super) fn lifetime(change: &Frame) -> WriteOptions {
    match change.expiry {
        None => WriteOptions::new().ttl(Duration::MAX),
        Some(micros) => {
            WriteOptions::new().expires_at(SystemTime::UNIX_EPOCH + Duration::from_micros(micros))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, continues: bool, at: u8) -> Frame {
        let (kind, position) = (FrameKind::Put, Position::from_bytes([at; 16]));
        let (key, value) = (key.into(), b"v".to_vec());
        Frame { kind, continues, expiry: None, position, key, value }
    }

    #[test]
    fn only_whole_batches_are_taken() {
        let mut group = ChangeGroup::default();
        group.add(change("a", true, 1)).unwrap();
        assert!(group.take().is_none() && !group.is_due(|| false) && !group.is_between_batches());
        group.add(change("b", false, 2)).unwrap();
        assert!(group.is_due(|| false) && !group.is_due(|| true) && group.is_between_batches());
        group.add(change("c", true, 3)).unwrap();
        let (whole, position) = group.take().unwrap();
        assert_eq!(whole.iter().map(|it| it.key.as_slice()).collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(position, Position::from_bytes([2; 16]));
        assert!(group.take().is_none());
        group.add(change("d", false, 4)).unwrap();
        assert_eq!(group.take().unwrap().0.len(), 2);
    }

    #[test]
    fn small_batches_do_not_wait_for_a_large_one() {
        let mut group = ChangeGroup::default();
        let large = Frame { value: vec![0; APPLIED_AT], ..change("large", false, 3) };
        assert!(!group.has_to_go_before(&large));
        group.add(change("a", false, 1)).unwrap();
        assert!(!group.has_to_go_before(&change("b", false, 2)));
        assert!(group.has_to_go_before(&large));
        // The parts of a large batch count together.
        let half = Frame { value: vec![0; APPLIED_AT / 2], ..change("half", true, 2) };
        assert!(!group.has_to_go_before(&half));
        group.add(half.clone()).unwrap();
        assert!(group.has_to_go_before(&half));
        assert_eq!(group.take().unwrap().0.len(), 1);
        // A batch that is not whole cannot be applied, whatever its size.
        assert!(!group.has_to_go_before(&large));
    }

    #[test]
    fn the_record_of_the_leader_is_left_out() {
        let mut group = ChangeGroup::default();
        group.add(change("\0follow", true, 1)).unwrap();
        group.add(change("a", false, 2)).unwrap();
        group.add(change("\0follow", false, 3)).unwrap();
        let (whole, position) = group.take().unwrap();
        assert_eq!((whole.len(), position), (1, Position::from_bytes([3; 16])));
    }
}
