//! Whether it pays to wait a little before the dear way to wait, learnt from how it went lately.

/// Tells when to try what may be in vain. After each try in vain twice as many are skipped, and one more, up to `MOST`; after
/// one that paid, none is. So what never pays costs next to nothing, and what always pays is always had.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AdaptiveSpin<const MOST: u32> {
    /// How many tries are still to be skipped.
    left: u32,
    /// How many were skipped after the last try in vain.
    skipped: u32,
}

impl<const MOST: u32> AdaptiveSpin<MOST> {
    pub(crate) const NEW: Self = Self { left: 0, skipped: 0 };

    /// Whether to try this time.
    #[inline]
    pub(crate) fn tries(&mut self) -> bool {
        let skips = self.left > 0;
        self.left -= u32::from(skips);
        !skips
    }

    /// Learns whether the try paid.
    #[inline]
    pub(crate) fn learn(&mut self, paid: bool) {
        self.skipped = if paid { 0 } else { MOST.min(2 * self.skipped + 1) };
        self.left = self.skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_in_vain_are_skipped_ever_longer_until_one_pays() {
        let mut hope = AdaptiveSpin::<15>::NEW;
        let mut skipped_after = |paid| {
            hope.learn(paid);
            (0..).take_while(|_| !hope.tries()).count()
        };
        assert_eq!([false; 6].map(&mut skipped_after), [1, 3, 7, 15, 15, 15]);
        assert_eq!([true, false, true, true, false, false].map(&mut skipped_after), [0, 1, 0, 0, 1, 3]);
    }
}
