//! Idle and ending pools that are awaited.

use std::cell::RefCell;
use std::mem;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use pollster::block_on;
use workcrew::{OnDrop, WorkerPool};

use crate::alarm::{Alarm, poll, poll_ready};
use crate::common::{
    BlockedWorkers, Counter, Gate, LIMIT, assert_counts_add_up, on_grid, pool, quiet_panics, with_watchdog,
};

/// Fault 327.
#[test]
fn the_future_of_an_idle_pool_is_ready_when_the_last_task_has_ended() {
    on_grid(|pool| {
        block_on(pool.wait_idle_async());
        let (blocked, ran) = (BlockedWorkers::new(&pool), Counter::new());
        let counted = ran.clone();
        pool.execute(move || counted.add()).unwrap();
        let (alarm, rings) = Alarm::with_bell();
        let mut idle = pool.wait_idle_async();
        assert!(poll(&mut idle, &alarm).is_pending());
        assert_eq!(alarm.rung.get(), 0);
        blocked.open();
        rings.recv_timeout(LIMIT).unwrap();
        assert!(poll(&mut idle, &alarm).is_ready());
        assert_eq!(ran.get(), 1);
    });
}

/// Fault 321.
#[test]
fn a_forgotten_future_keeps_no_idleness_from_other_futures_and_threads() {
    quiet_panics();
    on_grid(|pool| {
        let blocked = BlockedWorkers::new(&pool);
        let (mut leaked, mut panicking, mut dropped) =
            (pool.wait_idle_async(), pool.wait_idle_async(), pool.wait_idle_async());
        let gone = Alarm::new();
        assert!(poll(&mut leaked, &Alarm::new()).is_pending());
        assert!(poll(&mut panicking, &Alarm::that(|| panic!("a waker"))).is_pending());
        assert!(poll(&mut dropped, &gone).is_pending());
        mem::forget(leaked);
        drop(dropped);
        assert_eq!(Arc::strong_count(&gone), 1);
        thread::scope(|scope| {
            let awaits = scope.spawn(|| block_on(pool.wait_idle_async()));
            let waits = scope.spawn(|| pool.wait_idle());
            blocked.open();
            awaits.join().unwrap();
            waits.join().unwrap();
        });
        assert_eq!(gone.rung.get(), 0);
    });
}

/// Fault 327.
#[test]
fn a_task_cannot_await_the_idleness_of_its_own_pool() {
    quiet_panics();
    on_grid(|pool| {
        let inner = pool.clone();
        let task = pool.spawn(move || block_on(inner.wait_idle_async())).unwrap();
        assert!(task.join().is_err());
        block_on(pool.wait_idle_async());
    });
}

/// Fault 328.
#[test]
fn an_awaited_shutdown_runs_what_is_queued_and_refuses_the_rest() {
    on_grid(|pool| {
        let (blocked, ran) = (BlockedWorkers::new(&pool), Counter::new());
        let counted = ran.clone();
        pool.execute(move || counted.add()).unwrap();
        let mut shutdown = pool.shutdown_async();
        assert!(!pool.is_shut_down(), "nothing happens before the first poll");
        let alarm = Alarm::new();
        assert!(poll(&mut shutdown, &alarm).is_pending());
        assert!(pool.try_execute(|| ()).is_err() && pool.is_shut_down());
        blocked.open();
        poll_ready(&mut shutdown);
        poll_ready(&mut shutdown); // and again
        assert_eq!(ran.get(), 1);
        assert!(pool.running().is_empty());
        assert_counts_add_up(&pool);
        block_on(pool.shutdown_async());
    });
}

/// Holds a worker's thread after it has left the pool.
struct HoldsThread(Gate);

impl Drop for HoldsThread {
    fn drop(&mut self) {
        self.0.pass();
    }
}

thread_local! {
    static HELD: RefCell<Option<HoldsThread>> = const { RefCell::new(None) };
}

/// Fault 328.
#[test]
fn a_drop_after_an_awaited_shutdown_never_waits() {
    with_watchdog(|| {
        for policy in [OnDrop::Drain, OnDrop::Cancel, OnDrop::Detach] {
            let pool = WorkerPool::builder().workers(1).on_drop(policy).build().unwrap();
            let gate = Gate::new();
            let held = HoldsThread(gate.clone());
            pool.execute(move || HELD.with(|slot| drop(slot.replace(Some(held))))).unwrap();
            block_on(async {
                pool.shutdown_async().await;
                drop(pool); // the worker's thread cannot be joined yet
            });
            gate.open();
        }
    });
}

/// Fault 329.
#[test]
fn an_awaited_shutdown_that_is_dropped_leaves_the_pool_closed_and_another_ends_it() {
    on_grid(|pool| {
        let blocked = BlockedWorkers::new(&pool);
        drop(pool.shutdown_async());
        assert!(!pool.is_shut_down());
        let (alarm, mut leaked, mut dropped) = (Alarm::new(), pool.shutdown_async(), pool.shutdown_async());
        assert!(poll(&mut leaked, &Alarm::new()).is_pending() && poll(&mut dropped, &alarm).is_pending());
        mem::forget(leaked);
        drop(dropped);
        assert!(pool.is_shut_down());
        assert_eq!(Arc::strong_count(&alarm), 1);
        blocked.open();
        block_on(pool.shutdown_async());
        pool.shutdown(); // joins the threads
    });
}

/// Fault 329.
#[test]
fn a_report_that_leaves_a_task_behind_ends_an_awaited_shutdown() {
    on_grid(|pool| {
        let blocked = BlockedWorkers::new(&pool);
        let (alarm, rings) = Alarm::with_bell();
        let mut shutdown = pool.shutdown_async();
        assert!(poll(&mut shutdown, &alarm).is_pending());
        assert!(!pool.shutdown_timeout(Duration::from_millis(1)).drained);
        rings.recv_timeout(LIMIT).unwrap();
        assert!(poll(&mut shutdown, &alarm).is_ready());
        block_on(pool.shutdown_async());
        blocked.open();
    });
}

/// Fault 329.
#[test]
fn a_task_that_awaits_the_shutdown_of_its_own_pool_does_not_wait() {
    on_grid(|pool| {
        let inner = pool.clone();
        let task = pool.spawn(move || block_on(inner.shutdown_async())).unwrap();
        task.join().unwrap();
        block_on(pool.shutdown_async());
    });
}

/// Fault 329.
#[test]
fn a_task_of_another_pool_that_awaits_the_end_of_a_pool_is_helped() {
    on_grid(|inner| {
        let outer = pool(1, 4);
        let (awaits, ended) = mpsc::channel();
        let task = {
            let inner = inner.clone();
            outer.spawn(move || {
                awaits.send(()).unwrap();
                block_on(inner.shutdown_async());
            })
        };
        ended.recv().unwrap();
        task.unwrap().join().unwrap();
    });
}
