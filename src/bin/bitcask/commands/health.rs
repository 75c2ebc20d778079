//! `health` and `ping`: whether a server answers.

use std::time::Instant;

use clap::Args;
use serde_json::Value;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Figure, Format};
use crate::program::Program;
use crate::remote::RemoteServer;

/// Asks a server whether it works. Ends with 1 if it answers that it does not.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    remote: RemoteArgs,
}

/// Tells whether a server answers, and how long that took.
#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    #[command(flatten)]
    remote: RemoteArgs,
}

/// Which server is asked.
#[derive(Debug, Args)]
pub(crate) struct RemoteArgs {
    /// The server [default: `BITCASK_SERVER`, or `server` in the configuration, or port 8000 of
    /// this machine].
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
}

/// What a server says about itself.
#[derive(Debug)]
pub(crate) struct HealthReport {
    pub(crate) status: String,
    pub(crate) version: Option<String>,
}

impl HealthReport {
    /// Asks a server.
    pub(crate) fn of(server: &RemoteServer) -> Result<Self, Failure> {
        let answer = server.ask("GET", "/health", None)?;
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        let Some(status) = text("status") else {
            let what = format!("{} answered with status {}", server.url(), answer.status);
            return Err(Failure::store(what, "check the host and the port"));
        };
        Ok(Self { status, version: text("version") })
    }
}

pub(crate) fn health(args: &HealthArgs, program: &mut Program) -> Result<Exit, Failure> {
    let server = RemoteServer::chosen(args.remote.server.as_deref(), program)?;
    let HealthReport { status, version } = HealthReport::of(&server)?;
    let is_healthy = status == "healthy";
    let mut figures =
        vec![("server", Figure::Text(server.url())), ("status", Figure::Text(status))];
    figures.extend(version.map(|version| ("version", Figure::Text(version))));
    program.printer(Format::Table)?.report(&figures)?;
    Ok(Exit::found(is_healthy))
}

pub(crate) fn ping(args: &PingArgs, program: &mut Program) -> Result<Exit, Failure> {
    let server = RemoteServer::chosen(args.remote.server.as_deref(), program)?;
    let started = Instant::now();
    HealthReport::of(&server)?;
    let figures = [
        ("server", Figure::Text(server.url())),
        ("answers", Figure::Truth(true)),
        ("time", Figure::Time(started.elapsed())),
    ];
    program.printer(Format::Table)?.report(&figures)?;
    Ok(Exit::Done)
}
