//! Hooks that panic, misuse what they get, submit tasks; and which hooks see the context.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};

use crate::common::{Counter, Mutex, quiet_panics, with_watchdog};
use crate::{REQUEST, as_request};
use workcrew::{JoinError, Observer, TaskInfo, TaskOutcome, WorkerPool};

thread_local! {
    /// How the capture and the wrapper misbehave.
    static MISUSE: Cell<Misuse> = const { Cell::new(Misuse::None) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Misuse {
    None,
    PanicInCapture,
    PanicBefore,
    PanicAfter,
    NeverRun,
    RunTwice,
    PanicInDrop,
}

/// Panics when dropped, if it holds `true`.
struct Fuse(bool);

impl Drop for Fuse {
    fn drop(&mut self) {
        assert!(!self.0, "expected by the test");
    }
}

fn misused() -> WorkerPool {
    let builder = WorkerPool::builder().workers(1).propagate(|| {
        let (misuse, request) = (MISUSE.get(), REQUEST.get());
        assert!(misuse != Misuse::PanicInCapture, "expected by the test");
        let fuse = Fuse(misuse == Misuse::PanicInDrop);
        move |run| {
            let _fuse = &fuse;
            assert!(misuse != Misuse::PanicBefore, "expected by the test");
            if misuse != Misuse::NeverRun {
                as_request(request, &mut *run);
            }
            if misuse == Misuse::RunTwice {
                run();
            }
            assert!(misuse != Misuse::PanicAfter, "expected by the test");
        }
    });
    builder.build().unwrap()
}

/// Fault 522.
#[test]
fn a_task_runs_once_whatever_the_hooks_of_its_context_do() {
    quiet_panics();
    with_watchdog(|| {
        // The misuse, the request that the task sees, and the panics that are counted.
        let cases = [
            (Misuse::None, 5, 0),
            (Misuse::PanicInCapture, 0, 1),
            (Misuse::PanicBefore, 0, 1),
            (Misuse::PanicAfter, 5, 1),
            (Misuse::NeverRun, 0, 0),
            (Misuse::RunTwice, 5, 0),
            (Misuse::PanicInDrop, 5, 0),
        ];
        for (misuse, request, panics) in cases {
            let pool = misused();
            MISUSE.set(misuse);
            let ran = Counter::new();
            let counted = ran.clone();
            let task = as_request(5, || {
                pool.spawn(move || {
                    counted.add();
                    REQUEST.get()
                })
            });
            let group = pool.group();
            as_request(5, || group.spawn(|| Ok::<_, Infallible>(REQUEST.get())));
            MISUSE.set(Misuse::None);
            assert_eq!((task.unwrap().join().unwrap(), ran.get()), (request, 1));
            assert_eq!(group.wait().unwrap(), [request]);
            assert_eq!(pool.spawn(|| REQUEST.get()).unwrap().join().unwrap(), 0);
            assert_eq!(pool.metrics().hooks_panicked, 2 * panics);
        }
    });
}

/// Fault 522.
#[test]
fn a_panic_of_the_task_reaches_the_waiter_and_not_the_wrapper() {
    quiet_panics();
    let pool = misused();
    let panicked = as_request(5, || pool.spawn(|| panic!("expected by the test"))).unwrap();
    assert!(matches!(panicked.join(), Err(JoinError::Panicked(_))));
    assert_eq!(pool.spawn(|| REQUEST.get()).unwrap().join().unwrap(), 0, "the wrapper has restored the context");
    assert_eq!((pool.metrics().hooks_panicked, pool.metrics().tasks_panicked), (0, 1));
}

/// Fault 522.
#[test]
fn a_capture_that_submits_tasks_ends_at_the_limit_of_hooks() {
    with_watchdog(|| {
        static POOL: OnceLock<WorkerPool> = OnceLock::new();
        let captured = Counter::new();
        let counted = captured.clone();
        let builder = WorkerPool::builder().workers(1).propagate(move || {
            counted.add();
            if let Some(pool) = POOL.get() {
                pool.execute(|| ()).unwrap();
            }
            |run: &mut dyn FnMut()| run()
        });
        let pool = POOL.get_or_init(|| builder.build().unwrap());
        pool.execute(|| ()).unwrap();
        pool.wait_idle();
        assert_eq!(captured.get(), 16);
        assert_eq!((pool.metrics().tasks_succeeded, pool.metrics().hooks_skipped), (17, 1));
    });
}

/// Tells which hook was called, and in which request.
struct Told(Mutex<Sender<(&'static str, u32)>>);

impl Told {
    fn tell(&self, hook: &'static str) {
        let sender = self.0.lock().unwrap();
        sender.send((hook, REQUEST.get())).unwrap();
    }
}

impl Observer for Told {
    fn task_submitted(&self, _: &TaskInfo<'_>) {
        self.tell("submitted");
    }

    fn task_started(&self, _: &TaskInfo<'_>) {
        self.tell("started");
    }

    fn task_ended(&self, _: &TaskInfo<'_>, _: TaskOutcome) {
        self.tell("ended");
    }
}

/// Fault 523.
#[test]
fn the_hooks_of_a_running_task_are_called_in_its_context() {
    quiet_panics();
    let (sender, receiver) = channel();
    let told = Arc::new(Told(Mutex::new(sender)));
    let on_panic = Arc::clone(&told);
    let builder = WorkerPool::builder().workers(1).observer(told).on_panic(move |_| on_panic.tell("panicked"));
    let pool = crate::carrying(builder).0.build().unwrap();
    let panicked = as_request(5, || pool.spawn(|| panic!("expected by the test"))).unwrap();
    assert!(panicked.join().is_err());
    let calls = |names: &[&'static str]| names.iter().map(|name| (*name, 5)).collect::<Vec<_>>();
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), calls(&["submitted", "started", "panicked", "ended"]));
    #[cfg(feature = "retry")]
    {
        use workcrew::retry::RetryPolicy;

        let policy = RetryPolicy::<String>::fixed(std::time::Duration::ZERO).max_attempts(2);
        let panics = as_request(5, || {
            pool.spawn_with_retry(policy, |_| -> Result<(), String> { panic!("expected by the test") })
        });
        assert!(panics.unwrap().join().unwrap().is_err());
        let all = calls(&["submitted", "started", "panicked", "started", "panicked", "ended"]);
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), all);
    }
}
