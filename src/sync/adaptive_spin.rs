//! Adaptive spinning: decides from recent results whether to spin before blocking.

/// A back-off from spinning without success.
///
/// After each failure it skips 1, 3, 7, … attempts, up to `MAX`; a success resets it. So spinning
/// that never succeeds costs next to nothing, and spinning that always succeeds is never skipped.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AdaptiveSpin<const MAX: u32> {
    /// The number of attempts that are still to be skipped.
    remaining: u32,
    /// The number of attempts that are skipped after the last failure; zero after a success.
    penalty: u32,
}

impl<const MAX: u32> AdaptiveSpin<MAX> {
    pub(crate) const NEW: Self = Self { remaining: 0, penalty: 0 };

    /// Returns whether to spin this time. The caller then calls [`record`](Self::record).
    #[inline]
    pub(crate) fn should_spin(&mut self) -> bool {
        let skips = self.remaining > 0;
        self.remaining -= u32::from(skips);
        !skips
    }

    /// Records whether spinning succeeded.
    #[inline]
    pub(crate) fn record(&mut self, succeeded: bool) {
        self.penalty = if succeeded { 0 } else { MAX.min(2 * self.penalty + 1) };
        self.remaining = self.penalty;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_skip_more_and_more_attempts_until_a_success() {
        let mut spin = AdaptiveSpin::<15>::NEW;
        let mut skipped_after = |succeeded| {
            spin.record(succeeded);
            (0..).take_while(|_| !spin.should_spin()).count()
        };
        assert_eq!([false; 6].map(&mut skipped_after), [1, 3, 7, 15, 15, 15]);
        assert_eq!([true, false, true, true, false, false].map(&mut skipped_after), [0, 1, 0, 0, 1, 3]);
    }
}
