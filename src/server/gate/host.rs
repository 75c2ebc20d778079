//! The name under which a client has reached the server.
//!
//! A page of the web can reach a server on its reader's machine under a name of its own that leads
//! to 127.0.0.1. The browser then takes the server for a part of the page's site. It sends that
//! name as `Host`, which the page cannot change.

use std::net::IpAddr;

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri};

/// Returns whether a request names the server by an address, by a name without a dot such as
/// `localhost`, or not at all. Nobody can make these lead elsewhere: names that can be registered
/// have a dot.
pub(crate) fn is_plain(target: &Uri, headers: &HeaderMap) -> bool {
    let is_plain_header = |value: &axum::http::HeaderValue| {
        Authority::try_from(value.as_bytes()).is_ok_and(|it| is_plain_name(it.host()))
    };
    target.host().is_none_or(is_plain_name) && headers.get_all(HOST).iter().all(is_plain_header)
}

fn is_plain_name(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    !host.is_empty() && !host.contains('.') || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_names_without_a_dot_are_plain() {
        let is_plain_with = |target: &str, hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, host.parse().unwrap());
            }
            is_plain(&target.parse().unwrap(), &headers)
        };
        for host in
            ["localhost", "LOCALHOST:8000", "store", "127.0.0.1:8000", "[::1]:8000", "10.0.0.1"]
        {
            assert!(is_plain_with("/", &[host]), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:8000", "127.0.0.1.evil.example", ""] {
            assert!(!is_plain_with("/", &[host]), "{host}");
        }
        assert!(is_plain_with("/", &[]));
        assert!(!is_plain_with("/", &["localhost", "evil.example"]));
        assert!(!is_plain_with("http://evil.example/", &["localhost"]));
    }
}
