//! Handles: waiting, helping, cancelling, detaching, awaiting.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use common::{
    BlockedWorkers, Counter, DropCounter, Gate, LIMIT, Mutex, assert_counts_add_up, nest, on_grid, pool, spawn_parked,
    with_watchdog,
};
use workcrew::{CancelReason, JoinError, JoinHandle, WorkerPool};

/// Fault 40.
#[test]
fn join_returns_the_result_whenever_it_is_called() {
    on_grid(|pool| {
        for moment in 0..60 {
            let gate = Gate::new();
            let inside = gate.clone();
            let handle = pool
                .spawn(move || {
                    inside.pass();
                    moment
                })
                .unwrap();
            match moment % 3 {
                0 => gate.open(), // at any time
                1 => {
                    gate.wait_started(1); // while it runs
                    gate.open();
                }
                _ => {
                    gate.open();
                    assert!(handle.wait_timeout(LIMIT)); // after it ended
                    assert!(handle.is_finished());
                }
            }
            assert_eq!(handle.join().unwrap(), moment);
        }
    });
}

/// Fault 41.
#[test]
fn a_finished_handle_joins_at_once() {
    with_watchdog(|| {
        let pool = pool(2, 64);
        for n in 0..20_000 {
            let handle = pool.spawn(move || n).unwrap();
            while !handle.is_finished() {
                thread::yield_now(); // where there are fewer CPUs than threads, the worker needs this one
            }
            assert!(handle.wait_timeout(Duration::ZERO));
            assert_eq!(handle.join().unwrap(), n);
        }
    });
}

/// Faults 43, 44.
#[test]
fn a_timed_wait_gives_either_the_end_or_the_time() {
    on_grid(|pool| {
        let gate = Gate::new();
        let inside = gate.clone();
        let handle = pool.spawn(move || inside.pass()).unwrap();
        for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(1)] {
            assert!(!handle.wait_timeout(timeout));
        }
        let waiter = spawn_parked(move || {
            assert!(handle.wait_timeout(Duration::MAX));
            handle.join().unwrap();
        });
        assert!(!waiter.is_finished());
        gate.open();
        waiter.join().unwrap();
    });
}

/// Fault 43.
#[test]
fn a_timed_wait_on_a_worker_does_not_run_the_task() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let inner = pool.clone();
        let outcome = pool.spawn(move || {
            let child = inner.spawn(|| thread::current().id()).unwrap();
            let timed_out = !child.wait_timeout(Duration::from_millis(1));
            (timed_out, child.join().unwrap() == thread::current().id())
        });
        assert_eq!(outcome.unwrap().join().unwrap(), (true, true));
    });
}

/// Fault 46.
#[test]
fn joins_nest_to_64_and_then_are_an_error_on_a_small_stack() {
    with_watchdog(|| {
        let pool = WorkerPool::builder().workers(1).stack_size(256 << 10).build().unwrap();
        assert_eq!(nest(&pool, 64).unwrap(), 64);
        for levels in [66, 129, 5_000] {
            assert!(matches!(nest(&pool, levels), Err(JoinError::WouldDeadlock(_))));
        }
        assert_eq!(pool.spawn(|| 1).unwrap().join().unwrap(), 1);
        assert_eq!(pool.metrics().tasks_panicked, 0);
    });
}

/// Fault 60.
#[test]
fn a_joining_worker_claims_its_task_and_the_entry_in_the_queue_is_empty() {
    on_grid(|pool| {
        let runs = Counter::new();
        let (inner, counted) = (pool.clone(), runs.clone());
        pool.spawn(move || {
            for _ in 0..200 {
                let runs = counted.clone();
                inner.spawn(move || runs.add()).unwrap().join().unwrap();
            }
        })
        .unwrap()
        .join()
        .unwrap();
        pool.wait_idle();
        assert_eq!(runs.get(), 200);
        assert_counts_add_up(&pool);
    });
}

/// Fault 61.
#[test]
fn a_claimed_task_that_panics_does_not_harm_the_joiner() {
    common::quiet_panics();
    let pool = pool(1, 4);
    let inner = pool.clone();
    let outer = pool.spawn(move || {
        let child = inner
            .spawn(|| {
                if true {
                    panic!("child")
                }
            })
            .unwrap();
        matches!(child.join(), Err(JoinError::Panicked(panic)) if panic.message() == Some("child"))
    });
    assert!(outer.unwrap().join().unwrap());
}

/// Fault 52.
#[test]
fn the_workers_of_two_pools_may_wait_for_each_other() {
    with_watchdog(|| {
        let (here, there) = (pool(1, 1), pool(1, 1));
        let back = here.clone();
        let remote = there.clone();
        let outer = here.spawn(move || {
            let answer = remote.spawn(|| thread::current().id()).unwrap().join().unwrap();
            let local = back.spawn(|| thread::current().id()).unwrap().join().unwrap();
            (answer, local, thread::current().id())
        });
        let (answer, local, own) = outer.unwrap().join().unwrap();
        assert!(answer != own && local == own);
    });
}

/// Fault 53.
#[test]
fn a_task_that_joins_itself_gets_would_deadlock() {
    on_grid(|pool| {
        let (give, take) = mpsc::channel::<JoinHandle<()>>();
        let (told, tell) = mpsc::channel();
        let handle = pool.spawn(move || told.send(take.recv().unwrap().join()).unwrap()).unwrap();
        give.send(handle).unwrap();
        assert!(matches!(tell.recv_timeout(LIMIT).unwrap(), Err(JoinError::WouldDeadlock(_))));
    });
}

/// Fault 63.
#[test]
fn a_task_that_joins_a_task_below_it_on_the_stack_gets_would_deadlock() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let (give, take) = mpsc::channel::<JoinHandle<()>>();
        let inner = pool.clone();
        let (told, tell) = mpsc::channel();
        let outer = pool.spawn(move || {
            // The child runs on this very stack, and joins this task.
            let child = inner.spawn(move || take.recv().unwrap().join());
            told.send(child.unwrap().join().unwrap()).unwrap();
        });
        give.send(outer.unwrap()).unwrap();
        assert!(matches!(tell.recv_timeout(LIMIT).unwrap(), Err(JoinError::WouldDeadlock(_))));
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_panicked, 0);
    });
}

/// Fault 54.
#[test]
fn dropping_a_handle_detaches_and_drops_the_result_once() {
    on_grid(|pool| {
        let (ran, dropped) = (Counter::new(), Counter::new());
        for _ in 0..100 {
            let (counted, result) = (ran.clone(), DropCounter(dropped.clone()));
            drop(pool.spawn(move || {
                counted.add();
                result
            }));
        }
        pool.wait_idle();
        assert_eq!((ran.get(), dropped.get()), (100, 100));
    });
}

/// Faults 55, 84.
#[test]
fn a_forgotten_handle_leaks_its_result_and_nothing_else() {
    let pool = pool(1, 4);
    let (ran, dropped) = (Counter::new(), Counter::new());
    let (counted, result) = (ran.clone(), DropCounter(dropped.clone()));
    std::mem::forget(pool.spawn(move || {
        counted.add();
        result
    }));
    pool.shutdown();
    assert_eq!((ran.get(), dropped.get()), (1, 0));
}

/// Faults 56, 59.
#[test]
fn cancel_before_the_start_drops_the_closure_and_is_final() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let (ran, dropped) = (Counter::new(), Counter::new());
        let (counted, held) = (ran.clone(), DropCounter(dropped.clone()));
        let handle = pool
            .spawn(move || {
                let _held = held;
                counted.add();
            })
            .unwrap();
        assert!(handle.cancel());
        assert!(handle.is_finished() && !handle.cancel());
        assert_eq!(dropped.get(), 1);
        wedge.open();
        assert!(matches!(handle.join(), Err(JoinError::Cancelled(CancelReason::Requested))));
        pool.wait_idle();
        assert_eq!((ran.get(), pool.metrics().tasks_cancelled), (0, 1));
    });
}

/// Faults 57, 59.
#[test]
fn cancel_while_running_or_after_the_end_changes_nothing() {
    on_grid(|pool| {
        let gate = Gate::new();
        let inside = gate.clone();
        let handle = pool
            .spawn(move || {
                inside.pass();
                4
            })
            .unwrap();
        gate.wait_started(1);
        assert!(!handle.cancel());
        gate.open();
        assert!(handle.wait_timeout(LIMIT) && !handle.cancel());
        assert_eq!(handle.join().unwrap(), 4);
    });
}

/// Fault 58.
#[test]
fn cancel_racing_the_start_leaves_exactly_one_of_ran_and_cancelled() {
    with_watchdog(|| {
        let pool = pool(2, 64);
        for _ in 0..20_000 {
            let ran = Counter::new();
            let counted = ran.clone();
            let handle = pool.spawn(move || counted.add()).unwrap();
            let cancelled = handle.cancel();
            let outcome = handle.join();
            assert_eq!(cancelled, matches!(outcome, Err(JoinError::Cancelled(_))));
            assert_eq!(ran.get(), usize::from(!cancelled));
        }
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

/// Fault 62.
#[test]
fn many_threads_may_watch_one_handle() {
    let pool = pool(1, 4);
    let gate = Gate::new();
    let inside = gate.clone();
    let handle = Arc::new(pool.spawn(move || inside.pass()).unwrap());
    let watchers: Vec<_> = (0..16)
        .map(|_| {
            let handle = Arc::clone(&handle);
            spawn_parked(move || handle.wait_timeout(LIMIT))
        })
        .collect();
    assert!(watchers.iter().all(|watcher| !watcher.is_finished()));
    gate.open();
    assert!(watchers.into_iter().all(|watcher| watcher.join().unwrap()));
}

#[test]
fn ids_are_unique_and_a_handle_shows_something() {
    let pool = pool(1, 4);
    let (one, two) = (pool.spawn(|| ()).unwrap(), pool.spawn(|| ()).unwrap());
    assert_ne!(one.id(), two.id());
    assert!(format!("{one:?}").contains("JoinHandle"));
}

/// Counts its wake-ups and remembers them.
#[derive(Default)]
struct Alarm {
    rung: Counter,
    bell: Mutex<Option<mpsc::Sender<()>>>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.rung.add();
        if let Some(bell) = &*self.bell.lock().unwrap() {
            let _ = bell.send(());
        }
    }
}

fn poll<T>(handle: &mut JoinHandle<T>, alarm: &Arc<Alarm>) -> Poll<Result<T, JoinError>> {
    Pin::new(handle).poll(&mut Context::from_waker(&Waker::from(Arc::clone(alarm))))
}

/// Fault 137b.
#[test]
fn a_handle_is_a_future_that_wakes_the_last_waker() {
    on_grid(|pool| {
        let gate = Gate::new();
        let inside = gate.clone();
        let mut handle = pool
            .spawn(move || {
                inside.pass();
                8
            })
            .unwrap();
        let (first, last) = (Arc::new(Alarm::default()), Arc::new(Alarm::default()));
        let (bell, rings) = mpsc::channel();
        *last.bell.lock().unwrap() = Some(bell);
        assert!(poll(&mut handle, &first).is_pending());
        assert!(poll(&mut handle, &last).is_pending());
        gate.open();
        rings.recv_timeout(LIMIT).unwrap();
        assert!(matches!(poll(&mut handle, &last), Poll::Ready(Ok(8))));
        assert_eq!((first.rung.get(), last.rung.get()), (0, 1));
        assert!(poll(&mut handle, &last).is_pending(), "ready once, then pending forever");
    });
}

/// Fault 137c.
#[test]
fn a_future_dropped_after_a_poll_calls_no_waker() {
    on_grid(|pool| {
        let gate = Gate::new();
        let inside = gate.clone();
        let mut handle = pool.spawn(move || inside.pass()).unwrap();
        let alarm = Arc::new(Alarm::default());
        assert!(poll(&mut handle, &alarm).is_pending());
        drop(handle);
        gate.open();
        pool.wait_idle();
        assert_eq!(alarm.rung.get(), 0);
        assert_eq!(Arc::strong_count(&alarm), 1, "the waker was kept");
    });
}

/// Fault 137d.
#[test]
fn a_waker_that_panics_is_contained() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("waker");
        }
    }
    common::quiet_panics();
    on_grid(|pool| {
        let gate = Gate::new();
        let inside = gate.clone();
        let mut handle = pool.spawn(move || inside.pass()).unwrap();
        let waker = Waker::from(Arc::new(Panics));
        assert!(Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)).is_pending());
        gate.open();
        assert!(handle.wait_timeout(LIMIT));
        assert_eq!(pool.spawn(|| 1).unwrap().join().unwrap(), 1);
    });
}

/// Fault 137d.
#[test]
fn a_waker_may_use_the_pool() {
    struct Submits(WorkerPool, mpsc::Sender<usize>);
    impl Wake for Submits {
        fn wake(self: Arc<Self>) {
            let told = self.1.clone();
            let workers = self.0.metrics().workers;
            self.0.execute(move || told.send(workers).unwrap()).unwrap();
        }
    }
    on_grid(|pool| {
        let (gate, (told, tell)) = (Gate::new(), mpsc::channel());
        let inside = gate.clone();
        let mut handle = pool.spawn(move || inside.pass()).unwrap();
        let waker = Waker::from(Arc::new(Submits(pool.clone(), told)));
        assert!(Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)).is_pending());
        gate.open();
        assert_eq!(tell.recv_timeout(LIMIT).unwrap(), pool.workers());
    });
}

/// Fault 137f.
#[test]
fn a_shutdown_wakes_the_waiter_of_a_task_that_never_runs() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let mut handle = pool.spawn(|| ()).unwrap();
        let alarm = Arc::new(Alarm::default());
        let (bell, rings) = mpsc::channel();
        *alarm.bell.lock().unwrap() = Some(bell);
        assert!(poll(&mut handle, &alarm).is_pending());
        pool.shutdown_now();
        rings.recv_timeout(LIMIT).unwrap();
        let reason = CancelReason::ShutDown;
        assert!(matches!(poll(&mut handle, &alarm), Poll::Ready(Err(JoinError::Cancelled(found))) if found == reason));
        assert!(poll(&mut handle, &alarm).is_pending(), "what was taken is not there a second time");
        wedge.open();
    });
}

/// Fault 137g.
#[test]
fn awaiting_on_the_only_worker_runs_the_task_there() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let inner = pool.clone();
        let outer = pool.spawn(move || {
            let mut child = inner.spawn(|| 3).unwrap();
            matches!(poll(&mut child, &Arc::new(Alarm::default())), Poll::Ready(Ok(3)))
        });
        assert!(outer.unwrap().join().unwrap());
    });
}

#[test]
fn after_idle_every_handle_is_finished_and_after_join_the_metrics_count_it() {
    with_watchdog(|| {
        let pool = pool(2, 64);
        for _ in 0..2_000 {
            let handle = pool.spawn(|| ()).unwrap();
            pool.wait_idle();
            assert!(handle.is_finished());
            let before = pool.metrics().tasks_succeeded;
            pool.spawn(|| ()).unwrap().join().unwrap();
            assert_eq!(pool.metrics().tasks_succeeded, before + 1);
        }
    });
}

#[test]
fn map_is_lazy_ordered_and_bounded() {
    on_grid(|pool| {
        let taken = Counter::new();
        let counted = taken.clone();
        let mut squares = pool.map((0..).inspect(move |_| counted.add()), |n: usize| n * n);
        assert_eq!(taken.get(), 0);
        for n in 0..500 {
            assert_eq!(squares.next().unwrap().unwrap(), n * n);
            assert!(taken.get() <= n + 1 + pool.queue_capacity(), "{} taken at {n}", taken.get());
        }
        drop(squares);
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

#[test]
fn map_gives_each_item_its_own_result() {
    common::quiet_panics();
    on_grid(|pool| {
        let results: Vec<_> = pool.map(0..20, |n| if n % 5 == 4 { panic!("fifth") } else { n }).collect();
        assert_eq!(results.len(), 20);
        for (n, result) in results.into_iter().enumerate() {
            assert_eq!(result.ok(), (n % 5 != 4).then_some(n));
        }
        // On a worker, and of a pool that is shut down.
        let inner = pool.clone();
        let sum: usize =
            pool.spawn(move || inner.map(0..100, |n| n).map(Result::unwrap).sum()).unwrap().join().unwrap();
        assert_eq!(sum, 4_950);
        pool.shutdown();
        let refused: Vec<_> = pool.map(0..3, |n| n).collect();
        assert!(matches!(refused[..], [Err(JoinError::Cancelled(CancelReason::ShutDown)), _, _]));
    });
}

#[test]
fn try_map_stops_at_the_first_error() {
    on_grid(|pool| {
        assert_eq!(pool.try_map(0..1_000, Ok::<_, ()>).unwrap(), (0..1_000).collect::<Vec<_>>());
        let taken = Counter::new();
        let counted = taken.clone();
        let error = pool.try_map((0..).inspect(move |_| counted.add()), |n| if n == 10 { Err(n) } else { Ok(n) });
        assert!(matches!(error, Err(workcrew::GroupError::Failed(10))));
    });
}

#[test]
fn a_wait_with_the_longest_timeout_on_the_only_worker_runs_the_task() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let inner = pool.clone();
        let ended = pool.spawn(move || inner.spawn(|| ()).unwrap().wait_timeout(Duration::MAX));
        assert!(ended.unwrap().join().unwrap());
        let (give, take) = mpsc::channel::<JoinHandle<bool>>();
        let own = pool.spawn(move || {
            let own = take.recv().unwrap();
            let answered = !own.wait_timeout(Duration::MAX);
            drop(own);
            assert!(answered);
            answered
        });
        give.send(own.unwrap()).unwrap();
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_panicked, 0);
    });
}

#[test]
fn results_whose_destructors_spawn_do_not_exhaust_the_stack() {
    struct Chain(u32, WorkerPool);
    impl Drop for Chain {
        fn drop(&mut self) {
            if let Some(left) = self.0.checked_sub(1) {
                let pool = self.1.clone();
                let _ = self.1.spawn(move || Chain(left, pool));
            }
        }
    }
    with_watchdog(|| {
        let pool = WorkerPool::builder().workers(1).queue_capacity(1).stack_size(512 << 10).build().unwrap();
        let inner = pool.clone();
        pool.execute(move || {
            let last = inner.clone();
            let _ = inner.execute(|| ());
            drop(inner.spawn(move || Chain(50_000, last)));
        })
        .unwrap();
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_succeeded, 50_003, "the chain was cut");
    });
}

#[test]
fn panics_handed_up_through_many_joins_stay_short() {
    common::quiet_panics();
    fn nest(pool: &WorkerPool, levels: u32) {
        if levels == 0 {
            panic!("the deepest \"one\"");
        }
        let inner = pool.clone();
        pool.spawn(move || nest(&inner, levels - 1)).unwrap().join().unwrap();
    }
    let pool = pool(1, 4);
    let inner = pool.clone();
    let error = pool.spawn(move || nest(&inner, 40)).unwrap().join().unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("the deepest \"one\"") && text.len() < 10_000, "{} bytes", text.len());
}

/// Fault 137a.
#[test]
fn joining_an_awaited_handle_panics_with_a_reason() {
    let pool = pool(1, 4);
    let mut handle = pool.spawn(|| 5).unwrap();
    assert!(handle.wait_timeout(LIMIT));
    assert!(matches!(poll(&mut handle, &Arc::new(Alarm::default())), Poll::Ready(Ok(5))));
    let panic = std::panic::catch_unwind(|| handle.join()).unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().contains("taken before"));
}
