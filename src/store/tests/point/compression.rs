//! Compressed and uncompressed values in one store.
//!
//! - These tests also cover how a build without a codec treats entries that use it: they forge a
//!   number that no build has. `tests/it/format.rs` has stores that were really written with a
//!   codec.

use crate::entry::{BodySum, Header};
use crate::store::tests::*;

/// Returns the compressions that have an effect; none in a build without codecs.
fn codecs() -> impl Iterator<Item = Compression> {
    Compression::all().into_iter().filter(|compression| *compression != Compression::None)
}

fn lab_with(compression: Compression) -> Lab {
    let lab = Lab::new();
    let options = lab.options.clone().segment_size(1 << 16).compression(compression);
    lab.with(options)
}

/// Returns bytes that do not compress.
fn noise(size: usize) -> Vec<u8> {
    let mut random = crate::store::tests::story::Random(1);
    let mut bytes = vec![0; size];
    random.garbage(&mut bytes);
    bytes
}

#[test]
fn values_are_compressed_if_that_makes_the_entry_smaller() {
    for compression in codecs() {
        let lab = lab_with(compression);
        let db = lab.open();
        let mut expected = Model::new();
        for size in 0..300_usize {
            // An incompressible part and a compressible part.
            let mut value = noise(size / 2);
            value.resize(size, b'x');
            let key = size.to_be_bytes().to_vec();
            db.put(&key, &value).unwrap();
            expected.insert(key, Stored { value, expiry: None });
        }
        let mut compressed = 0;
        for entry in log_entries(&lab).into_iter().filter(|entry| !entry.key.is_empty()) {
            let raw = &expected[&entry.key].value;
            match entry.raw_size {
                None => assert_eq!(entry.value, *raw),
                Some(raw_size) => {
                    assert_eq!(raw_size as usize, raw.len());
                    let padded = |size: usize| (20 + entry.key.len() + size).next_multiple_of(8);
                    assert!(padded(4 + entry.value.len()) < padded(raw.len()));
                    compressed += 1;
                }
            }
        }
        assert!((100..300).contains(&compressed), "{compressed}");
        check(&db, &expected);
        check(&lab.killed().open(), &expected);
        check(&lab.reopen(db), &expected);
    }
}

#[test]
fn values_written_with_different_options_are_read_alike() {
    for compression in codecs() {
        let lab = lab_with(compression);
        let plain = lab_with(Compression::None).on(Arc::clone(&lab.twin));
        let long = |letter: &str| letter.repeat(1000);
        let (a, b, c, d) = (long("a"), long("b"), long("c"), long("d"));
        let db = lab.open();
        db.put("a", &a).unwrap();
        db.write(Batch::new().put("b", &b).put("c", &c).delete("a")).unwrap();
        db.close().unwrap();
        let db = plain.open();
        db.put("a", &b).unwrap();
        check(&db, &model([("a", &b), ("b", &b), ("c", &c)]));
        // Reads, comparisons and closures get the value that was put, before and after the
        // reopening.
        let found = db.compare_and_swap("b", Some(b"b"), None).unwrap().unwrap_err();
        assert_eq!(found.current.unwrap(), b);
        let swapped = db.compare_and_swap("b", Some(b.as_bytes()), Some(d.as_bytes()));
        assert!(swapped.unwrap().is_ok());
        db.close().unwrap();
        let db = lab.open();
        let append = |old: Option<&[u8]>| Some([old.unwrap(), b"!"].concat());
        let stored = db.update("c", append).unwrap().unwrap();
        assert_eq!(stored, format!("{c}!"));
        assert!(!db.put_if_absent("c", &a).unwrap());
        assert!(db.put_if_absent("d", &d).unwrap());
        let c = format!("{c}!");
        check(&db, &model([("a", &b), ("b", &d), ("c", &c), ("d", &d)]));
        let sizes: Vec<_> =
            log_entries(&lab).into_iter().filter_map(|entry| entry.raw_size).collect();
        assert_eq!(sizes, [1000, 1000, 1000, 1001, 1000]);
    }
}

#[test]
fn size_limits_apply_before_compression() {
    for compression in codecs() {
        let lab = lab_with(compression);
        let db = lab.try_open_with(lab.options.clone().value_size_limit(1000)).unwrap();
        db.put("a", [0; 1000]).unwrap();
        let error = db.put("b", [0; 1001]).unwrap_err();
        assert!(matches!(error, Error::ValueTooLarge { size: 1001, limit: 1000 }), "{error}");
        assert_eq!(db.len().unwrap(), 1);
    }
}

#[test]
fn a_compressed_value_pins_no_segment() {
    for compression in codecs() {
        let db = lab_with(compression).open();
        db.put("compressed", [7; 1000]).unwrap();
        db.put("plain", noise(1000)).unwrap();
        let number = db.inner.segments.all()[0].0;
        let holders = || Arc::strong_count(db.inner.segments.get(number, &db.inner.pin()));
        let nobody = holders();
        let compressed = db.get("compressed").unwrap();
        assert_eq!(holders(), nobody);
        let plain = db.get("plain").unwrap();
        assert_eq!(holders(), nobody + 1);
        drop((compressed, plain));
    }
}

/// Changes the bytes of the first segment from its first entry on.
fn change(lab: &Lab, change: impl FnOnce(&mut [u8])) {
    let (_, path) = lab.logs().remove(0);
    let mut bytes = lab.twin.contents(&path).unwrap();
    change(&mut bytes[64..]);
    lab.twin.put_file(&path, bytes);
}

#[test]
fn unchecked_damage_to_compressed_bytes_gives_an_error_or_a_value_of_the_right_size() {
    for compression in codecs() {
        let lab = lab_with(compression);
        let db = lab.open();
        let mut raw = noise(40);
        raw.extend(b"to be or not to be ".repeat(20));
        db.put("key", &raw).unwrap();
        db.put("other", "value").unwrap();
        db.close().unwrap();
        let stored = log_entries(&lab).remove(0);
        let start = 24 + 3;
        let (mut errors, mut wrong) = (0, 0);
        // The raw size, and the value.
        for at in (20..24).chain(start..start + stored.value.len()) {
            for to in (0..=255_u8).step_by(17) {
                let image = lab.on(lab.twin.fork());
                let mut same = false;
                change(&image, |bytes| same = std::mem::replace(&mut bytes[at], to) == to);
                let options = image.options.clone().verify_reads(false);
                let db = image.clone().with(options).open_read_only();
                assert_eq!(db.get("other").unwrap().unwrap(), "value");
                match db.get_with("key", <[u8]>::to_vec) {
                    Ok(value) => {
                        let value = value.unwrap();
                        assert_eq!(value.len(), raw.len());
                        assert!(!same || value == raw);
                        assert!(at >= start || same, "a damaged size can't be right");
                        wrong += u32::from(value != raw);
                    }
                    Err(Error::Corrupt { path, offset: 64, reason }) => {
                        assert_eq!(path, image.logs()[0].1);
                        assert!(reason.contains("compress"), "{reason}");
                        errors += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert!(errors > 100 && wrong > 100, "{errors} {wrong}");
    }
}

#[test]
fn an_invalid_compressed_value_with_a_valid_checksum_is_corrupt() {
    for compression in codecs() {
        for raw_size in [0, 1, 999, 1001, 1 << 20, u32::MAX] {
            let lab = lab_with(compression);
            let db = lab.open();
            db.put("key", [7; 1000]).unwrap();
            db.close().unwrap();
            forge(&lab, |header| header.raw_size = Some(raw_size));
            for verify in [true, false] {
                let db = lab.try_open_with(lab.options.clone().verify_reads(verify)).unwrap();
                let error = db.get("key").unwrap_err();
                let (_, path) = lab.logs().remove(0);
                assert!(
                    matches!(&error, Error::Corrupt { path: named, offset: 64, .. }
                                 if *named == path),
                    "{raw_size}: {error}"
                );
                assert!(db.iter_unordered().next().unwrap().is_err());
                assert_eq!(
                    db.get_into("key", &mut vec![1]).unwrap_err().to_string(),
                    error.to_string()
                );
                kill(db);
            }
        }
    }
}

/// Changes the header of the first entry, and updates its checksum.
fn forge(lab: &Lab, change_header: impl FnOnce(&mut Header)) {
    change(lab, |bytes| {
        let entry = Entry::decode(bytes).unwrap().unwrap();
        let (mut header, size) = (entry.header().unwrap(), entry.layout.header_size());
        change_header(&mut header);
        let body = BodySum::of(entry.key(), entry.value());
        let encoded = header.encode(body, Salt::new(1, 64));
        assert_eq!(encoded.as_slice().len(), size);
        bytes[..size].copy_from_slice(encoded.as_slice());
    });
}

/// Gives the value of the first entry a codec that no build has.
fn forge_codec(lab: &Lab) {
    change(lab, |bytes| {
        let entry = Entry::decode(bytes).unwrap().unwrap();
        let (key, value) = (entry.key().to_vec(), entry.value().to_vec());
        let (value, _) = value.split_at(value.len() - 4);
        // The codec's field is the last of the optional fields.
        let mut head = bytes[..entry.layout.header_size() + 4].to_vec();
        head[6] |= 1;
        head[7] |= 0x80;
        head[8..12].copy_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
        let header = Header::decode(&head).unwrap().unwrap();
        let encoded = header.encode(BodySum::of(&key, value), Salt::new(1, 64));
        let entry = [encoded.as_slice(), &key, value].concat();
        bytes[..entry.len()].copy_from_slice(&entry);
    });
}

/// A store with a value of an unknown codec under "unknown", another value under "other", and a
/// hint.
pub(crate) fn with_unknown(lab: Lab) -> Lab {
    let db = lab.open();
    db.put("unknown", "a value").unwrap();
    db.put("other", "value").unwrap();
    db.close().unwrap();
    forge_codec(&lab);
    lab
}

fn is_unknown(error: &Error) -> bool {
    let named = error.to_string();
    assert!(
        error.is_unsupported() && named.contains("0000000001.log") && named.contains("codec 3"),
        "{error}"
    );
    matches!(error, Error::UnsupportedCodec { offset: 64, codec: 3, .. })
}

#[test]
fn a_value_of_an_unknown_codec_is_refused_only_when_it_is_read() {
    // With weak hashes, lookups and fills of the keydir visit the entries of other keys.
    for lab in [Lab::new(), Lab::weak()] {
        for verify in [true, false] {
            let options = lab.options.clone().verify_reads(verify);
            let lab = with_unknown(lab.on(Twin::new()).with(options));
            let db = lab.open();
            assert!(is_unknown(&db.get("unknown").unwrap_err()));
            assert!(is_unknown(&db.get_with("unknown", |_| ()).unwrap_err()));
            assert!(is_unknown(&db.get_into("unknown", &mut Vec::new()).unwrap_err()));
            assert!(is_unknown(&db.get_many(&["unknown"]).unwrap_err()));
            assert!(is_unknown(&db.get_many_with(&["unknown"], |_, _| ()).unwrap_err()));
            assert!(is_unknown(&db.update("unknown", |_| Some("new")).unwrap_err()));
            assert!(is_unknown(&db.compare_and_swap("unknown", Some(b""), None).unwrap_err()));
            let (pairs, errors): (Vec<_>, Vec<_>) = db.iter_unordered().partition(Result::is_ok);
            assert_eq!(pairs.len(), 1);
            assert!(errors.into_iter().all(|error| is_unknown(&error.unwrap_err())));
            assert_eq!(db.keys_unordered().map(Result::unwrap).count(), 2);
            assert!(db.contains_key("unknown").unwrap());
            assert!(!db.put_if_absent("unknown", "new").unwrap());
            for number in 0..20_u8 {
                assert_eq!(db.get([number]).unwrap(), None);
                db.put([number], "new").unwrap();
            }
            assert_eq!(db.get("other").unwrap().unwrap(), "value");
            kill(db);
        }
    }
}

#[test]
fn a_value_of_an_unknown_codec_can_be_overwritten_and_deleted() {
    let changes: [fn(&Bitcask); 4] = [
        |db| db.put("unknown", "new").unwrap(),
        |db| assert!(db.delete("unknown").unwrap()),
        |db| db.write(Batch::new().put("unknown", "new").put("other", "value")).unwrap(),
        |db| db.write(Batch::new().delete("unknown").put("other", "value")).unwrap(),
    ];
    for lab in [Lab::new(), Lab::weak()] {
        for (at, change) in changes.iter().enumerate() {
            let lab = with_unknown(lab.on(Twin::new()));
            let db = lab.open();
            change(&db);
            let expected = match at % 2 {
                0 => model([("unknown", "new"), ("other", "value")]),
                _ => model([("other", "value")]),
            };
            check(&db, &expected);
            check(&lab.reopen(db), &expected);
        }
    }
}

#[test]
fn a_value_of_an_unknown_codec_expires() {
    let lab = Lab::new();
    let db = lab.open();
    let ttl = WriteOptions::new().ttl(Duration::from_secs(10));
    db.put_opt("unknown", "a value", ttl).unwrap();
    db.close().unwrap();
    forge_codec(&lab);
    let db = lab.open();
    assert!(is_unknown(&db.get("unknown").unwrap_err()));
    lab.hands.advance(Duration::from_secs(20));
    assert_eq!(db.get("unknown").unwrap(), None);
    assert!(!db.contains_key("unknown").unwrap());
    assert_eq!(db.iter_unordered().count(), 0);
    assert!(db.put_if_absent("unknown", "new").unwrap());
    check(&db, &model([("unknown", "new")]));
}

#[test]
fn a_value_of_an_unknown_codec_in_the_unsealed_log_is_refused_and_not_cut_off() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("unknown", "a value").unwrap();
    db.put("other", "value").unwrap();
    let lab = lab.on(lab.twin.kill_image_now().fork());
    kill(db);
    forge_codec(&lab);
    let before = crate::store::tests::story::files(&lab.twin);
    for read_only in [true, false] {
        let error = lab.try_open_in_role(read_only).unwrap_err();
        assert!(is_unknown(&error));
        assert!(crate::store::tests::story::files(&lab.twin) == before);
    }
}
