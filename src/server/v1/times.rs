//! Times and durations in JSON and in headers.

use std::time::{Duration, SystemTime};

use crate::server::failure::ApiFailure;

/// Latest time that can be written as text: the end of the year 9999, in seconds.
const LAST: u64 = 253_402_300_799;

/// Writes a time of day, in UTC, to the microsecond.
pub(super) fn shown(time: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(LAST);
    humantime::format_rfc3339_micros(time.clamp(SystemTime::UNIX_EPOCH, last)).to_string()
}

/// Reads a time of day, in UTC.
pub(super) fn read(text: &str) -> Result<SystemTime, ApiFailure> {
    humantime::parse_rfc3339_weak(text.trim()).map_err(|_| {
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
    fn a_time_that_was_written_is_read_again() {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001);
        assert_eq!(read(&shown(moment)).unwrap(), moment);
        let late = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(shown(late), "9999-12-31T23:59:59.000000Z");
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
