//! Fire and forget: what does an empty job cost?
//!
//! There are two more candidates: rayon's scope, which is waited for by its own means, and a boxed
//! closure that the producer calls itself.

use std::hint::black_box;

use super::batches::Batch;
use super::empty;
use crate::candidate::{Candidate, Scale, Workload, timed};
use crate::pools::{Job, Pools};

/// Jobs in a sample.
const JOBS: usize = 200_000;

pub(super) fn one_producer(pools: &'static Pools, scale: Scale) -> Workload {
    let jobs = scale.of(JOBS);
    let mut candidates = Batch { jobs, producers: 1, make_job: empty }.candidates(pools);
    candidates.push(Candidate::peer("rayon_in_place_scope", move || {
        timed(1, jobs, || {
            let spawn = |scope: &rayon::Scope<'_>, number| scope.spawn(move |_| empty(number)());
            pools.rayon.in_place_scope(|scope| (0..jobs).for_each(|number| spawn(scope, number)));
        })
    }));
    candidates.push(Candidate::limit("no_pool", move || {
        timed(1, jobs, || (0..jobs).for_each(|number| black_box(Box::new(empty(number)) as Job)()))
    }));
    Workload {
        question: "What does an empty job cost, when one producer submits 200,000 and waits until all have run?",
        candidates,
    }
}

pub(super) fn four_producers(pools: &'static Pools, scale: Scale) -> Workload {
    Workload {
        question: "What does an empty job cost, when four producers submit 50,000 each?",
        candidates: Batch { jobs: scale.of(JOBS), producers: 4, make_job: empty }.candidates(pools),
    }
}
