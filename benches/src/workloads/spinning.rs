//! Jobs that compute: how much of the workers' time is left to them?
//!
//! The limit is a static split: as many threads as workers, with an equal part of the jobs for
//! each.

use std::env;
use std::hint::black_box;
use std::time::{Duration, Instant};

use super::batches::Batch;
use crate::candidate::{Candidate, Scale, Workload};
use crate::pools::Pools;

/// The time that the jobs of a sample take together.
const WORK: Duration = Duration::from_millis(100);
/// Passes the number of steps in a microsecond to other processes.
pub(crate) const STEPS_VARIABLE: &str = "BENCH_STEPS_PER_MICROSECOND";
/// Steps of a calibration, which takes some milliseconds.
const CALIBRATION: u32 = 4_000_000;

pub(super) fn five_microseconds(pools: &'static Pools, scale: Scale) -> Workload {
    Workload {
        question: "How long do 20,000 jobs of 5 µs take, for each job?",
        candidates: candidates(pools, scale, 5),
    }
}

pub(super) fn fifty_microseconds(pools: &'static Pools, scale: Scale) -> Workload {
    Workload {
        question: "How long do 2,000 jobs of 50 µs take, for each job?",
        candidates: candidates(pools, scale, 50),
    }
}

fn candidates(pools: &'static Pools, scale: Scale, microseconds: u32) -> Vec<Candidate> {
    let jobs = scale.of(WORK.as_micros() as usize / microseconds as usize);
    let steps = steps_per_microsecond() * microseconds;
    let batch = Batch { jobs, producers: 1, make_job: move |_| move || work(steps) };
    let mut candidates = batch.candidates(pools);
    candidates.push(batch.static_split(pools));
    candidates
}

/// Computes without memory or parallelism: each step needs the one before.
fn work(steps: u32) {
    let mut state = 1_u64;
    for _ in 0..steps {
        state = black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

/// Returns the number of steps in a microsecond. The fastest of some tries counts.
pub(crate) fn steps_per_microsecond() -> u32 {
    if let Some(steps) = env::var(STEPS_VARIABLE).ok().and_then(|steps| steps.parse().ok()) {
        return steps;
    }
    let attempt = |_| {
        let started = Instant::now();
        work(CALIBRATION);
        started.elapsed()
    };
    let fastest = (0..5).map(attempt).min().expect("there was a try");
    (f64::from(CALIBRATION) / fastest.as_secs_f64() / 1e6).round() as u32
}
