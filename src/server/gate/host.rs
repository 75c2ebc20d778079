//! The name under which a client has reached the server.
//!
//! A page of the web can reach a server on its reader's machine under a name of its own that leads
//! to 127.0.0.1. The browser then takes the server for a part of the page's site. It sends that
//! name as `Host`, which the page cannot change.

use std::net::IpAddr;

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri};

/// Returns whether a request names the server as `localhost`, by an address, or not at all. Nobody
/// can make these lead elsewhere.
pub(crate) fn is_plain(target: &Uri, headers: &HeaderMap) -> bool {
    is_named(target, headers, is_plain_name)
}

/// Returns whether a request names the server like that, or by a name without a dot, as machines
/// and containers have in their own network. Names that can be registered have a dot.
pub(super) fn is_local(target: &Uri, headers: &HeaderMap) -> bool {
    let is_local_name = |host: &str| !host.is_empty() && !host.contains('.');
    is_named(target, headers, |host| is_local_name(host) || is_plain_name(host))
}

fn is_named(target: &Uri, headers: &HeaderMap, is_right: impl Fn(&str) -> bool) -> bool {
    let is_right_header = |value: &axum::http::HeaderValue| {
        Authority::try_from(value.as_bytes()).is_ok_and(|it| is_right(it.host()))
    };
    target.host().is_none_or(&is_right) && headers.get_all(HOST).iter().all(is_right_header)
}

fn is_plain_name(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_plain() {
        let is_plain_with = |target: &str, hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, host.parse().unwrap());
            }
            is_plain(&target.parse().unwrap(), &headers)
        };
        for host in ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "10.0.0.1"] {
            assert!(is_plain_with("/", &[host]), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:8000", "127.0.0.1.evil.example", ""] {
            assert!(!is_plain_with("/", &[host]), "{host}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "store:8000".parse().unwrap());
        let target = "/".parse().unwrap();
        assert!(is_local(&target, &headers) && !is_plain(&target, &headers));
        assert!(is_plain_with("/", &[]));
        assert!(!is_plain_with("/", &["localhost", "evil.example"]));
        assert!(!is_plain_with("http://evil.example/", &["localhost"]));
    }
}
