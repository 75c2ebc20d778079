//! `stats`.

use bitcask::client::Client;
use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::open;
use crate::output::{Figure, Format};
use crate::program::Program;

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {}

pub(crate) fn run(_args: &StatsArgs, program: &mut Program) -> Result<Exit, Failure> {
    if let Some(client) = program.remote()? {
        return remote(&client, program);
    }
    let db = open::read_only(program)?;
    let (stats, keys) = (db.stats(), db.len()?);
    let figures = [
        ("directory", Figure::Text(db.path().display().to_string())),
        ("keys", Figure::Count(keys)),
        ("segments", Figure::Count(stats.segments)),
        ("sealed segments", Figure::Count(stats.sealed_segments)),
        ("log size", Figure::Size(stats.log_size)),
        ("live size", Figure::Size(stats.live_size)),
        ("dead size", Figure::Size(stats.dead_size)),
        ("dead share", Figure::Share(stats.dead_ratio())),
        ("keydir size", Figure::Size(stats.keydir_size)),
        ("position", Figure::Text(db.position().to_string())),
    ];
    program.printer(Format::Table)?.report(&figures)?;
    Ok(Exit::Done)
}

fn remote(client: &Client, program: &mut Program) -> Result<Exit, Failure> {
    let stats = client.stats()?;
    let figures = [
        ("server", Figure::Text(client.url().to_owned())),
        ("server version", Figure::Text(stats.server_version)),
        ("uptime", Figure::Time(stats.uptime)),
        ("requests", Figure::Count(stats.requests)),
        ("keys", Figure::Count(stats.keys)),
        ("segments", Figure::Count(stats.segments)),
        ("sealed segments", Figure::Count(stats.sealed_segments)),
        ("log size", Figure::Size(stats.log_size)),
        ("live size", Figure::Size(stats.live_size)),
        ("dead size", Figure::Size(stats.dead_size)),
        ("dead share", Figure::Share(stats.dead_ratio)),
        ("keydir size", Figure::Size(stats.keydir_size)),
        ("position", Figure::Text(stats.position.to_string())),
    ];
    program.printer(Format::Table)?.report(&figures)?;
    Ok(Exit::Done)
}
