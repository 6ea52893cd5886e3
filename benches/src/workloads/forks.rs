//! Jobs that submit jobs.
//!
//! Both workloads follow the calls of the doubly recursive Fibonacci function. workcrew, rayon's
//! scope, threadpool and `rusty_pool` are waited for by their own means. tokio, futures,
//! affinitypool and the loop count their jobs down, one atomic step for each. affinitypool would
//! cancel a job whose future is dropped; leaking the future is the cheapest way to detach it. The
//! loop runs a job at once if its channel is full.

use std::hint::black_box;
use std::mem;

use workcrew::{Scope, Spawner, WorkerPool};

use crate::candidate::{Candidate, Scale, Workload, timed};
use crate::pools::Pools;
use crate::waiting::Countdown;

/// The calls of `fib(24)`.
const DEPTH: u32 = 24;
const SHORT_DEPTH: u32 = 16;

/// The countdown of the tree that grows; there is only one at a time.
static COUNTDOWN: Countdown = Countdown::new();

fn depth(scale: Scale) -> u32 {
    match scale {
        Scale::Full => DEPTH,
        Scale::Short => SHORT_DEPTH,
    }
}

/// Returns the number of jobs in a tree: each submits one of its two calls, and makes the other
/// itself.
fn jobs(depth: u32) -> usize {
    let (mut jobs, mut next) = (1, 1);
    for _ in 0..depth {
        (jobs, next) = (next, jobs + next);
    }
    jobs
}

pub(super) fn tree(pools: &'static Pools, scale: Scale) -> Workload {
    let depth = depth(scale);
    let jobs = jobs(depth);
    let counting = move |grow: fn(&'static Pools, u32)| {
        timed(1, jobs, || {
            COUNTDOWN.expect_arrivals(jobs);
            grow(pools, depth);
            COUNTDOWN.wait();
        })
    };
    Workload {
        question: "What does an empty job cost in a tree of 75,025, each submitted by its parent?",
        candidates: vec![
            Candidate::workcrew("workcrew_execute", move || {
                timed(1, jobs, || {
                    grow_with_execute(&pools.workcrew, depth);
                    pools.workcrew.wait_idle();
                })
            }),
            Candidate::workcrew("workcrew_group", move || {
                timed(1, jobs, || {
                    let group = pools.workcrew.group();
                    grow_group(&group.spawner(), depth);
                    group.wait().expect("no task fails");
                })
            }),
            Candidate::workcrew("workcrew_scope", move || {
                timed(1, jobs, || pools.workcrew.scope(|scope| grow_scope(scope, depth)).expect("no task fails"))
            }),
            Candidate::peer("rayon_scope", move || {
                timed(1, jobs, || pools.rayon.in_place_scope(|scope| grow_with_rayon(scope, depth)))
            }),
            Candidate::peer("threadpool", move || {
                timed(1, jobs, || {
                    grow_with_threadpool(pools, depth);
                    pools.threadpool.join();
                })
            }),
            Candidate::peer("rusty_pool", move || {
                timed(1, jobs, || {
                    grow_with_rusty_pool(pools, depth);
                    pools.rusty_pool.join();
                })
            }),
            Candidate::peer("tokio_spawn_blocking", move || counting(grow_with_tokio)),
            Candidate::peer("futures_spawn_ok", move || counting(grow_with_futures)),
            Candidate::peer("affinitypool", move || counting(grow_with_affinitypool)),
            Candidate::limit("crossbeam_loop", move || counting(grow_with_loop)),
        ],
    }
}

/// Returns the depths of the jobs that a job submits.
fn children(depth: u32) -> impl Iterator<Item = u32> {
    (1..=depth).rev().step_by(2).filter(|depth| *depth > 0).map(|depth| depth - 1)
}

fn grow_with_execute(pool: &'static WorkerPool, depth: u32) {
    let job = move || {
        children(depth).for_each(|depth| grow_with_execute(pool, depth));
    };
    pool.execute(job).expect("the pool is open");
}

fn grow_group(spawner: &Spawner<()>, depth: u32) {
    let siblings = spawner.clone();
    spawner.spawn(move || children(depth).for_each(|depth| grow_group(&siblings, depth)));
}

fn grow_scope<'scope>(scope: &'scope Scope<'scope, '_, ()>, depth: u32) {
    scope.spawn(move || children(depth).for_each(|depth| grow_scope(scope, depth)));
}

fn grow_with_rayon<'scope>(scope: &rayon::Scope<'scope>, depth: u32) {
    scope.spawn(move |scope| children(depth).for_each(|depth| grow_with_rayon(scope, depth)));
}

fn grow_with_threadpool(pools: &'static Pools, depth: u32) {
    pools.threadpool.execute(move || children(depth).for_each(|depth| grow_with_threadpool(pools, depth)));
}

fn grow_with_rusty_pool(pools: &'static Pools, depth: u32) {
    pools.rusty_pool.execute(move || children(depth).for_each(|depth| grow_with_rusty_pool(pools, depth)));
}

fn grow_with_tokio(pools: &'static Pools, depth: u32) {
    drop(pools.tokio.spawn_blocking(move || {
        children(depth).for_each(|depth| grow_with_tokio(pools, depth));
        COUNTDOWN.arrive();
    }));
}

fn grow_with_futures(pools: &'static Pools, depth: u32) {
    pools.futures.spawn_ok(async move {
        children(depth).for_each(|depth| grow_with_futures(pools, depth));
        COUNTDOWN.arrive();
    });
}

fn grow_with_affinitypool(pools: &'static Pools, depth: u32) {
    mem::forget(pools.affinitypool.spawn(move || {
        children(depth).for_each(|depth| grow_with_affinitypool(pools, depth));
        COUNTDOWN.arrive();
    }));
}

fn grow_with_loop(pools: &'static Pools, depth: u32) {
    pools.channel_loop.execute_or_run(move || {
        children(depth).for_each(|depth| grow_with_loop(pools, depth));
        COUNTDOWN.arrive();
    });
}

/// Forks of `fib(24)`, each of which waits for its halves. The first begins on a worker, as with
/// rayon's `install`.
pub(super) fn fork_join(pools: &'static Pools, scale: Scale) -> Workload {
    let depth = depth(scale);
    let forks = jobs(depth) - 1;
    let on_worker = move |fib: fn(&'static WorkerPool, u32) -> u64| {
        timed(1, forks, || {
            let root = pools.workcrew.spawn(move || fib(&pools.workcrew, depth)).expect("the pool is open");
            black_box(root.join().expect("the task does not panic"));
        })
    };
    Workload {
        question: "What does a fork cost in fib(24) by fork and join?",
        candidates: vec![
            Candidate::workcrew("workcrew_scope", move || on_worker(fib_with_scopes)),
            Candidate::workcrew("workcrew_spawn", move || on_worker(fib_with_handles)),
            Candidate::peer("rayon_join", move || {
                timed(1, forks, || {
                    black_box(pools.rayon.install(|| fib_with_rayon(depth)));
                })
            }),
            Candidate::limit("no_pool", move || {
                timed(1, forks, || {
                    black_box(fib(black_box(depth)));
                })
            }),
        ],
    }
}

fn fib_with_scopes(pool: &WorkerPool, n: u32) -> u64 {
    if n < 2 {
        return n.into();
    }
    let mut left = 0;
    let right = pool.scope(|scope| {
        scope.spawn(|| left = fib_with_scopes(pool, n - 1));
        fib_with_scopes(pool, n - 2)
    });
    right.expect("no task fails") + left
}

fn fib_with_handles(pool: &'static WorkerPool, n: u32) -> u64 {
    if n < 2 {
        return n.into();
    }
    let left = pool.spawn(move || fib_with_handles(pool, n - 1)).expect("the pool is open");
    let right = fib_with_handles(pool, n - 2);
    right + left.join().expect("the task does not panic")
}

fn fib_with_rayon(n: u32) -> u64 {
    if n < 2 {
        return n.into();
    }
    let (left, right) = rayon::join(|| fib_with_rayon(n - 1), || fib_with_rayon(n - 2));
    left + right
}

fn fib(n: u32) -> u64 {
    if n < 2 { n.into() } else { fib(n - 1) + fib(n - 2) }
}
