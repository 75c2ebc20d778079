//! `ttl`, `expire` and `persist`.

use std::ffi::OsString;
use std::time::Duration;

use bitcask::Ttl;
use clap::Args;
use serde_json::json;

use super::get::absent;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Format;
use crate::program::Program;
use crate::{input, open, units};

#[derive(Debug, Args)]
pub(crate) struct TtlArgs {
    key: OsString,
}

#[derive(Debug, Args)]
pub(crate) struct ExpireArgs {
    key: OsString,
    /// The time to live, for example 30s or 7days.
    #[arg(value_name = "DURATION", value_parser = units::duration)]
    ttl: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct PersistArgs {
    key: OsString,
}

pub(crate) fn ttl(args: &TtlArgs, program: &mut Program) -> Result<Exit, Failure> {
    let key = input::key(&args.key, program.base64())?;
    let ttl = match program.remote()? {
        Some(client) => client.ttl(&key)?,
        None => open::read_only(program)?.ttl(&key)?,
    };
    let Some(ttl) = ttl else { return Ok(absent(&key)) };
    let left = match ttl {
        Ttl::In(left) => Some(left),
        _ => None,
    };
    let printer = program.printer(Format::Plain)?;
    match (printer.format, left) {
        (Format::Json, left) => {
            printer.json(&json!({ "ttl_seconds": left.map(|left| left.as_secs_f64()) }))?;
        }
        (Format::Table, Some(left)) => printer.line(&units::show_duration(left))?,
        (_, Some(left)) => printer.line(&format!("{:.3}", left.as_secs_f64()))?,
        (_, None) => printer.line("never")?,
    }
    Ok(Exit::Done)
}

pub(crate) fn expire(args: &ExpireArgs, program: &mut Program) -> Result<Exit, Failure> {
    let key = input::key(&args.key, program.base64())?;
    let found = if let Some(client) = program.remote()? {
        client.expire(&key, args.ttl)?
    } else {
        let db = open::changeable(program)?;
        let found = db.expire(&key, args.ttl)?;
        db.close()?;
        found
    };
    Ok(if found { Exit::Done } else { absent(&key) })
}

pub(crate) fn persist(args: &PersistArgs, program: &mut Program) -> Result<Exit, Failure> {
    let key = input::key(&args.key, program.base64())?;
    let found = if let Some(client) = program.remote()? {
        client.persist(&key)?
    } else {
        let db = open::changeable(program)?;
        let found = db.persist(&key)?;
        db.close()?;
        found
    };
    Ok(if found { Exit::Done } else { absent(&key) })
}
