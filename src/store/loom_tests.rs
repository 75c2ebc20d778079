//! Whole stores under the model checker: rotation beside readers, and merges beside both.
//!
//! - The store is the real one, with two entries a segment, on the tests' disk and without threads
//!   of its own; the threads of a model call what writers, readers and the background call.
//! - The model checker sees what comes from `crate::sync`, and the guards of `epoch/twin.rs`. It
//!   does not see the bytes of entries, which lie on the tests' disk; the keydir's models are about
//!   those.
//! - A slot that names a segment which is not in the set panics; one beyond the end of its segment
//!   is an error; a number that was used again too early leads to another key's entry, or none; and
//!   what is found is compared with the key's history.
//! - The orders in which threads are switched against their will more than a few times are left
//!   out; `LOOM_MAX_PREEMPTIONS` sets another limit.

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

/// What a key held before the first change and after each.
type History = &'static [Option<&'static str>];

struct Model {
    db: Bitcask,
    /// How many changes are over.
    over: AtomicUsize,
    /// How many have been begun; of no matter to the order, so not the model checker's.
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

    /// Makes one change, and lets readers know when it can be seen, and has to be.
    fn change(&self, make: impl FnOnce(&Self)) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        make(self);
        self.over.fetch_add(1, Ordering::Release);
    }

    /// Looks a key up; what it finds has to be so at some moment of the look-up.
    fn get_of(&self, key: &str, history: History) {
        let over = self.over.load(Ordering::Acquire);
        let found = self.get(key);
        let begun = self.begun.load(Ordering::Relaxed);
        let possible = &history[over..=begun];
        let found = found.as_deref().map(|value| std::str::from_utf8(value).unwrap());
        assert!(possible.contains(&found), "{found:?}, possible is {possible:?}");
    }

    /// Ends the active segment, and seals it.
    fn seal(&self) {
        self.db.inner.log().unwrap().rotate_active().unwrap();
        self.db.inner.seal_rotated().unwrap();
    }

    /// Merges what is sealed.
    fn merge(&self) {
        let sealed: Vec<u32> = self.db.segments().iter().map(|segment| segment.id).collect();
        self.db.merge_opt(MergeOptions::new().segments(sealed)).unwrap();
    }

    /// Merges, and goes on in a segment that has the first one's number, unless a reader keeps it.
    fn merge_and_use_the_number_again(&self) {
        self.merge();
        self.seal();
        self.put("c", "0");
    }
}

/// Runs threads beside each other, switched so often against their will at most, and checks what
/// they leave.
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
            assert_eq!(model.db.inner.keydir.collector().left(), 0, "retired, and never freed");
        };
        spawn(whole).join().unwrap();
    });
}

fn spawn(run: impl FnOnce() + Send + 'static) -> loom::thread::JoinHandle<()> {
    loom::thread::Builder::new().stack_size(STACK_SIZE).spawn(run).unwrap()
}

/// Two keys in a sealed segment, one of them overwritten there in the next.
fn two_sealed(model: &Model) {
    model.put("a", "-");
    model.put("b", "0");
    model.put("a", "0");
    model.seal();
}

fn b_is_there(model: &Model) {
    assert_eq!(model.get("b").as_deref(), Some(&b"0"[..]), "it is there throughout");
}

const PUT_AND_PUT: History = &[Some("0"), Some("1"), Some("2")];
const PUT: History = &[Some("0"), Some("1")];
const DELETE: History = &[Some("0"), None];

#[test]
fn a_look_up_beside_a_rotation_finds_what_held_while_it_ran() {
    let write = |model: &Model| {
        model.change(|model| model.put("a", "1"));
        model.change(|model| model.put("a", "2"));
    };
    let read = |model: &Model| model.get_of("a", PUT_AND_PUT);
    run(2, |model| model.put("a", "0"), [write, read], read);
}

#[test]
fn a_look_up_beside_two_writers_and_a_rotation_finds_what_held_while_it_ran() {
    let write = |model: &Model| model.change(|model| model.put("a", "1"));
    let write_another = |model: &Model| model.put("c", "1");
    let read = |model: &Model| {
        model.get_of("a", PUT);
        b_is_there(model);
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
fn a_look_up_beside_a_clear_finds_what_held_while_it_ran() {
    const HISTORY: History = &[Some("0"), None, Some("1")];
    let clear = |model: &Model| {
        model.change(|model| model.db.clear().unwrap());
        model.change(|model| model.put("a", "1"));
    };
    let read = |model: &Model| model.get_of("a", HISTORY);
    run(2, |model| model.put("a", "0"), [clear, read], read);
}

#[test]
fn a_look_up_beside_a_merge_finds_what_is_there_throughout() {
    let read = |model: &Model| {
        // Held, it stays as it is.
        let held = model.db.get("a").unwrap().unwrap();
        b_is_there(model);
        assert_eq!(held, "0");
    };
    run(2, two_sealed, [Model::merge, read], |model| model.get_of("a", PUT));
}

#[test]
fn a_number_is_not_used_again_while_a_look_up_may_have_seen_it() {
    run(2, two_sealed, [Model::merge_and_use_the_number_again, b_is_there], b_is_there);
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
        b_is_there(model);
    });
}

#[test]
fn a_put_beside_a_merge_is_not_lost() {
    let write = |model: &Model| model.change(|model| model.put("a", "1"));
    run(2, two_sealed, [Model::merge, write], |model| {
        model.get_of("a", PUT);
        assert_eq!(model.db.len().unwrap(), 2);
        b_is_there(model);
    });
}

#[test]
fn a_key_that_is_deleted_beside_a_merge_does_not_return() {
    let write = |model: &Model| model.change(|model| assert!(model.db.delete("a").unwrap()));
    run(2, two_sealed, [Model::merge, write], |model| {
        model.get_of("a", DELETE);
        assert_eq!(model.db.len().unwrap(), 1);
        b_is_there(model);
    });
}

#[test]
fn a_look_up_beside_a_merge_and_a_writer_finds_what_held_while_it_ran() {
    let write = |model: &Model| model.change(|model| assert!(model.db.delete("a").unwrap()));
    let read = |model: &Model| model.get_of("a", DELETE);
    run(1, two_sealed, [Model::merge, write, read], read);
}

/// Takes a snapshot, and looks a key up in it, and again: it is one of what the key held at some
/// moment while the snapshot was taken, and the same each time.
fn look_twice(model: &Model, key: &str, history: History) {
    let over = model.over.load(Ordering::Acquire);
    let snapshot = model.db.snapshot();
    let possible = &history[over..=model.begun.load(Ordering::Relaxed)];
    let found = || snapshot.get_with(key, <[u8]>::to_vec).unwrap();
    let (first, second) = (found(), found());
    assert_eq!(first, second, "a snapshot has changed");
    let first = first.as_deref().map(|value| std::str::from_utf8(value).unwrap());
    assert!(possible.contains(&first), "{first:?}, possible is {possible:?}");
}

#[test]
fn a_snapshot_beside_a_put_goes_on_to_see_what_it_saw() {
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
fn a_snapshot_beside_a_delete_and_a_put_goes_on_to_see_what_it_saw() {
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
fn a_snapshot_beside_a_put_and_a_merge_goes_on_to_see_what_it_saw() {
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
