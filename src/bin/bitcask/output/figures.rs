//! Reports: figures with names, and tables of figures.

use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, Table as Layout};
use owo_colors::OwoColorize as _;
use serde_json::{Map, Value};

use super::{Format, Printer};
use crate::failure::Failure;
use crate::units;

/// One figure of a report.
#[derive(Debug, Clone)]
pub(crate) enum Figure {
    /// A number of things.
    Count(u64),
    /// A size in bytes.
    Size(u64),
    /// A share from 0 to 1.
    Share(f64),
    /// A duration, in seconds for programs.
    Time(Duration),
    /// A number per second.
    Rate(u64),
    Text(String),
    Truth(bool),
}

impl Figure {
    /// Returns the figure as people read it.
    fn for_people(&self) -> String {
        match self {
            Self::Count(count) => grouped(*count),
            Self::Size(size) => units::show_size(*size),
            Self::Share(share) => units::show_share(*share),
            Self::Time(time) => units::show_duration(*time),
            Self::Rate(rate) => grouped(*rate) + "/s",
            Self::Text(text) => text.clone(),
            Self::Truth(true) => "yes".into(),
            Self::Truth(false) => "no".into(),
        }
    }

    /// Returns the figure as programs read it.
    fn for_programs(&self) -> Value {
        match self {
            Self::Count(number) | Self::Size(number) | Self::Rate(number) => Value::from(*number),
            Self::Share(share) => Value::from(*share),
            Self::Time(time) => Value::from(time.as_secs_f64()),
            Self::Text(text) => Value::from(text.as_str()),
            Self::Truth(yes) => Value::from(*yes),
        }
    }

    fn plain(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            other => other.for_programs().to_string(),
        }
    }

    fn is_number(&self) -> bool {
        !matches!(self, Self::Text(_) | Self::Truth(_))
    }
}

/// Returns a number with commas.
fn grouped(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

/// Returns a name as programs read it.
fn field(name: &str) -> String {
    name.replace([' ', '-'], "_")
}

impl Printer {
    /// Prints figures with their names: one per line, or as one object.
    pub(crate) fn report(&mut self, figures: &[(&'static str, Figure)]) -> Result<(), Failure> {
        match self.format {
            Format::Json => {
                let pair = |(name, figure): &(&str, Figure)| (field(name), figure.for_programs());
                self.json(&figures.iter().map(pair).collect::<Map<_, _>>())
            }
            Format::Plain => {
                let mut lines = figures.iter().map(|(name, figure)| (field(name), figure.plain()));
                lines.try_for_each(|(name, figure)| self.line(&format!("{name}\t{figure}")))
            }
            Format::Table => {
                let row =
                    |(name, figure): &(&str, Figure)| vec![(*name).to_owned(), figure.for_people()];
                let rows = figures.iter().map(row).collect();
                let text = table(&[], rows, &[], self.colour);
                self.line(&text)
            }
        }
    }

    /// Prints rows of figures under headings.
    pub(crate) fn table(
        &mut self,
        headings: &[&'static str],
        rows: &[Vec<Figure>],
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => rows.iter().try_for_each(|row| {
                let names = headings.iter().map(|name| field(name));
                let figures = row.iter().map(Figure::for_programs);
                self.json(&names.zip(figures).collect::<Map<_, _>>())
            }),
            Format::Plain => rows.iter().try_for_each(|row| {
                let cells: Vec<_> = row.iter().map(Figure::plain).collect();
                self.line(&cells.join("\t"))
            }),
            Format::Table if rows.is_empty() => Ok(()),
            Format::Table => {
                let numbers: Vec<bool> = rows
                    .first()
                    .map(|row| row.iter().map(Figure::is_number).collect())
                    .unwrap_or_default();
                let rows =
                    rows.iter().map(|row| row.iter().map(Figure::for_people).collect()).collect();
                let text = table(headings, rows, &numbers, self.colour);
                self.line(&text)
            }
        }
    }
}

/// Lays out a table without borders. Columns of numbers are aligned to the right.
pub(super) fn table(
    headings: &[&str],
    rows: Vec<Vec<String>>,
    numbers: &[bool],
    colour: bool,
) -> String {
    let mut layout = Layout::new();
    layout.load_style(NOTHING);
    let align = |at: usize, cell: Cell| {
        let right = numbers.get(at).is_some_and(|number| *number);
        cell.set_alignment(if right { CellAlignment::Right } else { CellAlignment::Left })
    };
    if !headings.is_empty() {
        let heading = |(at, name): (usize, &&str)| align(at, Cell::new(name));
        layout.set_header(headings.iter().enumerate().map(heading));
    }
    for row in rows {
        layout.add_row(row.into_iter().enumerate().map(|(at, text)| align(at, Cell::new(text))));
    }
    layout.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    let mut lines: Vec<_> = layout.lines().map(|line| line.trim_end().to_owned()).collect();
    if let Some(head) = lines.first_mut().filter(|_| colour && !headings.is_empty()) {
        *head = head.bold().to_string();
    }
    lines.join("\n")
}
