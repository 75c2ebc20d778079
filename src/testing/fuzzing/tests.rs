//! Runs every input in `fuzz/corpus` again, and checks that every function has a target.

#![expect(clippy::disallowed_methods, reason = "the inputs are on the machine's disk")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::directory::{BASES, repair};
use super::input::{Input, repair_index};
use super::*;

/// Returns the directory of the targets, or `None` in a packaged crate, which does not contain it.
fn fuzz_dir() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if !dir.is_dir() {
        println!("skipped: there is no {}", dir.display());
        return None;
    }
    Some(dir)
}

fn paths(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Runs all inputs of a target on a few threads, and names each failing input.
fn replay(name: &str, target: fn(&[u8])) {
    let Some(dir) = fuzz_dir() else { return };
    let inputs = paths(&dir.join("corpus").join(name));
    assert!(!inputs.is_empty(), "no input for {name}");
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some(path) = inputs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let bytes = fs::read(path).unwrap();
            assert!(bytes.len() <= 4096, "{} is too large to keep", path.display());
            let ran = std::panic::catch_unwind(|| target(&bytes));
            assert!(ran.is_ok(), "{} fails", path.display());
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        assert!(
            threads.into_iter().all(|thread| thread.join().is_ok()),
            "an input of {name} fails"
        );
    });
    assert_eq!(done.into_inner(), inputs.len());
}

/// Defines a test for each target, and the list of their names.
macro_rules! targets {
    ($($target:ident)*) => {
        const TARGETS: &[&str] = &[$(stringify!($target)),*];

        mod the_inputs_of {
            $(
                #[test]
                fn $target() {
                    super::replay(stringify!($target), super::$target);
                }
            )*
        }
    };
}

targets! { codec directory entry hint import index manifest operations resp segment }

#[test]
fn each_function_has_a_target_and_a_corpus() {
    let Some(dir) = fuzz_dir() else { return };
    for (kind, suffix) in [("fuzz_targets", ".rs"), ("corpus", "")] {
        let names = paths(&dir.join(kind)).into_iter();
        let names = names.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
        let found: Vec<String> = names.collect();
        let expected: Vec<String> = TARGETS.iter().map(|name| format!("{name}{suffix}")).collect();
        assert_eq!(found, expected, "fuzz/{kind}");
    }
}

#[test]
fn a_repair_restores_an_index() {
    let whole = &index::WHOLE.index;
    let mut bytes = whole.clone();
    repair_index(&mut bytes, index::ID);
    assert_eq!(bytes, *whole);
    bytes[92..98].iter_mut().for_each(|byte| *byte ^= 0xff);
    bytes[98..].iter_mut().last().unwrap().clone_from(&1);
    repair_index(&mut bytes, index::ID);
    bytes[96..98].iter_mut().for_each(|byte| *byte ^= 0xff);
    repair_index(&mut bytes, index::ID);
    assert_eq!(bytes, *whole);
}

#[test]
fn a_repair_of_valid_files_changes_nothing() {
    for base in &*BASES {
        let mut kinds = std::collections::BTreeSet::new();
        for (path, written) in &base.files {
            kinds.insert(path.extension());
            for choice in [&[0, 64], &[0xff, 0xff]] {
                let mut bytes = written.clone();
                let lock = path.ends_with("LOCK");
                repair(&mut bytes, path, &mut Input::new(choice));
                assert!(lock || bytes == *written, "{} was changed", path.display());
            }
        }
        assert_eq!(kinds.len(), 4, "manifest, its spare, segments and hints");
    }
}
