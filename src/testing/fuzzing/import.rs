//! Fuzzes imports: arbitrary bytes as the files of another store.
//!
//! - What is imported must stand in the files, byte by byte, except for keys with JSON escapes.
//! - A second import finds that everything is there.

use std::collections::BTreeMap;
use std::path::Path;

use super::input::Input;
use crate::clock::Clock;
use crate::fs::Fs;
use crate::import::{ImportOptions, import_numbered};
use crate::key_hash::KeyHasher;
use crate::store::Env;
use crate::testing::twin::Twin;
use crate::{Bitcask, Options, SyncPolicy};

/// Names of two files of each format, in the order of the formats' numbers.
const NAMES: [[&str; 2]; 4] = [
    ["segment_0.log", "segment_10.log"],
    ["data_9.db", "data_10.db"],
    ["1.bitcask.data", "2.bitcask.data"],
    ["000000000.data", "000000001.data"],
];

/// Sizes of what stands before the key and after the value of a record of Basho's bitcask and of
/// prologic's.
const BASHO_HEADER_SIZE: usize = 14;
const PROLOGIC_HEADER_SIZE: usize = 12;
const PROLOGIC_TRAILER_SIZE: usize = 12;

/// Imports arbitrary bytes: as they are, or with their checksums corrected.
pub fn import(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.byte();
    let format = usize::from(choice % 4);
    let first_size = input.below(4096);
    let mut files = [input.take(first_size).to_vec(), input.take(bytes.len()).to_vec()];
    if choice & 4 != 0 {
        for file in &mut files {
            match format {
                2 => repair_basho(file),
                3 => repair_prologic(file),
                _ => {}
            }
        }
    }
    let twin = Twin::new();
    for (name, file) in NAMES[format].iter().zip(&files) {
        twin.put_file(&Path::new("/old").join(name), file.clone());
    }
    let fs = Fs::Twin(twin);
    let db = open(&fs);
    let Ok(report) = import_into(&fs, &db, format, choice & 8 != 0) else { return db.kill() };
    assert!(report.written + report.unchanged + report.expired <= report.keys);
    assert!(report.keys + report.deletes <= report.records);
    let pairs = pairs(&db);
    assert_eq!(pairs.len() as u64, report.written);
    let is_there = |part: &[u8]| {
        part.is_empty() || files.iter().any(|file| file.windows(part.len()).any(|it| it == part))
    };
    for (key, value) in &pairs {
        assert!(format == 1 || is_there(key), "{key:?} is not in the files");
        let is_decoded = format == 1 && choice & 8 != 0;
        assert!(is_decoded || is_there(value), "{value:?} is not in the files");
    }
    let again = import_into(&fs, &db, format, choice & 8 != 0).unwrap();
    assert_eq!((again.written, again.keys), (0, report.keys));
    assert_eq!(again.skipped, report.skipped);
    db.kill();
}

fn open(fs: &Fs) -> Bitcask {
    // Expiries are compared with the system's clock.
    let clock = Clock::system();
    let env = Env { fs: fs.clone(), clock, hasher: KeyHasher::new, threads: false };
    let options = Options::new().segment_size(4096).sync_policy(SyncPolicy::Never);
    Bitcask::open_on(&env, Path::new("/new"), options).unwrap()
}

fn import_into(
    fs: &Fs,
    db: &Bitcask,
    format: usize,
    plain_strings: bool,
) -> crate::Result<crate::import::ImportReport> {
    let options = ImportOptions::new().plain_strings(plain_strings);
    import_numbered(fs, Path::new("/old"), db, format, options)
}

fn pairs(db: &Bitcask) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let pairs = db.iter_unordered().map(|pair| pair.unwrap());
    pairs.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| (number << 8 | usize::from(*byte)) & 0xffff)
}

/// Corrects the checksums of records that follow one another.
fn repair_basho(file: &mut [u8]) {
    let mut start = 0;
    while let Some(header) = file.get(start..start + BASHO_HEADER_SIZE) {
        let size = number(&header[8..10]) + number(&header[10..14]);
        let end = start + BASHO_HEADER_SIZE + size;
        let Some(body) = file.get(start + 4..end) else { return };
        let crc = crc32fast::hash(body).to_be_bytes();
        file[start..start + 4].copy_from_slice(&crc);
        start = end;
    }
}

fn repair_prologic(file: &mut [u8]) {
    let mut start = 0;
    while let Some(header) = file.get(start..start + PROLOGIC_HEADER_SIZE) {
        let value = start + PROLOGIC_HEADER_SIZE + number(&header[..4]);
        let end = value + number(&header[4..]);
        let Some(crc) = file.get(value..end).map(crc32fast::hash) else { return };
        let Some(place) = file.get_mut(end..end + 4) else { return };
        place.copy_from_slice(&crc.to_be_bytes());
        start = end + PROLOGIC_TRAILER_SIZE;
    }
}
