//! A limit on how many requests a client may send: one bucket of tokens for each address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Maximum number of addresses that have buckets of their own.
const CLIENTS_MAX: usize = 4096;

/// Limits the requests of each client.
pub(in super::super) struct ClientRates {
    /// Tokens that a bucket gains per second, and the most that it holds.
    per_second: f64,
    /// Lock 9: the buckets that may not be full.
    buckets: Mutex<HashMap<IpAddr, TokenBucket>>,
}

/// The tokens of a client at some time. Each request takes one.
#[derive(Debug, Clone, Copy)]
struct TokenBucket {
    tokens: f64,
    at: Instant,
}

impl ClientRates {
    pub(in super::super) fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second), buckets: Mutex::default() }
    }

    /// Takes a token of this client. Returns whether there was one.
    pub(in super::super) fn admits(&self, address: IpAddr, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let address = client_of(address);
        if !buckets.contains_key(&address) && buckets.len() >= CLIENTS_MAX {
            // A full bucket is like none.
            buckets.retain(|_, bucket| self.level(*bucket, now) < self.per_second);
            if buckets.len() >= CLIENTS_MAX {
                // So many clients are active that a new one cannot be distinguished from an attack.
                return false;
            }
        }
        let full = TokenBucket { tokens: self.per_second, at: now };
        let bucket = buckets.entry(address).or_insert(full);
        let tokens = self.level(*bucket, now);
        let is_admitted = tokens >= 1.0;
        let tokens = if is_admitted { tokens - 1.0 } else { tokens };
        *bucket = TokenBucket { tokens, at: now };
        is_admitted
    }

    /// Returns how many tokens a bucket has by now.
    fn level(&self, bucket: TokenBucket, now: Instant) -> f64 {
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * self.per_second;
        (bucket.tokens + gained).min(self.per_second)
    }
}

/// Returns the address that stands for a client. Someone with an IPv6 address usually has all those
/// that share its first 64 bits.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            Ipv6Addr::from(network).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(number).into()
    }

    #[test]
    fn a_client_gets_a_burst_and_then_its_rate() {
        let (rate, start) = (ClientRates::new(10), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let admitted = |millis| (0..20).filter(|_| rate.admits(address(1), at(millis))).count();
        assert_eq!([admitted(0), admitted(0), admitted(100), admitted(400)], [10, 0, 1, 3]);
        assert_eq!(admitted(60_000), 10);
        assert!(rate.admits(address(2), at(0)));
    }

    #[test]
    fn the_table_of_clients_is_bounded() {
        let (rate, start) = (ClientRates::new(2), Instant::now());
        for number in 0..2 * CLIENTS_MAX {
            rate.admits(address(u32::try_from(number).unwrap()), start);
        }
        assert_eq!(rate.buckets.lock().unwrap().len(), CLIENTS_MAX);
        // A client that has waited is forgotten, and makes room.
        assert!(rate.admits(address(u32::MAX), start + Duration::from_secs(60)));
        assert_eq!(rate.buckets.lock().unwrap().len(), 1);
    }

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let of = |text: &str| client_of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
