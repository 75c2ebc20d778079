//! Whole stores under the model checker: rotations concurrent with readers, and merges concurrent
//! with both.
//!
//! - The store is the real one, with two entries per segment, on the tests' disk and without
//!   background threads. The threads of a model call what writers, readers and background threads
//!   call.
//! - The model checker sees everything from `crate::sync`, and the guards of `epoch/twin.rs`. It
//!   does not see the bytes of entries, which lie on the tests' disk; the keydir's models cover
//!   those.
//! - If a slot names a segment that is not in the set, the lookup panics. If a slot lies beyond the
//!   end of its segment, the lookup returns an error. A number that is reused too early leads to
//!   another key's entry, or to none. Every result is compared with the key's history.
//! - Executions with more than a few preemptions are left out; `LOOM_MAX_PREEMPTIONS` sets another
//!   limit.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::clock::Hands;
use crate::manifest::Manifest;
use crate::options::{MergeOptions, MergePolicy, SyncPolicy};
use crate::testing::twin::Twin;

const DIR: &str = "/store";

/// In words.
const STACK_SIZE: usize = 1 << 16;

/// The values of a key: before the first change, and after each change.
type History = &'static [Option<&'static str>];

struct Model {
    db: Bitcask,
    /// Number of completed changes.
    over: AtomicUsize,
    /// Number of changes begun. It does not affect the order, so the model checker does not see it.
    begun: std::sync::atomic::AtomicUsize,
}

impl Model {
    fn open() -> Self {
        let twin = Twin::new();
        let manifest = Manifest::new(Identity { store_id: 1, hash_seed: 1 });
        twin.put_file(&Dir::new(DIR.into()).manifest(), manifest.encode().into_bytes());
        let env = Env {
            fs: Fs::Twin(twin),
            clock: Hands::new().clock(),
            hasher: KeyHasher::new,
            threads: false,
        };
        let options = Options::new()
            .segment_size(512)
            .segment_entries(2)
            .sync_policy(SyncPolicy::Never)
            .merge_policy(MergePolicy::Manual);
        let db = Bitcask::open_on(&env, Path::new(DIR), options).unwrap();
        db.inner.filler.fill_all(&db.inner.keydir).unwrap();
        Self { db, over: AtomicUsize::new(0), begun: std::sync::atomic::AtomicUsize::new(0) }
    }

    fn put(&self, key: &str, value: &str) {
        self.db.put(key, value).unwrap();
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.db.get_with(key, <[u8]>::to_vec).unwrap()
    }

    /// Makes one change, and records from when on readers may see it, and from when on they must.
    fn change(&self, make: impl FnOnce(&Self)) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        make(self);
        self.over.fetch_add(1, Ordering::Release);
    }

    /// Looks a key up. The result must have been current at some moment of the lookup.
    fn get_of(&self, key: &str, history: History) {
        let over = self.over.load(Ordering::Acquire);
        let found = self.get(key);
        let begun = self.begun.load(Ordering::Relaxed);
        let possible = &history[over..=begun];
        let found = found.as_deref().map(|value| std::str::from_utf8(value).unwrap());
        assert!(possible.contains(&found), "{found:?} is not among {possible:?}");
    }

    /// Ends and seals the active segment.
    fn seal(&self) {
        self.db.inner.log().unwrap().rotate_active().unwrap();
        self.db.inner.seal_rotated().unwrap();
    }

    /// Merges all sealed segments.
    fn merge(&self) {
        let sealed: Vec<u32> = self.db.segments().iter().map(|segment| segment.id).collect();
        self.db.merge_opt(MergeOptions::new().segments(sealed)).unwrap();
    }

    /// Merges, and continues in a segment that reuses the first one's number, unless a reader holds
    /// it.
    fn merge_and_reuse_the_number(&self) {
        self.merge();
        self.seal();
        self.put("c", "0");
    }
}

/// Runs threads concurrently, with at most this many preemptions, and checks the result.
fn run<const THREADS: usize>(
    preemptions: usize,
    prepare: fn(&Model),
    threads: [fn(&Model); THREADS],
    check: fn(&Model),
) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.expect_explicit_explore = true;
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.check(move || {
        let whole = move || {
            let model = Arc::new(Model::open());
            prepare(&model);
            loom::explore();
            let threads = threads.map(|act| {
                let model = Arc::clone(&model);
                spawn(move || act(&model))
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            loom::stop_exploring();
            check(&model);
            model.db.inner.segments.free_retired();
            (0..2).for_each(|_| model.db.inner.pin().flush());
            assert_eq!(
                model.db.inner.keydir.collector().left(),
                0,
                "retired values were never freed"
            );
        };
        spawn(whole).join().unwrap();
    });
}

fn spawn(run: impl FnOnce() + Send + 'static) -> loom::thread::JoinHandle<()> {
    loom::thread::Builder::new().stack_size(STACK_SIZE).spawn(run).unwrap()
}

/// Puts two keys into one segment, and overwrites one of them in the next. Both segments are
/// sealed.
fn two_sealed(model: &Model) {
    model.put("a", "-");
    model.put("b", "0");
    model.put("a", "0");
    model.seal();
}

fn b_exists(model: &Model) {
    assert_eq!(model.get("b").as_deref(), Some(&b"0"[..]), "the key exists throughout");
}

const PUT_AND_PUT: History = &[Some("0"), Some("1"), Some("2")];
const PUT: History = &[Some("0"), Some("1")];
const DELETE: History = &[Some("0"), None];

#[test]
fn a_lookup_during_a_rotation_finds_a_value_that_was_current_while_it_ran() {
    let write = |model: &Model| {
        model.change(|model| model.put("a", "1"));
        model.change(|model| model.put("a", "2"));
    };
    let read = |model: &Model| model.get_of("a", PUT_AND_PUT);
    run(2, |model| model.put("a", "0"), [write, read], read);
}

#[test]
fn a_lookup_during_two_writes_and_a_rotation_finds_a_value_that_was_current_while_it_ran() {
    let write = |model: &Model| model.change(|model| model.put("a", "1"));
    let write_another = |model: &Model| model.put("c", "1");
    let read = |model: &Model| {
        model.get_of("a", PUT);
        b_exists(model);
    };
    let prepare = |model: &Model| {
        model.put("b", "0");
        model.put("a", "0");
    };
    run(1, prepare, [write, write_another, read], |model| {
        model.get_of("a", PUT);
        assert!(model.get("c").is_some());
    });
}

#[test]
fn a_lookup_during_a_clear_finds_a_value_that_was_current_while_it_ran() {
    const HISTORY: History = &[Some("0"), None, Some("1")];
    let clear = |model: &Model| {
        model.change(|model| model.db.clear().unwrap());
        model.change(|model| model.put("a", "1"));
    };
    let read = |model: &Model| model.get_of("a", HISTORY);
    run(2, |model| model.put("a", "0"), [clear, read], read);
}

#[test]
fn a_clear_removes_all_keys_at_one_moment() {
    let prepare = |model: &Model| {
        model.put("a", "0");
        model.put("b", "0");
    };
    let clear = |model: &Model| model.db.clear().unwrap();
    // The shards are emptied in some order.
    run(
        1,
        prepare,
        [clear, |model| assert!(model.get("a").is_some() || model.get("b").is_none())],
        |_| (),
    );
    run(
        1,
        prepare,
        [clear, |model| assert!(model.get("b").is_some() || model.get("a").is_none())],
        |_| (),
    );
}

#[test]
fn a_lookup_during_a_merge_finds_keys_that_exist_throughout() {
    let read = |model: &Model| {
        // While the value is held, it does not change.
        let held = model.db.get("a").unwrap().unwrap();
        b_exists(model);
        assert_eq!(held, "0");
    };
    run(2, two_sealed, [Model::merge, read], |model| model.get_of("a", PUT));
}

#[test]
fn a_number_is_not_reused_while_a_lookup_may_have_seen_it() {
    run(2, two_sealed, [Model::merge_and_reuse_the_number, b_exists], b_exists);
}

#[test]
fn a_segment_that_is_added_while_a_merge_frees_numbers_stays_in_the_set() {
    let rotate = |model: &Model| {
        model.put("c", "0");
        model.seal();
        model.put("c", "1");
        assert!(model.get("c").is_some());
    };
    run(1, two_sealed, [Model::merge, rotate], |model| {
        assert_eq!(model.get("c").as_deref(), Some(&b"1"[..]));
        b_exists(model);
    });
}

#[test]
fn a_put_during_a_merge_is_not_lost() {
    let write = |model: &Model| model.change(|model| model.put("a", "1"));
    run(2, two_sealed, [Model::merge, write], |model| {
        model.get_of("a", PUT);
        assert_eq!(model.db.len().unwrap(), 2);
        b_exists(model);
    });
}

#[test]
fn a_key_that_is_deleted_during_a_merge_does_not_return() {
    let write = |model: &Model| model.change(|model| assert!(model.db.delete("a").unwrap()));
    run(2, two_sealed, [Model::merge, write], |model| {
        model.get_of("a", DELETE);
        assert_eq!(model.db.len().unwrap(), 1);
        b_exists(model);
    });
}

#[test]
fn a_lookup_during_a_merge_and_a_write_finds_a_value_that_was_current_while_it_ran() {
    let write = |model: &Model| model.change(|model| assert!(model.db.delete("a").unwrap()));
    let read = |model: &Model| model.get_of("a", DELETE);
    run(1, two_sealed, [Model::merge, write, read], read);
}

/// Takes a snapshot and looks a key up in it twice. Both results must be the same value, one that
/// was current at some moment while the snapshot was taken.
fn look_twice(model: &Model, key: &str, history: History) {
    let over = model.over.load(Ordering::Acquire);
    let snapshot = model.db.snapshot();
    let possible = &history[over..=model.begun.load(Ordering::Relaxed)];
    let found = || snapshot.get_with(key, <[u8]>::to_vec).unwrap();
    let (first, second) = (found(), found());
    assert_eq!(first, second, "a snapshot has changed");
    let first = first.as_deref().map(|value| std::str::from_utf8(value).unwrap());
    assert!(possible.contains(&first), "{first:?} is not among {possible:?}");
}

#[test]
fn a_snapshot_during_a_put_does_not_change() {
    run(
        2,
        |model| model.put("a", "0"),
        [
            |model| model.change(|model| model.put("a", "1")),
            |model| look_twice(model, "a", &[Some("0"), Some("1")]),
        ],
        |_| (),
    );
}

#[test]
fn a_snapshot_during_a_delete_and_a_put_does_not_change() {
    run(
        1,
        |model| model.put("a", "0"),
        [
            |model| {
                model.change(|model| assert!(model.db.delete("a").unwrap()));
                model.change(|model| model.put("a", "1"));
            },
            |model| look_twice(model, "a", &[Some("0"), None, Some("1")]),
        ],
        |_| (),
    );
}

#[test]
fn a_snapshot_during_a_put_and_a_merge_does_not_change() {
    run(
        1,
        two_sealed,
        [
            |model| {
                model.change(|model| model.put("a", "1"));
                model.merge();
            },
            |model| look_twice(model, "a", &[Some("0"), Some("1")]),
        ],
        |_| (),
    );
}
