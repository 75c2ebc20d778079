//! Splits an inline command into arguments: words, and strings in quotes.
//!
//! - In double quotes, a backslash escapes: `\n`, `\r`, `\t`, `\b`, `\a`, `\xHH`, and any other
//!   character, which then stands for itself.
//! - In single quotes, only `\'` is an escape.
//! - A string in quotes ends an argument.

use bytes::Bytes;

use super::ProtocolError;

/// Splits a line into arguments.
pub(super) fn split(line: &[u8]) -> Result<Vec<Bytes>, ProtocolError> {
    let mut arguments = Vec::new();
    let mut rest = line.trim_ascii();
    while !rest.is_empty() {
        let (argument, after) = take(rest)?;
        arguments.push(Bytes::from(argument));
        rest = after.trim_ascii_start();
    }
    Ok(arguments)
}

/// Takes the first argument. Returns it and what follows.
fn take(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), ProtocolError> {
    let mut argument = Vec::new();
    loop {
        match rest {
            [b'"', after @ ..] => {
                let after = double_quoted(after, &mut argument)?;
                return Ok((argument, after));
            }
            [b'\'', after @ ..] => {
                let after = single_quoted(after, &mut argument)?;
                return Ok((argument, after));
            }
            [byte, after @ ..] if !byte.is_ascii_whitespace() && *byte != 0 => {
                argument.push(*byte);
                rest = after;
            }
            // A zero byte ends the line, as it does in Redis.
            [0, ..] | [] => return Ok((argument, &[])),
            _ => return Ok((argument, rest)),
        }
    }
}

fn unbalanced() -> ProtocolError {
    ProtocolError::new("unbalanced quotes in request")
}

/// Returns what follows a closing quote, which has to be a space or nothing.
fn closed(after: &[u8]) -> Result<&[u8], ProtocolError> {
    match after.first() {
        Some(byte) if !byte.is_ascii_whitespace() => Err(unbalanced()),
        _ => Ok(after),
    }
}

fn double_quoted<'a>(
    mut rest: &'a [u8],
    argument: &mut Vec<u8>,
) -> Result<&'a [u8], ProtocolError> {
    loop {
        match rest {
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                argument.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            [b'\\', byte, after @ ..] => {
                argument.push(match byte {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = after;
            }
            [b'"', after @ ..] => return closed(after),
            [byte, after @ ..] => {
                argument.push(*byte);
                rest = after;
            }
            [] => return Err(unbalanced()),
        }
    }
}

fn single_quoted<'a>(
    mut rest: &'a [u8],
    argument: &mut Vec<u8>,
) -> Result<&'a [u8], ProtocolError> {
    loop {
        match rest {
            [b'\\', b'\'', after @ ..] => {
                argument.push(b'\'');
                rest = after;
            }
            [b'\'', after @ ..] => return closed(after),
            [byte, after @ ..] => {
                argument.push(*byte);
                rest = after;
            }
            [] => return Err(unbalanced()),
        }
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.saturating_sub(b'A').saturating_add(10),
    }
}
