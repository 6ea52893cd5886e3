//! Scopes: borrowing tasks, and every order of panics and drops.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::{
    BlockedWorkers, Bomb, Counter, DropCounter, Gate, LIMIT, Mutex, assert_counts_add_up, grid, join_all, on_grid,
    pool, with_watchdog,
};
use workcrew::{CancelReason, GroupError, Overflow, Scope, WorkerPool};

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

/// Fault 64.
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

/// Fault 74.
#[test]
fn a_body_that_panics_ends_after_its_tasks_and_with_its_own_panic() {
    common::quiet_panics();
    on_grid(|pool| {
        /// Dropped while the body unwinds, which lets the task go on.
        struct Opens(Gate);
        impl Drop for Opens {
            fn drop(&mut self) {
                self.0.open();
            }
        }
        let (gate, touched) = (Gate::new(), AtomicUsize::new(0));
        let unwound = panic::catch_unwind(AssertUnwindSafe(|| {
            let _ = pool.scope(|scope| {
                let (inside, touched) = (gate.clone(), &touched);
                scope.spawn(move || {
                    inside.pass();
                    touched.fetch_add(1, Ordering::SeqCst);
                });
                gate.wait_started(1);
                let _opens = Opens(gate.clone());
                panic::panic_any("body");
            });
        }));
        assert_eq!(touched.load(Ordering::SeqCst), 1);
        assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&"body"));
        assert_counts_add_up(&pool);
    });
}

/// Fault 81.
#[test]
fn bombs_in_every_place_of_a_scope_are_contained() {
    common::quiet_panics();
    on_grid(|pool| {
        for body_panics in [false, true] {
            let (bombs, kept) = (Counter::new(), Mutex::new(Vec::new()));
            let contained = |bomb| drop(panic::catch_unwind(AssertUnwindSafe(|| drop::<GroupError<Bomb>>(bomb))));
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
                pool.scope(|scope| {
                    for n in 0..4 {
                        let kept = &kept;
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
                                kept.lock().unwrap().push(bomb);
                                Ok(())
                            }
                        });
                    }
                    assert!(!body_panics, "body");
                })
                .map_err(contained)
            }));
            match outcome {
                Ok(result) => assert!(!body_panics && result.is_err()),
                Err(payload) => assert_eq!(payload.downcast_ref(), Some(&"body")),
            }
            kept.into_inner().unwrap().into_iter().for_each(|bomb| contained(GroupError::Failed(bomb)));
            assert_eq!(bombs.get(), 4, "each has gone off once");
            assert_eq!(pool.spawn(|| 1).unwrap().join().unwrap(), 1);
        }
        assert_counts_add_up(&pool);
    });
}

/// Counts its drops, and those during an unwinding apart.
struct NotesUnwinding {
    dropped: Counter,
    unwinding: Counter,
}

impl Drop for NotesUnwinding {
    fn drop(&mut self) {
        self.dropped.add();
        if thread::panicking() {
            self.unwinding.add();
        }
    }
}

#[test]
fn the_errors_of_tasks_are_dropped_before_the_panic_of_the_body_resumes() {
    with_watchdog(|| {
        let (pool, gate) = (pool(2, 4), Gate::new());
        let (dropped, unwinding) = (Counter::new(), Counter::new());
        let body = AssertUnwindSafe(|| {
            pool.scope(|scope| {
                for _ in 0..2 {
                    let error = NotesUnwinding { dropped: dropped.clone(), unwinding: unwinding.clone() };
                    let gate = gate.clone();
                    scope.spawn(move || {
                        gate.pass();
                        Err(error)
                    });
                }
                gate.wait_started(2);
                gate.open();
                panic!("body");
            })
        });
        let payload = panic::catch_unwind(body).map(drop::<Result<(), _>>).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"body"));
        assert_eq!((dropped.get(), unwinding.get()), (2, 0));
    });
}

/// Fault 85.
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

#[test]
fn a_cancelled_scope_drops_its_borrowing_closures_before_it_returns() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let dropped = Counter::new();
        let ran = pool.scope(|scope| {
            let held = DropCounter(dropped.clone());
            scope.spawn(move || drop(held));
            assert!(format!("{scope:?}").contains("total: 1"));
            scope.cancel();
            assert_eq!(dropped.get(), 1);
        });
        assert!(matches!(ran, Err(GroupError::Cancelled(CancelReason::Requested))));
        wedge.open();
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

/// Fault 75.
/// From rayon's `panic_propagate_still_execute`: whichever task panics, those that run come to their end.
#[test]
fn a_panic_of_a_task_comes_out_when_all_running_tasks_have_ended() {
    common::quiet_panics();
    with_watchdog(|| {
        for panicking in 0..4 {
            let pool = pool(4, 64);
            let (gate, ended) = (Gate::new(), AtomicUsize::new(0));
            let outcome = pool.scope(|scope| {
                for n in 0..4 {
                    let (inside, ended) = (gate.clone(), &ended);
                    scope.spawn(move || {
                        inside.pass();
                        if n == panicking {
                            panic!("task {n}");
                        }
                        thread::yield_now();
                        ended.fetch_add(1, Ordering::SeqCst);
                    });
                }
                gate.wait_started(4);
                gate.open();
                7
            });
            let Err(GroupError::Panicked(panic)) = outcome else { panic!("the panic is the outcome") };
            assert_eq!(panic.message(), Some(&*format!("task {panicking}")));
            assert_eq!(ended.into_inner(), 3);
        }
    });
}

/// From rayon's `scope_divide_and_conquer`.
#[test]
fn halves_of_halves_are_summed_by_tasks_that_spawn_tasks() {
    fn sum<'scope>(scope: &'scope Scope<'scope, '_, ()>, part: &'scope [usize], total: &'scope AtomicUsize) {
        if part.len() <= 10 {
            total.fetch_add(part.iter().sum(), Ordering::Relaxed);
            return;
        }
        let (left, right) = part.split_at(part.len() / 2);
        scope.spawn(move || sum(scope, left, total));
        scope.spawn(move || sum(scope, right, total));
    }
    on_grid(|pool| {
        let (numbers, total): (Vec<usize>, _) = ((0..2_000).collect(), AtomicUsize::new(0));
        pool.scope(|scope| sum(scope, &numbers, &total)).unwrap();
        assert_eq!(total.into_inner(), 1_999 * 1_000);
    });
}

/// From rayon's `scope_mixed_lifetime_scope`: what the inner scope borrows from the outer one outlives both.
#[test]
fn an_inner_scope_borrows_from_the_outer_scope_and_its_own_frame() {
    on_grid(|pool| {
        let outer_sum = AtomicUsize::new(0);
        pool.scope(|scope| {
            let (pool, outer_sum) = (&pool, &outer_sum);
            for n in 1..=4 {
                scope.spawn(move || {
                    let parts = [n, 10 * n];
                    let inner_sum = AtomicUsize::new(0);
                    pool.scope(|inner| {
                        for part in &parts {
                            let inner_sum = &inner_sum;
                            inner.spawn(move || {
                                inner_sum.fetch_add(*part, Ordering::SeqCst);
                                outer_sum.fetch_add(1, Ordering::SeqCst);
                            });
                        }
                    })
                    .unwrap();
                    assert_eq!(inner_sum.into_inner(), 11 * n);
                });
            }
        })
        .unwrap();
        assert_eq!(outer_sum.into_inner(), 8);
    });
}

#[test]
fn closures_of_every_size_and_alignment_borrow_and_run() {
    #[repr(align(128))]
    #[derive(Clone, Copy)]
    struct Aligned(usize);
    on_grid(|pool| {
        let sum = AtomicUsize::new(0);
        let add = |n: usize| {
            sum.fetch_add(n, Ordering::SeqCst);
        };
        let (add, words, aligned) = (&add, [1_usize; 100], Aligned(1_000));
        let (one, two, three) = (&words[0], &words[1], &words[2]);
        pool.scope(|scope| {
            scope.spawn(|| ()); // captures nothing
            scope.spawn(move || add(*one));
            scope.spawn(move || add(*one + *two));
            scope.spawn(move || add(*one + *two + *three));
            scope.spawn(move || add(words.iter().sum()));
            scope.spawn(move || {
                let aligned = &aligned;
                assert_eq!(std::ptr::from_ref(aligned).addr() % 128, 0);
                add(aligned.0);
            });
        })
        .unwrap();
        assert_eq!(sum.into_inner(), 1 + 2 + 3 + 100 + 1_000);
    });
}

#[test]
fn an_error_returned_by_the_body_cancels_nothing() {
    on_grid(|pool| {
        let ran = AtomicUsize::new(0);
        let value = pool.scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| {
                    ran.fetch_add(1, Ordering::SeqCst);
                });
            }
            Err::<(), _>("the body's own")
        });
        assert_eq!(value.unwrap(), Err("the body's own"));
        assert_eq!(ran.into_inner(), 10);
    });
}

/// From rayon's `linear_stack_growth`: spawning is not recursion.
#[test]
fn ten_thousand_tasks_of_one_scope_need_no_stack() {
    with_watchdog(|| {
        let pool = Arc::new(WorkerPool::builder().workers(1).queue_capacity(1).stack_size(64 << 10).build().unwrap());
        let inner = Arc::clone(&pool);
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
fn a_task_sees_the_scopes_token_and_ends_by_itself() {
    on_grid(|pool| {
        let gate = Gate::new();
        let outcome = pool.scope(|scope| {
            let inside = gate.clone();
            scope.spawn(move || {
                inside.pass();
                assert!(scope.token().wait_timeout(LIMIT));
            });
            gate.wait_started(1);
            gate.open();
            scope.cancel();
        });
        outcome.unwrap(); // it ran to its end, and nothing else was there to be cancelled
    });
}

#[test]
fn a_task_may_cancel_its_own_scope() {
    on_grid(|pool| {
        let (ran, dropped, gate) = (Counter::new(), Counter::new(), Gate::new());
        let outcome = pool.scope(|scope| {
            let wedge: Vec<_> = (1..pool.workers()).map(|_| gate.clone()).collect();
            for inside in wedge {
                scope.spawn(move || inside.pass());
            }
            gate.wait_started(pool.workers() - 1);
            let cancels = Gate::new();
            let (inside, release) = (cancels.clone(), gate.clone());
            scope.spawn(move || {
                inside.pass();
                scope.cancel();
                release.open();
            });
            cancels.wait_started(1);
            let (counted, held) = (&ran, DropCounter(dropped.clone()));
            scope.spawn(move || {
                let _held = held;
                counted.add();
            });
            cancels.open();
        });
        assert!(matches!(outcome, Err(GroupError::Cancelled(CancelReason::Requested))));
        assert_eq!((ran.get(), dropped.get()), (0, 1));
    });
}

#[test]
fn a_body_that_panics_drops_its_queued_closures_before_it_unwinds() {
    common::quiet_panics();
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let (ran, dropped) = (Counter::new(), Counter::new());
        let borrowed = String::from("borrowed");
        let unwound = panic::catch_unwind(AssertUnwindSafe(|| {
            let _ = pool.scope(|scope| {
                let (text, counted, held) = (&borrowed, &ran, DropCounter(dropped.clone()));
                scope.spawn(move || {
                    let _held = held;
                    assert_eq!(text, "borrowed");
                    counted.add();
                });
                panic::resume_unwind(Box::new("body"));
            });
        }));
        assert_eq!((ran.get(), dropped.get()), (0, 1));
        assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&"body"));
        wedge.open();
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_task_spawned_after_a_failure_is_dropped_at_once() {
    on_grid(|pool| {
        let dropped = Counter::new();
        let outcome = pool.scope(|scope| {
            scope.spawn(|| Err("first"));
            assert!(scope.token().wait_timeout(LIMIT));
            for n in 1..=5 {
                let held = DropCounter(dropped.clone());
                scope.spawn(move || {
                    drop(held);
                    Err("never")
                });
                assert_eq!(dropped.get(), n);
            }
        });
        assert!(matches!(outcome, Err(GroupError::Failed("first"))));
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

#[test]
fn a_scope_in_a_destructor_works_while_the_thread_unwinds() {
    struct Scopes<'a>(&'a WorkerPool, &'a AtomicUsize);
    impl Drop for Scopes<'_> {
        fn drop(&mut self) {
            let sum = self.1;
            let outcome = self.0.scope(|scope| {
                for n in 0..10 {
                    scope.spawn(move || {
                        sum.fetch_add(n, Ordering::SeqCst);
                    });
                }
            });
            assert!(outcome.is_ok());
        }
    }
    on_grid(|pool| {
        let sum = AtomicUsize::new(0);
        let unwound = panic::catch_unwind(AssertUnwindSafe(|| {
            let _scopes = Scopes(&pool, &sum);
            panic::resume_unwind(Box::new("unwinding"));
        }));
        assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&"unwinding"));
        assert_eq!(sum.into_inner(), 45);
    });
}

#[test]
fn a_task_that_leaks_its_captures_does_not_extend_the_borrow() {
    on_grid(|pool| {
        let mut text = String::from("before");
        pool.scope(|scope| {
            let borrowed = &mut text;
            scope.spawn(move || {
                borrowed.push_str(" and after");
                let _never_dropped = std::mem::ManuallyDrop::new(borrowed);
            });
        })
        .unwrap();
        text.push('!');
        assert_eq!(text, "before and after!");
    });
}

#[test]
fn the_borrow_ends_with_the_scope_however_the_tasks_end() {
    common::quiet_panics();
    on_grid(|pool| {
        for way in 0..4 {
            let mut log = Vec::new();
            let shared = Mutex::new(&mut log);
            let _ = pool.scope(|scope| {
                for n in 0..6 {
                    let shared = &shared;
                    scope.spawn(move || {
                        shared.lock().unwrap().push(n);
                        match way {
                            0 => Ok(()),
                            1 => Err("fails"),
                            2 => panic!("panics"),
                            _ => {
                                scope.cancel();
                                Ok(())
                            }
                        }
                    });
                }
            });
            let seen = log.len();
            log.push(99); // the scope's borrow is over
            assert!(seen >= 1 && log.len() == seen + 1);
        }
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

#[test]
fn threads_of_a_standard_scope_may_each_open_a_scope_of_the_pool() {
    on_grid(|pool| {
        let total = AtomicUsize::new(0);
        thread::scope(|threads| {
            let threads = [(); 3].map(|()| {
                threads.spawn(|| {
                    let mine = AtomicUsize::new(0);
                    pool.scope(|scope| {
                        for n in 0..20 {
                            let mine = &mine;
                            scope.spawn(move || {
                                mine.fetch_add(n, Ordering::SeqCst);
                            });
                        }
                    })
                    .unwrap();
                    total.fetch_add(mine.into_inner(), Ordering::SeqCst);
                })
            });
            join_all(threads);
        });
        assert_eq!(total.into_inner(), 3 * 190);
    });
}
