//! The report of a run: tables for readers, JSON for programs, and charts.

mod charts;
mod machine;
mod svg;

use std::fmt::Write;
use std::fs;

use serde_json::{Map, Value, json};

use crate::arguments::{Arguments, Mode};
use crate::process::Figures;
use crate::rows::{self, Group, Row};
use crate::stores;

/// Writes `report.md`, `report.json` and a chart for each group, and prints the tables.
pub(crate) fn write(arguments: &Arguments, figures: &Figures) {
    fs::create_dir_all(&arguments.out).unwrap();
    let shown: Vec<_> = rows::of_mode(arguments.mode)
        .filter(|group| group.rows.iter().any(|row| !columns(figures, row).is_empty()))
        .collect();
    let mut text = head(arguments);
    for group in &shown {
        text.push_str(&table(group, figures));
        let chart = match group.mode {
            Mode::Latency => charts::latency(group, figures),
            Mode::Scale => charts::growth(group, figures),
            Mode::Race | Mode::MemoryLimit => charts::bars(group, figures),
        };
        let name = format!("{}.svg", group.name);
        writeln!(text, "\n![{}]({name})", group.title).unwrap();
        fs::write(arguments.out.join(name), chart).unwrap();
    }
    if !figures.failures.is_empty() {
        text.push_str("\n## Failures\n\n");
        figures.failures.iter().for_each(|what| writeln!(text, "- {what}").unwrap());
    }
    fs::write(arguments.out.join("report.md"), &text).unwrap();
    let json = serde_json::to_string_pretty(&as_json(arguments, figures, &shown)).unwrap();
    fs::write(arguments.out.join("report.json"), json).unwrap();
    println!("{text}");
    println!("The report is in {}.", arguments.out.display());
}

/// Returns the columns that have a figure of a row, in the order of the report.
fn columns<'a>(figures: &'a Figures, row: &Row) -> Vec<&'a str> {
    let mut columns: Vec<_> = figures.columns.iter().map(String::as_str).collect();
    columns.retain(|column| figures.median(row.name, column).is_some());
    columns
}

fn head(arguments: &Arguments) -> String {
    let mut text = format!("# bitcask-compare {}\n\n", arguments.mode.name());
    let keys = match arguments.mode {
        Mode::Scale => String::from("Keys"),
        _ => format!("{} keys", rounded(arguments.keys as f64)),
    };
    let (size, rounds) = (arguments.value_size, arguments.rounds);
    write!(text, "{keys} of 16 B with values of {size} B; ").unwrap();
    match rounds {
        1 => text.push_str("one round.\n"),
        _ => writeln!(text, "medians of {rounds} rounds, in which the stores take turns.").unwrap(),
    }
    if arguments.mode == Mode::MemoryLimit {
        writeln!(text, "Memory: {} MiB.", arguments.memory >> 20).unwrap();
    }
    let versions = stores::versions();
    let versions: Vec<_> =
        versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    writeln!(text, "\n{}\n\n{}", machine::description(), versions.join(", ")).unwrap();
    text
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

fn as_json(arguments: &Arguments, figures: &Figures, shown: &[&Group]) -> Value {
    let versions = stores::versions();
    let versions: Map<String, Value> =
        versions.iter().map(|(name, version)| ((*name).to_owned(), json!(version))).collect();
    let rows = shown.iter().flat_map(|group| group.rows.iter().map(move |row| (group, row)));
    let rows: Vec<_> = rows
        .map(|(group, row)| {
            let column = |column: &str| {
                let rounds = figures.rounds(row.name, column);
                let median = figures.median(row.name, column);
                (column.to_owned(), json!({ "median": median, "rounds": rounds }))
            };
            let columns: Map<String, Value> =
                columns(figures, row).into_iter().map(column).collect();
            json!({
                "row": row.name,
                "group": group.name,
                "title": row.title,
                "unit": row.unit.name(),
                "more_is_better": row.unit.more_is_better(),
                "figures": columns,
            })
        })
        .collect();
    json!({
        "mode": arguments.mode.name(),
        "keys": arguments.keys,
        "value_size": arguments.value_size,
        "rounds": arguments.rounds,
        "machine": machine::description(),
        "versions": versions,
        "rows": rows,
        "failures": figures.failures,
    })
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
