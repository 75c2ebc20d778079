//! JSON as Python writes it: finds where a value ends, and decodes strings.
//!
//! - `NaN`, `Infinity` and `-Infinity` are numbers, as in Python.
//! - Values are not decoded, so numbers keep all their digits. What is nested is followed without
//!   recursion, to a limited depth.
//! - Nothing is allocated except what a decoded string needs: at most the size of its text.

use super::format::{Decoded, Reject};
use super::source::SourceFile;

/// Maximum number of arrays and objects within one another. Python's own limit is close to it.
const DEPTH_MAX: usize = 1000;

const NOT_JSON: Reject = Reject::Invalid("not valid JSON");

/// A string that was decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    Whole(Vec<u8>),
    /// It has more bytes than were to be decoded.
    TooLong,
    /// It has half of a surrogate pair, so UTF-8 can't represent it.
    Surrogate,
}

/// A position in a file, up to a limit.
pub(super) struct JsonCursor<'a> {
    file: &'a mut SourceFile,
    pub(super) offset: u64,
    limit: u64,
}

/// A string that is being decoded.
struct Decoding {
    text: Text,
    size_max: usize,
}

impl Decoding {
    fn push(&mut self, bytes: &[u8]) {
        if let Text::Whole(text) = &mut self.text {
            if text.len() + bytes.len() > self.size_max {
                self.text = Text::TooLong;
            } else {
                text.extend_from_slice(bytes);
            }
        }
    }

    fn push_char(&mut self, char: char) {
        self.push(char.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

impl<'a> JsonCursor<'a> {
    pub(super) fn new(file: &'a mut SourceFile, offset: u64, limit: u64) -> Self {
        Self { file, offset, limit }
    }

    /// Returns the next byte without moving past it, or `None` at the limit.
    pub(super) fn peek(&mut self) -> Decoded<Option<u8>> {
        if self.offset >= self.limit {
            return Ok(None);
        }
        Ok(self.file.byte(self.offset)?)
    }

    fn next(&mut self) -> Decoded<u8> {
        let byte = self.peek()?.ok_or(NOT_JSON)?;
        self.offset += 1;
        Ok(byte)
    }

    /// Moves past a byte if it comes next.
    pub(super) fn skip(&mut self, byte: u8) -> Decoded<bool> {
        let is_next = self.peek()? == Some(byte);
        self.offset += u64::from(is_next);
        Ok(is_next)
    }

    /// Moves past a byte that has to come next.
    pub(super) fn expect(&mut self, byte: u8) -> Decoded<()> {
        if self.skip(byte)? { Ok(()) } else { Err(NOT_JSON) }
    }

    fn expect_all(&mut self, bytes: &[u8]) -> Decoded<()> {
        bytes.iter().try_for_each(|byte| self.expect(*byte))
    }

    /// Moves past spaces. Line ends do not occur within a record.
    pub(super) fn skip_spaces(&mut self) -> Decoded<()> {
        while matches!(self.peek()?, Some(b' ' | b'\t' | b'\r')) {
            self.offset += 1;
        }
        Ok(())
    }

    /// Decodes a string, as far as it has at most `size_max` bytes.
    pub(super) fn string(&mut self, size_max: usize) -> Decoded<Text> {
        let mut decoding = Decoding { text: Text::Whole(Vec::new()), size_max };
        self.read_string(Some(&mut decoding))?;
        Ok(decoding.text)
    }

    fn read_string(&mut self, mut decoding: Option<&mut Decoding>) -> Decoded<()> {
        self.expect(b'"')?;
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => self.read_escape(decoding.as_deref_mut())?,
                0..=0x1f => return Err(NOT_JSON),
                byte if byte.is_ascii() => {
                    if let Some(decoding) = decoding.as_deref_mut() {
                        decoding.push(&[byte]);
                    }
                }
                _ => {
                    self.offset -= 1;
                    let char = self.read_char()?;
                    if let Some(decoding) = decoding.as_deref_mut() {
                        decoding.push_char(char);
                    }
                }
            }
        }
    }

    /// Reads a character of several bytes.
    fn read_char(&mut self) -> Decoded<char> {
        let left = usize::try_from(self.limit - self.offset).unwrap_or(4).min(4);
        let bytes = self.file.bytes(self.offset, left)?;
        let valid = bytes.utf8_chunks().next().map(|chunk| chunk.valid()).unwrap_or_default();
        let char = valid.chars().next().ok_or(NOT_JSON)?;
        self.offset += char.len_utf8() as u64;
        Ok(char)
    }

    /// Reads the rest of an escape.
    fn read_escape(&mut self, decoding: Option<&mut Decoding>) -> Decoded<()> {
        let char = match self.next()? {
            byte @ (b'"' | b'\\' | b'/') => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let Some(char) = self.read_unit_pair()? else {
                    if let Some(decoding) = decoding {
                        decoding.text = Text::Surrogate;
                    }
                    return Ok(());
                };
                char
            }
            _ => return Err(NOT_JSON),
        };
        if let Some(decoding) = decoding {
            decoding.push_char(char);
        }
        Ok(())
    }

    /// Reads the four digits after `\u`, and a second such escape if the first is half of a pair.
    /// Returns `None` for half of a pair alone.
    fn read_unit_pair(&mut self) -> Decoded<Option<char>> {
        let first = self.read_unit()?;
        if let Some(char) = char::from_u32(u32::from(first)) {
            return Ok(Some(char));
        }
        let before = self.offset;
        if self.skip(b'\\')? && self.skip(b'u')? {
            let pair = [first, self.read_unit()?];
            let mut chars = char::decode_utf16(pair);
            if let (Some(Ok(char)), None) = (chars.next(), chars.next()) {
                return Ok(Some(char));
            }
        }
        self.offset = before;
        Ok(None)
    }

    fn read_unit(&mut self) -> Decoded<u16> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = char::from(self.next()?).to_digit(16).ok_or(NOT_JSON)?;
            unit = unit << 4 | u16::try_from(digit).unwrap_or(0);
        }
        Ok(unit)
    }

    /// Reads a whole number that is not negative.
    pub(super) fn integer(&mut self) -> Decoded<u64> {
        let start = self.offset;
        let mut number = 0_u64;
        while let Some(digit) = self.peek()?.filter(u8::is_ascii_digit) {
            number = number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
            self.offset += 1;
        }
        if self.offset == start { Err(NOT_JSON) } else { Ok(number) }
    }

    /// Moves past `true` or `false`, and returns which it was.
    pub(super) fn boolean(&mut self) -> Decoded<bool> {
        let is_true = self.peek()? == Some(b't');
        self.expect_all(if is_true { b"true" } else { b"false" })?;
        Ok(is_true)
    }

    fn skip_number(&mut self) -> Decoded<()> {
        self.skip(b'-')?;
        if self.peek()? == Some(b'I') {
            return self.expect_all(b"Infinity");
        }
        // As in Python, a number has no leading zeros.
        if !self.skip(b'0')? {
            self.integer()?;
        }
        if self.skip(b'.')? {
            self.integer()?;
        }
        if matches!(self.peek()?, Some(b'e' | b'E')) {
            self.offset += 1;
            let _ = self.skip(b'-')? || self.skip(b'+')?;
            self.integer()?;
        }
        Ok(())
    }

    /// Moves past a value of any kind.
    pub(super) fn skip_value(&mut self) -> Decoded<()> {
        // The closing brackets that are still to come.
        let mut open = Vec::new();
        loop {
            self.skip_spaces()?;
            match self.peek()?.ok_or(NOT_JSON)? {
                bracket @ (b'{' | b'[') => {
                    self.offset += 1;
                    let close = if bracket == b'{' { b'}' } else { b']' };
                    self.skip_spaces()?;
                    if !self.skip(close)? {
                        if open.len() == DEPTH_MAX {
                            return Err(Reject::Invalid("JSON that is nested too deeply"));
                        }
                        open.push(close);
                        self.skip_name(close)?;
                        continue;
                    }
                }
                b'"' => self.read_string(None)?,
                b't' | b'f' => {
                    self.boolean()?;
                }
                b'n' => self.expect_all(b"null")?,
                b'N' => self.expect_all(b"NaN")?,
                _ => self.skip_number()?,
            }
            // A value has ended, and with it perhaps what it is in.
            loop {
                let Some(close) = open.last().copied() else { return Ok(()) };
                self.skip_spaces()?;
                if self.skip(b',')? {
                    self.skip_spaces()?;
                    self.skip_name(close)?;
                    break;
                }
                self.expect(close)?;
                open.pop();
            }
        }
    }

    /// Moves past the name of an object's member.
    fn skip_name(&mut self, close: u8) -> Decoded<()> {
        if close == b'}' {
            self.read_string(None)?;
            self.skip_spaces()?;
            self.expect(b':')?;
        }
        Ok(())
    }
}
