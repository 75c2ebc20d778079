//! The integration tests: one binary, which sees only the public API.

mod api;
mod background;
mod backup;
mod bad_input;
mod changes;
mod disks;
mod file_limit;
mod forks;
mod format;
mod full_disk;
#[cfg(feature = "import")]
mod import;
mod inspect;
mod kills;
mod layers;
mod lazy;
mod limits;
mod links;
mod merge;
mod merge_calls;
mod model;
mod paths;
mod power_cuts;
mod processes;
mod public_api;
#[cfg(feature = "metrics")]
mod publish;
mod real_disk;
mod repair;
mod replaced;
mod seeds;
mod snapshots;
mod stress;
mod support;
mod threads;
mod tidy;
mod transactions;
#[cfg(feature = "serde")]
mod typed;
