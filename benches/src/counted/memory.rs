//! Bytes on the heap: of a pool, of a slot of its queue, of a queued job. Stacks do not count.

use std::mem;
use std::thread;
use std::time::Duration;

use workcrew::WorkerPool;

use super::wedge::BlockedWorkers;
use super::{Counted, job, ours, theirs};
use crate::allocations;
use crate::pools::{self, Job};

const WORKERS: usize = 2;
/// The capacity in the targets.
const CAPACITY: usize = 1_024;
const LARGE_CAPACITY: usize = 131_072;
const QUEUED_JOBS: usize = 100_000;
/// Long enough for idle workers to sleep.
const REST: Duration = Duration::from_millis(50);
const UNIT: &str = "bytes";

pub(super) fn ours_all() -> [Counted; 3] {
    let (_, small) = grown(|| idle_pool(CAPACITY));
    let (pool, large) = grown(|| idle_pool(LARGE_CAPACITY));
    let slots = (LARGE_CAPACITY - CAPACITY) as f64;
    let queued = queued(
        |job| pool.execute(job).expect("the pool is open"),
        |number| {
            pool.execute(job::<1>(number)).expect("the pool is open");
        },
    );
    [
        ours("bytes_of_a_slot", (large - small) / slots, 64.0, UNIT),
        ours("bytes_of_a_pool", small, 81_920.0, UNIT),
        ours("bytes_of_a_queued_job", queued, 0.0, UNIT),
    ]
}

fn idle_pool(capacity: usize) -> WorkerPool {
    let pool = WorkerPool::builder().workers(WORKERS).queue_capacity(capacity).build().expect("its threads start");
    rested(pool, |pool, job| pool.execute(job).expect("the pool is open"))
}

/// Returns the pool after all its workers have worked and sleep: some allocate when they sleep.
fn rested<P>(pool: P, execute: impl Fn(&P, Job)) -> P {
    drop(BlockedWorkers::new(WORKERS, |job| execute(&pool, job)));
    thread::sleep(REST);
    pool
}

/// Returns what `make` returns, and how much the heap has grown.
fn grown<T>(make: impl FnOnce() -> T) -> (T, f64) {
    let before = allocations::bytes();
    let made = make();
    (made, allocations::bytes() as f64 - before as f64)
}

/// Returns the bytes of a job that captures a word. A slot that exists before does not count.
fn queued(execute: impl Fn(Job), submit: impl Fn(usize)) -> f64 {
    let wedge = BlockedWorkers::new(WORKERS, &execute);
    let before = allocations::bytes();
    (0..QUEUED_JOBS).for_each(submit);
    let after = allocations::bytes();
    drop(wedge);
    // When these workers are blocked again, all queued jobs have ended and freed their memory.
    drop(BlockedWorkers::new(WORKERS, execute));
    (after as f64 - before as f64) / QUEUED_JOBS as f64
}

pub(super) fn theirs_all() -> impl Iterator<Item = Counted> {
    let job = job::<1>;
    let (threadpool, of_threadpool) =
        grown(|| rested(threadpool::ThreadPool::new(WORKERS), threadpool::ThreadPool::execute));
    let (tokio, of_tokio) = grown(|| rested(pools::tokio(WORKERS), |pool, job| drop(pool.spawn_blocking(job))));
    let (rayon, of_rayon) = grown(|| rested(pools::rayon(WORKERS), rayon::ThreadPool::spawn));
    let idle = [
        theirs("threadpool: idle pool", of_threadpool, UNIT),
        theirs("tokio: idle pool", of_tokio, UNIT),
        theirs("rayon: idle pool", of_rayon, UNIT),
    ];
    let futures = pools::futures(WORKERS);
    let affinitypool = affinitypool::Threadpool::new(WORKERS);
    let rusty_pool = rusty_pool::Builder::new().core_size(WORKERS).max_size(WORKERS).build();
    // Dropping the future would cancel the job.
    let forget = |future| mem::forget(future);
    let queued = [
        theirs("rayon: queued job", queued(|job| rayon.spawn(job), |number| rayon.spawn(job(number))), UNIT),
        theirs(
            "threadpool: queued job",
            queued(|job| threadpool.execute(job), |number| threadpool.execute(job(number))),
            UNIT,
        ),
        theirs(
            "tokio: queued job",
            queued(|job| drop(tokio.spawn_blocking(job)), |number| drop(tokio.spawn_blocking(job(number)))),
            UNIT,
        ),
        theirs(
            "futures: queued job",
            queued(
                |job| futures.spawn_ok(async { job() }),
                |number| {
                    let job = job(number);
                    futures.spawn_ok(async move { job() });
                },
            ),
            UNIT,
        ),
        theirs(
            "affinitypool: queued job",
            queued(|job| mem::forget(affinitypool.spawn(job)), |number| forget(affinitypool.spawn(job(number)))),
            UNIT,
        ),
        theirs(
            "rusty_pool: queued job",
            queued(|job| rusty_pool.execute(job), |number| rusty_pool.execute(job(number))),
            UNIT,
        ),
    ];
    idle.into_iter().chain(queued)
}
