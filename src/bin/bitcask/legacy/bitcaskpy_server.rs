//! The server of bitcaskpy, whose program is `bitcaskpy-server`.

use std::path::PathBuf;

use clap::Parser;

use super::serve;
use crate::exit::Exit;
use crate::failure::{Failure, say};
use crate::log_lines::LogLevel;

/// Bitcask HTTP server
#[derive(Debug, Parser)]
#[command(name = "bitcaskpy-server", version)]
pub(super) struct BitcaskpyServerCli {
    /// Host to bind to
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to bind to
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Data directory
    #[arg(long, default_value = "./data")]
    data_dir: PathBuf,
    /// Accepted for the sake of scripts, without an effect
    #[arg(long)]
    reload: bool,
    /// Prints more log lines
    #[arg(long)]
    debug: bool,
    /// Level of the log lines
    #[arg(long, default_value = "INFO", ignore_case = true)]
    log_level: LogLevel,
}

/// Serves the store, with all dialects.
pub(super) fn run(cli: &BitcaskpyServerCli) -> Result<Exit, Failure> {
    if cli.reload {
        say("--reload has no effect: the server has no code that could change while it runs");
    }
    let level = if cli.debug { LogLevel::Debug } else { cli.log_level };
    serve(&cli.data_dir, &cli.host, cli.port, level).map(|()| Exit::Done)
}
