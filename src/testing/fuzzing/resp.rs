//! Fuzzes the decoder of Redis commands: arbitrary bytes, in arbitrary pieces.
//!
//! - Where the bytes are cut must not matter, neither to the commands nor to the error.
//! - What was decoded, encoded again, is decoded to the same.
//! - A decoder never keeps more memory than the bytes account for.

use bytes::Bytes;

use super::input::Input;
use crate::wire::{Decoder, FrameLimits};

/// Capacity that a decoder may have beyond twice what has arrived: one read.
const READ_SIZE_MAX: usize = (1 << 20) + (64 << 10);

/// What a decoder has made of some bytes: the commands, the error, and what is left over.
type Understood = (Vec<Vec<Bytes>>, Option<String>, usize);

/// Decodes arbitrary bytes.
pub fn resp(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let limits = match input.byte() % 3 {
        0 => FrameLimits::stranger(),
        1 => FrameLimits::new(64),
        _ => FrameLimits::new(512 << 20),
    };
    let size = 1 + input.below(64);
    let rest = input.take(bytes.len()).to_vec();
    let whole = decode(&rest, rest.len().max(1), limits);
    let in_pieces = decode(&rest, size, limits);
    assert_eq!(whole.0, in_pieces.0);
    assert_eq!(whole.1, in_pieces.1);
    if whole.1.is_none() {
        assert_eq!(whole.2, in_pieces.2);
    }
    let again: Vec<u8> = whole.0.iter().flat_map(|command| encode(command)).collect();
    let limits = FrameLimits::new(512 << 20);
    assert_eq!(decode(&again, again.len().max(1), limits), (whole.0, None, 0));
}

fn decode(bytes: &[u8], size: usize, limits: FrameLimits) -> Understood {
    let (mut decoder, mut commands) = (Decoder::default(), Vec::new());
    for piece in bytes.chunks(size) {
        decoder.buffer().extend_from_slice(piece);
        decoder.note_read(piece.len());
        loop {
            match decoder.next(limits) {
                Ok(Some(command)) => {
                    assert!(!command.is_empty());
                    commands.push(command);
                }
                Ok(None) => break,
                Err(error) => return (commands, Some(error.to_string()), decoder.len()),
            }
        }
        assert!(decoder.buffer().capacity() <= 2 * bytes.len() + READ_SIZE_MAX);
    }
    (commands, None, decoder.len())
}

fn encode(command: &[Bytes]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for argument in command {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
