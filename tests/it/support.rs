//! Shared by the tests: stores with small segments, simulated kills, the contents of a directory,
//! and enough of the file format to forge files.

#![expect(clippy::unwrap_used, reason = "a test whose setup fails has failed")]
#![expect(clippy::indexing_slicing, reason = "an out-of-bounds index fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use bitcask::{AppendMode, Bitcask, Error, Options, ReadOnly, Reader, SyncPolicy};
use tempfile::TempDir;

/// Keys and values.
pub(crate) type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Segments of 4 KiB, so that a few dozen writes cause a rotation. Only explicit syncs happen, so
/// no entry carries a mark.
pub(crate) fn small() -> Options {
    options().segment_size(4096).sync_policy(SyncPolicy::Never)
}

/// The defaults, in the append mode that the whole suite runs with.
pub(crate) fn options() -> Options {
    match std::env::var("BITCASK_APPEND_MODE").as_deref() {
        Ok("positioned") => Options::new().append_mode(AppendMode::Positioned),
        Ok("mapped") => Options::new().append_mode(AppendMode::Mapped),
        _ => Options::new(),
    }
}

/// Returns a directory in memory, where available: a sync takes no time there. Whoever sets
/// `TMPDIR` wants to try its file system, and gets a directory there.
pub(crate) fn in_memory() -> TempDir {
    let is_chosen = std::env::var_os("TMPDIR").is_some();
    let memory = if is_chosen { None } else { tempfile::tempdir_in("/dev/shm").ok() };
    memory.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// Opens a store with small segments.
pub(crate) fn open(path: &Path) -> Bitcask {
    Bitcask::open(path, small()).unwrap()
}

/// Opens a store with small segments as soon as its writer has released the lock.
pub(crate) fn open_when_released(path: &Path) -> Bitcask {
    loop {
        match Bitcask::open(path, small()) {
            Err(Error::Locked { .. }) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

/// Opens a store for reading.
pub(crate) fn open_read_only(path: &Path) -> ReadOnly {
    ReadOnly::open(path, small()).unwrap()
}

/// Returns everything that a store holds. Panics if a key appears twice.
pub(crate) fn pairs(db: &Reader) -> Pairs {
    let mut pairs = Pairs::new();
    for pair in db.iter_unordered() {
        let (key, value) = pair.unwrap();
        let twice = pairs.insert(key.to_vec(), value.to_vec());
        assert_eq!(twice, None, "the key {key:?} appears twice");
    }
    pairs
}

/// Copies the directory as it is now, as if the process had been killed at this moment.
///
/// The calling thread must be the only one that writes. All that the store does meanwhile is seal,
/// which leaves every entry in place. So a copy whose manifest is copied last is one of the states
/// that the store passes through.
pub(crate) fn crash_copy(source: &Path) -> TempDir {
    let target = tempfile::tempdir().unwrap();
    let mut names = names(source);
    names.sort_by_key(|name| name == "MANIFEST");
    for name in names {
        let (from, to) = (source.join(&name), target.path().join(&name));
        if from.is_dir() {
            fs::create_dir(&to).unwrap();
            for name in self::names(&from) {
                fs::copy(from.join(&name), to.join(&name)).unwrap();
            }
            continue;
        }
        match fs::copy(&from, &to) {
            // A temporary file that has since been renamed to its final name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => drop(result.unwrap()),
        }
    }
    target
}

/// Returns a store whose segments are all unsealed, as if it had been killed before any was sealed.
///
/// `fill` must write fewer than eight segments.
pub(crate) fn unsealed_copy(options: Options, fill: impl FnOnce(&Bitcask)) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), options).unwrap();
    // After the first entry, the manifest says that there is a log. Until eight ids are used up, it
    // has to be rewritten only to record seals.
    db.put("first", "entry").unwrap();
    let manifest = fs::read(dir.path().join("MANIFEST")).unwrap();
    fill(&db);
    let copy = crash_copy(dir.path());
    fs::write(copy.path().join("MANIFEST"), manifest).unwrap();
    remove_hints(copy.path());
    copy
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Returns the files of a directory that have this extension, oldest first.
pub(crate) fn files_of(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = names(dir).into_iter().map(|name| dir.join(name));
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    paths.sort();
    paths
}

/// Returns the segments' files, oldest first.
pub(crate) fn logs(dir: &Path) -> Vec<PathBuf> {
    files_of(dir, "log")
}

/// Removes all hints.
pub(crate) fn remove_hints(dir: &Path) {
    for hint in files_of(dir, "hint") {
        fs::remove_file(hint).unwrap();
    }
}

/// Returns every file below a directory with its bytes, and every subdirectory without. Leaves out
/// the lock, because attempts to open a store may touch it.
pub(crate) fn contents(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut contents = BTreeMap::new();
    for name in names(dir) {
        let path = dir.join(&name);
        if path.is_dir() {
            contents.extend(self::contents(&path));
            contents.insert(path, None);
        } else if name != "LOCK" {
            contents.insert(path.clone(), Some(fs::read(path).unwrap()));
        }
    }
    contents
}

/// Returns the error of opening a store that cannot be opened. Checks that the attempt has changed
/// nothing on disk.
pub(crate) fn refused(dir: &Path, options: Options) -> Error {
    refused_by(dir, || Bitcask::open(dir, options).map(drop))
}

/// Like `refused`, but opens the store for reading.
pub(crate) fn refused_to_read(dir: &Path) -> Error {
    refused_by(dir, || ReadOnly::open(dir, small()).map(drop))
}

fn refused_by(dir: &Path, open: impl FnOnce() -> Result<(), Error>) -> Error {
    let before = contents(dir);
    let error = open().unwrap_err();
    assert!(before == contents(dir), "a failed open changed the directory: {error}");
    error
}

/// Applies a change to the bytes of a file.
pub(crate) fn patch(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// CRC-32 of IEEE 802.3. Slow, and independent of the store's implementation.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| {
            (crc >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}

/// Offset of the first entry in a segment.
pub(crate) const FIRST_OFFSET: usize = 64;
/// Size of an entry's header without optional fields, in bytes.
pub(crate) const HEADER_SIZE: usize = 20;

/// An entry to forge, as `docs/format.md` describes it.
#[derive(Debug, Clone)]
pub(crate) struct Forged {
    pub(crate) flags: u16,
    pub(crate) timestamp: u64,
    /// The encoded optional fields.
    pub(crate) fields: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

impl Forged {
    /// Reads an entry that has no optional fields.
    pub(crate) fn read(log: &[u8], offset: usize) -> Self {
        let bytes = &log[offset..];
        let key_size = usize::from(u16::from_be_bytes(bytes[4..6].try_into().unwrap()));
        let value_size = u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize;
        let (key, rest) = bytes[HEADER_SIZE..].split_at(key_size);
        Self {
            flags: u16::from_be_bytes(bytes[6..8].try_into().unwrap()),
            timestamp: u64::from_be_bytes(bytes[12..20].try_into().unwrap()),
            fields: Vec::new(),
            key: key.to_vec(),
            value: rest[..value_size].to_vec(),
        }
    }

    /// Writes the entry over one of the same size, with the right checksum for its place.
    pub(crate) fn write(&self, log: &mut [u8], segment: u32, offset: usize) {
        let mut header = u16::try_from(self.key.len()).unwrap().to_be_bytes().to_vec();
        header.extend(self.flags.to_be_bytes());
        header.extend(u32::try_from(self.value.len()).unwrap().to_be_bytes());
        header.extend(self.timestamp.to_be_bytes());
        header.extend(&self.fields);
        let summed = [self.key.as_slice(), &self.value, &header].concat();
        let place = (u64::from(segment) << 32) ^ (offset as u64 / 8);
        let salt = u32::try_from(place.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32).unwrap();
        let checksum = crc32(&summed) ^ salt;
        let entry = [checksum.to_be_bytes().as_slice(), &header, &self.key, &self.value].concat();
        log[offset..offset + entry.len()].copy_from_slice(&entry);
    }
}

/// A deterministic source of numbers (`SplitMix64`) for threads that a property test cannot drive.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// Environment variable: the part that a child process plays.
pub(crate) const ROLE: &str = "BITCASK_TEST_ROLE";
/// Environment variable: the store that it uses.
pub(crate) const STORE: &str = "BITCASK_TEST_STORE";
/// Prefix of a child's reports, which distinguishes them from the output of the test harness.
pub(crate) const SAYS: &str = "@@ ";

/// Returns a command that runs this test binary as a child process that plays a part; see
/// `processes`.
pub(crate) fn actor(role: &str, store: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "processes::a_child_process_plays_its_part", "--nocapture"]);
    command.env(ROLE, role).env(STORE, store);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// A running child process. Dropping this kills it.
#[derive(Debug)]
pub(crate) struct Actor {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Actor {
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let said = BufReader::new(child.stdout.take().unwrap());
        Ok(Self { child, said })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next report of the child. Returns `None` once the child has exited.
    pub(crate) fn hear(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.said.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // A line that the kill has truncated does not count.
            if let Some((_, said)) = line.split_once(SAYS)
                && let Some(said) = said.strip_suffix('\n')
            {
                return Some(said.to_owned());
            }
        }
    }

    /// Takes the child's standard input. It closes when the returned value is dropped or, if it was
    /// never taken, when the child is waited for.
    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// Waits for the child to exit, and returns its exit status.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Kills the child with an uncatchable signal, and waits for it to exit.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
