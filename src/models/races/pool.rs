//! Whole pools of one or two workers: submitting and shutting down, waiting for idle, resizing.

use std::time::Duration;

use super::{counter, one_worker, workers};
use crate::error::{CancelReason, JoinError};
use crate::models::explore::{explore, join, race};
use crate::queue::{PopCursor, Queue};
use crate::sync::{Arc, AtomicUsize, Ordering, Time, now, thread};
use crate::task::executor::Executor;
use crate::task::handle::JoinHandle;
use crate::task::job::Task;
use crate::task::tracker::TaskTracker;
use crate::time::deadline::Deadline;
use crate::timer::thread::{TimerRefused, TimerThread};

/// Returns a closure that counts its runs.
fn counted(runs: &Arc<AtomicUsize>) -> impl FnOnce() + Send + use<> {
    let runs = Arc::clone(runs);
    move || {
        runs.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn admit_and_close() {
    explore("admit_and_close", Time::Frozen, || {
        let tracker = Arc::new(TaskTracker::new(false));
        let calls = counter();
        tracker.on_drained(counted_often(&calls));
        let submitter = || {
            let tracker = Arc::clone(&tracker);
            move || {
                if tracker.admit().is_some() {
                    tracker.external().count_completed(1);
                }
                tracker.check_idle();
            }
        };
        let other = thread::spawn(submitter());
        let closing = Arc::clone(&tracker);
        let ((), is_idle) = race(submitter(), move || {
            closing.close();
            closing.wait_idle_unless(|| false, Deadline::NEVER)
        });
        join(other);
        assert!(is_idle && tracker.is_drained(), "the last of the three finds the pool drained");
        assert!(calls.load(Ordering::Relaxed) > 0, "the workers are notified to end");
    });
}

fn counted_often(calls: &Arc<AtomicUsize>) -> impl Fn() + Send + Sync + use<> {
    let calls = Arc::clone(calls);
    move || {
        calls.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn task_done_and_wait_idle() {
    explore("task_done_and_wait_idle", Time::Frozen, || {
        let tracker = Arc::new(TaskTracker::new(false));
        let done = counter();
        for _ in 0..2 {
            assert!(tracker.admit().is_some());
        }
        let worker = || {
            let (tracker, done) = (Arc::clone(&tracker), Arc::clone(&done));
            move || {
                done.fetch_add(1, Ordering::Relaxed);
                tracker.external().count_completed(1);
                tracker.check_idle();
            }
        };
        let other = thread::spawn(worker());
        let (waiting, look) = (Arc::clone(&tracker), Arc::clone(&done));
        let waiter = move || (waiting.wait_idle_unless(|| false, Deadline::NEVER), look.load(Ordering::Relaxed));
        let (waited, ()) = race(waiter, worker());
        assert_eq!(waited, (true, 2), "idle means that all tasks are done and their effects visible");
        join(other);
    });
}

#[test]
fn snapshot_at_any_time() {
    explore("snapshot_at_any_time", Time::Frozen, || {
        let tracker = Arc::new(TaskTracker::new(false));
        let writing = Arc::clone(&tracker);
        let writer = move || {
            for _ in 0..2 {
                assert!(writing.admit().is_some());
                writing.external().count_cancelled(CancelReason::Requested, 1);
                writing.external().count_completed(1);
            }
        };
        let reader = move || {
            let is_idle = tracker.is_idle();
            (is_idle, tracker.snapshot())
        };
        let ((_, metrics), ()) = race(reader, writer);
        let counted = metrics.tasks_cancelled + metrics.tasks_queued + metrics.tasks_running;
        assert_eq!(metrics.tasks_submitted, counted, "every snapshot of the counts adds up");
    });
}

#[test]
fn submit_and_shutdown() {
    explore("submit_and_shutdown", Time::Frozen, || {
        let pool = Arc::new(one_worker(1));
        let runs = counter();
        let (submitting, closure) = (Arc::clone(&pool), counted(&runs));
        let (accepted, ()) = race(move || submitting.execute(closure).is_ok(), {
            let pool = Arc::clone(&pool);
            move || pool.shutdown()
        });
        assert_eq!(
            runs.load(Ordering::Relaxed),
            usize::from(accepted),
            "an accepted task runs, and a refused task does not"
        );
        let metrics = pool.metrics();
        assert_eq!((metrics.tasks_submitted, metrics.tasks_queued), (u64::from(accepted), 0));
    });
}

#[test]
fn blocked_submitter_and_close() {
    explore("blocked_submitter_and_close", Time::Frozen, || {
        let pool = Arc::new(one_worker(1));
        let runs = counter();
        assert!(pool.execute(counted(&runs)).is_ok());
        let (submitting, closure) = (Arc::clone(&pool), counted(&runs));
        let (accepted, ()) = race(move || submitting.execute(closure).is_ok(), {
            let pool = Arc::clone(&pool);
            move || pool.close()
        });
        pool.shutdown();
        assert_eq!(
            runs.load(Ordering::Relaxed),
            1 + usize::from(accepted),
            "an accepted task runs, and a refused task does not"
        );
    });
}

#[test]
fn shutdown_and_shutdown() {
    explore("shutdown_and_shutdown", Time::Frozen, || {
        let pool = Arc::new(one_worker(1));
        let runs = counter();
        assert!(pool.execute(counted(&runs)).is_ok());
        let end = || {
            let (pool, runs) = (Arc::clone(&pool), Arc::clone(&runs));
            move || {
                pool.shutdown();
                runs.load(Ordering::Relaxed)
            }
        };
        assert_eq!(race(end(), end()), (1, 1), "both return when all tasks have run");
    });
}

#[test]
fn cancelling_and_start() {
    explore("cancelling_and_start", Time::Frozen, || {
        let pool = Arc::new(one_worker(2));
        let runs = counter();
        let handles = [(); 2].map(|()| pool.spawn(counted(&runs)).expect("there is room"));
        pool.inner().cancel_queued();
        pool.shutdown();
        let ran = handles.into_iter().filter(JoinHandle::is_finished).map(JoinHandle::join);
        let ended: Vec<_> = ran.collect();
        assert_eq!(ended.len(), 2, "every handle is finished when the pool has ended");
        let run = ended.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(runs.load(Ordering::Relaxed), run);
        let cancelled = |outcome: &Result<(), JoinError>| {
            matches!(outcome, Ok(()) | Err(JoinError::Cancelled(CancelReason::ShutDown)))
        };
        assert!(ended.iter().all(cancelled));
    });
}

#[test]
fn wait_idle_and_last_task() {
    explore("wait_idle_and_last_task", Time::Frozen, || {
        let pool = one_worker(1);
        let runs = counter();
        assert!(pool.execute(counted(&runs)).is_ok());
        pool.wait_idle();
        assert_eq!(runs.load(Ordering::Relaxed), 1, "idle means that all tasks have run");
        drop(pool);
    });
}

#[test]
fn two_workers_and_two_jobs() {
    explore("two_workers_and_two_jobs", Time::Frozen, || {
        let pool = workers(2, 1);
        let runs = counter();
        for _ in 0..2 {
            assert!(pool.execute(counted(&runs)).is_ok());
        }
        drop(pool);
        assert_eq!(runs.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn resize_and_submit() {
    explore("resize_and_submit", Time::Frozen, || {
        let pool = Arc::new(workers(2, 1));
        let runs = counter();
        let (submitting, closure) = (Arc::clone(&pool), counted(&runs));
        let (accepted, resized) = race(move || submitting.execute(closure).is_ok(), {
            let pool = Arc::clone(&pool);
            move || pool.resize(1).is_ok()
        });
        assert!(accepted && resized);
        pool.shutdown();
        assert_eq!(runs.load(Ordering::Relaxed), 1, "a worker that ends leaves no job behind");
    });
}

#[test]
fn resize_and_shutdown() {
    explore("resize_and_shutdown", Time::Frozen, || {
        let pool = Arc::new(one_worker(1));
        let growing = Arc::clone(&pool);
        let (_, ()) = race(move || growing.resize(2).is_ok(), {
            let pool = Arc::clone(&pool);
            move || pool.shutdown()
        });
        assert!(pool.is_shut_down());
    });
}

/// A task that counts how often it is cancelled.
struct Ended(AtomicUsize);

impl Task for Ended {
    fn run(&self, _: &Executor) {
        unreachable!("the timer thread runs no task");
    }

    fn cancel(&self, _: CancelReason, _: &Executor) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn is_finished(&self) -> bool {
        false
    }
}

#[test]
fn timer_and_close() {
    // The second never passes, or passes at once.
    for time in [Time::Frozen, Time::Skips] {
        explore("timer_and_close", time, || {
            let queue = Arc::new(Queue::new(1));
            let timers = Arc::new(TimerThread::new(&queue));
            timers.start(String::new).expect("the model has room for a thread");
            let task = Arc::new(Ended(AtomicUsize::new(0)));
            let (putting, to_put) = (Arc::clone(&timers), Arc::clone(&task));
            let closing = Arc::clone(&timers);
            let (put, struck) = race(
                move || putting.insert(Deadline::after_instant(now(), Duration::from_secs(1)), to_put as _),
                move || closing.close().len(),
            );
            timers.join();
            let handed = usize::from(queue.try_pop(&mut PopCursor::default()).is_some());
            assert_eq!(handed + struck, usize::from(put.is_ok()), "the task is fired or removed, exactly once");
            assert!(put != Err(TimerRefused::Full));
        });
    }
}
