//! The events of whole stores, as a subscriber sees them that uses the store itself: a binary of
//! its own, since background threads report only to a subscriber of the whole process.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails the test"
)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::thread::yield_now;

use bitcask::{
    Bitcask, MergeOptions, MergePolicy, Options, ReadOnly, Reader, SyncPolicy, WriteOptions,
};
use tempfile::TempDir;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// An event: its fields as text, and the names of the spans around it, outermost first.
#[derive(Debug, Clone)]
struct Seen {
    fields: BTreeMap<&'static str, String>,
    spans: Vec<&'static str>,
}

static SEEN: Mutex<Vec<Seen>> = Mutex::new(Vec::new());
/// The stores that the subscriber writes to.
static STORES: Mutex<Vec<Weak<Bitcask>>> = Mutex::new(Vec::new());

thread_local! {
    /// Whether this thread is in the subscriber.
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

struct Witness;

/// Uses all stores in every way that takes their locks.
fn use_stores() {
    if IS_INSIDE.replace(true) {
        return;
    }
    let stores: Vec<_> = locked(&STORES).iter().filter_map(Weak::upgrade).collect();
    for db in stores {
        // The store may be poisoned or full of such writes; neither matters here.
        let _ = db.put_opt("of the subscriber", "x", WriteOptions::new());
        let _ = (db.get("of the subscriber"), db.stats(), db.counters(), db.snapshot());
        let _ = (db.range(..).next(), db.sync(), db.delete("of the subscriber"));
    }
    IS_INSIDE.set(false);
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Witness {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() != "bitcask" {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let scope = context.event_scope(event).into_iter().flatten();
        let mut spans: Vec<_> = scope.map(|span| span.name()).collect();
        spans.reverse();
        locked(&SEEN).push(Seen { fields: fields.0, spans });
        use_stores();
    }

    fn on_new_span(&self, _: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        use_stores();
    }

    fn on_exit(&self, _: &Id, _: Context<'_, S>) {
        use_stores();
    }
}

/// Installs the subscriber, and returns a directory.
fn begin() -> (TempDir, PathBuf) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| tracing_subscriber::registry().with(Witness).init());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    (dir, path)
}

/// Returns what has been seen of a store by now.
fn seen(path: &Path, event: &str) -> Vec<Seen> {
    let path = path.display().to_string();
    let is_one = |seen: &&Seen| {
        seen.fields["event"] == event && seen.fields.get("path").is_some_and(|it| *it == path)
    };
    locked(&SEEN).iter().filter(is_one).cloned().collect()
}

/// Waits for an event that a background thread reports.
fn wait_for(path: &Path, event: &str) -> Seen {
    loop {
        if let Some(seen) = seen(path, event).into_iter().next() {
            return seen;
        }
        yield_now();
    }
}

fn number(seen: &Seen, field: &str) -> f64 {
    seen.fields[field].parse().unwrap()
}

fn small() -> Options {
    let options = Options::new().segment_size(64 << 10).sync_policy(SyncPolicy::Never);
    options.merge_policy(MergePolicy::Manual)
}

fn fill(db: &Bitcask) {
    for number in 0..300_u32 {
        db.put((number % 50).to_be_bytes(), [7; 1000]).unwrap();
    }
}

#[test]
fn the_life_of_a_store_is_reported_and_the_subscriber_may_use_it() {
    let (_dir, path) = begin();
    let db = Arc::new(Bitcask::open(&path, small()).unwrap());
    locked(&STORES).push(Arc::downgrade(&db));
    fill(&db);
    let (rotated, sealed) = (wait_for(&path, "rotated"), wait_for(&path, "sealed"));
    assert_eq!(rotated.fields["segment"], sealed.fields["segment"]);
    assert_eq!(rotated.fields["entries"], sealed.fields["entries"]);
    assert!(number(&rotated, "next") > number(&rotated, "segment"));
    assert!(number(&sealed, "size") > 50_000.0 && number(&sealed, "duration_ms") > 0.0);
    assert_eq!(sealed.spans.last(), Some(&"seal"));

    db.put("key", "value").unwrap();
    db.sync().unwrap();
    let synced = wait_for(&path, "synced");
    assert!(number(&synced, "files") >= 1.0);
    assert_eq!(synced.spans.last(), Some(&"sync"));

    let report = db.merge_opt(MergeOptions::new().force(true)).unwrap();
    let merged = &seen(&path, "merged")[0];
    assert_eq!(merged.spans, ["merge"]);
    assert_eq!(merged.fields["segments_in"], report.segments_in.to_string());
    assert_eq!(merged.fields["size_out"], report.size_out.to_string());
    assert_eq!(merged.fields["cancelled"], "false");
    // A merge of nothing is not worth an event.
    db.merge_opt(MergeOptions::new().segments([])).unwrap();
    assert_eq!(seen(&path, "merged").len(), 1);

    db.clear().unwrap();
    assert_eq!(seen(&path, "cleared")[0].spans, ["clear"]);
    locked(&STORES).clear();
    while Arc::strong_count(&db) > 1 {
        yield_now();
    }
    Arc::into_inner(db).unwrap().close().unwrap();
    assert_eq!(seen(&path, "closed")[0].spans, ["close"]);
    ReadOnly::open(&path, Options::new()).unwrap().close().unwrap();
    let opened = seen(&path, "opened");
    let modes: Vec<_> = opened.iter().map(|opened| &*opened.fields["read_only"]).collect();
    assert_eq!(modes, ["false", "true"]);
    assert_eq!(opened[0].spans, ["open"]);
    assert!(seen(&path, "close_failed").is_empty());
}

/// Copies a store as a kill would leave it, with bytes after the end of its log.
fn torn_copy(db: &Reader) -> (TempDir, PathBuf) {
    let (dir, path) = begin();
    for entry in fs::read_dir(db.path()).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
    }
    let is_log = |path: &PathBuf| path.extension().is_some_and(|found| found == "log");
    let files = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
    let last = files.filter(is_log).max().unwrap();
    OpenOptions::new().append(true).open(last).unwrap().write_all(b"torn").unwrap();
    (dir, path)
}

#[test]
fn a_recovery_reports_what_it_has_found_and_cut() {
    let (_dir, path) = begin();
    let db = Bitcask::open(&path, small()).unwrap();
    db.put("key", "value").unwrap();
    let (_torn, torn) = torn_copy(&db);
    let recovered = Bitcask::open(&torn, small()).unwrap();
    let report = recovered.recovery();
    let cut = &seen(&torn, "cut")[0];
    assert_eq!(cut.spans, ["open", "recovery"]);
    assert_eq!(cut.fields["file"], report.cuts[0].path.display().to_string());
    assert_eq!(cut.fields["offset"], report.cuts[0].offset.to_string());
    assert_eq!(cut.fields["reason"], report.cuts[0].reason);
    let quarantine = report.cuts[0].quarantine.as_ref().unwrap();
    assert_eq!(cut.fields["quarantine"], quarantine.display().to_string());
    let seen = &seen(&torn, "recovered")[0];
    assert_eq!((number(seen, "segments"), number(seen, "entries")), (1.0, 1.0));
    recovered.close().unwrap();
}

#[test]
fn poison_is_reported_once_and_a_close_that_fails_too() {
    let (_dir, path) = begin();
    let db = Bitcask::open(&path, small()).unwrap();
    db.put("key", "value").unwrap();
    // The directory no longer belongs to the store.
    fs::remove_file(path.join("LOCK")).unwrap();
    assert!(db.sync().is_err());
    let poisoned = wait_for(&path, "poisoned");
    assert!(poisoned.fields["error"].contains("LOCK"), "{poisoned:?}");
    assert!(db.put("key", "value").is_err_and(|error| error.is_poisoned()));
    assert!(db.sync().is_err());
    // Dropping it returns no error.
    drop(db);
    assert_eq!(seen(&path, "close_failed").len(), 1);
    assert_eq!(seen(&path, "poisoned").len(), 1);
    assert!(seen(&path, "closed").is_empty() && seen(&path, "seal_failed").is_empty());
}
