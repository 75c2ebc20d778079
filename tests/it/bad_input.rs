//! Invalid arguments and damaged or foreign directories: each causes a distinct error that names
//! the file and says what to do, and each leaves everything unchanged.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]
#![expect(clippy::indexing_slicing, reason = "an out-of-bounds index in a helper fails the test")]

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bitcask::{
    AutoMerge, Batch, Bitcask, Error, MergePolicy, Options, ReadOnly, Reader, SyncPolicy,
};
use tempfile::TempDir;

use crate::support::{
    Actor, FIRST_OFFSET, Forged, actor, contents, crash_copy, crc32, files_of, logs, open,
    open_read_only, pairs, patch, refused, refused_to_read, small, unsealed_copy,
};

/// Creates a store with several sealed segments, and closes it.
fn closed_store() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for number in 0..100_u32 {
        db.put(number.to_be_bytes(), [number.to_be_bytes()[3]; 100]).unwrap();
    }
    db.close().unwrap();
    assert!(logs(dir.path()).len() >= 3);
    dir
}

/// Checks that a store holds what `closed_store` put there.
fn assert_whole(path: &Path) {
    let db = open(path);
    assert_eq!(db.len().unwrap(), 100);
    for number in 0..100_u32 {
        assert_eq!(db.get(number.to_be_bytes()).unwrap().unwrap(), [number.to_be_bytes()[3]; 100]);
    }
}

/// Checks that opening for writing and opening for reading both fail for the same reason, and that
/// the message names the file.
fn refused_to_all(dir: &Path, file: &Path) -> Error {
    let reading = refused_to_read(dir);
    let writing = refused(dir, small());
    assert_eq!(reading.to_string(), writing.to_string());
    let message = writing.to_string();
    assert!(message.contains(&file.display().to_string()), "{message} does not name the file");
    writing
}

#[test]
fn a_write_that_is_too_large_is_refused_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), small().value_size_limit(1000)).unwrap();
    db.put("key", "value").unwrap();
    let (appends, before) = (db.stats().appends, contents(dir.path()));
    let key = vec![0; 65_536];
    let errors = [
        db.put(&key, "").unwrap_err(),
        db.put("key", [0; 1001]).unwrap_err(),
        db.write(Batch::new().put("key", "other").put(&key, "")).unwrap_err(),
        db.write(Batch::new().put("key", "other").put("big", [0; 1001])).unwrap_err(),
        db.write(Batch::new().delete("key").delete(&key)).unwrap_err(),
        db.compare_and_swap("key", Some(b"value"), Some(&[0; 1001])).unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_invalid_input(), "{error}");
        let message = error.to_string();
        let key = message == "the key has 65536 bytes, the limit is 65535";
        assert!(key || message == "the value has 1001 bytes, the limit is 1000", "{message}");
    }
    assert_eq!(db.stats().appends, appends);
    assert!(before == contents(dir.path()));
    assert_eq!(db.get("key").unwrap().unwrap(), "value");
    db.put("key", [0; 1000]).unwrap();
}

#[test]
fn a_batch_too_large_for_any_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    db.put("0", "before").unwrap();
    let part = vec![0; 104 << 20];
    let mut batch = (0..5_u8).map(|key| ([key], &part)).collect::<Batch>();
    let error = db.write(batch.delete("0")).unwrap_err();
    assert!(matches!(error, Error::BatchTooLarge { size, limit } if size > limit), "{error}");
    assert!(error.is_invalid_input() && error.to_string().contains("split it"), "{error}");
    assert_eq!((db.len().unwrap(), db.stats().appends), (1, 1));
    assert_eq!(db.get("0").unwrap().unwrap(), "before");
    db.write(Batch::new().put("1", "after")).unwrap();
}

#[test]
fn an_invalid_option_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let new = Options::new;
    let interval = |interval| new().sync_policy(SyncPolicy::Interval(interval));
    let check =
        |interval| new().merge_policy(MergePolicy::Auto(AutoMerge::new().check_interval(interval)));
    let bad = [
        ("segment_size", "0", new().segment_size(0)),
        ("segment_size", "511", new().segment_size(511)),
        ("segment_size", "536870913", new().segment_size((512 << 20) + 1)),
        ("segment_size", "18446744073709551615", new().segment_size(u64::MAX)),
        ("segment_entries", "0", new().segment_entries(0)),
        ("key_size_limit", "65536", new().key_size_limit(65_536)),
        ("value_size_limit", "4294967296", new().value_size_limit(1 << 32)),
        ("sync_policy", "Interval(0)", new().sync_policy(SyncPolicy::Interval(Duration::ZERO))),
        ("sync_policy", "Interval(1ns)", interval(Duration::from_nanos(1))),
        ("dir_mode", "0o677", new().dir_mode(0o677)),
        ("file_mode", "0o1644", new().file_mode(0o1644)),
        ("check_interval", "0", check(Duration::ZERO)),
        ("check_interval", "1ns", check(Duration::from_nanos(1))),
    ];
    for (knob, given, options) in bad {
        for opened in [
            Bitcask::open(&store, options.clone()).map(drop),
            ReadOnly::open(&store, options).map(drop),
        ] {
            let error = opened.unwrap_err();
            assert!(error.is_invalid_input());
            let message = error.to_string();
            assert!(message.contains(&format!("`{knob}` is {given}: ")), "{message}");
            let Error::InvalidOption { name, value, .. } = error else { panic!("{error}") };
            assert_eq!((name, value.as_str()), (knob, given));
        }
    }
    assert!(!store.exists(), "options are checked before anything is created");
    let extremes = [
        new().segment_size(512),
        new().segment_size(512 << 20).segment_entries(u64::MAX),
        new().key_size_limit(65_535).value_size_limit((1 << 32) - 1),
        new().sync_policy(SyncPolicy::Interval(Duration::MAX)),
        interval(Duration::from_millis(1)),
        check(Duration::from_millis(1)),
        check(Duration::MAX),
    ];
    for options in extremes {
        let db = Bitcask::open(&store, options).unwrap();
        db.put("key", "value").unwrap();
        db.close().unwrap();
    }
}

#[test]
fn a_path_to_a_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "content").unwrap();
    let opens: [fn(&Path) -> bitcask::Result<()>; 3] = [
        |path| Bitcask::open(path, small()).map(drop),
        |path| ReadOnly::open(path, small()).map(drop),
        |path| Bitcask::open(path, small().create_if_missing(false)).map(drop),
    ];
    for open in opens {
        let error = refused_file(&path, open);
        assert!(matches!(&error, Error::NotADirectory { path: found } if *found == path));
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        let below = path.join("store");
        let error = Bitcask::open(&below, small()).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert!(error.to_string().contains(&below.display().to_string()), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), b"content");
}

fn refused_file(path: &Path, open: fn(&Path) -> bitcask::Result<()>) -> Error {
    let error = open(path).unwrap_err();
    assert_eq!(fs::read(path).unwrap(), b"content");
    error
}

/// Sets the permissions of a directory.
fn permit(dir: &Path, mode: u32) {
    fs::set_permissions(dir, Permissions::from_mode(mode)).unwrap();
}

/// Returns the output of a process that opens a store without being root, or `None` if no such
/// process can be started.
fn output_of_unprivileged_process(part: &str, store: &Path) -> Option<String> {
    let mut command = actor(part, store);
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65_534).gid(65_534);
    }
    match Actor::start(command) {
        Ok(mut actor) => actor.hear(),
        Err(error) => {
            println!("skipped: cannot start a process as another user than root: {error}");
            None
        }
    }
}

#[test]
fn an_unreadable_directory_is_refused() {
    let dir = closed_store();
    let inner = dir.path().join("store");
    fs::create_dir(&inner).unwrap();
    permit(dir.path(), 0o755);
    permit(&inner, 0);
    let said = ["opener", "reader"].map(|part| output_of_unprivileged_process(part, &inner));
    permit(&inner, 0o755);
    for said in said.into_iter().flatten() {
        assert!(said.contains("Permission denied"), "{said}");
        assert!(said.contains(&inner.display().to_string()), "{said}");
    }
    assert_eq!(fs::read_dir(&inner).unwrap().count(), 0);
}

#[test]
fn a_write_protected_directory_opens_for_reading_only() {
    let dir = closed_store();
    permit(dir.path(), 0o555);
    let before = contents(dir.path());
    let lock = dir.path().join("LOCK");
    fs::set_permissions(&lock, Permissions::from_mode(0o444)).unwrap();
    if let Some(said) = output_of_unprivileged_process("opener", dir.path()) {
        assert!(said.contains("Permission denied"), "{said}");
        assert!(said.contains(&lock.display().to_string()), "{said}");
    }
    if let Some(said) = output_of_unprivileged_process("reader", dir.path()) {
        assert_eq!(said, "100 keys");
    }
    permit(dir.path(), 0o755);
    fs::set_permissions(&lock, Permissions::from_mode(0o644)).unwrap();
    assert!(before == contents(dir.path()));
    assert_whole(dir.path());
}

#[test]
fn foreign_files_are_left_alone() {
    let dir = closed_store();
    let foreign = [
        "notes.txt",
        "0000000001.log.bak",
        "0000000001.log~",
        "0000000099.log.tmp.old",
        "00000000001.log",
        "1.log",
        "0000000099.LOG",
        "MANIFEST.bak",
        "LOCK.old",
        "half.tmp",
        ".hidden",
    ];
    let directories = ["0000000099.log", "0000000098.hint", "0000000097.log.tmp", "backup"];
    for name in foreign {
        fs::write(dir.path().join(name), name).unwrap();
    }
    for name in directories {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("0000000001.log"), name).unwrap();
    }
    let check = |dir: &Path| {
        for name in foreign {
            assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), name);
        }
        for name in directories {
            let below = dir.join(name).join("0000000001.log");
            assert_eq!(fs::read_to_string(below).unwrap(), name);
        }
    };
    assert_whole(dir.path());
    assert_eq!(open_read_only(dir.path()).len().unwrap(), 100);
    let db = open(dir.path());
    assert!(db.recovery().is_clean(), "{:?}", db.recovery());
    db.put("key", "value").unwrap();
    let copy = crash_copy(dir.path());
    assert_eq!(open(copy.path()).len().unwrap(), 101);
    check(copy.path());
    db.clear().unwrap();
    db.close().unwrap();
    check(dir.path());
}

#[test]
fn a_store_can_be_created_in_a_directory_with_foreign_files() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.txt"), "notes").unwrap();
    fs::create_dir(dir.path().join("0000000099.log")).unwrap();
    let db = open(dir.path());
    db.put("key", "value").unwrap();
    db.close().unwrap();
    assert_eq!(open(dir.path()).get("key").unwrap().unwrap(), "value");
    assert_eq!(fs::read_to_string(dir.path().join("notes.txt")).unwrap(), "notes");
}

/// Changes the version in a segment's header to 2, and updates the header's checksum.
fn renew_header(log: &Path) {
    patch(log, |bytes| {
        bytes[9] = 2;
        let checksum = crc32(&bytes[..60]);
        bytes[60..64].copy_from_slice(&checksum.to_be_bytes());
    });
}

#[test]
fn a_segment_of_a_newer_format_is_refused_by_its_version() {
    let sealed = closed_store();
    let unsealed = unsealed_copy(small(), |db| db.put("key", "value").unwrap());
    for dir in [sealed, unsealed] {
        let log = logs(dir.path()).remove(0);
        renew_header(&log);
        let error = refused_to_all(dir.path(), &log);
        assert!(error.is_unsupported() && !error.is_corruption());
        assert!(matches!(error, Error::UnsupportedVersion { found: 2, supported: 1, .. }));
        assert!(error.to_string().contains("newer release"), "{error}");
    }
}

/// Changes the text of a manifest, and updates its checksum.
fn rewrite_manifest(dir: &Path, change: impl FnOnce(&str) -> String) -> PathBuf {
    let path = dir.join("MANIFEST");
    let text = fs::read_to_string(&path).unwrap();
    let changed = change(&text[..text.find("checksum").unwrap()]);
    fs::write(&path, format!("{changed}checksum {:08x}\n", crc32(changed.as_bytes()))).unwrap();
    path
}

#[test]
fn a_manifest_of_a_newer_format_is_refused_by_its_version() {
    let dir = closed_store();
    rewrite_manifest(dir.path(), str::to_owned);
    assert_whole(dir.path());
    let path = rewrite_manifest(dir.path(), |text| {
        text.replace("manifest 1\n", "manifest 2\n") + "something new\n"
    });
    let error = refused_to_all(dir.path(), &path);
    assert!(matches!(error, Error::UnsupportedVersion { found: 2, supported: 1, .. }), "{error}");
}

const UNKNOWN_FLAG: u16 = 1 << 12;
const UNKNOWN_CODEC: u16 = 3 << 7;

/// Sets an unknown flag on the entry at an offset of a segment and updates its checksum, as a newer
/// build would write it.
fn flag(log: &Path, segment: u32, offset: usize) {
    patch(log, |bytes| {
        let mut entry = Forged::read(bytes, offset);
        entry.flags |= UNKNOWN_FLAG;
        entry.write(bytes, segment, offset);
    });
}

/// Marks the value of the first entry as compressed.
fn compress(log: &Path, segment: u32) {
    patch(log, |bytes| {
        let mut entry = Forged::read(bytes, FIRST_OFFSET);
        entry.flags |= UNKNOWN_CODEC;
        entry.fields = 1000_u32.to_be_bytes().to_vec();
        let size = entry.value.len() - 4;
        entry.value.truncate(size);
        entry.write(bytes, segment, FIRST_OFFSET);
    });
}

fn is_unknown_flag(error: &Error, log: &Path, at: usize) -> bool {
    assert!(error.is_unsupported() && !error.is_corruption(), "{error}");
    let message = error.to_string();
    assert!(message.contains("flags 0x1000") && message.contains(&log.display().to_string()));
    matches!(error, Error::UnsupportedFlags { path, offset, flags: UNKNOWN_FLAG }
             if path == log && *offset == at as u64)
}

fn is_unknown_codec(error: &Error, log: &Path) -> bool {
    assert!(error.is_unsupported() && !error.is_corruption(), "{error}");
    let message = error.to_string();
    assert!(message.contains("codec 3") && message.contains(&log.display().to_string()));
    matches!(error, Error::UnsupportedCodec { path, offset: 64, codec: 3 } if path == log)
}

#[test]
fn an_entry_forged_without_changes_is_read() {
    let dir = closed_store();
    let log = logs(dir.path()).remove(0);
    let before = contents(dir.path());
    patch(&log, |bytes| Forged::read(bytes, FIRST_OFFSET).write(bytes, 1, FIRST_OFFSET));
    assert!(
        before == contents(dir.path()),
        "forging must reproduce the original bytes, or the other tests prove nothing"
    );
}

#[test]
fn an_entry_from_a_newer_build_is_refused_when_it_is_read() {
    for verify_reads in [true, false] {
        for codec in [true, false] {
            let dir = closed_store();
            let log = logs(dir.path()).remove(0);
            if codec {
                compress(&log, 1);
            } else {
                flag(&log, 1, FIRST_OFFSET);
            }
            let is_refusal = |error: &Error| {
                let found = if codec {
                    is_unknown_codec(error, &log)
                } else {
                    is_unknown_flag(error, &log, FIRST_OFFSET)
                };
                assert!(found, "{error}");
            };
            // The segment has a hint, so opening does not look at the entry; only reading it does.
            let db = Bitcask::open(dir.path(), small().verify_reads(verify_reads)).unwrap();
            let (first, second) = (0_u32.to_be_bytes(), 1_u32.to_be_bytes());
            is_refusal(&db.get(first).unwrap_err());
            is_refusal(&db.get_with(first, |_| ()).unwrap_err());
            is_refusal(&db.get_into(first, &mut Vec::new()).unwrap_err());
            is_refusal(&db.update(first, |_| Some("")).unwrap_err());
            is_refusal(&db.compare_and_swap(first, Some(b""), None).unwrap_err());
            let refusals: Vec<Error> = db.iter_unordered().filter_map(Result::err).collect();
            assert_eq!(refusals.len(), 1);
            is_refusal(&refusals[0]);
            assert_eq!(db.get(second).unwrap().unwrap(), [1; 100]);
            db.close().unwrap();
            // Without its hint the segment is scanned. Opening fails, and not a byte is discarded.
            fs::remove_file(&files_of(dir.path(), "hint")[0]).unwrap();
            is_refusal(&refused_to_all(dir.path(), &log));
        }
    }
}

#[test]
fn an_unsealed_entry_from_a_newer_build_is_not_mistaken_for_a_torn_one() {
    let fill = |db: &Bitcask| {
        db.put("second", "entry").unwrap();
        db.put("third", "entry").unwrap();
    };
    let dir = unsealed_copy(small(), fill);
    let log = logs(dir.path()).remove(0);
    compress(&log, 1);
    assert!(is_unknown_codec(&refused_to_all(dir.path(), &log), &log));

    let dir = unsealed_copy(small(), fill);
    let log = logs(dir.path()).remove(0);
    flag(&log, 1, FIRST_OFFSET + 32);
    assert!(is_unknown_flag(&refused_to_all(dir.path(), &log), &log, FIRST_OFFSET + 32));
}

#[test]
fn a_batch_from_a_newer_build_is_not_mistaken_for_a_torn_one() {
    let fill = |db: &Bitcask| db.write(Batch::new().put("a", "one").put("b", "two")).unwrap();
    let dir = unsealed_copy(small(), fill);
    let log = logs(dir.path()).remove(0);
    // The first two entries take 32 bytes each.
    let offset = FIRST_OFFSET + 32 + 24;
    flag(&log, 1, offset);
    assert!(is_unknown_flag(&refused_to_all(dir.path(), &log), &log, offset));
}

fn is_missing(error: &Error, file: &Path) -> bool {
    assert!(error.is_corruption() && error.to_string().contains("put the file back"), "{error}");
    matches!(error, Error::MissingSegment { path } if path == file)
}

/// Removes each segment of a store in turn and puts it back. Opening fails and names the missing
/// segment, and nothing is lost.
fn assert_each_is_missed(dir: &Path) {
    let logs = logs(dir);
    assert!(logs.len() >= 3);
    for log in logs {
        let bytes = fs::read(&log).unwrap();
        if bytes.iter().skip(64).all(|byte| *byte == 0) {
            // A prepared segment is not part of the log yet.
            continue;
        }
        fs::remove_file(&log).unwrap();
        assert!(is_missing(&refused_to_all(dir, &log), &log));
        fs::write(&log, bytes).unwrap();
    }
    assert_whole(dir);
}

#[test]
fn a_missing_sealed_segment_is_reported_and_nothing_is_lost_once_restored() {
    assert_each_is_missed(closed_store().path());
}

#[test]
fn a_missing_unsealed_segment_is_reported_and_nothing_is_lost_once_restored() {
    let dir = unsealed_copy(small(), |db| {
        for number in 0..100_u32 {
            db.put(number.to_be_bytes(), [number.to_be_bytes()[3]; 100]).unwrap();
        }
        assert!(db.delete("first").unwrap());
    });
    assert_each_is_missed(dir.path());
}

#[test]
fn a_missing_or_empty_manifest_is_never_mistaken_for_a_new_store() {
    let dir = closed_store();
    let manifest = dir.path().join("MANIFEST");
    let bytes = fs::read(&manifest).unwrap();
    for damage in [None, Some(b"".as_slice()), Some(b"\0\0\0"), Some(&bytes[..bytes.len() / 2])] {
        fs::remove_file(&manifest).unwrap();
        if let Some(damage) = damage {
            fs::write(&manifest, damage).unwrap();
        }
        let error = refused_to_all(dir.path(), &manifest);
        assert!(matches!(&error, Error::Corrupt { path, .. } if *path == manifest), "{error}");
        assert!(error.to_string().contains("nothing was changed"), "{error}");
        fs::write(&manifest, &bytes).unwrap();
    }
    assert_whole(dir.path());
}

#[test]
fn an_old_copy_of_the_manifest_never_loses_data_silently() {
    let dir = closed_store();
    let manifest = dir.path().join("MANIFEST");
    let read = || fs::read(&manifest).unwrap();
    let before = read();
    let db = open(dir.path());
    db.put("later", "value").unwrap();
    let written = read();
    db.close().unwrap();
    open(dir.path()).put("latest", "value").unwrap();
    let after = read();
    // Neither copy lists the newest segment: the first is from before there was a log, and the log
    // of the second ends before that segment.
    for old in [before, written] {
        fs::write(&manifest, &old).unwrap();
        let error = refused(dir.path(), small());
        let reading = refused_to_read(dir.path());
        for error in [error, reading] {
            let message = error.to_string();
            assert!(error.is_corruption() && message.contains("manifest is older"), "{message}");
        }
    }
    // This copy lists segments that have been removed. The presence of newer segments explains why.
    fs::write(&manifest, &after).unwrap();
    let db = open(dir.path());
    db.clear().unwrap();
    db.put("after", "clear").unwrap();
    db.close().unwrap();
    let newest = read();
    fs::write(&manifest, &after).unwrap();
    let message = refused_to_all(dir.path(), &manifest).to_string();
    assert!(message.contains("manifest is older"), "{message}");
    fs::write(&manifest, &newest).unwrap();
    assert_eq!(open(dir.path()).get("after").unwrap().unwrap(), "clear");
}

#[test]
fn an_old_manifest_that_still_covers_the_log_works_like_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    db.put("first", "entry").unwrap();
    let manifest = dir.path().join("MANIFEST");
    let old = fs::read(&manifest).unwrap();
    for number in 0..100_u32 {
        db.put(number.to_be_bytes(), [0; 100]).unwrap();
    }
    let expected = pairs(&db);
    db.close().unwrap();
    fs::write(&manifest, old).unwrap();
    assert_eq!(pairs(&open_read_only(dir.path())), expected);
    assert_eq!(pairs(&open(dir.path())), expected);
}

#[test]
fn a_segment_from_another_store_is_refused() {
    let (dir, other) = (closed_store(), closed_store());
    let log = logs(dir.path()).remove(1);
    let own = fs::read(&log).unwrap();
    fs::copy(logs(other.path()).remove(1), &log).unwrap();
    let error = refused_to_all(dir.path(), &log);
    assert!(matches!(&error, Error::Corrupt { path, .. } if *path == log), "{error}");
    assert!(error.to_string().contains("another store"), "{error}");
    fs::write(&log, own).unwrap();
    assert_whole(dir.path());
}

/// A mounted file system. Dropping this unmounts it, also during a panic.
struct Mount(TempDir);

impl Mount {
    /// Mounts a file system in memory. If that fails, prints why and returns `None`.
    fn new(size: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(dir.path());
        match mount.output() {
            Ok(output) if output.status.success() => return Some(Self(dir)),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                println!("skipped: cannot mount a file system: {why}");
            }
            Err(error) => println!("skipped: cannot mount a file system: {error}"),
        }
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Uses up all the space that is left.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut size = 0;
        let mut step = 1 << 20;
        while step > 0 {
            // The size is halved on each failure, because a failing write may still be made in
            // part.
            match fs::write(&path, vec![0; size + step]) {
                Ok(()) => size += step,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::StorageFull);
                    step /= 2;
                }
            }
        }
        let _ = fs::write(&path, vec![0; size + (1 << 20)]);
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).output();
    }
}

#[test]
fn on_a_full_disk_only_the_failing_write_is_affected() {
    let Some(disk) = Mount::new(8 << 20) else { return };
    let store = disk.path().join("store");
    let options = || crate::support::options().sync_policy(SyncPolicy::Never).segment_size(300_000);
    let db = Bitcask::open(&store, options()).unwrap();
    let value = |number: u32| vec![number.to_be_bytes()[3]; 10_000];
    let mut written = 0_u32;
    for number in 0..50_u32 {
        db.put(number.to_be_bytes(), value(number)).unwrap();
        written += 1;
    }
    let filler = disk.fill();
    let error = loop {
        match db.put(written.to_be_bytes(), value(written)) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(error.is_no_space() && !error.is_poisoned(), "{error}");
    let message = error.to_string();
    assert!(message.contains(&store.display().to_string()), "{message}");
    assert!(message.contains("free some space and try again"), "{message}");
    let check = |db: &Reader| {
        assert_eq!(db.len().unwrap(), u64::from(written));
        for number in 0..written {
            assert!(db.get(number.to_be_bytes()).unwrap().unwrap() == value(number));
        }
    };
    // Every kind of write that does not fit fails the same way, and none has an effect. The value
    // is larger than the space that a concurrent seal may free.
    let large = vec![0; 2 << 20];
    let mut batch = Batch::new();
    batch.delete(0_u32.to_be_bytes()).put("new", &large).put("2", value(1));
    assert!(db.write(&batch).unwrap_err().is_no_space());
    assert!(db.put_if_absent("new", &large).unwrap_err().is_no_space());
    assert!(db.update("new", |_| Some(&large)).unwrap_err().is_no_space());
    check(&db);
    check(&ReadOnly::open(&store, options()).unwrap());
    assert!(!db.contains_key("new").unwrap());
    // Once there is space again, the store continues normally.
    fs::remove_file(filler).unwrap();
    for _ in 0..50 {
        db.put(written.to_be_bytes(), value(written)).unwrap();
        written += 1;
    }
    let check = |db: &Reader| {
        assert_eq!(db.len().unwrap(), u64::from(written));
        for number in 0..written {
            assert!(db.get(number.to_be_bytes()).unwrap().unwrap() == value(number));
        }
    };
    check(&db);
    db.close().unwrap();
    let db = Bitcask::open(&store, options()).unwrap();
    // A segment that was sealed while the disk was full has no hint.
    let recovery = db.recovery();
    let had_to_recover = recovery.recovered_segments > 0 || !recovery.cuts.is_empty();
    assert!(!had_to_recover && recovery.leftovers.is_empty(), "{recovery:?}");
    check(&db);
}

#[test]
fn closing_or_dropping_a_store_on_a_full_disk_loses_nothing() {
    let Some(disk) = Mount::new(4 << 20) else { return };
    let store = disk.path().join("store");
    for round in 0..3_u32 {
        let db = open(&store);
        let key = |number: u32| (round * 1000 + number).to_be_bytes();
        let mut written = 0;
        let filler = disk.fill();
        while let Ok(()) = db.put(key(written), [7; 500]) {
            written += 1;
        }
        // Closing may succeed or fail. Either way, the next opening finds everything.
        match db.close() {
            Ok(()) => {}
            Err(error) => assert!(error.is_no_space(), "{error}"),
        }
        let reader = open_read_only(&store);
        assert!((0..written).all(|number| reader.contains_key(key(number)).unwrap()));
        match Bitcask::open(&store, small()) {
            Ok(_) => {}
            Err(error) => assert!(error.is_no_space(), "{error}"),
        }
        fs::remove_file(filler).unwrap();
        let db = open(&store);
        assert!((0..written).all(|number| db.get(key(number)).unwrap().unwrap() == [7; 500]));
        assert!(db.recovery().cuts.is_empty(), "{:?}", db.recovery());
        for number in written..written + 20 {
            db.put(key(number), [7; 500]).unwrap();
        }
        db.close().unwrap();
    }
}

#[test]
fn clear_on_a_full_disk_succeeds_or_fails_without_effect() {
    let Some(disk) = Mount::new(4 << 20) else { return };
    let store = disk.path().join("store");
    let db = open(&store);
    for number in 0..100_u32 {
        db.put(number.to_be_bytes(), [7; 500]).unwrap();
    }
    let filler = disk.fill();
    match db.clear() {
        Ok(()) => assert!(db.is_empty().unwrap()),
        Err(error) => {
            assert!(error.is_no_space(), "{error}");
            assert_eq!(db.len().unwrap(), 100);
            assert_eq!(pairs(&db).len(), 100);
            fs::remove_file(&filler).unwrap();
            db.clear().unwrap();
        }
    }
    let _ = fs::remove_file(&filler);
    db.put("key", "value").unwrap();
    db.close().unwrap();
    assert_eq!(pairs(&open(&store)).len(), 1);
}
