//! Checks that `docs/format.md` and the code agree.
//!
//! - Every example is decoded by the real decoders, encoded again, and printed with the offsets and
//!   sizes of the byte tables. The result has to match the document's text exactly.
//! - A field that moves, grows or changes its meaning on either side thus fails here.

use std::fmt::Write as _;
use std::path::Path;

use crate::entry::{
    ALIGNMENT, BodySum, Entry, Flags, HEADER_SIZE, HEADER_SIZE_MAX, Header, Invalid, Mark, Salt,
};
use crate::fs::{Access, Fs};
use crate::key_hash::{KeyHash, KeyHasher};
use crate::manifest::{Manifest, Sealed};
use crate::options::{AppendMode, Compression};
use crate::segment::header::{Identity, Kind, SIZE, SegmentHeader, VERSION};
use crate::segment::hint::{Hint, HintSlot, HintSource};
use crate::segment::index::RunBuilder;
use crate::segment::read::scan::Scanned;
use crate::segment::write::active::Active;
use crate::segment::write::draft::Draft;
use crate::segment::{Dir, FIRST_OFFSET, SegmentId};
use crate::testing::twin::Twin;

const DOCUMENT: &str = include_str!("../docs/format.md");

const IDENTITY: Identity = Identity { store_id: 0x0123_4567_89ab_cdef, hash_seed: 42 };
const CREATED: u64 = 1_700_000_000_000_000;
const SEGMENT: SegmentId = SegmentId(1);

/// The examples of entries, in the order in which they lie in the segment.
const ENTRIES: [&str; 8] = [
    "put",
    "put with expiry",
    "tombstone",
    "batch of two entries",
    "collides",
    "put with mark",
    "lone mark",
    "end entry",
];

/// Returns the text of a section, from its heading to the next one.
fn section(heading: &str) -> &'static str {
    let mut found = None;
    for (at, line) in line_starts(DOCUMENT).filter(|(_, line)| line.starts_with('#')) {
        match found {
            Some(start) => return &DOCUMENT[start..at],
            None if line.trim_start_matches('#').trim() == heading => found = Some(at),
            None => {}
        }
    }
    &DOCUMENT[found.unwrap_or_else(|| panic!("no heading {heading}"))..]
}

/// Returns lines with their offsets, skipping those within code fences.
fn line_starts(text: &'static str) -> impl Iterator<Item = (usize, &'static str)> {
    let mut offset = 0;
    let mut fenced = false;
    text.split_inclusive('\n').filter_map(move |line| {
        let at = offset;
        offset += line.len();
        let fence = line.starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((at, line.trim_end()))
    })
}

/// Returns the content of an example's only code block.
fn example(name: &str, language: &str) -> &'static str {
    let text = section(&format!("Example: {name}"));
    let (_, block) = text.split_once(&format!("```{language}\n")).unwrap();
    block.split_once("```").unwrap().0
}

/// Returns the bytes of a hex block.
fn bytes(block: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in block.lines() {
        let digits = line.split('#').next().unwrap().trim();
        for word in digits.split_whitespace() {
            if let Some(count) = word.strip_prefix("00*") {
                bytes.resize(bytes.len() + count.parse::<usize>().unwrap(), 0);
            } else {
                assert!(word.len() % 2 == 0, "{line}");
                let digits = (0..word.len()).step_by(2);
                bytes.extend(
                    digits.map(|at| u8::from_str_radix(&word[at..at + 2], 16).expect(line)),
                );
            }
        }
    }
    bytes
}

fn hex(bytes: &[u8]) -> String {
    if bytes.len() > 8 && bytes.iter().all(|byte| *byte == 0) {
        return format!("00*{}", bytes.len());
    }
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A row of a byte table.
#[derive(Debug)]
struct Row {
    offset: &'static str,
    size: &'static str,
    kind: &'static str,
    field: &'static str,
}

/// Returns the byte table of a section.
fn byte_table(heading: &str) -> Vec<Row> {
    let cells = table(heading, "offset");
    let row =
        |row: &Vec<&'static str>| Row { offset: row[0], size: row[1], kind: row[2], field: row[3] };
    assert_eq!(cells[0], ["offset", "size", "type", "field", "meaning"]);
    cells[2..].iter().map(row).collect()
}

/// Returns the table with this first column heading in a section, including its heading row.
fn table(heading: &str, first: &str) -> Vec<Vec<&'static str>> {
    let cells = |line: &'static str| -> Vec<&'static str> {
        line.trim_matches('|').split('|').map(str::trim).collect()
    };
    let lines = section(heading).lines().filter(|line| line.starts_with('|')).map(cells);
    let from: Vec<_> = lines.skip_while(|row| row[0] != first).collect();
    let end = from.iter().skip(1).position(|row| row[0] == "bits").map_or(from.len(), |at| at + 1);
    from[..end].to_vec()
}

/// Prints bytes field by field according to a fixed byte table, each with its value. Checks that
/// the table has no gap.
fn print_fixed(table: &[Row], bytes: &[u8], value: impl Fn(&str, &[u8]) -> String) -> String {
    let mut text = String::new();
    let mut end = 0;
    for row in table {
        let (offset, size): (usize, usize) =
            (row.offset.parse().unwrap(), row.size.parse().unwrap());
        assert_eq!(offset, end, "{row:?}");
        end = offset + size;
        print(&mut text, row.field, &bytes[offset..end], &value(row.field, &bytes[offset..end]));
    }
    assert_eq!(end, bytes.len());
    text
}

fn print(text: &mut String, field: &str, bytes: &[u8], value: &str) {
    let value = if value.is_empty() { String::new() } else { format!(" {value}") };
    let _ = writeln!(text, "{:<24}  # {field}{value}", hex(bytes));
}

fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

/// Returns the names of the flags that are set, as `Flags` prints them.
fn flag_names(flags: Flags) -> String {
    let debug = format!("{flags:?}");
    let (_, names) = debug.split_once('[').unwrap();
    let names = names.trim_end_matches(']').replace('"', "");
    if names.is_empty() { "none".into() } else { names }
}

fn print_segment_header(bytes: &[u8]) -> String {
    let header = SegmentHeader::decode(bytes.try_into().unwrap(), Path::new("example")).unwrap();
    assert_eq!(header.encode(), bytes);
    print_fixed(&byte_table("Segment header"), bytes, |field, _| match field {
        "magic" => "\"bitcask\\0\"".into(),
        "version" => VERSION.to_string(),
        "kind" => format!("{} {:?}", header.kind as u16, header.kind).to_lowercase(),
        "segment id" => header.id.0.to_string(),
        "store id" => format!("{:#018x}", header.identity.store_id),
        "hash seed" => header.identity.hash_seed.to_string(),
        "created" => header.created.to_string(),
        "reserved" | "checksum" => String::new(),
        other => panic!("{other}"),
    })
}

/// Prints the entry at an offset; returns where the next one starts.
fn print_entry(text: &mut String, bytes: &[u8], offset: u64) -> u64 {
    let entry = Entry::decode(bytes).unwrap().unwrap();
    let (header, key, value) = (entry.header().unwrap(), entry.key(), entry.value());
    // A build without the codec recognizes it by its number, and can read everything except the
    // value.
    let checked = entry.check(Salt::new(SEGMENT.0, offset));
    let lacks_codec = header.raw_size.is_some() && checked == Err(Invalid::UnknownCodec(1));
    assert!(checked.is_ok() || lacks_codec, "{checked:?}");
    let size = usize::try_from(header.entry_size()).unwrap();

    let mut encoded =
        header.encode(BodySum::of(key, value), Salt::new(SEGMENT.0, offset)).as_slice().to_vec();
    encoded.extend_from_slice(key);
    encoded.extend_from_slice(value);
    encoded.resize(size, 0);
    assert_eq!(encoded, bytes[..size]);

    let _ = writeln!(text, "# segment {}, offset {offset}, size {size}", SEGMENT.0);
    let mut at = 0;
    for row in byte_table("Entry") {
        let mark = header.mark.map(|mark| (mark.segment, mark.offset));
        let shown = match row.field {
            "checksum" => Some(String::new()),
            "key size" => Some(header.key_size.to_string()),
            "flags" => Some(flag_names(header.flags)),
            "value size" => Some(header.value_size.to_string()),
            "timestamp" => Some(header.timestamp.to_string()),
            "expiry" => header.expiry.map(|expiry| expiry.to_string()),
            "mark segment" => mark.map(|(segment, _)| segment.to_string()),
            "mark offset" => mark.map(|(_, offset)| format!("{} = {offset} / 8", offset / 8)),
            "raw size" => header.raw_size.map(|size| size.to_string()),
            "key" => (!key.is_empty()).then(|| quoted(key)),
            "value" if header.flags.has(Flags::END) => {
                Some(format!("segment {}", u32::from_be_bytes(value.try_into().unwrap())))
            }
            "value" if header.raw_size.is_some() => Some("compressed".into()),
            "value" => (!value.is_empty()).then(|| quoted(value)),
            "padding" => (at < size).then(String::new),
            other => panic!("{other}"),
        };
        let Some(shown) = shown else { continue };
        assert!(row.offset == ".." || row.offset == at.to_string(), "{row:?}");
        let end = match row.size {
            "key size" => at + usize::from(header.key_size),
            "value size" => at + header.value_size as usize,
            "0 to 7" => size,
            fixed => at + fixed.parse::<usize>().unwrap(),
        };
        print(text, row.field, &bytes[at..end], &shown);
        at = end;
    }
    assert_eq!(at, size);
    offset + size as u64
}

fn print_hint(bytes: &[u8], source: HintSource, keys: &[(u64, Vec<u8>)]) -> String {
    let hint = Hint::decode(bytes, source).unwrap();
    assert_eq!(hint.encode(source), bytes);
    let table = byte_table("Summary");
    let end = table.iter().map(|row| row.size.parse::<usize>().unwrap()).sum();
    let (summary, expiring) = (&hint.summary, &hint.summary.expiring);
    let mut text = print_fixed(&table, &bytes[..end], |field, _| match field {
        "magic" => "\"bc-hint\\0\"".into(),
        "version" => "1".into(),
        "segment id" => source.id.0.to_string(),
        "store id" => format!("{:#018x}", source.identity.store_id),
        "hash seed" => source.identity.hash_seed.to_string(),
        "segment length" => source.length.to_string(),
        "entries" => summary.entries.to_string(),
        "tombstones" => summary.tombstones.to_string(),
        "tombstone size" => summary.tombstone_size.to_string(),
        "key size" => summary.key_size.to_string(),
        "value size" => summary.value_size.to_string(),
        "first timestamp" => summary.first_timestamp.to_string(),
        "last timestamp" => summary.last_timestamp.to_string(),
        "steps" => expiring.len().to_string(),
        "expiring" => "@".into(),
        "reserved" | "checksum" => String::new(),
        other => panic!("{other}"),
    });
    // Each step gets its own line.
    let line = text.lines().find(|line| line.ends_with(" # expiring @")).unwrap().to_owned();
    let row = table.iter().find(|row| row.field == "expiring").unwrap();
    assert_eq!(row.kind, "16 x (u64, u64)");
    let offset: usize = row.offset.parse().unwrap();
    let size: usize = row.size.parse().unwrap();
    let mut steps = String::new();
    for (step, at) in expiring.iter().zip((offset..).step_by(16)) {
        print(&mut steps, "expiring: time", &bytes[at..at + 8], &step.0.to_string());
        print(&mut steps, "expiring: bytes", &bytes[at + 8..at + 16], &step.1.to_string());
    }
    print(&mut steps, "steps not in use", &bytes[offset + expiring.len() * 16..offset + size], "");
    text = text.replace(&(line + "\n"), &steps);

    let [fingerprint, word] = &byte_table("Slot")[..] else { panic!("a slot has two words") };
    assert_eq!(
        [fingerprint.offset, fingerprint.size, word.offset, word.size],
        ["0", "8", "8", "8"]
    );
    for (slot, at) in hint.slots.iter().zip((end..).step_by(16)) {
        let (_, key) = keys.iter().find(|(offset, _)| *offset == slot.offset()).unwrap();
        let shown = format!("of key {}", quoted(key));
        print(&mut text, "fingerprint", &bytes[at..at + 8], &shown);
        let mut word = format!(
            "offset {}, extra {:#05x}, size {}",
            slot.offset(),
            slot.hash().extra,
            slot.size().unwrap()
        );
        let low = bytes[at + 15];
        for (bit, name) in [(4, "tombstone"), (2, "expires"), (1, "collides")] {
            if low & bit != 0 {
                word = word + ", " + name;
            }
        }
        print(&mut text, "word", &bytes[at + 8..at + 16], &word);
    }
    let at = end + hint.slots.len() * 16;
    print(&mut text, "checksum of the block", &bytes[at..], "");
    text
}

/// Prints an index of one block.
fn print_index(bytes: &[u8], source: HintSource) -> String {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
    let decimal = |bytes: &[u8]| number(bytes).to_string();
    let table = byte_table("Index header");
    let header_size = table.iter().map(|row| row.size.parse::<usize>().unwrap()).sum();
    let (header, mut rest) = bytes.split_at(header_size);
    let mut text = print_fixed(&table, header, |field, bytes| match field {
        "magic" => quoted(bytes),
        "store id" => format!("{:#018x}", source.identity.store_id),
        "reserved" | "checksum" => String::new(),
        _ => decimal(bytes),
    });
    let mut field = |name: &str, size: u64, value: &dyn Fn(&[u8]) -> String| {
        let (bytes, after) = rest.split_at(usize::try_from(size).unwrap());
        print(&mut text, name, bytes, &value(bytes));
        rest = after;
        number(bytes)
    };
    let nothing = |_: &[u8]| String::new();
    for _ in 0..number(&header[48..56]) {
        let (mut size, mut word) = (0, 0);
        for row in byte_table("Row") {
            match row.field {
                "key size" => size = field(row.field, 2, &decimal),
                "word" => {
                    word = field(row.field, 4, &|bytes| {
                        let word = number(bytes);
                        let name = ["", ", expires", ", tombstone"][usize::from(bytes[3] & 3)];
                        format!("offset {}{name}", (word >> 6) * 8)
                    });
                }
                "expiry" if word & 1 == 0 => {}
                "timestamp" | "expiry" => drop(field(row.field, 8, &decimal)),
                "key" => drop(field(row.field, size, &quoted)),
                other => panic!("{other}"),
            }
        }
    }
    field("checksum of the block", 4, &nothing);
    field("block size", 4, &decimal);
    for name in ["lead", "last key"] {
        let size = field(&format!("{name} size"), 2, &decimal);
        field(name, size, &quoted);
    }
    field("checksum of the directory", 4, &nothing);
    assert!(rest.is_empty());
    text
}

/// Returns the segment that the examples make up.
fn example_segment() -> Vec<u8> {
    let mut segment = bytes(example("segment header", "hex"));
    for name in ENTRIES {
        segment.extend(bytes(example(name, "hex")));
    }
    segment
}

/// Returns offsets and keys of a segment's puts and deletes.
fn example_keys(segment: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut keys = Vec::new();
    let mut at = SIZE;
    while let Ok(Some(entry)) = Entry::decode(&segment[at..]) {
        if entry.layout.flags.are_of_a_put_or_delete() {
            keys.push((at as u64, entry.key().to_vec()));
        }
        at += usize::try_from(entry.layout.entry_size()).unwrap();
    }
    keys
}

fn example_source(segment: &[u8]) -> HintSource {
    HintSource { id: SEGMENT, identity: IDENTITY, length: segment.len() as u64 }
}

#[test]
fn the_segment_header_is_as_documented() {
    let block = example("segment header", "hex");
    assert_eq!(print_segment_header(&bytes(block)), block);
    let last = byte_table("Segment header").pop().unwrap();
    assert_eq!((last.offset, last.size), ("60", "4"));
    assert_eq!((SIZE, FIRST_OFFSET), (64, 64));
}

#[test]
fn the_examples_of_entries_are_as_documented() {
    let mut offset = FIRST_OFFSET;
    for name in ENTRIES {
        let block = example(name, "hex");
        let bytes = bytes(block);
        let (mut text, start) = (String::new(), offset);
        while offset < start + bytes.len() as u64 {
            let at = usize::try_from(offset - start).unwrap();
            offset = print_entry(&mut text, &bytes[at..], offset);
        }
        assert_eq!(text, block, "{name}");
    }
}

/// The example is not in the segment: a build without the codec would not scan past it.
#[test]
fn the_example_of_a_compressed_value_is_as_documented() {
    let block = example("compressed value", "hex");
    let bytes = bytes(block);
    let mut text = String::new();
    assert_eq!(print_entry(&mut text, &bytes, FIRST_OFFSET), FIRST_OFFSET + bytes.len() as u64);
    assert_eq!(text, block);
    let entry = Entry::decode(&bytes).unwrap().unwrap();
    for compression in Compression::all() {
        if let Some((compressor, _)) =
            compression.compressor().filter(|(each, _)| each.codec.number() == 1)
        {
            let raw = b"abcabcabc".repeat(10);
            assert_eq!(entry.raw_value().unwrap(), raw);
            let draft = Draft::put_compressed(b"packed", &raw, None, compressor);
            assert_eq!(draft.header.raw_size, entry.header().unwrap().raw_size);
            assert_eq!(draft.header.flags, entry.layout.flags);
        }
    }
    assert!(section("Flags").contains("0 not at all, 1 with LZ4, 2 with Zstandard. 3 is unknown"));
}

#[test]
fn the_examples_of_entries_match_their_headings() {
    let flags = |name: &str| -> Vec<Flags> {
        let bytes = bytes(example(name, "hex"));
        let mut rest = &bytes[..];
        let mut flags = Vec::new();
        while let Ok(Some(entry)) = Entry::decode(rest) {
            flags.push(entry.layout.flags);
            rest = &rest[usize::try_from(entry.layout.entry_size()).unwrap()..];
        }
        flags
    };
    let expected: [&[Flags]; 8] = [
        &[Flags::default()],
        &[Flags::EXPIRES],
        &[Flags::TOMBSTONE],
        &[Flags::CONTINUES, Flags::default()],
        &[Flags::COLLIDES],
        &[Flags::MARK],
        &[Flags::MARK_ONLY.with(Flags::MARK)],
        &[Flags::END],
    ];
    for (name, expected) in ENTRIES.into_iter().zip(expected) {
        assert_eq!(flags(name), expected, "{name}");
    }
}

#[test]
fn the_fixed_header_has_the_documented_size() {
    let (mut fixed, mut optional) = (0, 0);
    for row in byte_table("Entry") {
        match (row.offset.parse::<usize>(), row.size.parse::<usize>()) {
            (Ok(offset), Ok(size)) => {
                assert_eq!(offset, fixed, "{row:?}");
                fixed += size;
            }
            (Err(_), Ok(size)) => optional += size,
            _ => {}
        }
    }
    assert_eq!((fixed, fixed + optional), (HEADER_SIZE, HEADER_SIZE_MAX));
    let all = Header::decode(&all_fields()).unwrap().unwrap();
    assert_eq!(all.size(), HEADER_SIZE_MAX);
    assert_eq!(all.expiry, Some(0x0102_0304_0506_0708));
    assert_eq!(all.mark, Some(Mark { segment: 0x1112_1314, offset: 0x2122_2324 * ALIGNMENT }));
    assert_eq!(all.raw_size, Some(0x3132_3334));
    assert!(section("Entry").contains("header has 20 bytes, a header with all fields 40"));
    assert!(section("Entry").contains("An entry starts at a multiple of 8"));
    assert_eq!((HEADER_SIZE, HEADER_SIZE_MAX, ALIGNMENT), (20, 40, 8));
}

/// Returns a header with all optional fields, laid out by the document's table.
fn all_fields() -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in byte_table("Entry") {
        match row.field {
            "checksum" | "value size" => bytes.extend([9; 4]),
            "key size" => bytes.extend([0; 2]),
            // Codec 1, mark, expires.
            "flags" => bytes.extend([0, 0x80 | 0x04 | 0x02]),
            "timestamp" => bytes.extend(CREATED.to_be_bytes()),
            "expiry" => bytes.extend([1, 2, 3, 4, 5, 6, 7, 8]),
            "mark segment" => bytes.extend([0x11, 0x12, 0x13, 0x14]),
            "mark offset" => bytes.extend([0x21, 0x22, 0x23, 0x24]),
            "raw size" => bytes.extend([0x31, 0x32, 0x33, 0x34]),
            _ => {}
        }
    }
    bytes
}

#[test]
fn the_flags_have_the_documented_bits() {
    let constants = [
        Flags::TOMBSTONE,
        Flags::EXPIRES,
        Flags::MARK,
        Flags::CONTINUES,
        Flags::COLLIDES,
        Flags::END,
        Flags::MARK_ONLY,
    ];
    let rows = table("Flags", "bit");
    let rows = &rows[2..];
    assert_eq!(rows.len(), constants.len() + 1);
    for (row, flag) in rows.iter().zip(constants) {
        let bit: u32 = row[0].parse().unwrap();
        assert_eq!(format!("{flag:?}"), format!("{:#06x} [{:?}]", 1 << bit, row[1]));
    }
    assert_eq!(rows.last().unwrap()[..2], ["7, 8", "codec"]);
    for codec in 1..=3_u8 {
        let mut bytes = all_fields();
        bytes[6..8].copy_from_slice(&(u16::from(codec) << 7).to_be_bytes());
        let header = Header::decode(&bytes).unwrap().unwrap();
        assert!(header.raw_size.is_some(), "codec {codec}");
    }
}

#[test]
fn the_hint_is_as_documented() {
    let segment = example_segment();
    let block = example("hint", "hex");
    let printed = print_hint(&bytes(block), example_source(&segment), &example_keys(&segment));
    assert_eq!(printed, block);
    assert_eq!(Hint::default().encode(example_source(&segment)).len(), 512);
}

#[test]
fn the_documented_segment_produces_the_hint() {
    let fs = Fs::Twin(Twin::new());
    let segment = example_segment();
    fs.create_dir(Path::new("/store")).unwrap();
    let file = fs.open(Path::new("/store/segment"), Access::Create).unwrap();
    file.write_at(&segment, 0).unwrap();
    let source = example_source(&segment);
    let hasher = KeyHasher::new(IDENTITY.hash_seed);
    let hint = Hint::build(&file, source, |key| hasher.hash(key)).unwrap();
    assert_eq!(hint.encode(source), bytes(example("hint", "hex")));
}

#[test]
fn the_documented_segment_produces_the_index() {
    let segment = example_segment();
    let (mut builder, mut offset) = (RunBuilder::default(), FIRST_OFFSET);
    while let Some(rest) = segment.get(usize::try_from(offset).unwrap()..)
        && let Ok(Some(entry)) = Entry::decode(rest)
    {
        builder.add(&Scanned { offset, header: entry.header().unwrap(), key: entry.key() });
        offset += entry.layout.entry_size();
    }
    let source = example_source(&segment);
    let encoded = builder.finish(SEGMENT).encode(source);
    let block = example("index", "hex");
    assert_eq!(print_index(&encoded, source), block);
    assert_eq!(bytes(block), encoded);
}

#[test]
fn an_index_is_laid_out_as_documented() {
    assert_eq!(byte_table("Index header").last().unwrap().offset, "92");
    let [size, lead_size, lead] = &byte_table("Lead")[..] else {
        panic!("a lead has three fields")
    };
    assert_eq!([size.size, lead_size.offset, lead.offset], ["4", "4", "6"]);
    let bits: Vec<_> = table("Row", "bits").iter().skip(2).map(|row| (row[0], row[1])).collect();
    let expected =
        [("31 to 6", "offset"), ("5 to 2", "reserved"), ("1", "tombstone"), ("0", "expires")];
    assert_eq!(bits, expected);
}

#[test]
fn a_hint_has_the_documented_number_of_steps() {
    let table = byte_table("Summary");
    let row = table.iter().find(|row| row.field == "expiring").unwrap();
    let size: usize = row.size.parse().unwrap();
    let source = example_source(&example_segment());
    let round_trip = |len: usize| {
        let mut hint = Hint::default();
        hint.summary.expiring = (1..).map(|step| (step, step)).take(len).collect();
        Hint::decode(&hint.encode(source), source) == Some(hint)
    };
    assert!(round_trip(size / 16));
    assert!(!round_trip(size / 16 + 1));
}

#[test]
fn a_hint_slot_has_the_documented_bits() {
    let rows = table("Slot", "bits");
    let bit = |field: &str| -> (u32, u32) {
        let row = rows.iter().find(|row| row[1] == field).unwrap();
        let (high, low) = row[0].split_once(" to ").unwrap_or((row[0], row[0]));
        (high.parse().unwrap(), low.parse().unwrap())
    };
    let hash = KeyHash { fingerprint: 2, extra: 1 };
    let flags = [
        ("tombstone", Flags::TOMBSTONE),
        ("expires", Flags::EXPIRES),
        ("collides", Flags::COLLIDES),
    ];
    let word = |offset, size, hash, flags| {
        let hint =
            Hint { slots: vec![HintSlot::new(hash, offset, size, flags)], ..Hint::default() };
        let bytes = hint.encode(example_source(&[]));
        u64::from_be_bytes(bytes[520..528].try_into().unwrap())
    };
    let zero = KeyHash { fingerprint: 2, extra: 0 };
    let none = Flags::default();
    assert_eq!(word(8, 0, zero, none), 1 << bit("offset").1);
    assert_eq!(word(0, 0, hash, none), 1 << bit("extra").1);
    assert_eq!(word(0, 8, zero, none), 1 << bit("size").1);
    let all_ones = (1 << (bit("size").0 + 1)) - (1 << bit("size").1);
    assert_eq!(word(0, 8 << 23, zero, none), all_ones);
    for (name, flag) in flags {
        assert_eq!(word(0, 0, zero, flag), 1 << bit(name).0);
    }
}

#[test]
fn a_block_of_a_hint_has_the_documented_length() {
    assert!(section("Hint").contains("Every block but the last has 255 slots"));
    let hash = KeyHash { fingerprint: 2, extra: 0 };
    let slots = |len| vec![HintSlot::new(hash, 64, 32, Flags::default()); len];
    let size =
        |len| Hint { slots: slots(len), ..Hint::default() }.encode(example_source(&[])).len();
    assert_eq!(size(255), 512 + 255 * 16 + 4);
    assert_eq!(size(256), 512 + 256 * 16 + 8);
}

#[test]
fn the_salt_is_as_documented() {
    assert!(section("Checksum and salt").contains("0x9E3779B97F4A7C15"));
    for (segment, offset) in [(1, 64), (7, 4096), (u32::MAX, (512 << 20) - 8)] {
        let place = (u64::from(segment) << 32) ^ (offset / 8);
        let product = u128::from(place) * 0x9E37_79B9_7F4A_7C15 % (1 << 64);
        let salt = u32::try_from(product >> 32).unwrap();
        let (key, value) = (b"key", b"value");
        let mut header = Header::new(Flags::default(), 3, 5);
        header.timestamp = CREATED;
        let encoded = header.encode(BodySum::of(key, value), Salt::new(segment, offset));
        let (checksum, rest) = encoded.as_slice().split_at(4);
        let sum = crc32fast::hash(&[key, &value[..], rest].concat());
        assert_eq!((sum ^ salt).to_be_bytes(), checksum);
    }
}

#[test]
fn the_manifest_is_as_documented() {
    let text = example("manifest", "text");
    let manifest = Manifest::decode(text.as_bytes(), Path::new("example")).unwrap();
    assert_eq!(manifest.encode(), text);
    assert_eq!(manifest, example_manifest(example_segment().len() as u64));
}

fn example_manifest(length: u64) -> Manifest {
    let mut manifest = Manifest::new(IDENTITY);
    manifest.reserve(SEGMENT);
    manifest.log = SegmentId(2);
    manifest.log_exists = true;
    manifest.sealed.push(Sealed { id: SEGMENT, kind: Kind::Log, length });
    manifest
}

#[test]
fn the_engine_writes_the_documented_files() {
    let segment = example_segment();
    assert_eq!(written_segment(), segment);
    for name in ["LOCK", "MANIFEST", "0000000001.log", "0000000001.hint", "0000000001.index"] {
        assert!(section("Files").contains(&format!("| `{name}` |")), "{name}");
    }
    let dir = Dir::new("/store".into());
    let derived = [dir.hint(SEGMENT), dir.index(SEGMENT)];
    let names = [dir.lock(), dir.manifest(), dir.log(SEGMENT)].into_iter().chain(derived);
    for path in names {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(section("Files").contains(&format!("| `{name}` |")), "{name}");
    }
    let cut = dir.quarantined(crate::segment::Place::new(SegmentId(3), 4096));
    let cut = cut.strip_prefix("/store").unwrap().to_str().unwrap();
    assert!(section("Files").contains(&format!("| `{cut}` |")), "{cut}");
}

/// Returns the same segment, appended entry by entry.
fn written_segment() -> Vec<u8> {
    let fs = Fs::Twin(Twin::new());
    let dir = Dir::new("/store".into());
    fs.create_dir(dir.path()).unwrap();
    let (kind, id, identity, created) = (Kind::Log, SEGMENT, IDENTITY, CREATED);
    let header = SegmentHeader { kind, id, identity, created };
    let mut active = Active::create(&fs, &dir, header, 4096, AppendMode::Positioned).unwrap();
    let mut batch = Draft::put(b"a", b"1", None);
    batch.header.flags = batch.header.flags.with(Flags::CONTINUES);
    let mut collides = Draft::put(b"twin", b"x", None);
    collides.header.flags = collides.header.flags.with(Flags::COLLIDES);
    let drafts = [
        Draft::put(b"answer", b"42", None),
        Draft::put(b"session", b"token", Some(CREATED + 3_600_000_000)),
        Draft::tombstone(b"answer"),
        batch,
        Draft::put(b"b", b"2", None),
        collides,
    ];
    let mut timestamp = CREATED;
    for draft in drafts {
        timestamp += 1;
        active.append(&draft, timestamp).unwrap();
    }
    for mut draft in [Draft::put(b"next", b"", None), Draft::mark_only()] {
        timestamp += 1;
        draft.header = draft.header.with_mark(Some(active.end().into()));
        active.append(&draft, timestamp).unwrap();
    }
    active.finish(SegmentId(2), None, timestamp + 1).unwrap();
    let mut bytes = vec![0; usize::try_from(active.end().offset).unwrap()];
    active.file().read_at(&mut bytes, 0).unwrap();
    bytes
}
