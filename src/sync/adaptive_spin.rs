//! Whether it pays to wait a little before the dear way to wait, learnt from how it went lately.

/// Tells when to try what may be in vain. After each try in vain twice as many are skipped, and one more, up to `MAX`; after
/// one that paid, none is. So what never pays costs next to nothing, and what always pays is always had.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AdaptiveSpin<const MAX: u32> {
    /// How many tries are still to be skipped.
    remaining: u32,
    /// How many were skipped after the last try in vain.
    penalty: u32,
}

impl<const MAX: u32> AdaptiveSpin<MAX> {
    pub(crate) const NEW: Self = Self { remaining: 0, penalty: 0 };

    /// Whether to try this time.
    #[inline]
    pub(crate) fn should_spin(&mut self) -> bool {
        let skips = self.remaining > 0;
        self.remaining -= u32::from(skips);
        !skips
    }

    /// Learns whether the try paid.
    #[inline]
    pub(crate) fn record(&mut self, paid: bool) {
        self.penalty = if paid { 0 } else { MAX.min(2 * self.penalty + 1) };
        self.remaining = self.penalty;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_in_vain_are_skipped_ever_longer_until_one_pays() {
        let mut spinning = AdaptiveSpin::<15>::NEW;
        let mut skipped_after = |paid| {
            spinning.record(paid);
            (0..).take_while(|_| !spinning.should_spin()).count()
        };
        assert_eq!([false; 6].map(&mut skipped_after), [1, 3, 7, 15, 15, 15]);
        assert_eq!([true, false, true, true, false, false].map(&mut skipped_after), [0, 1, 0, 0, 1, 3]);
    }
}
