//! Bytes as text: escaped for people, base64 for programs.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Returns bytes as base64.
pub(crate) fn encoded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Returns the bytes that base64 text stands for. White space does not count: other programs break
/// base64 into lines.
pub(crate) fn decoded(text: &[u8]) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(digits).map_err(|error| format!("invalid base64: {error}"))
}

/// Returns bytes as one line of text. What cannot be printed, and backslashes, are escaped.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    escape(bytes, |_| false)
}

/// The same, but line breaks and tabs stay.
pub(crate) fn escaped_lines(bytes: &[u8]) -> String {
    escape(bytes, |char| char == '\n' || char == '\t')
}

fn escape(bytes: &[u8], stays: impl Fn(char) -> bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                char if stays(char) => text.push(char),
                '\\' => text.push_str("\\\\"),
                char if char.is_ascii_control() => push_byte(&mut text, char as u32),
                char if is_invisible(char) => {
                    let _ = write!(text, "\\u{{{:x}}}", u32::from(char));
                }
                char => text.push(char),
            }
        }
        for byte in chunk.invalid() {
            push_byte(&mut text, u32::from(*byte));
        }
    }
    text
}

/// Appends the escape of a byte. Writing to a string cannot fail.
fn push_byte(text: &mut String, byte: u32) {
    match byte {
        0x09 => text.push_str("\\t"),
        0x0A => text.push_str("\\n"),
        0x0D => text.push_str("\\r"),
        byte => {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
}

/// Returns whether a character controls the terminal, or how the text around it looks.
fn is_invisible(char: char) -> bool {
    char.is_control()
        || matches!(
            u32::from(char),
            0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0xFEFF | 0xFFF9..=0xFFFB
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_printed_controls_the_terminal() {
        assert_eq!(escaped(b"a\\b\tc\n\x1b[31m\x7f\0"), r"a\\b\tc\n\x1b[31m\x7f\x00");
        assert_eq!(escaped(b"\xff\xc3\xa9\xc2\x9b"), "\\xff\u{e9}\\u{9b}");
        assert_eq!(escaped("a\u{202e}b".as_bytes()), r"a\u{202e}b");
        assert_eq!(escaped_lines(b"a\tb\n\x07"), "a\tb\n\\x07");
    }

    #[test]
    fn base64_is_read_as_it_is_written() {
        assert_eq!(decoded(encoded(b"\0\xff key").as_bytes()).unwrap(), b"\0\xff key");
        assert_eq!(decoded(b" AP8= \n").unwrap(), [0, 0xff]);
        assert_eq!(decoded(b"aGVs\r\nbG8=\r\n").unwrap(), b"hello");
        assert!(decoded(b"AP8").is_err() && decoded(b"a b").is_err());
    }
}
