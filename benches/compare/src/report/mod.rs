//! The report of a run: tables for readers, JSON for programs, and charts.

mod charts;
mod json;
mod machine;
mod svg;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::arguments::{Arguments, Mode};
use crate::process::Figures;
use crate::rows::{self, Group, Row};
use crate::stores;

/// What a run has found, and what a reader has to know of it. `report.json` has all of it.
pub(crate) struct Report {
    mode: Mode,
    keys: u64,
    value_size: u64,
    rounds: u64,
    /// Memory that the stores of `memory-limit` got, in bytes.
    memory: u64,
    machine: String,
    versions: Vec<(String, String)>,
    figures: Figures,
}

impl Report {
    /// Describes a run that has just been made on this machine.
    pub(crate) fn new(arguments: &Arguments, figures: Figures) -> Self {
        let owned = |(name, version): (&str, &str)| (name.to_owned(), version.to_owned());
        Self {
            mode: arguments.mode,
            keys: arguments.keys,
            value_size: arguments.value_size as u64,
            rounds: arguments.rounds,
            memory: arguments.memory,
            machine: machine::description(),
            versions: stores::versions().into_iter().map(owned).collect(),
            figures,
        }
    }

    /// Returns whether something went wrong in the run.
    pub(crate) fn has_failures(&self) -> bool {
        !self.figures.failures.is_empty()
    }

    /// Writes `report.md`, `report.json` and a chart for each group into a directory, and prints
    /// the tables.
    pub(crate) fn write(&self, out: &Path) {
        fs::create_dir_all(out).unwrap();
        let text = self.text();
        fs::write(out.join("report.md"), &text).unwrap();
        fs::write(out.join("report.json"), self.to_json()).unwrap();
        for (name, chart) in self.charts() {
            fs::write(out.join(format!("{name}.svg")), chart).unwrap();
        }
        println!("{text}");
        println!("The report is in {}.", out.display());
    }

    /// Returns the groups that have figures.
    fn groups(&self) -> impl Iterator<Item = &'static Group> {
        rows::of_mode(self.mode)
            .filter(|group| group.rows.iter().any(|row| !columns(&self.figures, row).is_empty()))
    }

    /// Returns the charts with their names: one for each group, and a summary of a race.
    fn charts(&self) -> Vec<(&'static str, String)> {
        let chart = |group: &'static Group| {
            let chart = match group.mode {
                Mode::Latency => charts::latency(group, &self.figures),
                Mode::Scale => charts::growth(group, &self.figures),
                Mode::Race | Mode::MemoryLimit => charts::bars(group, &self.figures),
            };
            (group.name, chart)
        };
        let mut charts: Vec<_> = self.groups().map(chart).collect();
        charts.extend(charts::summary(&self.figures).map(|chart| ("summary", chart)));
        charts
    }

    fn text(&self) -> String {
        let mut text = self.head();
        for group in self.groups() {
            text.push_str(&table(group, &self.figures));
            writeln!(text, "\n![{}]({}.svg)", group.title, group.name).unwrap();
        }
        if self.has_failures() {
            text.push_str("\n## Failures\n\n");
            self.figures.failures.iter().for_each(|what| writeln!(text, "- {what}").unwrap());
        }
        text
    }

    fn head(&self) -> String {
        let mut text = format!("# bitcask-compare {}\n\n", self.mode.name());
        let keys = match self.mode {
            Mode::Scale => String::from("Keys"),
            _ => format!("{} keys", rounded(self.keys as f64)),
        };
        let (size, rounds) = (self.value_size, self.rounds);
        write!(text, "{keys} of 16 B with values of {size} B; ").unwrap();
        match rounds {
            1 => text.push_str("one round.\n"),
            _ => writeln!(text, "medians of {rounds} rounds, in which the stores take turns.")
                .unwrap(),
        }
        if self.mode == Mode::MemoryLimit {
            writeln!(text, "Memory: {} MiB.", self.memory >> 20).unwrap();
        }
        let versions: Vec<_> =
            self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        writeln!(text, "\n{}\n\n{}", self.machine, versions.join(", ")).unwrap();
        text
    }
}

/// Returns the columns that have a figure of a row, in the order of the report.
fn columns<'a>(figures: &'a Figures, row: &Row) -> Vec<&'a str> {
    let mut columns: Vec<_> = figures.columns.iter().map(String::as_str).collect();
    columns.retain(|column| figures.median(row.name, column).is_some());
    columns
}

/// Returns a table of a group: rows by columns, the best figure of a store in bold.
fn table(group: &Group, figures: &Figures) -> String {
    let has_any =
        |column: &&String| group.rows.iter().any(|row| figures.median(row.name, column).is_some());
    let columns: Vec<_> = figures.columns.iter().filter(has_any).collect();
    let has_ratios = group.mode != Mode::Scale && columns.len() > 1;
    let mut text = format!("\n## {}\n\n", group.title);
    if !group.note.is_empty() {
        writeln!(text, "{}\n", group.note).unwrap();
    }
    let names: Vec<_> = columns.iter().map(|column| column.as_str()).collect();
    write!(text, "| {} | unit | {} |", group.name, names.join(" | ")).unwrap();
    text.push_str(if has_ratios { " bitcask to the best peer |\n" } else { "\n" });
    write!(text, "| --- | --- |{}", " ---: |".repeat(columns.len())).unwrap();
    text.push_str(if has_ratios { " ---: |\n" } else { "\n" });
    for row in group.rows {
        let values: Vec<_> =
            columns.iter().map(|column| figures.median(row.name, column)).collect();
        if values.iter().all(Option::is_none) {
            continue;
        }
        write!(text, "| {} | {} |", row.title, row.unit.name()).unwrap();
        // A calculation beside the stores is no race.
        let races = has_ratios && !row.name.starts_with("nothing");
        let rivals = columns.iter().zip(&values).filter(|(column, _)| **column != stores::LIMIT);
        let best = best(row, rivals.filter_map(|(_, value)| *value));
        for value in &values {
            match value {
                None => text.push_str(" - |"),
                Some(value) if races && Some(*value) == best => {
                    write!(text, " **{}** |", rounded(*value)).unwrap();
                }
                Some(value) => write!(text, " {} |", rounded(*value)).unwrap(),
            }
        }
        if has_ratios {
            let ratio = to_the_best_peer(row, figures, &names).filter(|_| races);
            let ratio = ratio.map_or(String::from("-"), |ratio| format!("{ratio:.2}x"));
            write!(text, " {ratio} |").unwrap();
        }
        text.push('\n');
    }
    text
}

fn best(row: &Row, values: impl Iterator<Item = f64>) -> Option<f64> {
    if row.unit.more_is_better() { values.reduce(f64::max) } else { values.reduce(f64::min) }
}

/// Returns how many times as good bitcask is as the best of the other stores.
fn to_the_best_peer(row: &Row, figures: &Figures, columns: &[&str]) -> Option<f64> {
    let peers = columns.iter().filter(|column| stores::is_peer(column));
    let peers = peers.filter_map(|column| figures.median(row.name, column));
    let (ours, peer) = (figures.median(row.name, "bitcask")?, best(row, peers)?);
    let ratio = if row.unit.more_is_better() { ours / peer } else { peer / ours };
    Some(ratio).filter(|ratio| ratio.is_finite())
}

/// Returns a number with three digits at most.
pub(crate) fn rounded(value: f64) -> String {
    let (value, suffix) = match value.abs() {
        size if size >= 999_500.0 => (value / 1e6, "M"),
        size if size >= 9_995.0 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    let mut text = format!("{value:.digits$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text + suffix
}
