//! The manifest: which segments are sealed, in order of age, and where the log continues.
//!
//! - It is a small text with a checksum line, replaced atomically and never changed in place.
//!   `spare` manages the file for the next manifest.
//! - Every change is a read-modify-write under one lock, [`ManifestFile::update`].
//! - Segment ids are reserved here before they are used, so that no id is ever used twice.
//! - A lost or damaged manifest is an error: its contents can't be guessed safely.
//! - While a backup or a salvage fills a directory, another file has the manifest's name there. An
//!   incomplete directory is thus never mistaken for a store, nor for an empty directory.

mod spare;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use crate::clock::TIME_MAX;
use crate::error::{Error, Result};
use crate::fs::{self, Access, File, Fs};
use crate::mistake::{Mistake, made};
use crate::segment::header::{Identity, Kind, VERSION};
use crate::segment::{Dir, FIRST_OFFSET, Place, Segment, SegmentId};
use crate::sync::unmodeled::Mutex;
use spare::Spare;

/// Maximum size in bytes of a manifest file, more than the largest number of segments would ever
/// need.
const SIZE_LIMIT: u64 = 32 << 20;
/// Number of attempts to read a manifest that a writer keeps replacing.
const READ_ATTEMPTS: usize = 100;
/// Number of ids reserved at a time.
const RESERVED: u32 = 8;

/// The first line of the file that stands in place of the manifest while a store is being made.
const UNFINISHED: &[u8] = b"bitcask unfinished\n";
/// The rest of that file, for people.
const UNFINISHED_WHY: &[u8] =
    b"This is no store: a backup or a salvage into this directory has not \
come to its end.\nIf none is running, remove the directory and run it again.\n";

/// The position before everything that a store has ever written.
pub(crate) const BEGINNING: Place = Place { segment: SegmentId(0), offset: FIRST_OFFSET };

/// A sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) id: SegmentId,
    pub(crate) kind: Kind,
    /// Bytes of header and entries. Anything after that is not read.
    pub(crate) length: u64,
}

impl Sealed {
    /// Returns the listing of a segment that has been synced and cut to its end.
    pub(crate) fn of(segment: &Segment) -> Self {
        Self { id: segment.id(), kind: segment.kind(), length: segment.size() }
    }
}

/// The contents of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) identity: Identity,
    /// Unsealed segments have this id or a higher one; unlisted ones below it are leftovers.
    pub(crate) log: SegmentId,
    /// Whether the segment `log` exists. Nothing is written to the segment before this is set, so a
    /// file that is missing can be distinguished from one that never existed.
    pub(crate) log_exists: bool,
    /// No id at or above this has ever been used.
    pub(crate) bound: SegmentId,
    /// Everything that merges and clears have removed from the log lies before this place. `None`
    /// if no such place has been recorded. See [`history`](Self::history).
    pub(crate) history: Option<Place>,
    /// No entry that merges and clears have removed from the log had a later time, and every future
    /// entry has one. `None` as long as none was removed.
    pub(crate) time: Option<u64>,
    /// Oldest first.
    pub(crate) sealed: Vec<Sealed>,
}

impl Manifest {
    /// Returns the manifest of a store without segments.
    pub(crate) fn new(identity: Identity) -> Self {
        let (log, bound) = (SegmentId(1), SegmentId(1));
        let (history, time, sealed) = (None, None, Vec::new());
        Self { identity, log, log_exists: false, bound, history, time, sealed }
    }

    /// Returns the place from which on the log holds everything that was ever put or deleted.
    pub(crate) fn history(&self) -> Place {
        // Older releases merged without recording this place.
        let merged = self.sealed.iter().any(|sealed| sealed.kind == Kind::Merged);
        let unknown = if merged { Place::new(self.log, FIRST_OFFSET) } else { BEGINNING };
        self.history.unwrap_or(unknown)
    }

    /// Records a place that older releases left implicit, so that it does not move with every new
    /// segment.
    pub(crate) fn trim_history(&mut self) {
        let history = self.history();
        if history > BEGINNING {
            self.history = Some(history);
        }
    }

    /// Records that the log before a place is, or may be, incomplete.
    pub(crate) fn forget_before(&mut self, place: Place) {
        self.history = Some(self.history().max(place));
    }

    /// Records that entries with times up to this one are, or may be, removed from the log. No
    /// entry has the time zero.
    pub(crate) fn note_time(&mut self, time: u64) {
        // A wrong hint may report a time that no entry can have.
        let time = (time > 0).then_some(time.min(TIME_MAX - 1));
        self.time = self.time.max(time);
    }

    pub(crate) fn encode(&self) -> String {
        let mut text = format!("bitcask manifest {VERSION}\n");
        // Writing to a string can't fail.
        let _ = writeln!(text, "store {:016x}", self.identity.store_id);
        let _ = writeln!(text, "seed {:016x}", self.identity.hash_seed);
        let state = if self.log_exists { "open" } else { "absent" };
        let _ = writeln!(text, "log {} {state}", self.log.0);
        let _ = writeln!(text, "bound {}", self.bound.0);
        if let Some(Place { segment, offset }) = self.history {
            let _ = writeln!(text, "history {} {offset}", segment.0);
        }
        if let Some(time) = self.time {
            let _ = writeln!(text, "time {time}");
        }
        for Sealed { id, kind, length } in &self.sealed {
            let kind = match kind {
                Kind::Log => "log",
                Kind::Merged => "merged",
            };
            let _ = writeln!(text, "segment {} {kind} {length}", id.0);
        }
        let _ = writeln!(text, "checksum {:08x}", crc32fast::hash(text.as_bytes()));
        text
    }

    pub(crate) fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        if bytes.starts_with(UNFINISHED) {
            return Err(Error::Unfinished { path: path.to_path_buf() });
        }
        let corrupt = |offset: usize, reason: &str| Error::corrupt(path, offset as u64, reason);
        let text = std::str::from_utf8(bytes)
            .map_err(|error| corrupt(error.valid_up_to(), "the manifest is not text"))?;
        let end = text.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
        let (summed, checksum) = text.split_at(end);
        if checksum != format!("checksum {:08x}\n", crc32fast::hash(summed.as_bytes())) {
            return Err(corrupt(end, "the manifest's checksum does not match"));
        }
        let mut offset = 0;
        let mut lines = summed.split_terminator('\n').map(|line| {
            let start = offset;
            offset += line.len() + 1;
            (start, line)
        });
        match lines.next().and_then(|(_, line)| line.strip_prefix("bitcask manifest ")) {
            Some(version) if version == VERSION.to_string() => {}
            Some(version) => {
                let found = version.parse().unwrap_or(u16::MAX);
                let path = path.to_path_buf();
                return Err(Error::UnsupportedVersion { path, found, supported: VERSION });
            }
            None => return Err(corrupt(0, "this is not a bitcask manifest")),
        }
        Self::decode_lines(lines).map_err(|at| corrupt(at, "this line is invalid here"))
    }

    /// Decodes the lines after the first. The error is the offset of the first invalid line.
    fn decode_lines<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Result<Self, usize> {
        let mut lines = lines.peekable();
        let mut last = 0;
        let mut next = |name: &str| -> Result<(usize, &'a str), usize> {
            let (at, line) = lines.next().ok_or(last)?;
            last = at;
            Ok((at, line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')).ok_or(at)?))
        };
        let hex = |(at, text): (usize, &str)| u64::from_str_radix(text, 16).map_err(|_| at);
        let id = |at: usize, text: &str| text.parse().map(SegmentId).map_err(|_| at);
        let identity = Identity { store_id: hex(next("store")?)?, hash_seed: hex(next("seed")?)? };
        let (at, line) = next("log")?;
        let (log, state) = line.split_once(' ').ok_or(at)?;
        let log = id(at, log)?;
        let log_exists = match state {
            "open" => true,
            "absent" => false,
            _ => return Err(at),
        };
        let (at, line) = next("bound")?;
        let bound = id(at, line)?;
        let mut optional = |name: &str| lines.next_if(|(_, line)| line.starts_with(name));
        let (history, time) = (optional("history "), optional("time "));
        let history =
            history.map(|(at, line)| decode_history(line, bound).ok_or(at)).transpose()?;
        let time = time.map(|(at, line)| decode_time(line).ok_or(at)).transpose()?;
        let mut sealed: Vec<Sealed> = Vec::new();
        for (at, line) in lines {
            let mut words = line.split(' ');
            let mut word = || words.next().ok_or(at);
            let (name, number, kind, length) = (word()?, word()?, word()?, word()?);
            let kind = match kind {
                "log" => Kind::Log,
                "merged" => Kind::Merged,
                _ => return Err(at),
            };
            let length = length.parse().ok().filter(|length| *length >= FIRST_OFFSET).ok_or(at)?;
            let segment = Sealed { id: id(at, number)?, kind, length };
            let valid = name == "segment" && words.next().is_none() && segment.id < bound;
            if !valid || kind == Kind::Log && segment.id >= log {
                return Err(at);
            }
            sealed.push(segment);
        }
        let mut ids: Vec<SegmentId> = sealed.iter().map(|segment| segment.id).collect();
        ids.sort_unstable();
        let twice = !ids.is_sorted_by(|a, b| a < b);
        if log > bound || log_exists && log >= bound || twice {
            return Err(at);
        }
        Ok(Self { identity, log, log_exists, bound, history, time, sealed })
    }

    /// Reads the manifest of a store. Returns `None` if there is none.
    ///
    /// The opened file may since have become the spare and may be being written. If the file still
    /// has the manifest's name after it was read, its content was that of a manifest. Either it has
    /// kept the name, or it got the name back with the next manifest, and the checksum of a mixture
    /// of two does not match.
    pub(crate) fn read(fs: &Fs, dir: &Dir) -> Result<Option<Self>> {
        let path = dir.manifest();
        let mut before = None;
        for attempt in 1.. {
            let Some(file) = fs.open_if_exists(&path)? else { break };
            let bytes = fs::read_whole(&file, SIZE_LIMIT)?;
            let (decoded, is_it) = (Self::decode(&bytes, &path), fs.leads_to(&path, &file)?);
            let is_the_same = before.as_ref() == Some(&bytes);
            if is_it && decoded.is_ok() || is_the_same || attempt == READ_ATTEMPTS {
                return decoded.map(Some);
            }
            before = Some(bytes);
        }
        Ok(None)
    }
}

/// The manifest's name in a directory that is to become a store, occupied until the manifest is
/// written.
#[derive(Debug)]
pub(crate) struct Claim(File);

impl Claim {
    /// Takes the name. If a file has it already, that file stays, and the error is an `Io` of kind
    /// `AlreadyExists`.
    pub(crate) fn take(fs: &Fs, dir: &Dir) -> Result<Self> {
        fs.open(&dir.manifest(), Access::CreateNew).map(Self)
    }

    /// Writes the explanation to the file, and makes it and the directory durable.
    pub(crate) fn finish(&self, fs: &Fs, dir: &Dir) -> Result<()> {
        self.0.write_at(&[UNFINISHED, UNFINISHED_WHY].concat(), 0)?;
        self.0.sync()?;
        fs.sync_dir(dir.path())?;
        // The directory may have been created just now, or by an earlier attempt that got no
        // further.
        fs.sync_dir(fs::parent(dir.path()))
    }

    /// Puts the same file in the place of a manifest, so that the directory no longer counts as a
    /// store.
    pub(crate) fn restore(fs: &Fs, dir: &Dir) -> Result<()> {
        let path = dir.manifest();
        fs.replace(&path, &Dir::temporary(&path), &[UNFINISHED, UNFINISHED_WHY].concat())
    }
}

/// Decodes the line that states how far back the log is complete. Returns `None` if it is invalid.
fn decode_history(line: &str, bound: SegmentId) -> Option<Place> {
    let (segment, offset) = line.strip_prefix("history ")?.split_once(' ')?;
    let place = Place::new(SegmentId(segment.parse().ok()?), offset.parse().ok()?);
    // The place is at most where the next segment will begin, and it has to fit into one word.
    let latest = Place::new(bound, FIRST_OFFSET);
    let valid = place <= latest && place >= BEGINNING && Place::unpack(place.pack()) == place;
    (valid && place.offset >= FIRST_OFFSET).then_some(place)
}

/// Decodes the line that states up to which time entries were removed. Returns `None` if it is
/// invalid.
fn decode_time(line: &str) -> Option<u64> {
    let time = line.strip_prefix("time ")?.parse().ok()?;
    // The text must be exactly as written by `encode`, and the time one that an entry may have.
    ((1..TIME_MAX).contains(&time) && line == format!("time {time}")).then_some(time)
}

/// The manifest of an open store.
#[derive(Debug)]
pub(crate) struct ManifestFile {
    fs: Fs,
    dir: Dir,
    /// Lock 7.
    current: Mutex<Manifest>,
    /// Lock 8. Changed under `current`'s lock.
    spare: Mutex<Spare>,
}

impl ManifestFile {
    /// Takes over the manifest on disk.
    pub(crate) fn new(fs: &Fs, dir: &Dir, current: Manifest) -> Self {
        let (current, spare) = (Mutex::new(current), Mutex::default());
        Self { fs: fs.clone(), dir: dir.clone(), current, spare }
    }

    /// Replaces the manifest by a changed one, which is durable when this returns. If this fails,
    /// the manifest is unchanged, unless it was a sync that failed.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        let mut current = self.current.lock();
        let mut changed = current.clone();
        change(&mut changed);
        let is_swap = changed.sealed.len() < current.sealed.len();
        if !(is_swap && made(Mistake::ManifestStale)) {
            let text = changed.encode();
            self.spare.lock().replace(&self.fs, &self.dir, text.as_bytes())?;
        }
        *current = changed;
        Ok(())
    }

    /// Adopts a manifest that a concurrent writer has put on disk.
    pub(crate) fn set(&self, current: Manifest) {
        *self.current.lock() = current;
    }

    pub(crate) fn get<T>(&self, what: impl FnOnce(&Manifest) -> T) -> T {
        what(&self.current.lock())
    }
}

impl Manifest {
    /// Writes the manifest in place of the one that a store has on disk.
    pub(crate) fn put_in_place(&self, fs: &Fs, dir: &Dir) -> Result<()> {
        Spare::default().replace(fs, dir, self.encode().as_bytes())
    }

    /// Writes the manifest of a store that is being made, or in place of the one that it has.
    pub(crate) fn write(&self, fs: &Fs, dir: &Dir) -> Result<()> {
        let path = dir.manifest();
        fs.replace(&path, &Dir::temporary(&path), self.encode().as_bytes())
    }

    /// Returns how much space is reserved for the next manifest, in bytes.
    pub(crate) fn spare_size(&self) -> u64 {
        spare::room_for(self.encode().len() as u64)
    }

    /// Returns whether a segment is sealed.
    pub(crate) fn lists(&self, id: SegmentId) -> bool {
        self.sealed.iter().any(|sealed| sealed.id == id)
    }

    /// Lists merged segments just after `above`, from which they were copied, and no longer lists
    /// the dropped ones. `places` are the ends of those dropped segments that were written to the
    /// log, and `time` is the highest time of all merged segments.
    pub(crate) fn swap(
        &mut self,
        merged: &[Sealed],
        above: SegmentId,
        dropped: &BTreeSet<SegmentId>,
        places: impl Iterator<Item = Place>,
        time: u64,
    ) {
        if !dropped.is_empty() {
            self.note_time(time);
        }
        self.forget_before(places.fold(BEGINNING, Place::max));
        let mut at =
            self.sealed.iter().position(|sealed| sealed.id == above).map_or(0, |at| at + 1);
        if made(Mistake::OutputYoungest) {
            at = self.sealed.len();
        }
        self.sealed.splice(at..at, merged.iter().copied());
        self.sealed.retain(|sealed| !dropped.contains(&sealed.id));
    }

    /// Reserves ids. Once the manifest is written, `next` and some ids after it may be used.
    pub(crate) fn reserve(&mut self, next: SegmentId) {
        let bound = SegmentId(next.0.saturating_add(RESERVED));
        self.bound = self.bound.max(bound);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let sealed = |id, kind, length| Sealed { id: SegmentId(id), kind, length };
        Manifest {
            identity: Identity { store_id: 0x0123_4567_89ab_cdef, hash_seed: 42 },
            log: SegmentId(7),
            log_exists: true,
            bound: SegmentId(16),
            history: Some(Place::new(SegmentId(4), 4096)),
            time: Some(1_700_000_000_000_000),
            sealed: vec![sealed(9, Kind::Merged, 4096), sealed(5, Kind::Log, 64)],
        }
    }

    fn decode(text: &str) -> Result<Manifest> {
        Manifest::decode(text.as_bytes(), Path::new("MANIFEST"))
    }

    fn summed(text: &str) -> String {
        format!("{text}checksum {:08x}\n", crc32fast::hash(text.as_bytes()))
    }

    #[test]
    fn a_manifest_is_read_as_written() {
        assert_eq!(decode(&manifest().encode()).unwrap(), manifest());
    }

    #[test]
    fn a_manifest_without_history_stays_so_and_its_log_is_not_assumed_to_be_complete() {
        let mut old = Manifest { history: None, ..manifest() };
        assert!(!old.encode().contains("history"));
        assert_eq!(decode(&old.encode()).unwrap(), old);
        assert_eq!(old.history(), Place::new(SegmentId(7), FIRST_OFFSET), "it lists a merged one");
        old.sealed.retain(|sealed| sealed.kind == Kind::Log);
        assert_eq!(old.history(), BEGINNING);
        // Once it is known, it only moves up.
        let place = |segment, offset| Place::new(SegmentId(segment), offset);
        for (noted, expected) in [
            (place(5, 64), place(5, 64)),
            (place(4, 8192), place(5, 64)),
            (place(5, 72), place(5, 72)),
        ] {
            old.forget_before(noted);
            assert_eq!(old.history(), expected);
        }
    }

    #[test]
    fn a_manifest_has_no_time_until_some_are_lost_and_then_the_highest() {
        let mut old = Manifest { time: None, ..manifest() };
        old.note_time(0);
        assert!(!old.encode().contains("time"));
        assert_eq!(decode(&old.encode()).unwrap(), old);
        for (noted, expected) in
            [(7, 7), (5, 7), (8, 8), (TIME_MAX - 1, TIME_MAX - 1), (u64::MAX, TIME_MAX - 1)]
        {
            old.note_time(noted);
            assert_eq!(old.time, Some(expected));
            assert_eq!(decode(&old.encode()).unwrap(), old);
        }
        old.history = None;
        assert_eq!(decode(&old.encode()).unwrap(), old, "the two lines are independent");
    }

    #[test]
    fn every_damaged_byte_and_every_cut_is_noticed() {
        let text = manifest().encode();
        for at in 0..text.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= mask;
                let error = Manifest::decode(&bytes, Path::new("MANIFEST")).unwrap_err();
                assert!(error.is_corruption(), "byte {at}: {error}");
            }
            assert!(decode(&text[..at]).unwrap_err().is_corruption());
        }
        assert!(decode(&format!("{text}{text}")).unwrap_err().is_corruption());
    }

    #[test]
    fn invalid_lines_are_refused_even_if_the_checksum_matches() {
        let text = manifest().encode();
        let body = &text[..text.find("checksum").unwrap()];
        for (from, to) in [
            ("log 7 open", "log 17 open"),
            ("log 7 open", "log 7 ajar"),
            ("log 7 open", "log 5 open"),
            ("segment 5 log 64", "segment 9 log 64"),
            ("segment 5 log 64", "segment 5 log 63"),
            ("segment 5 log 64", "segment 5 log 64 64"),
            ("segment 9", "segment 16"),
            ("bound 16\n", ""),
            ("history 4 4096", "history 16 4096"),
            ("history 4 4096", "history 4 4097"),
            ("history 4 4096", "history 4 56"),
            ("history 4 4096", "history 4 34359738368"),
            ("history 4 4096", "history 4"),
            ("history 4 4096", "history 4 4096 8"),
            ("history 4 4096", "history 4 4096\nhistory 4 4096"),
            ("history 4 4096", "history 0 0"),
            ("history 4 4096\ntime 1700000000000000", "time 1700000000000000\nhistory 4 4096"),
            ("time 1700000000000000", "time 0"),
            ("time 1700000000000000", "time 9223372036854775807"),
            ("time 1700000000000000", "time 18446744073709551616"),
            ("time 1700000000000000", "time 017"),
            ("time 1700000000000000", "time +17"),
            ("time 1700000000000000", "time 17 "),
            ("time 1700000000000000", "time 1 7"),
            ("time 1700000000000000", "time "),
            ("time 1700000000000000", "time 17\ntime 17"),
            ("time 1700000000000000", "times 17"),
            ("store 0123456789abcdef\n", ""),
        ] {
            assert!(body.contains(from));
            let error = decode(&summed(&body.replace(from, to))).unwrap_err();
            assert!(error.is_corruption(), "{to}: {error}");
        }
    }

    #[test]
    fn an_unfinished_marker_is_recognized_by_its_first_line() {
        for text in [UNFINISHED, &[UNFINISHED, UNFINISHED_WHY].concat()] {
            let error = Manifest::decode(text, Path::new("MANIFEST")).unwrap_err();
            assert!(matches!(error, Error::Unfinished { .. }), "{error}");
            let message = error.to_string();
            assert!(
                message.starts_with("MANIFEST ") && message.contains("remove the directory"),
                "{message}"
            );
        }
        // A part of the line may be what is left of any file.
        let error = Manifest::decode(&UNFINISHED[..8], Path::new("MANIFEST")).unwrap_err();
        assert!(error.is_corruption(), "{error}");
    }

    #[test]
    fn a_newer_version_is_refused_with_its_number() {
        let text = manifest().encode().replace("manifest 1", "manifest 2");
        let text = summed(&text[..text.find("checksum").unwrap()]);
        let error = decode(&text).unwrap_err();
        assert!(matches!(error, Error::UnsupportedVersion { found: 2, supported: 1, .. }));
    }
}
