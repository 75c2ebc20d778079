//! Every byte and every file of a small store, damaged in every way. A read returns the right
//! value, or the state is one that a crash could have left, or an error names the file. There is
//! never a wrong value, a panic, or an allocation for data that does not exist.

use crate::fs::Access;
use crate::options::WriteOptions;
use crate::store::tests::story::*;
use crate::store::tests::*;

/// A store of two sealed segments with hints and two unsealed ones. A mark in the second unsealed
/// segment shows that the first is durable.
fn small(lab: Lab) -> Told {
    small_with(lab, Compression::None)
}

/// The same with values to compress, where a codec exists. The sizes are about the same.
fn small_with(lab: Lab, compression: Compression) -> Told {
    let repeat = if compression == Compression::None { 1 } else { 40 };
    let value = |word: &str| word.repeat(repeat);
    let options = lab.options.clone().segment_entries(3).segment_size(512).compression(compression);
    let mut story = Story::begin(lab.with(options));
    let ttl = WriteOptions::new().ttl(Duration::from_secs(1 << 20));
    story.put("a", &value("one"));
    story.put_opt("b", &value("two"), ttl);
    story.put("c", &value("three"));
    story.batch(&[("a", &value("four")), ("d", &value("five"))], &["c"]);
    story.put("e", &value("six"));
    story.seal();
    story.put_opt("f", &value("seven"), ttl);
    story.delete("b");
    story.sync();
    story.put("a", &value("eight"));
    story.sync();
    story.batch(&[("g", &value("nine"))], &["d"]);
    let told = story.killed();
    let compressed = log_entries(&told.lab).iter().filter(|entry| entry.raw_size.is_some()).count();
    assert_eq!(compressed, if repeat == 1 { 0 } else { 9 });
    assert_eq!((told.lab.logs().len(), told.lab.hints().len()), (4, 2));
    told
}

fn is_hint(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "hint")
}

/// Returns whether an error names a file: by its path or, for a manifest that does not match the
/// segments, by the kind of error.
fn names(error: &Error, file: &Path) -> bool {
    let named = match error {
        Error::Corrupt { path, .. }
        | Error::MissingSegment { path }
        | Error::UnsupportedVersion { path, .. }
        | Error::UnsupportedCodec { path, .. }
        | Error::UnsupportedFlags { path, .. } => path,
        Error::NotFound { .. } => return file.ends_with("MANIFEST"),
        _ => return false,
    };
    named == file || file.ends_with("MANIFEST") && error.to_string().contains("manifest")
}

/// Counts of the results of opening a damaged store.
#[derive(Debug, Default)]
struct Tally {
    same: u64,
    first_parts: u64,
    refused: u64,
}

/// Opens a store with a damaged file, for writing and for reading, and judges the result. With
/// `any_segment`, the damage may first be met in a file other than the damaged one.
fn judge(told: &Told, disk: &Lab, file: &Path, any_segment: bool, when: &str, tally: &mut Tally) {
    let before = files(&disk.twin);
    let named = |error: &Error| {
        names(error, file)
            || any_segment && disk.logs().iter().any(|(_, path)| names(error, path))
            || any_segment && names(error, &Dir::new(DIR.into()).manifest())
            || any_segment && matches!(error, Error::MissingSegment { .. })
    };
    for read_only in [true, false] {
        let when = format!("{}, {when}, read-only: {read_only}", file.display());
        let result = disk.try_open_in_role(read_only);
        let db = match result {
            Ok(db) => db,
            Err(error) => {
                assert!(named(&error), "{when}: {error}");
                let after = files(&disk.twin);
                for (path, bytes) in &before {
                    assert!(is_hint(path) || after.get(path) == Some(bytes), "{when}: changed");
                }
                tally.refused += 1;
                continue;
            }
        };
        // Either nothing was found wrong, or a part of the unsealed log is missing. In the latter
        // case the state is the one after a prefix of the writes that includes the first sync,
        // because the evidence of the second sync is in the last segment itself.
        let cut = !db.recovery().cuts.is_empty();
        let unsealed = told.lab.logs().split_off(2).iter().any(|(_, path)| path == file);
        assert!(unsealed || !cut || any_segment, "{when}: {:?}", db.recovery());
        let cut = cut || unsealed;
        let states = if cut { &told.steps[7..] } else { &told.steps[told.steps.len() - 1..] };
        let matches = states.iter().any(|step| reads_as(&db, told, &step.pairs, &named, &when));
        assert!(matches, "{when}: {:?}", db.recovery());
        *if cut { &mut tally.first_parts } else { &mut tally.same } += 1;
        if read_only {
            assert_eq!(disk.twin.trace(), [], "{when}");
        }
        if is_hint(file) {
            assert_eq!(snapshot(&db), *told.last(), "{when}");
            assert!(!cut && db.recovery().rebuilt_hints <= 2, "{when}: {:?}", db.recovery());
        }
        db.kill();
    }
}

/// Returns whether every key reads as in a state, or causes an error that names the file.
fn reads_as(
    db: &Reader,
    told: &Told,
    pairs: &Pairs,
    named: &dyn Fn(&Error) -> bool,
    when: &str,
) -> bool {
    let mut keys: Vec<_> = told.steps.iter().flat_map(|step| step.pairs.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter().all(|key| match db.get(key) {
        Ok(value) => value.as_deref() == pairs.get(key).map(Vec::as_slice),
        Err(error) => {
            assert!(named(&error), "{when}: {key:?}: {error}");
            true
        }
    })
}

/// The store's files, including the lock, as they are after a writer was killed.
fn targets(told: &Told) -> Vec<(PathBuf, Vec<u8>)> {
    let all = told.lab.twin.files().into_iter();
    all.map(|path| (path.clone(), told.lab.twin.contents(&path).unwrap())).collect()
}

fn sweep(told: &Told, files: impl Fn(&Path) -> bool) {
    let mut tally = Tally::default();
    for (path, bytes) in targets(told).into_iter().filter(|(path, _)| files(path)) {
        assert!(bytes.len() <= 1536, "{} has {} bytes", path.display(), bytes.len());
        for at in 0..bytes.len() {
            let more = [bytes[at] ^ 0x80, !bytes[at], bytes[at].wrapping_add(1)];
            let more = if long() { &more[..] } else { &[] };
            for to in [bytes[at] ^ 0x01, 0, 0xff].iter().chain(more).copied() {
                if to == bytes[at] {
                    continue;
                }
                let disk = told.lab.on(told.disk());
                let mut damaged = bytes.clone();
                damaged[at] = to;
                disk.twin.put_file(&path, damaged);
                judge(told, &disk, &path, false, &format!("byte {at} is {to:#x}"), &mut tally);
            }
        }
    }
    println!("{tally:?}");
}

#[test]
fn any_byte_of_the_sealed_segments_damaged() {
    for compression in Compression::all() {
        let told = small_with(Lab::new(), compression);
        sweep(&told, |path| path.ends_with("0000000001.log") || path.ends_with("0000000002.log"));
    }
}

#[test]
fn any_byte_of_the_unsealed_segments_damaged() {
    for compression in Compression::all() {
        let told = small_with(Lab::new(), compression);
        sweep(&told, |path| path.ends_with("0000000003.log") || path.ends_with("0000000004.log"));
    }
}

#[test]
fn any_byte_of_manifest_and_lock_damaged() {
    sweep(&small(Lab::new()), |path| path.ends_with("MANIFEST") || path.ends_with("LOCK"));
}

#[test]
pub(crate) fn any_byte_of_a_hint_damaged() {
    sweep(&small(Lab::weak()), is_hint);
}

#[test]
fn any_file_cut_at_any_byte() {
    let told = small(Lab::new());
    let mut tally = Tally::default();
    for (path, bytes) in targets(&told) {
        for size in 0..bytes.len() {
            let disk = told.lab.on(told.disk());
            disk.twin.put_file(&path, bytes[..size].to_vec());
            judge(&told, &disk, &path, false, &format!("cut at {size}"), &mut tally);
            // A file system may leave the length in place without the content.
            let mut zeroed = bytes.clone();
            zeroed[size..].fill(0);
            disk.twin.put_file(&path, zeroed);
            let disk = told.lab.on(disk.twin.fork());
            let when = format!("zeroed from {size}");
            if size % 3 == 0 || long() {
                reset(&told, &disk, &path);
                judge(&told, &disk, &path, false, &when, &mut tally);
            }
        }
    }
    println!("{tally:?}");
}

/// Restores all files except one.
fn reset(told: &Told, disk: &Lab, but: &Path) {
    for path in disk.twin.files() {
        if path != but {
            disk.twin.delete_file(&path);
        }
    }
    for (path, bytes) in targets(told) {
        if path != but {
            disk.twin.put_file(&path, bytes);
        }
    }
}

#[test]
fn any_file_missing_duplicated_or_replaced_by_another() {
    let mut tally = Tally::default();
    for lab in [Lab::new(), Lab::weak()] {
        let told = small(lab.clone());
        let other = small(lab.on(Twin::new()));
        for (path, bytes) in targets(&told) {
            let fresh = || told.lab.on(told.disk());
            let disk = fresh();
            disk.twin.delete_file(&path);
            judge(&told, &disk, &path, true, "missing", &mut tally);
            let disk = fresh();
            disk.twin.put_file(&path, [&bytes[..], &bytes[..]].concat());
            judge(&told, &disk, &path, false, "doubled", &mut tally);
            let disk = fresh();
            disk.twin.put_file(&path, other.lab.twin.contents(&path).unwrap());
            judge(&told, &disk, &path, true, "of another store", &mut tally);
            for (source, _) in targets(&told) {
                let disk = fresh();
                // Two files that have changed places, of the same kind or not.
                let swapped = told.lab.twin.contents(&source).unwrap();
                disk.twin.put_file(&path, swapped);
                judge(&told, &disk, &path, false, "a copy of another file", &mut tally);
                if source.extension() == path.extension() && source != path {
                    let disk = fresh();
                    disk.twin.put_file(&path, told.lab.twin.contents(&source).unwrap());
                    disk.twin.put_file(&source, bytes.clone());
                    judge(&told, &disk, &path, true, "swapped", &mut tally);
                }
            }
        }
    }
    println!("{tally:?}");
}

/// The manifest of another store may name none of the present segments. They are not leftovers, and
/// none may be removed.
#[test]
fn the_manifest_of_another_store_removes_nothing() {
    let told = small(Lab::new());
    let other = Lab::new();
    // The other store was cleared: its manifest lists nothing, and has used many ids.
    let mut db = other.open();
    for _ in 0..12 {
        db.put("a", "1").unwrap();
        db.clear().unwrap();
        db = other.reopen(db);
    }
    kill(db);
    let manifest = Dir::new(DIR.into()).manifest();
    let disk = told.lab.on(told.disk());
    disk.twin.put_file(&manifest, other.twin.contents(&manifest).unwrap());
    let before = files(&disk.twin);
    for read_only in [true, false] {
        let error = disk.try_open_in_role(read_only).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert_eq!(files(&disk.twin), before);
    }
}

/// Hints are derived: damage to them changes only how many are rebuilt.
#[test]
fn missing_and_damaged_hints_change_only_the_rebuilt_count() {
    for lab in [Lab::new(), Lab::weak()] {
        let told = small(lab);
        let db = told.lab.open();
        db.inner.work();
        kill(db);
        let closed = told.lab.twin.fork();
        let hints = told.lab.hints();
        assert_eq!(hints.len(), 4);
        for gone in 0..1_u32 << hints.len() {
            let disk = told.lab.on(closed.fork());
            for (at, (_, path)) in hints.iter().enumerate() {
                match (gone >> at & 1, at % 2) {
                    (0, _) => {}
                    (_, 0) => disk.twin.delete_file(path),
                    _ => disk.twin.put_file(path, b"no hint at all".to_vec()),
                }
            }
            let db = disk.open_read_only();
            assert_eq!(db.recovery().rebuilt_hints, u64::from(gone.count_ones()));
            assert_eq!(snapshot(&db), *told.last());
            drop(db);
            let db = disk.open();
            let report = db.recovery().clone();
            assert_eq!(report.rebuilt_hints, u64::from(gone.count_ones()));
            assert_eq!(RecoveryReport { rebuilt_hints: 0, ..report }, RecoveryReport::default());
            assert_eq!(snapshot(&db), *told.last());
            db.inner.work();
            kill(db);
            for (_, path) in &hints {
                assert_eq!(
                    disk.twin.contents(path),
                    closed.contents(path),
                    "closing must not change the hints"
                );
            }
            assert!(disk.open().recovery().is_clean());
        }
    }
}

/// Files of an implausible length are refused before memory is allocated for them.
#[test]
fn files_of_an_absurd_length_take_no_memory() {
    let told = small(Lab::new());
    for (path, _) in targets(&told) {
        let disk = told.lab.on(told.disk());
        let file = Fs::Twin(Arc::clone(&disk.twin)).open(&path, Access::Write).unwrap();
        // Like a disk, the twin allocates a file's space only when it is written.
        file.set_size(1 << 34).unwrap();
        drop(file);
        let named = path.file_name().unwrap().to_str().unwrap();
        if told.lab.logs().iter().skip(2).any(|(_, log)| *log == path) {
            // An unsealed segment may have any length; all of it is examined.
            continue;
        }
        let disk = disk.on(Arc::clone(&disk.twin));
        match disk.try_open() {
            Ok(db) => {
                for (key, value) in told.last() {
                    assert_eq!(db.get(key).unwrap().as_deref(), Some(value.as_slice()), "{named}");
                }
                kill(db);
            }
            Err(error) => assert!(names(&error, &path), "{named}: {error}"),
        }
    }
}
