//! Random choices that can be repeated: every choice of a check comes from one seed.
#![allow(dead_code, unreachable_pub, clippy::must_use_candidate, reason = "each check uses its own part")]

use std::env;

/// A generator of random numbers, which its seed determines.
#[derive(Clone, Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// Creates a generator that the seed determines.
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Returns any number.
    pub fn number(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// Returns a number below `bound`.
    ///
    /// # Panics
    ///
    /// If `bound` is zero.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.usize(..bound)
    }

    /// Returns `true` once in `times` calls, on average.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Returns one of the items.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Returns another generator, which this one determines.
    pub fn fork(&mut self) -> Self {
        Self(self.0.fork())
    }
}

/// Returns the seed that the user set in `WORKCREW_SEED`.
pub fn asked_seed() -> Option<u64> {
    let text = env::var("WORKCREW_SEED").ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("WORKCREW_SEED is {text:?}, not a number")))
}

/// Returns a new seed, short enough to be typed.
pub fn fresh_seed() -> u64 {
    fastrand::u64(..1 << 48)
}
