//! The commands of bitcaskpy.
//!
//! Where bitcaskpy asked a server, this works on the store itself, in the directory that
//! bitcaskpy's configuration file names. Only `health` and `ping` ask one.

use bitcask::client::Client;
use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use super::json_file::JsonFile;
use super::{FAILED, OldFailure, dir, echo, echo_bytes, readable, writable};
use crate::exit::Exit;
use crate::failure::{Failure, say};
use crate::remote;
use crate::settings::Settings;

/// Bitcask CLI
#[derive(Debug, Parser)]
#[command(name = "bitcaskpy", version, arg_required_else_help = true)]
pub(super) struct BitcaskpyCli {
    /// Accepted for the sake of scripts.
    #[arg(long)]
    debug: bool,
    #[command(subcommand)]
    command: BitcaskpyCommand,
}

#[derive(Debug, Subcommand)]
enum BitcaskpyCommand {
    /// Insert or update a key-value pair
    Put { key: String, value: String },
    /// Retrieve a value for a key
    Get { key: String },
    /// Delete a key
    Delete { key: String },
    /// Check server health
    Health,
    /// Test server connectivity
    Ping,
    /// Manage Bitcask configuration
    Config {
        #[command(subcommand)]
        command: BitcaskpyConfig,
    },
}

#[derive(Debug, Subcommand)]
enum BitcaskpyConfig {
    Set { key: String, value: String },
    List,
}

/// Runs a command. A failure is printed as bitcaskpy did.
pub(super) fn run(cli: BitcaskpyCli) -> Result<Exit, Failure> {
    match command(cli.command) {
        Ok(()) => Ok(Exit::Done),
        Err(OldFailure::Own(failure)) => Err(failure),
        Err(OldFailure::Reason(reason)) => {
            say(format_args!("Error: {reason}"));
            say("Aborted!");
            Ok(FAILED)
        }
    }
}

fn command(command: BitcaskpyCommand) -> Result<(), OldFailure> {
    let defaults = json!({ "data_dir": "./data", "server_url": "http://localhost:8000" });
    let mut config = JsonFile::read(".bitcask/config.json", defaults)?;
    let dir = dir(None, config.text("data_dir").unwrap_or_else(|| "./data".into()));
    match command {
        BitcaskpyCommand::Put { key, value } => {
            let db = writable(&dir)?;
            db.put(&key, &value)?;
            db.close()?;
            echo(format_args!("Inserted {key} -> {value}"))?;
        }
        BitcaskpyCommand::Get { key } => {
            let value = match readable(&dir)? {
                Some(db) => db.get(&key)?,
                None => None,
            };
            match value {
                Some(value) => echo_bytes(&value)?,
                None => echo("Key not found")?,
            }
        }
        BitcaskpyCommand::Delete { key } => {
            let db = writable(&dir)?;
            db.delete(&key)?;
            db.close()?;
            echo(format_args!("Deleted {key}"))?;
        }
        BitcaskpyCommand::Health => {
            let health = server(&config)?.health().map_err(Failure::from)?;
            let version = health.version.as_deref().unwrap_or("unknown");
            echo(format_args!("Status: {}", health.status))?;
            echo(format_args!("Version: {version}"))?;
        }
        BitcaskpyCommand::Ping => {
            let server = server(&config)?;
            server.health().map_err(|_| {
                OldFailure::Reason(format!("\u{2717} No server answers at {}", server.url()))
            })?;
            echo(format_args!("\u{2713} The server at {} answers", server.url()))?;
        }
        BitcaskpyCommand::Config { command: BitcaskpyConfig::Set { key, value } } => {
            // A directory is text, whatever its name looks like.
            let value = if key == "data_dir" { Value::String(value) } else { cast(value) };
            let shown = shown(&value);
            config.entries.insert(key.clone(), value);
            config.write()?;
            echo(format_args!("Set {key} = {shown}"))?;
        }
        BitcaskpyCommand::Config { command: BitcaskpyConfig::List } => {
            for (key, value) in &config.entries {
                echo(format_args!("{key} = {}", shown(value)))?;
            }
        }
    }
    Ok(())
}

/// Returns the server that the environment or the configuration file names.
fn server(config: &JsonFile) -> Result<Client, OldFailure> {
    let variable = std::env::var("BITCASK_SERVER").ok().filter(|url| !url.is_empty());
    let configured = || config.text("server_url").unwrap_or_else(|| "http://localhost:8000".into());
    Ok(remote::client_of(&variable.unwrap_or_else(configured), &Settings::load(None)?)?)
}

/// Turns the text of a setting into a truth value or a number, if it looks like one.
fn cast(value: String) -> Value {
    match value.to_lowercase().as_str() {
        "true" => true.into(),
        "false" => false.into(),
        digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse::<u64>().map_or(Value::String(value), Value::from)
        }
        _ => Value::String(value),
    }
}

/// Writes a setting as Python does.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Null => "None".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_cast_as_bitcaskpy_does() {
        let cast = |text: &str| shown(&cast(text.to_owned()));
        assert_eq!(cast("TRUE"), "True");
        assert_eq!(cast("007"), "7");
        assert_eq!([cast("-1"), cast(""), cast("1.5")], ["-1", "", "1.5"]);
        assert_eq!(cast("99999999999999999999"), "99999999999999999999");
    }
}
