//! Allocations of an operation, from the submission until the end of the job.

use std::hint::black_box;

use futures::executor::block_on;
use workcrew::{Overflow, WorkerPool};

use super::{Counted, job, ours, theirs};
use crate::allocations;
use crate::pools::{self, ChannelLoop};

const WORKERS: usize = 2;
/// Operations in a try.
const OPERATIONS: usize = 10_000;
/// The lowest of some tries counts: in the others, memory that stays may have grown.
const TRIES: usize = 4;
const TASKS_OF_A_GROUP: usize = 1_000;
const UNIT: &str = "allocations";

pub(super) fn ours_all() -> [Counted; 9] {
    let pool = pools::workcrew(WORKERS, Overflow::Block);
    let join = || {
        let handle = pool.spawn(|| black_box(1)).expect("the pool is open");
        handle.join().expect("the task does not panic");
    };
    [
        ours("execute_1_word", execute::<1>(&pool), 0.0, UNIT),
        ours("execute_2_words", execute::<2>(&pool), 0.0, UNIT),
        ours("execute_3_words", execute::<3>(&pool), 0.0, UNIT),
        ours("execute_4_words", execute::<4>(&pool), 1.0, UNIT),
        ours("spawn_and_join", for_each(OPERATIONS, || (0..OPERATIONS).for_each(|_| join())), 1.0, UNIT),
        ours("spawn_all_then_join", spawn_all(&pool), 1.0, UNIT),
        ours("group_task", group::<3>(&pool), 0.05, UNIT),
        ours("group_task_4_words", group::<4>(&pool), 1.05, UNIT),
        ours("scope_task", scope(&pool), 0.05, UNIT),
    ]
}

/// Returns the lowest number of allocations of `run`, divided by the number of its operations.
fn for_each(operations: usize, mut run: impl FnMut()) -> f64 {
    let attempt = |_| {
        let before = allocations::blocks();
        run();
        allocations::blocks() - before
    };
    let least = (0..TRIES).map(attempt).min().expect("there was a try");
    least as f64 / operations as f64
}

fn execute<const WORDS: usize>(pool: &WorkerPool) -> f64 {
    for_each(OPERATIONS, || {
        (0..OPERATIONS).for_each(|number| pool.execute(job::<WORDS>(number)).expect("the pool is open"));
        pool.wait_idle();
    })
}

/// Allocates the vector of the handles before it counts.
fn spawn_all(pool: &WorkerPool) -> f64 {
    let mut handles = Vec::with_capacity(OPERATIONS);
    for_each(OPERATIONS, || {
        handles.extend((0..OPERATIONS).map(|number| pool.spawn(move || black_box(number)).expect("the pool is open")));
        handles.drain(..).for_each(|handle| drop(handle.join()));
    })
}

fn group<const WORDS: usize>(pool: &WorkerPool) -> f64 {
    for_each(TASKS_OF_A_GROUP, || {
        let group = pool.group();
        (0..TASKS_OF_A_GROUP).for_each(|number| group.spawn(job::<WORDS>(number)));
        group.wait().expect("no task fails");
    })
}

fn scope(pool: &WorkerPool) -> f64 {
    for_each(TASKS_OF_A_GROUP, || {
        pool.scope(|scope| (0..TASKS_OF_A_GROUP).for_each(|number| scope.spawn(job::<3>(number))))
            .expect("no task fails");
    })
}

/// Counts the peers, with jobs that capture one word.
pub(super) fn theirs_all() -> Vec<Counted> {
    let rayon = pools::rayon(WORKERS);
    let threadpool = threadpool::ThreadPool::new(WORKERS);
    let tokio = pools::tokio(WORKERS);
    let affinitypool = affinitypool::Threadpool::new(WORKERS);
    let rusty_pool = rusty_pool::Builder::new().core_size(WORKERS).max_size(WORKERS).build();
    let channel_loop = ChannelLoop::start(WORKERS);
    let of_each = |operation: &dyn Fn(usize)| for_each(OPERATIONS, || (0..OPERATIONS).for_each(operation));
    let mut counts = vec![
        theirs("rayon: install", of_each(&|number| rayon.install(job::<1>(number))), UNIT),
        theirs("rusty_pool: evaluate", of_each(&|number| rusty_pool.evaluate(job::<1>(number)).await_complete()), UNIT),
        theirs("affinitypool: spawn", of_each(&|number| block_on(affinitypool.spawn(job::<1>(number)))), UNIT),
        theirs(
            "tokio: spawn_blocking",
            of_each(&|number| tokio.block_on(tokio.spawn_blocking(job::<1>(number))).expect("no panic")),
            UNIT,
        ),
    ];
    // These wait once for many jobs.
    counts.push(theirs(
        "threadpool: execute",
        of_each(&|number| {
            threadpool.execute(job::<1>(number));
            threadpool.join();
        }),
        UNIT,
    ));
    counts.push(theirs(
        "rayon: task of a scope of 1,000",
        for_each(TASKS_OF_A_GROUP, || {
            rayon.scope(|scope| (0..TASKS_OF_A_GROUP).for_each(|number| scope.spawn(move |_| job::<1>(number)())));
        }),
        UNIT,
    ));
    counts.push(theirs("crossbeam loop: execute", of_each(&|number| channel_loop.execute(job::<1>(number))), UNIT));
    counts
}
