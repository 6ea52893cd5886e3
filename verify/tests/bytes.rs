//! The programs of the fuzzer, made from a seed: for machines without the fuzzer.
//!
//! `WORKCREW_SECONDS` sets how long they run; `WORKCREW_SEED` repeats the bytes of one seed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::env;
use std::time::Instant;

use workcrew_verify::bytes;
use workcrew_verify::rng::{Rng, asked_seed, fresh_seed};

fn drive(name: &str, length: usize, target: fn(&[u8]) -> Result<(), String>) {
    let seconds = env::var("WORKCREW_SECONDS").map_or(1.0, |text| text.parse().unwrap());
    let (mut seeds, since, mut programs) = (Rng::new(fresh_seed()), Instant::now(), 0);
    while since.elapsed().as_secs_f64() < seconds {
        let seed = asked_seed().unwrap_or_else(|| seeds.number());
        let mut rng = Rng::new(seed);
        let program: Vec<u8> = (0..rng.below(length)).map(|_| rng.number() as u8).collect();
        if let Err(difference) = target(&program) {
            panic!("{difference}; again: WORKCREW_SEED={seed} cargo test -p workcrew-verify --test bytes {name}");
        }
        programs += 1;
    }
    println!("{programs} programs in {seconds} s ({name})");
}

#[test]
fn programs_of_bytes_for_a_pool() {
    drive("pool", 182, bytes::run_pool);
}

#[test]
fn programs_of_bytes_for_a_group() {
    drive("group", 125, bytes::run_group);
}

#[test]
fn durations_of_bytes() {
    drive("durations", 96, bytes::run_deadlines);
}
