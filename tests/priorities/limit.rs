//! The limit of background workers: never exceeded, and never idle while there is work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use workcrew::Priority::{Background, High, Normal};
use workcrew::{CancellationToken, Priority, WorkerPool, current_worker};

use crate::common::{Counter, Gate, with_watchdog};
use crate::hold;

fn limited(workers: usize, limit: usize) -> WorkerPool {
    WorkerPool::builder().workers(workers).queue_capacity(64).background_workers(limit).build().unwrap()
}

/// Fault 513.
#[test]
fn the_other_workers_stay_free_for_the_other_classes() {
    for (workers, limit) in [(2, 1), (8, 1), (8, 3)] {
        with_watchdog(|| {
            let pool = limited(workers, limit);
            let batch = Gate::new();
            (0..20).for_each(|_| hold(&pool, Background, &batch));
            batch.wait_started(limit);
            // All other workers take these, although background jobs wait.
            let others = Gate::new();
            (limit..workers).for_each(|number| hold(&pool, [High, Normal][number % 2], &others));
            others.wait_started(workers - limit);
            assert_eq!(batch.started(), limit);
            others.open();
            batch.open();
            pool.wait_idle();
            assert_eq!(batch.started(), 20);
        });
    }
}

/// Fault 514.
#[test]
fn the_limit_is_never_exceeded_and_every_job_runs_once_under_stress() {
    const JOBS: usize = 300;
    for (workers, limit) in [(1, 1), (2, 1), (8, 3), (2, 2), (2, 8)] {
        with_watchdog(|| {
            let pool = limited(workers, limit);
            let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let ran: Vec<_> = (0..JOBS * 3).map(|_| Counter::new()).collect();
            thread::scope(|scope| {
                for (part, class) in ran.chunks(JOBS).zip([High, Normal, Background]) {
                    let (pool, now, most) = (&pool, &now, &most);
                    scope.spawn(move || {
                        for ran in part {
                            let (ran, now, most) = (ran.clone(), Arc::clone(now), Arc::clone(most));
                            let job = move |_: &CancellationToken| {
                                if class == Background {
                                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                                    thread::yield_now();
                                    now.fetch_sub(1, Ordering::SeqCst);
                                }
                                ran.add();
                            };
                            pool.task().priority(class).execute(job).unwrap();
                        }
                    });
                }
            });
            pool.wait_idle();
            assert!(most.load(Ordering::SeqCst) <= limit.min(workers));
            assert!(ran.iter().all(|ran| ran.get() == 1));
        });
    }
}

/// Each job is submitted while the workers sleep, so a lost wake-up is a hang.
#[test]
fn a_background_job_is_never_left_to_sleeping_workers() {
    for workers in [1, 2, 8] {
        with_watchdog(|| {
            let pool = limited(workers, 1);
            let batch = pool.task().priority(Background);
            for round in 0..150 {
                let jobs: Vec<_> = (0..3).map(|_| batch.spawn(|_| ()).unwrap()).collect();
                if round % 2 == 0 {
                    pool.task().priority(High).execute(|_| ()).unwrap();
                }
                // The test thread must not help.
                jobs.iter().for_each(|job| {
                    while !job.is_finished() {
                        thread::yield_now();
                    }
                });
            }
        });
    }
}

/// Fault 515.
#[test]
fn a_worker_that_goes_on_with_other_work_wakes_another_for_the_next_background_job() {
    with_watchdog(|| {
        let pool = limited(2, 1);
        for _ in 0..50 {
            let (batch, share) = (Gate::new(), Gate::new());
            let (sender, busy) = channel();
            let inside = batch.clone();
            let first = move |_: &CancellationToken| {
                sender.send(current_worker().unwrap().index()).unwrap();
                inside.pass();
            };
            pool.task().priority(Background).execute(first).unwrap();
            let busy = busy.recv().unwrap();
            hold(&pool, Background, &batch);
            let inside = share.clone();
            let shares = pool
                .broadcast(move |worker| {
                    if worker == busy {
                        inside.pass();
                    }
                })
                .unwrap();
            while shares.iter().filter(|share| share.is_finished()).count() == 0 {
                thread::yield_now();
            }
            // The other worker sleeps, or is about to. The busy one goes on with its share.
            batch.open();
            share.wait_started(1);
            batch.wait_started(2);
            share.open();
            pool.wait_idle();
        }
    });
}

#[test]
fn a_background_job_is_not_lost_when_workers_retire() {
    with_watchdog(|| {
        let pool = limited(3, 1);
        for _ in 0..50 {
            let batch = Gate::new();
            (0..2).for_each(|_| hold(&pool, Background, &batch));
            batch.wait_started(1);
            pool.resize(1).unwrap();
            batch.open();
            batch.wait_started(2);
            pool.resize(3).unwrap();
            pool.wait_idle();
        }
    });
}

/// Fault 519.
#[test]
fn background_tasks_may_join_background_tasks_whatever_the_limit() {
    fn nest(pool: &WorkerPool, priority: Priority, depth: u32) -> u32 {
        if depth == 0 {
            return 0;
        }
        let own = pool.clone();
        let inner = pool.task().priority(priority).spawn(move |_| nest(&own, priority, depth - 1)).unwrap();
        inner.join().unwrap() + 1
    }
    for workers in [1, 2, 8] {
        with_watchdog(|| {
            let pool = limited(workers, 1);
            let roots: Vec<_> = (0..workers)
                .map(|_| {
                    let own = pool.clone();
                    pool.task().priority(Background).spawn(move |_| nest(&own, Background, 20)).unwrap()
                })
                .collect();
            assert!(roots.into_iter().all(|root| root.join().unwrap() == 20));
            // And so may tasks of the other classes, and groups.
            let own = pool.clone();
            let mixed = pool.task().priority(High).spawn(move |_| {
                let group = own.group().priority(Background);
                let inner = own.clone();
                group.spawn(move || Ok::<_, ()>(nest(&inner, Background, 10)));
                group.wait().unwrap()[0]
            });
            assert_eq!(mixed.unwrap().join().unwrap(), 10);
        });
    }
}

/// Fault 519.
///
/// The only permit is held by a job that waits, by way of another pool, for a background job.
#[test]
fn a_wait_through_another_pool_runs_the_background_job_that_it_needs() {
    with_watchdog(|| {
        let (home, abroad) = (limited(2, 1), limited(1, 1));
        let (own, far) = (home.clone(), abroad.clone());
        let outer = home.task().priority(Background).spawn(move |_| {
            let inner = own.clone();
            let waits = far.spawn(move || inner.task().priority(Background).spawn(|_| 7).unwrap().join().unwrap());
            waits.unwrap().join().unwrap()
        });
        assert_eq!(outer.unwrap().join().unwrap(), 7);
    });
}
