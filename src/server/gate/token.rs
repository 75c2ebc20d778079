//! The token that clients have to send.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use subtle::ConstantTimeEq as _;

/// Returns whether a request carries the token, as `Authorization: Bearer TOKEN` or as
/// `x-api-key: TOKEN`.
///
/// The comparison takes the same time wherever the two differ, so a client cannot guess the token
/// byte by byte. It does show whether the length is right.
pub(super) fn is_valid(headers: &HeaderMap, token: &str) -> bool {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, sent) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(sent)
    });
    let sent = bearer.or_else(|| Some(headers.get("x-api-key")?.as_bytes()));
    sent.is_some_and(|sent| bool::from(sent.ct_eq(token.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_valid() {
        let sent = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            is_valid(&headers, "secret")
        };
        assert!(sent("authorization", "Bearer secret"));
        assert!(sent("authorization", "bearer secret"));
        assert!(sent("x-api-key", "secret"));
        for value in ["Bearer secre", "Bearer secrets", "Bearer ", "Basic secret", "secret", ""] {
            assert!(!sent("authorization", value), "{value}");
        }
        assert!(!is_valid(&HeaderMap::new(), "secret"));
    }
}
