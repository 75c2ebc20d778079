//! What merging takes and gives: how fast it is, what others feel of it, and the space it keeps.
//!
//! `cargo bench --bench merge [-- TOPIC... [KEYS]]`, with the topics `throughput`, `latency` and
//! `space`; all of them without one. 2,000,000 keys if no number is given.
//!
//! - Tables of our own and not Criterion's: each sample takes a store that is made for it.
//! - What is compared is done in turns in one run, and the ratio is the median of the turns' own.

#![expect(clippy::unwrap_used, reason = "a bench that can't be prepared has failed")]
#![expect(clippy::indexing_slicing, reason = "a bench that reaches too far has failed")]
#![expect(clippy::cast_precision_loss, reason = "figures for people need no 53 bits")]

mod latency;
mod space;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;
mod throughput;

/// With values of 100 bytes so many keys take 259 MiB of log.
const KEYS_DEFAULT: usize = 2_000_000;

/// Measures with so many keys, and prints a table.
type Topic = fn(usize);

fn main() {
    let topics: [(&str, Topic); 3] =
        [("throughput", throughput::run), ("latency", latency::run), ("space", space::run)];
    let arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let (mut keys, mut wanted) = (support::key_count_or(KEYS_DEFAULT), Vec::new());
    for argument in arguments {
        match argument.replace('_', "").parse() {
            Ok(number) => keys = number,
            Err(_) if topics.iter().any(|(topic, _)| *topic == argument) => wanted.push(argument),
            Err(_) => {
                eprintln!("`{argument}` is none of {:?}", topics.map(|(topic, _)| topic));
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

/// Returns the median. Of an even number it is the lower one.
fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures[(figures.len() - 1) / 2]
}

fn met(is_met: bool) -> &'static str {
    if is_met { "yes" } else { "no" }
}
