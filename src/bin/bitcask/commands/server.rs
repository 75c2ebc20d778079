//! `server start`, `server stop` and `server promote`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bitcask::resp::RespStopHandle;
use bitcask::server::{FollowOptions, Server, ServerError, ServerOptions};
use bitcask::{Bitcask, Replica};
use clap::{Args, Subcommand};
use signal_hook::consts::SIGTERM;
use signal_hook::flag;

use super::redis_port::{RedisArgs, RedisPort, RunningPort};
use crate::exit::Exit;
use crate::failure::{Failure, say};
use crate::interrupt::{self, StoppableWork};
use crate::log_lines::{LogLevel, UsualLines};
use crate::output::Format;
use crate::program::Program;
use crate::remote;
#[cfg(feature = "cluster")]
use crate::settings::FOLLOW_TOKEN;
use crate::settings::options::{limit, port};
use crate::{open, units};

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    #[command(subcommand)]
    command: ServerCommand,
}

#[derive(Debug, Subcommand)]
enum ServerCommand {
    /// Serves the store over HTTP, until Ctrl-C or SIGTERM.
    Start(Box<StartArgs>),
    /// Stops a server. It answers the requests that it has accepted, and closes the store. Without
    /// --server, this is the one that `BITCASK_SERVER` or `server` in the configuration names, or
    /// port 8000 of this machine.
    Stop,
    /// Makes a follower a leader: it follows no more, and accepts writes. Chooses the server as
    /// `stop` does.
    Promote,
}

/// Serves the store to other processes. Creates it if it does not exist. Each option is a setting
/// too, so a configuration file or an environment variable such as `BITCASK_PORT` can have it.
#[derive(Debug, Default, Args)]
struct StartArgs {
    /// Address on which to listen [default: 127.0.0.1].
    #[arg(long)]
    host: Option<String>,
    /// Port on which to listen; 0 for any that is free [default: 8000].
    #[arg(long)]
    port: Option<u16>,
    #[command(flatten)]
    redis: RedisArgs,
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    cluster: super::cluster::ClusterArgs,
    /// File with the token that clients have to send. `BITCASK_TOKEN` has the token itself.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with the certificates for HTTPS, in PEM form.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// File with the private key for HTTPS, in PEM form.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Largest body of a request [default: 64MiB].
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    body_size_limit: Option<u64>,
    /// Maximum number of connections [default: 4096].
    #[arg(long, value_name = "NUMBER")]
    connections: Option<usize>,
    /// How long a request may take [default: 30s].
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    request_timeout: Option<std::time::Duration>,
    /// How many requests a client may send per second [default: unlimited].
    #[arg(long, value_name = "NUMBER")]
    requests_per_second: Option<u32>,
    /// Directory below which clients may make backups [default: they may not].
    #[arg(long, value_name = "DIR")]
    backup_dir: Option<PathBuf>,
    /// Server whose store this one follows [default: none]. Writes are refused then.
    #[arg(long, value_name = "URL")]
    follow: Option<String>,
    /// File with the token of that server [default: the token of this one].
    #[arg(long, value_name = "FILE")]
    follow_token_file: Option<PathBuf>,
    /// File with the authorities that may have signed that server's certificate, in PEM form.
    #[arg(long, value_name = "FILE")]
    follow_ca: Option<PathBuf>,
    /// Lets that server's data replace data of a store that was promoted, or has never followed.
    #[arg(long)]
    follow_anew: bool,
    /// Prints log lines from the level `debug` on.
    #[arg(long)]
    debug: bool,
    /// Accepted for the sake of scripts, without an effect.
    #[arg(long)]
    reload: bool,
}

impl ServerArgs {
    /// Returns whether this asks a server.
    pub(crate) fn is_request(&self) -> bool {
        !matches!(self.command, ServerCommand::Start(_))
    }

    /// Returns which log lines are printed unless the user has chosen others.
    pub(crate) fn usual_lines(&self) -> UsualLines {
        match &self.command {
            ServerCommand::Start(args) if args.debug => UsualLines::of_server(LogLevel::Debug),
            ServerCommand::Start(_) => UsualLines::of_server(LogLevel::Info),
            ServerCommand::Stop | ServerCommand::Promote => UsualLines::of_command(),
        }
    }
}

pub(crate) fn run(args: ServerArgs, program: &mut Program) -> Result<Exit, Failure> {
    match args.command {
        ServerCommand::Start(args) => start(&args, program),
        ServerCommand::Stop => stop(program),
        ServerCommand::Promote => promote(program),
    }
}

fn start(args: &StartArgs, program: &mut Program) -> Result<Exit, Failure> {
    if args.reload {
        say("--reload has no effect: the server has no code that could change while it runs");
    }
    let dir = program.dir()?;
    serve_with(args, &dir, program)
}

/// Serves the store in a directory, with what the command line and the settings say.
fn serve_with(args: &StartArgs, dir: &Path, program: &mut Program) -> Result<Exit, Failure> {
    let host = match &args.host {
        Some(host) => host.clone(),
        None => program.settings()?.get("host").0.to_owned(),
    };
    let token = token(args, program)?;
    #[cfg(feature = "cluster")]
    if args.cluster.is_on() {
        return serve_node(args, dir, &host, token.as_deref(), program);
    }
    let mut options = options(args, &host, program)?;
    if let Some(token) = &token {
        options = options.token(token);
    }
    serve(dir, options, program, |db, replica, program| {
        args.redis.bind(db, replica, &host, token.as_deref(), program)
    })
}

/// Serves what a node of a cluster has.
#[cfg(feature = "cluster")]
fn serve_node(
    args: &StartArgs,
    dir: &Path,
    host: &str,
    token: Option<&str>,
    program: &mut Program,
) -> Result<Exit, Failure> {
    super::cluster::refuse_unused(&unused_by_nodes(args), program)?;
    let settings = program.settings()?;
    let http = args.port.map_or_else(|| settings.parsed("port", port), Ok)?;
    let redis = args.redis.port(program)?;
    let is_insecure = args.redis.is_insecure();
    let ports = super::cluster::ClientPorts { host, http, redis, token, is_insecure };
    args.cluster.serve(dir, &ports, program)
}

/// Returns the options that a node of a cluster has no use for, their settings, and whether the
/// command line has them.
#[cfg(feature = "cluster")]
fn unused_by_nodes(args: &StartArgs) -> [(&'static str, &'static str, bool); 12] {
    [
        ("tls-cert", "tls-cert", args.tls_cert.is_some()),
        ("tls-key", "tls-key", args.tls_key.is_some()),
        ("body-size-limit", "body-size-limit", args.body_size_limit.is_some()),
        ("connections", "connections", args.connections.is_some()),
        ("request-timeout", "request-timeout", args.request_timeout.is_some()),
        ("requests-per-second", "requests-per-second", args.requests_per_second.is_some()),
        ("backup-dir", "backup-dir", args.backup_dir.is_some()),
        ("follow", "follow", args.follow.is_some()),
        ("follow-token-file", FOLLOW_TOKEN, args.follow_token_file.is_some()),
        ("follow-ca", "follow-ca", args.follow_ca.is_some()),
        ("follow-anew", "", args.follow_anew),
        ("databases", "databases", args.redis.has_databases()),
    ]
}

/// Serves a store for a program of old, which knows a few options alone. The settings have the
/// others, such as the token.
pub(crate) fn serve_as_before(
    dir: &Path,
    host: &str,
    port: u16,
    program: &mut Program,
) -> Result<Exit, Failure> {
    let args = StartArgs { host: Some(host.into()), port: Some(port), ..StartArgs::default() };
    serve_with(&args, dir, program)
}

/// Serves a store until the user, or another process, wants it to stop.
fn serve(
    dir: &Path,
    options: ServerOptions,
    program: &mut Program,
    bind_redis: impl FnOnce(
        &Arc<Bitcask>,
        Option<Replica>,
        &mut Program,
    ) -> Result<Option<RedisPort>, Failure>,
) -> Result<Exit, Failure> {
    let store_options = program.settings()?.options()?;
    let terminated = Arc::new(AtomicBool::new(false));
    // Without this, SIGTERM kills the program, and the store survives that too.
    let _ = flag::register(SIGTERM, Arc::clone(&terminated));
    let _stoppable = StoppableWork::begin();
    interrupt::check()?;
    let db = Arc::new(open::create_at(dir, store_options)?);
    let server = Server::bind(Arc::clone(&db), options).map_err(failed)?;
    let redis = bind_redis(&db, server.replica(), program)?;
    let printer = program.printer(Format::Plain)?;
    printer.line(&format!("serving {} at {}", dir.display(), server.url()))?;
    if let Some(redis) = &redis {
        printer.line(&format!("serving clients of Redis at {}", redis.url()))?;
    }
    printer.flush()?;
    let port = redis.map(RedisPort::run);
    let handle = port.as_ref().map(RunningPort::stop_handle);
    // Each port stops when the other does.
    let result = server.run_until(move || {
        let is_over = interrupt::is_requested() || terminated.load(Ordering::SeqCst);
        let other_is_over = handle.as_ref().is_some_and(RespStopHandle::is_stopped);
        if let Some(handle) = handle.as_ref().filter(|_| is_over) {
            handle.stop();
        }
        is_over || other_is_over
    });
    let ended = port.map_or(Ok(()), RunningPort::end);
    result.map_err(failed)?;
    // A command that has not ended within its time has the store still, and closes it.
    Arc::into_inner(db).map_or(Ok(()), Bitcask::close)?;
    ended.map(|()| Exit::Done)
}

/// Returns the options that the command line and the settings give.
fn options(args: &StartArgs, host: &str, program: &mut Program) -> Result<ServerOptions, Failure> {
    let settings = program.settings()?;
    let file = |name: &str| settings.parsed(name, |text| Ok(optional(text).map(PathBuf::from)));
    let port = args.port.map_or_else(|| settings.parsed("port", port), Ok)?;
    let body = args.body_size_limit;
    let body = body.map_or_else(|| settings.parsed("body-size-limit", units::size), Ok)?;
    let timeout = args.request_timeout;
    let timeout =
        timeout.map_or_else(|| settings.parsed("request-timeout", units::duration), Ok)?;
    let connections = args.connections;
    let connections = connections.map_or_else(|| settings.parsed("connections", count), Ok)?;
    let mut options = ServerOptions::new()
        .address(host, port)
        .body_size_limit(body)
        .body_memory_limit(body.max(512 << 20))
        .request_timeout(timeout)
        .connections_max(connections);
    let rate = args.requests_per_second.map(Some);
    if let Some(rate) = rate.map_or_else(|| settings.parsed("requests-per-second", limit), Ok)? {
        options = options.requests_per_second(rate);
    }
    let backup_dir = args.backup_dir.clone().map(Some);
    if let Some(dir) = backup_dir.map_or_else(|| file("backup-dir"), Ok)? {
        options = options.backup_dir(dir);
    }
    if let Some(leader) = leader(args, program)? {
        options = options.follow(leader);
    }
    tls(args, program, options)
}

/// Returns which leader is followed, if any is.
fn leader(args: &StartArgs, program: &mut Program) -> Result<Option<FollowOptions>, Failure> {
    let settings = program.settings()?;
    let setting = |name: &str| optional(settings.get(name).0);
    let Some(url) = args.follow.as_deref().or_else(|| setting("follow")) else {
        return if args.follow_anew {
            Err(Failure::usage("--follow-anew says how to follow", "set --follow as well"))
        } else {
            Ok(None)
        };
    };
    let mut leader = FollowOptions::new(url).anew(args.follow_anew);
    let token = match (&args.follow_token_file, &args.token_file) {
        (Some(path), _) => Some(token_in(path)?),
        (None, Some(path)) if setting("follow-token").is_none() => Some(token_in(path)?),
        _ => setting("follow-token").or_else(|| setting("token")).map(str::to_owned),
    };
    if let Some(token) = token {
        leader = leader.token(token);
    }
    let authority = args.follow_ca.clone().or_else(|| setting("follow-ca").map(PathBuf::from));
    if let Some(path) = authority {
        leader = leader.authority(read(&path)?);
    }
    Ok(Some(leader))
}

/// Adds the certificate and the key.
fn tls(
    args: &StartArgs,
    program: &mut Program,
    options: ServerOptions,
) -> Result<ServerOptions, Failure> {
    let settings = program.settings()?;
    let file = |name: &str| settings.parsed(name, |text| Ok(optional(text).map(PathBuf::from)));
    let certificate = args.tls_cert.clone().map(Some).map_or_else(|| file("tls-cert"), Ok)?;
    let key = args.tls_key.clone().map(Some).map_or_else(|| file("tls-key"), Ok)?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(options.tls(read(&certificate)?, read(&key)?)),
        (None, None) => Ok(options),
        _ => {
            let what = "a certificate and a key belong together";
            Err(Failure::usage(what, "set both --tls-cert and --tls-key"))
        }
    }
}

/// Reads a token.
fn token_in(path: &Path) -> Result<String, Failure> {
    Ok(String::from_utf8_lossy(&read(path)?).trim().to_owned())
}

/// Returns the token that clients have to send.
fn token(args: &StartArgs, program: &mut Program) -> Result<Option<String>, Failure> {
    match &args.token_file {
        Some(path) => Ok(Some(token_in(path)?)),
        None => Ok(optional(program.settings()?.get("token").0).map(str::to_owned)),
    }
}

/// Reads a number of connections.
fn count(text: &str) -> Result<usize, String> {
    let count = limit(text)?.map(usize::try_from);
    Ok(count.and_then(Result::ok).unwrap_or(usize::MAX))
}

/// Returns a setting, unless it says that there is none.
fn optional(text: &str) -> Option<&str> {
    Some(text).filter(|text| !["", "none"].contains(text))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::file("read", path, &error))
}

fn failed(error: ServerError) -> Failure {
    match error {
        ServerError::Store(error) => error.into(),
        ServerError::InvalidServerOption { .. }
        | ServerError::Tls { .. }
        | ServerError::Replication { .. } => {
            Failure::usage(error.to_string(), "`bitcask server start --help` lists the options")
        }
        error => Failure::store(error.to_string(), ""),
    }
}

fn stop(program: &mut Program) -> Result<Exit, Failure> {
    let client = remote::chosen(program)?;
    client.stop_server()?;
    program.printer(Format::Plain)?.line(&format!("{} stops", client.url()))?;
    Ok(Exit::Done)
}

fn promote(program: &mut Program) -> Result<Exit, Failure> {
    let client = remote::chosen(program)?;
    client.promote_server()?;
    program.printer(Format::Plain)?.line(&format!("{} accepts writes", client.url()))?;
    Ok(Exit::Done)
}
