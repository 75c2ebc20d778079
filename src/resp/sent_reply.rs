//! Replies as the nodes of a cluster send them to each other.
//!
//! - A reply that arrives is nested no deeper than [`ArrivedReply`], whatever its bytes say: what
//!   answers at the address of a node may be something else.
//! - No memory is taken for what is only announced: serde takes at most 1 MiB ahead for a sequence.

use std::convert::Infallible;

use bytes::Bytes;
use serde::de::{Deserializer, Error as _};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use super::replicated::ReplicatedReply;
use super::reply::Reply;

/// A reply without what lies in a store, and with items of a type of their own.
#[derive(Debug, Serialize, Deserialize)]
enum SentReply<T> {
    Line(String),
    Error(String),
    Integer(i64),
    Bulk(Bytes),
    Null,
    NullArray,
    Array(Vec<T>),
    Set(Vec<T>),
    Map(Vec<(T, T)>),
    Pairs(Vec<T>),
    Verbatim(String),
}

/// An item of a reply to be sent, which this program has made, so it is not nested deeply.
#[derive(Debug, Serialize)]
struct SentItem(SentReply<Self>);

/// An item that no reply may have.
#[derive(Debug)]
struct TooDeep(Infallible);

/// A reply that has arrived: at most eight replies within each other. No command needs more than
/// three. The limit is in the type, so nothing has to count while a reply is decoded.
type ArrivedReply = Within<Within<Within<Within<Within<Within<Within<SentReply<TooDeep>>>>>>>>;
/// A reply whose items are of a type.
type Within<T> = SentReply<T>;

/// Size of replies, all together, above which nodes do not send them to each other, in bytes. Tests
/// have no room for as much.
const SENT_MAX: usize = if cfg!(test) { 1 << 10 } else { 64 << 20 };
/// What a client is told of a command whose reply is not sent. One that only reads was done too.
const DONE_NOT_SENT: &str =
    "ERR the command was done, but its reply is too large to be sent between nodes";

/// Leaves out replies that are too large to be sent, whether they are in memory now or not.
pub(crate) fn sendable(mut replies: Vec<ReplicatedReply>) -> Vec<ReplicatedReply> {
    let mut left = SENT_MAX;
    for ReplicatedReply(reply) in &mut replies {
        let size = size_of_reply(reply);
        match left.checked_sub(size) {
            Some(rest) => left = rest,
            None => *reply = Reply::Error(DONE_NOT_SENT.to_owned()),
        }
    }
    replies
}

/// Returns the size of what a reply says, in bytes.
fn size_of_reply(reply: &Reply) -> usize {
    let size_of_all = |replies: &[Reply]| replies.iter().map(size_of_reply).sum();
    match reply {
        Reply::Line(text) | Reply::Error(text) | Reply::Verbatim(text) => text.len(),
        Reply::Bulk(text) => text.len(),
        Reply::Stored(value) => value.len(),
        Reply::Array(items)
        | Reply::Set(items)
        | Reply::Push(items)
        | Reply::Pairs(items)
        | Reply::Several(items) => size_of_all(items),
        Reply::Map(pairs) => {
            pairs.iter().map(|(key, value)| size_of_reply(key) + size_of_reply(value)).sum()
        }
        _ => 0,
    }
}

fn sent(replies: &[Reply]) -> Vec<SentItem> {
    replies.iter().map(SentItem::from).collect()
}

fn received<T: Into<Reply>>(replies: Vec<T>) -> Vec<Reply> {
    replies.into_iter().map(T::into).collect()
}

impl From<&Reply> for SentItem {
    fn from(reply: &Reply) -> Self {
        Self(match reply {
            // No command on keys is silent, or replies several times.
            Reply::Silence | Reply::Null => SentReply::Null,
            Reply::Push(items) | Reply::Several(items) | Reply::Array(items) => {
                SentReply::Array(sent(items))
            }
            Reply::Simple(text) => SentReply::Line((*text).to_owned()),
            Reply::Line(text) => SentReply::Line(text.clone()),
            Reply::Error(text) => SentReply::Error(text.clone()),
            Reply::Integer(number) => SentReply::Integer(*number),
            Reply::Text(text) => SentReply::Bulk(Bytes::from_static(text.as_bytes())),
            Reply::Bulk(text) => SentReply::Bulk(text.clone()),
            Reply::Stored(value) => SentReply::Bulk(Bytes::copy_from_slice(value)),
            Reply::NullArray => SentReply::NullArray,
            Reply::Set(items) => SentReply::Set(sent(items)),
            Reply::Map(pairs) => {
                let pair = |(key, value): &(Reply, Reply)| (key.into(), value.into());
                SentReply::Map(pairs.iter().map(pair).collect())
            }
            Reply::Pairs(items) => SentReply::Pairs(sent(items)),
            Reply::Verbatim(text) => SentReply::Verbatim(text.clone()),
        })
    }
}

impl<'de> Deserialize<'de> for TooDeep {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom("a reply has too many others within each other"))
    }
}

impl From<TooDeep> for Reply {
    fn from(TooDeep(none): TooDeep) -> Self {
        match none {}
    }
}

impl<T: Into<Reply>> From<SentReply<T>> for Reply {
    fn from(reply: SentReply<T>) -> Self {
        match reply {
            SentReply::Line(text) => Self::Line(text),
            SentReply::Error(text) => Self::Error(text),
            SentReply::Integer(number) => Self::Integer(number),
            SentReply::Bulk(text) => Self::Bulk(text),
            SentReply::Null => Self::Null,
            SentReply::NullArray => Self::NullArray,
            SentReply::Array(items) => Self::Array(received(items)),
            SentReply::Set(items) => Self::Set(received(items)),
            SentReply::Map(pairs) => Self::Map(
                pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
            ),
            SentReply::Pairs(items) => Self::Pairs(received(items)),
            SentReply::Verbatim(text) => Self::Verbatim(text),
        }
    }
}

impl Serialize for ReplicatedReply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        SentItem::from(&self.0).0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ReplicatedReply {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ArrivedReply::deserialize(deserializer).map(|reply| Self(reply.into()))
    }
}

#[cfg(test)]
impl ReplicatedReply {
    /// Returns a reply of each kind.
    pub(crate) fn of_each_kind() -> Vec<Self> {
        let text = || Reply::Bulk(Bytes::from_static(b"text"));
        let replies = vec![
            Reply::Simple("OK"),
            Reply::Line("line".to_owned()),
            Reply::Error("ERR wrong".to_owned()),
            Reply::Integer(-7),
            Reply::Text("name"),
            text(),
            Reply::Stored(vec![0, 255].into()),
            Reply::Null,
            Reply::NullArray,
            Reply::Array(vec![text(), Reply::Array(vec![Reply::Null])]),
            Reply::Set(vec![text()]),
            Reply::Map(vec![(text(), Reply::Integer(1))]),
            Reply::Pairs(vec![text(), text()]),
            Reply::Verbatim("a\nb".to_owned()),
        ];
        replies.into_iter().map(Self).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::reply::Protocol;

    #[test]
    fn what_is_sent_has_a_limit_that_counts_what_lies_in_a_store() {
        let large = || ReplicatedReply(Reply::Stored(vec![b'x'; 400].into()));
        let mut replies: Vec<_> = (0..5).map(|_| large()).collect();
        replies.push(ReplicatedReply(Reply::Integer(1)));
        let sent = sendable(replies);
        let is_left_out = |ReplicatedReply(reply): &ReplicatedReply| reply.is_error();
        assert_eq!(
            sent.iter().map(is_left_out).collect::<Vec<_>>(),
            [false, false, true, true, true, false]
        );
        assert!(postcard::to_stdvec(&sent).unwrap().len() < 2 * SENT_MAX);
    }

    #[test]
    fn a_reply_arrives_as_it_was_sent() {
        for reply in ReplicatedReply::of_each_kind() {
            let bytes = postcard::to_stdvec(&reply).unwrap();
            let ReplicatedReply(back) = postcard::from_bytes(&bytes).unwrap();
            for protocol in [Protocol::Resp2, Protocol::Resp3] {
                let (mut before, mut after) = (Vec::new(), Vec::new());
                reply.0.write(protocol, &mut before);
                back.write(protocol, &mut after);
                assert_eq!(before, after, "{reply:?}");
            }
        }
    }

    /// The stack of the thread was full, and the process was aborted.
    #[test]
    fn a_reply_that_is_nested_deeply_is_refused() {
        let nested = |depth| [&b"\x06\x01".repeat(depth)[..], b"\x04"].concat();
        let decoded = |bytes: &[u8]| postcard::from_bytes::<ReplicatedReply>(bytes);
        assert!(decoded(&nested(7)).is_ok());
        for depth in [8, 1_000_000] {
            decoded(&nested(depth)).unwrap_err();
        }
        // Nothing answers with as many items as it announces: 2^40, of no bytes.
        decoded(b"\x06\x80\x80\x80\x80\x80\x20").unwrap_err();
    }
}
