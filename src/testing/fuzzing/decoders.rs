//! Fuzzes the decoders of entries, hints, manifests and compressed values.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::input::{BLOCK_SIZE, Input, SUMMARY_SIZE, repair_entry, repair_hint, repair_manifest};
use super::{DIR, IDENTITY};
use crate::clock::TIME_MAX;
use crate::entry::{ALIGNMENT, BodySum, Entry, HEADER_SIZE, HEADER_SIZE_MAX, Invalid, Salt};
use crate::fs::Fs;
use crate::key_hash::KeyHasher;
use crate::keydir::SHARD_COUNT;
use crate::manifest::Manifest;
use crate::options::Compression;
use crate::segment::hint::{Hint, HintFile, HintSlot, HintSource};
use crate::segment::{Dir, SegmentId};
use crate::testing::twin::Twin;

/// The place of the entries in these inputs.
const SALT: (u32, u64) = (7, 4096);

/// Decodes arbitrary bytes as an entry, first unchanged, then with the correct checksum.
pub fn entry(bytes: &[u8]) {
    let salt = Salt::new(SALT.0, SALT.1);
    check_entry(bytes, salt);
    let mut bytes = bytes.to_vec();
    if repair_entry(&mut bytes, salt).is_none() {
        return;
    }
    check_entry(&bytes, salt);
    let repaired = Entry::decode(&bytes).unwrap().unwrap();
    let checked = repaired.check(salt);
    assert!(
        matches!(checked, Ok(()) | Err(Invalid::UnknownFlags(_) | Invalid::UnknownCodec(_))),
        "{repaired:?} has the right checksum: {checked:?}"
    );
    // The same bytes in another place are not a valid entry.
    assert_eq!(repaired.check(Salt::new(SALT.0, SALT.1 + ALIGNMENT)), Err(Invalid::Checksum));
    assert_eq!(repaired.check(Salt::new(SALT.0 + 1, SALT.1)), Err(Invalid::Checksum));
    // Neither are they with any one bit flipped, including those of the checksum, but not those of
    // the padding.
    let bit = usize::from(bytes[0]) << 8 | usize::from(bytes[1]);
    let bit = bit % (repaired.value_range().end * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    let decoded = Entry::decode(&bytes);
    let is_entry = decoded.is_ok_and(|entry| entry.is_some_and(|entry| entry.check(salt).is_ok()));
    assert!(!is_entry, "the change of bit {bit} was not noticed");
}

fn check_entry(bytes: &[u8], salt: Salt) {
    let entry = match Entry::decode(bytes) {
        Ok(Some(entry)) => entry,
        Ok(None) => return assert!(bytes[..HEADER_SIZE].iter().all(|byte| *byte == 0)),
        Err(_) => return,
    };
    let header = &entry.header().unwrap();
    assert!((HEADER_SIZE..=HEADER_SIZE_MAX).contains(&header.size()));
    let end = header.size() as u64 + entry.key().len() as u64 + entry.value().len() as u64;
    assert_eq!(header.entry_size(), end.next_multiple_of(ALIGNMENT));
    assert!(header.entry_size() <= bytes.len() as u64);
    assert_eq!(entry.key().len(), usize::from(header.key_size));
    assert_eq!(entry.value().len(), header.value_size as usize);
    assert!((1..TIME_MAX).contains(&header.timestamp));
    // Encoding the decoded header restores its bytes. The checksum is restored only if it was
    // correct.
    let encoded = header.encode(BodySum::of(entry.key(), entry.value()), salt);
    let (checksum, rest) = encoded.as_slice().split_at(4);
    assert_eq!(rest, &bytes[4..header.size()]);
    if entry.check(salt).is_ok() {
        assert_eq!(checksum, &bytes[..4]);
    }
    if let Ok(raw) = entry.raw_value() {
        assert_eq!(raw.len(), header.raw_size.unwrap_or(header.value_size) as usize);
    }
}

/// Decodes arbitrary bytes as a manifest, first unchanged, then with the correct checksum.
pub fn manifest(bytes: &[u8]) {
    check_manifest(bytes);
    let mut bytes = [bytes, b"\nchecksum\n"].concat();
    repair_manifest(&mut bytes);
    check_manifest(&bytes);
    // The store never writes a last line without a line end. The checksum takes its place.
    repair_manifest(&mut bytes);
    check_manifest(&bytes);
}

fn check_manifest(bytes: &[u8]) {
    let path = Path::new("MANIFEST");
    let manifest = match Manifest::decode(bytes, path) {
        Ok(manifest) => manifest,
        Err(error) if error.is_unsupported() => return,
        Err(crate::Error::Corrupt { offset, .. }) => {
            return assert!(offset <= bytes.len() as u64);
        }
        Err(other) => panic!("{other}"),
    };
    let ids: BTreeSet<_> = manifest.sealed.iter().map(|sealed| sealed.id).collect();
    assert_eq!(ids.len(), manifest.sealed.len(), "an id is listed twice");
    assert!(ids.iter().all(|id| *id < manifest.bound));
    assert!(manifest.log < manifest.bound || !manifest.log_exists);
    let again = Manifest::decode(manifest.encode().as_bytes(), path).unwrap();
    assert_eq!(again, manifest);
}

/// Reads arbitrary bytes as a segment's hint: unchanged, as a modification of a valid hint, or with
/// everything that ties them to the segment corrected.
pub fn hint(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let source = HintSource { id: SegmentId(3), identity: IDENTITY, length: 1 << 20 };
    match input.byte() % 3 {
        0 => drop(read_hint(input.take(bytes.len()), source)),
        1 => changed_hint(&mut input, source),
        _ => forged_hint(input.take(bytes.len()), source),
    }
}

/// Reads a hint from the disk as a store does: as a whole, and shard by shard.
fn read_hint(bytes: &[u8], source: HintSource) -> Option<Hint> {
    let twin = Twin::new();
    let dir = Dir::new(DIR.into());
    twin.put_file(&dir.hint(source.id), bytes.to_vec());
    let fs = Fs::Twin(Arc::clone(&twin));
    let file = HintFile::open(&fs, &dir, source)?;
    let summary = file.summary().clone();
    let all = file.slots(&fs, &(0..SHARD_COUNT));
    let mut by_shard = Some(Vec::new());
    for shard in 0..SHARD_COUNT {
        let slots = file.slots(&fs, &(shard..shard + 1));
        if let Some(slots) = &slots {
            assert!(slots.iter().all(|slot| slot.shard() == shard));
            assert!(slots.len() * size_of::<HintSlot>() <= bytes.len(), "more slots than bytes");
        }
        by_shard = by_shard.zip(slots).map(|(all, slots)| [all, slots].concat());
    }
    let slots = all?;
    assert_eq!(slots.len() as u64, summary.entries);
    assert_eq!(by_shard.as_ref(), Some(&slots), "the parts differ from the whole");
    Some(Hint { summary, slots })
}

/// Reads a modified hint. Each checksummed part is changed in one place of up to four bytes, either
/// in the covered bytes or in the checksum, which a CRC-32 always detects. The file may also be
/// truncated or extended.
fn changed_hint(input: &mut Input<'_>, source: HintSource) {
    let written = some_hint(input.below(600));
    let encoded = written.encode(source);
    let mut bytes = encoded.clone();
    let (summary, blocks) = bytes.split_at_mut(SUMMARY_SIZE);
    for part in [summary].into_iter().chain(blocks.chunks_mut(BLOCK_SIZE)) {
        let (summed, sum) = part.split_last_chunk_mut::<4>().unwrap();
        let at = input.below(2 * summed.len());
        let changed = summed.get_mut(at..).unwrap_or(sum);
        changed.iter_mut().take(input.below(5)).for_each(|byte| *byte ^= input.byte());
    }
    match input.byte() % 8 {
        0 => bytes.truncate(input.below(encoded.len())),
        1 => bytes.extend_from_slice(input.bytes()),
        _ => {}
    }
    match read_hint(&bytes, source) {
        None => assert!(bytes != encoded, "a valid hint was refused"),
        Some(read) => assert_eq!(read, written, "a changed hint was accepted"),
    }
}

/// Returns a hint with slots for `len` keys, in order.
fn some_hint(len: usize) -> Hint {
    let mut hint = Hint::default();
    let hasher = KeyHasher::new(IDENTITY.hash_seed);
    for number in 0..len as u64 {
        let hash = hasher.hash(&number.to_be_bytes());
        let flags = crate::entry::Flags::default();
        hint.slots.push(HintSlot::new(hash, 64 + number * 32, 32, flags));
        hint.summary.expiring = vec![(number, number + 1)];
    }
    hint.slots.sort_unstable_by_key(|slot| (slot.hash().fingerprint, slot.hash().extra));
    hint.summary.entries = len as u64;
    hint
}

/// Reads bytes with a correct beginning, length, number of entries and checksums. The slots
/// themselves are arbitrary.
fn forged_hint(bytes: &[u8], source: HintSource) {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().max(SUMMARY_SIZE), 0);
    let slots = bytes.len() - SUMMARY_SIZE;
    let (blocks, rest) = (slots / BLOCK_SIZE, slots % BLOCK_SIZE);
    let rest = rest.saturating_sub(4) / 16;
    let size = blocks * BLOCK_SIZE + if rest > 0 { rest * 16 + 4 } else { 0 };
    bytes.truncate(SUMMARY_SIZE + size);
    let right = some_hint(0).encode(source);
    bytes[..48].copy_from_slice(&right[..48]);
    let entries = (blocks * 255 + rest) as u64;
    bytes[48..56].copy_from_slice(&entries.to_be_bytes());
    // A hint with more than 16 steps would be refused immediately.
    bytes[96..103].fill(0);
    bytes[103] %= 18;
    repair_hint(&mut bytes, source.id);
    if let Some(hint) = read_hint(&bytes, source) {
        let again = read_hint(&hint.encode(source), source);
        assert_eq!(again, Some(hint), "encoding changes the hint");
    }
}

/// Decompresses arbitrary bytes, and compresses and decompresses arbitrary values, with each
/// codec of this build.
pub fn codec(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let raw_size = u32::try_from(input.below(1 << 16) << (input.byte() % 17)).unwrap();
    let rest = input.take(bytes.len());
    for (compressor, _) in Compression::all().into_iter().filter_map(Compression::compressor) {
        let codec = compressor.codec;
        let ratio_max = if codec.number() == 1 { 255 } else { 32 << 10 };
        if let Ok(raw) = codec.decompress(rest, raw_size) {
            assert_eq!(raw.len(), raw_size as usize);
            assert!(
                raw.len() <= ratio_max * rest.len(),
                "more than the stored bytes can expand to"
            );
        }
        let stored = compressor.compress(rest).unwrap();
        let raw_size = u32::try_from(rest.len()).unwrap();
        assert_eq!(codec.decompress(&stored, raw_size).as_deref(), Ok(rest));
    }
}
