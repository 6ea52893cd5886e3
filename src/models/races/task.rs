//! The cell of a task: claiming, cancelling, completing, waiting, polling and detaching.

use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::{Bell, Dropped, counter};
use crate::error::{CancelReason, JoinError};
use crate::models::explore::{explore, join, race};
use crate::observe::task_info::TaskId;
use crate::sync::{Arc, Mutex, Ordering, Time, thread};
use crate::task::cell::TaskCell;
use crate::task::executor::{Executor, Hooks};
use crate::task::handle::JoinHandle;
use crate::task::join::{JoinStatus, JoinTarget};

/// Returns an executor without a pool, and a task that it has admitted.
fn admitted<T: Send + 'static>(
    closure: impl FnOnce() -> T + Send + 'static,
) -> (Arc<Executor>, Arc<dyn JoinTarget<T>>, JoinHandle<T>) {
    let executor = Arc::new(Executor::new(Hooks::default(), false));
    let location = Location::caller();
    let id: TaskId = executor.admit(location, None).expect("the tracker is not closed");
    let task: Arc<dyn JoinTarget<T>> = Arc::new(TaskCell::new(closure, id, location, None));
    let handle = JoinHandle::new(Arc::clone(&task), Arc::clone(&executor));
    (executor, task, handle)
}

/// Returns a closure that runs the task as a worker does.
fn worker<T: 'static>(executor: &Arc<Executor>, task: &Arc<dyn JoinTarget<T>>) -> impl FnOnce() + Send + use<T> {
    let (executor, task) = (Arc::clone(executor), Arc::clone(task));
    move || task.run(&executor)
}

/// Asserts that every admitted task is completed.
fn assert_idle(executor: &Executor) {
    assert!(executor.tracker.is_idle(), "a task is counted as done exactly once");
}

#[test]
fn complete_and_wait() {
    explore("complete_and_wait", Time::Frozen, || {
        let (executor, task, handle) = admitted(|| 7);
        let (outcome, ()) = race(move || handle.join(), worker(&executor, &task));
        assert!(matches!(outcome, Ok(7)), "a blocked waiter is woken and finds the outcome");
        assert_idle(&executor);
    });
}

#[test]
fn complete_and_two_waiters() {
    explore("complete_and_two_waiters", Time::Frozen, || {
        let (executor, task, handle) = admitted(|| 7);
        let handle = Arc::new(handle);
        let waiter = || {
            let handle = Arc::clone(&handle);
            move || handle.wait_timeout(Duration::MAX)
        };
        let other = thread::spawn(waiter());
        let (waited, ()) = race(waiter(), worker(&executor, &task));
        assert!(waited && join(other), "a completion wakes all waiters");
        assert!(matches!(Arc::into_inner(handle).map(JoinHandle::join), Some(Ok(7))));
    });
}

#[test]
fn claim_and_claim() {
    explore("claim_and_claim", Time::Frozen, || {
        let runs = counter();
        let counted = Arc::clone(&runs);
        let (executor, task, handle) = admitted(move || counted.fetch_add(1, Ordering::Relaxed));
        let joiner = thread::spawn(move || handle.join());
        race(worker(&executor, &task), worker(&executor, &task));
        assert!(matches!(join(joiner), Ok(0)));
        assert_eq!(runs.load(Ordering::Relaxed), 1, "a task runs once");
        assert_idle(&executor);
    });
}

#[test]
fn cancel_and_start() {
    explore("cancel_and_start", Time::Frozen, || {
        let (runs, drops) = (counter(), counter());
        let (counted, dropped) = (Arc::clone(&runs), Dropped(Arc::clone(&drops)));
        let (executor, task, handle) = admitted(move || {
            let _dropped = dropped;
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let look = Arc::clone(&drops);
        let canceller = move || {
            let cancelled = handle.cancel();
            let dropped_early = look.load(Ordering::Relaxed);
            let outcome = handle.join();
            (cancelled, dropped_early, outcome, look.load(Ordering::Relaxed))
        };
        let ((cancelled, dropped_early, outcome, dropped), ()) = race(canceller, worker(&executor, &task));
        assert!(!cancelled || dropped_early == 1, "the closure is dropped before `cancel` returns");
        assert_eq!(dropped, 1, "the closure is dropped before the outcome is stored");
        match outcome {
            Ok(()) => assert!(!cancelled),
            Err(JoinError::Cancelled(CancelReason::Requested)) => assert!(cancelled),
            Err(other) => panic!("{other}"),
        }
        assert_eq!(runs.load(Ordering::Relaxed), usize::from(!cancelled), "`true` means that the task never runs");
        assert_idle(&executor);
    });
}

#[test]
fn cancel_and_join() {
    explore("cancel_and_join", Time::Frozen, || {
        let drops = counter();
        let (closure, look) = (Dropped(Arc::clone(&drops)), Arc::clone(&drops));
        let (executor, task, handle) = admitted(move || drop(closure));
        let joiner = move || (handle.join().is_err(), look.load(Ordering::Relaxed));
        let (joined, cancelled) = race(joiner, move || task.cancel(CancelReason::ShutDown, &executor));
        assert_eq!((joined, cancelled), ((true, 1), true), "the closure is dropped before the outcome is stored");
    });
}

#[test]
fn cancel_and_cancel_and_start() {
    explore("cancel_and_cancel_and_start", Time::Frozen, || {
        let runs = counter();
        let counted = Arc::clone(&runs);
        let (executor, task, handle) = admitted(move || counted.fetch_add(1, Ordering::Relaxed));
        let worker = thread::spawn(worker(&executor, &task));
        let (handle, shared) = (Arc::new(handle), Arc::clone(&executor));
        let requester = Arc::clone(&handle);
        let (one, other) = race(move || requester.cancel(), move || task.cancel(CancelReason::ShutDown, &executor));
        join(worker);
        let (executor, cancelled) = (shared, [one, other]);
        let outcomes = runs.load(Ordering::Relaxed) + cancelled.iter().filter(|cancelled| **cancelled).count();
        assert_eq!(outcomes, 1, "a task has exactly one outcome");
        assert!(handle.is_finished());
        assert_idle(&executor);
    });
}

#[test]
fn finished_shows_effects() {
    explore("finished_shows_effects", Time::Frozen, || {
        let done = counter();
        let written = Arc::clone(&done);
        let (executor, task, handle) = admitted(move || written.store(1, Ordering::Relaxed));
        let look = move || (handle.is_finished(), done.load(Ordering::Relaxed));
        let ((finished, seen), ()) = race(look, worker(&executor, &task));
        assert!(!finished || seen == 1, "a thread that sees the task finished sees its effects");
    });
}

#[test]
fn complete_and_detach() {
    explore("complete_and_detach", Time::Frozen, || {
        let drops = counter();
        let result = Dropped(Arc::clone(&drops));
        let (executor, task, handle) = admitted(move || result);
        race(move || drop(handle), worker(&executor, &task));
        assert_eq!(drops.load(Ordering::Relaxed), 1, "the result of a detached task is dropped at once, and once");
        assert_idle(&executor);
        drop(task);
    });
}

/// Polls the handle once.
fn poll<T>(handle: &mut JoinHandle<T>, bell: &Arc<Bell>) -> Poll<Result<T, JoinError>> {
    Pin::new(handle).poll(&mut Context::from_waker(&bell.waker()))
}

/// Polls the handle until it is ready, as an async executor does.
fn finish<T>(handle: &mut JoinHandle<T>, bell: &Arc<Bell>) -> Result<T, JoinError> {
    loop {
        match poll(handle, bell) {
            Poll::Ready(outcome) => return outcome,
            Poll::Pending => bell.wait(),
        }
    }
}

#[test]
fn poll_and_complete() {
    explore("poll_and_complete", Time::Frozen, || {
        let (executor, task, mut handle) = admitted(|| 7);
        let poller = move || {
            let (first, second) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
            match poll(&mut handle, &first) {
                Poll::Ready(outcome) => outcome,
                // The handle moves to another async executor, so the last waker must be called.
                Poll::Pending => finish(&mut handle, &second),
            }
        };
        let (outcome, ()) = race(poller, worker(&executor, &task));
        assert!(matches!(outcome, Ok(7)));
        assert_idle(&executor);
    });
}

#[test]
fn poll_and_complete_and_drop_of_the_handle() {
    explore("poll_and_complete_and_drop_of_the_handle", Time::Frozen, || {
        let drops = counter();
        let result = Dropped(Arc::clone(&drops));
        let (executor, task, mut handle) = admitted(move || result);
        let bell = Arc::new(Bell::default());
        let waker = Arc::clone(&bell);
        let poller = move || drop(poll(&mut handle, &waker));
        race(poller, worker(&executor, &task));
        assert_eq!(drops.load(Ordering::Relaxed), 1, "the result is dropped exactly once");
        assert_eq!(Arc::strong_count(&bell), 1, "no waker is kept after the handle was dropped");
        assert_idle(&executor);
        drop(task);
    });
}

#[test]
fn cancel_and_poll() {
    explore("cancel_and_poll", Time::Frozen, || {
        let (executor, task, mut handle) = admitted(|| 7);
        let shared = Arc::clone(&executor);
        let poller = move || finish(&mut handle, &Arc::new(Bell::default()));
        let (outcome, cancelled) = race(poller, move || task.cancel(CancelReason::ShutDown, &executor));
        assert!(cancelled && matches!(outcome, Err(JoinError::Cancelled(CancelReason::ShutDown))));
        assert_idle(&shared);
    });
}

/// A waker that checks the task.
struct Curious(Mutex<Option<Arc<dyn JoinTarget<i32>>>>);

impl Wake for Curious {
    fn wake(self: Arc<Self>) {
        let task = self.0.lock().take();
        if let Some(task) = task {
            assert_ne!(task.join_status(), JoinStatus::Queued);
        }
    }
}

#[test]
fn waker_that_checks_the_task() {
    explore("waker_that_checks_the_task", Time::Frozen, || {
        let (executor, task, mut handle) = admitted(|| 7);
        let waker = Waker::from(Arc::new(Curious(Mutex::new(Some(Arc::clone(&task))))));
        let poller = move || {
            let _ = Pin::new(&mut handle).poll(&mut Context::from_waker(&waker));
            handle
        };
        let (handle, ()) = race(poller, worker(&executor, &task));
        assert!(handle.is_finished(), "wakers are called with no lock held");
    });
}
