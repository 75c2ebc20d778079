//! Replies, and how they are written in either version of the protocol.
//!
//! The types that only version 3 has are written as what Redis sends for them in version 2: a map
//! as an array of its keys and values, a push as an array.

use bytes::Bytes;

use super::reply_buffer::ReplySink;
use crate::value::Value;

/// The version of the protocol that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Resp2,
    Resp3,
}

/// What a command answers.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// Nothing at all.
    Silence,
    Simple(&'static str),
    Line(String),
    Error(String),
    Integer(i64),
    Text(&'static str),
    Bulk(Bytes),
    /// A string that lies in the store.
    Stored(Value),
    Null,
    NullArray,
    Array(Vec<Reply>),
    Set(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
    Push(Vec<Reply>),
    /// Names and values in turn: pairs in version 3.
    Pairs(Vec<Reply>),
    /// Text for people.
    Verbatim(String),
    /// Several replies to one command.
    Several(Vec<Reply>),
}

/// The usual reply of a command without a result.
pub(super) const OK: Reply = Reply::Simple("OK");

impl Reply {
    pub(super) fn bulk(text: impl Into<Vec<u8>>) -> Self {
        Self::Bulk(Bytes::from(text.into()))
    }

    pub(super) fn bool(is_true: bool) -> Self {
        Self::Integer(i64::from(is_true))
    }

    pub(super) fn count(count: impl TryInto<i64>) -> Self {
        Self::Integer(count.try_into().unwrap_or(i64::MAX))
    }

    pub(super) fn maybe(text: Option<Self>) -> Self {
        text.unwrap_or(Self::Null)
    }

    pub(super) fn texts(texts: &[&'static str]) -> Self {
        Self::Array(texts.iter().copied().map(Self::Text).collect())
    }

    pub(super) fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// Appends the reply.
    pub(super) fn write(&self, protocol: Protocol, out: &mut impl ReplySink) {
        let is_3 = protocol == Protocol::Resp3;
        match self {
            Self::Silence => {}
            Self::Simple(text) => line(b'+', text, out),
            Self::Line(text) => line(b'+', text, out),
            Self::Error(text) => line(b'-', text, out),
            Self::Integer(number) => header_of(b':', *number, out),
            Self::Text(text) => bulk(text.as_bytes(), out),
            Self::Bulk(text) => bulk(text, out),
            Self::Stored(value) => {
                header(b'$', value.len(), out);
                out.lend(value);
                out.bytes().extend_from_slice(b"\r\n");
            }
            Self::Null | Self::NullArray if is_3 => out.bytes().extend_from_slice(b"_\r\n"),
            Self::Null => out.bytes().extend_from_slice(b"$-1\r\n"),
            Self::NullArray => out.bytes().extend_from_slice(b"*-1\r\n"),
            Self::Set(items) => aggregate(if is_3 { b'~' } else { b'*' }, items, protocol, out),
            Self::Push(items) => aggregate(if is_3 { b'>' } else { b'*' }, items, protocol, out),
            Self::Map(pairs) => {
                let (kind, len) = if is_3 { (b'%', pairs.len()) } else { (b'*', pairs.len() * 2) };
                header(kind, len, out);
                for (key, value) in pairs {
                    key.write(protocol, out);
                    value.write(protocol, out);
                }
            }
            Self::Pairs(items) if is_3 => {
                header(b'*', items.len() / 2, out);
                items.chunks(2).for_each(|pair| aggregate(b'*', pair, protocol, out));
            }
            Self::Array(items) | Self::Pairs(items) => aggregate(b'*', items, protocol, out),
            Self::Verbatim(text) if is_3 => {
                header(b'=', text.len() + 4, out);
                out.bytes().extend_from_slice(b"txt:");
                out.bytes().extend_from_slice(text.as_bytes());
                out.bytes().extend_from_slice(b"\r\n");
            }
            Self::Verbatim(text) => bulk(text.as_bytes(), out),
            Self::Several(replies) => replies.iter().for_each(|it| it.write(protocol, out)),
        }
    }
}

/// Appends a line. An end of line within the text would be taken for the end of the reply.
fn line(kind: u8, text: &str, out: &mut impl ReplySink) {
    out.bytes().push(kind);
    let safe = |byte: u8| if byte == b'\r' || byte == b'\n' { b' ' } else { byte };
    out.bytes().extend(text.bytes().map(safe));
    out.bytes().extend_from_slice(b"\r\n");
}

/// Appends a string.
fn bulk(text: &[u8], out: &mut impl ReplySink) {
    header(b'$', text.len(), out);
    out.bytes().extend_from_slice(text);
    out.bytes().extend_from_slice(b"\r\n");
}

fn header(kind: u8, len: usize, out: &mut impl ReplySink) {
    header_of(kind, i64::try_from(len).unwrap_or(i64::MAX), out);
}

fn header_of(kind: u8, number: i64, out: &mut impl ReplySink) {
    out.bytes().push(kind);
    push_number(number, out);
    out.bytes().extend_from_slice(b"\r\n");
}

fn push_number(number: i64, out: &mut impl ReplySink) {
    if number < 0 {
        out.bytes().push(b'-');
    }
    let start = out.bytes().len();
    let mut left = number.unsigned_abs();
    loop {
        let digit = u8::try_from(left % 10).unwrap_or(0);
        out.bytes().push(b'0' + digit);
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if let Some(digits) = out.bytes().get_mut(start..) {
        digits.reverse();
    }
}

fn aggregate(kind: u8, items: &[Reply], protocol: Protocol, out: &mut impl ReplySink) {
    header(kind, items.len(), out);
    for item in items {
        item.write(protocol, out);
    }
}

#[cfg(test)]
mod tests {
    use resp_rs::resp3::{Frame, parse_frame};

    use super::*;

    fn written(reply: &Reply, protocol: Protocol) -> String {
        let mut out = Vec::new();
        reply.write(protocol, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn both_versions_are_written() {
        let map = Reply::Map(vec![(Reply::Text("a"), Reply::Null)]);
        assert_eq!(written(&map, Protocol::Resp2), "*2\r\n$1\r\na\r\n$-1\r\n");
        assert_eq!(written(&map, Protocol::Resp3), "%1\r\n$1\r\na\r\n_\r\n");
        let number = Reply::Integer(i64::MIN);
        assert_eq!(written(&number, Protocol::Resp2), ":-9223372036854775808\r\n");
        assert_eq!(written(&Reply::NullArray, Protocol::Resp2), "*-1\r\n");
        assert_eq!(written(&Reply::Verbatim("x".into()), Protocol::Resp3), "=5\r\ntxt:x\r\n");
        let hostile = Reply::Error("ERR a\r\n+OK".into());
        assert_eq!(written(&hostile, Protocol::Resp3), "-ERR a  +OK\r\n");
    }

    #[test]
    fn a_decoder_of_another_hand_understands_them() {
        let replies = [
            (OK, Frame::SimpleString("OK".into())),
            (Reply::Integer(-7), Frame::Integer(-7)),
            (Reply::bulk("a\r\nb"), Frame::BulkString(Some("a\r\nb".into()))),
            (Reply::Set(vec![OK]), Frame::Set(vec![Frame::SimpleString("OK".into())])),
            (Reply::Push(vec![Reply::Null]), Frame::Push(vec![Frame::Null])),
        ];
        for (reply, frame) in replies {
            let bytes = Bytes::from(written(&reply, Protocol::Resp3));
            assert_eq!(parse_frame(bytes).unwrap(), (frame, Bytes::new()));
        }
    }
}
