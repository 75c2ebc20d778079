//! The charts: bars that compare stores, dots for the percentiles of calls, and lines of growth.
//! Each row of a group is a panel with a scale of its own.

use super::svg::{Anchor, LINE, OURS, OURS_UNCHECKED, PEER, Svg};
use super::{columns, rounded};
use crate::process::Figures;
use crate::rows::{self, Group, Row};
use crate::stores::LIMIT;

const WIDTH: f64 = 860.0;
const MARGIN: f64 = 16.0;
const HEAD_HEIGHT: f64 = 40.0;
const PANELS_A_LINE: usize = 2;
const PANEL_WIDTH: f64 = (WIDTH - 2.0 * MARGIN) / PANELS_A_LINE as f64;
/// Width of the names of stores.
const NAME_WIDTH: f64 = 120.0;
const BAR_STEP: f64 = 19.0;
const BAR_HEIGHT: f64 = 13.0;
/// Room behind the longest bar for its figure.
const VALUE_WIDTH: f64 = 60.0;
const TITLE_HEIGHT: f64 = 26.0;
const PANEL_GAP: f64 = 18.0;

fn colour(store: &str) -> &'static str {
    match store {
        "bitcask" => OURS,
        "bitcask-unchecked" => OURS_UNCHECKED,
        LIMIT => LINE,
        _ => PEER,
    }
}

/// Starts a drawing for panels of the same height. Returns it with the place of each panel.
fn panels(title: &str, count: usize, height: f64) -> (Svg, Vec<(f64, f64)>) {
    let lines = count.div_ceil(PANELS_A_LINE) as f64;
    let mut svg = Svg::new(WIDTH, HEAD_HEIGHT + lines * (height + PANEL_GAP));
    svg.text((MARGIN, 24.0), "head", Anchor::Start, title);
    let place = |at: usize| {
        let (line, column) = ((at / PANELS_A_LINE) as f64, (at % PANELS_A_LINE) as f64);
        (MARGIN + column * PANEL_WIDTH, HEAD_HEIGHT + line * (height + PANEL_GAP))
    };
    (svg, (0..count).map(place).collect())
}

fn panel_title(svg: &mut Svg, (x, y): (f64, f64), row: &Row) {
    let better = if row.unit.more_is_better() { "" } else { ", less is better" };
    svg.title((x, y + 14.0), row.title, &format!("{}{better}", row.unit.name()));
}

/// Draws a bar for each store.
pub(super) fn bars(group: &Group, figures: &Figures) -> String {
    let rows: Vec<_> = group.rows.iter().map(|row| (row, columns(figures, row))).collect();
    draw_bars(group.title, rows, figures)
}

/// Rows of a race that say most about a store of single keys.
const SUMMARY: [&str; 6] =
    ["get", "mixed-2", "load", "overwrite", "durable-put-8", "memory-anonymous"];

/// Draws these rows for the stores alone. Returns `None` if the run has not measured all of them.
pub(super) fn summary(figures: &Figures) -> Option<String> {
    let stores = |name: &str| {
        let row = rows::find(name).1;
        let mut stores = columns(figures, row);
        stores.retain(|store| *store != LIMIT && *store != "bitcask-unchecked");
        Some((row, stores)).filter(|(_, stores)| !stores.is_empty())
    };
    let rows = SUMMARY.into_iter().map(stores).collect::<Option<Vec<_>>>()?;
    Some(draw_bars("Two million keys of 16 bytes with values of 100 bytes", rows, figures))
}

fn draw_bars(title: &str, rows: Vec<(&Row, Vec<&str>)>, figures: &Figures) -> String {
    let rows: Vec<_> = rows.into_iter().filter(|(_, stores)| !stores.is_empty()).collect();
    let longest = rows.iter().map(|(_, stores)| stores.len()).max().unwrap_or(0) as f64;
    let (mut svg, places) = panels(title, rows.len(), TITLE_HEIGHT + longest * BAR_STEP);
    for ((row, stores), (x, y)) in rows.into_iter().zip(places) {
        panel_title(&mut svg, (x, y), row);
        let values: Vec<f64> =
            stores.iter().filter_map(|store| figures.median(row.name, store)).collect();
        let max = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let bar_max = PANEL_WIDTH - NAME_WIDTH - VALUE_WIDTH - MARGIN;
        for (at, (store, value)) in stores.iter().zip(values).enumerate() {
            let y = y + TITLE_HEIGHT + at as f64 * BAR_STEP;
            let (start, width) = (x + NAME_WIDTH, (bar_max * value / max).max(1.0));
            svg.text((start - 6.0, y + 10.5), "", Anchor::End, store);
            svg.bar((start, y), width, BAR_HEIGHT, colour(store));
            let end = (start + width + 5.0, y + 10.5);
            svg.text(end, "small value", Anchor::Start, &rounded(value));
        }
    }
    svg.finish()
}

/// The percentiles of a call, as in the names of rows, and their colours.
const PARTS: [(&str, &str); 4] =
    [("p50", "#2f9e8f"), ("p99", "#4c7fd9"), ("p99.9", "#a05fd0"), ("max", "#e03e52")];

/// Draws the percentiles of each call on a logarithmic scale.
pub(super) fn latency(group: &Group, figures: &Figures) -> String {
    let calls: Vec<_> = group.rows.chunks(PARTS.len()).collect();
    let stores: Vec<_> = figures.columns.iter().map(String::as_str).collect();
    let step = 24.0;
    let panel_height = TITLE_HEIGHT + stores.len() as f64 * step + 20.0;
    let height = HEAD_HEIGHT + 24.0 + calls.len() as f64 * (panel_height + PANEL_GAP);
    let mut svg = Svg::new(WIDTH, height);
    svg.text((MARGIN, 24.0), "head", Anchor::Start, group.title);
    for (at, (name, colour)) in PARTS.iter().enumerate() {
        let x = MARGIN + NAME_WIDTH + at as f64 * 90.0;
        svg.dot((x, 44.0), colour);
        svg.text((x + 9.0, 48.0), "", Anchor::Start, name);
    }
    let all = || {
        stores
            .iter()
            .flat_map(|store| group.rows.iter().filter_map(|row| figures.median(row.name, store)))
    };
    let axis = LogAxis::new(all(), (MARGIN + NAME_WIDTH, WIDTH - 2.0 * MARGIN - 40.0));
    for (at, call) in calls.into_iter().enumerate() {
        let y = HEAD_HEIGHT + 24.0 + at as f64 * (panel_height + PANEL_GAP);
        let title = call[0].title.trim_end_matches(", p50");
        svg.text((MARGIN, y + 14.0), "title", Anchor::Start, title);
        let (top, bottom) = (y + TITLE_HEIGHT - 6.0, y + panel_height - 18.0);
        axis.draw(&mut svg, top, bottom);
        for (at, store) in stores.iter().enumerate() {
            let y = y + TITLE_HEIGHT + 10.0 + at as f64 * step;
            svg.text((MARGIN + NAME_WIDTH - 14.0, y + 4.0), "", Anchor::End, store);
            let values: Vec<_> =
                call.iter().filter_map(|row| figures.median(row.name, store)).collect();
            let points: Vec<_> = values.iter().map(|value| (axis.at(*value), y)).collect();
            svg.line(&points, LINE, 2.0, 0.5);
            for (point, (_, colour)) in points.iter().zip(PARTS) {
                svg.dot(*point, colour);
            }
            if let (Some((x, _)), Some(value)) = (points.last(), values.last()) {
                svg.text((x + 9.0, y + 4.0), "small value", Anchor::Start, &duration(*value));
            }
        }
    }
    svg.finish()
}

/// Returns a text for a number of microseconds.
fn duration(micros: f64) -> String {
    match micros {
        micros if micros >= 1e6 => format!("{} s", rounded(micros / 1e6)),
        micros if micros >= 1e3 => format!("{} ms", rounded(micros / 1e3)),
        micros if micros < 1.0 => format!("{} ns", rounded(micros * 1e3)),
        micros => format!("{} us", rounded(micros)),
    }
}

/// A horizontal logarithmic axis of microseconds, with a tick at each power of ten.
struct LogAxis {
    first: i32,
    last: i32,
    left: f64,
    right: f64,
}

impl LogAxis {
    fn new(values: impl Iterator<Item = f64> + Clone, (left, right): (f64, f64)) -> Self {
        let (min, max) = (values.clone().fold(f64::MAX, f64::min), values.fold(1.0, f64::max));
        let first = min.max(1e-3).log10().floor() as i32;
        Self { first, last: (max.log10().ceil() as i32).max(first + 1), left, right }
    }

    fn at(&self, value: f64) -> f64 {
        let part =
            (value.max(1e-3).log10() - f64::from(self.first)) / f64::from(self.last - self.first);
        self.left + part * (self.right - self.left)
    }

    fn draw(&self, svg: &mut Svg, top: f64, bottom: f64) {
        for power in self.first..=self.last {
            let value = 10_f64.powi(power);
            let x = self.at(value);
            svg.line(&[(x, top), (x, bottom)], LINE, 1.0, 0.25);
            svg.text((x, bottom + 14.0), "small", Anchor::Middle, &duration(value));
        }
    }
}

/// Draws each row against the number of keys, from zero.
pub(super) fn growth(group: &Group, figures: &Figures) -> String {
    let rows: Vec<_> = group.rows.iter().filter(|row| !columns(figures, row).is_empty()).collect();
    let plot_height = 90.0;
    let (mut svg, places) = panels(group.title, rows.len(), TITLE_HEIGHT + plot_height + 34.0);
    for (row, (x, y)) in rows.into_iter().zip(places) {
        panel_title(&mut svg, (x, y), row);
        let sizes = columns(figures, row);
        let values: Vec<f64> =
            sizes.iter().filter_map(|size| figures.median(row.name, size)).collect();
        let max = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let (left, right) = (x + 30.0, x + PANEL_WIDTH - 60.0);
        let bottom = y + TITLE_HEIGHT + 16.0 + plot_height;
        svg.line(&[(left - 14.0, bottom), (right + 14.0, bottom)], LINE, 1.0, 0.6);
        let step = (right - left) / (values.len().max(2) - 1) as f64;
        let place = |at: usize| (left + at as f64 * step, bottom - plot_height * values[at] / max);
        let points: Vec<_> = (0..values.len()).map(place).collect();
        svg.line(&points, OURS, 2.5, 1.0);
        for ((point, value), size) in points.iter().zip(&values).zip(sizes) {
            svg.dot(*point, OURS);
            let above = (point.0, point.1 - 9.0);
            svg.text(above, "small value", Anchor::Middle, &rounded(*value));
            svg.text((point.0, bottom + 15.0), "small", Anchor::Middle, size);
        }
    }
    svg.finish()
}
