//! Panics of bodies, tasks and destructors, in every order.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::common::{
    self, BlockedWorkers, Bomb, Counter, DropCounter, Gate, Mutex, assert_counts_add_up, on_grid, pool, with_watchdog,
};
use workcrew::{GroupError, WorkerPool};

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
