//! What a store reports while it works: spans and events, with the feature `tracing`.
//!
//! - `emit` reports them, and `silent` has the same names without the feature: its types are empty
//!   and its functions do nothing.
//! - Nothing here is on the path of a get or a put. Slow ones are noticed where a sample of them is
//!   timed anyway, see `counters`.
//! - A subscriber is code of the program, which may use the store. So no lock is held while it
//!   runs, with the exception of the turn to merge. What happens under a lock is
//!   [noted](Trace::note), and [reported](Trace::flush) later.
//! - No event shows a key or a value. The document `docs/observability.md` lists all of them; a
//!   test compares.

#[cfg(feature = "tracing")]
mod emit;
#[cfg(not(feature = "tracing"))]
mod silent;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::stats::MergeReport;

#[cfg(feature = "tracing")]
pub(crate) use emit::{Trace, slow};
#[cfg(not(feature = "tracing"))]
pub(crate) use silent::{Trace, slow};

/// A stretch of work, which has a span.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stage {
    Open,
    Recovery,
    Seal,
    Sync,
    Merge,
    Clear,
    Close,
}

/// Something that has happened. A duration is that of the whole stage.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "nothing is reported"))]
pub(crate) enum Event<'a> {
    Opened { segments: u64, read_only: bool, took: Duration },
    Recovered { segments: u64, entries: u64, rebuilt_hints: u64, leftovers: u64, took: Duration },
    Cut { file: &'a Path, offset: u64, size: u64, reason: &'a str, quarantine: Option<&'a Path> },
    Rotated { segment: u32, next: u32, size: u64, entries: u64 },
    Sealed { segment: u32, size: u64, entries: u64, took: Duration },
    SealFailed { error: &'a Error },
    Synced { files: u64, took: Duration },
    Merged { report: &'a MergeReport },
    MergeFailed { error: &'a Error, took: Duration },
    Cleared { took: Duration },
    Closed { took: Duration },
    CloseFailed { error: &'a Error, took: Duration },
    Poisoned { cause: Arc<Error> },
}
