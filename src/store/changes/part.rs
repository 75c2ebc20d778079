//! How a follower receives its next change: at once, or part by part of a long log that has few
//! changes of its prefix. It may refuse memory for a value that has to be decompressed.

use std::sync::Arc;
use std::time::Duration;

use super::{Changes, Next};
use crate::error::Result;
use crate::log::{Log, News};
use crate::segment::read::walk::Walk;
use crate::store::changes::change::{Change, has_more_in_batch};
use crate::sync::Instant;

/// What a follower has found.
#[derive(Debug)]
pub(crate) enum Received {
    Change(Change),
    /// A put without its value, and the size of the value, for which it wants to take no memory.
    WithoutValue(Change, u64),
    /// Everything was returned.
    Nothing,
    /// It has skipped a part of the log, in which nothing has its prefix. Its position is behind
    /// that part, and there is more.
    Part,
}

impl Received {
    pub(super) fn into_change(self) -> Option<Change> {
        match self {
            Self::Change(change) | Self::WithoutValue(change, _) => Some(change),
            Self::Nothing | Self::Part => None,
        }
    }
}

impl Changes {
    /// Returns the next change, as [`try_recv`](Self::try_recv) does, but stops once it has skipped
    /// this many bytes of other changes. So the caller can look at something else in between.
    /// `admits` is asked whether memory of a size may be taken, before a value is decompressed.
    pub(crate) fn try_recv_part(
        &mut self,
        size_max: u64,
        admits: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Received> {
        self.inner.here()?;
        let mut left = size_max;
        loop {
            match self.read(&mut left, admits)? {
                Some((change, Some(size))) => return Ok(Received::WithoutValue(change, size)),
                Some((change, None)) => return Ok(Received::Change(change)),
                None => {}
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

    /// Waits for the next change, as [`recv_timeout`](Self::recv_timeout) does. `admits` is as in
    /// `try_recv_part`.
    #[cfg_attr(
        not(any(feature = "server", test)),
        expect(dead_code, reason = "only the server limits its memory")
    )]
    pub(crate) fn recv_part_timeout(
        &mut self,
        timeout: Duration,
        admits: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Received> {
        self.wait(Instant::now().checked_add(timeout), admits)
    }

    /// Waits for the next change, until a time.
    pub(super) fn wait(
        &mut self,
        until: Option<Instant>,
        admits: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Received> {
        let inner = Arc::clone(&self.inner);
        let Ok(writer) = inner.writer() else { return self.try_recv_part(u64::MAX, admits) };
        loop {
            let received = self.try_recv_part(u64::MAX, admits)?;
            if !matches!(received, Received::Nothing | Received::Part) {
                return Ok(received);
            }
            let mut log = writer.log.lock();
            if !matches!(self.look(Some(&log)), Next::Nothing) {
                continue;
            }
            let is_over =
                |log: &Log| log.is_closed() || until.is_some_and(|until| until <= Instant::now());
            if is_over(&log) {
                drop(log);
                return self.try_recv_part(u64::MAX, admits);
            }
            let has_unread = self.has_unread(&log);
            let ticket = log.waiters.add(&self.prefix, self.durable, has_unread);
            while !log.waiters.is_woken(&self.prefix, &ticket) && !is_over(&log) {
                log = match until {
                    Some(until) => ticket.condition().wait_until(log, until),
                    None => ticket.condition().wait(log),
                };
            }
            match log.waiters.remove(&self.prefix, &ticket) {
                Some(News::Unknown) => {}
                Some(News::Behind(place)) => self.pass_over(place),
                None => self.pass_over(log.end()),
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
            match changes.try_recv_part(10_000, &mut |_| true).unwrap() {
                Received::Part => parts += 1,
                Received::Change(change) => break change,
                Received::Nothing | Received::WithoutValue(..) => panic!("it is there"),
            }
            // A follower that resumes there skips the same part no more, and misses nothing.
            assert_ne!(changes.resume_position(), before);
            let mut resumed = db.changes(changes.resume_position()).unwrap().prefix("user/");
            let found = resumed.try_recv().unwrap().unwrap();
            assert!(found.key == "user/1" && found.batch_continues);
        };
        assert!((20..30).contains(&parts), "{parts}");
        assert!(first.key == "user/1" && first.batch_continues);
        let Received::Change(second) = changes.try_recv_part(1, &mut |_| true).unwrap() else {
            panic!("another")
        };
        assert!(second.key == "user/2" && !second.batch_continues);
        assert!(matches!(changes.try_recv_part(1, &mut |_| true).unwrap(), Received::Nothing));
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
        while matches!(changes.try_recv_part(1, &mut |_| true).unwrap(), Received::Part) {}
        assert_eq!(changes.resume_position(), db.position());
        db.put("none", "of these").unwrap();
        assert!(matches!(changes.try_recv_part(1, &mut |_| true).unwrap(), Received::Change(_)));
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
    /// Otherwise many followers that reach the same change together would take its size each.
    #[cfg(feature = "lz4")]
    #[test]
    fn a_value_is_decompressed_only_if_its_memory_is_admitted() {
        use crate::store::Operation;
        use crate::value::Admitted;

        let dir = tempfile::tempdir().unwrap();
        let options = Options::new().compression(crate::Compression::lz4());
        let db = Bitcask::open(dir.path(), options).unwrap();
        let value = vec![b'x'; 1 << 20];
        db.put("small", "1").unwrap();
        db.put("large", &value).unwrap();
        let mut changes = db.changes(Position::START).unwrap();
        let mut asked = Vec::new();
        let mut admits = |size| {
            asked.push(size);
            asked.len() % 2 == 0
        };
        let Received::Change(small) = changes.try_recv_part(1, &mut admits).unwrap() else {
            panic!("it needs no memory")
        };
        assert_eq!(small.key, "small");
        let now = Duration::ZERO;
        let Received::WithoutValue(left_out, size) =
            changes.recv_part_timeout(now, &mut admits).unwrap()
        else {
            panic!("it was not admitted")
        };
        assert!(left_out.key == "large" && size == value.len() as u64);
        assert!(matches!(left_out.operation, Operation::Put { value, .. } if value.is_empty()));
        changes.step_back();
        let Received::Change(whole) = changes.recv_part_timeout(now, &mut admits).unwrap() else {
            panic!("it was admitted")
        };
        assert!(matches!(whole.operation, Operation::Put { value: it, .. } if it == value));
        let mut entries = db.snapshot().iter();
        let mut next = || entries.next_admitted(&mut admits).unwrap().unwrap().1;
        assert!(matches!(next(), Admitted::Size(size) if size == value.len() as u64));
        assert!(matches!(next(), Admitted::Value(small) if small == "1"));
        assert_eq!(asked, [value.len() as u64; 3]);
        db.close().unwrap();
    }
}
