//! Reading segments: lendable bytes, single entries, and walks over all entries.

pub(crate) mod map;
pub(crate) mod mapping;
pub(crate) mod on_demand;
pub(crate) mod pick;
pub(crate) mod resync;
pub(crate) mod scan;
pub(crate) mod stored;
pub(crate) mod walk;
