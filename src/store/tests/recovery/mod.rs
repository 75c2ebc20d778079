//! Tests of opening: torn ends, damage, hints, and reading next to a writer.

pub(crate) mod closed;
pub(crate) mod concurrent;
pub(crate) mod corruption;
pub(crate) mod damage;
pub(crate) mod follower;
#[cfg(all(test, not(miri)))]
pub(crate) mod held;
pub(crate) mod housekeeping;
pub(crate) mod interrupted;
pub(crate) mod lazy;
pub(crate) mod marks;
pub(crate) mod next_segment;
pub(crate) mod open_attempt;
pub(crate) mod regressions;
pub(crate) mod sealing;
pub(crate) mod times;
pub(crate) mod torn;
