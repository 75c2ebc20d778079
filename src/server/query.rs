//! The parameters behind the question mark of a URL.
//!
//! Their values can be any bytes. A parameter that a route does not know is an error, so that a
//! slip of the pen in `limit` does not become a listing without one.

use std::str::FromStr;

use axum::http::Uri;

use super::bytes::percent_decoded;
use super::failure::ApiFailure;

/// The parameters of a request.
#[derive(Debug)]
pub(super) struct QueryParameters(Vec<(&'static str, Vec<u8>)>);

impl QueryParameters {
    /// Reads the parameters of these names.
    pub(super) fn read(uri: &Uri, names: &[&'static str]) -> Result<Self, ApiFailure> {
        let mut found: Vec<(&'static str, Vec<u8>)> = Vec::new();
        let parts = uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty());
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let Some(known) = names.iter().find(|known| **known == name) else {
                let known = names.join(", ");
                let what = format!("the parameter `{name}` is unknown; there are: {known}");
                return Err(ApiFailure::invalid(what));
            };
            if found.iter().any(|(name, _)| name == known) {
                return Err(ApiFailure::invalid(format!("`{name}` is there twice")));
            }
            let value = percent_decoded(value, true);
            let value = value
                .ok_or_else(|| ApiFailure::invalid(format!("`{name}` has a broken escape")))?;
            found.push((known, value));
        }
        Ok(Self(found))
    }

    /// Returns the bytes of a parameter.
    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_slice())
    }

    /// Returns a parameter that is text of some form.
    pub(super) fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiFailure> {
        let Some(bytes) = self.bytes(name) else { return Ok(None) };
        let parsed = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
        parsed.map(Some).ok_or_else(|| {
            let value = String::from_utf8_lossy(bytes);
            ApiFailure::invalid(format!("`{name}` cannot be `{value}`"))
        })
    }

    /// Returns whether a parameter is set, with or without the value `true`.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiFailure> {
        match self.bytes(name) {
            None => Ok(false),
            Some(b"") => Ok(true),
            Some(_) => Ok(self.parsed(name)?.unwrap_or(false)),
        }
    }

    /// Returns the number of items that a page may have, at most `max`.
    pub(super) fn limit(&self, usual: usize, max: usize) -> Result<usize, ApiFailure> {
        match self.parsed("limit")? {
            None => Ok(usual),
            Some(limit) if (1..=max).contains(&limit) => Ok(limit),
            Some(_) => Err(ApiFailure::invalid(format!("`limit` has to be from 1 to {max}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<QueryParameters, ApiFailure> {
        QueryParameters::read(&text.parse().unwrap(), &["prefix", "limit", "reverse"])
    }

    #[test]
    fn parameters_can_be_any_bytes() {
        let found = read("/?prefix=%ff%2f+&limit=7&reverse").unwrap();
        assert_eq!(found.bytes("prefix"), Some(&b"\xff/ "[..]));
        assert_eq!(found.limit(1, 10).unwrap(), 7);
        assert!(found.flag("reverse").unwrap());
        assert!(!read("/").unwrap().flag("reverse").unwrap());
        assert!(!read("/?reverse=false").unwrap().flag("reverse").unwrap());
        assert_eq!(read("/?").unwrap().limit(5, 10).unwrap(), 5);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in ["/?prefx=a", "/?limit=1&limit=2", "/?prefix=%f"] {
            assert!(read(text).is_err(), "{text}");
        }
        for limit in ["0", "11", "-1", "x", "%ff", ""] {
            assert!(read(&format!("/?limit={limit}")).unwrap().limit(5, 10).is_err(), "{limit}");
        }
        assert!(read("/?reverse=perhaps").unwrap().flag("reverse").is_err());
    }
}
