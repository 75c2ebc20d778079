//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::exit;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use crate::rows::{self, GROUPS};
use crate::{keys, stores};

const HELP: &str = "\
Races bitcask against other embedded stores, and writes a report.

usage: bitcask-compare [MODE] [OPTIONS]

modes:
  race          speed, disk, memory and opening of all stores (the default)
  latency       durations of single calls, of bitcask unless --stores names others
  scale         bitcask alone with 1M, 10M and 100M keys
  memory-limit  more data than a cgroup allows memory; needs root and the v1 memory controller
  list          prints the names of stores, groups and rows

An earlier run can be shown again: --report report.json

options:
  --keys N          keys in a store (race 2M, latency 5M, memory-limit: four times the limit)
  --value-size B    bytes of a value (race and latency 100, scale 16, memory-limit 400)
  --rounds N        rounds in which the stores take turns (race 3, otherwise 1)
  --seconds N       time limit of each measurement (race 10, memory-limit 30, latency 600)
  --only A,B        only these groups or rows
  --stores A,B      only these stores
  --sizes A,B       keys of the stores of `scale` (1M,10M,100M)
  --limit MIB       memory of `memory-limit` (512)
  --dir PATH        where stores are created, and removed afterwards
  --out PATH        where report.md, report.json and the charts go
  --report FILE     measures nothing, and writes the report of an earlier run from its JSON

N may end in k or M.
";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Race,
    Latency,
    Scale,
    MemoryLimit,
}

impl Mode {
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let modes = [Self::Race, Self::Latency, Self::Scale, Self::MemoryLimit];
        modes.into_iter().find(|mode| name == mode.name())
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Race => "race",
            Self::Latency => "latency",
            Self::Scale => "scale",
            Self::MemoryLimit => "memory-limit",
        }
    }
}

/// What a process that the race has started has to do.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) store: String,
    pub(crate) group: String,
    pub(crate) step: String,
    pub(crate) round: u64,
    /// Directory of the store.
    pub(crate) path: PathBuf,
    /// The cgroup to join.
    pub(crate) cgroup: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) mode: Mode,
    pub(crate) keys: u64,
    pub(crate) value_size: usize,
    pub(crate) rounds: u64,
    pub(crate) limit: Duration,
    only: Vec<String>,
    pub(crate) stores: Vec<String>,
    pub(crate) sizes: Vec<u64>,
    /// Memory that a store larger than memory gets, in bytes.
    pub(crate) memory: u64,
    pub(crate) dir: PathBuf,
    pub(crate) out: PathBuf,
    /// The JSON of an earlier run, which is only shown again.
    pub(crate) report: Option<PathBuf>,
    pub(crate) child: Option<Child>,
}

impl Arguments {
    /// Parses the command line. Prints help or a mistake, and ends the process, if there is one.
    pub(crate) fn parse() -> Self {
        let parsed = Given::parse(Parser::from_env()).and_then(Given::complete);
        parsed.unwrap_or_else(|error| {
            eprintln!("{error}; see --help");
            exit(2);
        })
    }

    /// Returns whether a row has to be measured.
    pub(crate) fn wants(&self, row: &str) -> bool {
        let group = rows::find(row).0.name;
        self.only.is_empty() || self.only.iter().any(|name| name == group || name == row)
    }
}

/// The options as they were given.
#[derive(Default)]
struct Given {
    mode: Option<Mode>,
    keys: Option<u64>,
    value_size: Option<u64>,
    rounds: Option<u64>,
    seconds: Option<u64>,
    memory: Option<u64>,
    only: Vec<String>,
    stores: Vec<String>,
    sizes: Vec<u64>,
    dir: Option<PathBuf>,
    out: Option<PathBuf>,
    report: Option<PathBuf>,
    child: Option<Child>,
}

impl Given {
    fn parse(mut parser: Parser) -> Result<Self, lexopt::Error> {
        let mut given = Self::default();
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Value(name) => given.mode = Some(mode(&name)?),
                Arg::Long("keys") => given.keys = Some(number(&parser.value()?.string()?)?),
                Arg::Long("value-size") => {
                    given.value_size = Some(number(&parser.value()?.string()?)?);
                }
                Arg::Long("rounds") => given.rounds = Some(number(&parser.value()?.string()?)?),
                Arg::Long("seconds") => given.seconds = Some(number(&parser.value()?.string()?)?),
                Arg::Long("limit") => given.memory = Some(number(&parser.value()?.string()?)?),
                Arg::Long("only") => given.only = list(parser.value()?)?,
                Arg::Long("stores") => given.stores = list(parser.value()?)?,
                Arg::Long("sizes") => {
                    let sizes = list(parser.value()?)?;
                    given.sizes =
                        sizes.iter().map(|size| number(size)).collect::<Result<_, _>>()?;
                }
                Arg::Long("dir") => given.dir = Some(parser.value()?.into()),
                Arg::Long("out") => given.out = Some(parser.value()?.into()),
                Arg::Long("report") => given.report = Some(parser.value()?.into()),
                Arg::Long("child") => given.child = Some(child(&mut parser)?),
                Arg::Long("help") | Arg::Short('h') => {
                    print!("{HELP}");
                    exit(0);
                }
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(given)
    }

    fn complete(self) -> Result<Arguments, lexopt::Error> {
        let mode = self.mode.unwrap_or(Mode::Race);
        let (value_size, rounds, seconds) = match mode {
            Mode::Race => (100, 3, 10),
            Mode::Latency => (100, 1, 600),
            Mode::Scale => (16, 1, 10),
            Mode::MemoryLimit => (400, 1, 30),
        };
        let memory = self.memory.unwrap_or(512) << 20;
        let value_size = self.value_size.unwrap_or(value_size) as usize;
        let keys = self.keys.unwrap_or(match mode {
            Mode::Latency => 5_000_000,
            Mode::MemoryLimit => 4 * memory / (value_size + size_of::<keys::Key>()) as u64,
            Mode::Race | Mode::Scale => 2_000_000,
        });
        let stores = if self.stores.is_empty() { default_stores(mode) } else { self.stores };
        check(mode, &self.only, &stores)?;
        if value_size < keys::VALUE_SIZE_MIN {
            return Err(format!("values have at least {} bytes", keys::VALUE_SIZE_MIN).into());
        }
        let sizes = [1_000_000, 10_000_000, 100_000_000];
        let target = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/compare"));
        Ok(Arguments {
            mode,
            keys: keys.next_multiple_of(keys::GROUP_LEN),
            value_size,
            rounds: self.rounds.unwrap_or(rounds),
            limit: Duration::from_secs(self.seconds.unwrap_or(seconds)),
            only: self.only,
            stores,
            sizes: if self.sizes.is_empty() { sizes.to_vec() } else { self.sizes },
            memory,
            dir: self.dir.unwrap_or_else(|| target.join("stores")),
            out: self.out.unwrap_or_else(|| target.join("report").join(mode.name())),
            report: self.report,
            child: self.child,
        })
    }
}

fn default_stores(mode: Mode) -> Vec<String> {
    let names: &[&str] = match mode {
        Mode::Race => stores::NAMES,
        Mode::Latency | Mode::Scale => &["bitcask"],
        Mode::MemoryLimit => &["bitcask", "lmdb", "candystore", "fjall"],
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn mode(name: &OsString) -> Result<Mode, lexopt::Error> {
    if name == "list" {
        print_names();
        exit(0);
    }
    let found = name.to_str().and_then(Mode::of_name);
    found.ok_or_else(|| format!("there is no mode {}", name.display()).into())
}

fn print_names() {
    println!("stores: {}", stores::NAMES.join(" "));
    for group in GROUPS {
        let names: Vec<_> = group.rows.iter().map(|row| row.name).collect();
        println!("{} {}: {}", group.mode.name(), group.name, names.join(" "));
    }
}

/// Refuses names that do not exist.
fn check(mode: Mode, only: &[String], stores: &[String]) -> Result<(), lexopt::Error> {
    for name in only {
        let is_in = |group: &rows::Group| {
            group.name == name || group.rows.iter().any(|row| row.name == name)
        };
        if !rows::of_mode(mode).any(is_in) {
            return Err(format!("{} has no row and no group {name}", mode.name()).into());
        }
    }
    match stores.iter().find(|name| !stores::NAMES.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(format!("there is no store {name}").into()),
    }
}

/// Parses a number such as 2000, 20k or 2M.
fn number(text: &str) -> Result<u64, lexopt::Error> {
    let digits = text.replace('_', "");
    let (digits, factor) = match digits.strip_suffix(['k', 'M']) {
        Some(rest) if digits.ends_with('k') => (rest, 1_000),
        Some(rest) => (rest, 1_000_000),
        None => (digits.as_str(), 1),
    };
    let number: Result<u64, _> = digits.parse();
    number.map(|number| number * factor).map_err(|_| format!("{text} is no number").into())
}

fn list(text: OsString) -> Result<Vec<String>, lexopt::Error> {
    Ok(text.string()?.split(',').map(str::to_owned).collect())
}

/// Parses what `process::Task::start` writes.
fn child(parser: &mut Parser) -> Result<Child, lexopt::Error> {
    let mut next = || parser.value()?.string();
    Ok(Child {
        store: next()?,
        group: next()?,
        step: next()?,
        round: number(&next()?)?,
        path: next()?.into(),
        cgroup: Some(next()?).filter(|path| !path.is_empty()).map(PathBuf::from),
    })
}
