//! A shutdown that ends, ends for good: what a report leaves behind holds up nothing that follows.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/alarm.rs"]
mod alarm;
mod common;

use std::cell::RefCell;
use std::mem;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use alarm::{Alarm, poll};
use common::{
    BlockedWorkers, Counter, Gate, LIMIT, assert_counts_add_up, grid, join_all, on_grid, pool, quiet_panics, run_child,
    spawn_parked, with_watchdog,
};
use workcrew::{
    CancelReason, CancellationToken, JoinError, Observer, OnDrop, ShutdownReport, TaskInfo, TaskOutcome, WorkerLocal,
    WorkerPool, WorkerPoolBuilder,
};

const SHORT: Duration = Duration::from_millis(10);

/// A way to end a pool that gives a report without waiting for what never ends.
type End = fn(&WorkerPool) -> ShutdownReport;

const ENDS: [End; 3] =
    [|pool| pool.shutdown_timeout(Duration::ZERO), |pool| pool.shutdown_timeout(SHORT), WorkerPool::shutdown_now];

/// A task on the pool that has started, and ends when the gate is opened.
fn stuck(pool: &WorkerPool) -> (Gate, Counter) {
    let (gate, ended) = (Gate::new(), Counter::new());
    let (inside, counted) = (gate.clone(), ended.clone());
    pool.execute(move || {
        inside.pass();
        counted.add();
    })
    .unwrap();
    gate.wait_started(1);
    (gate, ended)
}

/// Fault 140.
#[test]
fn a_drop_after_a_report_does_not_wait_for_tasks_left_behind() {
    for policy in [OnDrop::Drain, OnDrop::Cancel, OnDrop::Detach] {
        for end in ENDS {
            grid(|builder| {
                let (stopped, stops) = mpsc::channel();
                let builder = builder.on_thread_stop(move |worker| stopped.send(worker).unwrap());
                let pool = builder.on_drop(policy).build().unwrap();
                let workers = pool.workers();
                let (gate, ended) = stuck(&pool);
                let report = end(&pool);
                assert_eq!((report.drained, report.tasks_running), (false, 1));
                drop(pool);
                assert_eq!(ended.get(), 0, "the drop has waited");
                gate.open();
                let mut left: Vec<_> = (0..workers).map(|_| stops.recv_timeout(LIMIT).unwrap()).collect();
                left.sort_unstable();
                assert_eq!((left, ended.get()), ((0..workers).collect(), 1));
            });
        }
    }
}

/// Fault 140.
#[test]
fn a_second_shutdown_does_not_wait_for_tasks_left_behind() {
    for end in ENDS {
        on_grid(|pool| {
            let (gate, ended) = stuck(&pool);
            assert_eq!(end(&pool).tasks_running, 1);
            pool.shutdown();
            // The first one may follow a `shutdown_now`, which has not waited; the others never wait.
            for timeout in [Duration::ZERO, SHORT, LIMIT, Duration::MAX] {
                let report = pool.shutdown_timeout(timeout);
                assert_eq!((report.drained, report.tasks_cancelled, report.tasks_running), (false, 0, 1));
            }
            assert_eq!(pool.shutdown_now().tasks_running, 1);
            pool.shutdown();
            assert_eq!(ended.get(), 0, "a shutdown has waited");
            assert!(!pool.wait_idle_timeout(SHORT));
            gate.open();
            assert!(pool.wait_idle_timeout(Duration::MAX));
            assert_eq!(ended.get(), 1);
            assert!(pool.shutdown_timeout(Duration::MAX).drained && pool.shutdown_now().drained);
        });
    }
}

/// Fault 140.
#[test]
fn the_last_reference_may_be_dropped_anywhere_after_a_report() {
    thread_local! { static LAST: RefCell<Option<WorkerPool>> = const { RefCell::new(None) } }
    quiet_panics();
    type Dropping = fn(WorkerPool);
    let droppings: [Dropping; 4] = [
        |last| thread::spawn(move || drop(last)).join().unwrap(),
        |last| thread::spawn(move || LAST.set(Some(last))).join().unwrap(),
        |last| {
            let unwinding = thread::Builder::new().name("workcrew-test".into()).spawn(move || {
                let _last = last;
                if true {
                    panic!("unwinds through the pool");
                }
            });
            assert!(unwinding.unwrap().join().is_err());
        },
        |last| pool(1, 1).spawn(move || drop(last)).unwrap().join().unwrap(),
    ];
    for dropping in droppings {
        for end in ENDS {
            on_grid(|pool| {
                let (gate, ended) = stuck(&pool);
                assert_eq!(end(&pool).tasks_running, 1);
                dropping(pool);
                assert_eq!(ended.get(), 0, "the drop has waited");
                gate.open();
            });
        }
    }
}

/// Fault 141.
#[test]
fn a_shutdown_that_waits_returns_when_another_thread_reports() {
    for end in ENDS {
        for workers in [1, 2, 8] {
            with_watchdog(|| {
                let pool = pool(workers, 64);
                let (gate, ended) = stuck(&pool);
                let waiting = [(); 3].map(|()| {
                    let pool = pool.clone();
                    spawn_parked(move || pool.shutdown())
                });
                assert!(waiting.iter().all(|waiting| !waiting.is_finished()), "nothing was reported yet");
                let report = end(&pool);
                assert_eq!((report.drained, report.tasks_running), (false, 1));
                waiting.into_iter().for_each(|waiting| waiting.join().unwrap());
                assert_eq!(ended.get(), 0, "one of them has waited for the task");
                gate.open();
            });
        }
    }
}

/// Fault 141.
#[test]
fn of_many_limits_at_once_the_shortest_ends_all() {
    with_watchdog(|| {
        for round in 0..50 {
            let pool = pool(1 + round % 3, 4);
            let (gate, ended) = stuck(&pool);
            let patient = [LIMIT * 2, Duration::MAX].map(|limit| {
                let pool = pool.clone();
                spawn_parked(move || pool.shutdown_timeout(limit))
            });
            assert!(patient.iter().all(|patient| !patient.is_finished()), "nothing was reported yet");
            let _ = pool.shutdown_now(); // waits for nothing, and shortens no limit
            assert!(patient.iter().all(|patient| !patient.is_finished()), "a limit that has not passed was cut short");
            thread::scope(|threads| {
                let limits = [Duration::ZERO, Duration::from_millis(1), SHORT, LIMIT * 2];
                let ends = limits.map(|limit| {
                    let pool = &pool;
                    threads.spawn(move || {
                        assert_eq!(pool.shutdown_timeout(limit).tasks_running, 1);
                        pool.shutdown();
                    })
                });
                join_all(ends);
            });
            for patient in patient {
                let report = patient.join().unwrap();
                assert_eq!((report.drained, report.tasks_running), (false, 1));
            }
            drop(pool);
            assert_eq!(ended.get(), 0);
            gate.open();
        }
    });
}

/// Fault 142.
#[test]
fn a_task_that_was_left_behind_ends_like_any_other() {
    for end in ENDS {
        grid(|builder| {
            let stopped = Counter::new();
            let counted = stopped.clone();
            let pool = builder.on_thread_stop(move |_| counted.add()).build().unwrap();
            let gate = Gate::new();
            let inside = gate.clone();
            let handle = pool.spawn(move || {
                inside.pass();
                7
            });
            gate.wait_started(1);
            assert_eq!(end(&pool).tasks_running, 1);
            assert_eq!((pool.running().len(), pool.metrics().tasks_running), (1, 1));
            assert!(!pool.wait_idle_timeout(Duration::ZERO));
            gate.open();
            assert_eq!(handle.unwrap().join().unwrap(), 7);
            pool.wait_idle();
            while stopped.get() < pool.workers() {
                thread::yield_now(); // each worker leaves
            }
            let metrics = pool.metrics();
            assert_eq!((metrics.tasks_succeeded, metrics.tasks_running, metrics.tasks_cancelled), (1, 0, 0));
            assert!(pool.running().is_empty());
            assert_counts_add_up(&pool);
        });
    }
}

/// Fault 142.
#[test]
fn a_pool_that_was_resized_leaves_its_stuck_worker_behind() {
    for size in [1, 3] {
        with_watchdog(|| {
            let pool = pool(2, 4);
            let wedge = BlockedWorkers::new(&pool);
            pool.resize(size).unwrap();
            let report = pool.shutdown_timeout(Duration::ZERO);
            assert_eq!(report.tasks_running, 2);
            assert!(pool.resize(2).is_err());
            pool.shutdown();
            drop(pool);
            wedge.open();
        });
    }
}

/// An observer that is stuck where a task starts, or where it ends.
struct Sticks {
    at_start: bool,
    gate: Gate,
}

impl Observer for Sticks {
    fn task_started(&self, _: &TaskInfo<'_>) {
        if self.at_start {
            self.gate.pass();
        }
    }

    fn task_ended(&self, _: &TaskInfo<'_>, _: TaskOutcome) {
        if !self.at_start {
            self.gate.pass();
        }
    }
}

/// Something stuck in user code other than a plain task: sets the pool up, and starts it.
type Sticking = fn(WorkerPoolBuilder, Gate) -> WorkerPool;

const STICKING: &[(&str, Sticking)] = &[
    ("start hook", |builder, gate| builder.on_thread_start(move |_| gate.pass()).build().unwrap()),
    ("stop hook", |builder, gate| {
        let pool = builder.on_thread_stop(move |_| gate.pass()).build().unwrap();
        pool.close();
        pool
    }),
    ("observer of starts", |builder, gate| {
        let pool = builder.observer(Sticks { at_start: true, gate }).build().unwrap();
        pool.execute(|| ()).unwrap();
        pool
    }),
    ("observer of ends", |builder, gate| {
        let pool = builder.observer(Sticks { at_start: false, gate }).build().unwrap();
        pool.execute(|| ()).unwrap();
        pool
    }),
    ("panic hook", |builder, gate| {
        let pool = builder.on_panic(move |_| gate.pass()).build().unwrap();
        pool.execute(|| panic!("to be told")).unwrap();
        pool
    }),
    ("destructor of a closure", |builder, gate| {
        struct Slow(Gate);
        impl Drop for Slow {
            fn drop(&mut self) {
                self.0.pass();
            }
        }
        let (pool, slow) = (builder.build().unwrap(), Slow(gate));
        pool.execute(move || drop(slow)).unwrap();
        pool
    }),
    ("destructor of a thread local", |builder, gate| {
        struct Slow(Gate);
        impl Drop for Slow {
            fn drop(&mut self) {
                self.0.pass();
            }
        }
        thread_local! { static SLOW: RefCell<Option<Slow>> = const { RefCell::new(None) } }
        let pool = builder.build().unwrap();
        pool.spawn(move || SLOW.set(Some(Slow(gate)))).unwrap().join().unwrap();
        pool.close();
        pool
    }),
    ("destructor of a worker local", |builder, gate| {
        struct Slow(Gate);
        impl Drop for Slow {
            fn drop(&mut self) {
                self.0.pass();
            }
        }
        let pool = builder.build().unwrap();
        let slow = WorkerLocal::new(&pool, move || Slow(gate.clone()));
        mem::forget(slow.clone()); // so the value is dropped when its worker leaves
        pool.spawn(move || slow.with(|_| ())).unwrap().join().unwrap().unwrap();
        pool.close();
        pool
    }),
    ("share of a broadcast", |builder, gate| {
        let pool = builder.build().unwrap();
        pool.broadcast(move |_| gate.pass()).unwrap();
        pool
    }),
    ("task of a key", |builder, gate| {
        let pool = builder.build().unwrap();
        pool.keyed().execute("key", move || gate.pass()).unwrap();
        pool
    }),
    ("timer", |builder, gate| {
        let pool = builder.build().unwrap();
        pool.execute_every(Duration::from_millis(1), move || gate.pass()).unwrap();
        pool
    }),
    ("group", |builder, gate| {
        let pool = builder.build().unwrap();
        let group = pool.group();
        let inside = gate.clone();
        group.spawn(move || inside.pass());
        gate.wait_started(1); // the drop cancels what has not started
        drop(group);
        pool
    }),
    #[cfg(feature = "retry")]
    ("retried task", |builder, gate| {
        let pool = builder.build().unwrap();
        let policy = workcrew::retry::RetryPolicy::<()>::fixed(Duration::from_millis(1));
        drop(pool.spawn_with_retry(policy, move |attempt| {
            if attempt.number() > 1 {
                gate.pass();
            }
            Err::<(), _>(())
        }));
        pool
    }),
    #[cfg(feature = "events")]
    ("event handler", |builder, gate| {
        let pool = builder.build().unwrap();
        let bus = workcrew::events::EventBus::new(&pool);
        bus.subscribe(move |_: &u8| gate.pass()).detach();
        bus.publish(1_u8);
        pool
    }),
];

/// Fault 143.
#[test]
fn user_code_that_is_stuck_anywhere_on_a_worker_is_left_behind() {
    quiet_panics();
    for (place, sticking) in STICKING {
        println!("{place}");
        grid(|builder| {
            let gate = Gate::new();
            let pool = sticking(builder, gate.clone());
            gate.wait_started(1);
            let _ = pool.shutdown_timeout(Duration::ZERO);
            // A limit that has room may be passed while the worker still runs towards the place.
            let _ = pool.shutdown_timeout(SHORT);
            drop(pool);
            gate.open();
        });
    }
}

/// Fault 143.
#[test]
fn a_limit_that_was_kept_binds_the_drop_too() {
    struct Slow(Gate);
    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.pass();
        }
    }
    thread_local! { static SLOW: RefCell<Option<Slow>> = const { RefCell::new(None) } }
    for policy in [OnDrop::Drain, OnDrop::Cancel, OnDrop::Detach] {
        with_watchdog(|| {
            let pool = WorkerPool::builder().workers(1).on_drop(policy).build().unwrap();
            let gate = Gate::new();
            let held = gate.clone();
            pool.spawn(move || SLOW.set(Some(Slow(held)))).unwrap().join().unwrap();
            assert!(pool.shutdown_timeout(LIMIT).drained);
            gate.wait_started(1); // in the destructor, after the worker has left
            drop(pool);
            gate.open();
        });
    }
}

/// Fault 144.
#[test]
fn a_report_that_leaves_nothing_behind_shortens_no_other_wait() {
    struct Ends(Gate, Counter);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.pass();
            self.1.add();
        }
    }
    thread_local! { static ENDS: RefCell<Option<Ends>> = const { RefCell::new(None) } }
    // `shutdown` after a limit that was kept joins the threads.
    with_watchdog(|| {
        let pool = pool(1, 4);
        let (gate, ended) = (Gate::new(), Counter::new());
        let ends = Ends(gate.clone(), ended.clone());
        pool.spawn(move || ENDS.set(Some(ends))).unwrap().join().unwrap();
        assert!(pool.shutdown_timeout(LIMIT).drained);
        gate.wait_started(1);
        let ending = spawn_parked(move || pool.shutdown());
        assert!(!ending.is_finished() && ended.get() == 0);
        gate.open();
        ending.join().unwrap();
        assert_eq!(ended.get(), 1);
    });
    // The drop after a `shutdown_now` that found no task running waits for the workers.
    grid(|builder| {
        let stopped = Counter::new();
        let counted = stopped.clone();
        let pool = builder.on_thread_stop(move |_| counted.add()).build().unwrap();
        let workers = pool.workers();
        assert!(pool.shutdown_now().drained);
        drop(pool);
        assert_eq!(stopped.get(), workers);
    });
}

/// Fault 144.
#[test]
fn a_timed_shutdown_by_a_task_leaves_nothing_behind() {
    on_grid(|pool| {
        let (gate, inner) = (Gate::new(), pool.downgrade());
        let inside = gate.clone();
        let task = pool.spawn(move || {
            inside.pass();
            inner.upgrade().unwrap().shutdown_timeout(Duration::ZERO)
        });
        gate.wait_started(1);
        let ran = Counter::new();
        let queued = {
            let counted = ran.clone();
            pool.try_execute(move || counted.add()).is_ok()
        };
        gate.open();
        let report = task.unwrap().join().unwrap();
        assert!(report.tasks_running >= 1 && report.tasks_cancelled == 0);
        pool.shutdown();
        assert_eq!(ran.get(), usize::from(queued), "the shutdown has not waited for what was queued");
    });
}

/// Fault 144.
#[test]
fn a_task_may_give_its_pool_up_beside_one_that_is_stuck() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        let (gate, ended) = stuck(&pool);
        let inner = pool.downgrade();
        let report = pool.spawn(move || inner.upgrade().unwrap().shutdown_now()).unwrap().join().unwrap();
        assert_eq!(report.tasks_running, 2, "the stuck task and the one that asks");
        pool.shutdown();
        drop(pool);
        assert_eq!(ended.get(), 0);
        gate.open();
    });
}

/// Fault 144.
#[test]
fn tasks_queued_behind_a_stuck_task_are_cancelled_once() {
    for end in ENDS {
        on_grid(|pool| {
            let wedge = BlockedWorkers::new(&pool);
            let queued = pool.spawn(|| ()).unwrap();
            let timer = pool.execute_after(LIMIT, || ()).unwrap();
            let report = end(&pool);
            assert_eq!((report.tasks_cancelled, report.tasks_running), (2, pool.workers()));
            assert!(matches!(queued.join(), Err(JoinError::Cancelled(CancelReason::ShutDown))));
            assert!(timer.is_finished());
            assert_eq!(pool.shutdown_now().tasks_cancelled, 0);
            pool.shutdown();
            assert_eq!(pool.metrics().tasks_cancelled, 2);
            wedge.open();
            pool.wait_idle();
            assert_counts_add_up(&pool);
        });
    }
}

/// Ends the pool by each way in a process of its own, whose `main` then returns. `stick` sets a thread of the pool up to
/// be stuck forever, and returns once it is; what it returns is dropped after the pool.
fn leave_behind_and_return<T>(stick: impl Fn(&WorkerPool) -> T) {
    with_watchdog(|| {
        for end in ENDS {
            let pool = WorkerPool::builder().workers(2).build().unwrap();
            let kept = stick(&pool);
            println!("{}", end(&pool));
            drop(pool);
            drop(kept);
        }
        println!("main returns");
    });
}

/// Fault 145.
#[test]
fn a_process_with_a_stuck_thread_ends_when_main_returns() {
    let children = [
        ("child_with_a_stuck_worker", true),
        ("child_with_a_stuck_timer", true),
        ("child_with_a_stuck_alarm", true),
        ("child_with_a_stuck_future", cfg!(feature = "driver")),
        ("child_with_a_stuck_task_of_the_runtime", cfg!(feature = "driver")),
    ];
    for (child, _) in children.iter().filter(|(_, is_built)| *is_built) {
        let output = run_child(child, &[]);
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("main returns"), "{child}: {output:?}");
        assert!(told.contains("1 passed"), "{child} was not found: {told}");
    }
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_with_a_stuck_worker() {
    leave_behind_and_return(|pool| {
        let gate = stuck(pool).0;
        let bystander = pool.execute(|| ());
        (gate, bystander)
    });
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_with_a_stuck_timer() {
    leave_behind_and_return(|pool| {
        let gate = Gate::new();
        let inside = gate.clone();
        let timer = pool.execute_every(Duration::from_millis(1), move || inside.pass()).unwrap();
        let later = pool.execute_after(LIMIT, || ()).unwrap();
        gate.wait_started(1);
        (timer, later)
    });
}

/// A deadline wakes futures on a thread that all pools share.
#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_with_a_stuck_alarm() {
    let gate = Gate::new();
    let inside = gate.clone();
    let sticks = Alarm::that(move || inside.pass());
    let token = CancellationToken::with_timeout(SHORT);
    let mut cancelled = token.cancelled();
    assert!(poll(&mut cancelled, &sticks).is_pending());
    gate.wait_started(1);
    leave_behind_and_return(|pool| pool.task().timeout(LIMIT).spawn(|_| ()).unwrap());
}

#[test]
#[ignore = "run by the test above in a process of its own"]
#[cfg(feature = "driver")]
fn child_with_a_stuck_future() {
    leave_behind_and_return(|pool| {
        let driver = workcrew::driver::Driver::new(pool, 4).unwrap();
        let gate = Gate::new();
        let inside = gate.clone();
        let handle = driver.spawn(async move { inside.pass() }).unwrap();
        gate.wait_started(1);
        (handle, driver)
    });
}

/// What a future gives to the runtime by itself is no task of the pool, so no report names it.
#[test]
#[ignore = "run by the test above in a process of its own"]
#[cfg(feature = "driver")]
fn child_with_a_stuck_task_of_the_runtime() {
    leave_behind_and_return(|pool| {
        let driver = workcrew::driver::Driver::new(pool, 4).unwrap();
        let gate = Gate::new();
        let inside = gate.clone();
        driver.spawn(async move { drop(tokio::spawn(async move { inside.pass() })) }).unwrap().join().unwrap();
        gate.wait_started(1);
        driver
    });
}
