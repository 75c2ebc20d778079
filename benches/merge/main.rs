//! The costs and gains of merging: its speed, its effect on other calls, and the disk space that it
//! saves.
//!
//! `cargo bench --bench merge [-- TOPIC... [KEYS]]`, with the topics `throughput`, `latency`,
//! `space` and `growth`; all of them by default. The default number of keys is 2,000,000.
//!
//! - The benches print custom tables instead of using Criterion, because each sample needs a newly
//!   built store.
//! - Compared operations take turns in one run, and a ratio is the median of the ratios of the
//!   turns.

#![expect(clippy::unwrap_used, reason = "a bench whose setup fails has failed")]
#![expect(clippy::indexing_slicing, reason = "an out-of-bounds index fails the bench")]
#![expect(clippy::cast_precision_loss, reason = "printed figures do not need 53 bits")]

mod growth;
mod latency;
mod space;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each bench uses a part of the module")]
mod support;
mod throughput;

/// Default number of keys. With values of 100 bytes, they take 259 MiB of log.
const KEYS_DEFAULT: usize = 2_000_000;

/// Measures with a number of keys, and prints a table.
type Topic = fn(usize);

fn main() {
    let topics: [(&str, Topic); 4] = [
        ("throughput", throughput::run),
        ("latency", latency::run),
        ("space", space::run),
        ("growth", growth::run),
    ];
    let arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let (mut keys, mut wanted) = (support::key_count_or(KEYS_DEFAULT), Vec::new());
    for argument in arguments {
        match argument.replace('_', "").parse() {
            Ok(number) => keys = number,
            Err(_) if topics.iter().any(|(topic, _)| *topic == argument) => wanted.push(argument),
            Err(_) => {
                eprintln!("`{argument}` is not one of {:?}", topics.map(|(topic, _)| topic));
                std::process::exit(2);
            }
        }
    }
    println!("{keys} keys");
    for (topic, run) in topics {
        if wanted.is_empty() || wanted.iter().any(|name| name == topic) {
            run(keys);
        }
    }
}

/// Returns the median; for an even number of figures, the lower one of the two.
fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures[(figures.len() - 1) / 2]
}

fn met(is_met: bool) -> &'static str {
    if is_met { "yes" } else { "no" }
}
