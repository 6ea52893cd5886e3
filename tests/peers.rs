//! What the test suites of other pools assert, held against this one. Each test names its source; only the facts are
//! theirs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    BlockedWorkers, Bomb, Counter, DropCounter, Gate, LIMIT, Mutex, assert_counts_add_up, fill, grid, join_all,
    on_grid, pool, spawn_parked, with_watchdog,
};
use workcrew::{CancelReason, GroupError, GroupPolicy, JoinError, Overflow, TaskError, WorkerPool};

/// From the JDK's `testGetActiveCount` and `testGetCompletedTaskCount`.
#[test]
fn a_task_is_counted_as_queued_then_running_then_succeeded() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let workers = pool.workers() as u64;
        let handle = pool.spawn(|| ()).unwrap();
        let metrics = pool.metrics();
        assert_eq!((metrics.tasks_running, metrics.tasks_queued, metrics.tasks_succeeded), (workers, 1, 0));
        wedge.open();
        handle.join().unwrap();
        pool.wait_idle();
        let metrics = pool.metrics();
        assert_eq!((metrics.tasks_running, metrics.tasks_queued, metrics.tasks_succeeded), (0, 0, workers + 1));
    });
}

/// From the JDK's `testGetLargestPoolSize` and from ants, where idle workers were replaced by new ones.
#[test]
fn no_more_threads_than_workers_ever_run_tasks() {
    on_grid(|pool| {
        let threads = Arc::new(Mutex::new(HashSet::new()));
        for _ in 0..300 {
            let threads = Arc::clone(&threads);
            pool.execute(move || {
                threads.lock().unwrap().insert(thread::current().id());
            })
            .unwrap();
        }
        BlockedWorkers::new(&pool).open();
        pool.wait_idle();
        assert!(threads.lock().unwrap().len() <= pool.workers());
    });
}

/// From the JDK's `testCallerRunsOnShutdown`, `testDiscardOnShutdown`, `testDiscardOldestOnShutdown`.
#[test]
fn after_a_shutdown_every_policy_refuses_and_gives_the_closure_back() {
    for policy in [Overflow::Block, Overflow::CallerRuns, Overflow::DiscardOldest, Overflow::DiscardNewest] {
        grid(|builder| {
            let pool = builder.overflow(policy).build().unwrap();
            let (ran, dropped) = (Counter::new(), Counter::new());
            pool.shutdown();
            let closure = || {
                let (ran, held) = (ran.clone(), DropCounter(dropped.clone()));
                move || {
                    let _held = held;
                    ran.add();
                }
            };
            let kept = (pool.execute(closure()).unwrap_err(), pool.spawn(closure()).unwrap_err());
            let timed = pool.try_execute_for(Duration::ZERO, closure()).unwrap_err();
            assert!(kept.0.is_shut_down() && kept.1.is_shut_down() && timed.is_shut_down());
            assert_eq!((ran.get(), dropped.get()), (0, 0));
            kept.0.into_inner()();
            kept.1.into_inner()();
            timed.into_inner()();
            assert_eq!((ran.get(), dropped.get()), (3, 3));
            assert_eq!((pool.metrics().tasks_submitted, pool.metrics().tasks_refused), (0, 3));
        });
    }
}

/// Fault 42.
/// From folly's and rayon's tests of latches: the end of a task meets the beginning of the wait.
#[test]
fn a_join_that_overlaps_the_end_of_its_task_returns() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        for round in 0..4_000_u32 {
            let (go, wait) = mpsc::channel::<()>();
            let handle = pool
                .spawn(move || {
                    wait.recv().unwrap();
                    round
                })
                .unwrap();
            go.send(()).unwrap();
            (0..round % 64).for_each(|_| std::hint::spin_loop());
            assert_eq!(handle.join().unwrap(), round);
        }
    });
}

/// Fault 66.
/// From errgroup's `TestCancelCause`: what the token tells is what ended the group.
#[test]
fn the_token_has_the_reason_of_the_groups_cancellation() {
    common::quiet_panics();
    on_grid(|pool| {
        for fails in [true, false] {
            let group = pool.group().limit(1);
            let token = group.token().clone();
            group.spawn(move || if fails { Err::<(), _>("first") } else { panic!("first") });
            assert!(group.wait().is_err());
            assert_eq!(token.check().unwrap_err().reason(), CancelReason::GroupEnded);
        }
        let group = pool.group();
        let token = group.token().clone();
        group.spawn(|| Ok::<_, ()>(()));
        group.wait().unwrap();
        assert!(token.check().is_ok());
        let group = pool.group::<()>();
        let token = group.token().clone();
        drop(group);
        assert_eq!(token.reason(), Some(CancelReason::Requested));
        let group = pool.group::<()>();
        let token = group.token().clone();
        pool.shutdown_now();
        assert_eq!(token.reason(), Some(CancelReason::ShutDown));
    });
}

/// From errgroup's `TestTryGo`: full once, not full after the drain, again and again.
#[test]
fn a_group_takes_tasks_again_each_time_it_has_drained() {
    on_grid(|pool| {
        let group = pool.group().limit(1).capacity(1);
        for round in 1..=20 {
            let gate = Gate::new();
            let inside = gate.clone();
            group.spawn(move || inside.pass());
            gate.wait_started(1);
            group.try_spawn(|| ()).unwrap();
            assert!(group.try_spawn(|| ()).unwrap_err().is_full());
            gate.open();
            while group.progress().done < 2 * round {
                thread::yield_now();
            }
        }
        assert_eq!(group.wait().unwrap().len(), 40);
    });
}

/// Fault 72.
/// From pond's `…ShouldNotDeadlockWhenPoolContextCanceledWithQueuedTasks`: the group, its parent, its pool is
/// cancelled.
#[test]
fn a_wait_that_has_begun_ends_when_queued_tasks_are_cancelled() {
    on_grid(|pool| {
        for way in 0..3 {
            let wedge = BlockedWorkers::new(&pool);
            let parent = workcrew::CancellationToken::new();
            let group = pool.group().parent(&parent).capacity(20);
            let token = group.token().clone();
            for _ in 0..20 {
                group.spawn(|| ());
            }
            let waiter = spawn_parked(move || group.wait());
            assert!(!waiter.is_finished());
            match way {
                0 => token.cancel(),
                1 => parent.cancel(),
                _ => drop(pool.shutdown_now()),
            }
            let reason = if way < 2 { CancelReason::Requested } else { CancelReason::ShutDown };
            assert!(matches!(waiter.join().unwrap(), Err(GroupError::Cancelled(found)) if found == reason));
            wedge.open();
        }
        assert_eq!(pool.shutdown_timeout(LIMIT).tasks_running, 0);
        assert_counts_add_up(&pool);
    });
}

/// From conc's tests of panics: many panic, one is told, the others are only counted.
#[test]
fn of_many_panics_in_a_group_one_is_returned_and_all_are_counted() {
    common::quiet_panics();
    on_grid(|pool| {
        let group = pool.group().policy(GroupPolicy::CollectAll);
        for n in 0..10 {
            group.spawn(move || -> () { panic!("number {n}") });
        }
        let Err(GroupError::Panicked(panic)) = group.wait() else { panic!("a panic is told") };
        assert!(panic.message().unwrap().starts_with("number "));
        assert_eq!(pool.metrics().tasks_panicked, 10);
    });
}

/// From conc's iter: nothing, one and many items, changed in place.
#[test]
fn items_of_every_number_are_changed_in_place() {
    on_grid(|pool| {
        for length in [0, 1, 2, 100, 1_000] {
            let mut items: Vec<usize> = (0..length).collect();
            pool.scope(|scope| {
                for item in &mut items {
                    scope.spawn(move || *item *= 2);
                }
            })
            .unwrap();
            assert!(items.into_iter().eq((0..length).map(|n| 2 * n)));
        }
    });
}

/// From the JDK's `testInvokeAny` and `StructuredTaskScope`'s `ShutdownOnSuccess`.
#[test]
fn one_success_among_failures_and_panics_is_enough() {
    common::quiet_panics();
    on_grid(|pool| {
        for winner in 0..6 {
            let group = pool.group().policy(GroupPolicy::FirstSuccess).limit(1);
            for n in 0..6 {
                group.spawn(move || match n {
                    _ if n == winner => Ok(n),
                    n if n % 2 == 0 => Err("failed"),
                    _ => panic!("panicked"),
                });
            }
            assert_eq!(group.wait_any().unwrap(), winner);
        }
    });
}

/// From the JDK's `testTimedInvokeAll6`: what is not done by the deadline is cancelled, what is done keeps its value.
#[test]
fn at_the_deadline_finished_tasks_keep_their_values() {
    with_watchdog(|| {
        let pool = pool(1, 64);
        let (gate, ran) = (Gate::new(), Counter::new());
        let group = pool.group().policy(GroupPolicy::CollectAll).deadline(Instant::now() + Duration::from_millis(300));
        group.spawn(|| Ok::<_, ()>("in time"));
        let (inside, token) = (gate.clone(), group.token().clone());
        group.spawn(move || {
            inside.open();
            assert!(token.wait_timeout(LIMIT));
            Ok("told")
        });
        let counted = ran.clone();
        group.spawn(move || {
            counted.add();
            Ok("never")
        });
        let outcomes = group.wait_all();
        assert!(matches!(outcomes[..2], [Ok("in time"), Ok("told")]));
        assert!(matches!(outcomes[2], Err(TaskError::Cancelled(CancelReason::Expired))));
        assert_eq!(ran.get(), 0);
    });
}

/// From `StructuredTaskScope`'s `testJoinAfterTimeout`: a wait that timed out can be taken up again.
#[test]
fn a_group_can_be_waited_for_again_after_a_timeout() {
    on_grid(|pool| {
        let gate = Gate::new();
        let mut group = pool.group();
        let inside = gate.clone();
        group.spawn(move || {
            inside.pass();
            Ok::<_, ()>(1)
        });
        for _ in 0..3 {
            group = group.wait_timeout(Duration::from_micros(100)).unwrap_err();
        }
        group.spawn(|| Ok(2));
        gate.open();
        assert_eq!(group.wait().unwrap(), [1, 2]);
    });
}

/// From ants' `TestNonblockingSubmit`: a place that becomes free is taken, and no more than it.
#[test]
fn a_freed_worker_makes_room_for_one_job() {
    on_grid(|pool| {
        let gates: Vec<Gate> = (0..pool.workers()).map(|_| Gate::new()).collect();
        for gate in &gates {
            let inside = gate.clone();
            pool.execute(move || inside.pass()).unwrap();
            gate.wait_started(1);
        }
        let hold = Gate::new();
        for _ in 0..pool.queue_capacity() {
            let inside = hold.clone();
            pool.try_execute(move || inside.pass()).unwrap();
        }
        assert!(pool.try_execute(|| ()).unwrap_err().is_full());
        gates[0].open();
        hold.wait_started(1);
        pool.try_execute(|| ()).unwrap();
        assert!(pool.try_execute(|| ()).unwrap_err().is_full());
        hold.open();
        gates.iter().for_each(Gate::open);
    });
}

/// From rayon's `custom_panic_handler_and_nested_spawn`: each panic is told once, wherever it was spawned.
#[test]
fn the_panic_hook_is_called_once_for_each_panic() {
    common::quiet_panics();
    grid(|builder| {
        let told = Counter::new();
        let counted = told.clone();
        let pool = builder.on_panic(move |_| counted.add()).build().unwrap();
        let inner = pool.clone();
        pool.execute(move || {
            let group = inner.group().policy(GroupPolicy::CollectAll);
            for _ in 0..3 {
                group.spawn(|| -> () { panic!() });
            }
            assert!(group.wait().is_err());
            assert!(inner.spawn(|| -> () { panic!() }).unwrap().join().is_err());
            panic!();
        })
        .unwrap();
        pool.wait_idle();
        assert_eq!((told.get(), pool.metrics().tasks_panicked), (5, 5));
    });
}

/// From folly's `joinTest` and `stopTest`: one runs what is pending, the other does not.
#[test]
fn draining_runs_all_that_is_pending_and_stopping_runs_none_of_it() {
    for drains in [true, false] {
        on_grid(|pool| {
            let wedge = BlockedWorkers::new(&pool);
            let ran = Counter::new();
            let pending = fill(&pool, &ran);
            if drains {
                pool.close();
            } else {
                assert_eq!(pool.shutdown_now().tasks_cancelled, pending);
            }
            wedge.open();
            assert_eq!(pool.shutdown_timeout(LIMIT).tasks_running, 0);
            assert_eq!(ran.get(), if drains { pending } else { 0 });
        });
    }
}

/// From folly's `resizeUnderLoad`.
#[test]
fn resizing_under_load_loses_nothing() {
    grid(|builder| {
        let (started, stopped) = (Counter::new(), Counter::new());
        let (start, stop) = (started.clone(), stopped.clone());
        let builder = builder.on_thread_start(move |_| start.add()).on_thread_stop(move |_| stop.add());
        let pool = builder.build().unwrap();
        let ran = Counter::new();
        for n in 0..1_000 {
            let counted = ran.clone();
            pool.execute(move || counted.add()).unwrap();
            if n % 50 == 0 {
                pool.resize(1 + n / 50 % 5).unwrap();
            }
        }
        pool.shutdown();
        assert_eq!(ran.get(), 1_000);
        assert_eq!(started.get(), stopped.get());
        assert_counts_add_up(&pool);
    });
}

/// From tokio's `JoinSet`: all are joined as they end, and then there is nothing.
#[test]
fn completions_return_every_task_and_then_none() {
    on_grid(|pool| {
        let mut group = pool.group();
        group.spawn_all((0..10).map(|n| move || Ok::<_, ()>(n)));
        let mut seen = [false; 10];
        for (index, outcome) in group.completions() {
            assert_eq!(outcome.unwrap(), index);
            assert!(!std::mem::replace(&mut seen[index], true));
        }
        assert!(seen.into_iter().all(|seen| seen));
        assert!(group.completions().next().is_none());
    });
}

/// From tokio's `JoinSet`, `abort_tasks`: half are cancelled, the others have their values.
#[test]
fn cancelling_some_tasks_leaves_the_others_their_values() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let handles: Vec<_> = (0..pool.queue_capacity()).map(|n| pool.spawn(move || n).unwrap()).collect();
        handles.iter().step_by(2).for_each(|handle| assert!(handle.cancel()));
        wedge.open();
        for (n, handle) in handles.into_iter().enumerate() {
            match handle.join() {
                Ok(value) => assert!(n % 2 == 1 && value == n),
                Err(error) => assert!(n % 2 == 0 && matches!(error, JoinError::Cancelled(CancelReason::Requested))),
            }
        }
    });
}

/// From tokio's `loom_blocking`, `spawn_mandatory_blocking_should_run_even_when_shutting_down_from_other_thread`.
#[test]
fn a_job_accepted_while_another_thread_closes_is_run() {
    with_watchdog(|| {
        for _ in 0..1_000 {
            let pool = pool(1, 4);
            let ran = Counter::new();
            thread::scope(|threads| {
                let closer = threads.spawn(|| pool.close());
                let counted = ran.clone();
                let accepted = pool.execute(move || counted.add()).is_ok();
                pool.shutdown();
                assert_eq!(ran.get(), usize::from(accepted));
                join_all([closer]);
            });
        }
    });
}

/// From threadpool's `test_join_wavesurfer` and `test_multi_join`: many wait, wave after wave.
#[test]
fn many_threads_wait_for_idle_wave_after_wave() {
    on_grid(|pool| {
        let ran = Arc::new(AtomicUsize::new(0));
        for wave in 1..=20 {
            for _ in 0..10 {
                let ran = Arc::clone(&ran);
                pool.execute(move || {
                    ran.fetch_add(1, Ordering::SeqCst);
                })
                .unwrap();
            }
            thread::scope(|threads| {
                let wait = || {
                    pool.wait_idle();
                    assert_eq!(ran.load(Ordering::SeqCst), 10 * wave);
                };
                join_all([threads.spawn(wait), threads.spawn(wait), threads.spawn(wait)]);
            });
        }
    });
}

/// From threadpool's `test_empty_pool` and `test_repeate_join`.
#[test]
fn waiting_for_an_idle_pool_returns_at_once_however_often() {
    on_grid(|pool| {
        (0..100).for_each(|_| pool.wait_idle());
        assert!(pool.wait_idle_timeout(Duration::ZERO));
        assert_eq!(pool.metrics().tasks_submitted, 0);
    });
}

/// From threadpool's `test_massive_task_creation`: more tasks than places, all of them held until the last has come.
#[test]
fn as_many_tasks_as_workers_run_at_the_same_time() {
    on_grid(|pool| {
        let barrier = Arc::new(std::sync::Barrier::new(pool.workers()));
        let ran = Counter::new();
        for _ in 0..20 * pool.workers() {
            let (barrier, ran) = (Arc::clone(&barrier), ran.clone());
            pool.execute(move || {
                barrier.wait(); // passes only if every worker is in here
                ran.add();
            })
            .unwrap();
        }
        pool.wait_idle();
        assert_eq!(ran.get(), 20 * pool.workers());
    });
}

/// Fault 93.
/// From rayon's `sleeper_stop` and `workers_stop`.
#[test]
fn sleeping_workers_end_when_an_idle_pool_is_shut_down() {
    with_watchdog(|| {
        let stopped = Counter::new();
        let stop = stopped.clone();
        let pool = WorkerPool::builder().workers(22).on_thread_stop(move |_| stop.add()).build().unwrap();
        pool.wait_idle();
        let since = Instant::now();
        pool.shutdown();
        assert_eq!(stopped.get(), 22);
        assert!(since.elapsed() < Duration::from_secs(10), "the workers were woken, not waited for by the clock");
    });
}

/// Fault 98.
/// From the JDK's `testIsTerminating`: open, closed and still working, at an end.
#[test]
fn a_pool_goes_from_open_to_closed_to_drained_and_never_back() {
    on_grid(|pool| {
        assert!(!pool.is_shut_down());
        let wedge = BlockedWorkers::new(&pool);
        pool.close();
        let report = pool.shutdown_timeout(Duration::ZERO);
        assert!(pool.is_shut_down() && !report.drained);
        assert_eq!(report.tasks_running, pool.workers());
        wedge.open();
        assert!(pool.wait_idle_timeout(LIMIT));
        let report = pool.shutdown_timeout(Duration::MAX);
        assert!(pool.is_shut_down() && report.drained && report.tasks_running == 0);
        pool.shutdown();
        assert!(pool.is_shut_down());
    });
}

/// From the JDK's `ThrowingTasks`: the pool counts every kind of panic and continues.
#[test]
fn every_kind_of_panic_in_every_form_of_submission_is_counted() {
    common::quiet_panics();
    on_grid(|pool| {
        let bombs = Counter::new();
        // A captured bomb that is not thrown would panic while the stack unwinds, which aborts the
        // process.
        let throws = |kind: usize| {
            let bomb = (kind > 2).then(|| Bomb(bombs.clone()));
            move || match (kind, bomb) {
                (0, _) => std::panic::resume_unwind(Box::new("literal")),
                (1, _) => std::panic::resume_unwind(Box::new(String::from("owned"))),
                (2, _) => std::panic::panic_any(7_u64),
                (3, bomb) => drop(bomb),
                (_, bomb) => std::panic::panic_any(bomb),
            }
        };
        for kind in 0..5 {
            pool.execute(throws(kind)).unwrap();
            assert!(matches!(pool.spawn(throws(kind)).unwrap().join(), Err(JoinError::Panicked(_))));
            let group = pool.group();
            group.spawn(throws(kind));
            assert!(matches!(group.wait(), Err(GroupError::Panicked(_))));
            assert!(matches!(pool.scope(|scope| scope.spawn(throws(kind))), Err(GroupError::Panicked(_))));
        }
        pool.wait_idle();
        assert_eq!((pool.metrics().tasks_panicked, bombs.get()), (20, 8));
        assert_counts_add_up(&pool);
    });
}
