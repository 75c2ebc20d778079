//! Servers that the program asks, through the library's client.

use std::fs;
use std::path::Path;

use bitcask::client::{Client, ClientError, ClientOptions};

use crate::failure::Failure;
use crate::program::Program;
use crate::settings::{Settings, TOKEN};

/// What a URL looks like.
const EXAMPLE: &str = "expected a URL such as http://localhost:8000";

/// Returns why a URL names no server.
pub(crate) fn check(url: &str) -> Result<(), String> {
    match Client::at(url) {
        Ok(_) => Ok(()),
        Err(ClientError::InvalidClientOption { name: "url", reason, .. }) => Err(reason),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns a client of a server, with the token and the certificates in the settings.
pub(crate) fn client_of(url: &str, settings: &Settings) -> Result<Client, Failure> {
    let set = |name: &str| Some(settings.get(name).0).filter(|text| !["", "none"].contains(text));
    let options = ClientOptions::new().url(url).token(set(TOKEN).unwrap_or_default());
    let options = match set("ca-cert").map(Path::new) {
        Some(path) => {
            let pem = fs::read(path).map_err(|error| Failure::file("read", path, &error))?;
            options.ca_certificates(pem)
        }
        None => options,
    };
    Ok(Client::new(options)?)
}

/// Returns a client of the server that the user has named, or else of the one in the settings.
pub(crate) fn chosen(program: &mut Program) -> Result<Client, Failure> {
    if let Some(client) = program.remote()? {
        return Ok(client);
    }
    let settings = program.settings()?;
    settings.parsed("server", check)?;
    client_of(settings.get("server").0, settings)
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Connection { url, reason, was_sent: true, .. } => Self::store(
                format!(
                    "the connection to {url} broke before the whole answer was there: {reason}"
                ),
                "if the command was to change something, the change may have been made: look \
                 before you run it again",
            ),
            ClientError::Connection { url, reason, .. } => Self::store(
                format!("no server answers at {url}: {reason}"),
                "start one with `bitcask server start`, or name another with --server or \
                 BITCASK_SERVER",
            ),
            ClientError::InvalidClientOption { name: "url", value, reason } => {
                Self::usage(format!("`{value}` names no server: {reason}"), EXAMPLE)
            }
            ClientError::InvalidClientOption { .. }
            | ClientError::InvalidRequest { .. }
            | ClientError::Server { status: 400 | 413 | 422, .. } => {
                Self::usage(error.to_string(), "")
            }
            ClientError::InvalidAnswer { .. } => {
                Self::store(error.to_string(), "check the host and the port")
            }
            ClientError::Server { status: 401, .. } => {
                Self::store(error.to_string(), "set BITCASK_TOKEN to the server's token")
            }
            ClientError::Server { status: 410, .. } => Self::store(
                error.to_string(),
                "read the whole store with `bitcask scan`, and watch from now on",
            ),
            _ => Self::store(error.to_string(), ""),
        }
    }
}
