//! `health` and `ping`: whether a server answers.

use std::time::Instant;

use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Figure, Format};
use crate::program::Program;
use crate::remote;

/// Asks a server whether it works. Ends with 1 if it answers that it does not. Without --server, it
/// asks the one that `BITCASK_SERVER` or `server` in the configuration names, or port 8000 of this
/// machine.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {}

/// Tells whether a server answers, and how long that took. Without --server, it asks the one that
/// `BITCASK_SERVER` or `server` in the configuration names, or port 8000 of this machine.
#[derive(Debug, Args)]
pub(crate) struct PingArgs {}

pub(crate) fn health(_args: &HealthArgs, program: &mut Program) -> Result<Exit, Failure> {
    let client = remote::chosen(program)?;
    let health = client.health()?;
    let is_healthy = health.is_healthy();
    let mut figures = vec![
        ("server", Figure::Text(client.url().to_owned())),
        ("status", Figure::Text(health.status)),
    ];
    figures.extend(health.version.map(|version| ("version", Figure::Text(version))));
    program.printer(Format::Table)?.report(&figures)?;
    Ok(Exit::found(is_healthy))
}

pub(crate) fn ping(_args: &PingArgs, program: &mut Program) -> Result<Exit, Failure> {
    let client = remote::chosen(program)?;
    let started = Instant::now();
    client.health()?;
    let figures = [
        ("server", Figure::Text(client.url().to_owned())),
        ("answers", Figure::Truth(true)),
        ("time", Figure::Time(started.elapsed())),
    ];
    program.printer(Format::Table)?.report(&figures)?;
    Ok(Exit::Done)
}
