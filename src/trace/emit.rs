//! Reports to the subscriber that the program has installed.

use std::mem::take;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::span::EnteredSpan;
use tracing::{debug, debug_span, error, info, info_span, warn};

use super::{Event, Stage};
use crate::stats::MergeReport;
use crate::sync::Instant;

/// Minimum duration of an operation that is reported as slow, at the level `DEBUG`.
const SLOW: Duration = Duration::from_millis(10);
/// Minimum duration of one that is reported at the level `WARN`.
const VERY_SLOW: Duration = Duration::from_millis(100);
/// Maximum number of notes. Further ones are dropped until these are reported, which takes about a
/// second at most, unless the subscriber itself hangs.
const NOTES_MAX: usize = 1000;

/// Where a store reports to: the subscriber of the calling thread, with the store's path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace(Arc<Notes>);

#[derive(Debug, Default)]
struct Notes {
    path: PathBuf,
    /// Lock 9: what happened under a lock, oldest first.
    waiting: Mutex<Vec<Event<'static>>>,
}

/// A stage in progress, unless there is nothing to do.
#[derive(Debug)]
#[must_use = "the span ends when it is dropped"]
pub(crate) struct StageSpan(Option<(Instant, EnteredSpan)>);

impl Trace {
    pub(crate) fn of(path: &Path) -> Self {
        Self(Arc::new(Notes { path: path.into(), waiting: Mutex::default() }))
    }

    /// Enters the span of a stage, until the result is dropped. The caller holds no lock.
    pub(crate) fn enter(&self, stage: Stage) -> StageSpan {
        let path = self.0.path.display();
        let span = match stage {
            Stage::Open => info_span!(target: "bitcask", "open", %path),
            Stage::Recovery => info_span!(target: "bitcask", "recovery", %path),
            Stage::Seal => debug_span!(target: "bitcask", "seal", %path),
            Stage::Sync => debug_span!(target: "bitcask", "sync", %path),
            Stage::Merge => info_span!(target: "bitcask", "merge", %path),
            Stage::Clear => info_span!(target: "bitcask", "clear", %path),
            Stage::Close => info_span!(target: "bitcask", "close", %path),
        };
        StageSpan(Some((Instant::now(), span.entered())))
    }

    /// Enters the span of a stage if there is something to do, so that idle threads that look for
    /// work leave no spans. The caller holds no lock.
    pub(crate) fn enter_if(&self, stage: Stage, is_needed: impl FnOnce() -> bool) -> StageSpan {
        if is_needed() { self.enter(stage) } else { StageSpan(None) }
    }

    /// Reports an event. The caller holds no lock.
    #[cold]
    #[expect(clippy::needless_pass_by_value, reason = "callers need not name it")]
    pub(crate) fn report(&self, event: Event<'_>) {
        report(&self.0.path, &event);
    }

    /// Keeps an event until the next `flush`. The caller may hold locks.
    #[cold]
    pub(crate) fn note(&self, event: Event<'static>) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < NOTES_MAX {
            waiting.push(event);
        }
    }

    /// Returns whether an event waits for a `flush`.
    pub(crate) fn has_notes(&self) -> bool {
        !self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Reports the events that were noted. The caller holds no lock.
    pub(crate) fn flush(&self) {
        let waiting = take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for event in waiting {
            report(&self.0.path, &event);
        }
    }
}

impl StageSpan {
    /// Returns how long the stage has been taking.
    pub(crate) fn took(&self) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |(started, _)| started.elapsed())
    }
}

/// Reports an operation if it was slow. The caller holds no lock.
pub(crate) fn slow(operation: &'static str, took: Duration) {
    let duration_ms = millis(took);
    if took >= VERY_SLOW {
        warn!(target: "bitcask", event = "slow_operation", operation, duration_ms);
    } else if took >= SLOW {
        debug!(target: "bitcask", event = "slow_operation", operation, duration_ms);
    }
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

/// The name of the event comes first, then the store's path, then the fields of the event.
macro_rules! say {
    ($level:ident, $path:ident, $event:literal $(, $($field:tt)+)?) => {
        $level!(target: "bitcask", event = $event, path = %$path.display() $(, $($field)+)?)
    };
}

macro_rules! recovered {
    ($level:ident, $path:ident, $segments:expr, $entries:expr, $hints:expr, $rest:expr, $took:expr) => {
        say!(
            $level,
            $path,
            "recovered",
            segments = $segments,
            entries = $entries,
            rebuilt_hints = $hints,
            leftovers = $rest,
            duration_ms = millis($took)
        )
    };
}

fn report(path: &Path, event: &Event<'_>) {
    match *event {
        Event::Opened { segments, read_only, took } => {
            say!(info, path, "opened", segments, read_only, duration_ms = millis(took));
        }
        Event::Recovered { segments: 0, rebuilt_hints: 0, leftovers: 0, took, .. } => {
            recovered!(debug, path, 0_u64, 0_u64, 0_u64, 0_u64, took);
        }
        Event::Recovered { segments, entries, rebuilt_hints, leftovers, took } => {
            recovered!(info, path, segments, entries, rebuilt_hints, leftovers, took);
        }
        Event::Cut { file, offset, size, reason, quarantine } => {
            let quarantine = quarantine.map(|path| tracing::field::display(path.display()));
            let file = file.display();
            say!(warn, path, "cut", %file, offset, size, reason, quarantine);
        }
        Event::Rotated { segment, next, size, entries } => {
            say!(debug, path, "rotated", segment, next, size, entries);
        }
        Event::Sealed { segment, size, entries, took } => {
            say!(debug, path, "sealed", segment, size, entries, duration_ms = millis(took));
        }
        Event::SealFailed { error } => say!(warn, path, "seal_failed", %error),
        Event::Synced { files, took } => {
            say!(debug, path, "synced", files, duration_ms = millis(took));
            slow("sync", took);
        }
        Event::Merged { report } => merged(path, report),
        Event::MergeFailed { error, took } => {
            say!(warn, path, "merge_failed", %error, duration_ms = millis(took));
        }
        Event::Cleared { took } => say!(info, path, "cleared", duration_ms = millis(took)),
        Event::Closed { took } => say!(info, path, "closed", duration_ms = millis(took)),
        Event::CloseFailed { error, took } => {
            say!(error, path, "close_failed", %error, duration_ms = millis(took));
        }
        Event::Poisoned { ref cause } => say!(error, path, "poisoned", error = %cause),
    }
}

fn merged(path: &Path, report: &MergeReport) {
    let MergeReport { segments_in, segments_out, size_in, size_out, live_entries, .. } = *report;
    say!(
        info,
        path,
        "merged",
        segments_in,
        segments_out,
        size_in,
        size_out,
        live_entries,
        cancelled = report.cancelled,
        duration_ms = millis(report.duration)
    );
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::error::Error as StdError;
    use std::thread::sleep;

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id};
    use tracing::subscriber::with_default;
    use tracing::{Metadata, Subscriber};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt};

    use super::*;
    use crate::counters::Stripes;
    use crate::error::Error;

    /// An event or a span: its name, its level, and the names of its fields, without `event`.
    type Said = (String, String, BTreeSet<String>);

    #[derive(Clone, Default)]
    struct Listener(Arc<Mutex<Vec<Said>>>);

    struct Name(String);

    impl Visit for Name {
        fn record_str(&mut self, field: &Field, value: &str) {
            if field.name() == "event" {
                value.clone_into(&mut self.0);
            }
        }

        fn record_debug(&mut self, _field: &Field, _value: &dyn std::fmt::Debug) {}

        fn record_error(&mut self, _field: &Field, _value: &(dyn StdError + 'static)) {}
    }

    impl Listener {
        fn hear(&self, name: String, metadata: &Metadata<'_>) {
            assert_eq!(metadata.target(), "bitcask");
            let fields = metadata.fields().iter().map(|field| field.name().to_owned());
            let fields = fields.filter(|field| field != "event").collect();
            self.0.lock().unwrap().push((name, metadata.level().to_string(), fields));
        }

        /// Returns what is said while a closure runs.
        fn listen(run: impl FnOnce()) -> Vec<Said> {
            let listener = Self::default();
            with_default(tracing_subscriber::registry().with(listener.clone()), run);
            take(&mut listener.0.lock().unwrap())
        }
    }

    impl<S: Subscriber> Layer<S> for Listener {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            let mut name = Name(String::new());
            event.record(&mut name);
            self.hear(name.0, event.metadata());
        }

        fn on_new_span(&self, span: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
            self.hear(span.metadata().name().to_owned(), span.metadata());
        }
    }

    /// Returns the rows of a table in the document: names with the other columns.
    fn table(head: &str) -> BTreeMap<String, Vec<String>> {
        let text = include_str!("../../docs/observability.md");
        let (_, rows) = text.split_once(head).unwrap();
        let rows = rows.lines().skip(1).take_while(|line| line.starts_with('|'));
        let cell = |cell: &str| cell.trim().replace('`', "");
        let rows = rows.map(|row| row.trim_matches('|').split('|').map(cell).collect::<Vec<_>>());
        rows.map(|row| (row[0].clone(), row)).collect()
    }

    /// Checks that the document lists exactly what is said.
    fn is_documented(said: &[Said], table: &BTreeMap<String, Vec<String>>) {
        let names: BTreeSet<_> = said.iter().map(|(name, ..)| name).collect();
        assert_eq!(names, table.keys().collect());
        for (name, level, fields) in said {
            let row = &table[name];
            assert!(row[1].split(" or ").any(|word| word == level), "{name} {level}");
            let listed: BTreeSet<_> = row[2].split(", ").map(str::to_owned).collect();
            assert_eq!(*fields, listed, "{name}");
        }
    }

    /// Returns one of each event, and two of those that have two levels.
    fn events<'a>(error: &'a Error, report: &'a MergeReport) -> Vec<Event<'a>> {
        let took = Duration::from_millis(1);
        let recovered = |segments| {
            let (entries, rebuilt_hints, leftovers) = (1, 0, 0);
            Event::Recovered { segments, entries, rebuilt_hints, leftovers, took }
        };
        let (file, quarantine) = (Path::new("1.log"), Some(Path::new("1")));
        vec![
            Event::Opened { segments: 1, read_only: true, took },
            recovered(0),
            recovered(1),
            Event::Cut { file, offset: 64, size: 8, reason: "torn", quarantine },
            Event::Rotated { segment: 1, next: 2, size: 64, entries: 1 },
            Event::Sealed { segment: 1, size: 64, entries: 1, took },
            Event::SealFailed { error },
            Event::Synced { files: 1, took: VERY_SLOW },
            Event::Synced { files: 1, took: SLOW },
            Event::Merged { report },
            Event::MergeFailed { error, took },
            Event::Cleared { took },
            Event::Closed { took },
            Event::CloseFailed { error, took },
            Event::Poisoned { cause: Arc::new(Error::ReadOnly) },
        ]
    }

    #[test]
    fn the_document_lists_every_event() {
        let (error, report) = (Error::ReadOnly, MergeReport::default());
        let said = Listener::listen(|| {
            let trace = Trace::of(Path::new("/store"));
            for event in events(&error, &report) {
                trace.report(event);
            }
        });
        is_documented(&said, &table("| event | level | fields | when |\n"));
    }

    #[test]
    fn the_document_lists_every_span() {
        let said = Listener::listen(|| {
            let trace = Trace::of(Path::new("/store"));
            let stages = [Stage::Open, Stage::Recovery, Stage::Seal, Stage::Sync, Stage::Merge];
            for stage in stages.into_iter().chain([Stage::Clear, Stage::Close]) {
                assert!(trace.enter(stage).took() < Duration::MAX);
            }
            assert_eq!(trace.enter_if(Stage::Seal, || false).took(), Duration::ZERO);
        });
        assert_eq!(said.len(), 7);
        is_documented(&said, &table("| span | level | fields | what it covers |\n"));
    }

    #[test]
    fn an_operation_is_slow_from_ten_milliseconds_on() {
        let levels = |took| {
            let said = Listener::listen(|| slow("get", took));
            said.into_iter().map(|(_, level, _)| level).collect::<String>()
        };
        let below = |limit: Duration| limit.checked_sub(Duration::from_nanos(1)).unwrap();
        assert_eq!(levels(below(SLOW)), "");
        assert_eq!(levels(SLOW), "DEBUG");
        assert_eq!(levels(below(VERY_SLOW)), "DEBUG");
        assert_eq!(levels(VERY_SLOW), "WARN");
    }

    #[test]
    fn slow_operations_are_noticed_among_those_that_are_timed() {
        let stripes = Stripes::default();
        let stripe = stripes.claim().unwrap();
        for _ in 0..128 {
            stripe.write().end();
            stripe.read().miss();
        }
        let (write, read) = (stripe.write(), stripe.read());
        sleep(SLOW);
        let said = Listener::listen(|| {
            write.end();
            read.hit(0);
            stripe.write().end();
        });
        let names: Vec<_> = said.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["slow_operation"; 2]);
    }

    #[test]
    fn notes_are_reported_once_in_order_and_not_without_limit() {
        let trace = Trace::of(Path::new("/store"));
        let rotated = |segment| Event::Rotated { segment, next: segment + 1, size: 64, entries: 1 };
        let said = Listener::listen(|| {
            assert!(!trace.has_notes());
            trace.note(rotated(1));
            trace.clone().note(Event::Poisoned { cause: Arc::new(Error::ReadOnly) });
            assert!(trace.has_notes());
        });
        assert!(said.is_empty());
        let names = |said: Vec<Said>| said.into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
        assert_eq!(names(Listener::listen(|| trace.flush())), ["rotated", "poisoned"]);
        assert!(Listener::listen(|| trace.flush()).is_empty());
        (0..5000).for_each(|segment| trace.note(rotated(segment)));
        assert_eq!(Listener::listen(|| trace.flush()).len(), NOTES_MAX);
    }
}
