//! Recorded histories, each searched for an order that explains it.
//!
//! `WORKCREW_HISTORIES` sets how many; `WORKCREW_SEED` repeats those of one seed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::env;

use workcrew_verify::history::{is_linearizable, record};
use workcrew_verify::rng::{Rng, asked_seed, fresh_seed};

#[test]
fn four_threads_see_a_pool_that_does_one_thing_at_a_time() {
    let histories = env::var("WORKCREW_HISTORIES").map_or(2_000, |text| text.parse().unwrap());
    let mut seeds = Rng::new(fresh_seed());
    let mut calls = 0;
    for _ in 0..histories {
        let seed = asked_seed().unwrap_or_else(|| seeds.number());
        let events = record(seed);
        calls += events.len();
        let again = format!("WORKCREW_SEED={seed} cargo test -p workcrew-verify --test histories");
        assert!(is_linearizable(&events), "no order explains this history; again: {again}\n{events:#?}");
    }
    println!("{histories} histories, {calls} calls");
}
