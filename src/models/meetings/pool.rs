//! Whole pools, of one or two workers: submitting and ending, waiting for idle, resizing.

use std::time::Duration;

use super::{counter, one_worker, workers};
use crate::error::{CancelReason, JoinError};
use crate::models::explore::{explore, join, meet};
use crate::queue::{Queue, Turn};
use crate::sync::{Arc, AtomicUsize, Ordering, Time, now, thread};
use crate::task::executor::Executor;
use crate::task::handle::JoinHandle;
use crate::task::job::Task;
use crate::task::tracker::TaskTracker;
use crate::time::deadline::Deadline;
use crate::timer::heap::Due;
use crate::timer::thread::{TimerRefused, TimerThread};

/// A closure that counts its runs.
fn counted(runs: &Arc<AtomicUsize>) -> impl FnOnce() + Send + use<> {
    let runs = Arc::clone(runs);
    move || {
        runs.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn admit_and_close() {
    explore("admit_and_close", Time::Stands, || {
        let tracker = Arc::new(TaskTracker::new(false));
        let told = counter();
        tracker.on_drained(counted_often(&told));
        let submitter = || {
            let tracker = Arc::clone(&tracker);
            move || {
                if tracker.admit().is_some() {
                    tracker.external().settle(1);
                }
                tracker.check_idle();
            }
        };
        let other = thread::spawn(submitter());
        let closing = Arc::clone(&tracker);
        let ((), quiet) = meet(submitter(), move || {
            closing.close();
            closing.wait_idle(Deadline::NEVER)
        });
        join(other);
        assert!(quiet && tracker.is_drained(), "whoever settles last finds the pool drained");
        assert!(told.load(Ordering::Relaxed) > 0, "the workers are told to leave");
    });
}

fn counted_often(calls: &Arc<AtomicUsize>) -> impl Fn() + Send + Sync + use<> {
    let calls = Arc::clone(calls);
    move || {
        calls.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn settle_and_wait_for_quiet() {
    explore("settle_and_wait_for_quiet", Time::Stands, || {
        let tracker = Arc::new(TaskTracker::new(false));
        let done = counter();
        for _ in 0..2 {
            assert!(tracker.admit().is_some());
        }
        let settler = || {
            let (tracker, done) = (Arc::clone(&tracker), Arc::clone(&done));
            move || {
                done.fetch_add(1, Ordering::Relaxed);
                tracker.external().settle(1);
                tracker.check_idle();
            }
        };
        let other = thread::spawn(settler());
        let (waiting, look) = (Arc::clone(&tracker), Arc::clone(&done));
        let waiter = move || (waiting.wait_idle(Deadline::NEVER), look.load(Ordering::Relaxed));
        let (waited, ()) = meet(waiter, settler());
        assert_eq!(waited, (true, 2), "quiet means that all is done, and shows it");
        join(other);
    });
}

#[test]
fn books_that_are_read_at_any_time() {
    explore("books_that_are_read_at_any_time", Time::Stands, || {
        let tracker = Arc::new(TaskTracker::new(false));
        let writing = Arc::clone(&tracker);
        let writer = move || {
            for _ in 0..2 {
                assert!(writing.admit().is_some());
                writing.external().count_cancelled(CancelReason::Requested, 1);
                writing.external().settle(1);
            }
        };
        let reader = move || {
            let quiet = tracker.is_idle();
            (quiet, tracker.snapshot())
        };
        let ((_, metrics), ()) = meet(reader, writer);
        let met = metrics.tasks_cancelled + metrics.tasks_queued + metrics.tasks_running;
        assert_eq!(metrics.tasks_submitted, met, "every reading of the books adds up");
    });
}

#[test]
fn submit_and_shutdown() {
    explore("submit_and_shutdown", Time::Stands, || {
        let pool = Arc::new(one_worker(1));
        let runs = counter();
        let (submitting, closure) = (Arc::clone(&pool), counted(&runs));
        let (accepted, ()) = meet(move || submitting.execute(closure).is_ok(), {
            let pool = Arc::clone(&pool);
            move || pool.shutdown()
        });
        assert_eq!(runs.load(Ordering::Relaxed), usize::from(accepted), "accepted runs, refused does not");
        let metrics = pool.metrics();
        assert_eq!((metrics.tasks_submitted, metrics.tasks_queued), (u64::from(accepted), 0));
    });
}

#[test]
fn parked_submitter_and_close() {
    explore("parked_submitter_and_close", Time::Stands, || {
        let pool = Arc::new(one_worker(1));
        let runs = counter();
        assert!(pool.execute(counted(&runs)).is_ok());
        let (submitting, closure) = (Arc::clone(&pool), counted(&runs));
        let (accepted, ()) = meet(move || submitting.execute(closure).is_ok(), {
            let pool = Arc::clone(&pool);
            move || pool.close()
        });
        pool.shutdown();
        assert_eq!(runs.load(Ordering::Relaxed), 1 + usize::from(accepted), "accepted runs, refused does not");
    });
}

#[test]
fn shutdown_and_shutdown() {
    explore("shutdown_and_shutdown", Time::Stands, || {
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
        assert_eq!(meet(end(), end()), (1, 1), "both return when everything has run");
    });
}

#[test]
fn cancelling_and_start() {
    explore("cancelling_and_start", Time::Stands, || {
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
    explore("wait_idle_and_last_task", Time::Stands, || {
        let pool = one_worker(1);
        let runs = counter();
        assert!(pool.execute(counted(&runs)).is_ok());
        pool.wait_idle();
        assert_eq!(runs.load(Ordering::Relaxed), 1, "idle means that all has run");
        drop(pool);
    });
}

#[test]
fn two_workers_and_two_jobs() {
    explore("two_workers_and_two_jobs", Time::Stands, || {
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
    explore("resize_and_submit", Time::Stands, || {
        let pool = Arc::new(workers(2, 1));
        let runs = counter();
        let (submitting, closure) = (Arc::clone(&pool), counted(&runs));
        let (accepted, resized) = meet(move || submitting.execute(closure).is_ok(), {
            let pool = Arc::clone(&pool);
            move || pool.resize(1).is_ok()
        });
        assert!(accepted && resized);
        pool.shutdown();
        assert_eq!(runs.load(Ordering::Relaxed), 1, "who departs leaves no job behind");
    });
}

#[test]
fn resize_and_shutdown() {
    explore("resize_and_shutdown", Time::Stands, || {
        let pool = Arc::new(one_worker(1));
        let growing = Arc::clone(&pool);
        let (_, ()) = meet(move || growing.resize(2).is_ok(), {
            let pool = Arc::clone(&pool);
            move || pool.shutdown()
        });
        assert!(pool.is_shut_down());
    });
}

/// A task that counts who ends it.
struct Ended(AtomicUsize);

impl Task for Ended {
    fn run(&self, _: &Executor) {
        unreachable!("the timers runs nothing");
    }

    fn cancel(&self, _: CancelReason, _: &Executor) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed);
        true
    }
}

#[test]
fn timer_and_close() {
    // The second never passes, or at once.
    for time in [Time::Stands, Time::Flies] {
        explore("timer_and_close", time, || {
            let queue = Arc::new(Queue::new(1));
            let keeper = Arc::new(TimerThread::new(&queue));
            keeper.start(String::new).expect("the model has room for a thread");
            let task = Arc::new(Ended(AtomicUsize::new(0)));
            let (putting, to_put) = (Arc::clone(&keeper), Arc::clone(&task));
            let closing = Arc::clone(&keeper);
            let (put, struck) = meet(
                move || putting.put(Due::after(now(), Duration::from_secs(1)), to_put as _),
                move || closing.close().len(),
            );
            keeper.join();
            let handed = usize::from(queue.try_pop(&mut Turn::default()).is_some());
            assert_eq!(handed + struck, usize::from(put.is_ok()), "handed over or taken out, and once");
            assert!(put != Err(TimerRefused::Full));
        });
    }
}
