//! Tasks with settings of their own: a token, a time limit, a deadline, a label.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{
    BlockedWorkers, Counter, DropCounter, Gate, Mutex, assert_counts_add_up, fill, grid, on_grid, pool, quiet_panics,
};
use workcrew::{CancelReason, CancellationToken, JoinError, Observer, Overflow, TaskInfo, WorkerPool};

const LONG: Duration = Duration::from_secs(86_400);

/// Fault 370.
#[test]
fn a_time_limit_expires_the_token_of_a_running_task_and_kills_nothing() {
    on_grid(|pool| {
        for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(2)] {
            let task = pool.task().timeout(timeout).spawn(|token| {
                token.wait();
                token.reason()
            });
            assert_eq!(task.unwrap().join().unwrap(), Some(CancelReason::Expired), "the value is that of the task");
        }
        for timeout in [Duration::MAX, LONG] {
            let task = pool.task().timeout(timeout).spawn(CancellationToken::is_cancelled).unwrap();
            assert!(!task.join().unwrap());
        }
        assert_counts_add_up(&pool);
        assert_eq!((pool.metrics().tasks_succeeded, pool.metrics().tasks_cancelled), (5, 0));
    });
}

/// Fault 370.
#[test]
fn the_time_in_the_queue_does_not_count_against_the_time_limit() {
    on_grid(|pool| {
        let blocked = BlockedWorkers::new(&pool);
        let limit = Duration::from_millis(500);
        let task = pool.task().timeout(limit).spawn(move |token| token.deadline().unwrap() - Instant::now()).unwrap();
        let submitted = Instant::now();
        while submitted.elapsed() < Duration::from_millis(2) {
            std::thread::yield_now();
        }
        let opened = Instant::now();
        blocked.open();
        let left = task.join().unwrap();
        assert!(left <= limit && left + opened.elapsed() >= limit, "{left:?}");
    });
}

/// Fault 370.
#[test]
fn the_limit_of_a_submission_is_not_that_of_its_task() {
    grid(|builder| {
        let pool = builder.workers(1).build().unwrap();
        let blocked = BlockedWorkers::new(&pool);
        let ran = Counter::new();
        let filled = fill(&pool, &ran);
        let builder = pool.task().timeout(LONG);
        let refused = builder.try_spawn_for(Duration::from_millis(1), |_| 1).unwrap_err();
        assert!(refused.is_timeout());
        assert_eq!((refused.into_inner())(&CancellationToken::new()), 1, "the closure comes back");
        assert!(builder.try_spawn(|_| ()).unwrap_err().is_full());
        assert!(builder.try_execute(|_| ()).unwrap_err().is_full());
        assert!(builder.try_execute_for(Duration::ZERO, |_| ()).unwrap_err().is_timeout());
        blocked.open();
        pool.wait_idle();
        let task = builder.try_spawn_for(Duration::MAX, CancellationToken::is_cancelled).unwrap();
        assert!(!task.join().unwrap());
        builder.execute(|_| ()).unwrap();
        builder.try_execute(|_| ()).unwrap_or(());
        pool.shutdown();
        assert!(builder.spawn(|_| ()).is_err() && builder.execute(|_| ()).is_err());
        assert!(builder.try_spawn(|_| ()).unwrap_err().is_shut_down());
        assert_eq!(ran.get(), filled);
        assert_counts_add_up(&pool);
    });
}

/// Fault 371.
#[test]
fn a_task_whose_token_is_cancelled_never_starts_and_its_closure_is_gone_at_once() {
    on_grid(|pool| {
        let blocked = BlockedWorkers::new(&pool);
        let (token, drops, ran) = (CancellationToken::new(), Counter::new(), Counter::new());
        let (probe, counted) = (DropCounter(drops.clone()), ran.clone());
        let task = pool.task().token(&token).spawn(move |_| {
            let _probe = probe;
            counted.add();
        });
        let task = task.unwrap();
        token.cancel();
        assert_eq!(drops.get(), 1);
        assert!(matches!(task.join(), Err(JoinError::Cancelled(CancelReason::Requested))));
        blocked.open();
        pool.wait_idle();
        let late = pool.task().token(&token).spawn(|_| -> () { panic!("it never starts") }).unwrap();
        assert!(matches!(late.join(), Err(JoinError::Cancelled(CancelReason::Requested))));
        pool.wait_idle();
        assert_eq!(ran.get(), 0);
        assert_counts_add_up(&pool);
        assert_eq!(pool.metrics().tasks_cancelled, 2);
    });
}

/// Fault 371.
#[test]
fn a_task_that_is_queued_at_its_deadline_never_starts() {
    on_grid(|pool| {
        let past = Instant::now();
        let task = pool.task().deadline(Instant::now() + LONG).deadline(past).spawn(|_| "never").unwrap();
        assert!(matches!(task.join(), Err(JoinError::Cancelled(CancelReason::Expired))));
        let running = pool.task().deadline(Instant::now() + Duration::from_millis(300)).spawn(|token| {
            token.wait();
            token.reason()
        });
        // On a machine that is slow enough, this one never starts either.
        match running.unwrap().join() {
            Ok(reason) => assert_eq!(reason, Some(CancelReason::Expired)),
            Err(error) => assert!(matches!(error, JoinError::Cancelled(CancelReason::Expired)), "{error:?}"),
        }
    });
}

/// Fault 441.
#[test]
fn a_task_that_expires_before_its_start_never_starts_and_its_handle_says_so() {
    on_grid(|pool| {
        let past = Instant::now();
        let late = [
            pool.task().expires_after(Duration::ZERO),
            pool.task().expires_at(past),
            pool.task().expires_at(Instant::now() + LONG).expires_at(past),
            pool.task().expires_at(past).expires_at(Instant::now() + LONG),
            pool.task().expires_after(Duration::MAX).expires_at(past),
            pool.task().expires_after(Duration::ZERO).expires_at(Instant::now() + LONG).timeout(LONG),
        ];
        for builder in &late {
            let drops = Counter::new();
            let probe = DropCounter(drops.clone());
            let task = builder.spawn(move |_| drop(probe)).unwrap();
            assert!(matches!(task.join(), Err(JoinError::Cancelled(CancelReason::Expired))), "{builder:?}");
            assert_eq!(drops.get(), 1);
        }
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_cancelled, late.len() as u64);
        assert_counts_add_up(&pool);
    });
}

/// Fault 441.
#[test]
fn a_task_that_has_started_does_not_expire_by_its_start_limit() {
    on_grid(|pool| {
        let gate = Gate::new();
        for limit in [Duration::MAX, Duration::from_millis(20)] {
            let start_by = Instant::now() + limit.min(Duration::from_millis(20));
            let builder = pool.task().expires_after(limit);
            let inside = gate.clone();
            let task = builder.spawn(move |token| {
                inside.pass();
                while start_by > Instant::now() {
                    std::thread::yield_now();
                }
                (token.reason(), token.deadline())
            });
            gate.open();
            match task.unwrap().join() {
                Ok(told) => assert_eq!(told, (None, None)),
                // On a machine that is slow enough, the second never starts.
                Err(error) => assert!(matches!(error, JoinError::Cancelled(CancelReason::Expired)), "{error:?}"),
            }
        }
    });
}

/// Fault 441.
#[test]
fn expiry_cancellation_and_time_limit_are_told_apart() {
    on_grid(|pool| {
        let blocked = BlockedWorkers::new(&pool);
        let token = CancellationToken::new();
        let cancelled = pool.task().token(&token).expires_after(Duration::MAX).spawn(|_| ()).unwrap();
        token.cancel();
        assert!(matches!(cancelled.join(), Err(JoinError::Cancelled(CancelReason::Requested))));
        blocked.open();
        pool.wait_idle();
        let limited = pool.task().timeout(Duration::ZERO).expires_after(LONG).spawn(CancellationToken::reason).unwrap();
        assert_eq!(limited.join().unwrap(), Some(CancelReason::Expired));
    });
}

#[test]
fn a_running_task_sees_the_cancellation_of_its_token_and_of_its_handle() {
    on_grid(|pool| {
        for by_handle in [true, false] {
            let (gate, parent) = (Gate::new(), CancellationToken::new());
            let inside = gate.clone();
            let task = pool.task().token(&parent).timeout(LONG).spawn(move |token| {
                inside.pass();
                token.wait();
                "stopped"
            });
            let task = task.unwrap();
            gate.wait_started(1);
            gate.open();
            if by_handle {
                assert!(!task.cancel(), "it runs");
                assert!(!parent.is_cancelled());
            } else {
                parent.cancel();
            }
            assert_eq!(task.join().unwrap(), "stopped");
        }
    });
}

/// Fault 371.
#[test]
fn a_stale_entry_that_the_queue_discards_does_not_cancel_a_running_task() {
    let pool = WorkerPool::builder().workers(1).queue_capacity(1).overflow(Overflow::DiscardOldest).build().unwrap();
    let pool = Arc::new(pool);
    let inner = pool.clone();
    let seen = pool.spawn(move || {
        let pool = inner.clone();
        let task = inner.task().timeout(LONG).spawn(move |token| {
            pool.execute(|| ()).unwrap(); // discards the entry of the task that runs here
            token.is_cancelled()
        });
        task.unwrap().join() // runs the task, and leaves its entry in the queue
    });
    assert!(!seen.unwrap().join().unwrap().unwrap());
}

#[test]
fn tokens_and_panics_of_tasks_with_settings_are_their_own() {
    quiet_panics();
    on_grid(|pool| {
        let builder = pool.task().timeout(LONG).label("own");
        let (one, two) = (builder.spawn(Clone::clone).unwrap(), builder.spawn(CancellationToken::clone).unwrap());
        let (one, two): (CancellationToken, CancellationToken) = (one.join().unwrap(), two.join().unwrap());
        one.cancel();
        assert!(!two.is_cancelled());
        let panicked = builder.spawn(|_| -> () { panic!("own panic") }).unwrap();
        assert!(matches!(panicked.join(), Err(JoinError::Panicked(panic)) if panic.message() == Some("own panic")));
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_token_that_is_cancelled_amid_submissions_cancels_each_task_or_is_seen_by_it() {
    on_grid(|pool| {
        for _ in 0..50 {
            let token = CancellationToken::new();
            let builder = pool.task().token(&token);
            let handles: Vec<_> = std::thread::scope(|threads| {
                let submitting = threads.spawn(|| {
                    (0..8).map(|_| builder.try_spawn_for(Duration::from_secs(60), CancellationToken::wait)).collect()
                });
                token.cancel();
                submitting.join().unwrap()
            });
            for handle in handles {
                let ended = handle.unwrap().join();
                assert!(matches!(ended, Ok(()) | Err(JoinError::Cancelled(CancelReason::Requested))), "{ended:?}");
            }
        }
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_label_names_a_task_for_observers_and_in_what_runs() {
    struct Labels(Arc<Mutex<Vec<Option<String>>>>);
    impl Observer for Labels {
        fn task_started(&self, task: &TaskInfo<'_>) {
            self.0.lock().unwrap().push(task.label().map(str::to_owned));
        }
    }
    let labels = Arc::default();
    let pool = WorkerPool::builder().workers(1).observer(Labels(Arc::clone(&labels))).build().unwrap();
    let gate = Gate::new();
    let inside = gate.clone();
    pool.task().label("thumbs").execute(move |_| inside.pass()).unwrap();
    gate.wait_started(1);
    assert!(pool.running()[0].to_string().contains("(thumbs)"), "{}", pool.running()[0]);
    gate.open();
    pool.shutdown();
    assert_eq!(*labels.lock().unwrap(), [Some(String::from("thumbs"))]);
}

#[test]
fn a_worker_runs_a_task_with_settings_that_it_joins() {
    let pool = pool(1, 4);
    let inner = pool.clone();
    let value = pool.spawn(move || inner.task().timeout(LONG).spawn(|_| 3).unwrap().join()).unwrap();
    assert_eq!(value.join().unwrap().unwrap(), 3);
}

/// Fault 445.
#[test]
fn an_async_submission_of_a_builder_waits_for_room_and_keeps_its_settings() {
    grid(|builder| {
        let pool = builder.workers(1).build().unwrap();
        let blocked = BlockedWorkers::new(&pool);
        let ran = Counter::new();
        let filled = fill(&pool, &ran);
        let settings = pool.task().label("request").timeout(Duration::ZERO);
        let inside = pool.clone();
        let mut limited = Box::pin(settings.spawn_async(move |token| {
            let running = inside.running();
            (token.reason(), running.iter().any(|task| task.to_string().contains("(request)")))
        }));
        let mut late = Box::pin(pool.task().expires_after(Duration::ZERO).spawn_async(|_| "never"));
        let token = CancellationToken::new();
        let mut cancelled = Box::pin(pool.task().token(&token).spawn_async(|_| "never"));
        assert!(is_pending(&mut limited) && is_pending(&mut late) && is_pending(&mut cancelled));
        token.cancel();
        blocked.open();
        let limited = pollster::block_on(limited).unwrap();
        assert_eq!(limited.join().unwrap(), (Some(CancelReason::Expired), true));
        let late = pollster::block_on(late).unwrap();
        assert!(matches!(late.join(), Err(JoinError::Cancelled(CancelReason::Expired))));
        let cancelled = pollster::block_on(cancelled).unwrap();
        assert!(matches!(cancelled.join(), Err(JoinError::Cancelled(CancelReason::Requested))));
        let running = CancellationToken::new();
        let told = pollster::block_on(pool.task().token(&running).spawn_async(|token| {
            token.wait();
            token.reason()
        }));
        running.cancel();
        assert!(matches!(told.unwrap().join(), Ok(Some(_)) | Err(JoinError::Cancelled(CancelReason::Requested))));
        pool.wait_idle();
        assert_eq!(ran.get(), filled);
        assert_counts_add_up(&pool);
    });
}

/// Fault 445.
#[test]
fn an_async_submission_of_a_builder_that_is_dropped_or_refused_does_not_run() {
    grid(|builder| {
        let pool = builder.workers(1).build().unwrap();
        let blocked = BlockedWorkers::new(&pool);
        fill(&pool, &Counter::new());
        let (drops, observed) = (Counter::new(), CancellationToken::new());
        let probe = DropCounter(drops.clone());
        let mut dropped = Box::pin(pool.task().token(&observed).spawn_async(move |_| drop(probe)));
        let mut refused = Box::pin(pool.task().spawn_async(|_| 7));
        assert!(is_pending(&mut dropped) && is_pending(&mut refused));
        drop(dropped);
        assert_eq!(drops.get(), 1);
        pool.close();
        let refused = pollster::block_on(refused).unwrap_err();
        assert_eq!((refused.into_inner())(&observed), 7, "the closure comes back");
        assert!(pollster::block_on(pool.task().spawn_async(|_| ())).is_err());
        blocked.open();
        pool.shutdown();
        assert_counts_add_up(&pool);
    });
}

fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    std::pin::pin!(future).poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending()
}
