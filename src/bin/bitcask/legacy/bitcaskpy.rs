//! The commands of bitcaskpy.
//!
//! Where bitcaskpy asked a server, this works on the store itself, in the directory that
//! bitcaskpy's configuration file names.

use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use super::json_file::JsonFile;
use super::{FAILED, OldFailure, dir, echo, echo_bytes, readable, without_server, writable};
use crate::exit::Exit;
use crate::failure::{Failure, say};

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
        BitcaskpyCommand::Health | BitcaskpyCommand::Ping => return Err(without_server()),
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
