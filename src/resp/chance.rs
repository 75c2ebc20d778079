//! Random numbers.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Returns a random number.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A sequence of numbers that is the same wherever it begins with the same seed.
#[derive(Debug, Clone)]
pub(crate) struct SharedChance {
    seed: u64,
    drawn: u64,
}

impl SharedChance {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// Returns the next number.
    pub(super) fn draw(&mut self) -> u64 {
        self.drawn += 1;
        xxh3_64_with_seed(&self.drawn.to_be_bytes(), self.seed)
    }
}
