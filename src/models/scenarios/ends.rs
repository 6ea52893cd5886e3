//! Pools that end or are resized while other threads use them; timers and retries.

use std::time::Duration;

use super::{Count, assert_balanced, pool};
use crate::error::{CancelReason, JoinError};
use crate::models::explore::{explore_scenario, join};
use crate::pool::overflow::Overflow;
use crate::pool::worker_pool::WorkerPool;
use crate::retry::RetryPolicy;
use crate::sync::{Arc, Time, thread};

/// Starts a thread that submits `jobs` closures and returns how many were accepted.
fn submitter(pool: &Arc<WorkerPool>, runs: &Count, jobs: usize) -> thread::JoinHandle<usize> {
    let (pool, runs) = (Arc::clone(pool), runs.clone());
    thread::spawn(move || (0..jobs).filter(|_| pool.execute(runs.adder()).is_ok()).count())
}

#[test]
fn shutdown_now_and_submit_and_blocked() {
    for time in [Time::Frozen, Time::Skips] {
        explore_scenario("shutdown_now_and_submit_and_blocked", time, || {
            let (pool, runs) = (pool(1, 1), Count::default());
            let submitters = [submitter(&pool, &runs, 2), submitter(&pool, &runs, 1)];
            let handle = pool.try_spawn(runs.adder()).ok();
            let report = pool.shutdown_now();
            let accepted: usize = submitters.into_iter().map(join).sum();
            pool.wait_idle(); // the shutdown does not wait for tasks that were reported as running
            pool.shutdown();
            let spawned = usize::from(handle.is_some());
            let (metrics, run) = (pool.metrics(), runs.get());
            assert_eq!(
                accepted + spawned,
                run + metrics.tasks_cancelled as usize,
                "an accepted task has exactly one outcome"
            );
            assert!(report.tasks_cancelled <= accepted + spawned);
            if let Some(Err(error)) = handle.map(crate::task::handle::JoinHandle::join) {
                assert!(matches!(error, JoinError::Cancelled(CancelReason::ShutDown)));
            }
            assert_balanced(&pool);
        });
    }
}

#[test]
fn resize_under_load() {
    explore_scenario("resize_under_load", Time::Frozen, || {
        let (pool, runs) = (pool(2, 1), Count::default());
        let submitters = [submitter(&pool, &runs, 2), submitter(&pool, &runs, 2)];
        let resizer = thread::spawn({
            let pool = Arc::clone(&pool);
            move || [1, 2, 1].map(|workers| pool.resize(workers).is_ok())
        });
        let group = pool.group();
        for value in 0..2 {
            group.spawn(move || Ok::<_, ()>(value));
        }
        assert_eq!(group.wait().ok(), Some(vec![0, 1]), "a group finds workers at any size of the pool");
        assert_eq!(join(resizer), [true; 3]);
        let accepted: usize = submitters.into_iter().map(join).sum();
        pool.shutdown();
        assert_eq!((accepted, runs.get()), (4, 4), "a worker that ends leaves no job behind");
        assert_balanced(&pool);
    });
}

#[test]
fn resize_and_shutdown_and_submit() {
    explore_scenario("resize_and_shutdown_and_submit", Time::Frozen, || {
        let (pool, runs) = (pool(1, 1), Count::default());
        let submitter = submitter(&pool, &runs, 2);
        let resizer = thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.resize(2).is_ok()
        });
        pool.shutdown();
        let _ = join(resizer);
        assert_eq!(
            join(submitter),
            runs.get(),
            "an accepted task runs before the shutdown returns, and a refused task does not run"
        );
        assert_balanced(&pool);
    });
}

#[test]
fn overflow_policies() {
    explore_scenario("overflow_policies", Time::Frozen, || {
        for overflow in [Overflow::CallerRuns, Overflow::DiscardOldest, Overflow::DiscardNewest] {
            let builder = WorkerPool::builder().workers(1).queue_capacity(1).overflow(overflow);
            let pool = Arc::new(builder.build().expect("the model has room"));
            let runs = Count::default();
            let others = submitter(&pool, &runs, 2);
            let accepted = (0..2).filter(|_| pool.execute(runs.adder()).is_ok()).count() + join(others);
            pool.shutdown();
            let cancelled = pool.metrics().tasks_cancelled as usize;
            assert_eq!((accepted, runs.get() + cancelled), (4, 4), "each task is either run or discarded");
            assert_balanced(&pool);
        }
    });
}

#[test]
fn timers_and_shutdown() {
    explore_scenario("timers_and_shutdown", Time::Skips, || {
        let (pool, runs) = (pool(1, 1), Count::default());
        let timers: Vec<_> =
            (0..2).filter_map(|delay| pool.execute_after(Duration::from_secs(delay), runs.adder()).ok()).collect();
        let ticks = runs.clone();
        let periodic = pool.execute_every(Duration::from_secs(1), move || ticks.add()).ok();
        let canceller = thread::spawn(move || timers.iter().filter(|timer| timer.cancel()).count());
        pool.shutdown();
        let cancelled = join(canceller);
        assert!(cancelled <= 2 && periodic.is_none_or(|timer| timer.is_finished()));
        assert_balanced(&pool);
    });
}

#[test]
fn retry() {
    explore_scenario("retry", Time::Skips, || {
        let (pool, runs) = (pool(2, 1), Count::default());
        let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(3);
        let attempts = runs.clone();
        let flaky = pool.spawn_with_retry(policy.clone(), move |attempt| {
            attempts.add();
            if attempt.number() < 3 { Err("no answer") } else { Ok(attempt.number()) }
        });
        let hopeless = pool.spawn_with_retry(policy, |_| Err::<(), _>("no answer"));
        let other = submitter(&pool, &runs, 1);
        let flaky = flaky.unwrap_or_else(|_| panic!("the pool is open")).join();
        assert!(matches!(flaky, Ok(Ok(3))), "a task is retried until it succeeds");
        let hopeless = hopeless.unwrap_or_else(|_| panic!("the pool is open")).join();
        assert!(matches!(hopeless, Ok(Err(error)) if error.attempts() == 3));
        assert_eq!(join(other), 1);
        pool.shutdown();
        assert_eq!(runs.get(), 4);
        assert_balanced(&pool);
    });
}

#[test]
fn retry_and_shutdown() {
    explore_scenario("retry_and_shutdown", Time::Skips, || {
        let pool = pool(1, 1);
        let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(3);
        let task = pool.spawn_with_retry(policy, |attempt| if attempt.number() < 3 { Err(()) } else { Ok(()) });
        let task = task.unwrap_or_else(|_| panic!("the pool is open"));
        let ender = thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.shutdown_now()
        });
        match task.join() {
            Ok(Ok(())) => {}
            Ok(Err(given_up)) => assert!(given_up.attempts() < 3, "a task fails when it cannot be retried"),
            Err(error) => assert!(matches!(error, JoinError::Cancelled(CancelReason::ShutDown))),
        }
        let _ = join(ender);
        pool.wait_idle(); // the shutdown does not wait for tasks that were reported as running
        pool.shutdown();
        assert_balanced(&pool);
    });
}
