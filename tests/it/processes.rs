//! Several processes: one that is killed while it writes, two that compete for the lock, and a
//! reader that runs concurrently with a writer. The children run this test binary again, in a part
//! that `ROLE` names.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use bitcask::{
    Batch, Bitcask, Error, MergeOptions, MergePolicy, Operation, Options, Position, ReadOnly,
    Reader, SyncPolicy,
};

use crate::support::{
    Actor, Pairs, ROLE, SAYS, STORE, actor, contents, crash_copy, logs, open, open_read_only,
    pairs, patch, remove_hints, small,
};
use crate::{background, file_limit, forks, kills, limits, merge, real_disk, repair};

#[test]
fn a_child_process_plays_its_part() {
    let (Ok(role), Some(store)) = (std::env::var(ROLE), std::env::var_os(STORE)) else { return };
    let store = Path::new(&store);
    match role.as_str() {
        "log keeper" => keep_a_log(store, small(), |_, _| {}),
        // The faster the disk, the more small segments it leaves, which a later open would merge.
        "lasting log keeper" => {
            keep_a_log(store, small().merge_policy(MergePolicy::Manual), |_, _| {});
        }
        "careful log keeper" => {
            keep_a_log(store, small().sync_policy(SyncPolicy::Always), |_, _| {});
        }
        "clearing log keeper" => keep_a_log(store, small(), |db, step| {
            if step.is_multiple_of(CLEARED) {
                db.clear().unwrap();
            }
        }),
        "merging log keeper" => keep_a_log(store, small(), |db, step| {
            if step.is_multiple_of(MERGED) {
                db.merge_opt(MergeOptions::new().force(true)).unwrap();
            }
        }),
        "merger" => merge::merge_and_write(store),
        "do everything" => kills::do_everything(store),
        limits::PART => limits::play(store),
        "rescuer with few descriptors" => repair::rescue(store),
        part if part.starts_with(file_limit::PART) => file_limit::play(part, store),
        part if part.starts_with(background::PART) => background::play(part, store),
        part if part.starts_with(forks::PART) => forks::play(part, store),
        part if part.starts_with(real_disk::PART) => real_disk::play(part, store),
        "holder" => hold(store),
        "opener" => match Bitcask::open(store, small()) {
            Ok(_) => say("opened"),
            Err(error) => say(&error.to_string()),
        },
        "reader" => match ReadOnly::open(store, small()) {
            Ok(db) => say(&format!("{} keys", db.len().unwrap())),
            Err(error) => say(&error.to_string()),
        },
        other => unreachable!("there is no part {other}"),
    }
}

/// Reports something to the parent. If the parent has exited, this panics, which ends the child.
fn say(what: &str) {
    println!("{SAYS}{what}");
}

/// Opens the store, reports how that went, and holds the store until the process is killed or its
/// parent exits.
fn hold(store: &Path) {
    match Bitcask::open(store, small()) {
        Ok(db) => {
            db.put("holder", std::process::id().to_string()).unwrap();
            say("won");
            let _ = std::io::stdin().read(&mut [0]);
        }
        Err(Error::Locked { pid, .. }) => say(&format!("lost to {}", pid.unwrap_or(0))),
        Err(error) => say(&format!("failed: {error}")),
    }
}

/// Makes changes until the process is killed, and reports the number of each one that has returned.
/// The store records how far earlier processes have got.
fn keep_a_log(store: &Path, options: Options, before_each: impl Fn(&Bitcask, u64)) {
    let db = Bitcask::open(store, options).unwrap();
    let last = db.get(HEAD).unwrap().map_or(0, |head| number(&head));
    say(&format!("from {last}"));
    for step in last + 1.. {
        before_each(&db, step);
        db.write(&change(step)).unwrap();
        say(&step.to_string());
    }
}

/// The key that holds the number of the last change.
const HEAD: &str = "head";

/// Number of steps between two clears of the log keeper that clears.
const CLEARED: u64 = 300;

/// Number of steps between two merges of the log keeper that merges.
const MERGED: u64 = 150;

/// Returns the change that a log keeper makes at a step: a put or a delete of one of a few keys,
/// and a put of the step's number.
fn change(step: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(HEAD, step.to_be_bytes());
    let key = (step * 7 % 23).to_be_bytes();
    match step % 4 {
        0 => batch.delete(key),
        _ => batch.put(key, value(step)),
    };
    batch
}

fn value(step: u64) -> Vec<u8> {
    format!("{step} ").repeat(usize::try_from(step * 13 % 60).unwrap_or(0)).into_bytes()
}

/// Returns what a store must hold after a step if everything before the step `from` was cleared.
fn state_after(step: u64, from: u64) -> Pairs {
    let mut state = BTreeMap::new();
    // A hundred steps are enough to touch every key.
    for step in step.saturating_sub(100).max(from)..=step {
        state.insert(HEAD.into(), step.to_be_bytes().to_vec());
        let key = (step * 7 % 23).to_be_bytes().to_vec();
        match step % 4 {
            0 => drop(state.remove(&key)),
            _ => drop(state.insert(key, value(step))),
        }
    }
    state
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

/// Returns how far the store of a log keeper has got, after checking that it holds exactly the
/// state of that step.
fn checked_head(db: &Reader) -> u64 {
    let found = pairs(db);
    let head = found.get(HEAD.as_bytes()).map_or(0, |head| number(head));
    let expected = if head == 0 { Pairs::new() } else { state_after(head, 1) };
    assert!(found == expected, "not the state after {head} changes");
    head
}

fn killed_while_writing(role: &str, changes: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for generation in 0..6 {
        let mut keeper = Actor::start(actor(role, dir.path())).unwrap();
        let from = keeper.hear().unwrap();
        assert_eq!(from, format!("from {last}"), "generation {generation}");
        for _ in 0..changes + generation * 17 {
            last = keeper.hear().unwrap().parse().unwrap();
        }
        keeper.kill();
        // Changes that were reported before the kill count, too.
        while let Some(step) = keeper.hear() {
            last = step.parse().unwrap();
        }
        if generation % 2 == 1 {
            let head = checked_head(&open_read_only(dir.path()));
            assert!(head >= last, "{head} is older than {last}, which had returned");
        }
        let db = open(dir.path());
        let head = checked_head(&db);
        // One more change may have been made but not reported.
        assert!(head == last || head == last + 1, "{last} has returned, {head} is there");
        last = head;
        if generation % 3 == 2 {
            db.close().unwrap();
        }
    }
}

#[test]
fn every_returned_write_survives_a_kill() {
    killed_while_writing("log keeper", 300);
}

#[test]
fn every_synced_write_survives_a_kill() {
    killed_while_writing("careful log keeper", 60);
}

#[test]
fn only_one_of_two_processes_gets_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let start = || Actor::start(actor("holder", dir.path())).unwrap();
    for _ in 0..5 {
        let mut actors = [start(), start()];
        let said = [0, 1].map(|at: usize| actors[at].hear().unwrap());
        let winner = usize::from(said[1] == "won");
        assert_eq!(said[winner], "won", "{said:?}");
        // The holder may not have had the time to write its process id.
        assert!(said[1 - winner].starts_with("lost to"), "{said:?}");
        let pid = actors[winner].pid();
        assert_eq!(start().hear().unwrap(), format!("lost to {pid}"));
        let error = Bitcask::open(dir.path(), small()).unwrap_err();
        assert!(error.is_locked());
        assert!(matches!(error, Error::Locked { pid: Some(found), .. } if found == pid));
        assert!(error.to_string().contains(&format!("process {pid}")), "{error}");
        assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
        // A reader needs no lock.
        let holder = open_read_only(dir.path()).get("holder").unwrap().unwrap();
        assert_eq!(holder, pid.to_string());
        actors[winner].kill();
        let db = open(dir.path());
        assert_eq!(db.get("holder").unwrap().unwrap(), pid.to_string());
    }
}

/// Opens the store for reading again and again while a log keeper runs, until the keeper has made
/// `changes` changes. Passes each reader to `check`, with the last change reported before the
/// opening.
fn read_during_writes(role: &str, changes: u64, mut check: impl FnMut(&Reader, u64) + Send) {
    look_during_writes(role, changes, |path, before| {
        let db = ReadOnly::open(path, small()).unwrap();
        check(&db, before);
    });
}

/// Like `read_during_writes`, but with one reader that is refreshed each time.
fn refresh_during_writes(role: &str, changes: u64, mut check: impl FnMut(&Reader, u64) + Send) {
    let mut reader = None;
    look_during_writes(role, changes, |path, before| {
        let db = reader.get_or_insert_with(|| open_read_only(path));
        db.refresh().unwrap();
        check(db, before);
    });
}

/// Calls `look` again and again while a log keeper runs.
fn look_during_writes(role: &str, changes: u64, mut look: impl FnMut(&Path, u64) + Send) {
    let dir = tempfile::tempdir().unwrap();
    let mut keeper = Actor::start(actor(role, dir.path())).unwrap();
    assert_eq!(keeper.hear().unwrap(), "from 0");
    let said = AtomicU64::new(keeper.hear().unwrap().parse().unwrap());
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looks = 0;
            loop {
                let before = said.load(Ordering::Acquire);
                look(dir.path(), before);
                looks += 1;
                if before >= changes && looks >= 5 {
                    return;
                }
            }
        });
        // Once the reader has finished, no thread reads the writer's reports, so the writer will
        // soon block.
        while said.load(Ordering::Acquire) < changes && !reader.is_finished() {
            let step = keeper.hear().map_or(u64::MAX, |step| step.parse().unwrap());
            said.store(step, Ordering::Release);
        }
        assert!(said.load(Ordering::Acquire) < u64::MAX, "the writer has ended");
        reader.join().unwrap();
    });
}

/// Returns a check that the reader shows the state at one moment between the start and the end of
/// the look.
fn states_of_one_moment() -> impl FnMut(&Reader, u64) {
    let mut last = 0;
    move |db, before| {
        let head = checked_head(db);
        assert!(head >= before, "{head} is older than {before}, reported before the open");
        assert!(head >= last, "{head} is older than {last}, seen by an earlier open");
        assert_eq!(checked_head(db), head, "an open reader does not change");
        last = head;
    }
}

#[test]
fn a_reader_of_a_busy_store_sees_one_moment() {
    read_during_writes("log keeper", 1500, states_of_one_moment());
}

#[test]
fn a_reader_of_a_busy_syncing_store_sees_one_moment() {
    read_during_writes("careful log keeper", 1000, states_of_one_moment());
}

/// The same check for a writer that clears.
fn states_since_a_clear() -> impl FnMut(&Reader, u64) {
    |db, before| {
        let found = pairs(db);
        let Some(head) = found.get(HEAD.as_bytes()).map(|head| number(head)) else {
            assert!(found.is_empty());
            return;
        };
        assert!(head >= before, "{head} is older than {before}, reported before the open");
        let cleared = head - head % CLEARED;
        assert!(found == state_after(head, cleared.max(1)), "not the state after {head}");
    }
}

#[test]
fn a_reader_of_a_busy_clearing_store_sees_one_moment() {
    read_during_writes("clearing log keeper", 3000, states_since_a_clear());
}

#[test]
fn a_refreshed_reader_of_a_busy_store_sees_one_moment() {
    refresh_during_writes("log keeper", 3000, states_of_one_moment());
}

#[test]
fn a_refreshed_reader_of_a_busy_merging_store_sees_one_moment() {
    refresh_during_writes("merging log keeper", 1500, states_of_one_moment());
}

#[test]
fn a_refreshed_reader_of_a_busy_clearing_store_sees_one_moment() {
    refresh_during_writes("clearing log keeper", 3000, states_since_a_clear());
}

#[test]
fn a_refreshed_reader_reports_every_change_of_successive_writers_however_they_end() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().unwrap();
    let reader = open_read_only(dir.path());
    let (mut changes, mut copy, mut last) =
        (reader.changes(Position::START).unwrap(), Pairs::new(), 0);
    for generation in 0..5 {
        let mut keeper = Actor::start(actor("lasting log keeper", dir.path())).unwrap();
        assert_eq!(keeper.hear().unwrap(), format!("from {last}"));
        for _ in 0..100 + 40 * generation {
            last = keeper.hear().unwrap().parse().unwrap();
            if last % 7 == 0 {
                reader.refresh().unwrap();
                assert!(checked_head(&reader) >= last);
            }
        }
        keeper.kill();
        while let Some(step) = keeper.hear() {
            last = step.parse().unwrap();
        }
        reader.refresh().unwrap();
        last = last.max(checked_head(&reader));
        while let Some(change) = changes.try_recv().unwrap() {
            match change.operation {
                Operation::Put { value, .. } => copy.insert(change.key.into(), value.into()),
                _ => copy.remove(&*change.key),
            };
        }
        assert!(copy == pairs(&reader), "the reported changes do not lead to the stored state");
    }
}

#[test]
fn a_reader_does_not_see_writes_after_it_was_opened() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for step in 1..=100 {
        db.write(&change(step)).unwrap();
    }
    let reader = open_read_only(dir.path());
    for step in 101..=300 {
        db.write(&change(step)).unwrap();
    }
    assert_eq!(checked_head(&reader), 100);
    assert_eq!(checked_head(&open_read_only(dir.path())), 300);
    db.clear().unwrap();
    assert_eq!(checked_head(&reader), 100, "open files stay readable");
    assert!(open_read_only(dir.path()).is_empty().unwrap());
    db.close().unwrap();
    assert_eq!(checked_head(&reader), 100);
    let figures = reader.stats();
    assert_eq!(figures.keys, reader.len().unwrap());
    assert!(figures.segments > 0 && figures.live_size > 0);
}

#[test]
fn a_reader_changes_nothing_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for step in 1..=200 {
        db.write(&change(step)).unwrap();
    }
    // While a writer is open but idle.
    let copy = crash_copy(dir.path());
    let reader = open_read_only(dir.path());
    assert_eq!(checked_head(&reader), 200);
    drop(reader);
    // After a kill, with a torn tail, without hints, and with leftovers that a writer would remove.
    let last = logs(copy.path()).pop().unwrap();
    patch(&last, |bytes| {
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[end + 1..][..100].fill(0xa5);
    });
    remove_hints(copy.path());
    fs::write(copy.path().join("0000000077.log.tmp"), "half").unwrap();
    fs::remove_file(copy.path().join("LOCK")).unwrap();
    let before = contents(copy.path());
    let reader = open_read_only(copy.path());
    assert_eq!(checked_head(&reader), 200);
    let report = reader.recovery();
    assert_eq!(report.cuts.len(), 1, "{report:?}");
    assert_eq!((report.cuts[0].path.as_path(), &report.cuts[0].quarantine), (&*last, &None));
    reader.close().unwrap();
    assert!(before == contents(copy.path()));
    assert!(!copy.path().join("LOCK").exists(), "a reader takes no lock");
    // A writer would change all of that.
    assert_eq!(checked_head(&open(copy.path())), 200);
    assert!(before != contents(copy.path()));
}

/// Returned by a method that neither `ReadOnly` nor `Reader` has.
struct Absent;

macro_rules! absent {
    ($($method:ident)*) => {
        /// An inherent method of the same name would take precedence over this trait's.
        trait Absence {
            $(fn $method(&self) -> Absent {
                Absent
            })*
        }

        impl Absence for ReadOnly {}
        impl Absence for Reader {}

        fn call_absent_methods(db: &ReadOnly) {
            let reader: &Reader = db;
            $(let (Absent, Absent) = (db.$method(), reader.$method());)*
        }
    };
}

absent! {
    put put_opt put_if_absent put_if_absent_opt compare_and_swap compare_and_swap_opt update update_opt
    expire persist delete delete_opt delete_range delete_prefix retain write write_opt
    transaction transaction_opt merge merge_opt needs_merge clear sync backup
}

/// Compiling this test shows that the types have no method that writes.
#[test]
fn a_reader_has_no_method_that_writes_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    db.put("key", "value").unwrap();
    db.close().unwrap();
    let before = contents(dir.path());
    let db = open_read_only(dir.path());
    call_absent_methods(&db);
    assert_eq!(db.get("key").unwrap().unwrap(), "value");
    db.close().unwrap();
    assert!(before == contents(dir.path()));
}

#[test]
fn opening_a_missing_store_for_reading_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().join("absent"), dir.path().to_path_buf()] {
        let error = ReadOnly::open(&path, small()).unwrap_err();
        assert!(matches!(&error, Error::NotFound { path: found } if *found == path), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

// From its start until it executes another program, a child process has a copy of every handle of
// its parent, including the lock's. A lock released only by closing its handle stays held for that
// long: if another thread were just starting a process, the store could not be reopened right after
// it was closed.
#[test]
fn a_closed_store_reopens_immediately_while_processes_are_started() {
    let dir = tempfile::tempdir().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    // It does not matter whether the process can be started.
                    let _ = Command::new("true").status();
                }
            });
        }
        let opener = scope.spawn(|| {
            for _ in 0..150 {
                open(dir.path()).close().unwrap();
            }
        });
        let result = opener.join();
        done.store(true, Ordering::Release);
        result.unwrap();
    });
}

#[test]
fn a_process_that_exits_normally_leaves_a_clean_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut opener = Actor::start(actor("opener", dir.path())).unwrap();
    assert_eq!(opener.hear().unwrap(), "opened");
    assert_eq!(opener.hear(), None);
    drop(opener);
    assert!(open(dir.path()).recovery().is_clean());
}
