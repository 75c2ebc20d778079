//! Numbers as Redis reads and writes them.
//!
//! - Sums of decimal fractions are exact up to 17 places behind the point, as people expect them:
//!   0.1 + 0.2 is 0.3. From 21 digits in front of it on, they are those of an `f64`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Number of decimal places of a sum.
const PLACES: usize = 17;
/// `10^PLACES`.
const SCALE: i128 = 100_000_000_000_000_000;
/// Numbers of at least this size are summed as `f64`.
const EXACT_BELOW: f64 = 1e20;

/// Returns the time of day in milliseconds since the epoch.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Returns a time of day in milliseconds since the epoch.
pub(super) fn to_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Returns the time of day of a number of milliseconds since the epoch. One before the epoch is the
/// epoch.
pub(super) fn from_ms(ms: i64) -> SystemTime {
    let since = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH + Duration::from_secs(1 << 43))
}

/// Returns a duration in milliseconds, rounded up: a key that exists has time left.
pub(super) fn ceil_ms(left: Duration) -> i64 {
    i64::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i64::MAX)
}

/// Parses a finite or infinite number. Spaces, and what is not a number, are refused.
pub(super) fn parse_float(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let is_ours = |char: char| char.is_ascii_alphanumeric() || ".+-".contains(char);
    if text.is_empty() || !text.chars().all(is_ours) {
        return None;
    }
    text.parse::<f64>().ok().filter(|number| !number.is_nan())
}

/// Returns a decimal number, times `SCALE`, if it is small enough to be exact.
fn fixed(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?.to_ascii_lowercase();
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&*text, "0"));
    let (is_negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    // What is no number here is far below all of them, or far above.
    let tiny = exponent.starts_with('-').then_some(i64::MIN);
    let exponent = exponent.parse::<i64>().ok().or(tiny)?;
    // The number is `digits * 10^shift / SCALE`.
    let places = i64::try_from(fraction.len()).ok()?;
    let shift = exponent.saturating_sub(places).saturating_add(i64::try_from(PLACES).ok()?);
    let kept = i64::try_from(digits.len()).ok()?.saturating_add(shift);
    let number = if shift >= 0 {
        let digits: i128 = digits.parse().ok()?;
        digits.checked_mul(10_i128.checked_pow(u32::try_from(shift).ok()?)?)?
    } else if kept <= 0 {
        0
    } else {
        digits.get(..usize::try_from(kept).ok()?)?.parse().ok()?
    };
    Some(if is_negative { -number } else { number })
}

/// Adds two decimal numbers. Returns the sum as Redis prints it, or `None` if it is not finite.
pub(super) fn add_decimals(left: &[u8], right: &[u8]) -> Option<String> {
    let sum = parse_float(left)? + parse_float(right)?;
    if !sum.is_finite() {
        return None;
    }
    let exact = if sum.abs() < EXACT_BELOW { fixed(left).zip(fixed(right)) } else { None };
    Some(match exact.and_then(|(left, right)| left.checked_add(right)) {
        Some(sum) => {
            let sign = if sum < 0 { "-" } else { "" };
            let (whole, fraction) = (sum.abs() / SCALE, sum.abs() % SCALE);
            trimmed(&format!("{sign}{whole}.{fraction:017}"))
        }
        None if sum.abs() < EXACT_BELOW => trimmed(&format!("{sum:.PLACES$}")),
        None => trimmed(&format!("{sum:.1}")),
    })
}

/// Removes zeros behind the last digit behind the point.
fn trimmed(text: &str) -> String {
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(left: &str, right: &str) -> Option<String> {
        add_decimals(left.as_bytes(), right.as_bytes())
    }

    #[test]
    fn sums_of_decimals_are_exact() {
        assert_eq!(sum("0.1", "0.2").as_deref(), Some("0.3"));
        assert_eq!(sum("1", "-1.1").as_deref(), Some("-0.1"));
        assert_eq!(sum("3", "1.1").as_deref(), Some("4.1"));
        assert_eq!(sum("5.0e3", "2.0e2").as_deref(), Some("5200"));
        assert_eq!(sum("17179869184", "17179869184").as_deref(), Some("34359738368"));
        assert_eq!(sum("1.5", "-1.5").as_deref(), Some("0"));
        assert_eq!(sum("1e300", "1").as_deref().map(str::len), Some(301));
        assert_eq!(sum("1e308", "1.7e308"), None);
        assert_eq!(sum("inf", "1"), None);
        assert_eq!(sum(" 1", "1"), None);
        assert_eq!(sum("1.", ".5").as_deref(), Some("1.5"));
    }

    /// Such a sum was rounded to one decimal place, and stored.
    #[test]
    fn a_number_keeps_its_places_whatever_is_added() {
        for nothing in ["0e30", "-0.0e400", "1e-500", "1e-99999999999999999999", "0000e22", "1e-18"]
            .into_iter()
            .chain(["0e99999999999999999999"])
        {
            assert_eq!(sum("3.14159", nothing).as_deref(), Some("3.14159"), "{nothing}");
        }
        assert_eq!(
            sum("0000000000000000000000000000000000000000.15", "0").as_deref(),
            Some("0.15")
        );
        assert_eq!(
            sum("0.5", "00000000000000000000000000000000000000001e0").as_deref(),
            Some("1.5")
        );
        assert_eq!(sum("1e25", "-1e25").as_deref(), Some("0"));
    }

    #[test]
    fn times_are_rounded_so_that_a_living_key_has_time_left() {
        assert_eq!(ceil_ms(Duration::from_micros(1)), 1);
        assert_eq!(ceil_ms(Duration::from_secs(1)), 1000);
        assert_eq!(to_ms(from_ms(1_700_000_000_123)), 1_700_000_000_123);
        assert_eq!(to_ms(from_ms(-5)), 0);
    }
}
