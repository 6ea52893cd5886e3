//! The cell of a task: claiming, cancelling, completing, waiting, polling, detaching.

use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Bell, Dropped, counter};
use crate::error::{CancelReason, JoinError};
use crate::handle::JoinHandle;
use crate::models::explore::explore;
use crate::observer::TaskId;
use crate::supervisor::{Hooks, Supervisor};
use crate::sync::{Arc, AtomicUsize, Ordering, Time, thread};
use crate::task::{Joinable, TaskCell};

/// A supervisor without a pool, and a task that it has admitted.
fn admitted<T: Send + 'static>(
    closure: impl FnOnce() -> T + Send + 'static,
) -> (Arc<Supervisor>, Arc<dyn Joinable<T>>, JoinHandle<T>) {
    let supervisor = Arc::new(Supervisor::new(Hooks::default(), false));
    let location = Location::caller();
    let id: TaskId = supervisor.admit(location, None).expect("nothing is closed");
    let task: Arc<dyn Joinable<T>> = Arc::new(TaskCell::new(closure, id, location, None));
    let handle = JoinHandle::new(Arc::clone(&task), Arc::clone(&supervisor));
    (supervisor, task, handle)
}

/// A thread that comes to the task as a worker does.
fn worker<T: 'static>(supervisor: &Arc<Supervisor>, task: &Arc<dyn Joinable<T>>) -> thread::JoinHandle<()> {
    let (supervisor, task) = (Arc::clone(supervisor), Arc::clone(task));
    thread::spawn(move || task.run(&supervisor))
}

/// Every admitted task is settled.
fn assert_quiet(supervisor: &Supervisor) {
    assert!(supervisor.lifecycle.ledger.is_quiet(), "a task is settled once");
}

#[test]
fn complete_and_park() {
    explore("complete_and_park", Time::Stands, || {
        let (supervisor, task, handle) = admitted(|| 7);
        let worker = worker(&supervisor, &task);
        assert!(matches!(handle.join(), Ok(7)), "who parks is woken, and finds the outcome");
        worker.join().expect("no panic");
        assert_quiet(&supervisor);
    });
}

#[test]
fn complete_and_two_that_park() {
    explore("complete_and_two_that_park", Time::Stands, || {
        let (supervisor, task, handle) = admitted(|| 7);
        let handle = Arc::new(handle);
        let worker = worker(&supervisor, &task);
        let other = thread::spawn({
            let handle = Arc::clone(&handle);
            move || handle.wait_timeout(Duration::MAX)
        });
        assert!(handle.wait_timeout(Duration::MAX));
        assert!(other.join().expect("no panic"), "a completion wakes all who wait");
        worker.join().expect("no panic");
        assert!(matches!(Arc::into_inner(handle).map(JoinHandle::join), Some(Ok(7))));
    });
}

#[test]
fn claim_and_claim() {
    explore("claim_and_claim", Time::Stands, || {
        let runs = counter();
        let counted = Arc::clone(&runs);
        let (supervisor, task, handle) = admitted(move || counted.fetch_add(1, Ordering::Relaxed));
        let workers = [worker(&supervisor, &task), worker(&supervisor, &task)];
        assert!(matches!(handle.join(), Ok(0)));
        workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
        assert_eq!(runs.load(Ordering::Relaxed), 1, "a task runs once");
        assert_quiet(&supervisor);
    });
}

#[test]
fn cancel_and_start() {
    explore("cancel_and_start", Time::Stands, || {
        let (runs, drops) = (counter(), counter());
        let (counted, dropped) = (Arc::clone(&runs), Dropped(Arc::clone(&drops)));
        let (supervisor, task, handle) = admitted(move || {
            let _dropped = dropped;
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let worker = worker(&supervisor, &task);
        let cancelled = handle.cancel();
        if cancelled {
            assert_eq!(drops.load(Ordering::Relaxed), 1, "the closure is dropped before `cancel` returns");
        }
        let outcome = handle.join();
        assert_eq!(drops.load(Ordering::Relaxed), 1, "the closure is gone before the outcome is there");
        worker.join().expect("no panic");
        match outcome {
            Ok(()) => assert!(!cancelled),
            Err(JoinError::Cancelled(CancelReason::Requested)) => assert!(cancelled),
            Err(other) => panic!("{other}"),
        }
        assert_eq!(runs.load(Ordering::Relaxed), usize::from(!cancelled), "`true` means that it never runs");
        assert_quiet(&supervisor);
    });
}

#[test]
fn cancel_and_cancel_and_start() {
    explore("cancel_and_cancel_and_start", Time::Stands, || {
        let runs = counter();
        let counted = Arc::clone(&runs);
        let (supervisor, task, handle) = admitted(move || counted.fetch_add(1, Ordering::Relaxed));
        let worker = worker(&supervisor, &task);
        let other = thread::spawn({
            let (supervisor, task) = (Arc::clone(&supervisor), Arc::clone(&task));
            move || task.cancel(CancelReason::ShutDown, &supervisor)
        });
        let cancelled = [handle.cancel(), other.join().expect("no panic")];
        worker.join().expect("no panic");
        let fates = runs.load(Ordering::Relaxed) + cancelled.iter().filter(|cancelled| **cancelled).count();
        assert_eq!(fates, 1, "one fate");
        assert!(handle.is_finished());
        assert_quiet(&supervisor);
    });
}

#[test]
fn finished_shows_what_was_done() {
    explore("finished_shows_what_was_done", Time::Stands, || {
        let done = counter();
        let written = Arc::clone(&done);
        let (supervisor, task, handle) = admitted(move || written.store(1, Ordering::Relaxed));
        let worker = worker(&supervisor, &task);
        if handle.is_finished() {
            assert_eq!(done.load(Ordering::Relaxed), 1, "who sees the task finished sees what it did");
        }
        worker.join().expect("no panic");
    });
}

#[test]
fn complete_and_detach() {
    explore("complete_and_detach", Time::Stands, || {
        let drops = counter();
        let result = Dropped(Arc::clone(&drops));
        let (supervisor, task, handle) = admitted(move || result);
        let worker = worker(&supervisor, &task);
        drop(handle);
        worker.join().expect("no panic");
        assert_eq!(drops.load(Ordering::Relaxed), 1, "a result that nobody wants is dropped at once, and once");
        assert_quiet(&supervisor);
        drop(task);
    });
}

/// Polls once.
fn poll<T>(handle: &mut JoinHandle<T>, bell: &Arc<Bell>) -> Poll<Result<T, JoinError>> {
    Pin::new(handle).poll(&mut Context::from_waker(&bell.waker()))
}

#[test]
fn poll_and_complete() {
    explore("poll_and_complete", Time::Stands, || {
        let (supervisor, task, mut handle) = admitted(|| 7);
        let worker = worker(&supervisor, &task);
        let (first, second) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        let outcome = match poll(&mut handle, &first) {
            Poll::Ready(outcome) => outcome,
            // Polled by another executor meanwhile: the last waker is the one to be called.
            Poll::Pending => loop {
                match poll(&mut handle, &second) {
                    Poll::Ready(outcome) => break outcome,
                    Poll::Pending => second.wait(),
                }
            },
        };
        assert!(matches!(outcome, Ok(7)));
        worker.join().expect("no panic");
        assert_quiet(&supervisor);
    });
}

#[test]
fn poll_and_complete_and_drop_of_the_handle() {
    explore("poll_and_complete_and_drop_of_the_handle", Time::Stands, || {
        let drops = counter();
        let result = Dropped(Arc::clone(&drops));
        let (supervisor, task, mut handle) = admitted(move || result);
        let worker = worker(&supervisor, &task);
        let bell = Arc::new(Bell::default());
        let polled = poll(&mut handle, &bell);
        drop(handle);
        worker.join().expect("no panic");
        drop(polled);
        assert_eq!(drops.load(Ordering::Relaxed), 1, "the result is dropped once, whoever has it");
        assert_eq!(Arc::strong_count(&bell), 1, "no waker is kept when the handle is gone");
        assert_quiet(&supervisor);
        drop(task);
    });
}

#[test]
fn cancel_and_poll() {
    explore("cancel_and_poll", Time::Stands, || {
        let (_, task, mut handle) = admitted(|| AtomicUsize::new(0));
        let supervisor = Arc::new(Supervisor::new(Hooks::default(), false));
        let canceller = thread::spawn({
            let task = Arc::clone(&task);
            move || task.cancel(CancelReason::ShutDown, &supervisor)
        });
        let bell = Arc::new(Bell::default());
        let outcome = loop {
            match poll(&mut handle, &bell) {
                Poll::Ready(outcome) => break outcome,
                Poll::Pending => bell.wait(),
            }
        };
        assert!(matches!(outcome, Err(JoinError::Cancelled(CancelReason::ShutDown))));
        assert!(canceller.join().expect("no panic"));
        assert!(!bell.has_rung(), "a waker is called once");
    });
}
