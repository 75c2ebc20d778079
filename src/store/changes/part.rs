//! How a follower receives its next change: at once, or part by part of a long log that has few
//! changes of its prefix.

use std::sync::Arc;

use super::{Changes, Next};
use crate::error::Result;
use crate::segment::read::walk::Walk;
use crate::store::changes::change::{Change, has_more_in_batch};

/// What a follower has found.
#[derive(Debug)]
pub(crate) enum Received {
    Change(Change),
    /// Everything was returned.
    Nothing,
    /// It has skipped a part of the log, in which nothing has its prefix. Its position is behind
    /// that part, and there is more.
    Part,
}

impl Changes {
    /// Returns the next change, as [`try_recv`](Self::try_recv) does, but stops once it has skipped
    /// this many bytes of other changes. So the caller can look at something else in between.
    pub(crate) fn try_recv_part(&mut self, size_max: u64) -> Result<Received> {
        self.inner.here()?;
        let mut left = size_max;
        loop {
            if let Some(change) = self.read(&mut left)? {
                return Ok(Received::Change(change));
            }
            if left == 0 {
                return Ok(Received::Part);
            }
            let inner = Arc::clone(&self.inner);
            // The lock is released before anything else is done.
            let next = if let Ok(writer) = inner.writer() {
                self.look(Some(&writer.log.lock()))
            } else {
                // A refresh makes a batch readable before slots name it.
                let _refreshed = inner.hold_refresh();
                self.look(None)
            };
            match next {
                Next::More => {}
                Next::Segment(segment) => self.enter(&segment)?,
                // Everything was returned, or nothing has arrived yet.
                Next::Nothing => return self.refuse_gone().map(|()| Received::Nothing),
            }
        }
    }

    /// Goes back to before the change that was returned last, which is returned again. Nothing must
    /// have been received since. The follower holds the segment of that change, so no merge can
    /// come in between.
    #[cfg_attr(
        not(any(feature = "server", test)),
        expect(dead_code, reason = "only the server goes back")
    )]
    pub(crate) fn step_back(&mut self) {
        if let (Some(walk), Some((offset, before))) = (&mut self.walk, self.last.take()) {
            *walk = Walk::new(&Arc::clone(walk.segment()), offset);
            self.at = before;
        }
    }

    /// Returns whether the batch of the change that was returned last goes on with another change
    /// that the caller wants. It must go on: its `batch_continues` is `true`.
    #[cfg_attr(
        not(any(feature = "server", test)),
        expect(dead_code, reason = "only the server leaves changes out")
    )]
    pub(crate) fn batch_has_more(&self, is_wanted: impl Fn(&[u8]) -> bool) -> Result<bool> {
        let Some(walk) = &self.walk else { return Ok(false) };
        has_more_in_batch(walk.clone(), self.end, |key| {
            key.starts_with(&self.prefix) && is_wanted(key)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{MergeOptions, MergePolicy, Options};
    use crate::store::{Batch, Bitcask, Position};

    /// Returns a store with many changes, the last of which has the prefix `user/`.
    fn filled(dir: &std::path::Path) -> Bitcask {
        let options = Options::new().segment_size(1 << 16).merge_policy(MergePolicy::Manual);
        let db = Bitcask::open(dir, options).unwrap();
        for number in 0..100 {
            db.put(format!("other/{number}"), vec![b'x'; 2000]).unwrap();
        }
        let mut batch = Batch::new();
        for number in 0..50 {
            batch.put(format!("other/{number}"), vec![b'y'; 1000]);
        }
        batch.put("user/1", "a").put("user/2", "b");
        db.write(&batch).unwrap();
        db
    }

    #[test]
    fn a_prefix_that_is_rare_is_found_part_by_part() {
        let dir = tempfile::tempdir().unwrap();
        let db = filled(dir.path());
        let mut changes = db.changes(Position::START).unwrap().prefix("user/");
        let mut parts = 0;
        let first = loop {
            let before = changes.resume_position();
            match changes.try_recv_part(10_000).unwrap() {
                Received::Part => parts += 1,
                Received::Change(change) => break change,
                Received::Nothing => panic!("it is there"),
            }
            // A follower that resumes there skips the same part no more, and misses nothing.
            assert_ne!(changes.resume_position(), before);
            let mut resumed = db.changes(changes.resume_position()).unwrap().prefix("user/");
            let found = resumed.try_recv().unwrap().unwrap();
            assert!(found.key == "user/1" && found.batch_continues);
        };
        assert!((20..30).contains(&parts), "{parts}");
        assert!(first.key == "user/1" && first.batch_continues);
        let Received::Change(second) = changes.try_recv_part(1).unwrap() else { panic!("another") };
        assert!(second.key == "user/2" && !second.batch_continues);
        assert!(matches!(changes.try_recv_part(1).unwrap(), Received::Nothing));
        db.close().unwrap();
    }

    #[test]
    fn a_batch_may_go_on_with_nothing_but_changes_that_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let db = Bitcask::open(dir.path(), Options::new()).unwrap();
        db.write(Batch::new().put("a", "1").put("left out", "2")).unwrap();
        db.write(Batch::new().put("b", "3").put("left out", "4").put("c", "5")).unwrap();
        let mut changes = db.changes(Position::START).unwrap();
        let mut next = || {
            let change = changes.try_recv().unwrap().unwrap();
            let more =
                change.batch_continues && changes.batch_has_more(|key| key != b"left out").unwrap();
            (String::from_utf8(change.key.to_vec()).unwrap(), change.batch_continues, more)
        };
        assert_eq!(next(), ("a".into(), true, false));
        next();
        assert_eq!(next(), ("b".into(), true, true));
        next();
        assert_eq!(next(), ("c".into(), false, false));
        db.close().unwrap();
    }

    #[test]
    fn a_part_may_end_with_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let db = filled(dir.path());
        let mut changes = db.changes(Position::START).unwrap().prefix("none");
        while matches!(changes.try_recv_part(1).unwrap(), Received::Part) {}
        assert_eq!(changes.resume_position(), db.position());
        db.put("none", "of these").unwrap();
        assert!(matches!(changes.try_recv_part(1).unwrap(), Received::Change(_)));
        db.close().unwrap();
    }

    #[test]
    fn a_change_is_returned_again_although_a_merge_has_removed_it() {
        let dir = tempfile::tempdir().unwrap();
        let db = filled(dir.path());
        let mut changes = db.changes(Position::START).unwrap().prefix("other/1");
        let first = changes.try_recv().unwrap().unwrap();
        let second = changes.try_recv().unwrap().unwrap();
        assert!(first.key == "other/1" && second.key == "other/10");
        changes.step_back();
        let before = changes.resume_position();
        let mut resumed = db.changes(before).unwrap();
        assert_eq!(resumed.try_recv().unwrap().unwrap(), second);
        db.merge_opt(MergeOptions::new().force(true)).unwrap();
        assert!(db.changes(before).is_err_and(|error| error.needs_resync()));
        assert_eq!(changes.try_recv().unwrap().unwrap(), second);
        changes.step_back();
        assert_eq!(changes.try_recv().unwrap().unwrap(), second);
        assert_eq!(changes.try_recv().unwrap().unwrap().key, "other/11");
        db.close().unwrap();
    }
}
