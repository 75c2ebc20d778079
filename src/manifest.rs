//! The manifest: which segments are sealed, in order of age, and where the log goes on.
//!
//! - Small text with a checksum line, replaced as one step (`Fs::replace`), never changed in place.
//! - Every change is a read-modify-write under one lock, [`ManifestFile::update`].
//! - Segment ids are reserved here before they are used, so that none is ever used twice.
//! - A manifest that is lost or damaged is an error: what it says can't be guessed safely.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::mistake::{Mistake, made};
use crate::segment::header::{Identity, Kind, VERSION};
use crate::segment::{Dir, FIRST_OFFSET, SegmentId};

/// More than the most segments there can be would ever need.
const SIZE_LIMIT: u64 = 32 << 20;
/// Ids that are reserved at a time.
const RESERVED: u32 = 8;

/// A sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) id: SegmentId,
    pub(crate) kind: Kind,
    /// Bytes of header and entries. Whatever lies behind is not read.
    pub(crate) length: u64,
}

/// What the manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) identity: Identity,
    /// Unsealed segments have this id or a higher one; unlisted ones below it are leftovers.
    pub(crate) log: SegmentId,
    /// Whether the segment `log` exists. Nothing is written to it before this says so, and so a
    /// file that is missing is told apart from one that never was.
    pub(crate) log_exists: bool,
    /// No id at or above this has ever been used.
    pub(crate) bound: SegmentId,
    /// Oldest first.
    pub(crate) sealed: Vec<Sealed>,
}

impl Manifest {
    /// The manifest of a store without segments.
    pub(crate) fn new(identity: Identity) -> Self {
        let (log, bound) = (SegmentId(1), SegmentId(1));
        Self { identity, log, log_exists: false, bound, sealed: Vec::new() }
    }

    pub(crate) fn encode(&self) -> String {
        let mut text = format!("bitcask manifest {VERSION}\n");
        // Writing to a string can't fail.
        let _ = writeln!(text, "store {:016x}", self.identity.store_id);
        let _ = writeln!(text, "seed {:016x}", self.identity.hash_seed);
        let state = if self.log_exists { "open" } else { "absent" };
        let _ = writeln!(text, "log {} {state}", self.log.0);
        let _ = writeln!(text, "bound {}", self.bound.0);
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
        Self::decode_lines(lines).map_err(|at| corrupt(at, "this line makes no sense here"))
    }

    /// Decodes the lines behind the first; the error is the offset of one that makes no sense.
    fn decode_lines<'a>(mut lines: impl Iterator<Item = (usize, &'a str)>) -> Result<Self, usize> {
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
            let goes = name == "segment" && words.next().is_none() && segment.id < bound;
            if !goes || kind == Kind::Log && segment.id >= log {
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
        Ok(Self { identity, log, log_exists, bound, sealed })
    }

    /// Reads the manifest of a store; nothing if there is none.
    pub(crate) fn read(fs: &Fs, dir: &Dir) -> Result<Option<Self>> {
        let path = dir.manifest();
        match fs.read_if_exists(&path, SIZE_LIMIT)? {
            Some(bytes) => Self::decode(&bytes, &path).map(Some),
            None => Ok(None),
        }
    }
}

/// The manifest of a store that is open for writing.
#[derive(Debug)]
pub(crate) struct ManifestFile {
    fs: Fs,
    dir: Dir,
    current: Mutex<Manifest>,
}

impl ManifestFile {
    /// Takes charge of what is on disk.
    pub(crate) fn new(fs: &Fs, dir: &Dir, current: Manifest) -> Self {
        Self { fs: fs.clone(), dir: dir.clone(), current: Mutex::new(current) }
    }

    /// Replaces the manifest by a changed one; it is durable when this returns, and unchanged if
    /// this fails, unless it was a sync that failed.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        let mut current = self.current.lock();
        let mut changed = current.clone();
        change(&mut changed);
        let is_swap = changed.sealed.len() < current.sealed.len();
        if !(is_swap && made(Mistake::ManifestStale)) {
            changed.write(&self.fs, &self.dir)?;
        }
        *current = changed;
        Ok(())
    }

    pub(crate) fn get<T>(&self, what: impl FnOnce(&Manifest) -> T) -> T {
        what(&self.current.lock())
    }
}

impl Manifest {
    /// Writes the manifest in place of the one on disk.
    pub(crate) fn write(&self, fs: &Fs, dir: &Dir) -> Result<()> {
        let path = dir.manifest();
        fs.replace(&path, &Dir::temporary(&path), self.encode().as_bytes())
    }

    /// Returns whether a segment is sealed.
    pub(crate) fn lists(&self, id: SegmentId) -> bool {
        self.sealed.iter().any(|sealed| sealed.id == id)
    }

    /// Lists merged segments just above one that they were copied from, and the dropped ones no
    /// more.
    pub(crate) fn swap(
        &mut self,
        merged: &[Sealed],
        above: SegmentId,
        dropped: &BTreeSet<SegmentId>,
    ) {
        let mut at =
            self.sealed.iter().position(|sealed| sealed.id == above).map_or(0, |at| at + 1);
        if made(Mistake::OutputYoungest) {
            at = self.sealed.len();
        }
        self.sealed.splice(at..at, merged.iter().copied());
        self.sealed.retain(|sealed| !dropped.contains(&sealed.id));
    }

    /// Reserves ids, so that `next` and some behind it may be used once this is written.
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
    fn a_manifest_is_read_as_it_was_written() {
        assert_eq!(decode(&manifest().encode()).unwrap(), manifest());
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
    fn lines_that_make_no_sense_are_refused_though_the_sum_is_right() {
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
            ("store 0123456789abcdef\n", ""),
        ] {
            assert!(body.contains(from));
            let error = decode(&summed(&body.replace(from, to))).unwrap_err();
            assert!(error.is_corruption(), "{to}: {error}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_its_number() {
        let text = manifest().encode().replace("manifest 1", "manifest 2");
        let text = summed(&text[..text.find("checksum").unwrap()]);
        let error = decode(&text).unwrap_err();
        assert!(matches!(error, Error::UnsupportedVersion { found: 2, supported: 1, .. }));
    }
}
