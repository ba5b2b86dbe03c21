//! Random numbers that a seed decides, today and in ten years.

use std::time::Duration;

/// SplitMix64: <https://doi.org/10.1145/2714064.2660195>.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Less than the bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Less than so many milliseconds; short times are as likely as long ones.
    pub(crate) fn time(&mut self, millis: u64) -> Duration {
        let bound = millis >> self.below(12);
        Duration::from_millis(self.below(bound.max(1)))
    }
}
