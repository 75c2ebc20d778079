//! The command line.
//!
//! Each command's arguments stand with the command, in `commands`. This file has the global options
//! and the list of commands.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::{
    backup, batch, bench, clear, compact, config, delete, dump, export, get, health, import, incr,
    init, list, merge, mode, put, repair, segments, shell, stats, ttl, verify, watch,
};
use crate::exit;
use crate::log_lines::{LogOptions, UsualLines};
use crate::output::Format;

/// Inspects, changes, repairs and moves key-value stores.
#[derive(Debug, Parser)]
#[command(
    name = "bitcask",
    version,
    after_help = exit::HELP,
    arg_required_else_help = true,
    infer_subcommands = false,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Directory of the store [default: `BITCASK_DIR`, or `dir` in the configuration, or ./data].
    #[arg(long, short, global = true, value_name = "DIR", alias = "data-dir")]
    pub(crate) dir: Option<PathBuf>,

    /// Server whose store the command works on, instead of the one in the directory.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) server: Option<String>,

    /// Form of the output [default: the form that suits the command].
    #[arg(long, short, global = true, value_name = "FORM")]
    pub(crate) output: Option<Format>,

    /// Keys and values are base64, in arguments, in input and in output.
    #[arg(long, global = true)]
    pub(crate) base64: bool,

    /// When to use colour.
    #[arg(long, global = true, value_name = "WHEN", default_value_t)]
    pub(crate) color: When,

    /// Configuration file [default: `BITCASK_CONFIG`, or the one that `config path` prints].
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) log: LogOptions,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        })
    }
}

impl When {
    /// Makes everything that is printed from now on follow this choice.
    pub(crate) fn apply(self) {
        let choice = match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Stores a value under a key.
    #[command(visible_aliases = ["set", "add", "store"])]
    Put(put::PutArgs),
    /// Prints the value of a key.
    #[command(visible_alias = "view")]
    Get(get::GetArgs),
    /// Deletes keys.
    #[command(visible_aliases = ["del", "rm", "remove"])]
    Delete(delete::DeleteArgs),
    /// Tells whether a key exists.
    Exists(get::ExistsArgs),
    /// Lists keys, in the order of their bytes.
    #[command(visible_aliases = ["ls", "keys"])]
    List(list::ListArgs),
    /// Lists the keys that begin with a prefix, and their values.
    #[command(visible_aliases = ["find", "search"])]
    Scan(list::ScanArgs),
    /// Lists the keys from one key up to another, and their values.
    Range(list::RangeArgs),
    /// Applies puts and deletes from JSON lines: all of them, or none.
    Batch(batch::BatchArgs),
    /// Prints how many seconds a key has left.
    Ttl(ttl::TtlArgs),
    /// Sets how long a key lives from now on.
    Expire(ttl::ExpireArgs),
    /// Makes a key live until it is deleted.
    Persist(ttl::PersistArgs),
    /// Adds to the whole number that a key holds, and prints the sum.
    Incr(incr::IncrArgs),
    /// Removes all keys.
    Clear(clear::ClearArgs),

    /// Creates a store.
    Init(init::InitArgs),
    /// Prints the figures of a store.
    Stats(stats::StatsArgs),
    /// Prints the figures of each sealed segment.
    Segments(segments::SegmentsArgs),
    /// Reclaims the space of what was overwritten, deleted, or has expired.
    #[command(visible_aliases = ["clean", "defrag"])]
    Merge(merge::MergeArgs),
    /// Reports how much space a merge would free, or merges if that is worthwhile.
    Compact(compact::CompactArgs),
    /// Reads the whole store and reports all damage.
    Verify(verify::VerifyArgs),
    /// Copies what is intact in a damaged store to a new one, which takes its place.
    #[command(visible_alias = "recover")]
    Repair(repair::RepairArgs),
    /// Copies the store to another directory.
    Backup(backup::BackupArgs),
    /// Makes a store from a backup.
    Restore(backup::RestoreArgs),
    /// Writes all pairs to a file, as JSON lines or CSV.
    Export(export::ExportArgs),
    /// Reads pairs from a file, or from the store of another program.
    Import(import::ImportArgs),
    /// Shows what the files of a store contain, in readable form.
    Dump(dump::DumpArgs),
    /// Prints changes as they are made.
    Watch(watch::WatchArgs),
    /// Shows a live view of a store.
    #[cfg(feature = "tui")]
    Top(crate::commands::top::TopArgs),
    /// Runs a quick workload on a scratch store, and prints how long each operation took.
    Bench(bench::BenchArgs),
    /// Explains the modes that stores no longer have. Changes nothing.
    Mode(mode::ModeArgs),

    /// Serves the store over HTTP, or stops a server.
    #[cfg(feature = "server")]
    Server(crate::commands::server::ServerArgs),
    /// Founds a cluster, changes which nodes belong to it, and shows how it is.
    #[cfg(feature = "cluster")]
    Cluster(crate::commands::cluster::ClusterCommandArgs),
    /// Tells whether a server works.
    Health(health::HealthArgs),
    /// Tells whether a server answers.
    Ping(health::PingArgs),

    /// Shows or changes the configuration.
    Config(config::ConfigArgs),
    /// Prints the completion script of a shell.
    Completions(shell::CompletionsArgs),
    /// Prints the manual page, or writes the pages of all commands to a directory.
    Man(shell::ManArgs),
    /// Prints the version of the program and of the format on disk.
    Version(shell::VersionArgs),
    /// Links the names of older programs to this one.
    Links(crate::commands::links::LinksArgs),
}

impl Command {
    /// Returns whether the command can work on the store of a server.
    pub(crate) fn is_for_servers(&self) -> bool {
        match self {
            #[cfg(feature = "server")]
            Self::Server(args) => args.is_request(),
            _ => matches!(
                self,
                Self::Put(_)
                    | Self::Get(_)
                    | Self::Delete(_)
                    | Self::Exists(_)
                    | Self::List(_)
                    | Self::Scan(_)
                    | Self::Range(_)
                    | Self::Batch(_)
                    | Self::Ttl(_)
                    | Self::Expire(_)
                    | Self::Persist(_)
                    | Self::Incr(_)
                    | Self::Stats(_)
                    | Self::Merge(_)
                    | Self::Watch(_)
                    | Self::Health(_)
                    | Self::Ping(_)
            ),
        }
    }

    /// Returns which log lines the command prints unless the user has chosen others.
    pub(crate) fn usual_lines(&self) -> UsualLines {
        match self {
            #[cfg(feature = "server")]
            Self::Server(args) => args.usual_lines(),
            _ => UsualLines::of_command(),
        }
    }
}
