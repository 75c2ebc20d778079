//! Stores of the other systems, made from the tables of their bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::Clock;
use crate::error::Result;
use crate::fs::Fs;
use crate::import::basho::Basho;
use crate::import::bitcaskpy::Bitcaskpy;
use crate::import::driver::import_on;
use crate::import::format::SourceFormat;
use crate::import::prologic::Prologic;
use crate::import::pybitcask::Pybitcask;
use crate::import::{ImportOptions, ImportReport};
use crate::key_hash::KeyHasher;
use crate::options::{Options, SyncPolicy};
use crate::store::{Bitcask, Env};
use crate::testing::twin::Twin;

/// A time of 2023, in seconds.
pub(super) const TIME: u32 = 1_700_000_000;

/// An expiry in 2100, in seconds.
pub(super) const EXPIRY: u64 = 4_102_444_800;

pub(super) type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bitcaskpy,
    Messages,
    Lines,
    Basho,
    Prologic,
    PrologicV0,
}

impl Kind {
    pub(super) const ALL: [Self; 6] = [
        Self::Bitcaskpy,
        Self::Messages,
        Self::Lines,
        Self::Basho,
        Self::Prologic,
        Self::PrologicV0,
    ];

    pub(super) fn file_name(self, number: usize) -> String {
        match self {
            Self::Bitcaskpy => format!("segment_{number}.log"),
            Self::Messages | Self::Lines => format!("data_{number}.db"),
            Self::Basho => format!("{number}.bitcask.data"),
            Self::Prologic | Self::PrologicV0 => format!("{number:09}.data"),
        }
    }

    /// Returns how a file begins.
    pub(super) fn head(self) -> Vec<u8> {
        match self {
            Self::Messages => vec![1],
            Self::Lines => vec![2],
            _ => Vec::new(),
        }
    }

    fn format(self) -> Box<dyn SourceFormat> {
        match self {
            Self::Bitcaskpy => Box::new(Bitcaskpy),
            Self::Messages | Self::Lines => Box::new(Pybitcask { plain_strings: false }),
            Self::Basho => Box::new(Basho { expire_after: None }),
            Self::Prologic | Self::PrologicV0 => Box::new(Prologic::default()),
        }
    }

    /// Encodes a record that is written `number` steps of time after the first.
    pub(super) fn record(self, number: u32, key: &str, value: Option<&str>) -> Vec<u8> {
        let (key_bytes, value_bytes) = (key.as_bytes(), value.unwrap_or_default().as_bytes());
        let time = TIME + number;
        match self {
            Self::Bitcaskpy => bitcaskpy(f64::from(time) + 0.25, key, value),
            Self::Messages => message(u64::from(time) * 1000, key, value),
            Self::Lines => line(u64::from(time) * 1000, key, value),
            Self::Basho if value.is_none() => match number % 3 {
                0 => basho(time, key_bytes, b"bitcask_tombstone"),
                1 => basho(time, key_bytes, b"bitcask_tombstone1\0\0\0\x01"),
                _ => basho(time, key_bytes, b"bitcask_tombstone2\0\0\0\x02"),
            },
            Self::Basho => basho(time, key_bytes, value_bytes),
            Self::Prologic => {
                let expiry = if number % 2 == 1 && value.is_some() { EXPIRY } else { 0 };
                prologic(key_bytes, value_bytes, Some(expiry))
            }
            Self::PrologicV0 => prologic(key_bytes, value_bytes, None),
        }
    }
}

pub(super) fn bitcaskpy(time: f64, key: &str, value: Option<&str>) -> Vec<u8> {
    let count = |text: &str| u32::try_from(text.chars().count()).unwrap().to_be_bytes();
    let text = value.unwrap_or_default();
    let mut bytes = time.to_be_bytes().to_vec();
    bytes.extend(count(key));
    bytes.extend(count(text));
    bytes.push(u8::from(value.is_none()));
    bytes.extend(key.as_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

pub(super) fn message(time: u64, key: &str, value: Option<&str>) -> Vec<u8> {
    let mut fields = Vec::new();
    if !key.is_empty() {
        fields.push(0x0a);
        fields.extend(varint(key.len() as u64));
        fields.extend(key.as_bytes());
    }
    if let Some(value) = value {
        fields.push(0x12);
        fields.extend(varint(value.len() as u64));
        fields.extend(value.as_bytes());
    }
    fields.push(0x18);
    fields.extend(varint(time));
    if value.is_none() {
        fields.extend([0x20, 1]);
    }
    [u32::try_from(fields.len()).unwrap().to_be_bytes().to_vec(), fields].concat()
}

pub(super) fn line(time: u64, key: &str, value: Option<&str>) -> Vec<u8> {
    let key = serde_json::to_string(key).unwrap();
    let line = match value {
        Some(value) => format!("{{\"key\": {key}, \"value\": {value}, \"timestamp\": {time}}}\n"),
        None => format!(
            "{{\"key\": {key}, \"value\": null, \"timestamp\": {time}, \"deleted\": true}}\n"
        ),
    };
    line.into_bytes()
}

pub(super) fn basho(time: u32, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut body = time.to_be_bytes().to_vec();
    body.extend(u16::try_from(key.len()).unwrap().to_be_bytes());
    body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
    body.extend(key);
    body.extend(value);
    [crc32fast::hash(&body).to_be_bytes().to_vec(), body].concat()
}

pub(super) fn prologic(key: &[u8], value: &[u8], expiry: Option<u64>) -> Vec<u8> {
    let mut bytes = u32::try_from(key.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend((value.len() as u64).to_be_bytes());
    bytes.extend(key);
    bytes.extend(value);
    bytes.extend(crc32fast::hash(value).to_be_bytes());
    bytes.extend(expiry.into_iter().flat_map(u64::to_be_bytes));
    bytes
}

/// A change in the other store: a number that is its time, a key, and a value unless it is a
/// delete.
pub(super) type OldChange = (u32, &'static str, Option<&'static str>);

/// Some changes in two files. The values are JSON, and no key or value contains the other.
pub(super) const CHANGES: [&[OldChange]; 2] = [
    &[
        (0, "alpha", Some("101")),
        (1, "beta", Some("\"bee\"")),
        (2, "gone", Some("[1, 22]")),
        (3, "alpha", Some("1044")),
        (4, "gone", None),
        (5, "back", Some("7")),
        (6, "back", None),
    ],
    &[
        (7, "delta", Some("{\"q\": 5}")),
        (8, "back", Some("808")),
        (9, "beta", Some("9")),
        (10, "sigma", Some("false")),
        (11, "sigma", None),
        (12, "zeta", Some("1234567")),
    ],
];

/// A store of another system.
#[derive(Debug, Clone)]
pub(super) struct OldStore {
    pub(super) kind: Kind,
    pub(super) files: Vec<Vec<u8>>,
}

impl OldStore {
    /// Returns a store with the [`CHANGES`].
    pub(super) fn sample(kind: Kind) -> Self {
        let files = CHANGES.iter().map(|changes| {
            let records =
                changes.iter().map(|(number, key, value)| kind.record(*number, key, *value));
            [vec![kind.head()], records.collect()].concat().concat()
        });
        Self { kind, files: files.collect() }
    }

    /// Imports the store into a new one on the same disk in memory.
    pub(super) fn import(&self) -> (ImportReport, Pairs) {
        let lab = Lab::new();
        lab.put(self);
        let report = lab.import(self.kind, ImportOptions::new()).unwrap();
        (report, lab.into_pairs())
    }
}

/// A disk in memory with another system's store, and with an open store.
pub(super) struct Lab {
    twin: Arc<Twin>,
    pub(super) db: Bitcask,
}

impl Lab {
    pub(super) fn new() -> Self {
        let twin = Twin::new();
        let fs = Fs::Twin(Arc::clone(&twin));
        let env = Env { fs, clock: Clock::system(), hasher: KeyHasher::new, threads: false };
        let options = Options::new().segment_size(4096).sync_policy(SyncPolicy::Never);
        let db = Bitcask::open_on(&env, Path::new("/new"), options).unwrap();
        Self { twin, db }
    }

    pub(super) fn put(&self, store: &OldStore) {
        for (number, bytes) in (1..).zip(&store.files) {
            self.put_file(&store.kind.file_name(number), bytes);
        }
    }

    pub(super) fn put_file(&self, name: &str, bytes: &[u8]) {
        self.twin.put_file(&PathBuf::from("/old").join(name), bytes.to_vec());
    }

    pub(super) fn import(&self, kind: Kind, options: ImportOptions<'_>) -> Result<ImportReport> {
        let fs = Fs::Twin(Arc::clone(&self.twin));
        import_on(&fs, Path::new("/old"), &self.db, &mut *kind.format(), options)
    }

    pub(super) fn pairs(&self) -> Pairs {
        let pairs = self.db.iter_unordered().map(|pair| pair.unwrap());
        pairs.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    pub(super) fn into_pairs(self) -> Pairs {
        let pairs = self.pairs();
        self.db.kill();
        pairs
    }
}
