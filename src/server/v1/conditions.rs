//! Conditions on the state of a key: `If-Match` and `If-None-Match`.
//!
//! The entity tag of a key is its version. No two states of a key have the same version, so a
//! change under a condition is a compare-and-swap.

use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::options::WriteOptions;
use crate::server::failure::ApiFailure;
use crate::store::{Bitcask, Version};

/// Maximum number of attempts of a change whose key changes between its read and its write.
const ATTEMPTS_MAX: u32 = 100;

/// The entity tags that a header lists.
#[derive(Debug, PartialEq, Eq)]
enum ListedTags {
    /// `*`: any state in which the key exists.
    Any,
    /// `None` for a tag of no state, such as one of another server.
    Some(Vec<Option<Version>>),
}

impl ListedTags {
    fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, ApiFailure> {
        let mut tags = Vec::new();
        let wrong = || ApiFailure::invalid(format!("`{name}` has to be * or entity tags"));
        for value in headers.get_all(name) {
            // A tag may have bytes that are no text.
            let text = String::from_utf8_lossy(value.as_bytes());
            if text.trim() == "*" {
                return Ok(Some(Self::Any));
            }
            add_tags(&text, &mut tags).ok_or_else(wrong)?;
        }
        if tags.is_empty() && headers.contains_key(name) {
            return Err(wrong());
        }
        Ok(Some(tags).filter(|tags| !tags.is_empty()).map(Self::Some))
    }

    fn has(&self, current: Option<Version>) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Some(tags), Some(_)) => tags.contains(&current),
        }
    }
}

/// Adds the tags of a list. Returns `None` if it is no list of tags.
fn add_tags(mut list: &str, tags: &mut Vec<Option<Version>>) -> Option<()> {
    loop {
        // Elements may be empty.
        list = list.trim_start_matches([',', ' ', '\t']);
        if list.is_empty() {
            return Some(());
        }
        // A weak tag is never returned, but some proxies make one of a strong one.
        let tag = list.strip_prefix("W/").unwrap_or(list).strip_prefix('"')?;
        let (tag, rest) = tag.split_once('"')?;
        let rest = rest.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
        // The text counts: a number may be written in several ways.
        let number = tag.parse::<u64>().ok().filter(|number| number.to_string() == tag);
        tags.push(number.map(Version::from));
        list = rest;
    }
}

/// The conditions of a request.
#[derive(Debug)]
pub(super) struct Conditions {
    only_if: Option<ListedTags>,
    unless: Option<ListedTags>,
}

/// Whether conditions hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Holds,
    /// The key is not as `If-Match` expects it.
    Differs,
    /// The key is as `If-None-Match` does not want it.
    Same,
}

impl Conditions {
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, ApiFailure> {
        let only_if = ListedTags::read(headers, &IF_MATCH)?;
        Ok(Self { only_if, unless: ListedTags::read(headers, &IF_NONE_MATCH)? })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.only_if.is_none() && self.unless.is_none()
    }

    /// Compares the conditions with the current state of a key.
    pub(super) fn verdict(&self, current: Option<Version>) -> Verdict {
        if self.only_if.as_ref().is_some_and(|tags| !tags.has(current)) {
            return Verdict::Differs;
        }
        if self.unless.as_ref().is_some_and(|tags| tags.has(current)) {
            return Verdict::Same;
        }
        Verdict::Holds
    }

    /// Puts or deletes a key if the conditions hold at that moment. Returns whether the key
    /// existed.
    pub(super) fn change(
        &self,
        db: &Bitcask,
        key: &[u8],
        new: Option<&[u8]>,
        options: WriteOptions,
    ) -> Result<bool, ApiFailure> {
        for _ in 0..ATTEMPTS_MAX {
            let current = db.look(key, Version::of)?;
            if self.verdict(current) != Verdict::Holds {
                return Err(ApiFailure::unmet_condition(current.map(entity_tag)));
            }
            if current.is_none() && new.is_none() {
                return Ok(false);
            }
            if db.change_version(key, current, new, options)? {
                return Ok(current.is_some());
            }
        }
        Err(crate::error::Error::Conflict { attempts: ATTEMPTS_MAX }.into())
    }
}

/// Returns the entity tag of a version.
pub(super) fn entity_tag(version: Version) -> HeaderValue {
    // Digits and quotes are always a valid header.
    HeaderValue::from_str(&format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Returns whether a header has exactly this entity tag.
pub(super) fn is_tag(header: &HeaderValue, version: Version) -> bool {
    header == entity_tag(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(name: &HeaderName, values: &[&'static str]) -> Result<Conditions, ApiFailure> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Conditions::read(&headers)
    }

    #[test]
    fn tags_are_compared_with_the_version() {
        let [seven, nine] = [7, 9].map(|number| Some(Version::from(number)));
        let if_match = |values: &[&'static str]| conditions(&IF_MATCH, values).unwrap();
        assert_eq!(if_match(&["\"7\""]).verdict(seven), Verdict::Holds);
        assert_eq!(if_match(&["\"7\", \"9\""]).verdict(nine), Verdict::Holds);
        assert_eq!(if_match(&["\"7\"", "\"9\""]).verdict(nine), Verdict::Holds);
        assert_eq!(if_match(&["\"7\""]).verdict(nine), Verdict::Differs);
        assert_eq!(if_match(&["\"other\""]).verdict(seven), Verdict::Differs);
        assert_eq!(if_match(&["\"7\""]).verdict(None), Verdict::Differs);
        assert_eq!(if_match(&["*"]).verdict(nine), Verdict::Holds);
        assert_eq!(if_match(&["*"]).verdict(None), Verdict::Differs);
        let unless = |values: &[&'static str]| conditions(&IF_NONE_MATCH, values).unwrap();
        assert_eq!(unless(&["*"]).verdict(None), Verdict::Holds);
        assert_eq!(unless(&["*"]).verdict(seven), Verdict::Same);
        assert_eq!(unless(&["W/\"7\""]).verdict(seven), Verdict::Same);
        assert_eq!(unless(&["\"7\""]).verdict(nine), Verdict::Holds);
        // A comma may be a part of a tag, and elements of a list may be empty.
        assert_eq!(unless(&["\"a,b\""]).verdict(seven), Verdict::Holds);
        assert_eq!(unless(&["\"a,b\",W/\"7\""]).verdict(seven), Verdict::Same);
        assert_eq!(if_match(&["\"7\","]).verdict(seven), Verdict::Holds);
        assert_eq!(if_match(&[" ,\"9\" ,\t, \"7\",", ""]).verdict(seven), Verdict::Holds);
        // A tag is a text, and no number.
        for other in ["\"007\"", "\"+7\"", "\" 7\"", "\"\""] {
            assert_eq!(if_match(&[other]).verdict(seven), Verdict::Differs, "{other}");
        }
        assert_eq!(if_match(&["\"\u{e9}\""]).verdict(seven), Verdict::Differs);
    }

    #[test]
    fn what_is_no_tag_is_refused() {
        for value in ["7", "\"7", "", ",", "\"7\" \"9\"", "\"7\"x", "w/\"7\"", "\"7\",9"] {
            assert!(conditions(&IF_MATCH, &[value]).is_err(), "{value}");
        }
        assert!(Conditions::read(&HeaderMap::new()).unwrap().is_empty());
    }
}
