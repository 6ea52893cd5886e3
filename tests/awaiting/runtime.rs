//! On the only thread of a runtime: what would block it would never end.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use workcrew::{CancelReason, CancellationToken, GroupError, OnDrop, WorkerPool};

use crate::common::{Gate, pool, with_watchdog};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

/// Opens a gate from another task of the runtime, which runs only if the thread is free.
fn opens_later(gate: &Gate) {
    let gate = gate.clone();
    tokio::spawn(async move {
        tokio::task::yield_now().await;
        gate.open();
    });
}

/// Fault 328.
#[test]
fn no_wait_and_no_drop_blocks_the_thread_of_a_runtime() {
    with_watchdog(|| {
        runtime().block_on(async {
            let pool = WorkerPool::builder().workers(1).build().unwrap();
            let gates: Vec<_> = (0..3).map(|_| Gate::new()).collect();
            let (first, second, third) = (gates[0].clone(), gates[1].clone(), gates[2].clone());

            let group = pool.group();
            group.spawn(move || first.pass());
            opens_later(&gates[0]);
            group.await.unwrap();

            pool.execute(move || second.pass()).unwrap();
            opens_later(&gates[1]);
            pool.wait_idle_async().await;

            pool.execute(move || third.pass()).unwrap();
            opens_later(&gates[2]);
            pool.shutdown_async().await;
            drop(pool);
        });
    });
}

/// Fault 328.
#[test]
fn the_drop_of_a_detached_pool_does_not_block_the_thread_of_a_runtime() {
    with_watchdog(|| {
        runtime().block_on(async {
            let pool = WorkerPool::builder().workers(1).on_drop(OnDrop::Detach).build().unwrap();
            let gate = Gate::new();
            let inside = gate.clone();
            let handle = pool.spawn(move || inside.pass()).unwrap();
            opens_later(&gate);
            drop(pool);
            handle.await.unwrap();
        });
    });
}

/// Fault 328.
#[test]
fn a_limit_of_an_awaited_shutdown_comes_from_the_runtime() {
    with_watchdog(|| {
        let gate = Gate::new();
        runtime().block_on(async {
            let pool = WorkerPool::builder().workers(1).build().unwrap();
            let inside = gate.clone();
            pool.execute(move || inside.pass()).unwrap();
            gate.wait_started(1);
            let limit = Duration::from_millis(5);
            assert!(tokio::time::timeout(limit, pool.shutdown_async()).await.is_err());
            assert_eq!(pool.shutdown_now().tasks_running, 1);
            drop(pool); // a report has named the task, so this does not wait for it
        });
        gate.open();
    });
}

/// Fault 324.
#[test]
fn a_group_in_a_select_ends_with_the_branch_that_was_not_taken() {
    with_watchdog(|| {
        let (pool, gate) = (pool(1, 4), Gate::new());
        let token = runtime().block_on(async {
            let group = pool.group();
            let inside = gate.clone();
            group.spawn(move || inside.pass());
            group.spawn(|| ());
            let token = group.token().clone();
            let timed_out = tokio::time::timeout(Duration::from_millis(5), group).await;
            assert!(timed_out.is_err());
            token
        });
        assert_eq!(token.reason(), Some(CancelReason::Requested));
        gate.open();
    });
}

/// Fault 325.
#[test]
fn deadlines_pass_on_a_runtime_without_a_timer() {
    with_watchdog(|| {
        let (pool, gate) = (pool(1, 4), Gate::new());
        Builder::new_current_thread().build().unwrap().block_on(async {
            let token = CancellationToken::with_timeout(Duration::from_millis(5));
            assert_eq!(token.cancelled().await, CancelReason::Expired);
            let inside = gate.clone();
            pool.execute(move || inside.pass()).unwrap();
            gate.wait_started(1);
            let group = pool.group::<()>().parent(&CancellationToken::with_timeout(Duration::from_millis(5)));
            group.spawn(|| ());
            assert!(matches!(group.await, Err(GroupError::Cancelled(CancelReason::Expired))));
        });
        gate.open();
    });
}

/// Fault 327.
#[test]
fn a_driven_future_cannot_await_the_idleness_of_its_own_pool() {
    crate::common::quiet_panics();
    with_watchdog(|| {
        let pool = pool(1, 4);
        let driver = workcrew::driver::Driver::new(&pool, 1).unwrap();
        let inner = pool.clone();
        assert!(driver.spawn(async move { inner.wait_idle_async().await }).unwrap().join().is_err());
    });
}
