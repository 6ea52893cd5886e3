//! Panics in user code: which are contained, which reach a waiter or a hook, and which abort the
//! process.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(panic = "unwind")]

mod common;

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use common::{
    BlockedWorkers, Bomb, Counter, Gate, LIMIT, Mutex, assert_counts_add_up, on_grid, pool, run_child, with_watchdog,
};
use workcrew::{JoinError, TaskPanic, WorkerPool};

fn panic_of<T: std::fmt::Debug>(outcome: Result<T, JoinError>) -> TaskPanic {
    match outcome {
        Err(JoinError::Panicked(panic)) => panic,
        other => panic!("expected a panic, found {other:?}"),
    }
}

/// Fault 20.
#[test]
fn the_payload_of_each_kind_of_panic_reaches_the_joiner() {
    common::quiet_panics();
    on_grid(|pool| {
        let text = panic_of(
            pool.spawn(|| {
                if true {
                    panic!("plain")
                }
            })
            .unwrap()
            .join(),
        );
        assert_eq!(text.message(), Some("plain"));
        assert_eq!(text.location().file(), file!());
        let number = 7;
        let formatted = panic_of(
            pool.spawn(move || {
                if true {
                    panic!("number {number}")
                }
            })
            .unwrap()
            .join(),
        );
        assert_eq!(formatted.message(), Some("number 7"));
        assert!(formatted.to_string().contains("panicked: number 7"));
        let any = panic_of(
            pool.spawn(|| {
                if true {
                    panic::panic_any(5_i32)
                }
            })
            .unwrap()
            .join(),
        );
        assert_eq!(any.message(), None);
        assert_eq!(any.into_payload().downcast_ref(), Some(&5_i32));
        let resumed = panic_of(
            pool.spawn(|| {
                if true {
                    panic::resume_unwind(Box::new("again"))
                }
            })
            .unwrap()
            .join(),
        );
        let caught = panic::catch_unwind(AssertUnwindSafe(|| resumed.resume())).unwrap_err();
        assert_eq!(caught.downcast_ref(), Some(&"again"));
    });
}

/// Fault 21.
#[test]
fn workers_are_reused_after_panics() {
    common::quiet_panics();
    on_grid(|pool| {
        for _ in 0..pool.workers() * 3 {
            pool.execute(|| panic!()).unwrap();
        }
        let wedge = BlockedWorkers::new(&pool); // needs all workers at once
        wedge.open();
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_panicked as usize, pool.workers() * 3);
        assert_counts_add_up(&pool);
    });
}

/// Fault 22.
#[test]
fn a_bomb_captured_by_a_closure_counts_as_the_tasks_panic() {
    common::quiet_panics();
    on_grid(|pool| {
        let bombs = Counter::new();
        let bomb = Bomb(bombs.clone());
        let handle = pool.spawn(move || {
            let _captured = &bomb;
        });
        assert_eq!(panic_of(handle.unwrap().join()).message(), Some("bomb"));
        assert_eq!(bombs.get(), 1);
    });
}

/// Fault 23.
#[test]
fn bombs_in_closures_that_never_run_are_contained() {
    common::quiet_panics();
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let bombs = Counter::new();
        let armed = || {
            let bomb = Bomb(bombs.clone());
            move || drop(bomb)
        };
        let cancelled = pool.spawn(armed()).unwrap();
        assert!(cancelled.cancel());
        let group = pool.group().capacity(5);
        for _ in 0..5 {
            group.spawn(armed());
        }
        group.cancel();
        assert_eq!(bombs.get(), 6);
        let refused = loop {
            if let Err(error) = pool.try_execute(armed()) {
                break error.into_inner();
            }
        };
        let report = pool.shutdown_now();
        assert_eq!(bombs.get(), 6 + report.tasks_cancelled);
        assert!(panic::catch_unwind(AssertUnwindSafe(|| drop(refused))).is_err(), "what came back is the caller's");
        wedge.open();
        assert_eq!(pool.shutdown_timeout(LIMIT).tasks_running, 0);
        assert_counts_add_up(&pool);
    });
}

/// Faults 24, 25, 54.
#[test]
fn a_panicking_destructor_of_a_result_is_contained_unless_it_was_taken() {
    common::quiet_panics();
    on_grid(|pool| {
        let bombs = Counter::new();
        // The handle goes first, while the task runs, and after it has ended.
        for moment in 0..3 {
            let (gate, bomb) = (Gate::new(), Bomb(bombs.clone()));
            let inside = gate.clone();
            let handle = pool
                .spawn(move || {
                    inside.pass();
                    bomb
                })
                .unwrap();
            match moment {
                0 => drop(handle),
                1 => {
                    gate.wait_started(1);
                    drop(handle);
                }
                _ => {
                    gate.open();
                    assert!(handle.wait_timeout(LIMIT));
                    drop(handle);
                }
            }
            gate.open();
            pool.wait_idle();
            assert_eq!(bombs.get(), moment + 1);
        }
        let bomb = Bomb(bombs.clone());
        let taken = pool.spawn(move || bomb).unwrap().join().unwrap();
        assert_eq!(bombs.get(), 3);
        assert!(panic::catch_unwind(AssertUnwindSafe(|| drop(taken))).is_err(), "now it is the joiner's panic");
        assert_eq!(pool.metrics().tasks_panicked, 0);
    });
}

/// Faults 26, 27.
#[test]
fn a_payload_that_is_a_bomb_belongs_to_the_joiner_or_is_contained() {
    common::quiet_panics();
    on_grid(|pool| {
        let bombs = Counter::new();
        let throws = || {
            let bomb = Bomb(bombs.clone());
            move || {
                if true {
                    panic::panic_any(bomb);
                }
            }
        };
        drop(pool.spawn(throws()).unwrap());
        pool.wait_idle();
        assert_eq!(bombs.get(), 1);
        let panic = panic_of(pool.spawn(throws()).unwrap().join());
        assert_eq!(bombs.get(), 1);
        drop(panic); // contained
        let payload = panic_of(pool.spawn(throws()).unwrap().join()).into_payload();
        assert!(panic::catch_unwind(AssertUnwindSafe(|| drop(payload))).is_err());
        assert_eq!(bombs.get(), 3);
    });
}

#[test]
fn values_and_errors_of_an_abandoned_group_that_are_bombs_are_contained_one_by_one() {
    common::quiet_panics();
    on_grid(|pool| {
        let bombs = Counter::new();
        let group = pool.group().policy(workcrew::GroupPolicy::CollectAll);
        for n in 0..10 {
            let bomb = Bomb(bombs.clone());
            group.spawn(move || if n % 2 == 0 { Ok(bomb) } else { Err(bomb) });
        }
        let spawner = group.spawner();
        pool.wait_idle();
        drop(group);
        drop(spawner);
        pool.shutdown(); // a worker may have been the last owner of the group
        assert_eq!(bombs.get(), 10);
    });
}

#[test]
fn the_panic_hook_of_the_pool_fires_before_the_joiner_learns() {
    common::quiet_panics();
    common::grid(|builder| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        let pool = builder
            .on_panic(move |panic| {
                let worker = thread::current().name().unwrap().to_owned();
                told.lock().unwrap().push((panic.message().unwrap().to_owned(), worker));
            })
            .build()
            .unwrap();
        panic_of(
            pool.spawn(|| {
                if true {
                    panic!("seen")
                }
            })
            .unwrap()
            .join(),
        );
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 1);
        assert!(seen[0].0 == "seen" && seen[0].1.starts_with("workcrew-"));
    });
}

/// Fault 35.
#[test]
fn hooks_that_panic_are_counted_and_every_start_has_its_stop() {
    common::quiet_panics();
    let (started, stopped) = (Counter::new(), Counter::new());
    let (start, stop) = (started.clone(), stopped.clone());
    let builder = WorkerPool::builder().workers(5).on_thread_start(move |worker| {
        start.add();
        assert!(worker != 3, "the fourth start panics");
    });
    let pool = builder.on_thread_stop(move |_| stop.add()).build().unwrap();
    pool.execute(|| ()).unwrap();
    pool.shutdown();
    assert_eq!((started.get(), stopped.get(), pool.metrics().hooks_panicked), (5, 5, 1));
}

/// Fault 38.
#[test]
fn thread_locals_are_not_reset_between_tasks() {
    thread_local! { static SPAN: Cell<u32> = const { Cell::new(0) } }
    let pool = pool(1, 4);
    pool.execute(|| SPAN.set(9)).unwrap();
    assert_eq!(pool.spawn(|| SPAN.get()).unwrap().join().unwrap(), 9);
}

/// Fault 39.
#[test]
fn a_users_lock_is_poisoned_and_ours_are_not() {
    common::quiet_panics();
    let pool = pool(1, 4);
    let lock = Arc::new(std::sync::Mutex::new(()));
    let inner = Arc::clone(&lock);
    panic_of(
        pool.spawn(move || {
            let _held = inner.lock().unwrap();
            if true {
                panic!();
            }
        })
        .unwrap()
        .join(),
    );
    assert!(lock.is_poisoned());
    assert_eq!(pool.spawn(|| 1).unwrap().join().unwrap(), 1);
}

/// Fault 31.
#[test]
fn the_process_panic_hook_may_submit() {
    let output = run_child("child_submits_in_the_panic_hook", &[]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_submits_in_the_panic_hook() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let (told, tell) = mpsc::channel();
        let (weak, told) = (pool.downgrade(), Mutex::new(told));
        panic::set_hook(Box::new(move |_| {
            let told = told.lock().unwrap().clone();
            weak.upgrade().unwrap().try_execute(move || told.send(()).unwrap()).unwrap();
        }));
        pool.execute(|| panic!()).unwrap();
        tell.recv_timeout(LIMIT).unwrap();
    });
}

/// Fault 32.
#[test]
fn exit_in_a_task_ends_the_process_with_that_code() {
    let output = run_child("child_exits_in_a_task", &[]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_exits_in_a_task() {
    pool(2, 4).spawn(|| process::exit(3)).map(|handle: workcrew::JoinHandle<()>| handle.join()).unwrap().unwrap();
}

/// Faults 28, 29, 30.
#[test]
fn panics_that_cannot_be_contained_abort_the_process() {
    // A panic while panicking, and a panicking panic hook: the standard library aborts before any code can catch it.
    for test in ["child_panics_while_panicking", "child_panics_in_the_panic_hook", "child_throws_two_bombs"] {
        let output = run_child(test, &[]);
        assert!(!output.status.success() && output.status.code().is_none(), "{test}: {output:?}");
    }
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_panics_while_panicking() {
    let bomb = Bomb(Counter::new());
    let _ = pool(1, 1)
        .spawn(move || {
            let _dropped_while_unwinding = bomb;
            if true {
                panic!("first");
            }
        })
        .unwrap()
        .join();
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_panics_in_the_panic_hook() {
    panic::set_hook(Box::new(|_| panic!("in the hook")));
    let _ = pool(1, 1)
        .spawn(|| {
            if true {
                panic!("first")
            }
        })
        .unwrap()
        .join();
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_throws_two_bombs() {
    let bombs = vec![Bomb(Counter::new()), Bomb(Counter::new())];
    let pool = pool(1, 1);
    drop(pool.spawn(move || panic::panic_any(bombs)).map(|handle: workcrew::JoinHandle<()>| drop(handle)));
    pool.wait_idle();
}

/// Fault 122.
#[test]
fn a_thread_local_of_a_worker_that_panics_in_its_destructor_aborts_the_process() {
    let output = run_child("child_leaves_a_bomb_in_a_thread_local", &[]);
    assert!(output.status.code().is_none(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("the task has ended"), "{output:?}");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_leaves_a_bomb_in_a_thread_local() {
    thread_local! { static BOMB: RefCell<Option<Bomb>> = const { RefCell::new(None) } }
    let pool = pool(1, 1);
    pool.spawn(|| BOMB.set(Some(Bomb(Counter::new())))).unwrap().join().unwrap();
    println!("the task has ended");
    pool.shutdown();
    println!("not reached");
    process::exit(0);
}

/// Faults 33, 140.
#[test]
fn a_task_that_never_ends_is_reported_as_a_straggler_and_left_behind() {
    let output = run_child("child_leaves_a_task_that_never_ends", &[]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("still running: 1"), "{output:?}");
    assert!(told.contains("the pool is gone"), "{output:?}");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_leaves_a_task_that_never_ends() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        let gate = Gate::new();
        let inside = gate.clone();
        pool.execute(move || inside.pass()).unwrap();
        gate.wait_started(1);
        let ran = pool.spawn(|| ()).unwrap();
        let report = pool.shutdown_timeout(Duration::from_millis(50));
        println!("{report}");
        assert_eq!((report.drained, report.tasks_cancelled, report.tasks_running), (false, 0, 1));
        assert!(ran.is_finished());
        drop(pool);
        println!("the pool is gone");
    });
}
