//! Writing segments: the active one, the outputs of merges and salvages, and how bytes reach the
//! file.

pub(crate) mod active;
pub(crate) mod draft;
pub(crate) mod output;
pub(crate) mod room;
pub(crate) mod sink;
mod usage;
