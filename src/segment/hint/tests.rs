//! Hints, whole and in parts.

use std::path::Path;

use super::file::encoded_size;
use super::*;
use crate::fs::Fs;
use crate::keydir::SHARD_COUNT;
use crate::segment::Dir;
use crate::testing::twin::Twin;

const COLLIDES: Flags = Flags::COLLIDES;

fn source() -> HintSource {
    let identity = Identity { store_id: 1, hash_seed: 2 };
    HintSource { id: SegmentId(3), identity, length: 1 << 20 }
}

fn hint(len: u64) -> Hint {
    let slot = |at: u64| {
        let hash = KeyHash { fingerprint: at * 7, extra: (at % 4096) as u16 };
        HintSlot::new(
            hash,
            64 + at * 32,
            32,
            Flags::default().with_if(at.is_multiple_of(2), COLLIDES),
        )
    };
    let summary = Summary {
        entries: len,
        tombstones: 4,
        tombstone_size: 13,
        key_size: 5,
        value_size: 6,
        first_timestamp: 7,
        last_timestamp: 8,
        expiring: vec![(9, 10), (11, 12)],
    };
    Hint { summary, slots: (0..len).map(slot).collect() }
}

#[test]
fn a_hint_is_read_as_it_was_written() {
    for len in [0, 1, 254, 255, 256, 1000] {
        let bytes = hint(len).encode(source());
        assert_eq!(bytes.len() as u64, encoded_size(len));
        assert_eq!(Hint::decode(&bytes, source()), Some(hint(len)));
    }
}

#[test]
fn the_expired_size_is_recorded_in_steps() {
    let summary = hint(1).summary;
    let expired = [8, 9, 10, 11].map(|now| summary.expired_size(now));
    assert_eq!(expired, [0, 10, 10, 22]);
}

/// Pieces are written one after the other; the disk holds what a single write would have written.
#[test]
fn a_hint_of_many_pieces_is_written_whole() {
    let hint = hint(2000);
    let bytes = hint.encode(source());
    assert!(bytes.len() > 3 * super::file::PIECE_SIZE);
    let (fs, dir) = on_disk(Vec::new());
    hint.write(&fs, &dir, source()).unwrap();
    let Fs::Twin(twin) = &fs else { unreachable!() };
    assert_eq!(twin.contents(&dir.hint(source().id)), Some(bytes));
}

#[test]
fn a_damaged_cut_or_foreign_hint_is_not_used() {
    let bytes = hint(300).encode(source());
    for at in 0..bytes.len() {
        for mask in [0x01, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= mask;
            assert_eq!(Hint::decode(&damaged, source()), None, "byte {at}");
        }
        assert_eq!(Hint::decode(&bytes[..at], source()), None, "cut at {at}");
    }
    let mut doubled = bytes.clone();
    doubled.extend_from_slice(&bytes);
    assert_eq!(Hint::decode(&doubled, source()), None);
    assert_eq!(Hint::decode(&bytes, HintSource { length: 5, ..source() }), None);
    assert_eq!(Hint::decode(&bytes, HintSource { id: SegmentId(4), ..source() }), None);
}

#[test]
fn the_extremes_of_a_slot_fit() {
    let hash = KeyHash { fingerprint: u64::MAX, extra: 0xfff };
    let flags = Flags::TOMBSTONE.with(COLLIDES).with(Flags::EXPIRES);
    let (offset, size) = ((512 << 20) - 8, ((1 << 23) - 2) * 8);
    let slot = HintSlot::new(hash, offset, size, flags);
    assert_eq!((slot.hash(), slot.offset(), slot.size()), (hash, offset, Some(size)));
    assert!(slot.is_tombstone() && slot.collides() && slot.expires());
    let plain = HintSlot::new(hash, offset, size, Flags::default());
    assert!(!plain.is_tombstone() && !plain.collides() && !plain.expires());
    assert_eq!(HintSlot::new(hash, 64, size + 8, COLLIDES).size(), None);
    assert_eq!(HintSlot::new(hash, 64, 4 << 30, COLLIDES).size(), None);
}

/// Fingerprints spread as by a good hash, as by a hash of two bits, and all in one shard.
fn spreads() -> [fn(u64) -> u64; 4] {
    let mixed = |at: u64| (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [
        mixed,
        |at| (at % 2) << 63 | (at / 2 % 2) << 40 | 2,
        |at| 0x5550_0000_0000_0000 | at,
        |at| if at % 50 == 0 { at << 58 | 3 } else { u64::MAX - at },
    ]
}

fn spread(len: u64, fingerprint: fn(u64) -> u64) -> Hint {
    let slot = |at| {
        let hash = KeyHash { fingerprint: fingerprint(at), extra: 0 };
        HintSlot::new(hash, 64 + at * 32, 32, Flags::default())
    };
    let mut slots: Vec<HintSlot> = (0..len).map(slot).collect();
    slots.sort_by(HintSlot::order);
    Hint { summary: Summary { entries: len, ..Summary::default() }, slots }
}

/// A disk with a hint on it.
fn on_disk(bytes: Vec<u8>) -> (Fs, Dir) {
    let (twin, dir) = (Twin::new(), Dir::new("/store".into()));
    twin.create_dir(Path::new("/store")).unwrap();
    twin.put_file(&dir.hint(source().id), bytes);
    (Fs::Twin(twin), dir)
}

fn ranges() -> impl Iterator<Item = Range<usize>> {
    (0..=SHARD_COUNT).flat_map(|end| (0..=end).map(move |start| start..end))
}

#[test]
fn a_part_of_a_hint_equals_that_part_of_the_whole() {
    for fingerprint in spreads() {
        for len in [0, 1, 255, 256, 3000, 20_000] {
            let hint = spread(len, fingerprint);
            let (fs, dir) = on_disk(hint.encode(source()));
            let file = HintFile::open(&fs, &dir, source()).unwrap();
            assert_eq!(*file.summary(), hint.summary);
            for shards in ranges() {
                let expected: Vec<_> = hint
                    .slots
                    .iter()
                    .copied()
                    .filter(|slot| shards.contains(&slot.shard()))
                    .collect();
                assert_eq!(hint.slots_of(&shards), expected);
                assert_eq!(file.slots(&fs, &shards), Some(expected), "{shards:?} of {len}");
            }
        }
    }
}

/// If the guess is right, only a part of the hint is read.
#[test]
fn a_part_of_a_large_hint_is_read_without_the_rest() {
    let bytes = spread(40_000, spreads()[0]).encode(source());
    let (last, len) = (bytes.len() - 1, bytes.len());
    for (damaged, shards) in [(last, 0..8), (last, 3..4), (len / 2, 0..4), (512, 9..SHARD_COUNT)] {
        let mut bytes = bytes.clone();
        bytes[damaged] ^= 1;
        let (fs, dir) = on_disk(bytes);
        let file = HintFile::open(&fs, &dir, source()).unwrap();
        assert!(file.slots(&fs, &shards).is_some(), "{shards:?}");
        assert!(file.slots(&fs, &(0..SHARD_COUNT)).is_none());
    }
}

/// With any damaged byte, reading a part returns either the right slots or `None`.
#[test]
fn a_damaged_byte_makes_a_part_unusable_or_leaves_it_as_it_is() {
    for fingerprint in spreads() {
        let hint = spread(1100, fingerprint);
        let bytes = hint.encode(source());
        let parts = [0..1, 5..6, 15..16, 2..9, 0..SHARD_COUNT];
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let (fs, dir) = on_disk(damaged);
            let Some(file) = HintFile::open(&fs, &dir, source()) else {
                assert!(at < 512, "byte {at}");
                continue;
            };
            assert!(at >= 512, "byte {at}");
            for shards in &parts {
                let part = file.slots(&fs, shards);
                assert!(part.is_none_or(|part| part == hint.slots_of(shards)), "byte {at}");
            }
            assert_eq!(file.slots(&fs, &(0..SHARD_COUNT)), None, "byte {at}");
        }
    }
}

#[test]
fn a_hint_that_is_cut_or_gone_or_of_another_size_is_not_used() {
    let hint = spread(600, spreads()[0]);
    let bytes = hint.encode(source());
    let (fs, dir) = on_disk(bytes.clone());
    let Fs::Twin(twin) = &fs else { unreachable!() };
    let path = dir.hint(source().id);
    let file = HintFile::open(&fs, &dir, source()).unwrap();
    for size in (0..bytes.len()).step_by(7) {
        twin.put_file(&path, bytes[..size].to_vec());
        assert_eq!(HintFile::open(&fs, &dir, source()), None);
        // The file may be cut between the two reads.
        assert_eq!(file.slots(&fs, &(0..SHARD_COUNT)), None);
    }
    twin.put_file(&path, [bytes, vec![0]].concat());
    assert_eq!(HintFile::open(&fs, &dir, source()), None);
    twin.delete_file(&path);
    assert_eq!(HintFile::open(&fs, &dir, source()), None);
    assert_eq!(file.slots(&fs, &(0..1)), None);
}

#[test]
fn slots_out_of_order_are_damage_even_with_valid_checksums() {
    for (a, b) in [(0, 1), (254, 255), (100, 500)] {
        let mut hint = spread(600, spreads()[0]);
        hint.slots.swap(a, b);
        let (fs, dir) = on_disk(hint.encode(source()));
        let file = HintFile::open(&fs, &dir, source()).unwrap();
        assert_eq!(file.slots(&fs, &(0..SHARD_COUNT)), None);
    }
}

/// More entries than the segment has room for would require unbounded memory.
#[test]
fn a_summary_that_claims_too_much_is_not_used() {
    let mut hint = Hint::default();
    hint.summary.entries = source().length / 20 + 1;
    let mut bytes = hint.encode(source());
    bytes.resize(usize::try_from(encoded_size(hint.summary.entries)).unwrap(), 0);
    let (fs, dir) = on_disk(bytes);
    assert_eq!(HintFile::open(&fs, &dir, source()), None);
}
