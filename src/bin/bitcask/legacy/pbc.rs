//! The commands of pybitcask, whose program is `pbc`.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use bitcask::MergeOptions;
use clap::{Parser, Subcommand};
use owo_colors::{OwoColorize as _, Style};
use serde_json::json;

use super::bitcaskpy::shown;
use super::json_file::JsonFile;
use super::{FAILED, OldFailure, dir, echo, echo_bytes, program, readable, serve, writable};
use crate::commands::compact::{DeadShare, THRESHOLD, share};
use crate::commands::merge::merge;
use crate::commands::mode::INSTEAD;
use crate::exit::Exit;
use crate::failure::{Failure, say};
use crate::log_lines::LogLevel;
use crate::output::bytes::escaped;
use crate::prompt;
use crate::remote;

/// Bitcask CLI - A command-line interface for the Bitcask key-value store.
#[derive(Debug, Parser)]
#[command(name = "pbc", version, arg_required_else_help = true)]
pub(super) struct PbcCli {
    /// Data directory path
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Accepted for the sake of scripts; a store has one format
    #[arg(long)]
    debug: bool,
    #[command(subcommand)]
    command: PbcCommand,
}

#[derive(Debug, Subcommand)]
enum PbcCommand {
    /// Store a value in the database.
    Put { key: String, value: String },
    /// Retrieve a value from the database.
    Get { key: String },
    /// Delete a value from the database.
    Delete { key: String },
    /// List all keys in the database.
    List,
    /// Clear all data from the database.
    Clear,
    /// Compact the database.
    Compact {
        #[command(subcommand)]
        command: PbcCompact,
    },
    /// Explain the modes.
    Mode {
        #[command(subcommand)]
        command: PbcMode,
    },
    /// Manage database configuration settings.
    Config {
        #[command(subcommand)]
        command: PbcConfig,
    },
    /// Manage the Bitcask server.
    Server {
        #[command(subcommand)]
        command: PbcServer,
    },
}

#[derive(Debug, Subcommand)]
enum PbcCompact {
    /// Show compaction statistics.
    Stats,
    /// Run compaction to reclaim space.
    Run {
        /// Dead data ratio threshold (0.0-1.0)
        #[arg(long, default_value_t = THRESHOLD, value_parser = share)]
        threshold: f64,
        /// Force compaction regardless of threshold
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Subcommand)]
enum PbcMode {
    /// Show the current mode.
    Show,
    /// Explain what there is instead of debug mode; nothing is deleted.
    Debug,
    /// Explain what there is instead of modes; nothing is deleted.
    Normal,
}

#[derive(Debug, Subcommand)]
enum PbcConfig {
    /// View current configuration.
    View,
    /// Reset all configuration settings to defaults.
    Reset,
}

#[derive(Debug, Subcommand)]
enum PbcServer {
    /// Start the Bitcask server.
    Start {
        #[arg(long, default_value_t = 8000)]
        port: u16,
    },
    /// Stop the Bitcask server.
    Stop,
}

const CHECK: char = '\u{2713}';
const CROSS: char = '\u{2717}';
const BULLET: char = '\u{2022}';
const CHART: char = '\u{1F4CA}';
const BULB: char = '\u{1F4A1}';
const ARROWS: char = '\u{1F504}';
const INFO: &str = "\u{2139}\u{FE0F}";

/// Runs a command. A failure is printed as pybitcask did.
pub(super) fn run(cli: PbcCli) -> Result<Exit, Failure> {
    match command(cli) {
        Ok(()) => Ok(Exit::Done),
        Err(OldFailure::Own(failure)) => Err(failure),
        Err(OldFailure::Reason(reason)) => {
            say(format!("{CROSS} Error: {reason}").red());
            Ok(FAILED)
        }
    }
}

/// The directory in which pybitcask keeps its data.
const DATA_DIR: &str = "/var/lib/pybitcask";

fn command(cli: PbcCli) -> Result<(), OldFailure> {
    let defaults = json!({ "data_dir": DATA_DIR, "debug_mode": false });
    let below_home = if cfg!(target_os = "macos") {
        "Library/Preferences/pybitcask/config.json"
    } else {
        ".config/pybitcask/config.json"
    };
    let mut config = JsonFile::read(below_home, defaults)?;
    let dir = dir(cli.data_dir, config.text("data_dir").unwrap_or_else(|| DATA_DIR.into()));
    match cli.command {
        PbcCommand::Put { key, value } => {
            let db = writable(&dir)?;
            db.put(&key, &value)?;
            db.close()?;
            good(&format!("Successfully stored value for key: {key}"))?;
        }
        PbcCommand::Get { key } => get(&dir, &key)?,
        PbcCommand::Delete { key } => {
            let db = writable(&dir)?;
            db.delete(&key)?;
            db.close()?;
            good(&format!("Successfully deleted key: {key}"))?;
        }
        PbcCommand::List => list(&dir)?,
        PbcCommand::Clear => {
            let db = writable(&dir)?;
            db.clear()?;
            db.close()?;
            good("Successfully cleared all data")?;
        }
        PbcCommand::Compact { command: PbcCompact::Stats } => stats(&dir)?,
        PbcCommand::Compact { command: PbcCompact::Run { threshold, force } } => {
            compact(&dir, threshold, force)?;
        }
        PbcCommand::Mode { command } => {
            if matches!(command, PbcMode::Show) {
                echo("Current mode: normal".blue())?;
            } else {
                echo(INSTEAD)?;
            }
        }
        PbcCommand::Config { command: PbcConfig::View } => {
            if config.path.exists() {
                let mode = config.entries.get("debug_mode").map_or("False".to_owned(), shown);
                echo("Current configuration:".blue())?;
                echo(format_args!("  {BULLET} Debug mode: {mode}"))?;
            } else {
                echo("No configuration file found".yellow())?;
            }
        }
        PbcCommand::Config { command: PbcConfig::Reset } => {
            config.entries.insert("debug_mode".into(), false.into());
            config.write()?;
            good("Configuration reset to defaults")?;
        }
        PbcCommand::Server { command: PbcServer::Start { port } } => {
            let level = if cli.debug { LogLevel::Debug } else { LogLevel::Info };
            serve(&dir, "127.0.0.1", port, level)?;
        }
        PbcCommand::Server { command: PbcServer::Stop } => {
            remote::chosen(&mut program())?.stop_server().map_err(Failure::from)?;
            good("Server stopped")?;
        }
    }
    Ok(())
}

/// Prints that something has worked.
fn good(what: &str) -> Result<(), Failure> {
    echo(format!("{CHECK} {what}").green())
}

fn get(dir: &std::path::Path, key: &str) -> Result<(), OldFailure> {
    let value = match readable(dir)? {
        Some(db) => db.get(key)?,
        None => None,
    };
    match value {
        Some(value) => {
            echo(format!("Value for key '{key}':").blue())?;
            echo_bytes(&value)?;
        }
        None => echo(format!("{CROSS} Key '{key}' not found").yellow())?,
    }
    Ok(())
}

fn list(dir: &std::path::Path) -> Result<(), OldFailure> {
    let Some(db) = readable(dir)?.filter(|db| !db.is_empty().unwrap_or(false)) else {
        return Ok(echo("No keys found in database".yellow())?);
    };
    echo("Available keys:".blue())?;
    for key in db.keys() {
        echo_key(&key?)?;
    }
    Ok(())
}

/// Prints a key of a list: its bytes as they are, or escaped on a terminal, which no key may
/// control.
fn echo_key(key: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = if out.is_terminal() {
        writeln!(out, "  {BULLET} {}", escaped(key))
    } else {
        let line = [format!("  {BULLET} ").as_bytes(), key, b"\n"].concat();
        out.write_all(&line)
    };
    written.map_err(|error| Failure::output(&error))
}

/// Writes a number with commas.
fn commas(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

/// Writes a size in bytes and in units of 2^20 bytes.
fn bytes(size: u64) -> String {
    // Two decimals, rounded.
    let hundredths = (u128::from(size) * 100 + (1 << 19)) >> 20;
    format!("{} bytes ({}.{:02} MB)", commas(size), hundredths / 100, hundredths % 100)
}

fn stats(dir: &std::path::Path) -> Result<(), OldFailure> {
    let db = writable(dir)?;
    let share = DeadShare::of(&db)?;
    db.close()?;
    echo(format!("{CHART} Database Statistics:").style(Style::new().blue().bold()))?;
    echo(format_args!("  Files: {}", share.files))?;
    echo(format_args!("  Total size: {}", bytes(share.total_size)))?;
    echo(format_args!("  Live keys: {}", commas(share.live_keys)))?;
    echo(format_args!("  Estimated live size: {}", bytes(share.live_size)))?;
    echo(format_args!("  Estimated dead ratio: {:.1}%", share.dead_ratio * 100.0))?;
    if share.is_worthwhile(THRESHOLD) {
        echo(format!("{BULB} Recommendation: Compaction is recommended").yellow())?;
    } else {
        good("Recommendation: Compaction not needed")?;
    }
    Ok(())
}

fn compact(dir: &std::path::Path, threshold: f64, force: bool) -> Result<(), OldFailure> {
    let db = writable(dir)?;
    let share = DeadShare::of(&db)?;
    if !force {
        echo(format!("{CHART} Pre-compaction Statistics:").blue())?;
        echo(format_args!("  Total size: {}", bytes(share.total_size)))?;
        echo(format_args!("  Dead data ratio: {:.1}%", share.dead_ratio * 100.0))?;
        if !share.is_worthwhile(threshold) {
            echo(format!("{INFO} Compaction not needed (threshold not met)").blue())?;
            if !prompt::ask("Do you want to force compaction anyway?")? {
                return Ok(db.close()?);
            }
        }
    }
    echo(format!("{ARROWS} Starting compaction...").yellow())?;
    let report = merge(&db, MergeOptions::new().force(true))?;
    db.close()?;
    if report.cancelled {
        return Err(OldFailure::Own(Failure::Interrupted));
    }
    let done = format!("{CHECK} Compaction completed successfully!");
    echo(done.style(Style::new().green().bold()))?;
    echo(format_args!("  Duration: {:.2} seconds", report.duration.as_secs_f64()))?;
    echo(format_args!("  Records written: {}", commas(report.live_entries)))?;
    echo(format_args!("  Files removed: {}", report.segments_in))?;
    echo(format_args!("  Space saved: {}", bytes(report.freed_size())))?;
    let saved = report.freed_size() * 1000 / report.size_in.max(1);
    echo(format_args!("  Space reduction: {}.{}%", saved / 10, saved % 10))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_pybitcask_does() {
        assert_eq!(bytes(0), "0 bytes (0.00 MB)");
        assert_eq!(bytes(1_048_576), "1,048,576 bytes (1.00 MB)");
        assert_eq!(bytes(1_572_864), "1,572,864 bytes (1.50 MB)");
        assert_eq!(bytes(5_243), "5,243 bytes (0.01 MB)");
    }
}
