//! The replies that wait to be sent to one client.
//!
//! - Short strings are copied next to each other, so that many replies are one write. Large ones
//!   are lent until they are sent. Those that lie in a mapped segment take no memory.
//! - Once much waits, all but the shortest are lent. A command that asks for a million strings thus
//!   takes some hundred megabytes at most, however large the strings are.
//! - Strings that were decompressed or made are in memory. `reply_memory` limits how many of them a
//!   command or a transaction holds.

use std::io::IoSlice;

use crate::value::Value;

/// Minimum size of a string that is lent, in bytes. A copy of this size costs about as much as the
/// parts of a write that it saves.
const LENT_MIN: usize = 32 << 10;
/// The same once `MUCH` bytes wait: a string that takes more memory than its handle.
const LENT_MIN_LATER: usize = 128;
const MUCH: usize = 256 << 10;
/// Maximum number of parts of one write.
pub(super) const PARTS: usize = 16;

/// Where replies are written to.
pub(super) trait ReplySink {
    /// Returns the bytes at the end.
    fn bytes(&mut self) -> &mut Vec<u8>;

    /// Appends a string of the store.
    fn lend(&mut self, value: &Value);
}

impl ReplySink for Vec<u8> {
    fn bytes(&mut self) -> &mut Vec<u8> {
        self
    }

    fn lend(&mut self, value: &Value) {
        self.extend_from_slice(value);
    }
}

/// Replies in the order in which they are sent.
#[derive(Debug, Default)]
pub(super) struct ReplyBuffer {
    bytes: Vec<u8>,
    /// Strings of the store, each with the number of bytes in `bytes` that come before it.
    lent: Vec<(usize, Value)>,
    lent_size: usize,
}

/// How much of a buffer was sent.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct SentUpTo {
    /// Number of whole parts. The parts of `bytes` and the strings come in turn.
    parts: usize,
    /// Number of bytes of the next part.
    offset: usize,
}

impl ReplySink for ReplyBuffer {
    fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    fn lend(&mut self, value: &Value) {
        let min = if self.bytes.len() < MUCH { LENT_MIN } else { LENT_MIN_LATER };
        if value.len() < min {
            self.bytes.extend_from_slice(value);
        } else {
            self.lent_size = self.lent_size.saturating_add(value.len());
            self.lent.push((self.bytes.len(), value.clone()));
        }
    }
}

impl ReplyBuffer {
    /// Returns how many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len().saturating_add(self.lent_size)
    }

    /// Empties the buffer. Keeps its memory if that is at most `capacity` bytes.
    pub(super) fn clear(&mut self, capacity: usize) {
        if self.bytes.capacity() <= capacity {
            self.bytes.clear();
        } else {
            self.bytes = Vec::new();
        }
        self.lent = Vec::new();
        self.lent_size = 0;
    }

    /// Returns a part, which may be empty. Returns `None` after the last one.
    fn part(&self, number: usize) -> Option<&[u8]> {
        let index = number / 2;
        if !number.is_multiple_of(2) {
            return self.lent.get(index).map(|(_, value)| &**value);
        }
        let before = index.checked_sub(1).map_or(Some(0), |index| Some(self.lent.get(index)?.0))?;
        let end = self.lent.get(index).map_or(self.bytes.len(), |(end, _)| *end);
        self.bytes.get(before..end)
    }

    /// Returns the next parts to be sent, and how many they are: none when all was sent.
    pub(super) fn next(&self, sent: SentUpTo) -> ([IoSlice<'_>; PARTS], usize) {
        let mut parts = [IoSlice::new(&[]); PARTS];
        let (mut count, mut offset) = (0, sent.offset);
        let mut number = sent.parts;
        while let Some(place) = parts.get_mut(count)
            && let Some(part) = self.part(number)
        {
            let part = part.get(offset..).unwrap_or_default();
            (number, offset) = (number + 1, 0);
            if !part.is_empty() {
                *place = IoSlice::new(part);
                count += 1;
            }
        }
        (parts, count)
    }

    /// Counts bytes as sent.
    pub(super) fn advance(&self, sent: &mut SentUpTo, size: usize) {
        sent.offset = sent.offset.saturating_add(size);
        while let Some(part) = self.part(sent.parts)
            && sent.offset >= part.len()
        {
            sent.offset -= part.len();
            sent.parts += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;

    use super::*;
    use crate::value::Lend;

    #[derive(Debug)]
    struct Owned(Vec<u8>);

    impl Lend for Owned {
        fn lend(&self, range: Range<usize>) -> &[u8] {
            &self.0[range]
        }
    }

    fn value(byte: u8, size: usize) -> Value {
        Value::new(Arc::new(Owned(vec![byte; size])), 0..size)
    }

    /// Sends a buffer in writes of this size.
    fn sent(buffer: &ReplyBuffer, size: usize) -> Vec<u8> {
        let (mut all, mut at) = (Vec::new(), SentUpTo::default());
        loop {
            let (parts, count) = buffer.next(at);
            if count == 0 {
                return all;
            }
            let bytes: Vec<u8> = parts[..count].iter().flat_map(|part| part.to_vec()).collect();
            let size = size.min(bytes.len());
            all.extend_from_slice(&bytes[..size]);
            buffer.advance(&mut at, size);
        }
    }

    #[test]
    fn replies_are_sent_in_order_whatever_was_lent() {
        for sizes in [&[][..], &[LENT_MIN], &[1, LENT_MIN, LENT_MIN, 0, 5, LENT_MIN], &[7, 9]] {
            let (mut buffer, mut expected) = (ReplyBuffer::default(), Vec::new());
            for (number, size) in sizes.iter().enumerate() {
                let value = value(b'a' + u8::try_from(number).unwrap(), *size);
                for out in [&mut buffer as &mut dyn ReplySink, &mut expected] {
                    out.bytes().extend_from_slice(b"<");
                    out.lend(&value);
                }
            }
            assert_eq!(buffer.len(), expected.len());
            for size in [1000, 4096, LENT_MIN - 1, LENT_MIN + 1, usize::MAX] {
                assert_eq!(sent(&buffer, size), expected, "{sizes:?} {size}");
            }
            buffer.clear(0);
            assert_eq!((buffer.len(), sent(&buffer, 1)), (0, Vec::new()));
        }
    }

    #[test]
    fn large_strings_take_no_memory() {
        let mut buffer = ReplyBuffer::default();
        let (large, small) = (value(b'x', LENT_MIN), value(b'y', LENT_MIN - 1));
        for _ in 0..10_000 {
            buffer.lend(&large);
            buffer.lend(&small);
        }
        assert_eq!(buffer.len(), 10_000 * (2 * LENT_MIN - 1));
        assert!(buffer.bytes.len() < MUCH + LENT_MIN, "{}", buffer.bytes.len());
    }
}
