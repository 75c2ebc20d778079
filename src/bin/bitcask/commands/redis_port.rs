//! The Redis port of `server start`.

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use bitcask::resp::{RespOptions, RespServer, RespStopHandle};
use bitcask::{Bitcask, Replica};

use clap::Args;

use crate::failure::Failure;
use crate::program::Program;
use crate::settings::options::{databases, resp_port};

/// The name of the directory of the databases other than 0, below that of the store.
const DATABASES_DIR: &str = "databases";

#[derive(Debug, Default, Args)]
pub(crate) struct RedisArgs {
    /// Port on which clients of Redis are served; 0 for any that is free [default: none].
    #[arg(long, value_name = "PORT")]
    resp_port: Option<u16>,
    /// How many databases these clients can select [default: 16].
    #[arg(long, value_name = "NUMBER", value_parser = databases)]
    databases: Option<usize>,
    /// Opens the Redis port to all networks although there is no token.
    #[arg(long)]
    insecure: bool,
}

/// A Redis port that is bound, and serves nobody yet.
pub(crate) struct RedisPort(RespServer);

/// A Redis port that is served by a thread.
pub(crate) struct RunningPort {
    stop: RespStopHandle,
    thread: JoinHandle<io::Result<()>>,
}

impl RedisArgs {
    /// Binds the port, if the command line or the settings ask for one. The token is the password.
    pub(super) fn bind(
        &self,
        db: &Arc<Bitcask>,
        replica: Option<Replica>,
        host: &str,
        token: Option<&str>,
        program: &mut Program,
    ) -> Result<Option<RedisPort>, Failure> {
        let Some(port) = self.port(program)? else { return Ok(None) };
        let settings = program.settings()?;
        let count = self.databases;
        let count = count.map_or_else(|| settings.parsed("databases", databases), Ok)?;
        let store_options = settings.options()?;
        // The leader's other databases are stores of their own, which this one does not follow.
        let count = if replica.is_some() { 1 } else { count };
        let dir = db.path().join(DATABASES_DIR);
        let options = RespOptions::new().insecure(self.insecure);
        let mut options = options.databases(dir, count, store_options);
        if let Some(replica) = replica {
            options = options.replica(replica);
        }
        if let Some(token) = token {
            options = options.password(token);
        }
        RedisPort::bound(RespServer::bind((host, port), Arc::clone(db), options), host, port)
            .map(Some)
    }

    /// Returns the port that the command line or the settings ask for.
    pub(super) fn port(&self, program: &mut Program) -> Result<Option<u16>, Failure> {
        let settings = program.settings()?;
        self.resp_port.map(Some).map_or_else(|| settings.parsed("resp-port", resp_port), Ok)
    }

    #[cfg(feature = "cluster")]
    pub(super) fn has_databases(&self) -> bool {
        self.databases.is_some()
    }

    #[cfg(feature = "cluster")]
    pub(super) fn is_insecure(&self) -> bool {
        self.insecure
    }
}

fn not_bound(error: &io::Error, host: &str, port: u16) -> Failure {
    // The operating system's errors have a number, and a refusal of the library has none.
    if error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none() {
        let advice = "set a token with --token-file or BITCASK_TOKEN, or add --insecure";
        return Failure::usage(format!("cannot serve clients of Redis on {host}: {error}"), advice);
    }
    let what = format!("cannot listen on {host}:{port}: {error}");
    Failure::store(what, "choose another port with --resp-port")
}

impl RedisPort {
    /// Takes a server that was bound, or says why it could not be.
    pub(super) fn bound(
        bound: io::Result<RespServer>,
        host: &str,
        port: u16,
    ) -> Result<Self, Failure> {
        bound.map(Self).map_err(|error| not_bound(&error, host, port))
    }

    /// Returns the URL for clients.
    pub(super) fn url(&self) -> String {
        format!("redis://{}", self.0.address())
    }

    /// Serves clients on a thread of its own.
    pub(super) fn run(self) -> RunningPort {
        let stop = self.0.stop_handle();
        RunningPort { stop, thread: std::thread::spawn(move || self.0.run()) }
    }
}

impl RunningPort {
    pub(super) fn stop_handle(&self) -> RespStopHandle {
        self.stop.clone()
    }

    /// Stops the port, and returns when the commands that have arrived are answered.
    pub(super) fn end(self) -> Result<(), Failure> {
        self.stop.stop();
        let failed = |reason: &dyn Display| {
            Failure::store(format!("the Redis port has failed: {reason}"), "start the server again")
        };
        match self.thread.join() {
            Ok(result) => result.map_err(|error| failed(&error)),
            Err(_) => Err(failed(&"its thread has panicked")),
        }
    }
}
