//! Keys in order, page by page, from both ends.
//!
//! What lies between the pages that were read from either end is read when it is needed. A page is
//! of one moment; the whole listing is not.

use std::collections::VecDeque;
use std::fmt;
use std::fmt::Write as _;
use std::iter::FusedIterator;
use std::ops::Bound;

use super::call::RemoteCall;
use super::json::ListedPage;
use super::{Client, ClientError, ClientResult};
use crate::dialect;
use crate::store::{KeyRange, prefix_bounds};
use crate::value::Value;

/// Keys and their values in order, from [`Client::range`] and similar methods.
///
/// It reads them page by page, and values that are too large for a page one by one. An error ends
/// it.
#[derive(Debug)]
#[must_use = "an iterator reads nothing before its first step"]
pub struct RemotePairs(Pager);

/// Keys in order, from [`Client::range_keys`] and similar methods.
///
/// It reads them page by page. An error ends it.
#[derive(Debug)]
#[must_use = "an iterator reads nothing before its first step"]
pub struct RemoteKeys(Pager);

/// A key, and its value if values were asked for.
type ListedPair = (Value, Option<Value>);

/// Where the part of a range that was not read yet begins.
#[derive(Debug)]
enum LowEnd {
    First,
    At(Vec<u8>),
    After(Vec<u8>),
}

/// Reads the pages of a range from both ends.
struct Pager {
    client: Client,
    with_values: bool,
    /// What was read from the front, the gap that was not read, and what was read from the back.
    front: VecDeque<ListedPair>,
    low: LowEnd,
    /// The key before which the gap ends.
    high: Option<Vec<u8>>,
    is_gap_closed: bool,
    back: VecDeque<ListedPair>,
}

impl Client {
    /// Returns an iterator over the keys in a range and their values, in the order of the keys'
    /// bytes. It can be read from both ends, and reads page by page: each page is of one moment,
    /// the listing is not.
    pub fn range(&self, bounds: impl KeyRange) -> RemotePairs {
        let (start, end) = bounds.into_bounds();
        RemotePairs(Pager::new(self, start, end, true))
    }

    /// Returns an iterator over the keys in a range, in order; see [`range`](Self::range).
    pub fn range_keys(&self, bounds: impl KeyRange) -> RemoteKeys {
        let (start, end) = bounds.into_bounds();
        RemoteKeys(Pager::new(self, start, end, false))
    }

    /// Returns an iterator over the keys with a prefix and their values, in order; see
    /// [`range`](Self::range).
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> RemotePairs {
        let bounds = prefix_bounds(prefix.as_ref());
        RemotePairs(Pager::new(self, bounds.start, bounds.end, true))
    }

    /// Returns an iterator over the keys with a prefix, in order; see [`range`](Self::range).
    pub fn prefix_keys(&self, prefix: impl AsRef<[u8]>) -> RemoteKeys {
        let bounds = prefix_bounds(prefix.as_ref());
        RemoteKeys(Pager::new(self, bounds.start, bounds.end, false))
    }

    /// Returns an iterator over all keys and their values, in order; see [`range`](Self::range).
    pub fn iter(&self) -> RemotePairs {
        self.range(..)
    }

    /// Returns an iterator over all keys, in order; see [`range`](Self::range).
    pub fn keys(&self) -> RemoteKeys {
        self.range_keys(..)
    }

    /// Returns all keys, in order. They have to fit in memory; [`keys`](Self::keys) needs little.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn list_keys(&self) -> Result<Vec<Value>, ClientError> {
        self.keys().collect()
    }
}

impl IntoIterator for &Client {
    type Item = Result<(Value, Value), ClientError>;
    type IntoIter = RemotePairs;

    fn into_iter(self) -> RemotePairs {
        self.iter()
    }
}

impl Pager {
    fn new(client: &Client, start: Bound<Vec<u8>>, end: Bound<Vec<u8>>, with_values: bool) -> Self {
        let low = match start {
            Bound::Unbounded => LowEnd::First,
            Bound::Included(key) if key.is_empty() => LowEnd::First,
            Bound::Included(key) => LowEnd::At(key),
            Bound::Excluded(key) => LowEnd::After(key),
        };
        let high = match end {
            Bound::Unbounded => None,
            Bound::Excluded(key) => Some(key),
            // The next key after this one is this one and a zero.
            Bound::Included(mut key) => {
                key.push(0);
                Some(key)
            }
        };
        let (client, front, back) = (client.clone(), VecDeque::new(), VecDeque::new());
        Self { client, with_values, front, low, high, is_gap_closed: false, back }
    }

    fn next(&mut self) -> Option<ClientResult<ListedPair>> {
        loop {
            while self.front.is_empty() && !self.is_gap_closed {
                if let Err(error) = self.read(false) {
                    return Some(Err(self.end(error)));
                }
            }
            let pair = self.front.pop_front().or_else(|| self.back.pop_front())?;
            if let Some(pair) = self.with_value(pair).transpose() {
                return Some(pair);
            }
        }
    }

    fn next_back(&mut self) -> Option<ClientResult<ListedPair>> {
        loop {
            while self.back.is_empty() && !self.is_gap_closed {
                if let Err(error) = self.read(true) {
                    return Some(Err(self.end(error)));
                }
            }
            let pair = self.back.pop_back().or_else(|| self.front.pop_back())?;
            if let Some(pair) = self.with_value(pair).transpose() {
                return Some(pair);
            }
        }
    }

    /// Returns a pair with the value that its page has left out. Returns `None` if the key was
    /// removed since.
    fn with_value(&mut self, (key, value): ListedPair) -> ClientResult<Option<ListedPair>> {
        if !self.with_values || value.is_some() {
            return Ok(Some((key, value)));
        }
        match self.client.get(&key) {
            Ok(value) => Ok(value.map(|value| (key, Some(value)))),
            Err(error) => Err(self.end(error)),
        }
    }

    fn end(&mut self, error: ClientError) -> ClientError {
        self.is_gap_closed = true;
        self.front.clear();
        self.back.clear();
        error
    }

    /// Reads a page from one end of the gap.
    fn read(&mut self, is_backward: bool) -> ClientResult<()> {
        let answer = self.client.call(&RemoteCall::new("GET", self.path(is_backward), &[200]))?;
        let invalid = |reason: String| self.client.invalid(&answer, reason);
        let page: ListedPage =
            serde_json::from_slice(&answer.body).map_err(|error| invalid(error.to_string()))?;
        let mut read = Vec::new();
        for field in page.keys {
            let is_left_out = field.value_size.is_some();
            let (key, value) = field.into_pair().map_err(invalid)?;
            if self.with_values && value.is_none() && !is_left_out {
                return Err(invalid("a value is missing".into()));
            }
            read.push((key, value));
        }
        // Otherwise a server that repeats itself would never be done.
        if !read.iter().all(|(key, _)| self.is_in_gap(key)) {
            return Err(invalid("a key lies outside of the page".into()));
        }
        self.is_gap_closed = page.next.is_none() || read.is_empty();
        if let Some((last, _)) = read.last() {
            if is_backward {
                self.high = Some(last.to_vec());
            } else {
                self.low = LowEnd::After(last.to_vec());
            }
        }
        if is_backward {
            for pair in read {
                self.back.push_front(pair);
            }
        } else {
            self.front.extend(read);
        }
        Ok(())
    }

    fn is_in_gap(&self, key: &[u8]) -> bool {
        let is_above = match &self.low {
            LowEnd::First => true,
            LowEnd::At(low) => key >= low.as_slice(),
            LowEnd::After(low) => key > low.as_slice(),
        };
        is_above && self.high.as_ref().is_none_or(|high| key < high.as_slice())
    }

    /// Returns the path of the next page. Writing to a string never fails.
    fn path(&self, is_backward: bool) -> String {
        let mut path = format!("/v1/keys?limit={}", self.client.transport.options.page_len);
        let low = match &self.low {
            LowEnd::First => None,
            LowEnd::At(key) => Some(("from", key)),
            LowEnd::After(key) => Some(("after", key)),
        };
        let high = self.high.as_ref().map(|key| ("before", key));
        for (name, key) in low.into_iter().chain(high) {
            let _ = write!(path, "&{name}={}", dialect::percent_encoded(key));
        }
        for (name, is_set) in [("reverse", is_backward), ("values", self.with_values)] {
            if is_set {
                let _ = write!(path, "&{name}=true");
            }
        }
        path
    }
}

impl fmt::Debug for Pager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pager")
            .field("client", &self.client)
            .field("low", &self.low)
            .field("high", &self.high)
            .finish_non_exhaustive()
    }
}

/// Returns the pair of a listing that has values.
fn whole((key, value): ListedPair) -> (Value, Value) {
    (key, value.unwrap_or_else(|| Vec::new().into()))
}

impl Iterator for RemotePairs {
    type Item = Result<(Value, Value), ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.next()?.map(whole))
    }
}

impl DoubleEndedIterator for RemotePairs {
    fn next_back(&mut self) -> Option<Self::Item> {
        Some(self.0.next_back()?.map(whole))
    }
}

impl FusedIterator for RemotePairs {}

impl Iterator for RemoteKeys {
    type Item = Result<Value, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.next()?.map(|(key, _)| key))
    }
}

impl DoubleEndedIterator for RemoteKeys {
    fn next_back(&mut self) -> Option<Self::Item> {
        Some(self.0.next_back()?.map(|(key, _)| key))
    }
}

impl FusedIterator for RemoteKeys {}
