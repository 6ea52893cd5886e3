//! Chance that can be had again: everything random in a check comes from one seed.
#![allow(dead_code, unreachable_pub, clippy::must_use_candidate, reason = "each check uses its own part")]

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

/// A generator of numbers that its seed determines (splitmix64).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Dice that the seed determines.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    /// True once in so many rolls.
    pub fn one_in(&mut self, rolls: usize) -> bool {
        self.below(rolls) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Other dice, determined by these.
    pub fn fork(&mut self) -> Self {
        Self(self.roll())
    }
}

/// The seed that the user asked for, in `WORKCREW_SEED`.
pub fn asked_seed() -> Option<u64> {
    let text = env::var("WORKCREW_SEED").ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("WORKCREW_SEED is {text:?}, not a number")))
}

/// A seed that nobody has asked for.
pub fn fresh_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Rng::new(since.as_nanos() as u64).roll() >> 16
}
