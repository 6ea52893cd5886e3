//! Start hooks that fail: in `build`, in `resize`, and while the pool is resized or ended.

use std::error::Error;
use std::fmt;
use std::panic::panic_any;
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crate::common::{BlockedWorkers, Bomb, Counter, DropCounter, Gate, Mutex, grid, quiet_panics, with_watchdog};
use workcrew::{BuildError, JoinError, JoinHandle, WeakWorkerPool, WorkerPool, current_worker};

/// Fault 421.
#[test]
fn a_start_hook_that_fails_fails_the_build_and_leaves_no_thread() {
    quiet_panics();
    grid(|builder| {
        let (started, stopped, dropped) = (Counter::new(), Counter::new(), Counter::new());
        let (start, stop, captured) = (started.clone(), stopped.clone(), DropCounter(dropped.clone()));
        let error = builder
            .try_on_thread_start(move |worker| {
                let _captured = &captured;
                start.add();
                if worker == 0 { Err(format!("no connection for worker {worker}")) } else { Ok(()) }
            })
            .on_thread_stop(move |worker| {
                assert_ne!(worker, 0, "its start hook has failed");
                stop.add();
            })
            .build()
            .unwrap_err();
        let BuildError::StartHookFailed { worker: 0, source, .. } = &error else { panic!("{error}") };
        assert_eq!(source.to_string(), "no connection for worker 0");
        assert_eq!(error.source().unwrap().to_string(), source.to_string());
        assert_eq!(error.to_string(), "the start hook of worker 0 failed");
        assert_eq!(started.get(), stopped.get() + 1);
        assert_eq!(dropped.get(), 1, "all threads have been joined");
    });
}

/// An error that panics when it is dropped.
struct Explosive(Counter);

impl fmt::Debug for Explosive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Explosive")
    }
}

impl Drop for Explosive {
    fn drop(&mut self) {
        drop(Bomb(self.0.clone()));
    }
}

impl fmt::Display for Explosive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("explosive")
    }
}

impl Error for Explosive {}

/// Fault 421.
#[test]
fn of_several_failed_start_hooks_that_of_the_lowest_worker_is_returned() {
    quiet_panics();
    with_watchdog(|| {
        for workers in [1, 2, 8] {
            let dropped = Counter::new();
            let drops = dropped.clone();
            let builder = WorkerPool::builder().workers(workers);
            let error = builder.try_on_thread_start(move |_| Err(Explosive(drops.clone()))).build().unwrap_err();
            assert!(matches!(error, BuildError::StartHookFailed { worker: 0, .. }), "{error}");
            assert_eq!(dropped.get(), workers - 1, "the errors of the others are dropped");
            std::mem::forget(error);
        }
    });
}

/// Fault 422.
#[test]
fn a_start_hook_that_panics_fails_the_build() {
    quiet_panics();
    grid(|builder| {
        let error = builder.try_on_thread_start(|_| -> Result<(), String> { panic!("no device") }).build().unwrap_err();
        assert!(
            matches!(&error, BuildError::StartHookPanicked { worker: 0, message: Some(text), .. } if text == "no device")
        );
        assert_eq!(error.to_string(), "the start hook of worker 0 panicked: no device");
    });
    let dropped = Counter::new();
    let payload = dropped.clone();
    let hook = move |_| -> Result<(), String> { panic_any(Bomb(payload.clone())) };
    let error = WorkerPool::builder().workers(1).try_on_thread_start(hook).build().unwrap_err();
    assert_eq!(error.to_string(), "the start hook of worker 0 panicked");
    assert_eq!(dropped.get(), 1);
}

/// Fault 421.
#[test]
fn a_pool_is_built_when_every_start_hook_has_succeeded_and_the_last_hook_counts() {
    grid(|builder| {
        let (first, last) = (Counter::new(), Counter::new());
        let (one, two) = (first.clone(), last.clone());
        let builder = builder.on_thread_start(move |_| one.add());
        let pool = builder
            .try_on_thread_start(move |worker| {
                assert_eq!(current_worker().unwrap().index(), worker);
                two.add();
                Ok::<_, std::io::Error>(())
            })
            .build()
            .unwrap();
        assert_eq!((first.get(), last.get()), (0, pool.workers()));
        assert_eq!(pool.spawn(|| 1).unwrap().join().unwrap(), 1);
    });
}

/// Fault 423.
#[test]
fn a_start_hook_that_fails_in_a_resize_undoes_the_resize() {
    quiet_panics();
    with_watchdog(|| {
        for workers in [1, 2, 8] {
            let failing = Arc::new(OnceLock::new());
            let fails = Arc::clone(&failing);
            let pool = WorkerPool::builder()
                .workers(workers)
                .try_on_thread_start(move |worker| match fails.get() {
                    Some(failing) if worker == *failing => Err("no connection"),
                    _ => Ok(()),
                })
                .build()
                .unwrap();
            failing.set(workers + 1).unwrap();
            let error = pool.resize(workers + 4).unwrap_err();
            assert!(matches!(error, BuildError::StartHookFailed { worker, .. } if worker == workers + 1), "{error}");
            assert_eq!(pool.workers(), workers);
            let tasks: Vec<_> = (0..50).map(|_| pool.spawn(|| current_worker().unwrap().index()).unwrap()).collect();
            for task in tasks {
                assert_ne!(task.join().unwrap(), workers + 1, "a failed worker runs no task");
            }
            pool.resize(workers + 1).unwrap();
            assert_eq!(pool.workers(), workers + 1);
            pool.shutdown();
        }
    });
}

/// Fault 423.
#[test]
fn a_start_hook_may_resize_its_pool_and_submit_to_it() {
    with_watchdog(|| {
        let (slot, ran) = (Arc::new(OnceLock::<WeakWorkerPool>::new()), Counter::new());
        let (reach, run) = (Arc::clone(&slot), ran.clone());
        let pool = WorkerPool::builder()
            .workers(2)
            .try_on_thread_start(move |_| -> Result<(), BuildError> {
                if let Some(pool) = reach.get().and_then(WeakWorkerPool::upgrade) {
                    pool.resize(4)?;
                    let run = run.clone();
                    pool.spawn(move || run.add()).unwrap().join().unwrap();
                }
                Ok(())
            })
            .build()
            .unwrap();
        slot.set(pool.downgrade()).unwrap();
        pool.resize(3).unwrap();
        assert_eq!(pool.workers(), 4, "the hook has resized last");
        assert!(ran.get() >= 1);
        pool.shutdown();
    });
}

/// A pool of one worker, and a thread that resizes it to two while the start hook of the second is
/// held at the gate. The hook then succeeds or fails.
fn held_resize(succeeds: bool) -> (WorkerPool, Gate, thread::JoinHandle<Result<(), BuildError>>) {
    let gate = Gate::new();
    let inside = gate.clone();
    let pool = WorkerPool::builder()
        .workers(1)
        .try_on_thread_start(move |worker| {
            if worker > 0 {
                inside.pass();
            }
            if succeeds || worker == 0 { Ok(()) } else { Err("no connection") }
        })
        .build()
        .unwrap();
    let resized = pool.clone();
    let thread = thread::spawn(move || resized.resize(2));
    gate.wait_started(1);
    (pool, gate, thread)
}

/// Fault 424.
#[test]
fn a_resize_meets_a_start_hook_and_a_worker_is_left_whether_the_hook_fails_or_not() {
    with_watchdog(|| {
        for succeeds in [true, false] {
            for target in [1, 2, 3] {
                let (pool, gate, thread) = held_resize(succeeds);
                let other = pool.clone();
                let second = thread::spawn(move || other.resize(target));
                if target < 3 {
                    second.join().unwrap().unwrap();
                    assert_eq!(pool.spawn(|| 1).unwrap().join().unwrap(), 1, "while the hook runs");
                    gate.open();
                } else {
                    gate.wait_started(2);
                    gate.open();
                    assert_eq!(second.join().unwrap().is_ok(), succeeds);
                }
                assert_eq!(thread.join().unwrap().is_ok(), succeeds);
                assert!((1..=target).contains(&pool.workers()));
                assert_eq!(pool.spawn(|| 1).unwrap().join().unwrap(), 1);
                pool.shutdown();
            }
        }
    });
}

/// Fault 424.
#[test]
fn a_pool_ends_while_a_start_hook_of_a_resize_is_held() {
    with_watchdog(|| {
        for succeeds in [true, false] {
            let (pool, gate, thread) = held_resize(succeeds);
            let report = pool.shutdown_timeout(Duration::ZERO);
            assert_eq!(report.tasks_running, 0);
            pool.shutdown();
            gate.open();
            assert_eq!(thread.join().unwrap().is_ok(), succeeds);
        }
    });
}

/// Fault 651.
#[test]
fn a_start_hook_waits_for_a_task_that_only_the_thread_which_waits_for_the_hook_can_run() {
    grid(|builder| {
        let home = builder.workers(1).build().unwrap();
        let reach = home.downgrade();
        let abroad = home.spawn(move || {
            let hook = move |_| {
                let home = reach.upgrade().unwrap();
                assert_eq!(home.spawn(|| 1).unwrap().join().unwrap(), 1);
                let group = home.group::<Result<u32, BuildError>>();
                group.spawn(|| Ok(2));
                assert_eq!(group.wait().unwrap(), [2]);
                Ok::<(), BuildError>(())
            };
            let abroad = WorkerPool::builder().workers(1).try_on_thread_start(hook).build().unwrap();
            abroad.resize(3).unwrap();
            abroad
        });
        assert_eq!(abroad.unwrap().join().unwrap().workers(), 3);
    });
}

/// Fault 651.
#[test]
fn a_start_hook_that_waits_for_the_thread_which_waits_for_the_hook_gets_would_deadlock() {
    with_watchdog(|| {
        for joins_share in [false, true] {
            let (slot, refused) = (Arc::new(OnceLock::<WeakWorkerPool>::new()), Counter::new());
            let (task, reach, count) = (Arc::new(Mutex::new(None)), Arc::clone(&slot), refused.clone());
            let queued = Arc::clone(&task);
            let hook = move |worker| -> Result<(), JoinError> {
                let Some(pool) = reach.get().and_then(WeakWorkerPool::upgrade).filter(|_| worker == 1) else {
                    return Ok(());
                };
                let joined = if joins_share {
                    pool.broadcast(|_| ()).unwrap().remove(0).join()
                } else {
                    let task: JoinHandle<Result<(), BuildError>> = queued.lock().unwrap().take().unwrap();
                    task.join().map(drop)
                };
                if matches!(joined, Err(JoinError::WouldDeadlock(_))) {
                    count.add();
                }
                joined
            };
            let pool = WorkerPool::builder().workers(1).try_on_thread_start(hook).build().unwrap();
            slot.set(pool.downgrade()).unwrap();
            let (own, wedge) = (pool.clone(), BlockedWorkers::new(&pool));
            let (send, result) = channel();
            let resizes = pool.spawn(move || {
                let resized = own.resize(2);
                let is_refused = matches!(resized, Err(BuildError::StartHookFailed { worker: 1, .. }));
                send.send(is_refused).unwrap();
                resized
            });
            *task.lock().unwrap() = Some(resizes.unwrap());
            wedge.open();
            assert!(result.recv().unwrap(), "the hook has reported its error");
            assert_eq!((refused.get(), pool.workers()), (1, 1));
            pool.shutdown();
        }
    });
}
