//! Cancellation tokens: the tree, the deadline, the callbacks.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{Counter, DropCounter, LIMIT, Mutex, spawn_parked, with_watchdog};
use workcrew::{CancelReason, CancellationToken};

#[test]
fn cancellation_goes_down_the_tree_and_not_up() {
    let root = CancellationToken::new();
    let (left, right) = (root.child_token(), root.child_token());
    let leaf = left.child_token();
    left.cancel();
    assert!(left.is_cancelled() && leaf.is_cancelled());
    assert!(!root.is_cancelled() && !right.is_cancelled());
    root.cancel();
    assert!(right.is_cancelled());
    assert!(root.child_token().is_cancelled(), "born cancelled");
    assert_eq!(leaf.check().unwrap_err().reason(), CancelReason::Requested);
    assert!(CancellationToken::default().check().is_ok());
}

#[test]
fn clones_share_one_flag() {
    let token = CancellationToken::new();
    let clone = token.clone();
    drop(token.child_token());
    clone.cancel();
    clone.cancel();
    assert!(token.is_cancelled());
    assert!(format!("{token:?}").contains("Requested"));
}

#[test]
fn a_deadline_expires_the_token_and_its_children() {
    let token = CancellationToken::new();
    let soon = token.child_with_deadline(Instant::now() + Duration::from_millis(5));
    let child = soon.child_token();
    assert!(soon.wait_timeout(Duration::MAX));
    assert_eq!(soon.check().unwrap_err().reason(), CancelReason::Expired);
    assert!(child.is_cancelled() && !token.is_cancelled());
    let late = soon.child_with_deadline(Instant::now() + LIMIT);
    assert!(late.is_cancelled(), "a child is never later than its parent");
    let capped = token.child_with_deadline(Instant::now()).child_with_deadline(Instant::now() + LIMIT);
    assert!(capped.is_cancelled());
}

#[test]
fn a_wait_ends_with_the_time_or_the_cancellation() {
    with_watchdog(|| {
        let token = CancellationToken::new();
        for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(2)] {
            let since = Instant::now();
            assert!(!token.wait_timeout(timeout) && since.elapsed() >= timeout);
        }
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let child = token.child_token();
                spawn_parked(move || child.wait_timeout(Duration::MAX))
            })
            .collect();
        token.cancel();
        assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
    });
}

#[test]
fn callbacks_run_once_on_the_cancelling_thread_and_under_no_lock() {
    let token = CancellationToken::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (told, inner) = (Arc::clone(&seen), token.clone());
    let _guard = token.on_cancel(move || {
        // Under a lock of the token each of these would hang.
        let (child, late) = (inner.child_token(), Counter::new());
        let counted = late.clone();
        drop(inner.on_cancel(move || counted.add()));
        inner.cancel();
        told.lock().unwrap().push((thread::current().id(), child.is_cancelled(), late.get()));
    });
    token.cancel();
    token.cancel();
    assert_eq!(*seen.lock().unwrap(), [(thread::current().id(), true, 1)]);
}

#[test]
fn a_dropped_guard_withdraws_its_callback() {
    let token = CancellationToken::new();
    let (called, dropped) = (Counter::new(), Counter::new());
    let (counted, held) = (called.clone(), DropCounter(dropped.clone()));
    let guard = token.on_cancel(move || {
        let _held = held;
        counted.add();
    });
    drop(guard);
    assert_eq!(dropped.get(), 1);
    token.cancel();
    assert_eq!((called.get(), dropped.get()), (0, 1));
}

#[test]
fn a_callback_that_panics_keeps_no_other_from_running() {
    with_watchdog(|| {
        let quiet = thread::Builder::new().name("workcrew-test".into());
        common::quiet_panics();
        let run = || {
            let token = CancellationToken::new();
            let called = Counter::new();
            let guards: Vec<_> = (0..5)
                .map(|n| {
                    let called = called.clone();
                    drop(token.child_token().on_cancel(|| ()));
                    token.on_cancel(move || {
                        called.add();
                        assert!(n % 2 == 0, "odd ones panic");
                    })
                })
                .collect();
            token.cancel();
            drop(guards);
            called.get()
        };
        assert_eq!(quiet.spawn(run).unwrap().join().unwrap(), 5);
    });
}

#[test]
fn a_registration_racing_the_cancellation_is_called_exactly_once() {
    with_watchdog(|| {
        for _ in 0..2_000 {
            let token = CancellationToken::new();
            let called = Counter::new();
            let (go, wait) = mpsc::channel::<()>();
            let canceller = thread::spawn({
                let token = token.clone();
                move || {
                    wait.recv().unwrap();
                    token.cancel();
                }
            });
            go.send(()).unwrap();
            let counted = called.clone();
            let guard = token.on_cancel(move || counted.add());
            let child = token.child_token();
            canceller.join().unwrap();
            assert!(child.is_cancelled());
            drop(guard);
            assert_eq!(called.get(), 1);
        }
    });
}

#[test]
fn a_passed_deadline_runs_callbacks_when_the_token_is_read() {
    let token = CancellationToken::with_deadline(Instant::now());
    let called = Counter::new();
    let counted = called.clone();
    let _guard = token.on_cancel(move || counted.add());
    assert!(token.is_cancelled());
    assert_eq!(called.get(), 1);
}
