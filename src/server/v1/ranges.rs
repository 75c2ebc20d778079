//! Parts of values: the header `Range`.

use std::ops::Range as ByteRange;

/// What a request wants of a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WantedPart {
    Whole,
    /// These bytes, which are not empty and lie within the value.
    Bytes(ByteRange<usize>),
    /// Bytes behind the end of the value.
    Unsatisfiable,
}

/// Reads the header, for a value of this size. A range that is not understood counts as none, and
/// so do several ranges: the answer then is the whole value, which is always allowed.
pub(super) fn wanted(header: Option<&str>, size: usize) -> WantedPart {
    let Some(range) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else {
        return WantedPart::Whole;
    };
    let Some((first, last)) = range.trim().split_once('-') else { return WantedPart::Whole };
    let (first, last) = (first.trim(), last.trim());
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // A number that is too large lies behind every end.
        is_number.then(|| text.parse::<usize>().unwrap_or(usize::MAX))
    };
    match (first, number(first), number(last)) {
        // The last bytes.
        ("", _, Some(0)) => WantedPart::Unsatisfiable,
        ("", _, Some(_)) if size == 0 => WantedPart::Unsatisfiable,
        ("", _, Some(count)) => WantedPart::Bytes(size.saturating_sub(count)..size),
        (_, Some(first), _) if last.is_empty() && first < size => WantedPart::Bytes(first..size),
        (_, Some(first), Some(last)) if first <= last && first < size => {
            WantedPart::Bytes(first..last.saturating_add(1).min(size))
        }
        (_, Some(first), Some(last)) if first > last => WantedPart::Whole,
        (_, Some(_), Some(_)) => WantedPart::Unsatisfiable,
        (_, Some(_), None) if last.is_empty() => WantedPart::Unsatisfiable,
        _ => WantedPart::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_bytes_is_understood() {
        let part = |text: &str| match wanted(Some(text), 10) {
            WantedPart::Whole => "whole".to_owned(),
            WantedPart::Unsatisfiable => "416".to_owned(),
            WantedPart::Bytes(bytes) => format!("{bytes:?}"),
        };
        assert_eq!(["bytes=0-0", "bytes=2-4", "bytes=8-99"].map(part), ["0..1", "2..5", "8..10"]);
        assert_eq!(["bytes=9-", "bytes=-3", "bytes=-99"].map(part), ["9..10", "7..10", "0..10"]);
        let behind = ["bytes=10-", "bytes=10-12", "bytes=-0", "bytes=99999999999999999999-"];
        assert_eq!(behind.map(part), ["416"; 4]);
        let other = ["bytes=4-2", "bytes=0-1,3-4", "items=0-1", "bytes=x-1", "bytes=", "bytes=-"];
        assert_eq!(other.map(part), ["whole"; 6]);
        assert_eq!(wanted(None, 10), WantedPart::Whole);
        assert_eq!(wanted(Some("bytes=-1"), 0), WantedPart::Unsatisfiable);
        assert_eq!(wanted(Some("bytes=0-"), 0), WantedPart::Unsatisfiable);
    }
}
