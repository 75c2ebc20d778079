//! Runs clients that others wrote against the Redis port at `SUITE_PORT`. See `tests/`.

/// Returns the port of the server.
///
/// # Panics
///
/// If `SUITE_PORT` is not set.
pub fn port() -> u16 {
    let port = std::env::var("SUITE_PORT").expect("SUITE_PORT names the port of the server");
    port.parse().expect("SUITE_PORT is a number")
}
