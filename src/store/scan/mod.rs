//! Operations on many keys: iterators, ordered ranges, and the deletion of ranges.

mod cursor;
pub(crate) mod delete_range;
pub(crate) mod entries;
pub(crate) mod indexing;
pub(crate) mod iter;
pub(crate) mod key_range;
pub(crate) mod ordered;
pub(crate) mod range;
