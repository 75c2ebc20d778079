//! What the server counts of its requests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;

use crate::counters::Recorder;
use crate::stats::Histogram;

/// The route of requests that have none.
const NO_ROUTE: &str = "none";

/// Counts of requests. A request counts when its answer begins.
#[derive(Debug, Default)]
pub(in super::super) struct RequestFigures {
    under_way: AtomicU64,
    latency: Recorder,
    /// Lock 9: the number of answers by route and status. There are only so many routes.
    answers: Mutex<BTreeMap<String, BTreeMap<u16, u64>>>,
}

/// What was counted.
#[derive(Debug)]
pub(in super::super) struct RequestTotals {
    pub(in super::super) requests: u64,
    pub(in super::super) under_way: u64,
    /// Answers with a status from 500.
    pub(in super::super) failures: u64,
    pub(in super::super) latency: Histogram,
    /// Number of answers by route and status.
    pub(in super::super) answers: BTreeMap<String, BTreeMap<u16, u64>>,
}

impl RequestFigures {
    /// Counts a request as under way until the result is dropped.
    pub(in super::super) fn begin(&self) -> RequestUnderWay<'_> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        RequestUnderWay(self)
    }

    pub(in super::super) fn totals(&self) -> RequestTotals {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let all = || answers.values().flatten();
        let mut latency = Histogram::default();
        self.latency.add_to(&mut latency);
        RequestTotals {
            requests: all().map(|(_, count)| count).sum(),
            under_way: self.under_way.load(Ordering::Relaxed),
            failures: all().filter(|(status, _)| **status >= 500).map(|(_, count)| count).sum(),
            latency,
            answers,
        }
    }
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(in super::super) struct RequestUnderWay<'a>(&'a RequestFigures);

impl RequestUnderWay<'_> {
    /// Counts the answer.
    pub(in super::super) fn end(self, route: Option<&str>, status: StatusCode, took: Duration) {
        self.0.latency.record(took);
        let route = route.unwrap_or(NO_ROUTE);
        let mut answers = self.0.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if !answers.contains_key(route) {
            answers.insert(route.to_owned(), BTreeMap::new());
        }
        if let Some(statuses) = answers.get_mut(route) {
            *statuses.entry(status.as_u16()).or_default() += 1;
        }
    }
}

impl Drop for RequestUnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_by_its_route_and_status() {
        let figures = RequestFigures::default();
        let took = Duration::from_millis(1);
        figures.begin().end(Some("/kv/{key}"), StatusCode::OK, took);
        figures.begin().end(Some("/kv/{key}"), StatusCode::OK, took);
        figures.begin().end(None, StatusCode::INTERNAL_SERVER_ERROR, took);
        let given_up = figures.begin();
        let totals = figures.totals();
        assert_eq!((totals.requests, totals.failures, totals.under_way), (3, 1, 1));
        assert_eq!(totals.answers["/kv/{key}"][&200], 2);
        assert_eq!(totals.latency.count(), 3);
        drop(given_up);
        assert_eq!(figures.totals().under_way, 0);
    }
}
