//! Tasks with a value: their handles, and what becomes of outcomes that no handle takes.

use std::mem;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::common::{
    self, Bomb, Counter, DropCounter, Gate, LIMIT, Mutex, assert_counts_add_up, on_grid, pool, quiet_panics,
    with_watchdog,
};
use workcrew::{CancelReason, GroupError, JoinError, Scope, ScopedHandle};

/// Fault 360.
#[test]
fn values_that_borrow_reach_their_handles() {
    on_grid(|pool| {
        let words = [String::from("so"), String::from("much"), String::from("depends")];
        let parts = pool
            .scope(|scope| {
                let handles: Vec<_> = words.iter().map(|word| scope.spawn_value(|| &word[1..])).collect();
                handles.into_iter().rev().map(ScopedHandle::join).collect::<Result<Vec<&str>, _>>()
            })
            .unwrap();
        assert_eq!(parts.unwrap(), ["epends", "uch", "o"]);
        assert_counts_add_up(&pool);
        assert_eq!(pool.metrics().tasks_succeeded, 3);
    });
}

/// Fault 360.
#[test]
fn tasks_of_a_scope_join_each_other_at_any_depth_up_to_the_limit() {
    fn sum<'scope>(scope: &'scope Scope<'scope, '_>, numbers: &'scope [usize]) -> Result<usize, JoinError> {
        if let [number] = numbers {
            return Ok(*number);
        }
        let (left, right) = numbers.split_at(numbers.len() / 2);
        let left = scope.spawn_value(move || sum(scope, left));
        let right = sum(scope, right)?;
        Ok(left.join()?? + right)
    }
    on_grid(|pool| {
        let numbers: Vec<usize> = (0..200).collect();
        assert_eq!(pool.scope(|scope| sum(scope, &numbers)).unwrap().unwrap(), 199 * 100);
        let handle = {
            let pool = pool.clone();
            // On a worker as well, which may be the only one.
            move || pool.scope(|scope| scope.spawn_value(|| sum(scope, &numbers)).join()).unwrap().unwrap().unwrap()
        };
        assert_eq!(pool.spawn(handle).unwrap().join().unwrap(), 199 * 100);
    });
}

#[test]
fn a_join_past_the_depth_is_an_error_and_the_scope_ends() {
    fn nest<'scope>(scope: &'scope Scope<'scope, '_>, levels: usize) -> Result<usize, JoinError> {
        if levels == 0 {
            return Ok(0);
        }
        Ok(scope.spawn_value(move || nest(scope, levels - 1)).join()?? + 1)
    }
    with_watchdog(|| {
        let pool = pool(1, 64);
        assert_eq!(pool.scope(|scope| nest(scope, 60)).unwrap().unwrap(), 60);
        assert!(matches!(pool.scope(|scope| nest(scope, 80)).unwrap(), Err(JoinError::WouldDeadlock(_))));
    });
}

/// Fault 361.
#[test]
fn the_panic_of_a_task_with_a_handle_belongs_to_the_handle() {
    quiet_panics();
    common::grid(|builder| {
        let reported = Counter::new();
        let hook = reported.clone();
        let pool = builder.on_panic(move |panic| {
            assert_eq!(panic.message(), Some("mine"));
            hook.add();
        });
        let pool = pool.build().unwrap();
        let siblings = Counter::new();
        let payload = pool.scope(|scope| {
            let handle = scope.spawn_value(|| {
                if true {
                    panic!("mine")
                }
            });
            for _ in 0..4 {
                scope.spawn(|| siblings.add());
            }
            match handle.join() {
                Err(JoinError::Panicked(panic)) => *panic.into_payload().downcast::<&str>().unwrap(),
                other => panic!("{other:?}"),
            }
        });
        assert_eq!(payload.unwrap(), "mine");
        assert_eq!((siblings.get(), reported.get()), (4, 1));
        assert_eq!((pool.metrics().tasks_panicked, pool.metrics().tasks_succeeded), (1, 4));
        assert_counts_add_up(&pool);
    });
}

/// Fault 362.
#[test]
fn the_panic_of_a_task_whose_handle_is_dropped_is_an_error_of_the_scope() {
    quiet_panics();
    on_grid(|pool| {
        for dropped_before in [true, false] {
            let gate = Gate::new();
            let inside = gate.clone();
            let ended = pool.scope(|scope| {
                let handle = scope.spawn_value(move || {
                    inside.pass();
                    panic!("left behind")
                });
                gate.wait_started(1);
                if dropped_before {
                    drop::<ScopedHandle<'_, ()>>(handle);
                    gate.open();
                } else {
                    gate.open();
                    assert!(handle.wait_timeout(LIMIT));
                    assert!(!scope.token().is_cancelled());
                    drop(handle);
                    assert!(scope.token().is_cancelled(), "the panic cancels the rest, as any other");
                }
            });
            match ended {
                Err(GroupError::Panicked(panic)) => assert_eq!(panic.message(), Some("left behind")),
                other => panic!("{other:?}"),
            }
        }
        assert_counts_add_up(&pool);
    });
}

/// Fault 362.
#[test]
fn a_value_whose_handle_is_dropped_is_dropped_before_the_scope_ends() {
    on_grid(|pool| {
        let drops = Counter::new();
        let borrowed = &drops;
        pool.scope(|scope| {
            for _ in 0..10 {
                drop(scope.spawn_value(|| DropCounter(borrowed.clone())));
            }
        })
        .unwrap();
        assert_eq!(drops.get(), 10);
    });
}

/// Faults 24, 362.
#[test]
fn a_value_that_panics_when_dropped_is_contained() {
    quiet_panics();
    on_grid(|pool| {
        let drops = Counter::new();
        pool.scope(|scope| {
            drop(scope.spawn_value(|| Bomb(drops.clone())));
            let handle = scope.spawn_value(|| Bomb(drops.clone()));
            assert!(handle.wait_timeout(LIMIT));
            drop(handle);
        })
        .unwrap();
        assert_eq!(drops.get(), 2);
        assert_counts_add_up(&pool);
    });
}

/// Faults 84, 363.
#[test]
fn a_leaked_handle_does_not_let_its_task_outlive_the_scope() {
    quiet_panics();
    on_grid(|pool| {
        let (ended, drops) = (AtomicUsize::new(0), Counter::new());
        for body_panics in [false, true] {
            let run = || {
                pool.scope(|scope| {
                    for n in 0..8 {
                        let handle = scope.spawn_value(|| {
                            thread::yield_now();
                            ended.fetch_add(1, Ordering::SeqCst);
                            DropCounter(drops.clone())
                        });
                        if n % 2 == 0 { mem::forget(handle) } else { drop(handle) }
                    }
                    mem::forget(scope.map(0..4, |_| ended.fetch_add(1, Ordering::SeqCst)));
                    assert!(!body_panics, "the body");
                })
            };
            let result = panic::catch_unwind(panic::AssertUnwindSafe(run));
            assert_eq!(result.is_err(), body_panics);
            let seen = ended.load(Ordering::SeqCst);
            pool.wait_idle();
            assert_eq!(ended.load(Ordering::SeqCst), seen, "a task ran after its scope");
        }
        // What a leaked handle owns is leaked. Tasks that the panic of the body cancelled have no value.
        assert!((4..=8).contains(&drops.get()), "{}", drops.get());
        assert_counts_add_up(&pool);
    });
}

/// Fault 365.
#[test]
fn a_worker_that_joins_runs_no_other_task_of_the_scope() {
    with_watchdog(|| {
        let pool = pool(1, 64);
        let lock = Mutex::new(0);
        let (inner, lock) = (&pool, &lock);
        let value = inner.scope(|scope| {
            scope
                .spawn_value(move || {
                    let held = lock.lock().unwrap();
                    for _ in 0..4 {
                        scope.spawn(move || *lock.lock().unwrap() += 1); // would deadlock on this thread
                    }
                    let value = scope.spawn_value(|| 7).join();
                    drop(held);
                    value
                })
                .join()
        });
        assert_eq!(value.unwrap().unwrap().unwrap(), 7);
        assert_eq!(*lock.lock().unwrap(), 4);
    });
}

/// Fault 366.
#[test]
fn joins_in_a_scope_with_a_limit_keep_the_limit_and_end() {
    on_grid(|pool| {
        for limit in [1, 2] {
            let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let work = || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
            };
            let body = || {
                pool.scope_builder().limit(limit).run(|scope| {
                    let handles: Vec<_> = (0..20).map(|_| scope.spawn_value(work)).collect();
                    for handle in handles.into_iter().rev() {
                        handle.join().unwrap();
                    }
                })
            };
            body().unwrap();
            // On a worker too, which is one more thread than the runners.
            pool.scope(|scope| scope.spawn_value(|| body().unwrap()).join()).unwrap().unwrap();
            assert!(most.load(Ordering::SeqCst) <= limit, "{most:?}");
        }
    });
}

/// Fault 366.
#[test]
fn a_task_at_the_limit_may_join_a_task_that_waits_for_the_limit() {
    on_grid(|pool| {
        let sum = pool.scope_builder().limit(1).run(|scope| {
            let outer = scope.spawn_value(|| {
                let parts = [1, 2, 3].map(|n| scope.spawn_value(move || n));
                parts.into_iter().map(|part| part.join().unwrap()).sum::<i32>()
            });
            outer.join()
        });
        assert_eq!(sum.unwrap().unwrap(), 6);
    });
}

/// Fault 367.
#[test]
fn a_task_that_joins_itself_gets_would_deadlock() {
    on_grid(|pool| {
        let ended = pool.scope(|scope| {
            let (sender, receiver) = mpsc::channel::<ScopedHandle<'_, ()>>();
            let handle = scope.spawn_value(move || {
                let me = receiver.recv().unwrap();
                assert!(!me.wait_timeout(Duration::MAX));
                assert!(matches!(me.join(), Err(JoinError::WouldDeadlock(_))));
            });
            sender.send(handle).unwrap();
        });
        ended.unwrap();
    });
}

/// Fault 367.
#[test]
fn tasks_that_join_each_other_in_a_circle_end_with_an_error() {
    with_watchdog(|| {
        let pool = pool(2, 64);
        let (gate, refused) = (Gate::new(), Counter::new());
        let (gate, refused) = (&gate, &refused);
        let ended = pool.scope(|scope| {
            let mut ends = Vec::new();
            for _ in 0..2 {
                let (sender, receiver) = mpsc::channel::<ScopedHandle<'_, ()>>();
                let handle = scope.spawn_value(move || {
                    gate.pass();
                    if let Err(JoinError::WouldDeadlock(_)) = receiver.recv().unwrap().join() {
                        refused.add();
                    }
                });
                ends.push((sender, handle));
            }
            gate.wait_started(2);
            let [(to_first, first), (to_second, second)] = <[_; 2]>::try_from(ends).ok().unwrap();
            to_first.send(second).unwrap();
            to_second.send(first).unwrap();
            gate.open();
        });
        ended.unwrap();
        assert_eq!(refused.get(), 1);
    });
}

#[test]
fn a_cancelled_scope_says_so_to_the_handles() {
    on_grid(|pool| {
        let gate = Gate::new();
        let inside = gate.clone();
        let ended = pool.scope_builder().limit(1).run(|scope| {
            let running = scope.spawn_value(move || {
                inside.pass();
                "ran"
            });
            gate.wait_started(1);
            let drops = Counter::new();
            let probe = DropCounter(drops.clone());
            let waiting = scope.spawn_value(move || drop(probe));
            scope.cancel();
            assert_eq!(drops.get(), 1, "the closure is gone");
            assert!(matches!(waiting.join(), Err(JoinError::Cancelled(CancelReason::Requested))));
            let late = scope.spawn_value(|| ());
            assert!(matches!(late.join(), Err(JoinError::Cancelled(CancelReason::Requested))));
            gate.open();
            running.join().unwrap()
        });
        assert!(matches!(ended, Err(GroupError::Cancelled(CancelReason::Requested))));
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_handle_cancels_its_task_alone() {
    on_grid(|pool| {
        let gate = Gate::new();
        let inside = gate.clone();
        let drops = Counter::new();
        let ran = pool.scope_builder().limit(1).capacity(8).run(|scope| {
            let running = scope.spawn_value(move || inside.pass());
            gate.wait_started(1);
            let probe = DropCounter(drops.clone());
            let waiting = scope.spawn_value(move || drop(probe));
            let other = scope.spawn_value(|| 5);
            assert!(waiting.cancel() && !waiting.cancel() && waiting.is_finished());
            assert_eq!(drops.get(), 1);
            assert!(!running.cancel());
            gate.open();
            assert!(matches!(waiting.join(), Err(JoinError::Cancelled(CancelReason::Requested))));
            running.join().unwrap();
            other.join().unwrap()
        });
        assert_eq!(ran.unwrap(), 5, "neither is an error of the scope");
        assert_counts_add_up(&pool);
        assert_eq!((pool.metrics().tasks_cancelled, pool.metrics().tasks_succeeded), (1, 2));
    });
}

/// Fault 88.
#[test]
fn a_shutdown_amid_joins_ends_the_scope() {
    common::grid(|builder| {
        let pool = builder.build().unwrap();
        let gate = Gate::new();
        let inside = gate.clone();
        let closing = pool.clone();
        let ended = pool.scope(|scope| {
            let running = scope.spawn_value(move || inside.pass());
            gate.wait_started(1);
            closing.close();
            let late = scope.spawn_value(|| ());
            gate.open();
            running.join().unwrap();
            assert!(matches!(late.join(), Err(JoinError::Cancelled(CancelReason::ShutDown))));
            assert_eq!(scope.map(0..3, |n| n).filter(Result::is_ok).count(), 0);
        });
        assert!(matches!(ended, Err(GroupError::Cancelled(CancelReason::ShutDown))));
    });
}

/// Fault 363.
#[test]
fn handles_in_every_order_of_joins_drops_and_panics_leave_nothing_behind() {
    quiet_panics();
    on_grid(|pool| {
        let (made, drops) = (AtomicUsize::new(0), Counter::new());
        for round in 0..32_usize {
            let _ = pool.scope(|scope| {
                let handles: Vec<_> = (0..8)
                    .map(|task| {
                        let (made, drops) = (&made, &drops);
                        scope.spawn_value(move || {
                            made.fetch_add(1, Ordering::SeqCst);
                            let value = DropCounter(drops.clone());
                            assert!((round + task) % 5 != 0, "one of the panics");
                            value
                        })
                    })
                    .collect();
                for (task, handle) in handles.into_iter().enumerate() {
                    match (round >> (task % 4)) % 4 {
                        0 => drop(handle.join()),
                        1 => drop(handle),
                        2 => _ = handle.cancel(),
                        _ => _ = handle.wait_timeout(Duration::ZERO),
                    }
                }
            });
            assert_eq!(made.load(Ordering::SeqCst), drops.get(), "round {round}");
        }
        assert_counts_add_up(&pool);
    });
}
