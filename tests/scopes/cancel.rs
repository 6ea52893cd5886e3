//! Errors and cancellation of a scope.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::common::{BlockedWorkers, Counter, DropCounter, Gate, LIMIT, on_grid};
use workcrew::{CancelReason, GroupError};

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
