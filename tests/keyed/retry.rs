//! Tasks of keys that are retried.

use std::sync::Arc;
use std::time::Duration;

use workcrew::retry::{GiveUpReason, RetryPolicy};
use workcrew::{CancelReason, JoinError, JoinHandle, KeyedExecutor, WorkerPool};

use crate::common::{
    Counter, DropCounter, Gate, Mutex, assert_counts_add_up, on_grid, pool, quiet_panics, with_watchdog,
};

/// Submits a task that fails at its first attempt and calls `task` at its second.
pub(crate) fn second_time<K: std::hash::Hash + Eq + Send + Sync + 'static>(
    executor: &KeyedExecutor<K>,
    key: K,
    task: impl Fn() + Send + 'static,
) {
    let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(2);
    let attempts = move |attempt: workcrew::retry::Attempt| {
        if attempt.number() == 1 {
            return Err("the first attempt fails");
        }
        task();
        Ok(())
    };
    drop(executor.spawn_with_retry(key, policy, attempts).unwrap());
}

/// A task of `key` that fails once, and is then delayed forever.
fn delayed(
    executor: &KeyedExecutor<u32>,
    key: u32,
) -> (JoinHandle<Result<(), workcrew::retry::RetryError<&'static str>>>, Counter) {
    let (gate, dropped) = (Gate::new(), Counter::new());
    let (inside, held) = (gate.clone(), DropCounter(dropped.clone()));
    gate.open();
    let policy = RetryPolicy::fixed(Duration::from_secs(3_600)).max_attempts(5);
    let attempts = move |_: workcrew::retry::Attempt| {
        let _held = &held;
        inside.pass();
        Err("fails")
    };
    let handle = executor.spawn_with_retry(key, policy, attempts).unwrap();
    gate.wait_started(1);
    (handle, dropped)
}

/// Fault 416.
#[test]
fn a_retried_task_holds_its_key_and_no_worker() {
    on_grid(|pool| {
        let executor = KeyedExecutor::builder(&pool).capacity(100).build();
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |text: &'static str| {
            let order = Arc::clone(&order);
            move || order.lock().unwrap().push(text)
        };
        let gate = Gate::new();
        let (inside, attempt_of) = (gate.clone(), note("attempt"));
        let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(4);
        let first = executor.spawn_with_retry(1, policy, move |attempt| {
            attempt_of();
            inside.pass();
            if attempt.number() < 4 { Err("busy") } else { Ok(attempt.number()) }
        });
        let first = first.unwrap();
        gate.wait_started(1);
        executor.execute(1, note("next")).unwrap();
        gate.open();
        let other = executor.spawn(2, || 2).unwrap();
        assert_eq!(other.join().unwrap(), 2);
        assert_eq!(first.join().unwrap().unwrap(), 4);
        executor.wait_idle();
        assert_eq!(*order.lock().unwrap(), ["attempt", "attempt", "attempt", "attempt", "next"]);
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_succeeded, 3);
        assert_eq!((executor.keys_active(), executor.len()), (0, 0));
    });
}

/// Fault 416.
#[test]
fn a_retried_task_that_is_given_up_or_panics_frees_its_key() {
    quiet_panics();
    on_grid(|pool| {
        let executor = KeyedExecutor::builder(&pool).capacity(100).build();
        let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(3);
        let panics = executor.spawn_with_retry(1, policy.clone(), |_| -> Result<(), &str> { panic!("each time") });
        let fails = executor.spawn_with_retry(1, policy, |_| Err::<(), _>("no")).unwrap();
        let works = executor.spawn(1, || 3).unwrap();
        assert_eq!(panics.unwrap().join().unwrap().unwrap_err().attempts(), 3);
        assert_eq!(fails.join().unwrap().unwrap_err().reason(), GiveUpReason::Attempts);
        assert_eq!(works.join().unwrap(), 3);
        pool.wait_idle();
        let metrics = pool.metrics();
        assert_eq!((metrics.tasks_panicked, metrics.tasks_failed, metrics.timers_pending), (1, 1, 0));
        assert_counts_add_up(&pool);
    });
}

/// Fault 417.
#[test]
fn a_worker_that_joins_a_delayed_task_keeps_time_itself() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let executor = pool.keyed();
        let own = executor.clone();
        // The only worker waits: no other could make the attempts.
        let task = pool.spawn(move || {
            let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(3);
            let retried = own.spawn_with_retry(1, policy.clone(), |attempt| {
                if attempt.number() < 3 { Err("busy") } else { Ok(attempt.number()) }
            });
            let behind = own.spawn(1, || 7).unwrap();
            let joined = (behind.join().unwrap(), retried.unwrap().join().unwrap().unwrap());
            second_time(&own, 2, || ());
            own.wait_idle();
            joined
        });
        assert_eq!(task.unwrap().join().unwrap(), (7, 3));
        assert_eq!(executor.keys_active(), 0);
    });
}

/// Fault 417.
#[test]
fn a_delayed_task_that_its_handle_cancels_frees_its_key() {
    on_grid(|pool| {
        let executor = KeyedExecutor::builder(&pool).capacity(100).build();
        let (first, dropped) = delayed(&executor, 1);
        let next = executor.spawn(1, || 2).unwrap();
        // If the attempt has not ended yet, the handle cancels the token, and the attempt is the
        // last.
        let cancelled = first.cancel();
        assert_eq!(next.join().unwrap(), 2);
        let error = first.join().unwrap().unwrap_err();
        assert_eq!((error.reason(), error.attempts()), (GiveUpReason::Cancelled(CancelReason::Requested), 1));
        executor.wait_idle();
        pool.wait_idle();
        assert_eq!((dropped.get(), executor.keys_active(), pool.metrics().timers_pending), (1, 0, 0), "{cancelled}");
        assert_counts_add_up(&pool);
    });
}

/// Fault 417.
#[test]
fn each_end_of_a_pool_ends_a_delayed_task_once() {
    let ends: [fn(&WorkerPool); 3] = [
        |pool| pool.shutdown(),
        |pool| _ = pool.shutdown_timeout(Duration::MAX),
        |pool| {
            pool.shutdown_now();
            pool.shutdown();
        },
    ];
    for (number, end) in ends.into_iter().enumerate() {
        on_grid(|pool| {
            let executor = KeyedExecutor::builder(&pool).capacity(100).build();
            let (first, dropped) = delayed(&executor, 1);
            let ran = Counter::new();
            let behind = ran.clone();
            let next = executor.spawn(1, move || behind.add()).unwrap();
            end(&pool);
            pool.wait_idle(); // after a `shutdown_now`, `shutdown` does not wait for a running task
            assert_eq!(first.join().unwrap().unwrap_err().attempts(), 1);
            let (runs, joined) = (ran.get(), next.join());
            match joined {
                Ok(()) => assert_eq!(runs, 1),
                Err(error) => {
                    assert_eq!(number, 2, "a pool that drains runs the next task");
                    assert!(matches!(error, JoinError::Cancelled(CancelReason::ShutDown)), "{error}");
                    // The first fails instead if its attempt has not ended yet.
                    let metrics = pool.metrics();
                    assert_eq!((runs, metrics.tasks_cancelled + metrics.tasks_failed), (0, 2), "{metrics:?}");
                }
            }
            assert_eq!(dropped.get(), 1);
            assert_eq!((executor.keys_active(), executor.len()), (0, 0));
            assert_counts_add_up(&pool);
        });
    }
}
