//! `get` and `exists`.

use std::ffi::OsString;

use clap::Args;
use serde_json::json;

use crate::exit::Exit;
use crate::failure::{Failure, say};
use crate::output::Format;
use crate::output::bytes::escaped;
use crate::program::Program;
use crate::record::LineOut;
use crate::{input, open};

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    key: OsString,
}

#[derive(Debug, Args)]
pub(crate) struct ExistsArgs {
    key: OsString,
}

pub(crate) fn run(args: &GetArgs, program: &mut Program) -> Result<Exit, Failure> {
    let base64 = program.base64();
    let key = input::key(&args.key, base64)?;
    let value = match program.remote()? {
        Some(client) => client.get(&key)?,
        None => open::read_only(program)?.get(&key)?,
    };
    let Some(value) = value else {
        return Ok(absent(&key));
    };
    let printer = program.printer(Format::Plain)?;
    match printer.format {
        Format::Json => printer.json(&LineOut::new(&key, base64).value(&value, base64))?,
        Format::Table => printer.columns(&["key", "value"], &[&key, &value])?,
        Format::Plain => printer.value(&value)?,
    }
    Ok(Exit::Done)
}

pub(crate) fn exists(args: &ExistsArgs, program: &mut Program) -> Result<Exit, Failure> {
    let key = input::key(&args.key, program.base64())?;
    let found = match program.remote()? {
        Some(client) => client.contains_key(&key)?,
        None => open::read_only(program)?.contains_key(&key)?,
    };
    let printer = program.printer(Format::Plain)?;
    match printer.format {
        Format::Json => printer.json(&json!({ "exists": found }))?,
        _ => printer.line(if found { "yes" } else { "no" })?,
    }
    Ok(Exit::found(found))
}

/// Says that a key does not exist.
pub(crate) fn absent(key: &[u8]) -> Exit {
    say(format_args!("key not found: {}", escaped(key)));
    Exit::Absent
}
