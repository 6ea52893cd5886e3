//! Scopes: borrowing tasks, and every order of panics and drops.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use common::{Bomb, Counter, CountsDrop, Gate, Wedge, assert_books_balance, on_grid, pool, within_limit};
use workcrew::{CancelReason, GroupError, WorkerPool};

#[test]
fn tasks_borrow_and_the_body_returns_a_value() {
    on_grid(|pool| {
        let words = ["so", "much", "depends"];
        let mut lengths = [0; 3];
        let value = pool.scope(|scope| {
            for (length, word) in lengths.iter_mut().zip(&words) {
                scope.spawn(move || *length = word.len());
            }
            "value"
        });
        assert_eq!(value.unwrap(), "value");
        assert_eq!(lengths, [2, 4, 7]);
    });
}

#[test]
fn a_scope_without_tasks_returns_its_value() {
    on_grid(|pool| assert_eq!(pool.scope::<(), _, _>(|_| 5).unwrap(), 5));
}

#[test]
fn tasks_spawn_on_the_scope_they_belong_to() {
    on_grid(|pool| {
        let count = AtomicUsize::new(0);
        let counted = &count;
        pool.scope(|scope| {
            for _ in 0..4 {
                scope.spawn(move || {
                    for _ in 0..50 {
                        scope.spawn(move || {
                            counted.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        })
        .unwrap();
        assert_eq!(count.into_inner(), 200);
    });
}

#[test]
fn the_first_error_of_a_scope_is_returned_and_cancels_the_rest() {
    on_grid(|pool| {
        let (ran, gate) = (Counter::new(), Gate::new());
        let error = pool.scope(|scope| {
            let wedge: Vec<_> = (1..pool.workers()).map(|_| gate.clone()).collect();
            for inside in wedge {
                scope.spawn(move || {
                    inside.pass();
                    Ok(())
                });
            }
            gate.wait_started(pool.workers() - 1);
            let failing = Gate::new();
            let inside = failing.clone();
            scope.spawn(move || {
                inside.pass();
                Err("first")
            });
            failing.wait_started(1);
            let counter = &ran;
            scope.spawn(move || {
                counter.add();
                Ok(())
            });
            failing.open();
            while !scope.token().is_cancelled() {
                thread::yield_now();
            }
            gate.open();
        });
        assert!(matches!(error, Err(GroupError::Failed("first"))));
        assert_eq!(ran.get(), 0);
    });
}

#[test]
fn a_body_that_panics_ends_after_its_tasks_and_with_its_own_panic() {
    common::quiet_panics();
    on_grid(|pool| {
        let (gate, dropped) = (Gate::new(), Counter::new());
        let touched = AtomicUsize::new(0);
        let unwound = panic::catch_unwind(AssertUnwindSafe(|| {
            let _ = pool.scope(|scope| {
                let (inside, touched) = (gate.clone(), &touched);
                scope.spawn(move || {
                    inside.pass();
                    touched.fetch_add(1, Ordering::SeqCst);
                });
                gate.wait_started(1);
                let opener = gate.clone();
                thread::spawn(move || opener.open());
                let _ = CountsDrop(dropped.clone());
                panic::panic_any("body");
            });
        }));
        assert_eq!(touched.load(Ordering::SeqCst), 1);
        assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&"body"));
        assert_books_balance(&pool);
    });
}

#[test]
fn bombs_in_every_place_of_a_scope_are_contained() {
    common::quiet_panics();
    on_grid(|pool| {
        for body_panics in [false, true] {
            let bombs = Counter::new();
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
                pool.scope(|scope| {
                    for n in 0..4 {
                        // One each: two destructors that panic in one closure end the process, wherever it is dropped.
                        let bomb = Bomb(bombs.clone());
                        scope.spawn(move || match n {
                            0 => panic::panic_any(bomb),
                            1 => Err(bomb),
                            2 => {
                                drop(bomb);
                                Ok(())
                            }
                            _ => {
                                std::mem::forget(bomb);
                                Ok(())
                            }
                        });
                    }
                    assert!(!body_panics, "body");
                })
                .map_err(std::mem::forget)
            }));
            match outcome {
                Ok(result) => assert!(!body_panics && result.is_err()),
                Err(payload) => assert_eq!(payload.downcast_ref(), Some(&"body")),
            }
            assert_eq!(pool.spawn(|| 1).unwrap().join().unwrap(), 1);
        }
        assert_books_balance(&pool);
    });
}

#[test]
fn scopes_groups_and_joins_nest_on_one_worker() {
    fn nested(pool: &Arc<WorkerPool>, levels: usize) -> usize {
        if levels == 0 {
            return 1;
        }
        let sum = AtomicUsize::new(0);
        pool.scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let (group, inner) = (pool.group(), Arc::clone(pool));
                    group.spawn(move || {
                        let deeper = Arc::clone(&inner);
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
    fn deeper(pool: &Arc<WorkerPool>, levels: u32) -> Result<u32, String> {
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
    within_limit(|| {
        let pool = pool(1, 4);
        assert_eq!(deeper(&pool, 40), Ok(41));
        assert!(deeper(&pool, 500).unwrap_err().contains("wait for ever"));
    });
}

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
        let (ran, wedge) = (Counter::new(), Wedge::new(&pool));
        let outcome = pool.scope(|scope| {
            let counted = &ran;
            scope.spawn(move || counted.add());
            assert_eq!(pool.shutdown_now().tasks_cancelled, 1);
            scope.spawn(move || counted.add()); // refused, and dropped unrun
            wedge.open();
        });
        assert!(matches!(outcome, Err(GroupError::Cancelled(CancelReason::ShutDown))));
        assert_eq!(ran.get(), 0);
        pool.shutdown();
        assert_books_balance(&pool);
    });
}

#[test]
fn a_cancelled_scope_drops_its_borrowing_closures_before_it_returns() {
    on_grid(|pool| {
        let wedge = Wedge::new(&pool);
        let dropped = Counter::new();
        let ran = pool.scope(|scope| {
            let held = CountsDrop(dropped.clone());
            scope.spawn(move || drop(held));
            scope.cancel();
            assert_eq!(dropped.get(), 1);
        });
        assert!(matches!(ran, Err(GroupError::Cancelled(CancelReason::Requested))));
        wedge.open();
    });
}

#[test]
fn many_scopes_at_once_share_one_pool() {
    within_limit(|| {
        let pool = pool(2, 4);
        thread::scope(|threads| {
            for _ in 0..4 {
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
                });
            }
        });
        assert_books_balance(&pool);
    });
}
