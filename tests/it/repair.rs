//! Repair on real files: a read-only store, a store with an active writer, and recovery from damage
//! that opening refuses.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use bitcask::{Bitcask, Error, MergeOptions, Options, repair};

use crate::support::{Actor, SAYS, actor, contents, logs, open, pairs, patch, small};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Puts 300 keys into several segments, writes each twice, and deletes some.
fn filled(path: &Path) {
    let db = open(path);
    for round in 0..2 {
        for key in 0..300_u32 {
            db.put(key.to_be_bytes(), format!("{key} in round {round}")).unwrap();
        }
    }
    for key in (0..300_u32).step_by(7) {
        db.delete(key.to_be_bytes()).unwrap();
    }
    db.close().unwrap();
}

fn salvage(from: &Path, to: &Path) -> bitcask::Result<repair::SalvageReport> {
    repair::salvage(from, to, |_| ControlFlow::Continue(()))
}

#[test]
fn a_damaged_store_is_diagnosed_and_salvaged() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    filled(&from);
    let right = pairs(&open(&from));
    let path = logs(&from).pop().unwrap();
    // The newest segment holds deletes, the last of which is damaged.
    patch(&path, |bytes| *bytes.last_mut().unwrap() ^= 0xff);
    fs::remove_file(path.with_extension("hint")).unwrap();
    let error = Bitcask::open(&from, Options::default()).unwrap_err();
    let before = contents(&from);
    let found = repair::verify(&from).unwrap();
    assert_eq!(found.opening.as_ref().unwrap_err().to_string(), error.to_string());
    let [damage] = found.damage.as_slice() else { panic!("{found}") };
    assert_eq!(damage.path, path);
    let text = found.to_string();
    assert!(text.starts_with("the store does not open: ") && text.contains("bytes can't be read"));
    let report = salvage(&from, &to).unwrap();
    assert!(before == contents(&from), "diagnosis must not change anything");
    assert!(report.had_manifest && !report.is_complete(), "{report}");
    assert_eq!((report.lost.len(), &report.lost[0].path), (1, &path), "{report}");
    let db = open(&to);
    assert!(db.recovery().is_clean() && db.verify().unwrap().is_clean());
    let mut rescued = pairs(&db);
    // The key of the damaged delete is back, with its last value.
    let back: Vec<_> = rescued.extract_if(.., |key, _| !right.contains_key(key)).collect();
    assert_eq!(back, [(294_u32.to_be_bytes().to_vec(), b"294 in round 1".to_vec())]);
    assert_eq!(rescued, right);
    assert!(db.stats().dead_size == 0);
}

#[test]
fn a_store_without_a_manifest_is_salvaged_completely() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    filled(&from);
    let db = open(&from);
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    db.put("after the merge", "1").unwrap();
    let right = pairs(&db);
    db.close().unwrap();
    fs::remove_file(from.join("MANIFEST")).unwrap();
    let found = repair::verify(&from).unwrap();
    assert!(found.opening.is_err() && found.damage.len() == 1, "{found}");
    let report = salvage(&from, &to).unwrap();
    assert!(!report.had_manifest && report.lost.is_empty(), "{report}");
    assert!(report.to_string().contains("deleted keys may be back"), "{report}");
    assert_eq!(pairs(&open(&to)), right);
}

#[test]
fn a_write_protected_store_can_be_diagnosed() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    filled(&from);
    fs::remove_file(from.join("LOCK")).unwrap();
    let before = contents(&from);
    fs::set_permissions(&from, fs::Permissions::from_mode(0o555)).unwrap();
    let found = repair::verify(&from).unwrap();
    let report = salvage(&from, &to).unwrap();
    fs::set_permissions(&from, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(found.is_clean() && found.opening.is_ok() && found.derived.is_empty(), "{found}");
    assert!(report.is_complete(), "{report}");
    assert!(before == contents(&from) && !from.join("LOCK").exists());
}

/// A writer rotates, seals and merges meanwhile; none of that is damage.
#[test]
fn diagnosis_reports_no_damage_while_a_writer_works() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0_u32.. {
                for key in 0..50_u32 {
                    db.put(key.to_be_bytes(), round.to_be_bytes().repeat(20)).unwrap();
                }
                if round % 20 == 19 {
                    db.merge_opt(MergeOptions::new().force(true)).unwrap();
                }
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for _ in 0..100 {
            let found = repair::verify(dir.path());
            done.store(
                !found.as_ref().is_ok_and(|found| found.damage.is_empty()),
                Ordering::Relaxed,
            );
            let found = found.unwrap();
            assert!(found.damage.is_empty(), "{found}");
        }
        done.store(true, Ordering::Relaxed);
    });
    let error = salvage(dir.path(), &dir.path().join("to")).unwrap_err();
    assert!(error.is_locked(), "{error}");
}

#[test]
fn an_unsuitable_salvage_target_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    filled(&from);
    fs::create_dir(&to).unwrap();
    fs::write(to.join("file"), "").unwrap();
    symlink(&from, dir.path().join("link")).unwrap();
    let before = contents(dir.path());
    for target in [to.clone(), from.clone(), from.join("sub"), dir.path().join("link/sub")] {
        let error = salvage(&from, &target).unwrap_err();
        assert!(matches!(error, Error::InvalidTarget { .. }), "{error}");
    }
    let nowhere = dir.path().join("nowhere");
    assert!(matches!(salvage(&nowhere, &nowhere), Err(Error::NotFound { .. })));
    assert!(matches!(repair::verify(&nowhere), Err(Error::NotFound { .. })));
    assert!(matches!(repair::verify(to.join("file")), Err(Error::NotADirectory { .. })));
    assert!(matches!(repair::verify(&to), Err(Error::NotFound { .. })));
    let cancelled = repair::salvage(&from, &nowhere, |_| ControlFlow::Break(())).unwrap();
    assert!(cancelled.cancelled && !cancelled.is_complete());
    assert!(before == contents(dir.path()));
}

/// A build without the codec reports compressed entries and copies neither them nor older values of
/// their keys.
#[test]
fn compressed_values_are_copied_by_a_build_that_has_the_codec() {
    let plain = ["v1-closed", "v1-killed"].map(|name| (name, true));
    let lz4 = ["v1-lz4-closed", "v1-lz4-killed"].map(|name| (name, cfg!(feature = "lz4")));
    let zstd = ["v1-zstd-closed", "v1-zstd-killed"].map(|name| (name, cfg!(feature = "zstd")));
    for (name, readable) in [plain, lz4, zstd].into_iter().flatten() {
        let dir = tempfile::tempdir().unwrap();
        let report = salvage(&fixture(name), &dir.path().join("to")).unwrap();
        let found = repair::verify(fixture(name)).unwrap();
        let db = open(&dir.path().join("to"));
        assert!(db.verify().unwrap().is_clean());
        assert_eq!(db.len().unwrap(), report.keys);
        assert_eq!(found.damage.is_empty(), readable, "{found}");
        assert_eq!(report.is_complete(), readable, "{report}");
        assert_eq!(report.lost_key_count > 0, !readable, "{report}");
        for key in &report.lost_keys {
            assert_eq!(db.get(key).unwrap(), None);
        }
    }
}

/// A store has more segments than the process may have files open. It opens, so diagnosis and
/// salvage have to work, too.
#[test]
fn many_segments_need_few_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    let db = Bitcask::open(&from, small()).unwrap();
    for key in 0..900_u32 {
        db.put(key.to_be_bytes(), [7; 1000]).unwrap();
    }
    db.close().unwrap();
    assert!(logs(&from).len() > 200);
    let inner = actor("rescuer with few descriptors", dir.path());
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 100 && exec \"$@\"", "sh"]).arg(inner.get_program());
    command.args(inner.get_args()).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = Actor::start(command).unwrap();
    assert_eq!(child.hear().unwrap(), "saved 900 keys");
    assert!(child.wait().success());
}

/// Opens, diagnoses and salvages a store, and reports that.
pub(crate) fn rescue(dir: &Path) {
    let (from, to) = (dir.join("from"), dir.join("to"));
    assert_eq!(open(&from).len().unwrap(), 900);
    let found = repair::verify(&from).unwrap();
    assert!(found.is_clean() && found.opening.is_ok(), "{found}");
    let report = salvage(&from, &to).unwrap();
    assert!(report.is_complete(), "{report}");
    println!("{SAYS}saved {} keys", report.keys);
}

#[test]
fn a_verification_reports_its_progress_and_can_be_ended() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let segments = logs(dir.path()).len() as u64;
    let mut seen = Vec::new();
    let found = repair::verify_with(dir.path(), |progress| {
        seen.push(*progress);
        ControlFlow::Continue(())
    });
    let found = found.unwrap();
    assert!(found.is_clean() && found.segments > 1);
    let last = seen.last().unwrap();
    assert_eq!((last.segments_done, last.segments_total), (segments, segments));
    assert_eq!(last.size_done, last.size_total);
    assert!(seen.is_sorted_by_key(|progress| progress.size_done));
    for ends_at in 1..=seen.len() {
        let mut count = 0;
        let found = repair::verify_with(dir.path(), |_| {
            count += 1;
            if count < ends_at { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let found = found.unwrap();
        assert!(found.cancelled && !found.is_clean() && count == ends_at, "{ends_at}");
        assert!(found.to_string().contains("ended early"), "{found}");
        assert!(found.damage.is_empty(), "{found}");
    }
}
