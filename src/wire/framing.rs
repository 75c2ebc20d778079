//! Finds where a command ends, a step at a time, with the limits and the error texts of Redis.
//!
//! - The state is an offset and the number of arguments that are still missing. So bytes that
//!   arrive one by one are looked at once each, and not from the start of the command again.
//! - Nothing is decoded and nothing is copied here.

use std::borrow::Cow;

use super::{FrameLimits, LINE_SIZE_MAX, ProtocolError, parse_integer};

/// Where in a command the scan is. All offsets count from the start of the command.
#[derive(Debug, Default)]
pub(super) struct Framing {
    /// The end of what is understood: a header or an argument begins here.
    at: usize,
    /// The end of the part of the current line that has no end of line in it.
    searched: usize,
    /// Number of arguments that are missing; `None` at the start of a command.
    left: Option<i64>,
    /// The end of the argument that is arriving, with its end of line.
    wanted: usize,
}

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FramingStep {
    /// Not a command yet.
    Incomplete,
    /// An array without arguments, of this size, which asks for nothing.
    Empty(usize),
    /// A line of text, of this size.
    Inline(usize),
    /// An array of bulk strings, of this size.
    Command(usize),
}

impl Framing {
    /// Returns how many bytes of the current argument are known to be missing.
    pub(super) fn missing(&self, size: usize) -> usize {
        self.wanted.saturating_sub(size)
    }

    /// Goes on with everything that has arrived of a command. The state is that of the next command
    /// once the end of this one has been found.
    pub(super) fn step(
        &mut self,
        buffer: &[u8],
        limits: FrameLimits,
    ) -> Result<FramingStep, ProtocolError> {
        let left = match (self.left, buffer.first()) {
            (_, None) => return Ok(FramingStep::Incomplete),
            (Some(left), _) => left,
            (None, Some(b'*')) => match self.begin(buffer, limits)? {
                Some(left) => left,
                None => return Ok(FramingStep::Incomplete),
            },
            (None, Some(_)) => return self.inline(buffer),
        };
        if left <= 0 {
            let size = std::mem::take(self).at;
            return Ok(FramingStep::Empty(size));
        }
        self.arguments(buffer, left, limits)
    }

    /// Reads the header of an array. Returns the number of its arguments.
    fn begin(&mut self, buffer: &[u8], limits: FrameLimits) -> Result<Option<i64>, ProtocolError> {
        let Some(line) = self.line(buffer, "too big mbulk count string")? else {
            return Ok(None);
        };
        let count = line.get(1..).and_then(parse_integer);
        let count = count.filter(|count| *count <= i64::from(i32::MAX));
        let Some(count) = count else {
            return Err(ProtocolError::new("invalid multibulk length"));
        };
        if count > limits.arguments {
            let text = if limits.is_stranger {
                "unauthenticated multibulk length"
            } else {
                "invalid multibulk length"
            };
            return Err(ProtocolError::new(text));
        }
        self.left = Some(count);
        Ok(Some(count))
    }

    fn arguments(
        &mut self,
        buffer: &[u8],
        mut left: i64,
        limits: FrameLimits,
    ) -> Result<FramingStep, ProtocolError> {
        loop {
            if self.wanted > buffer.len() {
                return Ok(FramingStep::Incomplete);
            }
            if self.wanted > 0 {
                (self.at, self.searched, self.wanted) = (self.wanted, self.wanted, 0);
                left -= 1;
                self.left = Some(left);
            }
            if left == 0 {
                let size = std::mem::take(self).at;
                return Ok(FramingStep::Command(size));
            }
            if !self.argument(buffer, limits)? {
                return Ok(FramingStep::Incomplete);
            }
        }
    }

    /// Reads the header of an argument, and notes where the argument ends. Returns whether the
    /// header is there.
    fn argument(&mut self, buffer: &[u8], limits: FrameLimits) -> Result<bool, ProtocolError> {
        if let Some(first) = buffer.get(self.at)
            && *first != b'$'
        {
            let shown = if first.is_ascii_graphic() || *first == b' ' { *first } else { b'?' };
            let text = format!("expected '$', got '{}'", char::from(shown));
            return Err(ProtocolError(Cow::Owned(text)));
        }
        let Some(line) = self.line(buffer, "too big bulk count string")? else {
            return Ok(false);
        };
        let size = line.get(1..).and_then(parse_integer).filter(|size| *size >= 0);
        let Some(size) = size else { return Err(ProtocolError::new("invalid bulk length")) };
        if size > limits.argument_size {
            let text = if limits.is_stranger {
                "unauthenticated bulk length"
            } else {
                "invalid bulk length"
            };
            return Err(ProtocolError::new(text));
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        self.wanted = self.at.saturating_add(size).saturating_add(2);
        Ok(true)
    }

    /// Returns the line that begins at `at`, without its end, and moves `at` behind it.
    fn line<'b>(
        &mut self,
        buffer: &'b [u8],
        too_long: &'static str,
    ) -> Result<Option<&'b [u8]>, ProtocolError> {
        let rest = buffer.get(self.searched..).unwrap_or_default();
        let found = rest.iter().position(|byte| *byte == b'\r').map(|found| self.searched + found);
        let Some(end) = found.filter(|end| end + 1 < buffer.len()) else {
            self.searched = found.unwrap_or(buffer.len());
            if self.searched - self.at > LINE_SIZE_MAX {
                return Err(ProtocolError::new(too_long));
            }
            return Ok(None);
        };
        if buffer.get(end + 1) != Some(&b'\n') {
            return Err(ProtocolError::new("expected a line feed after a carriage return"));
        }
        if end - self.at > LINE_SIZE_MAX {
            return Err(ProtocolError::new(too_long));
        }
        let line = buffer.get(self.at..end);
        (self.at, self.searched) = (end + 2, end + 2);
        Ok(line)
    }

    /// Finds the end of an inline command.
    fn inline(&mut self, buffer: &[u8]) -> Result<FramingStep, ProtocolError> {
        let rest = buffer.get(self.searched..).unwrap_or_default();
        let found = rest.iter().position(|byte| *byte == b'\n').map(|found| self.searched + found);
        if found.unwrap_or(buffer.len()) > LINE_SIZE_MAX {
            return Err(ProtocolError::new("too big inline request"));
        }
        let Some(end) = found else {
            self.searched = buffer.len();
            return Ok(FramingStep::Incomplete);
        };
        *self = Self::default();
        Ok(FramingStep::Inline(end + 1))
    }
}
