//! The lines that `MONITOR` shows.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

/// Maximum size of an argument that is shown.
const ARGUMENT_SIZE_MAX: usize = 1 << 10;

/// Size of a line to which no further argument is added.
const LINE_SIZE_MAX: usize = 64 << 10;

/// Returns the line for a command.
pub(super) fn monitor_line(args: &[Bytes], database: usize, address: &str) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, micros) = (since.as_secs(), since.subsec_micros());
    let mut line = format!("{seconds}.{micros:06} [{database} {address}]");
    for (at, arg) in args.iter().enumerate() {
        if line.len() >= LINE_SIZE_MAX {
            let _ = write!(line, " ... ({} more arguments)", args.len() - at);
            break;
        }
        line.push_str(" \"");
        for byte in arg.iter().take(ARGUMENT_SIZE_MAX) {
            match byte {
                b'\\' => line.push_str("\\\\"),
                b'"' => line.push_str("\\\""),
                b'\n' => line.push_str("\\n"),
                b'\r' => line.push_str("\\r"),
                b'\t' => line.push_str("\\t"),
                7 => line.push_str("\\a"),
                8 => line.push_str("\\b"),
                b' '..=b'~' => line.push(char::from(*byte)),
                byte => {
                    let _ = write!(line, "\\x{byte:02x}");
                }
            }
        }
        line.push('"');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut() {
        let args = vec![Bytes::from(vec![255; 5000]); 100_000];
        let line = monitor_line(&args, 0, "127.0.0.1:9");
        assert!(line.len() < 100_000 && line.ends_with(" more arguments)"), "{}", line.len());
    }

    #[test]
    fn arguments_are_quoted() {
        let args = [Bytes::from_static(b"set"), Bytes::from_static(b"a\"\\\r\n\xff")];
        let line = monitor_line(&args, 3, "127.0.0.1:9");
        assert!(line.ends_with(r#" [3 127.0.0.1:9] "set" "a\"\\\r\n\xff""#), "{line}");
    }
}
