//! How long to wait when the service doesn't say, and how to keep a fleet from asking all at once.

use core::time::Duration;

/// The first wait, doubled as many times as it was waited before, up to the longest.
pub(super) fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    let factor = 1_u32.checked_shl(times).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(longest)
}

/// Random extra time, a share of the wait. It only ever adds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Jitter {
    percent: u8,
    seed: u64,
}

impl Jitter {
    const MAX_PERCENT: u8 = 20;

    pub(super) fn new(percent: u8, seed: u64) -> Self {
        Self { percent: percent.min(Self::MAX_PERCENT), seed }
    }

    pub(super) fn of(&mut self, wait: Duration) -> Duration {
        let most = wait / 100 * u32::from(self.percent);
        // 16 random bits are plenty to spread a fleet.
        (most / (1 << 16)).saturating_mul(self.random_u16().into())
    }

    /// SplitMix64: <https://doi.org/10.1145/2714064.2660195>.
    fn random_u16(&mut self) -> u16 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 48) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_the_longest() {
        let seconds: [u64; 6] = core::array::from_fn(|times| {
            doubled(Duration::from_secs(2), times as u32, Duration::from_secs(30)).as_secs()
        });
        assert_eq!(seconds, [2, 4, 8, 16, 30, 30]);
        assert_eq!(
            doubled(Duration::from_secs(2), u32::MAX, Duration::from_secs(30)).as_secs(),
            30
        );
    }

    #[test]
    fn jitter_adds_up_to_a_fifth_and_differs_between_devices() {
        let wait = Duration::from_secs(10);
        let most = (0..1000).map(|seed| Jitter::new(100, seed).of(wait)).max().unwrap();
        assert!(most <= wait / 5 && most > wait / 6, "{most:?}");
        assert_ne!(Jitter::new(20, 1).of(wait), Jitter::new(20, 2).of(wait));
        assert_eq!(Jitter::new(0, 1).of(wait), Duration::ZERO);
        assert!(Jitter::new(20, 1).of(Duration::MAX) < Duration::MAX);
    }
}
