//! Frames: changes and snapshots as followers receive them, as bytes.
//!
//! - A frame is a header of 36 bytes, a key and a value. Numbers are big-endian. Its checksum
//!   covers all of it.
//! - A stream may break off anywhere. A reader then knows which frames were complete.
//! - A snapshot ends with a frame that has the number of frames before it, and a checksum of their
//!   headers. So a snapshot that lacks something in the middle is noticed too.
//! - What is read grows with what has arrived, not with what a header announces.

use std::io::{self, Read};

use crc32fast::Hasher;

use crate::store::Position;

/// The type of a body of frames.
pub(super) const FRAMES: &str = "application/vnd.bitcask.frames";
/// Header with the maximum size of the leader's keys, in bytes.
pub(super) const KEY_SIZE_LIMIT: &str = "x-bitcask-key-size-limit";
/// Header with the maximum size of the leader's values, in bytes.
pub(super) const VALUE_SIZE_LIMIT: &str = "x-bitcask-value-size-limit";

/// Header with the name of a snapshot's lease. The follower sends it when it asks for the changes.
pub(super) const LEASE: &str = "x-bitcask-lease";

/// Size of a frame's header, in bytes.
pub(super) const FRAME_HEADER_SIZE: usize = 36;
/// Where the checksum begins, which comes last in the header.
const CHECKSUM_AT: usize = FRAME_HEADER_SIZE - 4;

/// The flag of a change whose batch has more changes.
const CONTINUES: u8 = 1;
/// The flag of a put that says when its key expires.
const EXPIRES: u8 = 2;

/// What a frame is. Followers of other versions know these numbers: never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameKind {
    Put = 1,
    Delete = 2,
    /// Only says where the reader is now, and perhaps how far behind.
    Position = 3,
    /// The last frame of a stream that cannot go on. Its value is the code of the failure.
    Failure = 4,
    /// The last frame of a snapshot.
    End = 5,
}

impl FrameKind {
    fn decode(number: u8) -> Option<Self> {
        let all = [Self::Put, Self::Delete, Self::Position, Self::Failure, Self::End];
        all.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// A frame. Its key and value are lent or owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame<B = Vec<u8>> {
    pub(super) kind: FrameKind,
    /// Whether the next change belongs to the same batch.
    pub(super) continues: bool,
    /// When the key of a put expires, in microseconds since the epoch.
    pub(super) expiry: Option<u64>,
    /// The position behind the frame.
    pub(super) position: Position,
    pub(super) key: B,
    pub(super) value: B,
}

/// The header of a frame, as bytes.
pub(super) type FrameHeader = [u8; FRAME_HEADER_SIZE];

impl<B: AsRef<[u8]>> Frame<B> {
    /// Returns the header. The key and the value follow it.
    pub(super) fn header(&self) -> FrameHeader {
        let (key, value) = (self.key.as_ref(), self.value.as_ref());
        let continues = if self.continues { CONTINUES } else { 0 };
        let expires = if self.expiry.is_some() { EXPIRES } else { 0 };
        // The store has no larger keys and values.
        let key_size = u16::try_from(key.len()).unwrap_or(u16::MAX);
        let value_size = u32::try_from(value.len()).unwrap_or(u32::MAX);
        let mut header = [0; FRAME_HEADER_SIZE];
        let fields = [self.kind as u8, continues | expires]
            .into_iter()
            .chain(key_size.to_be_bytes())
            .chain(value_size.to_be_bytes())
            .chain(self.expiry.unwrap_or(0).to_be_bytes())
            .chain(self.position.to_bytes());
        header.iter_mut().zip(fields).for_each(|(target, source)| *target = source);
        let checksum = checksum(&header, key, value).to_be_bytes();
        header.iter_mut().skip(CHECKSUM_AT).zip(checksum).for_each(|(to, from)| *to = from);
        header
    }
}

fn checksum(header: &FrameHeader, key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(header.split_at(CHECKSUM_AT).0);
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

/// Why no frame could be read.
#[derive(Debug)]
pub(super) enum FrameError {
    /// The stream has failed, or has ended within a frame.
    Stream(io::Error),
    /// These bytes are no frame.
    Broken(&'static str),
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        Self::Stream(error)
    }
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stream(error) => write!(f, "{error}"),
            Self::Broken(reason) => f.write_str(reason),
        }
    }
}

/// Reads a frame, and returns it with its header.
pub(super) fn read_frame(from: &mut impl Read) -> Result<(Frame, FrameHeader), FrameError> {
    let mut header = [0; FRAME_HEADER_SIZE];
    from.read_exact(&mut header)?;
    let mut rest = header.as_slice();
    let Some(kind) = FrameKind::decode(field::<1>(&mut rest)[0]) else {
        return Err(FrameError::Broken("a frame is of an unknown kind"));
    };
    let [flags] = field::<1>(&mut rest);
    let key_size = u16::from_be_bytes(field(&mut rest));
    let value_size = u32::from_be_bytes(field(&mut rest));
    let expiry = u64::from_be_bytes(field(&mut rest));
    let position = Position::from_bytes(field(&mut rest));
    let expected = u32::from_be_bytes(field(&mut rest));
    let key = read_part(from, key_size.into())?;
    let value = read_part(from, value_size.into())?;
    if checksum(&header, &key, &value) != expected {
        return Err(FrameError::Broken("the checksum of a frame does not match"));
    }
    let expiry = (flags & EXPIRES != 0).then_some(expiry);
    let continues = flags & CONTINUES != 0;
    Ok((Frame { kind, continues, expiry, position, key, value }, header))
}

fn read_part(from: &mut impl Read, size: u64) -> Result<Vec<u8>, FrameError> {
    let mut part = Vec::new();
    from.take(size).read_to_end(&mut part)?;
    if part.len() as u64 == size {
        Ok(part)
    } else {
        Err(FrameError::Stream(io::ErrorKind::UnexpectedEof.into()))
    }
}

/// Takes the first bytes of what is left of a header, which is long enough.
fn field<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (first, others) = rest.split_first_chunk().unwrap_or((&[0; N], &[]));
    *rest = others;
    *first
}

/// How far behind the reader of a stream is, in the value of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FrameLag {
    /// In bytes of the log.
    pub(super) size: u64,
    pub(super) changes: u64,
    /// Age of the oldest change that is missing, in microseconds.
    pub(super) age: u64,
}

impl FrameLag {
    pub(super) fn encode(self) -> Vec<u8> {
        [self.size, self.changes, self.age].iter().flat_map(|it| it.to_be_bytes()).collect()
    }

    pub(super) fn decode(mut value: &[u8]) -> Option<Self> {
        if value.len() != 24 {
            return None;
        }
        let mut number = || u64::from_be_bytes(field(&mut value));
        Some(Self { size: number(), changes: number(), age: number() })
    }
}

/// What the last frame of a snapshot says about the others.
#[derive(Debug, Clone, Default)]
pub(super) struct SnapshotSum {
    count: u64,
    hasher: Hasher,
}

impl SnapshotSum {
    pub(super) fn add(&mut self, header: &FrameHeader) {
        self.count += 1;
        self.hasher.update(header);
    }

    /// Returns the value of the last frame.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut value = self.count.to_be_bytes().to_vec();
        value.extend(self.hasher.finalize().to_be_bytes());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        let (kind, continues, expiry) = (FrameKind::Put, true, Some(1_700_000_000_000_001));
        let position = Position::from_bytes([7; 16]);
        Frame { kind, continues, expiry, position, key: b"key".to_vec(), value: vec![1; 5000] }
    }

    fn bytes(frame: &Frame) -> Vec<u8> {
        [&frame.header()[..], &frame.key, &frame.value].concat()
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let frame = frame();
        let (read, header) = read_frame(&mut &*bytes(&frame)).unwrap();
        assert_eq!((&read, header), (&frame, frame.header()));
        let empty = Frame { kind: FrameKind::Delete, key: Vec::new(), value: Vec::new(), ..frame };
        assert_eq!(read_frame(&mut &*bytes(&empty)).unwrap().0, empty);
    }

    #[test]
    fn a_frame_that_is_cut_off_or_changed_is_noticed() {
        let whole = bytes(&frame());
        for size in 0..whole.len() {
            let cut = read_frame(&mut &whole[..size]);
            assert!(matches!(cut, Err(FrameError::Stream(_))), "{size}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 4;
            assert!(read_frame(&mut &*changed).is_err(), "{at}");
        }
    }

    #[test]
    fn a_lag_is_read_as_it_was_written() {
        let lag = FrameLag { size: 1, changes: 2, age: u64::MAX };
        assert_eq!(FrameLag::decode(&lag.encode()), Some(lag));
        assert_eq!(FrameLag::decode(b""), None);
    }
}
