//! A shutdown that cancels tasks cancels the token of every task that runs.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{LIMIT, on_grid, pool, with_watchdog};
use workcrew::{CancelReason, CancellationToken, OnDrop, WorkerPool};

/// Where a running task reports its start, and then why its token was cancelled.
type Reports = mpsc::Sender<Option<CancelReason>>;

/// Starts a task of one kind, which passes its token to [`run`].
type Start = fn(&WorkerPool, Reports);

/// The body of each task: reports that it has started, and then why it was cancelled.
fn run(token: &CancellationToken, reports: &Reports) {
    reports.send(None).unwrap();
    let _ = token.wait_timeout(LIMIT);
    reports.send(token.reason()).unwrap();
}

const STARTS: &[(&str, Start)] = &[
    ("a task with a builder", |pool, reports| pool.task().execute(move |token| run(token, &reports)).unwrap()),
    ("a task with limits", |pool, reports| {
        let task = pool.task().timeout(LIMIT * 2).deadline(Instant::now() + LIMIT * 2);
        drop(task.spawn(move |token| run(token, &reports)).unwrap());
    }),
    ("a task with a parent", |pool, reports| {
        let parent = CancellationToken::new();
        let kept = parent.clone();
        let task = move |token: &CancellationToken| {
            run(token, &reports);
            assert!(!kept.is_cancelled(), "the user's token is not the pool's");
        };
        pool.task().token(&parent).execute(task).unwrap();
    }),
    ("a clone of a token", |pool, reports| {
        pool.task().execute(move |token| run(&token.clone(), &reports)).unwrap();
    }),
    ("a child of a token", |pool, reports| {
        pool.task().execute(move |token| run(&token.child_token(), &reports)).unwrap();
    }),
    ("a task of a group", |pool, reports| {
        let group = pool.group::<()>();
        let token = group.token().clone();
        group.spawn(move || run(&token, &reports));
        drop(thread::spawn(move || group.wait()));
    }),
    ("a task of a scope", |pool, reports| {
        let pool = pool.clone();
        thread::spawn(move || pool.scope(|scope| scope.spawn(|| run(scope.token(), &reports))).unwrap());
    }),
    #[cfg(feature = "retry")]
    ("an attempt", |pool, reports| {
        let attempt = move |attempt: workcrew::retry::Attempt| {
            run(attempt.token(), &reports);
            Err::<(), _>("stopped")
        };
        drop(pool.spawn_with_retry(workcrew::retry::RetryPolicy::fixed(Duration::ZERO), attempt).unwrap());
    }),
    #[cfg(feature = "retry")]
    ("a later attempt with a time limit", |pool, reports| {
        let policy = workcrew::retry::RetryPolicy::fixed(Duration::ZERO).attempt_timeout(LIMIT * 2);
        let attempt = move |attempt: workcrew::retry::Attempt| match attempt.number() {
            1 => Err("try again"),
            _ => {
                run(attempt.token(), &reports);
                Ok(())
            }
        };
        drop(pool.spawn_with_retry(policy, attempt).unwrap());
    }),
    #[cfg(feature = "retry")]
    ("an attempt in a group", |pool, reports| {
        let group = pool.group();
        let attempt = move |attempt: workcrew::retry::Attempt| {
            run(attempt.token(), &reports);
            Err::<(), _>("stopped")
        };
        group.spawn_with_retry(workcrew::retry::RetryPolicy::fixed(Duration::ZERO), attempt).unwrap();
        drop(thread::spawn(move || group.wait()));
    }),
];

/// Starts a task, ends its pool by `end`, and checks that the task is told why.
fn is_told((name, start): (&str, Start), end: impl Fn(WorkerPool)) {
    let pool = WorkerPool::builder().workers(2).on_drop(OnDrop::Cancel).build().unwrap();
    let (reports, reported) = mpsc::channel();
    start(&pool, reports);
    assert_eq!(reported.recv_timeout(LIMIT), Ok(None), "{name} starts");
    end(pool);
    assert_eq!(reported.recv_timeout(LIMIT), Ok(Some(CancelReason::ShutDown)), "{name}");
}

/// Fault 440.
#[test]
fn a_shutdown_that_cancels_tells_every_running_task_by_its_token() {
    let ends: [fn(WorkerPool); 3] = [
        |pool| {
            let _ = pool.shutdown_timeout(Duration::ZERO);
        },
        |pool| {
            let _ = pool.shutdown_timeout(Duration::from_millis(1));
        },
        |pool| {
            pool.shutdown_now();
        },
    ];
    with_watchdog(|| {
        for &start in STARTS {
            ends.iter().for_each(|end| is_told(start, end));
            // The drop waits for the task. The thread in a scope has a handle, so there it is not
            // the last.
            if start.0 != "a task of a scope" {
                is_told(start, drop);
            }
        }
    });
}

/// Fault 440.
#[test]
fn a_task_that_starts_inside_the_cancellation_gets_a_cancelled_token_or_never_starts() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let (inner, (sender, joined)) = (pool.clone(), mpsc::channel());
        let ends = pool.spawn(move || {
            let late = inner.task().spawn(CancellationToken::is_cancelled).unwrap();
            let group = inner.group();
            group.token().on_cancel(move || sender.send(late.join()).unwrap()).detach();
            group.spawn(|| ());
            inner.shutdown_now();
        });
        ends.unwrap().join().unwrap();
        let told = joined.recv_timeout(LIMIT).unwrap();
        assert!(told.unwrap_or(true), "the task was not told");
    });
}

/// Fault 440.
#[test]
fn a_shutdown_in_time_cancels_no_token() {
    on_grid(|pool| {
        let (started, start) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        let task = pool.task().spawn(move |token| {
            started.send(()).unwrap();
            stopped.recv_timeout(LIMIT).unwrap();
            token.is_cancelled()
        });
        start.recv_timeout(LIMIT).unwrap();
        pool.close();
        stop.send(()).unwrap();
        assert!(pool.shutdown_timeout(LIMIT).drained);
        assert!(!task.unwrap().join().unwrap());
    });
}
