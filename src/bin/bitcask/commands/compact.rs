//! `compact stats` and `compact run`: merging by the share of the whole store that is dead.

use bitcask::{MergeOptions, Reader};
use clap::{Args, Subcommand};

use super::merge::{figures, merge};
use crate::exit::Exit;
use crate::failure::{Failure, say};
use crate::open;
use crate::output::{Figure, Format};
use crate::program::Program;
use crate::prompt;

#[derive(Debug, Args)]
pub(crate) struct CompactArgs {
    #[command(subcommand)]
    command: CompactCommand,
}

#[derive(Debug, Subcommand)]
enum CompactCommand {
    /// Prints how much of the store is dead, and whether a merge is recommended.
    Stats {
        /// Recommends a merge if at least this share, from 0.0 to 1.0, is dead.
        #[arg(long, value_name = "SHARE", default_value_t = THRESHOLD, value_parser = share)]
        threshold: f64,
    },
    /// Merges the whole store if at least this share of it is dead.
    Run {
        /// Asks first if less than this share, from 0.0 to 1.0, is dead.
        #[arg(long, value_name = "SHARE", default_value_t = THRESHOLD, value_parser = share)]
        threshold: f64,
        /// Merges however little is dead.
        #[arg(long, short)]
        force: bool,
        /// Does not ask if the share is below the threshold, but merges.
        #[arg(long, short)]
        yes: bool,
    },
}

/// Share of the store that has to be dead, unless the user says otherwise.
pub(crate) const THRESHOLD: f64 = 0.3;

/// Reads a share from 0 to 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a share from 0.0 to 1.0".into()),
    }
}

/// How much of a store is dead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeadShare {
    pub(crate) files: u64,
    pub(crate) total_size: u64,
    pub(crate) live_keys: u64,
    pub(crate) live_size: u64,
    pub(crate) dead_ratio: f64,
}

impl DeadShare {
    pub(crate) fn of(db: &Reader) -> bitcask::Result<Self> {
        // Only a store that has loaded its keys knows what is dead.
        let live_keys = db.len()?;
        let stats = db.stats();
        Ok(Self {
            files: stats.segments,
            total_size: stats.log_size,
            live_keys,
            live_size: stats.live_size,
            dead_ratio: stats.dead_ratio(),
        })
    }

    /// Returns whether a merge is worthwhile: not of a small store, nor of one with little that is
    /// dead.
    pub(crate) fn is_worthwhile(&self, threshold: f64) -> bool {
        let is_small = self.total_size < 1 << 20 || self.files < 2 && self.total_size < 10 << 20;
        !is_small && self.dead_ratio >= threshold
    }
}

pub(crate) fn run(args: &CompactArgs, program: &mut Program) -> Result<Exit, Failure> {
    match args.command {
        CompactCommand::Stats { threshold } => {
            let share = DeadShare::of(&*open::read_only(program)?)?;
            program.printer(Format::Table)?.report(&[
                ("total files", Figure::Count(share.files)),
                ("total size", Figure::Size(share.total_size)),
                ("live keys", Figure::Count(share.live_keys)),
                ("estimated live size", Figure::Size(share.live_size)),
                ("estimated dead ratio", Figure::Share(share.dead_ratio)),
                ("recommended", Figure::Truth(share.is_worthwhile(threshold))),
            ])?;
            Ok(Exit::Done)
        }
        CompactCommand::Run { threshold, force, yes } => {
            let share = DeadShare::of(&*open::read_only(program)?)?;
            if !force && !share.is_worthwhile(threshold) {
                say(format_args!(
                    "{:.1} % of the store are dead, which is below the threshold, or the store is \
                     small",
                    share.dead_ratio * 100.0
                ));
                if !prompt::confirm("Merge it all the same?", yes)? {
                    return Ok(Exit::Absent);
                }
            }
            let db = open::writable(program)?;
            let report = merge(&db, MergeOptions::new().force(true))?;
            db.close()?;
            program.printer(Format::Table)?.report(&figures(&report))?;
            if report.cancelled { Err(Failure::Interrupted) } else { Ok(Exit::Done) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_stores_are_left_alone() {
        let share = |files, total_size, dead_ratio| DeadShare {
            files,
            total_size,
            live_keys: 1,
            live_size: 1,
            dead_ratio,
        };
        assert!(!share(9, 1 << 19, 0.9).is_worthwhile(0.3));
        assert!(!share(1, 9 << 20, 0.9).is_worthwhile(0.3));
        assert!(share(1, 10 << 20, 0.9).is_worthwhile(0.3));
        assert!(share(2, 1 << 20, 0.3).is_worthwhile(0.3));
        assert!(!share(2, 1 << 20, 0.29).is_worthwhile(0.3));
    }
}
