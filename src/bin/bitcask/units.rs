//! Sizes, durations and times, as people write and read them.

use std::time::{Duration, SystemTime};

/// Reads a size in bytes: a whole number, perhaps with a unit.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err(SIZE.into()),
    };
    let number: u64 = number.parse().map_err(|_| SIZE.to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "the size is too large".into())
}

/// What a size looks like.
const SIZE: &str = "expected a size such as 4096, 64KiB or 128MiB";

/// Reads a duration: a number of seconds, or numbers with units.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| DURATION.into());
    }
    humantime::parse_duration(text).map_err(|_| DURATION.into())
}

/// What a duration looks like.
const DURATION: &str = "expected a duration such as 30s, 90 (seconds), 1h30m or 7days";

/// Reads a time of day, in UTC.
pub(crate) fn time(text: &str) -> Result<SystemTime, String> {
    humantime::parse_rfc3339_weak(text.trim())
        .map_err(|_| "expected a time in UTC such as 2030-01-31T12:00:00Z".into())
}

/// Writes a time of day, in UTC, to the microsecond.
pub(crate) fn show_time(time: SystemTime) -> String {
    // Years above 9999 cannot be written so.
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_micros(time.clamp(SystemTime::UNIX_EPOCH, last)).to_string()
}

/// Writes a size for people.
pub(crate) fn show_size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// Writes a duration for people, with at most three significant digits below a minute.
pub(crate) fn show_duration(duration: Duration) -> String {
    if duration >= Duration::from_secs(60) {
        let whole = Duration::from_secs(duration.as_secs());
        return humantime::format_duration(whole).to_string();
    }
    let seconds = duration.as_secs_f64();
    let (number, unit) = match duration.as_nanos() {
        0..1_000 => (seconds * 1e9, "ns"),
        1_000..1_000_000 => (seconds * 1e6, "us"),
        1_000_000..1_000_000_000 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    let digits = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.digits$} {unit}")
}

/// Writes a number of things.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Writes a share as a percentage.
pub(crate) fn show_share(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let read = |text| size(text).unwrap();
        assert_eq!([read("0"), read("17 B"), read("3k")], [0, 17, 3 << 10]);
        assert_eq!([read("10MiB"), read("10MB"), read("1g")], [10 << 20, 10_000_000, 1 << 30]);
        for text in ["", "MiB", "1.5M", "-1", "1T", "99999999999G", "1 0"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_seconds_or_have_units() {
        assert_eq!(duration("90").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("0.5").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("1h 30m").unwrap(), Duration::from_secs(5400));
        for text in ["", "-1", "soon", "NaN", "1e300", "5 parsecs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn figures_are_short() {
        let shown = |nanos| show_duration(Duration::from_nanos(nanos));
        assert_eq!([shown(950), shown(1_234), shown(45_600_000)], ["950 ns", "1.23 us", "45.6 ms"]);
        assert_eq!(shown(61_900_000_000), "1m 1s");
        assert_eq!(show_share(0.25), "25.0 %");
        let keys = |number| count(number, "key", "keys");
        assert_eq!([keys(0), keys(1), keys(2)], ["0 keys", "1 key", "2 keys"]);
    }

    #[test]
    fn a_time_that_was_written_is_read_again() {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001);
        assert_eq!(time(&show_time(moment)).unwrap(), moment);
        let late = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(show_time(late), "9999-12-31T23:59:59.000000Z");
    }
}
