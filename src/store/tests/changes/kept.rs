//! History that merges leave alone: it covers what is promised, and no more.
//!
//! - A [`Feed`] records every change and its time. [`Feed::check`] resumes from each position that
//!   must still be valid, and compares the changes that follow.
//! - Time comes from the lab's hands. Only the tests of clocks set the time of day separately.

use super::follow::Dice;
use crate::mistake::{Mistake, make};
use crate::options::{AutoMerge, History, MergeOptions, MergePolicy};
use crate::segment::limit::allowed;
use crate::store::tests::merge::basics::{seal, seal_active, sealed};
use crate::store::tests::*;

const DURATION: Duration = Duration::from_secs(100);

/// A change, and the time at which it was made.
#[derive(Debug, Clone)]
struct Made {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    /// The position after it.
    position: Position,
    at: Duration,
}

/// The changes of a store.
#[derive(Debug)]
struct Feed {
    start: Position,
    made: Vec<Made>,
    now: Duration,
    /// Number of changes before which no position is promised.
    free: usize,
}

impl Feed {
    fn new(db: &Bitcask) -> Self {
        Self { start: db.position(), made: Vec::new(), now: Duration::ZERO, free: 0 }
    }

    fn put(&mut self, db: &Bitcask, key: &str, size: usize) {
        let value = vec![u8::try_from(self.made.len() % 251).unwrap(); size];
        db.put(key, &value).unwrap();
        self.note(db, key, Some(value));
    }

    fn delete(&mut self, db: &Bitcask, key: &str) {
        if db.delete(key).unwrap() {
            self.note(db, key, None);
        }
    }

    fn note(&mut self, db: &Bitcask, key: &str, value: Option<Vec<u8>>) {
        let (key, position) = (key.into(), db.position());
        self.made.push(Made { key, value, position, at: self.now });
    }

    fn advance(&mut self, lab: &Lab, seconds: u64) {
        lab.hands.advance(Duration::from_secs(seconds));
        self.now += Duration::from_secs(seconds);
    }

    fn position(&self, after: usize) -> Position {
        after.checked_sub(1).map_or(self.start, |last| self.made[last].position)
    }

    /// Number of the oldest position that was current within the duration.
    fn oldest_within(&self, duration: Duration) -> usize {
        let is_old = |made: &Made| made.at + duration <= self.now;
        self.made.partition_point(is_old).max(self.free)
    }

    /// Number of the oldest position after which certainly at most this many bytes follow.
    fn oldest_before(&self, bytes: u64) -> usize {
        // Every segment may end with notes of the log.
        const NOTES_SIZE: u64 = 100;
        let (mut size, mut after) = (NOTES_SIZE, self.made.len());
        while let Some(last) = after.checked_sub(1) {
            let (from, to) = (self.position(last).place(), self.made[last].position.place());
            size += if from.segment == to.segment {
                to.offset - from.offset
            } else {
                to.offset - FIRST_OFFSET + NOTES_SIZE
            };
            if size > bytes {
                break;
            }
            after = last;
        }
        after
    }

    /// Resumes from a position, and checks that exactly the changes since follow.
    #[track_caller]
    fn check_from(&self, db: &Reader, after: usize) {
        let position = self.position(after);
        let changes = db.changes(position).unwrap_or_else(|error| panic!("after {after}: {error}"));
        let mut made = self.made[after..].iter();
        let mut changes = changes;
        while let Some(change) = changes.try_recv().unwrap() {
            let made = made.next().expect("a change that was not made");
            let value = match change.operation {
                Operation::Put { value, .. } => Some(value.to_vec()),
                Operation::Delete => None,
            };
            assert_eq!((&change.key[..], &value), (&made.key[..], &made.value), "after {after}");
            assert_eq!(change.position, made.position);
        }
        assert_eq!(made.count(), 0, "changes after {after} are missing");
    }

    /// Checks all positions from one on. Returns how many before it are gone.
    #[track_caller]
    fn check(&self, db: &Reader, oldest: usize) -> usize {
        (oldest..=self.made.len()).for_each(|after| self.check_from(db, after));
        (0..oldest).filter(|after| self.is_gone(db, *after)).count()
    }

    fn is_gone(&self, db: &Reader, after: usize) -> bool {
        match db.changes(self.position(after)) {
            Err(Error::HistoryGone { .. }) => true,
            Err(error) => panic!("{error}"),
            Ok(_) => false,
        }
    }
}

fn lab_with(history: History) -> Lab {
    let options = Options::new().segment_size(1024).sync_policy(SyncPolicy::Never);
    Lab::new().with(options.merge_policy(MergePolicy::Manual).keep_history(history))
}

/// The same disk and clock, with other options.
fn with(lab: &Lab, change: impl FnOnce(Options) -> Options) -> Lab {
    lab.clone().with(change(lab.options.clone()))
}

fn force<'a>() -> MergeOptions<'a> {
    MergeOptions::new().force(true)
}

/// Writes a segment every ten seconds, each of which overwrites the one before.
fn segments_over_time(lab: &Lab, len: usize) -> (Bitcask, Feed) {
    let db = lab.open();
    let mut feed = Feed::new(&db);
    for number in 0..len {
        for key in ["a", "b", "c"] {
            feed.put(&db, key, 100);
        }
        feed.put(&db, &format!("own {number}"), 20);
        seal(&db);
        feed.advance(lab, 10);
    }
    (db, feed)
}

fn automatic() -> MergePolicy {
    MergePolicy::Auto(AutoMerge::new().trigger_dead_percent(1).dead_percent(1))
}

/// A merge of some kind, which may reopen the store.
type Kind = fn(&Lab, Bitcask) -> Bitcask;

fn kinds() -> [(&'static str, Kind); 8] {
    let by_policy: Kind = |_, db| {
        db.set_merge_policy(automatic()).unwrap();
        let planned = db.needs_merge();
        assert!(!planned.is_empty());
        let kept: Vec<u32> =
            db.segments().iter().filter(|segment| segment.history).map(|it| it.id).collect();
        assert!(planned.segments.iter().all(|planned| !kept.contains(&planned.id)));
        db.inner.merge_due();
        db.inner.merge_due();
        assert!(db.needs_merge().is_empty());
        db
    };
    let idle: Kind = |_, db| {
        let auto = AutoMerge::new().trigger_dead_percent(100).dead_percent(100).small_size(0);
        db.set_merge_policy(MergePolicy::Auto(auto.idle_dead_percent(1))).unwrap();
        db.inner.merge_due();
        db.inner.merge_due();
        db
    };
    let chosen: Kind = |_, db| {
        let free = db.segments().into_iter().filter(|segment| !segment.history);
        db.merge_opt(MergeOptions::new().segments(free.map(|segment| segment.id))).unwrap();
        db
    };
    let one_by_one: Kind = |_, db| {
        for id in sealed(&db) {
            let kept = db.segments().iter().any(|segment| segment.id == id.0 && segment.history);
            let merged = db.merge_opt(MergeOptions::new().segments([id.0]));
            assert_eq!(merged.is_err(), kept, "{merged:?}");
        }
        db
    };
    let at_open: Kind = |lab, db| {
        db.close().unwrap();
        let db =
            with(lab, |options| options.merge_policy(MergePolicy::Auto(AutoMerge::new()))).open();
        db.inner.merge_due();
        db
    };
    let at_close: Kind = |lab, db| {
        db.close().unwrap();
        let auto = with(lab, |options| options.merge_policy(MergePolicy::Auto(AutoMerge::new())));
        auto.open().close().unwrap();
        auto.open().close().unwrap();
        lab.open()
    };
    [
        ("merge", |_, db| {
            db.merge().unwrap();
            db
        }),
        ("force", |_, db| {
            db.merge_opt(force()).unwrap();
            db
        }),
        ("by policy", by_policy),
        ("idle", idle),
        ("chosen", chosen),
        ("one by one", one_by_one),
        ("at open", at_open),
        ("at close", at_close),
    ]
}

#[test]
fn positions_within_the_duration_resume_after_every_kind_of_merge() {
    for (name, merge) in kinds() {
        let lab = lab_with(History::Last(DURATION));
        let (db, feed) = segments_over_time(&lab, 60);
        let db = merge(&lab, db);
        let oldest = feed.oldest_within(DURATION);
        assert_eq!(oldest, 4 * 51, "the last change of ten seconds ago counts");
        let gone = feed.check(&db, oldest);
        let least = if name == "at close" { 100 } else { 4 * 50 };
        assert!(gone >= least, "{name}: only {gone} of {oldest} are gone");
        if name == "force" {
            // Each segment is as old as its last entry.
            assert_eq!(gone, 4 * 51, "{name}");
        }
        let stats = db.stats();
        let kept = db.segments().iter().filter(|segment| segment.history).count();
        assert_eq!(stats.history_segments, kept as u64);
        assert!(name != "force" || kept == 9, "{name}: {kept}");
        // After a reopen, a kill and a power cut, and in another process.
        let read_only = lab.open_read_only();
        feed.check(&read_only, oldest);
        db.sync().unwrap();
        feed.check(&lab.powered_off(|_| false).open(), oldest);
        feed.check(&lab.killed().open(), oldest);
        feed.check(&lab.reopen(db), oldest);
    }
}

/// The tests notice a merge that takes segments to be kept.
#[test]
fn merges_that_take_kept_history_are_noticed() {
    for check in [
        positions_within_the_duration_resume_after_every_kind_of_merge,
        many_short_runs_leave_no_more_segments_than_the_setting_needs,
        random_runs_keep_the_promise,
    ] {
        assert!(make(Mistake::HistoryMerged, check).is_err());
    }
}

#[test]
fn segments_past_the_duration_are_merged_at_the_next_check() {
    let lab = lab_with(History::Last(DURATION));
    let lab = with(&lab, |options| options.merge_policy(automatic()));
    let (db, mut feed) = segments_over_time(&lab, 5);
    db.inner.merge_due();
    db.inner.merge_due();
    let stats = db.stats();
    assert_eq!((stats.history_segments, stats.dead_size), (5, stats.history_size));
    assert!(stats.history_size > 4 * 300);
    assert!(db.needs_merge().is_empty(), "what is dead in kept segments triggers nothing");
    // Ten seconds have passed since the last.
    for left in (0..5).rev() {
        feed.advance(&lab, if left == 4 { 50 } else { 10 });
        db.inner.merge_due();
        feed.check(&db, feed.oldest_within(DURATION));
        assert_eq!(db.stats().history_segments, left);
    }
    db.inner.merge_due();
    // The last segment is entirely live.
    assert_eq!(feed.check(&db, 16), 16);
    let stats = db.stats();
    assert_eq!((stats.history_segments, stats.history_size), (0, 0));
    assert!(stats.dead_size < 300, "{}", stats.dead_size);
}

#[test]
fn a_bound_in_bytes_is_exact() {
    let lab = lab_with(History::None);
    let (db, feed) = segments_over_time(&lab, 5);
    db.close().unwrap();
    let ids: Vec<u32> = lab.logs().iter().map(|(id, _)| id.0).collect();
    let sizes: Vec<u64> =
        lab.logs().iter().map(|(_, path)| lab.twin.contents(path).unwrap().len() as u64).collect();
    let content = |from: usize| -> u64 { sizes[from..].iter().map(|size| size - 64).sum() };
    let image = lab.twin.fork();
    let kept_with = |bytes: u64, active: usize| {
        let lab = with(&lab, |options| options.keep_history(History::LastBytes(bytes)));
        let lab = lab.on(image.fork());
        let db = lab.open();
        if active > 0 {
            db.put("x", vec![0; active]).unwrap();
        }
        let kept = db.segments().iter().filter(|segment| segment.history).count();
        let report = db.merge_opt(MergeOptions::new().segments(ids[..5 - kept].iter().copied()));
        assert_eq!(report.unwrap().segments_in, 5 - kept as u64);
        let unmerged = (0..=feed.made.len()).filter(|after| {
            let position = feed.position(*after);
            db.changes(position).is_ok()
        });
        assert_eq!(unmerged.count(), 4 * kept + 1);
        kept
    };
    assert_eq!(kept_with(1, 0), 1, "the last is needed for what is in it");
    for later in 1..5 {
        let content = content(later);
        assert_eq!(kept_with(content, 0), 5 - later);
        assert_eq!(kept_with(content + 1, 0), 5 - later + 1);
    }
    assert_eq!(kept_with(u64::MAX, 0), 5);
    // The entries of the active segment count.
    let db = lab.on(image.fork()).open();
    db.put("x", [0; 100]).unwrap();
    let put = db.position().place().offset - FIRST_OFFSET;
    assert_eq!((kept_with(put, 100), kept_with(put + 1, 100)), (0, 1));
}

#[test]
fn a_bound_in_bytes_counts_the_marks_between_changes() {
    let lab = lab_with(History::LastBytes(1000));
    let db = lab.open();
    let mut feed = Feed::new(&db);
    for number in 1..=60 {
        feed.put(&db, "a", 10);
        db.sync().unwrap();
        db.inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap();
        if number % 5 == 0 {
            seal(&db);
        }
    }
    db.merge_opt(force()).unwrap();
    let gone = feed.check(&db, feed.oldest_before(1000));
    // So fewer are kept than if puts and deletes alone counted.
    let put = db.stats().appended_size / 60;
    assert!(gone as u64 > 60 - 1000 / put, "{gone} of 60 puts of {put} bytes are gone");
}

#[test]
fn the_lower_of_two_bounds_applies() {
    let lab = lab_with(History::None);
    let (db, mut feed) = segments_over_time(&lab, 10);
    db.close().unwrap();
    feed.advance(&lab, 1);
    let kept_with = |duration: u64, bytes: u64| {
        let duration = Duration::from_secs(duration);
        let history = History::LastUpTo { duration, bytes };
        let lab = with(&lab, |options| options.keep_history(history));
        let db = lab.on(lab.twin.fork()).open();
        db.put("x", "").unwrap();
        db.stats().history_segments
    };
    // The last change was made eleven seconds ago.
    assert_eq!(kept_with(10, u64::MAX), 0);
    assert_eq!(kept_with(12, u64::MAX), 1);
    assert_eq!(kept_with(32, u64::MAX), 3);
    assert_eq!(kept_with(u64::MAX, 600), 2);
    assert_eq!(kept_with(u64::MAX, u64::MAX), 10);
    assert_eq!(kept_with(32, 600), 2);
    assert_eq!(kept_with(12, 600), 1);
}

#[test]
fn the_setting_may_change_with_each_open_and_lost_history_stays_lost() {
    let lab = lab_with(History::Last(DURATION));
    let (db, mut feed) = segments_over_time(&lab, 20);
    db.merge_opt(force()).unwrap();
    let oldest = feed.oldest_within(DURATION);
    assert_eq!(feed.check(&db, oldest), oldest);
    db.close().unwrap();
    let longer = with(&lab, |options| options.keep_history(History::Last(3 * DURATION)));
    let db = longer.open();
    feed.advance(&lab, 100);
    feed.put(&db, "a", 10);
    db.merge_opt(force()).unwrap();
    assert_eq!(feed.check(&db, oldest), oldest);
    db.close().unwrap();
    let bytes = with(&lab, |options| options.keep_history(History::LastBytes(1))).open();
    bytes.merge_opt(force()).unwrap();
    let last = feed.made.len() - 1;
    assert_eq!(feed.check(&bytes, last), last);
    let none = with(&lab, |options| options.keep_history(History::None));
    bytes.close().unwrap();
    let db = none.open();
    db.merge_opt(force()).unwrap();
    assert_eq!(feed.check(&db, last + 1), last + 1);
}

#[test]
fn a_clear_removes_the_history_and_what_follows_is_kept() {
    let lab = lab_with(History::Last(DURATION));
    let (db, feed) = segments_over_time(&lab, 3);
    let mut follower = db.changes(feed.position(2)).unwrap();
    db.clear().unwrap();
    assert!((0..=12).all(|after| feed.is_gone(&db, after)));
    while follower.try_recv().is_ok() {}
    assert!(follower.try_recv().unwrap_err().needs_resync());
    let mut feed = Feed::new(&db);
    for _ in 0..3 {
        feed.put(&db, "a", 100);
        seal(&db);
    }
    db.merge_opt(force()).unwrap();
    assert_eq!(feed.check(&db, 0), 0);
    assert_eq!(feed.check(&lab.reopen(db), 0), 0);
}

#[test]
fn history_is_not_given_up_on_a_full_disk() {
    let lab = lab_with(History::Last(DURATION));
    let db = lab.open();
    let mut feed = Feed::new(&db);
    for round in 0..40 {
        for key in 0..5 {
            feed.put(&db, &key.to_string(), 150);
        }
        seal_active(&db);
        feed.advance(&lab, if round == 29 { 1000 } else { 0 });
    }
    lab.twin.set_space(u64::MAX - lab.twin.available_space());
    let before = db.stats();
    // Space for the live entries of the older segments would suffice, but there is none.
    let _ = db.merge_opt(force());
    let stats = db.stats();
    assert!(stats.log_size < before.log_size, "what is older is reclaimed");
    assert_eq!(stats.history_segments, before.history_segments);
    assert!(stats.history_segments >= 10 && stats.history_size > 4 * 10 * 150);
    feed.check(&db, feed.oldest_within(DURATION));
    // Another setting frees the space.
    lab.twin.set_space(lab.twin.available_space() + (32 << 10));
    db.close().unwrap();
    let db = with(&lab, |options| options.keep_history(History::None)).open();
    db.merge_opt(force()).unwrap();
    assert_eq!(db.stats().history_size, 0);
    assert!(db.stats().log_size < stats.log_size / 2, "{:?}", db.stats());
    assert_eq!(db.len().unwrap(), 5);
}

/// A program that runs for a moment every second.
#[test]
fn many_short_runs_leave_no_more_segments_than_the_setting_needs() {
    let lab = lab_with(History::Last(DURATION));
    let lab = with(&lab, |options| options.merge_policy(MergePolicy::Auto(AutoMerge::new())));
    let db = lab.open();
    let mut feed = Feed::new(&db);
    db.close().unwrap();
    let mut most = 0;
    for number in 0..400 {
        let db = lab.open();
        feed.put(&db, &(number % 7).to_string(), 10);
        db.close().unwrap();
        feed.advance(&lab, 1);
        most = most.max(lab.logs().len());
        if number % 50 == 49 {
            let db = lab.open_read_only();
            feed.check(&db, feed.oldest_within(DURATION));
        }
    }
    assert!((100..160).contains(&most), "{most} segments");
    let db = lab.open();
    assert!(feed.check(&db, feed.oldest_within(DURATION)) > 200);
    assert_eq!(db.len().unwrap(), 7);
}

#[test]
fn the_number_of_kept_segments_is_bounded() {
    let lab = lab_with(History::Last(DURATION));
    let db = lab.open();
    let mut feed = Feed::new(&db);
    for _ in 0..50 {
        feed.put(&db, "a", 10);
        seal(&db);
    }
    allowed::only(8 * 20);
    assert_eq!(db.stats().history_segments, 20);
    db.merge_opt(force()).unwrap();
    assert_eq!(feed.check(&db, 30), 30);
    assert_eq!(db.stats().history_segments, 20);
}

#[test]
fn a_backup_has_the_history_of_its_moment() {
    let lab = lab_with(History::Last(DURATION));
    let (db, feed) = segments_over_time(&lab, 15);
    db.merge_opt(force()).unwrap();
    let oldest = feed.oldest_within(DURATION);
    db.backup("/backup").unwrap();
    db.clear().unwrap();
    let copy = Bitcask::open_on(&lab.env(), Path::new("/backup"), lab.options.clone()).unwrap();
    copy.merge_opt(force()).unwrap();
    feed.check(&copy, oldest);
}

/// A follower in another process that falls behind, and refreshes after the merge.
#[test]
fn a_read_only_store_follows_kept_history() {
    let lab = lab_with(History::Last(DURATION));
    let (db, mut feed) = segments_over_time(&lab, 15);
    let reader = lab.open_read_only();
    for _ in 0..5 {
        feed.put(&db, "a", 200);
        seal(&db);
    }
    db.merge_opt(force()).unwrap();
    reader.refresh().unwrap();
    feed.check(&reader, feed.oldest_within(DURATION));
    assert_eq!(reader.stats().history_segments, 0);
    assert!(reader.segments().iter().all(|segment| !segment.history));
}

#[test]
fn keys_stay_right_while_their_history_is_kept() {
    // Older segments are merged while younger ones, which overwrite and delete, stay.
    let lab = lab_with(History::Last(DURATION));
    let db = lab.open();
    let mut feed = Feed::new(&db);
    for key in ["a", "b", "c", "d"] {
        feed.put(&db, key, 50);
        seal(&db);
    }
    feed.delete(&db, "a");
    seal(&db);
    feed.advance(&lab, 200);
    feed.put(&db, "b", 30);
    feed.delete(&db, "c");
    seal(&db);
    feed.put(&db, "c", 7);
    feed.delete(&db, "c");
    let expected = snapshot(&db);
    for _ in 0..3 {
        db.merge_opt(force()).unwrap();
        assert_eq!(snapshot(&db), expected);
        check_figures(&db);
    }
    feed.check(&db, feed.oldest_within(DURATION));
    db.sync().unwrap();
    assert_eq!(snapshot(&lab.powered_off(|_| false).open()), expected);
    assert_eq!(snapshot(&lab.reopen(db)), expected);
}

/// Operations of all kinds in any order, while clocks are set.
#[test]
fn random_runs_keep_the_promise() {
    let runs = if std::env::var("BITCASK_LONG").is_ok() { 600 } else { 60 };
    let (mut kept, mut gone) = (0, 0);
    for seed in 0..runs {
        let (more, fewer) = random_run(seed);
        kept += more;
        gone += fewer;
    }
    assert!(kept > 1000 && gone > 1000, "{kept} positions resumed and {gone} gone");
}

struct Wild {
    lab: Lab,
    feed: Feed,
    history: History,
    /// By how many seconds the time of day is ahead of the right time, or behind it.
    set: i64,
    /// Whether the time of day has ever been wrong.
    was_wrong: bool,
}

impl Wild {
    /// Opens the store, perhaps with another setting.
    fn open(&mut self, dice: &mut Dice) -> Bitcask {
        if dice.one_in(3) {
            let (duration, bytes) = (DURATION, 600 + 100 * dice.below(20) as u64);
            self.history = match dice.below(6) {
                0 => History::LastBytes(bytes),
                1 => History::LastUpTo { duration, bytes },
                2 => History::Last(3 * duration),
                _ => History::Last(duration),
            };
        }
        // A later process uses the times in the log, and those have been wrong.
        if self.was_wrong {
            self.feed.free = self.feed.made.len();
        }
        let options = self.lab.options.clone();
        self.lab = self.lab.clone().with(options.keep_history(self.history));
        self.lab.open_exactly()
    }

    fn set_clock(&mut self, dice: &mut Dice) {
        let by = 3600 * (1 + dice.below(30) as u64);
        let duration = Duration::from_secs(by);
        let by = i64::try_from(by).unwrap();
        if self.set > 0 || self.set == 0 && dice.one_in(2) {
            self.lab.hands.step_back(duration);
            self.set -= by;
        } else {
            self.lab.hands.jump(duration);
            self.set += by;
        }
        self.was_wrong = true;
    }

    /// The oldest position that can still be resumed, as promised.
    fn oldest(&self) -> usize {
        let by_time = self.history.duration().map_or(0, |it| self.feed.oldest_within(it));
        let by_size = self.history.bytes().map_or(0, |bytes| self.feed.oldest_before(bytes));
        by_time.max(by_size).max(self.feed.free)
    }
}

/// Returns how many positions could be resumed, and how many were gone.
fn random_run(seed: u64) -> (usize, usize) {
    let mut dice = Dice(seed);
    let policy = if seed.is_multiple_of(2) { automatic() } else { MergePolicy::Manual };
    let lab = with(&lab_with(History::Last(DURATION)), |options| options.merge_policy(policy));
    let lab = lab.seeded(seed + 1);
    let mut db = lab.open_exactly();
    let history = lab.options.get_keep_history();
    let feed = Feed::new(&db);
    let mut wild = Wild { lab, feed, history, set: 0, was_wrong: false };
    // A larger setting that follows does not extend the promise of the previous one.
    let (mut floor, mut kept, mut gone) = (0, 0, 0);
    for step in 0..150 {
        let key = ["a", "b", "c", "d", "e"][dice.below(5)];
        match dice.below(20) {
            0..8 => wild.feed.put(&db, key, dice.below(120)),
            8..10 => wild.feed.delete(&db, key),
            10 | 11 => seal_active(&db),
            12 => db.work(),
            13 => drop(db.merge_opt(force()).unwrap()),
            14 => drop(db.merge().unwrap()),
            15 => {
                let free: Vec<_> = db.segments().into_iter().filter(|it| !it.history).collect();
                let chosen: Vec<u32> =
                    free.iter().map(|it| it.id).filter(|_| dice.one_in(2)).collect();
                db.merge_opt(MergeOptions::new().segments(chosen)).unwrap();
            }
            16 => drop(db.inner.merge_due()),
            17 if dice.one_in(3) => {
                db.close().unwrap();
                wild.feed.advance(&wild.lab, dice.below(60) as u64);
                db = wild.open(&mut dice);
            }
            17 if dice.one_in(2) => {
                kill(db);
                db = wild.open(&mut dice);
            }
            18 if dice.one_in(8) => {
                db.clear().unwrap();
                wild.feed.free = wild.feed.made.len() + 1;
            }
            // In every third run, the clock is always right.
            18 if !seed.is_multiple_of(3) => wild.set_clock(&mut dice),
            _ => wild.feed.advance(&wild.lab, dice.below(40) as u64),
        }
        let is_gone = |after: &usize| wild.feed.is_gone(&db, *after);
        let oldest = wild.oldest().max(floor);
        let made = wild.feed.made.len();
        for after in oldest..=made {
            assert!(
                !is_gone(&after),
                "seed {seed}, step {step}: {:?}: {after} of {made}",
                wild.history
            );
            wild.feed.check_from(&db, after);
        }
        gone += (0..oldest).filter(is_gone).count();
        kept += made + 1 - oldest.min(made + 1);
        // From here on, these may be missing.
        floor = (0..=made).rfind(is_gone).map_or(0, |after| after + 1);
    }
    (kept, gone)
}
