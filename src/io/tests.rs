//! Tests of the internal API, and of how future tasks end. `tests/futures.rs` tests the public API.

use std::future::pending;
use std::time::Duration;

use super::Driver;
use super::thread::{BlockError, IoThread};
use crate::error::{CancelReason, JoinError};
use crate::pool::worker_pool::WorkerPool;
use crate::sync::{Arc, AtomicUsize, Ordering, thread};
use crate::time::deadline::Deadline;
use crate::unwind;

/// Longer than any test takes on a busy machine. Only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(60);

fn limit() -> Deadline {
    Deadline::after(LIMIT)
}

fn pool() -> WorkerPool {
    WorkerPool::builder().workers(1).build().expect("one thread can be started")
}

/// Counts its drops.
struct DropCounter(Arc<AtomicUsize>);

impl Drop for DropCounter {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_pool_has_one_io_thread_while_it_has_owners() {
    let pool = pool();
    let one = IoThread::of(&pool).expect("it starts");
    let two = IoThread::of(&pool).expect("it runs");
    assert!(Arc::ptr_eq(&one, &two));
    let name = one.block_on(async { thread::current().name().map(str::to_owned) }, limit());
    assert_eq!(name.expect("no panic").as_deref(), Some("workcrew-io"));
    drop((one, two));
    let again = IoThread::of(&pool).expect("it starts again");
    assert_eq!(again.block_on(async { 1 }, limit()).expect("no panic"), 1);
}

#[test]
fn block_on_returns_the_output_the_timeout_or_the_panic_and_is_refused_on_the_io_thread() {
    let pool = pool();
    let io = IoThread::of(&pool).expect("it starts");
    let dropped = Arc::new(AtomicUsize::new(0));
    for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(2)] {
        let held = DropCounter(Arc::clone(&dropped));
        let waits = async move {
            let _held = held;
            pending::<()>().await;
        };
        assert!(matches!(io.block_on(waits, Deadline::after(timeout)), Err(BlockError::Timeout)));
    }
    let inner = Arc::clone(&io);
    let nested = io.block_on(async move { inner.block_on(async {}, limit()) }, limit());
    assert!(matches!(nested, Ok(Err(BlockError::OnIoThread))));
    let panicked = io.block_on(async { unwind::resume(Box::new("oh no")) }, limit());
    assert!(matches!(panicked, Err(BlockError::Panicked(panic)) if panic.message() == Some("oh no")));
    assert_eq!(io.block_on(async { 1 }, limit()).expect("the thread still runs"), 1);
    assert_eq!(dropped.load(Ordering::SeqCst), 3, "a future that timed out was dropped before the next was driven");
}

#[test]
fn the_last_owner_ends_the_thread_and_its_remaining_futures_are_dropped() {
    let pool = pool();
    let dropped = Arc::new(AtomicUsize::new(0));
    for round in 1..=20 {
        let io = IoThread::of(&pool).expect("it starts");
        let held = DropCounter(Arc::clone(&dropped));
        io.spawn(async move {
            let _held = held;
            pending::<()>().await;
        });
        drop(io);
        assert_eq!(dropped.load(Ordering::SeqCst), round);
    }
}

#[test]
fn the_last_owner_may_be_dropped_on_the_thread_itself() {
    let pool = pool();
    let io = IoThread::of(&pool).expect("it starts");
    let (done, is_done) = tokio::sync::oneshot::channel();
    let owner = Arc::clone(&io);
    io.spawn(async move {
        while Arc::strong_count(&owner) > 1 {
            tokio::task::yield_now().await;
        }
        drop(owner);
        done.send(()).expect("the test waits");
    });
    drop(io);
    assert_eq!(is_done.blocking_recv(), Ok(()));
}

#[test]
fn a_cancelled_future_is_dropped_and_returns_its_permits() {
    let pool = pool();
    let driver = Driver::new(&pool, 1).expect("it starts");
    let dropped = Arc::new(AtomicUsize::new(0));
    for round in 0..200 {
        let held = DropCounter(Arc::clone(&dropped));
        let future = async move {
            let _held = held;
            pending::<()>().await;
        };
        let task = driver.try_spawn_for(LIMIT, future).expect("there is a permit, once the last future was dropped");
        if round % 2 == 0 {
            thread::yield_now();
        }
        assert!(task.cancel() && !task.cancel());
        assert!(matches!(task.join(), Err(JoinError::Cancelled(CancelReason::Requested))));
    }
    // With one run permit, the next future is driven after the last one was dropped.
    let next = driver.try_spawn_for(LIMIT, async { 1 }).expect("there is a permit");
    assert_eq!(next.join().expect("no panic"), 1);
    assert_eq!(dropped.load(Ordering::SeqCst), 200);
    pool.wait_idle();
    assert_eq!(pool.metrics().tasks_cancelled, 200);
}

#[test]
fn shutdown_drains_futures_and_a_shutdown_that_times_out_cancels_them() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let drained = pool();
    let driver = Driver::new(&drained, 4).expect("it starts");
    let late = driver.spawn(async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        5
    });
    drained.shutdown();
    assert!(matches!(late.expect("it was spawned before the shutdown").join(), Ok(5)));
    assert!(driver.spawn(async {}).expect_err("the pool is closed").is_shut_down());
    assert!(drained.metrics().tasks_succeeded == 1);

    let cancelled = pool();
    let driver = Driver::new(&cancelled, 1).expect("it starts");
    let held = DropCounter(Arc::clone(&dropped));
    let stuck = driver.spawn(async move {
        let _held = held;
        pending::<()>().await;
    });
    let report = cancelled.shutdown_timeout(Duration::from_millis(5));
    assert_eq!((report.drained, report.tasks_cancelled, report.tasks_running), (false, 1, 0));
    assert!(matches!(
        stuck.expect("it was spawned before the shutdown").join(),
        Err(JoinError::Cancelled(CancelReason::ShutDown))
    ));
    drop(driver);
    drop(cancelled);
    let limit = limit();
    while dropped.load(Ordering::SeqCst) == 0 {
        assert!(!limit.is_past(), "the cancelled future was not dropped");
        thread::yield_now();
    }
}
