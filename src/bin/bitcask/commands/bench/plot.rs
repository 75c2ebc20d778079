//! The plot of `bench`: latency by percentile, a line for each operation.

use std::error::Error as StdError;
use std::fs;
use std::path::Path;
use std::time::Duration;

use plotters::prelude::*;

use super::Series;
use crate::failure::Failure;
use crate::units::show_duration;

/// Width and height in pixels.
const SIZE: (u32, u32) = (900, 540);
/// The axis of percentiles counts nines: 1 stands for 90 %, 2 for 99 %, and so on.
const NINES: f64 = 4.0;
/// Number of points in each line.
const POINTS: u32 = 200;

/// Draws the latencies to a file.
pub(super) fn draw(path: &Path, all: &[Series]) -> Result<(), Failure> {
    let mut svg = String::new();
    let drawn = draw_to(&mut svg, all);
    drawn.map_err(|error| Failure::store(format!("cannot draw the plot: {error}"), ""))?;
    fs::write(path, svg).map_err(|error| Failure::file("write", path, &error))
}

fn draw_to<'a>(svg: &'a mut String, all: &'a [Series]) -> Result<(), Box<dyn StdError + 'a>> {
    let highest = all.iter().map(|series| series.quantile(1.0)).max().unwrap_or_default();
    let highest = nanos(highest).max(1e4) * 1.5;
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Latency by percentile", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..NINES, (50.0..highest).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .x_labels(5)
        .x_label_formatter(&|nines| percentile(*nines))
        .y_label_formatter(&|latency| show_duration(Duration::from_secs_f64(latency * 1e-9)))
        .draw()?;
    for (at, series) in all.iter().enumerate() {
        let color = Palette99::pick(at).to_rgba();
        let points = (0..=POINTS).map(|point| {
            let nines = NINES * f64::from(point) / f64::from(POINTS);
            (nines, nanos(series.quantile(1.0 - 10_f64.powf(-nines))).max(50.0))
        });
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(series.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}

fn nanos(latency: Duration) -> f64 {
    latency.as_secs_f64() * 1e9
}

/// Writes a number of nines as a percentile.
fn percentile(nines: f64) -> String {
    let share = 100.0 - 100.0 * 10_f64.powf(-nines);
    let digits = if nines > 3.5 { 2 } else { usize::from(nines > 2.5) };
    format!("{share:.digits$} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_a_line_and_a_name() {
        let series =
            |name, latencies: Vec<u64>| Series { name, latencies, total: Duration::from_secs(1) };
        let all = [series("put", (100..1100).collect()), series("get", vec![1_000_000])];
        let mut svg = String::new();
        draw_to(&mut svg, &all).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("put") && svg.contains("get") && svg.contains("99 %"));
        assert!(svg.matches("<polyline").count() >= 2, "{svg}");
        assert_eq!([percentile(0.0), percentile(1.0), percentile(3.0)], ["0 %", "90 %", "99.9 %"]);
    }
}
