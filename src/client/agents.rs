//! Agents: pools of connections, with what all requests over them have in common.

use std::time::Duration;

use ureq::Agent;
use ureq::config::ConfigBuilder;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::typestate::AgentScope;

use super::error::ClientError;
use super::options::ClientOptions;

/// Least time after which a stream on which nothing arrives counts as broken. The server sends
/// something every 15 seconds.
const STREAM_TIMEOUT_MIN: Duration = Duration::from_secs(45);
/// Returns the agent of calls with a time limit.
pub(super) fn for_calls(options: &ClientOptions, roots: &RootCerts) -> Agent {
    common(options, roots).timeout_global(Some(options.timeout)).build().new_agent()
}

/// Returns the agent of calls that may take any time.
pub(super) fn for_upkeep(options: &ClientOptions, roots: &RootCerts) -> Agent {
    common(options, roots).build().new_agent()
}

/// Returns the agent of streams, which have a limit for each of their parts.
pub(super) fn for_streams(options: &ClientOptions, roots: &RootCerts) -> Agent {
    let patience = options.timeout.max(STREAM_TIMEOUT_MIN);
    common(options, roots)
        .timeout_recv_response(Some(options.timeout))
        .timeout_per_read(Some(patience))
        .build()
        .new_agent()
}

/// A client of a store uses no proxy of the web, and is not sent elsewhere.
fn common(options: &ClientOptions, roots: &RootCerts) -> ConfigBuilder<AgentScope> {
    let tls = TlsConfig::builder().root_certs(roots.clone()).build();
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .tls_config(tls)
        .user_agent(concat!("bitcask/", env!("CARGO_PKG_VERSION")))
        .max_idle_connections(options.idle_connections_max)
        .max_idle_connections_per_host(options.idle_connections_max)
        .timeout_connect(Some(options.connect_timeout.min(options.timeout)))
}

/// Returns the certificates that the server's has to descend from.
pub(super) fn roots(options: &ClientOptions) -> Result<RootCerts, ClientError> {
    let Some(pem) = &options.ca_certificates else { return Ok(RootCerts::PlatformVerifier) };
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    };
    let read: Result<Vec<Certificate<'static>>, ureq::Error> =
        ureq::tls::parse_pem(pem).filter_map(certificate).collect();
    let reason = match read {
        Ok(read) if !read.is_empty() => return Ok(RootCerts::from(read)),
        Ok(_) => "there is no certificate in it".into(),
        Err(error) => error.to_string(),
    };
    let value = format!("{} bytes", pem.len());
    Err(ClientError::InvalidClientOption { name: "ca_certificates", value, reason })
}
