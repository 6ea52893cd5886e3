//! Batches of jobs: their submission, and one wait for the whole batch.
//!
//! workcrew, threadpool and `rusty_pool` are waited for by their own means. rayon's `spawn`,
//! tokio's `spawn_blocking`, futures' `spawn_ok` and the loop have only means that add to each job,
//! so a barrier follows their last job, which is cheaper for them. affinitypool cancels a task
//! whose future is dropped, so its futures are kept and awaited.

use std::thread;

use futures::executor::block_on;
use workcrew::WorkerPool;

use crate::candidate::{Candidate, timed};
use crate::pools::Pools;
use crate::waiting::wait_for_workers;

/// A batch, the same for each pool. A sample is one batch.
#[derive(Clone, Copy)]
pub(super) struct Batch<M> {
    pub(super) jobs: usize,
    /// The number of threads that submit, the caller included.
    pub(super) producers: usize,
    /// Makes the job with a number.
    pub(super) make_job: M,
}

impl<M, J> Batch<M>
where
    M: Fn(usize) -> J + Copy + Sync + Send + 'static,
    J: FnOnce() + Send + 'static,
{
    pub(super) fn candidates(self, pools: &'static Pools) -> Vec<Candidate> {
        let Self { jobs, producers, make_job } = self;
        vec![
            Candidate::workcrew("workcrew", move || timed(1, jobs, || self.execute(&pools.workcrew))),
            Candidate::workcrew("workcrew_caller_runs", move || {
                timed(1, jobs, || self.execute(&pools.workcrew_caller_runs))
            }),
            Candidate::peer("rayon_spawn", move || {
                timed(1, jobs, || {
                    self.produce(|number| pools.rayon.spawn(make_job(number)));
                    wait_for_workers(pools.workers, |job| pools.rayon.spawn(job));
                })
            }),
            Candidate::peer("threadpool", move || {
                timed(1, jobs, || {
                    self.produce(|number| pools.threadpool.execute(make_job(number)));
                    pools.threadpool.join();
                })
            }),
            Candidate::peer("rusty_pool", move || {
                timed(1, jobs, || {
                    self.produce(|number| pools.rusty_pool.execute(make_job(number)));
                    pools.rusty_pool.join();
                })
            }),
            Candidate::peer("tokio_spawn_blocking", move || {
                timed(1, jobs, || {
                    self.produce(|number| drop(pools.tokio.spawn_blocking(make_job(number))));
                    wait_for_workers(pools.workers, |job| drop(pools.tokio.spawn_blocking(job)));
                })
            }),
            Candidate::peer("futures_spawn_ok", move || {
                timed(1, jobs, || {
                    self.produce(|number| {
                        let job = make_job(number);
                        pools.futures.spawn_ok(async { job() });
                    });
                    wait_for_workers(pools.workers, |job| pools.futures.spawn_ok(async { job() }));
                })
            }),
            Candidate::peer("affinitypool", move || {
                timed(1, jobs, || {
                    on_each(producers, || {
                        let spawn = |number| pools.affinitypool.spawn(make_job(number));
                        let futures: Vec<_> = (0..jobs / producers).map(spawn).collect();
                        futures.into_iter().for_each(block_on);
                    });
                })
            }),
            Candidate::limit("crossbeam_loop", move || {
                timed(1, jobs, || {
                    self.produce(|number| pools.channel_loop.execute(make_job(number)));
                    wait_for_workers(pools.workers, |job| pools.channel_loop.execute(job));
                })
            }),
        ]
    }

    /// Starts as many threads as there are workers, with an equal part of the batch for each.
    pub(super) fn static_split(self, pools: &'static Pools) -> Candidate {
        let share = self.jobs / pools.workers;
        let run_share = move || (0..share).for_each(|number| (self.make_job)(number)());
        Candidate::limit("static_split", move || {
            timed(1, share * pools.workers, || {
                thread::scope(|scope| (0..pools.workers).for_each(|_| drop(scope.spawn(run_share))));
            })
        })
    }

    pub(super) fn execute(self, pool: &WorkerPool) {
        self.produce(|number| pool.execute((self.make_job)(number)).expect("the pool is open"));
        pool.wait_idle();
    }

    /// Submits an equal part of the jobs from each producer.
    fn produce(self, submit: impl Fn(usize) + Sync) {
        on_each(self.producers, || (0..self.jobs / self.producers).for_each(&submit));
    }
}

/// Calls `call` on this number of threads, the calling thread included.
fn on_each(threads: usize, call: impl Fn() + Sync) {
    if threads == 1 {
        return call();
    }
    thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(&call)));
        call();
    });
}
