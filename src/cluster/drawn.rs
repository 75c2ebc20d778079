//! What nodes draw at random. In unit tests, a seed decides it.

#[cfg(test)]
pub(super) use super::tests::chance::{
    SeededRuntime as Runtime, draw as number, draw_unique as unique,
};
// What openraft runs on, which draws too.
#[cfg(not(test))]
pub(super) use openraft::TokioRuntime as Runtime;

/// Returns a number.
#[cfg(not(test))]
pub(super) fn number() -> u64 {
    crate::resp::chance()
}

/// Returns a number that nothing else has.
#[cfg(not(test))]
pub(super) fn unique() -> u128 {
    uuid::Uuid::new_v4().as_u128()
}
