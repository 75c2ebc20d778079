use super::*;

const TIME: u64 = 1_700_000_000_000_000;
const EXPIRY: u64 = TIME + 60_000_000;
const MARK: Mark = Mark { segment: 3, offset: 4096 };
const SALT: Salt = Salt::new(7, 64);

/// Encodes an entry as it lies on disk.
fn encode(header: &Header, key: &[u8], value: &[u8], salt: Salt) -> Vec<u8> {
    let mut bytes = header.encode(BodySum::of(key, value), salt).as_slice().to_vec();
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(value);
    bytes.resize(usize::try_from(padded(bytes.len() as u64)).unwrap(), 0);
    bytes
}

/// Returns a header with these flags and the fields that they require.
fn header(flags: u16, key: &[u8], value: &[u8]) -> Header {
    let flags = Flags(flags);
    let sizes = (u16::try_from(key.len()).unwrap(), u32::try_from(value.len()).unwrap());
    Header {
        timestamp: TIME,
        expiry: flags.has(Flags::EXPIRES).then_some(EXPIRY),
        mark: flags.has(Flags::MARK).then_some(MARK),
        raw_size: (flags.codec() != 0).then_some(1000),
        ..Header::new(flags, sizes.0, sizes.1)
    }
}

/// Returns whether this build includes a codec.
fn is_known(codec: u16) -> bool {
    Codec::from_number(u8::try_from(codec).unwrap()).is_some()
}

/// Returns a key and a value that fit these flags, as far as any do.
fn body(flags: u16) -> (&'static [u8], &'static [u8]) {
    let flags = Flags(flags);
    if flags.has(Flags::END) {
        (b"", b"\0\0\0\x08")
    } else if flags.has(Flags::MARK_ONLY) {
        (b"", b"")
    } else if flags.has(Flags::TOMBSTONE) {
        (b"key", b"")
    } else {
        (b"key", b"a value")
    }
}

/// Decodes and checks, as every reader does.
fn read(bytes: &[u8], salt: Salt) -> Result<Option<Entry<'_>>, Invalid> {
    let Some(entry) = Entry::decode(bytes)? else { return Ok(None) };
    entry.check(salt)?;
    Ok(Some(entry))
}

/// Returns entries of every kind that is written.
fn samples() -> Vec<Vec<u8>> {
    let encoded = |flags: u16| {
        let (key, value) = body(flags);
        encode(&header(flags, key, value), key, value, SALT)
    };
    let known = (0..1 << 7).filter(|flags| {
        let (key, value) = body(*flags);
        header(*flags, key, value).flags_agree()
    });
    let mut samples: Vec<_> = known.map(encoded).collect();
    for (key, value) in [(&b""[..], &b""[..]), (b"", b"v"), (b"k", b""), (&[7; 300], &[9; 700])] {
        samples.push(encode(&header(0, key, value), key, value, SALT));
    }
    samples
}

#[test]
#[cfg_attr(miri, ignore = "safe code, and too many cases")]
fn valid_flags_are_read_as_written_and_others_are_refused() {
    let mut good = 0;
    for flags in 0..1 << 9 {
        let (key, value) = body(flags);
        let written = header(flags, key, value);
        let bytes = encode(&written, key, value, SALT);
        assert_eq!(bytes.len() as u64, written.entry_size());
        let has = |flag: Flags| Flags(flags).has(flag);
        let (end, alone, mark) = (has(Flags::END), has(Flags::MARK_ONLY), has(Flags::MARK));
        let codec = flags >> 7;
        let of_a_key = flags & 0b1_1001_1011 != 0;
        let valid = match (end, alone) {
            (true, true) => false,
            (true, false) => !of_a_key,
            (false, true) => !of_a_key && mark,
            (false, false) => !(has(Flags::TOMBSTONE) && (has(Flags::EXPIRES) || codec != 0)),
        };
        match read(&bytes, SALT) {
            Ok(Some(entry)) if valid && (codec == 0 || is_known(codec)) => {
                good += 1;
                let found = entry.header().unwrap();
                let checksum = found.checksum;
                assert_eq!(found, Header { checksum, ..written });
                assert_eq!((entry.key(), entry.value()), (key, value), "{flags:#b}");
                assert_eq!(found.is_put_or_delete(), !end && !alone);
            }
            Err(Invalid::UnknownCodec(number)) if valid && !is_known(codec) => {
                assert_eq!(u16::from(number), codec);
            }
            Err(Invalid::Flags) if !valid => {}
            other => panic!("{flags:#b}: {other:?}"),
        }
    }
    // Puts: expires, mark, continues, collides. Tombstones: without expires. Two ends, one mark.
    // And puts again with each codec of this build.
    let codecs = (1..4).filter(|number| is_known(*number)).count();
    assert_eq!(good, 16 + 8 + 2 + 1 + 16 * codecs);
}

#[test]
#[cfg_attr(miri, ignore = "safe code, and too many cases")]
fn every_flipped_bit_of_an_entry_is_noticed() {
    for bytes in samples() {
        let entry = read(&bytes, SALT).unwrap().unwrap();
        // Padding is meaningless and not in the checksum; the next append starts after it.
        let size = entry.value_range().end;
        for bit in 0..size * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // More bytes follow, so that a larger size is not refused merely for lack of bytes.
            damaged.resize(bytes.len() + 64, 0);
            assert!(read(&damaged, SALT).is_err(), "bit {bit} of {entry:?}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "safe code, and too many cases")]
fn an_entry_cut_anywhere_is_invalid() {
    for bytes in samples() {
        let size = read(&bytes, SALT).unwrap().unwrap().value_range().end;
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut], SALT), Err(Invalid::Short), "cut at {cut}");
        }
        // Lost pages read as zeros.
        for cut in 1..size {
            let mut torn = bytes.clone();
            torn[cut..].fill(0);
            assert!(torn == bytes || read(&torn, SALT).is_err(), "zeros from {cut}");
            let mut torn = bytes.clone();
            torn[..cut].fill(0);
            // Without any byte of the header, the entry reads as not written.
            let nothing = matches!(read(&torn, SALT), Err(_) | Ok(None));
            assert!(torn == bytes || nothing, "zeros up to {cut}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "safe code, and too many cases")]
fn an_entry_at_another_place_fails_its_checksum() {
    for bytes in samples() {
        for (segment, offset) in [(7, 72), (7, 56), (8, 64), (6, 64), (64, 7 * 8), (0, 64)] {
            let moved = read(&bytes, Salt::new(segment, offset));
            assert_eq!(moved, Err(Invalid::Checksum), "{segment} {offset}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "safe code, and too many cases")]
fn no_two_places_of_a_segment_share_a_salt_nor_do_neighbouring_segments() {
    let mut salts: Vec<u32> = (0..1 << 20).map(|unit| Salt::new(5, unit * 8).0).collect();
    salts.sort_unstable();
    assert!(salts.windows(2).all(|pair| pair[0] != pair[1]));
    let mut salts: Vec<u32> = (0..1 << 20).map(|segment| Salt::new(segment, 64).0).collect();
    salts.sort_unstable();
    assert!(salts.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn zeros_decode_to_none_and_too_few_bytes_are_short() {
    for size in HEADER_SIZE..=HEADER_SIZE_MAX {
        assert_eq!(Header::decode(&vec![0; size]), Ok(None));
    }
    for size in 0..HEADER_SIZE {
        assert_eq!(Header::decode(&vec![0; size]), Err(Invalid::Short));
    }
    // A header with a single bit set is not an absent header.
    for bit in 0..HEADER_SIZE * 8 {
        let mut bytes = [0; HEADER_SIZE_MAX];
        bytes[bit / 8] = 1 << (bit % 8);
        assert!(read(&bytes, SALT).is_err(), "bit {bit}");
    }
}

#[test]
fn flags_that_contradict_the_sizes_are_refused_even_if_the_checksum_matches() {
    let (tombstone, expires, mark) = (Flags::TOMBSTONE.0, Flags::EXPIRES.0, Flags::MARK.0);
    let (end, alone) = (Flags::END.0, Flags::MARK_ONLY.0);
    let cases: [(u16, &[u8], &[u8]); 9] = [
        (tombstone, b"key", b"v"),
        (tombstone | expires, b"key", b""),
        (end, b"k", b"\0\0\0\x08"),
        (end, b"", b""),
        (end, b"", b"\0\0\0\0\x08"),
        (end | alone | mark, b"", b"\0\0\0\x08"),
        (alone, b"", b""),
        (alone | mark, b"k", b""),
        (alone | mark, b"", b"v"),
    ];
    for (flags, key, value) in cases {
        let bytes = encode(&header(flags, key, value), key, value, SALT);
        assert_eq!(read(&bytes, SALT), Err(Invalid::Flags), "{:?}", Flags(flags));
    }
}

#[test]
fn unknown_flags_and_codecs_are_reported_only_if_the_checksum_matches() {
    for bit in 9..16 {
        let (key, value) = body(0);
        let bytes = encode(&header(1 << bit, key, value), key, value, SALT);
        assert_eq!(read(&bytes, SALT), Err(Invalid::UnknownFlags(1 << bit)));
        let mut damaged = bytes.clone();
        damaged[HEADER_SIZE] ^= 1;
        assert_eq!(read(&damaged, SALT), Err(Invalid::Checksum));
        assert_eq!(read(&bytes, Salt::new(7, 72)), Err(Invalid::Checksum));
    }
    for codec in (1..4_u8).filter(|number| !is_known(u16::from(*number))) {
        let (key, value) = body(0);
        let flags = u16::from(codec) << 7;
        let bytes = encode(&header(flags, key, value), key, value, SALT);
        assert_eq!(read(&bytes, SALT), Err(Invalid::UnknownCodec(codec)));
        let mut damaged = bytes;
        damaged[HEADER_SIZE + RAW_SIZE_SIZE] ^= 1;
        assert_eq!(read(&damaged, SALT), Err(Invalid::Checksum));
    }
}

#[test]
fn a_time_out_of_range_is_refused() {
    for timestamp in [0, TIME_MAX, u64::MAX] {
        let (key, value) = body(0);
        let written = Header { timestamp, ..header(0, key, value) };
        let bytes = encode(&written, key, value, SALT);
        assert_eq!(read(&bytes, SALT), Err(Invalid::Timestamp), "{timestamp}");
    }
    let (key, value) = body(0);
    for timestamp in [1, TIME_MAX - 1] {
        let written = Header { timestamp, ..header(0, key, value) };
        let bytes = encode(&written, key, value, SALT);
        assert_eq!(read(&bytes, SALT).unwrap().unwrap().timestamp(), timestamp);
    }
}

#[test]
fn an_entry_is_expired_from_its_expiry_on() {
    let header = header(Flags::EXPIRES.0, b"k", b"v");
    assert!(!header.is_expired(&Now::at(EXPIRY - 1)));
    assert!(header.is_expired(&Now::at(EXPIRY)));
    assert!(!Header::new(Flags::default(), 1, 1).is_expired(&Now::at(u64::MAX)));
}

#[test]
fn the_largest_sizes_are_decoded_without_the_bytes() {
    let all = Flags::EXPIRES.0 | Flags::MARK.0 | Flags::COLLIDES.0 | 1 << 7;
    let (key_size, value_size) = (u16::MAX, u32::MAX);
    let written = Header { key_size, value_size, ..header(all, b"", b"") };
    assert_eq!(written.size(), HEADER_SIZE_MAX);
    assert_eq!(written.entry_size(), padded(40 + 65_535 + 4_294_967_295));
    let encoded = written.encode(BodySum::default(), SALT);
    let read = Header::decode(encoded.as_slice()).unwrap().unwrap();
    assert_eq!((read.key_size, read.value_size), (key_size, value_size));
    let entry = Entry::new(read.layout(), encoded.as_slice());
    assert_eq!(entry.value_range(), 40 + 65_535..40 + 65_535 + 4_294_967_295);
    // The bytes are missing, and neither call looks for them beyond the end.
    assert_eq!((entry.key(), entry.value()), (&b""[..], &b""[..]));
    assert_eq!(Entry::decode(encoded.as_slice()), Err(Invalid::Short));
}

#[test]
#[cfg_attr(miri, ignore = "safe code, and too many bytes")]
fn the_largest_key_is_read_as_written() {
    let key = vec![0xab; 65_535];
    let bytes = encode(&header(0, &key, b"v"), &key, b"v", SALT);
    let entry = read(&bytes, SALT).unwrap().unwrap();
    assert_eq!((entry.key(), entry.value()), (&key[..], &b"v"[..]));
    assert_eq!(bytes.len() as u64, padded(20 + 65_535 + 1));
}

#[test]
fn a_mark_can_hold_every_place() {
    for mark in [Mark { segment: u32::MAX, offset: u64::from(u32::MAX) * 8 }, MARK] {
        let written = header(0, b"k", b"v").with_mark(Some(mark));
        let bytes = encode(&written, b"k", b"v", SALT);
        assert_eq!(read(&bytes, SALT).unwrap().unwrap().header().unwrap().mark, Some(mark));
    }
}

#[test]
fn a_put_is_plain_unless_it_has_optional_fields() {
    for flags in 0..1 << 9 {
        let bytes = encode(&header(flags, b"key", b"value"), b"key", b"value", SALT);
        let adds_nothing = Flags::CONTINUES.with(Flags::COLLIDES);
        let is_plain = flags & !adds_nothing.0 == 0;
        let layout = Layout::plain(&bytes);
        assert_eq!(layout.is_some(), is_plain, "{flags:#x}");
        // The other way of decoding says the same.
        assert!(layout.is_none_or(|layout| Layout::decode(&bytes) == Ok(Some(layout))));
    }
}
