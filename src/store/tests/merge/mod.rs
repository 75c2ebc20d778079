//! Tests of merges.

pub(crate) mod basics;
pub(crate) mod concurrent;
pub(crate) mod control;
pub(crate) mod expired;
pub(crate) mod faults;
pub(crate) mod fold;
pub(crate) mod ordered;
pub(crate) mod regressions;
pub(crate) mod rules;
