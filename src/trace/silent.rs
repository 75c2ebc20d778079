//! Reports nothing. The twin of `emit`.

#![expect(clippy::unused_self, reason = "the twin uses it")]

use std::path::Path;
use std::time::Duration;

use super::{Event, Stage};

/// Where a store reports to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace;

/// A stage in progress.
#[derive(Debug)]
pub(crate) struct StageSpan;

impl Trace {
    pub(crate) fn of(_path: &Path) -> Self {
        Self
    }

    #[inline]
    pub(crate) fn enter(&self, _stage: Stage) -> StageSpan {
        StageSpan
    }

    #[inline]
    pub(crate) fn enter_if(&self, _stage: Stage, _is_needed: impl FnOnce() -> bool) -> StageSpan {
        StageSpan
    }

    #[inline]
    pub(crate) fn report(&self, _event: Event<'_>) {}

    #[inline]
    pub(crate) fn note(&self, _event: Event<'static>) {}

    #[inline]
    pub(crate) fn has_notes(&self) -> bool {
        false
    }

    #[inline]
    pub(crate) fn flush(&self) {}
}

impl StageSpan {
    #[inline]
    pub(crate) fn took(&self) -> Duration {
        Duration::ZERO
    }
}

#[inline]
pub(crate) fn slow(_operation: &'static str, _took: Duration) {}
