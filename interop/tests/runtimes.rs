//! Handles, submissions, cancellations and flights awaited by real runtimes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::future::{Future, pending};
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use common::{LIMIT, pool, with_watchdog};
use futures::FutureExt;
use futures::future::{Either, join_all, select};
use workcrew::driver::{Driver, DriverError};
use workcrew::{CancelReason, CancellationToken, JoinError, WorkerPool};

/// Counts values that arise and values that are dropped.
#[derive(Clone, Default)]
struct Balance {
    made: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

struct Value(Balance);

impl Balance {
    fn value(&self) -> Value {
        self.made.fetch_add(1, Ordering::SeqCst);
        Value(self.clone())
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// Awaits 1,000 handles; some after time-outs, some raced against their drop. Each result arises once and goes once.
async fn thousand<S: Future>(pool: WorkerPool, sleep: impl Fn(Duration) -> S) -> usize {
    let balance = Balance::default();
    let awaited = AtomicUsize::new(0);
    let one = |n: usize| {
        let (balance, awaited, pool, sleep) = (balance.clone(), &awaited, &pool, &sleep);
        async move {
            let handle = pool.spawn_async(move || {
                (0..n % 97).for_each(|_| thread::yield_now());
                balance.value()
            });
            let mut handle = handle.await.unwrap();
            let pause = Duration::from_micros(n as u64 % 50);
            match n % 3 {
                // Raced against a time-out, and kept.
                0 => match select(&mut handle, Box::pin(sleep(pause))).await {
                    Either::Left((value, _)) => drop(value.unwrap()),
                    Either::Right(_) => drop(handle.await.unwrap()),
                },
                // Raced against its drop.
                1 => match select(handle, Box::pin(sleep(pause))).await {
                    Either::Left((value, _)) => drop(value.unwrap()),
                    Either::Right((_, handle)) => return drop(handle),
                },
                _ => drop(handle.await.unwrap()),
            }
            awaited.fetch_add(1, Ordering::SeqCst);
        }
    };
    join_all((0..1_000).map(one)).await;
    pool.wait_idle();
    assert_eq!((balance.made.load(Ordering::SeqCst), balance.dropped.load(Ordering::SeqCst)), (1_000, 1_000));
    awaited.load(Ordering::SeqCst)
}

#[test]
fn a_thousand_handles_awaited_in_tokio_resolve_once() {
    with_watchdog(|| {
        for threads in [1, 2] {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
            let pool = pool(2, 8);
            let awaited = runtime.block_on(thousand(pool.clone(), tokio::time::sleep));
            assert!((667..=1_000).contains(&awaited));
            assert_eq!(pool.metrics().tasks_succeeded, 1_000);
        }
    });
}

#[test]
fn a_thousand_handles_awaited_in_smol_resolve_once() {
    with_watchdog(|| {
        let pool = pool(2, 8);
        let awaited = smol::block_on(thousand(pool.clone(), smol::Timer::after));
        assert!((667..=1_000).contains(&awaited));
        assert_eq!(pool.metrics().tasks_succeeded, 1_000);
    });
}

#[test]
fn a_thousand_handles_awaited_in_the_executor_of_futures_resolve_once() {
    with_watchdog(|| {
        let pool = pool(2, 8);
        let awaited = futures::executor::block_on(thousand(pool.clone(), smol::Timer::after));
        assert!((667..=1_000).contains(&awaited));
    });
}

#[test]
fn a_time_out_keeps_the_handle() {
    with_watchdog(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let pool = pool(1, 4);
        let (open, gate) = mpsc::channel::<()>();
        let mut handle = pool.spawn(move || gate.recv().map(|()| 7)).unwrap();
        runtime.block_on(async {
            for _ in 0..3 {
                assert!(tokio::time::timeout(Duration::from_millis(1), &mut handle).await.is_err());
            }
            open.send(()).unwrap();
            assert_eq!(tokio::time::timeout(LIMIT, &mut handle).await.unwrap().unwrap(), Ok(7));
        });
    });
}

#[test]
fn waiting_for_room_does_not_hold_up_the_runtime() {
    with_watchdog(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let pool = pool(1, 1);
        let (open, gate) = mpsc::channel::<()>();
        let (started, start) = mpsc::channel();
        pool.execute(move || {
            started.send(()).unwrap();
            gate.recv().unwrap();
        })
        .unwrap();
        start.recv().unwrap();
        pool.execute(|| ()).unwrap(); // the one place
        runtime.block_on(async {
            let submitter = tokio::spawn({
                let pool = pool.clone();
                async move { pool.spawn_async(|| 5).await.unwrap().await.unwrap() }
            });
            // The one thread of the runtime goes on: it is what makes room.
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(!submitter.is_finished());
            open.send(()).unwrap();
            assert_eq!(submitter.await.unwrap(), 5);
        });
    });
}

#[test]
fn a_cancellation_ends_a_select() {
    with_watchdog(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (token, pool) = (CancellationToken::new(), pool(1, 4));
        let reason = runtime.block_on(async {
            let canceller = token.clone();
            pool.execute(move || canceller.cancel()).unwrap();
            tokio::select! {
                reason = token.cancelled() => reason,
                () = tokio::time::sleep(LIMIT) => panic!("it was not told"),
            }
        });
        assert_eq!(reason, CancelReason::Requested);
    });
}

#[test]
fn a_driver_refuses_nonsense_and_keeps_its_limit() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        assert!(matches!(Driver::new(&pool, 0), Err(DriverError::ZeroInFlight)));
        assert!(matches!(Driver::new(&pool, usize::MAX), Err(DriverError::TooManyInFlight { .. })));
        let driver = Driver::new(&pool, 8).unwrap();
        let (running, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let flights: Vec<_> = (0..1_000)
            .map(|n| {
                let (running, peak) = (Arc::clone(&running), Arc::clone(&peak));
                let flight = driver.spawn(async move {
                    peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_micros(100)).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    n
                });
                flight.unwrap()
            })
            .collect();
        let sum: usize = flights.into_iter().map(|flight| flight.join().unwrap()).sum();
        assert_eq!((sum, peak.load(Ordering::SeqCst)), (499_500, 8));
        assert_eq!((driver.in_flight(), driver.max_in_flight()), (0, 8));
    });
}

#[test]
fn launches_that_block_go_on_inside_a_task_of_another_runtime() {
    // More of them than tokio lets a task do before it is to yield, which a thread that blocks cannot.
    with_watchdog(|| {
        let pool = pool(1, 4);
        let driver = Driver::new(&pool, 1).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let launch = |_: &i32| driver.spawn(async { tokio::time::sleep(Duration::from_micros(100)).await }).is_ok();
        let launched = runtime.block_on(async { (0..300).filter(launch).count() });
        pool.wait_idle();
        assert_eq!((launched, pool.metrics().tasks_succeeded), (300, 300));
    });
}

#[test]
fn flights_that_panic_are_contained_and_the_output_of_others_goes_to_a_worker() {
    with_watchdog(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !thread::current().name().is_some_and(|name| name.starts_with("workcrew-")) {
                report(panic);
            }
        }));
        let pool = pool(1, 4);
        let driver = Driver::new(&pool, 4).unwrap();
        let panics = driver
            .spawn(async {
                if true {
                    panic!("in flight")
                }
            })
            .unwrap();
        assert!(matches!(panics.join(), Err(JoinError::Panicked(panic)) if panic.message() == Some("in flight")));
        let thread = driver.spawn_then(async { 5 }, |n| (n, thread::current().name().map(str::to_owned))).unwrap();
        assert_eq!(thread.join().unwrap(), (5, Some("workcrew-0".into())));
        let panics = driver
            .spawn_then(async { 5 }, |_| {
                if true {
                    panic!("on the worker")
                }
            })
            .unwrap();
        assert!(matches!(panics.join(), Err(JoinError::Panicked(panic)) if panic.message() == Some("on the worker")));
        let metrics = pool.metrics();
        assert_eq!((metrics.tasks_succeeded, metrics.tasks_panicked, driver.in_flight()), (1, 2, 0));
    });
}

#[test]
fn a_driven_future_that_is_cancelled_while_it_ends_has_one_outcome() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        let driver = Driver::new(&pool, 64).unwrap();
        let balance = Balance::default();
        let mut cancelled = 0;
        for n in 0..2_000 {
            let (made, then) = (balance.clone(), n % 2 == 0);
            let future = async move { made.value() };
            let flight = if then {
                driver.spawn_then(future, |value| value)
            } else {
                driver.spawn(future).map_err(|_| unreachable!())
            };
            let flight = flight.map_err(|_| "open").unwrap();
            (0..n % 13).for_each(|_| thread::yield_now());
            let was_cancelled = flight.cancel();
            cancelled += usize::from(was_cancelled);
            assert_eq!(was_cancelled, matches!(flight.join(), Err(JoinError::Cancelled(CancelReason::Requested))));
        }
        pool.wait_idle();
        // The last futures may still be on their way out.
        while balance.made.load(Ordering::SeqCst) != balance.dropped.load(Ordering::SeqCst) || driver.in_flight() > 0 {
            thread::yield_now();
        }
        let metrics = pool.metrics();
        assert_eq!((metrics.tasks_cancelled as usize, metrics.tasks_submitted), (cancelled, 2_000));
        assert_eq!(metrics.tasks_succeeded as usize, 2_000 - cancelled);
    });
}

#[test]
fn a_flight_awaited_on_the_io_thread_is_ready_when_the_other_is() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let driver = Arc::new(Driver::new(&pool, 1).unwrap());
        let inner = Arc::clone(&driver);
        let nested = driver.spawn(async move {
            // There is one slot, and this future has it: the other waits for it without the thread.
            let second = inner.spawn(async { 2 }).unwrap();
            assert!(matches!(inner.try_spawn(async {}), Err(error) if error.is_full()));
            (second,)
        });
        let (second,) = nested.unwrap().join().unwrap();
        assert_eq!(second.join().unwrap(), 2);
        assert!(pending::<()>().now_or_never().is_none());
    });
}

#[test]
fn the_only_worker_may_wait_for_a_flight_behind_an_output_that_waits_for_it() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let driver = Arc::new(Driver::new(&pool, 1).unwrap());
        for _ in 0..200 {
            let inner = Arc::clone(&driver);
            let waits = pool.spawn(move || {
                let first = inner.spawn_then(async { 1 }, |n| n).unwrap();
                let second = inner.spawn_then(async { 2 }, |n| n).unwrap();
                let third = inner.spawn(async { 3 }).unwrap();
                let fourth = inner.spawn_then(tokio::task::yield_now(), |()| 4).unwrap();
                let polled = smol::block_on(async { fourth.await.unwrap() });
                (third.join().unwrap(), second.join().unwrap(), polled, first)
            });
            let (third, second, polled, first) = waits.unwrap().join().unwrap();
            assert_eq!((first.join().unwrap(), second, third, polled), (1, 2, 3, 4));
        }
    });
}
