//! Compares the store ("ours") with a limit, in turns, and prints rows of a table.
//!
//! - Absolute times vary on a shared machine, and ratios of adjacent slices much less. So both
//!   sides do the same work slice by slice, and take turns at going first.
//! - Times are means over all slices. The ratio is the median of the ratios of the slices, and is
//!   followed by their quartiles.

use std::time::Duration;

/// The target of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// No target; the row is for information.
    None,
    /// No target; the ratio says how many times as fast the store is.
    Speed,
    /// At most this multiple of the limit's time.
    AtMost(f64),
    /// At least this many times as fast as the other side.
    Faster(f64),
    /// At most this many nanoseconds for the store.
    Nanos(f64),
}

/// Prints the head of a table.
pub(crate) fn head(title: &str, limit_name: &str) {
    println!("\n### {title}\n");
    println!("| row | ours, ns | {limit_name}, ns | ratio | quartiles | target | met |");
    println!("| --- | ---: | ---: | ---: | --- | --- | --- |");
}

/// Runs both sides in turns, and prints a row. Each side gets the number of the slice, makes `ops`
/// operations, and returns their duration.
pub(crate) fn compare(
    name: &str,
    target: Target,
    (slices, ops): (usize, usize),
    mut ours: impl FnMut(usize) -> Duration,
    mut limit: impl FnMut(usize) -> Duration,
) {
    let (mut ours_all, mut limit_all, mut ratios) = (Duration::ZERO, Duration::ZERO, Vec::new());
    for slice in 0..slices {
        let (ours_time, limit_time) = if slice % 2 == 0 {
            let ours_time = ours(slice);
            (ours_time, limit(slice))
        } else {
            let limit_time = limit(slice);
            (ours(slice), limit_time)
        };
        ours_all += ours_time;
        limit_all += limit_time;
        ratios.push(ours_time.as_secs_f64() / limit_time.as_secs_f64().max(1e-9));
    }
    let nanos = |time: Duration| time.as_secs_f64() * 1e9 / (slices * ops) as f64;
    row(name, target, nanos(ours_all), nanos(limit_all), ratios);
}

fn row(name: &str, target: Target, ours: f64, limit: f64, mut ratios: Vec<f64>) {
    let is_speed = matches!(target, Target::Speed | Target::Faster(_));
    for ratio in ratios.iter_mut().filter(|_| is_speed) {
        *ratio = 1.0 / *ratio;
    }
    ratios.sort_by(f64::total_cmp);
    let quantile = |quarter: usize| ratios[(ratios.len() - 1) * quarter / 4];
    let ratio = quantile(2);
    let (target, met) = match target {
        Target::None | Target::Speed => (String::from("-"), None),
        Target::AtMost(most) => (format!("<= {most}"), Some(ratio <= most)),
        Target::Faster(least) => (format!(">= {least}"), Some(ratio >= least)),
        Target::Nanos(most) => (format!("<= {most} ns"), Some(ours <= most)),
    };
    let met = met.map_or("-", |met| if met { "yes" } else { "no" });
    let (low, high) = (quantile(1), quantile(3));
    let unit = if is_speed { " as fast" } else { "" };
    print!("| {name} | {ours:.0} | {limit:.0} | {ratio:.2}x{unit} | {low:.2} - {high:.2} ");
    println!("| {target} | {met} |");
}
