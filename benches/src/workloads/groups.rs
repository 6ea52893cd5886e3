//! Tasks that are waited for together.
//!
//! All candidates are waited for by their own means, except the loop, which counts its tasks down.
//! affinitypool and futures have one handle for each task. The body of rayon's `scope` runs on a
//! worker of rayon, to its advantage; all other bodies run on the caller.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use futures::executor::block_on;
use futures::task::SpawnExt;
use tokio::task::JoinSet;

use super::empty;
use crate::candidate::{Candidate, Sample, Scale, Workload, timed};
use crate::pools::Pools;
use crate::waiting::Countdown;

/// Tasks of a group.
const TASKS: usize = 1_000;
const GROUPS: usize = 200;
/// Tasks of a failing group.
const DOOMED: usize = 10_000;
/// The task that fails, counted from zero.
const FAILING: usize = 99;
const FAILING_GROUPS: usize = 100;

/// Counts the atomic steps that a task of a group of workcrew takes at least: one to admit it, a
/// lock to add it, and a lock to record its outcome and take the next task.
static STEPS: AtomicUsize = AtomicUsize::new(0);

/// The countdown of the group of the loop; there is only one at a time.
static COUNTDOWN: Countdown = Countdown::new();

pub(super) fn group_of_1000(pools: &'static Pools, scale: Scale) -> Workload {
    let groups = scale.of(GROUPS);
    Workload {
        question: "What does an empty task of a group of 1,000 cost, spawned and waited for?",
        candidates: vec![
            Candidate::workcrew("workcrew_group", move || {
                timed(groups, TASKS, || {
                    let group = pools.workcrew.group();
                    (0..TASKS).for_each(|number| group.spawn(empty(number)));
                    group.wait().expect("no task fails");
                })
            }),
            Candidate::workcrew("workcrew_scope", move || {
                timed(groups, TASKS, || {
                    let scope = pools.workcrew.scope(|scope| (0..TASKS).for_each(|number| scope.spawn(empty(number))));
                    scope.expect("no task fails");
                })
            }),
            Candidate::peer("rayon_scope", move || {
                timed(groups, TASKS, || {
                    pools.rayon.scope(|scope| {
                        (0..TASKS).for_each(|number| scope.spawn(move |_| empty(number)()));
                    });
                })
            }),
            Candidate::peer("rayon_in_place_scope", move || {
                timed(groups, TASKS, || {
                    pools.rayon.in_place_scope(|scope| {
                        (0..TASKS).for_each(|number| scope.spawn(move |_| empty(number)()));
                    });
                })
            }),
            Candidate::peer("threadpool", move || {
                timed(groups, TASKS, || {
                    (0..TASKS).for_each(|number| pools.threadpool.execute(empty(number)));
                    pools.threadpool.join();
                })
            }),
            Candidate::peer("rusty_pool", move || {
                timed(groups, TASKS, || {
                    (0..TASKS).for_each(|number| pools.rusty_pool.execute(empty(number)));
                    pools.rusty_pool.join();
                })
            }),
            Candidate::peer("tokio_join_set", move || timed(groups, TASKS, || join_set(pools))),
            Candidate::peer("futures", move || {
                timed(groups, TASKS, || {
                    let spawn = |number| pools.futures.spawn_with_handle(async move { empty(number)() });
                    let handles: Vec<_> = (0..TASKS).map(spawn).collect();
                    handles.into_iter().for_each(|handle| block_on(handle.expect("the pool is open")));
                })
            }),
            Candidate::peer("affinitypool", move || {
                timed(groups, TASKS, || {
                    let futures: Vec<_> = (0..TASKS).map(|number| pools.affinitypool.spawn(empty(number))).collect();
                    futures.into_iter().for_each(block_on);
                })
            }),
            Candidate::limit("crossbeam_loop", move || timed(groups, TASKS, || count_down(pools))),
            Candidate::limit("thread_scope_split", move || timed(groups, TASKS, || split(pools.workers))),
            Candidate::limit("five_atomic_steps", move || {
                timed(groups, TASKS, || (0..TASKS).for_each(step_five_times))
            }),
        ],
    }
}

fn join_set(pools: &'static Pools) {
    let mut set = JoinSet::new();
    for number in 0..TASKS {
        set.spawn_blocking_on(empty(number), pools.tokio.handle());
    }
    pools.tokio.block_on(async { while set.join_next().await.is_some() {} });
}

fn count_down(pools: &'static Pools) {
    COUNTDOWN.expect_arrivals(TASKS);
    for number in 0..TASKS {
        pools.channel_loop.execute(move || {
            empty(number)();
            COUNTDOWN.arrive();
        });
    }
    COUNTDOWN.wait();
}

/// Starts as many threads as there are workers, with an equal part of the tasks for each.
fn split(threads: usize) {
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..TASKS / threads).for_each(|number| empty(number)()));
        }
    });
}

fn step_five_times(number: usize) {
    empty(number)();
    for _ in 0..5 {
        STEPS.fetch_add(1, Ordering::AcqRel);
    }
}

/// How many tasks of the failing group have run.
static RAN: AtomicUsize = AtomicUsize::new(0);
/// The cancellation token of groups by hand.
static FAILED: AtomicBool = AtomicBool::new(false);

/// All spawners stop when they see the failure. Without a cancellation of its own, a candidate
/// checks a flag at the start of each task. So does tokio, which can abort blocking tasks only one
/// by one.
pub(super) fn first_error(pools: &'static Pools, scale: Scale) -> Workload {
    let groups = scale.of(FAILING_GROUPS);
    Workload {
        question: "How long does a group of 10,000 take if its 100th task fails, and how many tasks run?",
        candidates: vec![
            Candidate::workcrew("workcrew_group", move || failing(groups, || fail_group(pools))),
            Candidate::workcrew("workcrew_scope", move || failing(groups, || fail_scope(pools))),
            Candidate::peer("rayon_in_place_scope", move || {
                failing(groups, || {
                    let spawn = |scope: &rayon::Scope<'_>, number| scope.spawn(move |_| run_by_hand(number));
                    pools.rayon.in_place_scope(|scope| until_failed(|number| spawn(scope, number)));
                })
            }),
            Candidate::peer("threadpool", move || {
                failing(groups, || {
                    until_failed(|number| pools.threadpool.execute(move || run_by_hand(number)));
                    pools.threadpool.join();
                })
            }),
            Candidate::peer("rusty_pool", move || {
                failing(groups, || {
                    until_failed(|number| pools.rusty_pool.execute(move || run_by_hand(number)));
                    pools.rusty_pool.join();
                })
            }),
            Candidate::peer("tokio_join_set", move || {
                failing(groups, || {
                    let mut set = JoinSet::new();
                    until_failed(|number| {
                        set.spawn_blocking_on(move || run_by_hand(number), pools.tokio.handle());
                    });
                    pools.tokio.block_on(async { while set.join_next().await.is_some() {} });
                })
            }),
        ],
    }
}

/// Times failing groups, and counts the tasks that ran.
fn failing(groups: usize, mut fail: impl FnMut()) -> Sample {
    let mut ran = Vec::with_capacity(groups);
    let sample = timed(groups, 1, || {
        RAN.store(0, Ordering::Relaxed);
        FAILED.store(false, Ordering::Relaxed);
        fail();
        ran.push(RAN.load(Ordering::Relaxed) as f64);
    });
    Sample { ran, ..sample }
}

fn fail_group(pools: &'static Pools) {
    let group = pools.workcrew.group();
    for number in (0..DOOMED).take_while(|_| !group.is_cancelled()) {
        group.spawn(move || run(number));
    }
    assert!(group.wait().is_err(), "a task fails");
}

fn fail_scope(pools: &'static Pools) {
    let outcome = pools.workcrew.scope(|scope| {
        for number in (0..DOOMED).take_while(|_| !scope.token().is_cancelled()) {
            scope.spawn(move || run(number));
        }
    });
    assert!(outcome.is_err(), "a task fails");
}

/// A task of the group.
fn run(number: usize) -> Result<(), usize> {
    RAN.fetch_add(1, Ordering::Relaxed);
    if number == FAILING { Err(number) } else { Ok(()) }
}

fn run_by_hand(number: usize) {
    if !FAILED.load(Ordering::Relaxed) && run(number).is_err() {
        FAILED.store(true, Ordering::Relaxed);
    }
}

fn until_failed(spawn: impl FnMut(usize)) {
    (0..DOOMED).take_while(|_| !FAILED.load(Ordering::Relaxed)).for_each(spawn);
}
