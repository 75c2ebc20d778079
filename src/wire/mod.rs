//! Commands of the Redis protocol as they arrive: bytes in, arguments out.
//!
//! - [`Decoder`] holds what a client has sent. `framing` finds where a command ends, with the
//!   limits and the error texts of Redis, and never looks at a byte twice. The crate `resp-rs`
//!   decodes the command once all of it is there.
//! - Memory grows with what has arrived, never with what a client has announced.
//! - `inline` splits commands that a person types into a terminal.
//! - No socket, no store and no command is known here.

mod framing;
mod inline;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use bytes::{Bytes, BytesMut};
use resp_rs::resp2::{self, Frame};

use framing::{Framing, FramingStep};

/// Maximum size of a line: a header, or an inline command.
pub(crate) const LINE_SIZE_MAX: usize = 64 << 10;
/// Maximum number of arguments of a command.
const ARGUMENTS_MAX: i64 = 1 << 20;
/// Maximum number of arguments, and size of each, before a client has authenticated.
const STRANGER_ARGUMENTS_MAX: i64 = 10;
const STRANGER_ARGUMENT_SIZE_MAX: i64 = 16 << 10;
/// Capacity that is reserved for a read of a socket, the least and the most. It grows with what
/// arrives at once, so that a client that sends little or nothing takes little memory.
const READ_SIZE_MIN: usize = 1 << 10;
const READ_SIZE_USUAL_MAX: usize = 64 << 10;
/// Maximum capacity that is reserved for one read, however much of an argument is missing.
const READ_SIZE_MAX: usize = 1 << 20;

/// Why a client can't be understood. Its connection ends after the error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProtocolError(pub(crate) Cow<'static, str>);

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Protocol error: {}", self.0)
    }
}

impl ProtocolError {
    fn new(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

/// What is accepted from a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameLimits {
    arguments: i64,
    argument_size: i64,
    is_stranger: bool,
}

impl FrameLimits {
    /// Limits for a client that may do what it likes, with arguments of at most `argument_size`
    /// bytes.
    pub(crate) fn new(argument_size: u64) -> Self {
        let argument_size = i64::try_from(argument_size).unwrap_or(i64::MAX);
        Self { arguments: ARGUMENTS_MAX, argument_size, is_stranger: false }
    }

    /// Limits for a client that has not authenticated yet.
    pub(crate) fn stranger() -> Self {
        Self {
            arguments: STRANGER_ARGUMENTS_MAX,
            argument_size: STRANGER_ARGUMENT_SIZE_MAX,
            is_stranger: true,
        }
    }
}

/// What a client has sent, and how much of it has been understood.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: BytesMut,
    framing: Framing,
    /// Capacity for the next read, if it is more than the least.
    read_size: usize,
}

impl Decoder {
    /// Returns the buffer to append bytes to, with room for a read.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        let missing = self.framing.missing(self.buffer.len());
        let usual = self.read_size.max(READ_SIZE_MIN);
        if self.buffer.is_empty() && self.buffer.capacity() > 4 * usual {
            self.buffer = BytesMut::new();
        }
        if self.buffer.capacity() - self.buffer.len() < usual / 2 {
            // What is announced counts only once the client has shown that it sends as much.
            let is_fast = usual == READ_SIZE_USUAL_MAX;
            let wanted = if is_fast { missing.clamp(usual, READ_SIZE_MAX) } else { usual };
            self.buffer.reserve(wanted);
        }
        &mut self.buffer
    }

    /// Learns from the size of a read how much to expect of the next.
    pub(crate) fn note_read(&mut self, size: usize) {
        let usual = self.read_size.max(READ_SIZE_MIN);
        if size >= usual {
            self.read_size = (usual * 4).min(READ_SIZE_USUAL_MAX);
        } else if size < usual / 8 {
            self.read_size = usual / 2;
        }
    }

    /// Returns the number of bytes that have not been understood yet.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Returns the next command, or `None` if it has not arrived completely. A command has at least
    /// one argument, its name.
    pub(crate) fn next(
        &mut self,
        limits: FrameLimits,
    ) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        loop {
            match self.framing.step(&self.buffer, limits)? {
                FramingStep::Incomplete => return Ok(None),
                FramingStep::Empty(size) => drop(self.buffer.split_to(size)),
                FramingStep::Inline(size) => {
                    let line = self.buffer.split_to(size);
                    let arguments = inline::split(&line)?;
                    if !arguments.is_empty() {
                        return Ok(Some(arguments));
                    }
                }
                FramingStep::Command(size) => {
                    return decode(self.buffer.split_to(size).freeze()).map(Some);
                }
            }
        }
    }
}

/// Decodes an array of bulk strings that `framing` has found to be complete.
fn decode(command: Bytes) -> Result<Vec<Bytes>, ProtocolError> {
    let wrong = |_| ProtocolError::new("expected CRLF after a bulk string");
    let (frame, rest) = resp2::parse_frame(command).map_err(wrong)?;
    let Frame::Array(Some(items)) = frame else {
        return Err(ProtocolError::new("expected an array of bulk strings"));
    };
    let argument = |item: Frame| match item {
        Frame::BulkString(Some(argument)) => Ok(argument),
        _ => Err(ProtocolError::new("expected an array of bulk strings")),
    };
    if !rest.is_empty() {
        return Err(ProtocolError::new("invalid multibulk length"));
    }
    items.into_iter().map(argument).collect()
}

/// Parses an integer in its only valid form: no plus sign, no leading zero, no space.
pub(crate) fn parse_integer(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] => return (!is_negative).then_some(0),
        [] | [b'0', ..] => return None,
        _ => {}
    }
    let mut number = 0_i64;
    for digit in digits {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number = number.checked_mul(10)?;
        let digit = i64::from(digit);
        let next = if is_negative { number.checked_sub(digit) } else { number.checked_add(digit) };
        number = next?;
    }
    Some(number)
}
