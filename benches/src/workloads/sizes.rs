//! Does the cost of a job depend on the number of jobs, or of workers?
//!
//! workcrew alone, with the jobs of [`submits`](super::submits).

use workcrew::Overflow;

use super::batches::Batch;
use super::empty;
use crate::candidate::{Candidate, Scale, Workload, timed};
use crate::pools::{self, Pools};

const JOBS: [(&str, usize); 4] =
    [("jobs_100000", 100_000), ("jobs_10000", 10_000), ("jobs_1000000", 1_000_000), ("jobs_10000000", 10_000_000)];
/// The least number of jobs in a sample.
const JOBS_IN_A_TURN: usize = 200_000;
const WORKERS: [(&str, usize); 7] = [
    ("workers_2", 2),
    ("workers_1", 1),
    ("workers_4", 4),
    ("workers_8", 8),
    ("workers_16", 16),
    ("workers_32", 32),
    ("workers_64", 64),
];

pub(super) fn jobs(pools: &'static Pools, scale: Scale) -> Workload {
    let candidate = |(name, jobs)| {
        let batch = Batch { jobs: scale.of(jobs), producers: 1, make_job: empty };
        let batches = (JOBS_IN_A_TURN / jobs).max(1);
        Candidate::workcrew(name, move || timed(batches, batch.jobs, || batch.execute(&pools.workcrew)))
    };
    Workload {
        question: "Does an empty job cost the same, whether 10,000 or 10,000,000 are submitted?",
        candidates: JOBS.into_iter().map(candidate).collect(),
    }
}

pub(super) fn workers(_: &'static Pools, scale: Scale) -> Workload {
    let batch = Batch { jobs: scale.of(JOBS_IN_A_TURN), producers: 1, make_job: empty };
    let candidate = |(name, workers)| {
        let pool = pools::workcrew(workers, Overflow::Block);
        Candidate::workcrew(name, move || timed(1, batch.jobs, || batch.execute(&pool)))
    };
    Workload {
        question: "Does an empty job cost the same, whether there is 1 worker or 64?",
        candidates: WORKERS.into_iter().map(candidate).collect(),
    }
}
