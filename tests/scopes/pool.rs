//! Scopes and their pool: nesting, shutdown, resizing, full queues.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::common::{
    BlockedWorkers, Counter, LIMIT, Mutex, assert_counts_add_up, grid, join_all, on_grid, pool, with_watchdog,
};
use workcrew::{CancelReason, GroupError, Overflow, WorkerPool};

/// Fault 85.
#[test]
fn scopes_groups_and_joins_nest_on_one_worker() {
    fn nested(pool: &WorkerPool, levels: usize) -> usize {
        if levels == 0 {
            return 1;
        }
        let sum = AtomicUsize::new(0);
        pool.scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let (group, inner) = (pool.group(), pool.clone());
                    group.spawn(move || {
                        let deeper = inner.clone();
                        inner.spawn(move || nested(&deeper, levels - 1)).unwrap().join()
                    });
                    sum.fetch_add(group.wait().unwrap()[0], Ordering::SeqCst);
                });
            }
        })
        .unwrap();
        sum.into_inner()
    }
    on_grid(|pool| assert_eq!(nested(&pool, 8), 256));
}

#[test]
fn a_scope_past_the_depth_is_an_error_before_its_body() {
    fn deeper(pool: &WorkerPool, levels: u32) -> Result<u32, String> {
        let reached = Mutex::new(Ok(0));
        pool.scope(|scope| {
            scope.spawn(|| {
                if levels > 0 {
                    *reached.lock().unwrap() = deeper(pool, levels - 1);
                }
            });
        })
        .map_err(|error| error.to_string())?;
        reached.into_inner().unwrap().map(|levels| levels + 1)
    }
    with_watchdog(|| {
        let pool = pool(1, 4);
        assert_eq!(deeper(&pool, 40), Ok(41));
        assert!(deeper(&pool, 500).unwrap_err().contains("wait forever"));
    });
}

/// Fault 86.
#[test]
fn a_scope_on_a_worker_of_another_pool_works() {
    let (here, there) = (pool(1, 1), pool(1, 1));
    let sum = here.spawn(move || {
        let sum = AtomicUsize::new(0);
        there
            .scope(|scope| {
                for n in 0..10 {
                    let sum = &sum;
                    scope.spawn(move || {
                        sum.fetch_add(n, Ordering::SeqCst);
                    });
                }
            })
            .unwrap();
        sum.into_inner()
    });
    assert_eq!(sum.unwrap().join().unwrap(), 45);
}

/// Fault 88.
#[test]
fn a_scope_of_a_pool_that_is_shut_down_is_an_error_before_its_body() {
    on_grid(|pool| {
        pool.shutdown();
        let outcome = pool.scope::<(), (), _>(|_| unreachable!("the body is not called"));
        assert!(matches!(outcome, Err(GroupError::Cancelled(CancelReason::ShutDown))));
    });
}

#[test]
fn a_shutdown_amid_a_scope_ends_the_scope() {
    on_grid(|pool| {
        let (ran, wedge) = (Counter::new(), BlockedWorkers::new(&pool));
        let outcome = pool.scope(|scope| {
            let counted = &ran;
            scope.spawn(move || counted.add());
            assert_eq!(pool.shutdown_now().tasks_cancelled, 1);
            scope.spawn(move || counted.add()); // refused, and dropped unrun
            wedge.open();
        });
        assert!(matches!(outcome, Err(GroupError::Cancelled(CancelReason::ShutDown))));
        assert_eq!(ran.get(), 0);
        assert_eq!(pool.shutdown_timeout(LIMIT).tasks_running, 0);
        assert_counts_add_up(&pool);
    });
}

/// Faults 79, 80.
#[test]
fn many_scopes_at_once_share_one_pool() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        thread::scope(|threads| {
            let threads = [(); 4].map(|()| {
                threads.spawn(|| {
                    for round in 0..300 {
                        let mut slots = [0_u32; 20];
                        pool.scope(|scope| {
                            for slot in &mut slots {
                                scope.spawn(move || *slot = round);
                            }
                        })
                        .unwrap();
                        assert!(slots.iter().all(|slot| *slot == round));
                    }
                })
            });
            join_all(threads);
        });
        assert_counts_add_up(&pool);
    });
}

/// From rayon's `linear_stack_growth`: spawning is not recursion.
#[test]
fn ten_thousand_tasks_of_one_scope_need_no_stack() {
    with_watchdog(|| {
        let pool = WorkerPool::builder().workers(1).queue_capacity(1).stack_size(64 << 10).build().unwrap();
        let inner = pool.clone();
        let count = pool.spawn(move || {
            let count = AtomicUsize::new(0);
            inner
                .scope(|scope| {
                    let count = &count;
                    scope.spawn(move || {
                        for _ in 0..10_000 {
                            scope.spawn(move || {
                                count.fetch_add(1, Ordering::Relaxed);
                            });
                        }
                    });
                })
                .unwrap();
            count.into_inner()
        });
        assert_eq!(count.unwrap().join().unwrap(), 10_000);
    });
}

#[test]
fn no_overflow_policy_touches_the_tasks_of_a_scope() {
    for policy in [Overflow::CallerRuns, Overflow::DiscardOldest, Overflow::DiscardNewest] {
        grid(|builder| {
            let pool = builder.overflow(policy).build().unwrap();
            let count = AtomicUsize::new(0);
            pool.scope(|scope| {
                for _ in 0..200 {
                    scope.spawn(|| {
                        count.fetch_add(1, Ordering::SeqCst);
                    });
                    pool.execute(|| ()).unwrap();
                }
            })
            .unwrap();
            assert_eq!(count.into_inner(), 200);
            pool.wait_idle();
            assert_counts_add_up(&pool);
        });
    }
}

#[test]
fn a_scope_goes_on_while_the_pool_is_resized() {
    on_grid(|pool| {
        let mut slots = [0; 300];
        pool.scope(|scope| {
            for (n, slot) in slots.iter_mut().enumerate() {
                scope.spawn(move || *slot = n);
                if n % 60 == 0 {
                    pool.resize(1 + n / 60).unwrap();
                }
            }
        })
        .unwrap();
        assert!(slots.into_iter().eq(0..300));
    });
}

#[test]
fn a_task_of_a_scope_may_shut_the_pool_down() {
    on_grid(|pool| {
        let ran = AtomicUsize::new(0);
        let outcome = pool.scope(|scope| {
            let (pool, ran) = (&pool, &ran);
            scope.spawn(move || {
                pool.shutdown();
                ran.fetch_add(1, Ordering::SeqCst);
            });
        });
        outcome.unwrap();
        assert_eq!(ran.into_inner(), 1);
        assert!(pool.is_shut_down());
    });
}
