//! Starts a process for each store, and collects the figures that it prints.
//!
//! A process prints one JSON object per line: `{"row": name, "value": number}`, or
//! `{"ready": true}` when it waits to be killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child as Running, Command, ExitStatus, Stdio};

use serde_json::Value;

use crate::arguments::{Arguments, Mode};
use crate::cgroup::Cgroup;
use crate::rows::{self, Group, Who};
use crate::stores::LIMIT;

/// All figures of a run.
#[derive(Default)]
pub(crate) struct Figures {
    /// The rounds' figures by row and column. A column is a store, or a size of `scale`.
    rounds: BTreeMap<(String, String), Vec<f64>>,
    /// The columns in the order in which they came.
    pub(crate) columns: Vec<String>,
    /// What went wrong, for the report.
    pub(crate) failures: Vec<String>,
}

impl Figures {
    /// Returns figures to add to, whose columns have a known order.
    pub(crate) fn new(columns: Vec<String>, failures: Vec<String>) -> Self {
        Self { rounds: BTreeMap::new(), columns, failures }
    }

    pub(crate) fn add(&mut self, row: &str, column: &str, value: f64) {
        self.rounds.entry((row.to_owned(), column.to_owned())).or_default().push(value);
        if !self.columns.iter().any(|known| known == column) {
            self.columns.push(column.to_owned());
        }
    }

    fn fail(&mut self, what: String) {
        eprintln!("FAILED: {what}");
        self.failures.push(what);
    }

    pub(crate) fn rounds(&self, row: &str, column: &str) -> &[f64] {
        let key = (row.to_owned(), column.to_owned());
        self.rounds.get(&key).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn median(&self, row: &str, column: &str) -> Option<f64> {
        let mut rounds = self.rounds(row, column).to_vec();
        rounds.sort_by(f64::total_cmp);
        rounds.get(rounds.len().saturating_sub(1) / 2).copied()
    }
}

/// Runs all wanted groups with all stores, in rounds.
pub(crate) fn race(arguments: &Arguments, figures: &mut Figures) {
    let wanted: Vec<_> = rows::of_mode(arguments.mode)
        .filter(|group| group.measured().any(|row| arguments.wants(row)))
        .collect();
    for round in 0..arguments.rounds {
        for group in &wanted {
            let takes_part = |store: &&String| match group.who {
                Who::All => true,
                Who::Once => *store != "bitcask-unchecked",
                Who::Bitcask => *store == "bitcask",
            };
            // The limit cannot be opened again.
            let can_run = |store: &&String| *store != LIMIT || group.steps.len() == 1;
            for store in arguments.stores.iter().filter(takes_part).filter(can_run) {
                let task = Task { arguments, group, store, column: store, round, keys: None };
                task.run(figures);
            }
        }
    }
}

/// Runs bitcask with one number of keys after the other.
pub(crate) fn grow(arguments: &Arguments, figures: &mut Figures) {
    for round in 0..arguments.rounds {
        for group in rows::of_mode(Mode::Scale) {
            for size in &arguments.sizes {
                let column = crate::report::rounded(*size as f64);
                let (store, keys) = ("bitcask", Some(*size));
                Task { arguments, group, store, column: &column, round, keys }.run(figures);
            }
        }
    }
}

/// A group of rows with one store in one round.
struct Task<'a> {
    arguments: &'a Arguments,
    group: &'static Group,
    store: &'a str,
    /// Column in which the figures are shown.
    column: &'a str,
    round: u64,
    /// Number of keys, if it is not that of the arguments.
    keys: Option<u64>,
}

impl Task<'_> {
    /// Runs the steps in a new directory, which is removed afterwards.
    fn run(&self, figures: &mut Figures) {
        let parent = &self.arguments.dir;
        std::fs::create_dir_all(parent).unwrap();
        let home = tempfile::Builder::new().prefix(self.store).tempdir_in(parent).unwrap();
        for step in self.group.steps {
            let limits = self.arguments.mode == Mode::MemoryLimit;
            let cgroup = limits.then(|| Cgroup::new(self.arguments.memory));
            let cgroup_path = cgroup.as_ref().map(Cgroup::path);
            let mut running = self.start(step, &home.path().join("store"), cgroup_path);
            let (status, was_killed) = self.collect(&mut running, figures);
            if !status.success() && !was_killed {
                let (group, column, round) = (self.group.name, self.column, self.round + 1);
                let why = match cgroup {
                    Some(cgroup) if cgroup.has_killed() => ", as it needed more memory",
                    _ => "",
                };
                figures.fail(format!("{column}, {group}, {step}, round {round}: {status}{why}"));
                return;
            }
        }
    }

    /// Starts this program again, with the same arguments and what `arguments::Child` says.
    fn start(&self, step: &str, path: &Path, cgroup: Option<&Path>) -> Running {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(std::env::args_os().skip(1));
        if let Some(keys) = self.keys {
            command.args(["--keys", &keys.to_string()]);
        }
        command.args(["--child", self.store, self.group.name, step, &self.round.to_string()]);
        command.arg(path).arg(cgroup.unwrap_or(Path::new("")));
        command.stdout(Stdio::piped()).spawn().unwrap()
    }

    /// Reads what a process prints until it ends. Returns how it ended, and whether it was killed
    /// because it said that it was ready.
    fn collect(&self, running: &mut Running, figures: &mut Figures) -> (ExitStatus, bool) {
        let mut was_killed = false;
        for line in BufReader::new(running.stdout.take().unwrap()).lines() {
            let Ok(line) = serde_json::from_str::<Value>(&line.unwrap()) else { continue };
            if let (Some(row), Some(value)) = (line["row"].as_str(), line["value"].as_f64()) {
                let (column, unit) = (self.column, rows::find(row).1.unit.name());
                let shown = crate::report::rounded(value);
                eprintln!("round {}: {column}: {row} {shown} {unit}", self.round + 1);
                figures.add(row, column, value);
            } else if line["ready"] == true {
                // SIGKILL: the process gets no chance to close the store.
                running.kill().unwrap();
                was_killed = true;
            }
        }
        (running.wait().unwrap(), was_killed)
    }
}

/// Prints a figure for the process that started this one, if it is wanted.
pub(crate) fn tell(arguments: &Arguments, row: &str, value: f64) {
    if arguments.wants(row) {
        println!("{}", serde_json::json!({ "row": row, "value": value }));
    }
}

/// Tells the process that started this one to kill it, and waits for that, with the store open: a
/// store that is dropped before is closed.
pub(crate) fn wait_to_be_killed<S>(_open: &S) -> ! {
    println!("{}", serde_json::json!({ "ready": true }));
    loop {
        std::thread::park();
    }
}
