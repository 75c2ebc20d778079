//! Writing segments: the active one, and how its bytes reach the file.

pub(crate) mod active;
pub(crate) mod draft;
pub(crate) mod room;
pub(crate) mod sink;
