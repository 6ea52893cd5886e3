//! Delayed tasks with a handle, points in time, and timers that end themselves.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/alarm.rs"]
mod alarm;
mod common;

use std::ops::ControlFlow;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use alarm::{Alarm, poll, poll_ready};
use common::{
    BlockedWorkers, Counter, DropCounter, Gate, LIMIT, assert_counts_add_up, on_grid, pool, quiet_panics, with_watchdog,
};
use workcrew::{CancelReason, JoinError, Period};

const LONG: Duration = Duration::from_secs(86_400);
const SHORT: Duration = Duration::from_millis(1);

/// Fault 372.
#[test]
fn a_delayed_task_starts_not_before_its_time_and_returns_its_value() {
    on_grid(|pool| {
        for delay in [Duration::ZERO, SHORT, Duration::from_millis(5)] {
            let since = Instant::now();
            let task = pool.spawn_after(delay, Instant::now).unwrap();
            assert!(task.join().unwrap() >= since + delay);
            let due = Instant::now() + delay;
            assert!(pool.spawn_at(due, Instant::now).unwrap().join().unwrap() >= due);
        }
        assert_counts_add_up(&pool);
    });
}

/// Fault 372.
#[test]
fn a_worker_that_joins_a_delayed_task_runs_it_when_it_is_due() {
    on_grid(|pool| {
        let inner = pool.clone();
        let joined = pool.spawn(move || {
            let due = Instant::now() + Duration::from_millis(3);
            let started = inner.spawn_at(due, Instant::now).unwrap().join().unwrap();
            started >= due
        });
        assert!(joined.unwrap().join().unwrap());
        assert_counts_add_up(&pool);
    });
}

/// Fault 461.
#[test]
fn a_delayed_task_that_is_polled_in_a_task_blocks_nothing_and_is_woken_when_it_is_due() {
    on_grid(|pool| {
        let inner = pool.clone();
        let polls = move || {
            let mut late = inner.spawn_after(LONG, || ()).unwrap();
            assert!(poll(&mut late, &Alarm::new()).is_pending()); // at once
            #[cfg(feature = "retry")]
            {
                let policy = workcrew::retry::RetryPolicy::fixed(LONG);
                let mut retried = inner.spawn_with_retry(policy, |_| Err::<(), _>("busy")).unwrap();
                assert!(poll(&mut retried, &Alarm::new()).is_pending()); // after its first attempt
                retried.cancel();
            }
            assert!(late.cancel());
            poll_ready(&mut inner.spawn_after(SHORT, || 7).unwrap())
        };
        assert_eq!(pool.spawn(polls).unwrap().join().unwrap().unwrap(), 7);
        assert_counts_add_up(&pool);
    });
}

/// Fault 372.
#[test]
fn cancelling_a_delayed_task_frees_its_closure_and_its_timer_at_once() {
    on_grid(|pool| {
        let drops = Counter::new();
        let probe = DropCounter(drops.clone());
        let task = pool.spawn_after(LONG, move || drop(probe)).unwrap();
        assert_eq!((pool.metrics().timers_pending, pool.metrics().tasks_queued), (1, 1));
        assert!(task.cancel() && !task.cancel());
        assert_eq!((drops.get(), pool.metrics().timers_pending), (1, 0));
        assert!(matches!(task.join(), Err(JoinError::Cancelled(CancelReason::Requested))));
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

/// Fault 372.
#[test]
fn a_delayed_task_whose_handle_is_dropped_still_runs() {
    on_grid(|pool| {
        let ran = Counter::new();
        let counted = ran.clone();
        drop(pool.spawn_after(SHORT, move || counted.add()).unwrap());
        pool.wait_idle();
        assert_eq!(ran.get(), 1);
    });
}

/// Fault 372.
#[test]
fn the_end_of_the_pool_cancels_delayed_tasks() {
    on_grid(|pool| {
        let tasks = [LONG, Duration::MAX].map(|delay| pool.spawn_after(delay, || ()));
        let timer = pool.execute_at(Instant::now() + LONG, || ());
        pool.shutdown();
        for task in tasks {
            assert!(matches!(task.unwrap().join(), Err(JoinError::Cancelled(CancelReason::ShutDown))));
        }
        assert!(timer.unwrap().is_finished());
        assert!(pool.spawn_after(SHORT, || ()).unwrap_err().is_shut_down());
        assert!(pool.execute_at(Instant::now(), || ()).unwrap_err().is_shut_down());
        assert_counts_add_up(&pool);
    });
}

/// Fault 373.
#[test]
fn times_in_the_past_are_now_and_times_beyond_the_clock_never_come() {
    on_grid(|pool| {
        let past = Instant::now();
        let ran = Counter::new();
        let counted = ran.clone();
        pool.execute_at(past, move || counted.add()).unwrap();
        assert_eq!(pool.spawn_at(past, || 1).unwrap().join().unwrap(), 1);
        assert_eq!(pool.spawn_after(Duration::ZERO, || 2).unwrap().join().unwrap(), 2);
        pool.wait_idle();
        assert_eq!(ran.get(), 1);
        let never =
            [Duration::MAX, Duration::from_secs(u64::MAX / 2)].map(|delay| pool.spawn_after(delay, || ()).unwrap());
        let late = pool.execute_every(Period::new(SHORT).first_after(Duration::MAX), || ()).unwrap();
        pool.spawn_after(SHORT, || ()).unwrap().join().unwrap(); // the timer thread has passed over them
        for task in never {
            assert!(!task.is_finished() && !task.wait_timeout(Duration::ZERO) && task.cancel());
        }
        assert!(late.cancel());
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

/// Fault 374.
#[test]
fn a_timer_whose_closure_breaks_ends_and_frees_it() {
    on_grid(|pool| {
        for fixed_rate in [true, false] {
            let (drops, runs) = (Counter::new(), Counter::new());
            let (probe, counted) = (DropCounter(drops.clone()), runs.clone());
            let (sender, ended) = channel::<()>();
            let tick = move || {
                let _both = (&probe, &sender);
                counted.add();
                if counted.get() < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            let timer = match fixed_rate {
                true => pool.execute_every(SHORT, tick),
                false => pool.execute_with_fixed_delay(SHORT, tick),
            };
            let timer = timer.unwrap();
            assert!(ended.recv_timeout(LIMIT).is_err(), "the closure is dropped");
            with_watchdog(|| while !timer.is_finished() {});
            assert_eq!((runs.get(), drops.get(), timer.cancel()), (3, 1, false));
            pool.wait_idle();
            assert_eq!(pool.metrics().timers_pending, 0);
        }
        assert_counts_add_up(&pool);
    });
}

/// Fault 374.
#[test]
fn a_panic_does_not_end_a_timer_that_can_end_itself() {
    quiet_panics();
    on_grid(|pool| {
        let runs = Counter::new();
        let counted = runs.clone();
        let timer = pool.execute_every(SHORT, move || {
            counted.add();
            assert!(counted.get() > 2, "not yet");
            ControlFlow::Break(())
        });
        let timer = timer.unwrap();
        with_watchdog(|| while !timer.is_finished() {});
        assert_eq!(runs.get(), 3);
        pool.wait_idle();
        assert_eq!((pool.metrics().tasks_panicked, pool.metrics().tasks_succeeded), (2, 1));
    });
}

/// Fault 375.
#[test]
fn the_first_run_of_a_timer_is_due_at_once_or_when_it_was_set_to_be() {
    on_grid(|pool| {
        for period in [Period::new(LONG).at_once(), Period::new(LONG).first_after(Duration::from_millis(2))] {
            let (sender, runs) = channel();
            let set = Instant::now();
            let timer = pool.execute_every(period, move || sender.send(Instant::now()).unwrap()).unwrap();
            let first = runs.recv_timeout(LIMIT).unwrap();
            if period != Period::new(LONG).at_once() {
                assert!(first >= set + Duration::from_millis(2));
            }
            pool.wait_idle();
            assert!(runs.try_recv().is_err(), "the second run is a period later");
            assert!(timer.cancel());
            // With a delay from end to start as well.
            let (sender, runs) = channel();
            let timer = pool.execute_with_fixed_delay(period, move || sender.send(()).unwrap()).unwrap();
            runs.recv_timeout(LIMIT).unwrap();
            timer.cancel();
        }
        assert!(
            pool.execute_every(Period::new(Duration::ZERO).first_after(SHORT), || ()).unwrap_err().is_zero_period()
        );
    });
}

/// Fault 372.
#[test]
fn delayed_tasks_that_are_due_wait_for_a_worker_and_not_for_room() {
    let pool = pool(1, 1);
    let blocked = BlockedWorkers::new(&pool);
    let ran = Counter::new();
    common::fill(&pool, &ran);
    let task = pool.spawn_after(Duration::ZERO, || "ran").unwrap();
    assert!(!task.wait_timeout(SHORT));
    blocked.open();
    assert_eq!(task.join().unwrap(), "ran");
}

/// Fault 372.
#[test]
fn cancels_joins_and_due_times_that_meet_lose_no_task() {
    on_grid(|pool| {
        for round in 0..200_u64 {
            let drops = Counter::new();
            let probe = DropCounter(drops.clone());
            let task = pool.spawn_after(Duration::from_micros(round % 40), move || drop(probe)).unwrap();
            let gate = Gate::new();
            gate.open();
            if round % 3 > 0 {
                task.cancel();
            }
            match task.join() {
                Ok(()) | Err(JoinError::Cancelled(CancelReason::Requested)) => assert_eq!(drops.get(), 1),
                Err(error) => panic!("{error:?}"),
            }
        }
        pool.wait_idle();
        assert_counts_add_up(&pool);
        assert_eq!(pool.metrics().timers_pending, 0);
    });
}
