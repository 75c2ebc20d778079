//! `report.json`: the figures of a run for programs, from which the charts can be drawn again.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Report, columns};
use crate::arguments::Mode;
use crate::process::Figures;

impl Report {
    pub(super) fn to_json(&self) -> String {
        let figures = &self.figures;
        let rows = self.groups().flat_map(|group| group.rows.iter().map(move |row| (group, row)));
        let rows: Vec<_> = rows
            .map(|(group, row)| {
                let column = |column: &str| {
                    let rounds = figures.rounds(row.name, column);
                    let median = figures.median(row.name, column);
                    (column.to_owned(), json!({ "median": median, "rounds": rounds }))
                };
                let shown = columns(figures, row);
                let columns: Map<String, Value> = shown.into_iter().map(column).collect();
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
        let versions: Map<String, Value> =
            self.versions.iter().map(|(name, version)| (name.clone(), json!(version))).collect();
        let report = json!({
            "mode": self.mode.name(),
            "keys": self.keys,
            "value_size": self.value_size,
            "rounds": self.rounds,
            "memory": self.memory,
            "machine": self.machine,
            "versions": versions,
            "columns": figures.columns,
            "rows": rows,
            "failures": figures.failures,
        });
        let mut text = serde_json::to_string_pretty(&report).unwrap();
        text.push('\n');
        text
    }

    /// Reads the `report.json` of an earlier run.
    pub(crate) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        let json: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{} is not JSON: {error}", path.display()));
        let number = |name: &str| json[name].as_u64().unwrap();
        let mode = json["mode"].as_str().and_then(Mode::of_name).unwrap();
        let version =
            |(name, version): (&String, &Value)| (name.clone(), version.as_str().unwrap().into());
        Self {
            mode,
            keys: number("keys"),
            value_size: number("value_size"),
            rounds: number("rounds"),
            memory: number("memory"),
            machine: json["machine"].as_str().unwrap().into(),
            versions: json["versions"].as_object().unwrap().iter().map(version).collect(),
            figures: figures(&json),
        }
    }
}

fn figures(json: &Value) -> Figures {
    let list = |name: &str| -> Vec<String> {
        let items = json[name].as_array().unwrap().iter();
        items.map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let mut figures = Figures::new(list("columns"), list("failures"));
    for row in json["rows"].as_array().unwrap() {
        for (column, found) in row["figures"].as_object().unwrap() {
            for value in found["rounds"].as_array().unwrap() {
                figures.add(row["row"].as_str().unwrap(), column, value.as_f64().unwrap());
            }
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runs that the documentation shows, next to their charts.
    fn documented() -> Vec<std::path::PathBuf> {
        let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/charts");
        let paths = fs::read_dir(charts).unwrap().map(|entry| entry.unwrap().path());
        let is_run = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "json");
        let paths: Vec<_> = paths.filter(is_run).collect();
        assert!(!paths.is_empty());
        paths
    }

    #[test]
    fn the_charts_of_the_documentation_are_drawn_from_its_figures() {
        for path in documented() {
            for (name, chart) in Report::read(&path).charts() {
                let shown = fs::read_to_string(path.with_file_name(format!("{name}.svg")));
                assert_eq!(shown.unwrap(), chart, "{name}.svg is not that of {}", path.display());
            }
        }
    }

    #[test]
    fn the_figures_of_the_documentation_are_those_of_its_runs() {
        let charts = documented();
        let text = fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/benchmarks.md"),
        );
        let text = text.unwrap();
        for path in charts {
            let report = Report::read(&path);
            for group in report.groups() {
                let table = super::super::table(group, &report.figures);
                for line in table.lines().filter(|line| line.starts_with('|')) {
                    assert!(text.contains(line), "not in benchmarks.md: {line}");
                }
            }
        }
    }

    #[test]
    fn a_report_read_from_json_is_the_same() {
        for path in documented() {
            assert_eq!(fs::read_to_string(&path).unwrap(), Report::read(&path).to_json());
        }
    }
}
