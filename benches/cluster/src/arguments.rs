//! The command line.

use std::process::exit;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt as _};

use crate::Failure;

const HELP: &str = "\
Measures a cluster of bitcask, etcd or Redis, and prints the figures as JSON.

usage: bitcask-cluster-load TASK --system NAME --nodes A,B,C [OPTIONS]

tasks:
  fill          writes each key once
  write         writes keys at random
  read          reads keys at random
  failover      writes one key, kills the node that leads it, and writes until that succeeds again
  stop          writes one key, asks the node that leads it to end, and writes until it has ended

options:
  --system NAME     bitcask, redis or etcd
  --nodes A,B,C     the addresses of all nodes, where clients reach them
  --pids A,B,C      the processes of these nodes, of which `failover` kills one, or `stop` stops
  --clients N       how many clients there are (1)
  --keys N          how many keys there are (10000)
  --value-size B    bytes of a value (100)
  --seconds N       duration of the measurement, after a start that does not count (4)
  --seed N          which random numbers are drawn (1)
";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Fill,
    Write,
    Read,
    Failover,
    Stop,
}

/// Whose nodes these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    Bitcask,
    Redis,
    Etcd,
}

#[derive(Debug, Clone)]
pub(crate) struct Arguments {
    pub(crate) task: Task,
    pub(crate) system: System,
    pub(crate) nodes: Vec<String>,
    pub(crate) pids: Vec<u32>,
    pub(crate) clients: u64,
    pub(crate) keys: u64,
    pub(crate) value_size: usize,
    pub(crate) duration: Duration,
    pub(crate) seed: u64,
}

impl Arguments {
    /// Reads the command line, or ends the program.
    pub(crate) fn parse() -> Self {
        Self::read(Parser::from_env()).unwrap_or_else(|failure| {
            eprintln!("{failure}\n\n{HELP}");
            exit(2);
        })
    }

    fn read(mut parser: Parser) -> Result<Self, Failure> {
        let (mut task, mut system, mut nodes, mut pids) = (None, None, Vec::new(), Vec::new());
        let (mut clients, mut keys, mut value_size, mut seconds, mut seed) =
            (1, 10_000, 100, 4.0, 1);
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Value(name) if task.is_none() => {
                    task = Some(match &*name.string()? {
                        "fill" => Task::Fill,
                        "write" => Task::Write,
                        "read" => Task::Read,
                        "failover" => Task::Failover,
                        "stop" => Task::Stop,
                        other => return Err(format!("no task is called {other}").into()),
                    });
                }
                Arg::Long("system") => {
                    system = Some(match &*parser.value()?.string()? {
                        "bitcask" => System::Bitcask,
                        "redis" => System::Redis,
                        "etcd" => System::Etcd,
                        other => return Err(format!("no system is called {other}").into()),
                    });
                }
                Arg::Long("nodes") => {
                    nodes = parser.value()?.string()?.split(',').map(str::to_owned).collect();
                }
                Arg::Long("pids") => {
                    let list = parser.value()?.string()?;
                    pids = list.split(',').map(str::parse).collect::<Result<_, _>>()?;
                }
                Arg::Long("clients") => clients = parser.value()?.parse()?,
                Arg::Long("keys") => keys = parser.value()?.parse()?,
                Arg::Long("value-size") => value_size = parser.value()?.parse()?,
                Arg::Long("seconds") => seconds = parser.value()?.parse()?,
                Arg::Long("seed") => seed = parser.value()?.parse()?,
                Arg::Long("help") | Arg::Short('h') => {
                    print!("{HELP}");
                    exit(0);
                }
                other => return Err(other.unexpected().into()),
            }
        }
        let task = task.ok_or("which task?")?;
        if nodes.is_empty() || clients == 0 || keys == 0 {
            return Err("there must be nodes, clients and keys".into());
        }
        if matches!(task, Task::Failover | Task::Stop) && pids.len() != nodes.len() {
            return Err("each node needs its process".into());
        }
        let system = system.ok_or("which system?")?;
        let duration = Duration::from_secs_f64(seconds);
        Ok(Self { task, system, nodes, pids, clients, keys, value_size, duration, seed })
    }

    /// Returns the key with this number.
    pub(crate) fn key(&self, number: u64) -> Vec<u8> {
        format!("key:{:08}", number % self.keys).into_bytes()
    }

    /// Returns the value of a key: the key, and as many more bytes as are missing.
    pub(crate) fn value(&self, key: &[u8]) -> Vec<u8> {
        let mut value = key.to_vec();
        value.resize(self.value_size, b'x');
        value
    }
}
