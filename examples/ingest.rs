//! Stores every file under a directory, opens the store again, and compares every value with the
//! file on disk. Fails if any of them differs.
//!
//! `cargo run --release --example ingest [DIR]`
//!
//! Without DIR, this example stores the crate's own sources. The store is created in a temporary
//! directory, so set `TMPDIR` to a place with enough room. DIR should not change during the run.

#![expect(clippy::cast_precision_loss, reason = "printed figures do not need 53 bits")]

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bitcask::{Bitcask, Options};

/// Maximum size of a value, in bytes.
const VALUE_SIZE_MAX: u64 = u32::MAX as u64;
/// Maximum number of differing files to name.
const NAMED_MAX: u64 = 10;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Number of directory entries that were not stored, by reason.
#[derive(Debug, Default)]
struct Skipped {
    unreadable: u64,
    too_large: u64,
    /// Symbolic links, sockets, devices and pipes.
    not_files: u64,
}

/// A count of files, their total size, and the time spent on them.
#[derive(Debug, Default)]
struct Tally {
    count: u64,
    size: u64,
    time: Duration,
}

impl Tally {
    fn add(&mut self, start: Instant, size: usize) {
        self.time += start.elapsed();
        self.count += 1;
        self.size += size as u64;
    }

    fn print(&self, verb: &str) {
        let (seconds, size) = (self.time.as_secs_f64().max(1e-9), self.size as f64 / 1e6);
        print!("{verb:9}{} files, {size:.1} MB in {:.1} ms: ", self.count, seconds * 1e3);
        println!("{:.0} files/s, {:.0} MB/s", self.count as f64 / seconds, size / seconds);
    }
}

fn main() -> Outcome<ExitCode> {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
    let own = PathBuf::from(own);
    let (root, excluded) = match std::env::args_os().nth(1) {
        Some(dir) => (PathBuf::from(dir), vec![]),
        None => (own.clone(), vec![own.join("target"), own.join(".git")]),
    };
    let mut skipped = Skipped::default();
    // Before the store's directory is created, because it may lie below `root`.
    let keys = find(&root, &excluded, &mut skipped)?;
    let temporary = tempfile::tempdir()?;
    let store = temporary.path().join("store");
    println!("{}: {} files, stored in {}", root.display(), keys.len(), store.display());

    let db = Bitcask::open(&store, Options::default())?;
    let (put, stored) = put_all(&db, &root, keys, &mut skipped)?;
    put.print("put");
    println!("stats    {:?}", db.stats());
    timed("close", || db.close())?;

    let db = timed("open", || Bitcask::open(&store, Options::default()))?;
    let (get, differing) = compare_all(&db, &root, &stored)?;
    get.print("get");
    println!("stats    {:?}", db.stats());
    let Skipped { unreadable, too_large, not_files } = skipped;
    println!("skipped  {unreadable} unreadable, {too_large} too large, {not_files} not files");
    println!("compared {} equal, {differing} different", get.count - differing);
    let complete = db.len()? == put.count && db.recovery().is_clean();
    db.close()?;
    Ok(if differing == 0 && complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Finds all files under a directory, as paths relative to it. Does not follow symbolic links.
fn find(root: &Path, excluded: &[PathBuf], skipped: &mut Skipped) -> Outcome<Vec<PathBuf>> {
    let (mut keys, mut dirs) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(dir) = dirs.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if dir == root => Err(format!("cannot read {}: {error}", dir.display()))?,
            Err(_) => {
                skipped.unreadable += 1;
                continue;
            }
        };
        for entry in entries {
            let Ok((path, kind)) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))
            else {
                skipped.unreadable += 1;
                continue;
            };
            if kind.is_dir() {
                dirs.extend((!excluded.contains(&path)).then_some(path));
            } else if kind.is_file() {
                keys.push(path.strip_prefix(root)?.to_path_buf());
            } else {
                skipped.not_files += 1;
            }
        }
    }
    Ok(keys)
}

/// Puts every file, and returns the paths of those that are now in the store. Only the puts are
/// timed.
fn put_all(
    db: &Bitcask,
    root: &Path,
    keys: Vec<PathBuf>,
    skipped: &mut Skipped,
) -> Outcome<(Tally, Vec<PathBuf>)> {
    let (mut tally, mut stored) = (Tally::default(), Vec::with_capacity(keys.len()));
    for key in keys {
        let path = root.join(&key);
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > VALUE_SIZE_MAX) {
            skipped.too_large += 1;
            continue;
        }
        let Ok(content) = fs::read(&path) else {
            skipped.unreadable += 1;
            continue;
        };
        let start = Instant::now();
        db.put(bytes(&key), &content)?;
        tally.add(start, content.len());
        stored.push(key);
    }
    Ok((tally, stored))
}

/// Gets every value, and counts those that differ from the file. Only the gets are timed.
fn compare_all(db: &Bitcask, root: &Path, stored: &[PathBuf]) -> Outcome<(Tally, u64)> {
    let (mut tally, mut differing) = (Tally::default(), 0);
    for key in stored {
        let start = Instant::now();
        let value = db.get(bytes(key))?;
        tally.add(start, value.as_ref().map_or(0, |value| value.len()));
        let same =
            fs::read(root.join(key)).is_ok_and(|content| value.is_some_and(|v| v == content));
        if !same {
            differing += 1;
            if differing <= NAMED_MAX {
                eprintln!("{} differs", key.display());
            }
        }
    }
    Ok((tally, differing))
}

/// Returns a path as the bytes that the system uses: names need not be UTF-8.
fn bytes(path: &Path) -> &[u8] {
    OsStr::as_bytes(path.as_os_str())
}

fn timed<T>(verb: &str, act: impl FnOnce() -> bitcask::Result<T>) -> bitcask::Result<T> {
    let start = Instant::now();
    let result = act();
    println!("{verb:9}{:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    result
}
