//! Tasks that are tried again, on real pools. Schedules and exact times are tested beside the code.
#![cfg(feature = "retry")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::{
    BlockedWorkers, Bomb, Counter, DropCounter, Gate, LIMIT, Mutex, assert_counts_add_up, fill, in_threads, on_grid,
    pool, quiet_panics, spawn_parked, with_watchdog,
};
use workcrew::retry::{Attempt, AttemptError, ErrorClass, GiveUpReason, RetryBudget, RetryError, RetryPolicy};
use workcrew::{
    CancelReason, CancellationToken, JoinError, JoinHandle, Observer, Overflow, TaskInfo, TaskOutcome, WorkerPool,
};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(86_400);
const SHORT: Duration = Duration::from_micros(200);

fn short<E>() -> RetryPolicy<E> {
    RetryPolicy::fixed(SHORT)
}

/// Tried again, but not within this test.
fn long<E>() -> RetryPolicy<E> {
    RetryPolicy::fixed(LONG)
}

fn wait_until(done: impl Fn() -> bool) {
    with_watchdog(|| {
        while !done() {
            thread::yield_now();
        }
    });
}

#[test]
fn a_task_is_tried_until_it_succeeds_and_is_one_task_all_the_while() {
    on_grid(|pool| {
        let handle = pool
            .spawn_with_retry(short().max_attempts(10), |attempt| {
                assert_eq!(attempt.is_last(), attempt.number() == 10);
                if attempt.number() < 5 { Err("not yet") } else { Ok(attempt.number()) }
            })
            .unwrap();
        assert_eq!(handle.join().unwrap().unwrap(), 5);
        pool.wait_idle();
        let metrics = pool.metrics();
        assert_eq!((metrics.tasks_submitted, metrics.tasks_succeeded, metrics.tasks_running), (1, 1, 0));
        assert_counts_add_up(&pool);
    });
}

/// Fault 135.
#[test]
fn attempts_are_counted_in_all_and_the_first_and_the_last_error_are_kept() {
    on_grid(|pool| {
        for (max, made) in [(0, 1), (1, 1), (2, 2), (4, 4)] {
            let policy = short().max_attempts(max);
            let handle = pool.spawn_with_retry(policy, |attempt| Err::<(), _>(attempt.number())).unwrap();
            let error = handle.join().unwrap().unwrap_err();
            assert_eq!((error.attempts(), error.reason()), (made, GiveUpReason::Attempts));
            assert!(matches!(error.first(), AttemptError::Failed(1)));
            assert!(matches!(error.last(), AttemptError::Failed(last) if *last == made));
        }
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_failed, 4);
        assert_counts_add_up(&pool);
    });
}

/// Fault 135.
#[test]
fn a_panic_is_a_failure_and_is_reported_at_once() {
    quiet_panics();
    let told = Counter::new();
    let hook = told.clone();
    let pool = WorkerPool::builder().workers(1).on_panic(move |_| hook.add()).build().unwrap();
    let handle = pool
        .spawn_with_retry(short(), |attempt| match attempt.number() {
            1 => panic!("once"),
            2 => Err("twice"),
            _ => Ok("thrice"),
        })
        .unwrap();
    assert_eq!(handle.join().unwrap().unwrap(), "thrice");
    let handle =
        pool.spawn_with_retry(short::<()>().max_attempts(3), |_| -> Result<(), ()> { panic!("ever") }).unwrap();
    let error = handle.join().unwrap().unwrap_err();
    assert!(matches!(error.into_last(), AttemptError::Panicked(panic) if panic.message() == Some("ever")));
    pool.wait_idle();
    let metrics = pool.metrics();
    assert_eq!((told.get(), metrics.tasks_succeeded, metrics.tasks_panicked), (4, 1, 1));
    assert_counts_add_up(&pool);
}

#[test]
fn a_panic_of_the_error_classifier_counts_as_a_panic_of_the_attempt() {
    quiet_panics();
    let pool = pool(1, 1);
    let policy = short().max_attempts(2).retry_if(|_: &&str| panic!("cannot tell"));
    let error = pool.spawn_with_retry(policy, |_| Err::<(), _>("no")).unwrap().join().unwrap().unwrap_err();
    assert!(matches!(error.last(), AttemptError::Panicked(_)));
    assert_eq!(error.attempts(), 2);
}

#[test]
fn permanent_errors_are_final_and_others_follow_the_policy() {
    on_grid(|pool| {
        let policy = short().retry_if(|error: &u32| *error < 3);
        let error = pool.spawn_with_retry(policy, |attempt| Err::<(), _>(attempt.number())).unwrap();
        let error = error.join().unwrap().unwrap_err();
        assert_eq!((error.attempts(), error.reason()), (3, GiveUpReason::Permanent));
        // What an error asks for takes the place of a delay that would never end.
        let policy = long().classify(|wait: &Duration| ErrorClass::RetryAfter(*wait));
        let handle = pool.spawn_with_retry(policy, |attempt| if attempt.is_last() { Ok(()) } else { Err(SHORT) });
        handle.unwrap().join().unwrap().unwrap();
    });
}

#[test]
fn a_delay_holds_no_worker_and_counts_as_queued() {
    let pool = pool(1, 1);
    let tried = Counter::new();
    let counted = tried.clone();
    let handle = pool
        .spawn_with_retry(long(), move |_| {
            counted.add();
            Err::<(), _>("busy")
        })
        .unwrap();
    wait_until(|| pool.metrics().timers_pending == 1);
    with_watchdog(|| pool.spawn(|| ()).unwrap().join().unwrap());
    let metrics = pool.metrics();
    assert_eq!((metrics.tasks_queued, metrics.tasks_running, metrics.tasks_succeeded), (1, 0, 1));
    assert!(!handle.is_finished() && !handle.wait_timeout(SHORT) && !pool.wait_idle_timeout(SHORT));
    assert_counts_add_up(&pool);
    assert!(handle.cancel());
    pool.wait_idle();
    assert_eq!((tried.get(), pool.metrics().tasks_cancelled), (1, 1));
}

/// Fault 135.
#[test]
fn cancelling_in_a_delay_ends_it_at_once_frees_the_closure_and_keeps_the_error() {
    on_grid(|pool| {
        let dropped = Counter::new();
        let held = DropCounter(dropped.clone());
        let handle = pool
            .spawn_with_retry(long(), move |_| {
                let _ = &held;
                Err::<(), _>("busy")
            })
            .unwrap();
        wait_until(|| pool.metrics().timers_pending == 1);
        assert!(handle.cancel());
        assert_eq!((dropped.get(), pool.metrics().timers_pending, handle.is_finished()), (1, 0, true));
        assert!(!handle.cancel());
        let error = handle.join().unwrap().unwrap_err();
        assert_eq!((error.attempts(), error.reason()), (1, GiveUpReason::Cancelled(CancelReason::Requested)));
        assert!(matches!(error.into_last(), AttemptError::Failed("busy")));
        assert_counts_add_up(&pool);
    });
}

#[test]
fn cancelling_before_the_first_attempt_is_the_cancelling_of_any_task() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let handle = pool.spawn_with_retry(short(), |_| Err::<(), _>("busy")).unwrap();
        assert!(handle.cancel());
        assert!(matches!(handle.join(), Err(JoinError::Cancelled(CancelReason::Requested))));
        wedge.open();
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_cancelled, 1);
    });
}

#[test]
fn cancelling_during_an_attempt_signals_it_and_makes_it_the_last() {
    on_grid(|pool| {
        for succeeds in [false, true] {
            let gate = Gate::new();
            let inside = gate.clone();
            let handle = pool
                .spawn_with_retry(short(), move |attempt| {
                    inside.pass();
                    assert!(attempt.token().is_cancelled());
                    if succeeds { Ok("at last") } else { Err("told to stop") }
                })
                .unwrap();
            gate.wait_started(1);
            assert!(!handle.cancel());
            gate.open();
            match handle.join().unwrap() {
                Ok(value) => assert!(succeeds && value == "at last"),
                Err(error) => {
                    assert_eq!((error.attempts(), succeeds), (1, false));
                    assert_eq!(error.reason(), GiveUpReason::Cancelled(CancelReason::Requested));
                }
            }
        }
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_worker_that_joins_makes_the_attempts_itself_delays_included() {
    on_grid(|pool| {
        // As many waiting tasks as workers, so no other worker can make the attempts.
        let handles: Vec<_> = (0..pool.workers())
            .map(|_| {
                let inner = pool.clone();
                let outer = pool.spawn(move || {
                    let handle = inner
                        .spawn_with_retry(short(), |attempt| if attempt.is_last() { Ok(()) } else { Err("no") })
                        .unwrap();
                    handle.join().unwrap().unwrap();
                });
                outer.unwrap()
            })
            .collect();
        handles.into_iter().for_each(|handle| handle.join().unwrap());
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

/// Fault 137g.
#[test]
fn a_worker_that_awaits_makes_the_attempts_itself() {
    on_grid(|pool| {
        let inner = pool.clone();
        let outer = pool.spawn(move || {
            let handle = inner
                .spawn_with_retry(
                    short(),
                    |attempt| if attempt.number() < 4 { Err("no") } else { Ok(attempt.number()) },
                )
                .unwrap();
            pollster::block_on(handle).unwrap().unwrap()
        });
        assert_eq!(outer.unwrap().join().unwrap(), 4);
    });
}

/// A task that joins one that fails and is delayed; the share of its first attempt is still in the queue. Returns when the
/// delay has begun.
fn joined_and_delayed(pool: &WorkerPool, tried: &Counter) -> JoinHandle<Result<(), RetryError<&'static str>>> {
    let (inner, counted) = (pool.clone(), tried.clone());
    let outer = pool.spawn(move || {
        let fails = move |_: workcrew::retry::Attempt| {
            counted.add();
            Err::<(), _>("no")
        };
        inner.spawn_with_retry(long(), fails).unwrap().join().unwrap()
    });
    wait_until(|| pool.metrics().timers_pending == 1);
    outer.unwrap()
}

#[test]
fn a_share_that_is_left_in_the_queue_does_not_cut_a_delay_short() {
    let pool = pool(2, 64);
    let (gate, tried) = (Gate::new(), Counter::new());
    let inside = gate.clone();
    pool.execute(move || inside.pass()).unwrap();
    gate.wait_started(1);
    let outer = joined_and_delayed(&pool, &tried);
    gate.open();
    assert!(pool.spawn(|| ()).unwrap().wait_timeout(LIMIT)); // the free worker has come to what lay there before
    assert_eq!((tried.get(), pool.metrics().timers_pending), (1, 1));
    pool.shutdown();
    let error = outer.join().unwrap().unwrap_err();
    assert_eq!((error.attempts(), error.reason()), (1, GiveUpReason::Cancelled(CancelReason::ShutDown)));
    assert_counts_add_up(&pool);
}

#[test]
fn a_share_that_an_overflowing_queue_gives_up_leaves_its_delayed_task_alone() {
    let pool = WorkerPool::builder().workers(1).queue_capacity(1).overflow(Overflow::DiscardOldest).build().unwrap();
    let (tried, ran) = (Counter::new(), Counter::new());
    let outer = joined_and_delayed(&pool, &tried);
    let counted = ran.clone();
    pool.execute(move || counted.add()).unwrap(); // the one place is taken by the share
    assert_eq!((pool.metrics().timers_pending, pool.metrics().tasks_cancelled), (1, 0));
    pool.shutdown();
    let error = outer.join().unwrap().unwrap_err();
    assert_eq!((error.attempts(), error.reason()), (1, GiveUpReason::Cancelled(CancelReason::ShutDown)));
    assert_eq!((tried.get(), ran.get()), (1, 1));
    assert_counts_add_up(&pool);
}

#[test]
fn a_worker_waits_for_a_limited_time_without_helping() {
    let pool = pool(1, 1);
    let inner = pool.clone();
    let outer = pool.spawn(move || {
        let handle = inner.spawn_with_retry(short(), |_| Ok::<_, ()>(())).unwrap();
        (handle.wait_timeout(Duration::from_millis(2)), handle)
    });
    let (in_time, handle) = outer.unwrap().join().unwrap();
    assert!(!in_time);
    handle.join().unwrap().unwrap();
}

#[test]
#[allow(clippy::type_complexity, reason = "the type is the point: a task that owns its own handle")]
fn a_task_that_joins_itself_gets_would_deadlock_in_any_attempt() {
    let pool = pool(1, 1);
    let slot: Arc<Mutex<Option<JoinHandle<Result<(), RetryError<&str>>>>>> = Arc::default();
    let (own, gate, errors) = (Arc::clone(&slot), Gate::new(), Counter::new());
    let (inside, counted) = (gate.clone(), errors.clone());
    let handle = pool
        .spawn_with_retry(short(), move |attempt| {
            inside.pass();
            if attempt.number() == 2 {
                let handle = own.lock().unwrap().take().unwrap();
                assert!(matches!(handle.join(), Err(JoinError::WouldDeadlock(_))));
                counted.add();
                return Ok(());
            }
            Err("once more")
        })
        .unwrap();
    *slot.lock().unwrap() = Some(handle);
    gate.open();
    pool.wait_idle();
    assert_eq!(errors.get(), 1);
}

#[test]
fn closing_cancels_a_task_that_waits_and_lets_one_that_is_queued_try() {
    on_grid(|pool| {
        let waiting = pool.spawn_with_retry(long(), |_| Err::<(), _>("busy")).unwrap();
        wait_until(|| pool.metrics().timers_pending == 1);
        let wedge = BlockedWorkers::new(&pool);
        let tried = Counter::new();
        let counted = tried.clone();
        let queued = pool
            .spawn_with_retry(short(), move |_| {
                counted.add();
                Err::<(), _>("busy")
            })
            .unwrap();
        pool.close();
        assert!(waiting.is_finished() && !queued.is_finished());
        wedge.open();
        pool.shutdown();
        for (handle, name) in [(waiting, "waiting"), (queued, "queued")] {
            let error = handle.join().unwrap().unwrap_err();
            assert_eq!(error.reason(), GiveUpReason::Cancelled(CancelReason::ShutDown), "{name}");
            assert_eq!(error.attempts(), 1, "{name}");
        }
        assert_eq!((tried.get(), pool.metrics().tasks_cancelled), (1, 2));
        assert_counts_add_up(&pool);
        let refused = pool.spawn_with_retry(short(), |_| Ok::<_, ()>(5)).unwrap_err();
        assert!(refused.is_shut_down());
    });
}

#[test]
fn deadlines_are_seen_in_the_token_and_end_the_attempts() {
    let pool = pool(1, 1);
    let policy = RetryPolicy::fixed(SHORT).attempt_timeout(SHORT).max_attempts(3);
    let handle = pool
        .spawn_with_retry(policy, |attempt| {
            assert!(attempt.token().wait_timeout(LIMIT), "it passes");
            Err::<(), _>(attempt.token().reason())
        })
        .unwrap();
    let error = handle.join().unwrap().unwrap_err();
    assert!(matches!(error.last(), AttemptError::Failed(Some(CancelReason::Expired))));
    assert_eq!((error.attempts(), error.reason()), (3, GiveUpReason::Attempts));
    // A delay that is longer than the time left is not begun.
    let since = Instant::now();
    let policy = long().timeout(LONG / 2);
    let error = pool.spawn_with_retry(policy, |_| Err::<(), _>("no")).unwrap().join().unwrap().unwrap_err();
    assert_eq!((error.attempts(), error.reason()), (1, GiveUpReason::Deadline));
    assert!(since.elapsed() < LIMIT);
}

#[test]
fn one_budget_serves_all_tasks_of_a_policy() {
    on_grid(|pool| {
        let policy = short().max_attempts(u32::MAX).budget(RetryBudget::new(20));
        let handles: Vec<_> =
            (0..5).map(|_| pool.spawn_with_retry(policy.clone(), |_| Err::<(), _>("down")).unwrap()).collect();
        let errors = handles.into_iter().map(|handle| handle.join().unwrap().unwrap_err());
        let attempts: u32 =
            errors.inspect(|error| assert_eq!(error.reason(), GiveUpReason::Budget)).map(|e| e.attempts()).sum();
        assert_eq!(attempts, 5 + 20);
    });
}

#[test]
fn observers_see_one_task_that_starts_once_for_each_attempt() {
    #[derive(Default)]
    struct Seen(Mutex<Vec<String>>);
    impl Observer for Seen {
        fn task_submitted(&self, task: &TaskInfo<'_>) {
            self.0.lock().unwrap().push(format!("{} submitted", task.id()));
        }
        fn task_started(&self, task: &TaskInfo<'_>) {
            self.0.lock().unwrap().push(format!("{} started", task.id()));
        }
        fn task_ended(&self, task: &TaskInfo<'_>, outcome: TaskOutcome) {
            self.0.lock().unwrap().push(format!("{} {outcome}", task.id()));
        }
    }
    let seen = Arc::new(Seen::default());
    let pool = WorkerPool::builder().workers(1).observer(Arc::clone(&seen)).build().unwrap();
    pool.spawn_with_retry(short().max_attempts(2), |_| Err::<(), _>(())).unwrap().join().unwrap().unwrap_err();
    assert_eq!(*seen.0.lock().unwrap(), ["0 submitted", "0 started", "0 started", "0 failed"]);
}

#[test]
fn a_full_queue_is_met_as_by_any_task() {
    for (policy, cancelled) in [(Overflow::DiscardNewest, true), (Overflow::CallerRuns, false)] {
        let pool = WorkerPool::builder().workers(1).queue_capacity(1).overflow(policy).build().unwrap();
        let wedge = BlockedWorkers::new(&pool);
        fill(&pool, &Counter::new());
        let handle = pool.spawn_with_retry(short(), |_| Ok::<_, ()>(thread::current().id())).unwrap();
        match handle.join() {
            Ok(ran_on) => assert_eq!((ran_on.unwrap(), cancelled), (thread::current().id(), false)),
            Err(error) => assert!(matches!(error, JoinError::Cancelled(CancelReason::Discarded)) && cancelled),
        }
        drop(wedge);
    }
}

#[test]
fn a_closing_gives_back_the_closure_that_waits_for_room() {
    with_watchdog(|| {
        let pool = pool(1, 1);
        let wedge = BlockedWorkers::new(&pool);
        fill(&pool, &Counter::new());
        let dropped = Counter::new();
        let waiting = spawn_parked({
            let pool = pool.clone();
            let held = DropCounter(dropped.clone());
            move || {
                pool.spawn_with_retry(short(), move |_| {
                    let _ = &held;
                    Ok::<_, ()>(())
                })
            }
        });
        pool.close();
        let refused = waiting.join().unwrap().unwrap_err();
        assert!(refused.is_shut_down());
        let closure = refused.into_inner();
        assert_eq!(dropped.get(), 0);
        drop(closure);
        assert_eq!(dropped.get(), 1);
        wedge.open();
        pool.shutdown();
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_task_has_one_id_in_its_handle_and_in_all_its_attempts() {
    on_grid(|pool| {
        let (tell, told) = std::sync::mpsc::channel();
        let inner = pool.downgrade();
        let handle = pool.spawn_with_retry(short().max_attempts(3), move |_| {
            let mine = |task: &workcrew::RunningTask| task.to_string().contains("retry.rs");
            let ids = inner.upgrade().unwrap().running().into_iter().filter(mine).map(|task| task.id());
            tell.send(ids.collect::<Vec<_>>()).unwrap();
            Err::<(), _>("again")
        });
        let handle = handle.unwrap();
        let id = handle.id();
        assert_eq!(handle.join().unwrap().unwrap_err().attempts(), 3);
        assert_eq!(told.iter().collect::<Vec<_>>(), [[id]; 3]);
    });
}

#[test]
fn destructors_of_a_retried_task_do_no_harm() {
    quiet_panics();
    on_grid(|pool| {
        let dropped = Counter::new();
        let (in_closure, in_error) = (Bomb(dropped.clone()), dropped.clone());
        let handle = pool
            .spawn_with_retry(short().max_attempts(4), move |_| {
                let _ = &in_closure;
                Err::<(), _>(Bomb(in_error.clone()))
            })
            .unwrap();
        drop(handle);
        pool.wait_idle();
        assert_eq!(dropped.get(), 5); // four errors and what the closure captured
        assert_eq!(pool.metrics().tasks_failed, 1);
        assert_counts_add_up(&pool);
    });
}

/// The error of a task that its token has ended after one attempt.
fn ended_after_one_attempt<T: std::fmt::Debug>(handle: JoinHandle<Result<T, RetryError<&str>>>, reason: CancelReason) {
    let error = with_watchdog(|| handle.join()).unwrap().unwrap_err();
    assert_eq!((error.attempts(), error.reason()), (1, GiveUpReason::Cancelled(reason)));
}

/// Fault 616.
#[test]
fn the_token_of_a_retried_task_ends_its_delay_and_its_attempt_and_none_begins_then() {
    let (pool, outer) = (pool(1, 4), CancellationToken::new());
    let task = |token: &CancellationToken| pool.task().token(token).label("upload");
    // In a delay, which would never end.
    let token = outer.child_token();
    let own = pool.downgrade();
    let delayed = task(&token).spawn_with_retry(long(), move |_| {
        let running = own.upgrade().unwrap().running();
        assert!(running.iter().any(|task| task.label() == Some("upload")), "{running:?}");
        Err::<(), _>("busy")
    });
    wait_until(|| pool.metrics().timers_pending == 1);
    token.cancel();
    ended_after_one_attempt(delayed.unwrap(), CancelReason::Requested);
    assert_eq!(pool.metrics().timers_pending, 0);
    // In an attempt, which sees it.
    let token = outer.child_token();
    let gate = Gate::new();
    let inside = gate.clone();
    let running = task(&token).spawn_with_retry(short(), move |attempt| {
        inside.pass();
        attempt.token().check().map_err(|_| "stopped")
    });
    gate.wait_started(1);
    token.cancel();
    gate.open();
    ended_after_one_attempt(running.unwrap(), CancelReason::Requested);
    // Before the first attempt, at once.
    let wedge = BlockedWorkers::new(&pool);
    let token = outer.child_token();
    let queued = task(&token).spawn_with_retry(short(), |_| Ok::<_, &str>(())).unwrap();
    token.cancel();
    assert!(matches!(with_watchdog(|| queued.join()), Err(JoinError::Cancelled(CancelReason::Requested))));
    let late = task(&token).spawn_with_retry(short(), |_| Ok::<_, &str>(())).unwrap();
    assert!(matches!(with_watchdog(|| late.join()), Err(JoinError::Cancelled(CancelReason::Requested))));
    drop(wedge);
    pool.wait_idle();
    assert_counts_add_up(&pool);
}

/// Fault 616.
#[test]
fn the_timeout_of_a_retried_task_includes_its_delays_and_expiry_concerns_the_first_attempt() {
    on_grid(|pool| {
        // The time is over after the first attempt at the latest, and before the second.
        for timeout in [Duration::ZERO, SHORT] {
            let task = pool.task().timeout(timeout);
            let handle = task.spawn_with_retry(RetryPolicy::fixed(10 * SHORT), |_| Err::<(), _>("busy")).unwrap();
            ended_after_one_attempt(handle, CancelReason::Expired);
        }
        let patient = pool.task().timeout(Duration::MAX).expires_after(Duration::MAX);
        let third = |attempt: Attempt| if attempt.number() < 3 { Err("busy") } else { Ok(attempt.number()) };
        assert_eq!(patient.spawn_with_retry(short(), third).unwrap().join().unwrap().unwrap(), 3);
        for task in [pool.task().expires_after(Duration::ZERO), pool.task().deadline(Instant::now())] {
            let never = task.spawn_with_retry(short(), |_| -> Result<(), &str> { unreachable!() }).unwrap();
            assert!(matches!(never.join(), Err(JoinError::Cancelled(CancelReason::Expired))));
        }
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
    // The second attempt begins when the time for the start is over. A machine may be too slow for the first.
    let pool = pool(1, 1);
    let starts = (0..8).any(|round| {
        let due = Instant::now() + Duration::from_millis(2 << round);
        let second = move |attempt: Attempt| {
            while Instant::now() < due {
                thread::yield_now();
            }
            if attempt.number() < 2 { Err("busy") } else { Ok(attempt.number()) }
        };
        let handle = pool.task().expires_at(due).spawn_with_retry(short(), second).unwrap();
        match with_watchdog(|| handle.join()) {
            Ok(result) => result.unwrap() == 2,
            Err(error) => !matches!(error, JoinError::Cancelled(CancelReason::Expired)),
        }
    });
    assert!(starts);
}

#[test]
fn concurrent_attempts_cancels_joins_and_shutdown_lose_no_task() {
    with_watchdog(|| {
        for round in 0..60 {
            let (pool, token) = (pool(2, 2), CancellationToken::new());
            let (dropped, made, resolved) = (Counter::new(), Counter::new(), Counter::new());
            in_threads(|threads| {
                for submitter in 0..3_u64 {
                    let (pool, token, dropped, made, resolved) = (&pool, &token, &dropped, &made, &resolved);
                    threads.spawn(move || {
                        for task in 0..20_u64 {
                            let held = DropCounter(dropped.clone());
                            made.add();
                            let policy =
                                RetryPolicy::fixed(Duration::from_micros(task * submitter * 3)).max_attempts(4);
                            let attempt = move |attempt: Attempt| {
                                let _ = &held;
                                if attempt.number() < 3 { Err("no") } else { Ok(()) }
                            };
                            let submitted = match task % 2 {
                                0 => pool.spawn_with_retry(policy, attempt),
                                _ => pool.task().token(token).spawn_with_retry(policy, attempt),
                            };
                            let Ok(handle) = submitted else { continue };
                            if task % 3 == 0 {
                                handle.cancel();
                            }
                            let _ = handle.join();
                            resolved.add();
                        }
                    });
                }
                threads.spawn(|| {
                    (0..round * 15).for_each(|_| thread::yield_now());
                    token.cancel();
                    (0..round * 5).for_each(|_| thread::yield_now());
                    pool.shutdown_now();
                });
            });
            assert_eq!(pool.shutdown_timeout(LIMIT).tasks_running, 0);
            let metrics = pool.metrics();
            assert_eq!((dropped.get(), made.get()), (60, 60));
            assert_eq!(metrics.tasks_submitted as usize, resolved.get());
            assert_eq!((metrics.tasks_queued, metrics.tasks_running, metrics.timers_pending), (0, 0, 0));
            assert_counts_add_up(&pool);
        }
    });
}
