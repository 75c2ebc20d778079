//! Times and durations in JSON and in headers.

use std::time::{Duration, SystemTime};

use crate::dialect;
use crate::server::failure::ApiFailure;

pub(super) use crate::dialect::time_shown as shown;

/// Reads a time of day, in UTC.
pub(super) fn read(text: &str) -> Result<SystemTime, ApiFailure> {
    dialect::time_read(text).ok_or_else(|| {
        ApiFailure::invalid(format!("`{text}` is no time in UTC such as 2030-01-31T12:00:00Z"))
    })
}

/// Reads a number of seconds.
pub(super) fn seconds(number: f64) -> Result<Duration, ApiFailure> {
    Duration::try_from_secs_f64(number)
        .map_err(|error| ApiFailure::invalid(format!("a time to live of {number} s: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_time_is_refused() {
        assert_eq!(read("1970-01-01T00:00:00Z").unwrap(), SystemTime::UNIX_EPOCH);
        assert!(read("soon").is_err());
    }

    #[test]
    fn seconds_are_finite_and_not_negative() {
        assert_eq!(seconds(0.25).unwrap(), Duration::from_millis(250));
        for number in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(seconds(number).is_err(), "{number}");
        }
    }
}
