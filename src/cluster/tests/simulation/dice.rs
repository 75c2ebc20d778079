//! Chance, as a seed has it.

/// Numbers that look random and are the same in each run with the same seed.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// Begins with a seed and the number of what draws from it.
    pub(super) fn new(seed: u64, of: u64) -> Self {
        let mut dice =
            Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ of.wrapping_mul(0xD1B5_4A32_D192_ED03));
        dice.0 |= 1;
        for _ in 0..4 {
            dice.below(1);
        }
        dice
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    /// Draws a number below a limit.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Draws one of several.
    pub(super) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }
}
