//! Races bitcask against other embedded stores, and writes a table, JSON and charts.
//!
//! ```sh
//! cargo run --release --manifest-path benches/compare/Cargo.toml \
//!     --target-dir target/compare -- --help
//! ```
//!
//! Without `--target-dir`, the build directory would lie below `benches/`, where the checks of the
//! sources would read it.
//!
//! - Each store runs in a process of its own: the race starts this program again for each store,
//!   group of rows and round (`process.rs`), and reads figures from its output.
//! - In each round the stores take turns, so that whatever else the machine does hits all of them.
//!   The report shows medians of the rounds.
//! - Each value that is read is checked (`keys.rs`). A wrong one ends the process, and the report
//!   says so.
//! - Keys are made before anything is timed, except where they would take memory that is measured.

#![expect(clippy::unwrap_used, reason = "a bench whose setup fails has failed")]
#![expect(clippy::indexing_slicing, reason = "an out-of-bounds index fails the bench")]
#![expect(clippy::cast_precision_loss, reason = "printed figures do not need 53 bits")]
#![expect(clippy::cast_possible_truncation, reason = "the counted values are small")]
#![expect(clippy::cast_sign_loss, reason = "the counted values are positive")]

mod arguments;
mod cgroup;
mod groups;
#[path = "../../support/histogram.rs"]
#[expect(dead_code, reason = "each bench uses a part of the module")]
mod histogram;
mod keys;
mod measure;
mod process;
#[path = "../../support/random.rs"]
mod random;
mod report;
mod rows;
mod stores;

use arguments::{Arguments, Mode};

fn main() {
    let arguments = Arguments::parse();
    if let Some(child) = &arguments.child {
        groups::run(&arguments, child);
        return;
    }
    if let Some(report) = &arguments.report {
        report::Report::read(report).write(&arguments.out);
        return;
    }
    let mut figures = process::Figures::default();
    if arguments.mode == Mode::Scale {
        process::grow(&arguments, &mut figures);
    } else {
        process::race(&arguments, &mut figures);
    }
    let report = report::Report::new(&arguments, figures);
    report.write(&arguments.out);
    if report.has_failures() {
        std::process::exit(1);
    }
}
