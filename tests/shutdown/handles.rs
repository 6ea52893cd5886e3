//! The handles of a pool: clones, weak handles, and the drop of the last one.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::common::{
    BlockedWorkers, Counter, Gate, LIMIT, assert_counts_add_up, grid, in_threads, on_grid, pool, quiet_panics,
    with_watchdog,
};
#[cfg(feature = "driver")]
use workcrew::driver::Driver;
#[cfg(feature = "events")]
use workcrew::events::EventBus;
use workcrew::{CancelReason, CancellationToken, JoinError, OnDrop, TaskGroup, WorkerPool, WorkerPoolBuilder};

const POLICIES: [OnDrop; 3] = [OnDrop::Drain, OnDrop::Cancel, OnDrop::Detach];

/// A builder whose pool reports the end of each of its workers.
fn reporting(builder: WorkerPoolBuilder) -> (WorkerPoolBuilder, mpsc::Receiver<usize>) {
    let (stopped, stops) = mpsc::channel();
    let builder = builder.on_thread_stop(move |worker| {
        let _ = stopped.send(worker);
    });
    (builder, stops)
}

/// Blocks until `workers` workers have ended.
fn wait_ended(stops: &mpsc::Receiver<usize>, workers: usize) {
    for _ in 0..workers {
        stops.recv_timeout(LIMIT).unwrap();
    }
}

/// Fault 300.
#[test]
fn a_pool_stays_open_until_its_last_handle_is_dropped() {
    for policy in POLICIES {
        grid(|builder| {
            let (builder, stops) = reporting(builder);
            let pool = builder.on_drop(policy).build().unwrap();
            let (workers, weak) = (pool.workers(), pool.downgrade());
            let handles: Vec<_> = (0..5).map(|_| pool.clone()).collect();
            assert_eq!(weak.strong_count(), 6);
            drop(pool);
            for (dropped, handle) in handles.into_iter().enumerate() {
                assert_eq!(weak.strong_count(), 5 - dropped);
                assert!(!handle.is_shut_down());
                assert_eq!(handle.spawn(move || dropped).unwrap().join().unwrap(), dropped);
                thread::spawn(move || drop(handle)).join().unwrap();
            }
            assert_eq!(weak.strong_count(), 0);
            assert!(weak.upgrade().is_none());
            wait_ended(&stops, workers);
        });
    }
}

/// Fault 300.
#[test]
fn the_last_handle_dropped_elsewhere_ends_the_pool_by_its_policy() {
    for policy in POLICIES {
        grid(|builder| {
            let (builder, stops) = reporting(builder);
            let pool = builder.on_drop(policy).build().unwrap();
            let (workers, ran) = (pool.workers(), Counter::new());
            let wedge = BlockedWorkers::new(&pool);
            let counted = ran.clone();
            let queued = pool.spawn(move || counted.add()).unwrap();
            let (last, gate) = (pool.clone(), Gate::new());
            let inside = gate.clone();
            let dropper = thread::spawn(move || {
                inside.pass();
                drop(last);
            });
            drop(pool); // not the last one: neither waits nor cancels
            assert!(!queued.is_finished());
            gate.open();
            if policy == OnDrop::Cancel {
                assert!(queued.wait_timeout(LIMIT), "cancelled while every worker is busy");
            }
            if policy == OnDrop::Detach {
                dropper.join().unwrap(); // does not wait for the tasks that run
                wedge.open();
            } else {
                wedge.open();
                dropper.join().unwrap();
                assert!(queued.is_finished());
            }
            match queued.join() {
                Ok(()) => assert!(policy != OnDrop::Cancel),
                Err(error) => assert!(matches!(error, JoinError::Cancelled(CancelReason::ShutDown))),
            }
            wait_ended(&stops, workers);
            assert_eq!(ran.get(), usize::from(policy != OnDrop::Cancel));
        });
    }
}

/// Fault 301.
#[test]
fn of_handles_dropped_at_once_the_last_drop_waits_for_every_task() {
    with_watchdog(|| {
        for round in 0..200 {
            let ran = Counter::new();
            in_threads(|threads| {
                let pool = pool(1 + round % 3, 64);
                for _ in 0..4 {
                    let (handle, ran) = (pool.clone(), ran.clone());
                    threads.spawn(move || {
                        for _ in 0..4 {
                            let counted = ran.clone();
                            handle.execute(move || counted.add()).unwrap();
                        }
                    });
                }
            });
            assert_eq!(ran.get(), 16);
        }
    });
}

/// Fault 302.
#[test]
fn tasks_that_own_handles_end_their_pool_and_do_not_wait_for_themselves() {
    for policy in POLICIES {
        grid(|builder| {
            let (builder, stops) = reporting(builder);
            let pool = builder.on_drop(policy).build().unwrap();
            let (workers, ran, gate) = (pool.workers(), Counter::new(), Gate::new());
            let weak = pool.downgrade();
            let group: TaskGroup<()> = pool.group();
            for _ in 0..workers {
                let (own, inside, counted) = (pool.clone(), gate.clone(), ran.clone());
                group.spawn(move || {
                    inside.pass();
                    drop(own);
                    counted.add();
                });
            }
            gate.wait_started(workers);
            drop(pool); // waits for nothing: the tasks have handles
            assert_eq!(weak.strong_count(), workers);
            gate.open();
            group.wait().unwrap();
            assert_eq!((ran.get(), weak.strong_count()), (workers, 0));
            wait_ended(&stops, workers);
        });
    }
}

/// Fault 302.
#[test]
fn a_task_of_another_pool_may_drop_the_last_handle_and_then_waits() {
    on_grid(|other| {
        for policy in POLICIES {
            let (builder, stops) = reporting(WorkerPool::builder().workers(2));
            let home = builder.on_drop(policy).build().unwrap();
            let ran = Counter::new();
            let counted = ran.clone();
            home.execute(move || counted.add()).unwrap();
            other.spawn(move || drop(home)).unwrap().join().unwrap();
            if policy == OnDrop::Drain {
                assert_eq!(ran.get(), 1);
            }
            wait_ended(&stops, 2);
        }
    });
}

/// Puts the only handle of a pool somewhere, and lets that go again.
type Hide = fn(WorkerPool);

/// Where the last handle can be: in closures, values, errors, payloads and callbacks, which workers, callers and the timer
/// thread drop.
const HIDES: &[(&str, Hide)] = &[
    ("a task", |pool| pool.clone().execute(move || drop(pool)).unwrap()),
    ("a task that panics", |pool| {
        let own = pool.clone();
        pool.execute(move || panic!("with {own:?}")).unwrap();
    }),
    ("a payload of a detached task", |pool| {
        let own = pool.clone();
        drop(
            pool.spawn(move || {
                if true {
                    std::panic::panic_any(own)
                }
            })
            .unwrap(),
        );
    }),
    ("a payload of a joined task", |pool| {
        let own = pool.clone();
        let joined = pool
            .spawn(move || {
                if true {
                    std::panic::panic_any(own)
                }
            })
            .unwrap();
        drop(pool);
        joined.join().unwrap_err();
    }),
    ("the value of a detached task", |pool| {
        let own = pool.clone();
        drop(pool.spawn(move || own).unwrap());
    }),
    ("the value of a joined task", |pool| {
        let own = pool.clone();
        let joined = pool.spawn(move || own).unwrap();
        drop(pool);
        drop(joined.join().unwrap());
    }),
    ("a delayed task that is cancelled", |pool| {
        let own = pool.clone();
        let timer = pool.execute_after(Duration::MAX, move || drop(own)).unwrap();
        drop(pool);
        assert!(timer.cancel());
    }),
    ("a delayed task that runs", |pool| {
        let own = pool.clone();
        pool.execute_after(Duration::from_millis(1), move || drop(own)).unwrap();
    }),
    ("a periodic timer", |pool| {
        let own = pool.clone();
        let timer = pool.execute_every(Duration::MAX, move || assert!(!own.is_shut_down())).unwrap();
        drop(pool);
        assert!(timer.cancel());
    }),
    ("the error of a group", |pool| {
        let own = pool.clone();
        let group = pool.group();
        group.spawn(move || Err::<(), _>(own));
        drop(pool);
        drop(group.wait());
    }),
    ("the value of a group that is dropped", |pool| {
        let own = pool.clone();
        let group = pool.group();
        group.spawn(move || Ok::<_, ()>(own));
        drop(pool);
    }),
    ("a callback of a token", |pool| {
        let token = CancellationToken::new();
        token.on_cancel(move || drop(pool)).detach();
        token.cancel();
    }),
    ("a callback of a token that is removed", |pool| drop(CancellationToken::new().on_cancel(move || drop(pool)))),
    ("a submission that is never polled", |pool| {
        let own = pool.clone();
        drop(pool.spawn_async(move || drop(own)));
    }),
    ("a refused closure", |pool| {
        let own = pool.clone();
        pool.close();
        let refused = pool.try_execute(move || drop(own)).unwrap_err();
        drop(pool);
        drop(refused);
    }),
    #[cfg(feature = "retry")]
    ("a task that is retried", |pool| {
        let own = pool.clone();
        let policy = workcrew::retry::RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(2);
        drop(pool.spawn_with_retry(policy, move |_| Err::<(), _>(own.workers())).unwrap());
    }),
    #[cfg(feature = "events")]
    ("an event", |pool| {
        let bus = EventBus::new(&pool);
        let _subscription = bus.subscribe(|_: &WorkerPool| ());
        bus.publish(pool);
    }),
    #[cfg(feature = "events")]
    ("a handler", |pool| {
        let bus = EventBus::new(&pool);
        let subscription = bus.subscribe(move |_: &u8| assert!(pool.workers() > 0));
        (0..5_u8).for_each(|n| drop(bus.publish(n)));
        drop(subscription);
    }),
    #[cfg(feature = "events")]
    ("a handler of a bus that is dropped", |pool| {
        let bus = EventBus::new(&pool);
        bus.subscribe(move |_: &u8| assert!(pool.workers() > 0)).detach();
        (0..5_u8).for_each(|n| drop(bus.publish(n)));
    }),
    #[cfg(feature = "driver")]
    ("a future", |pool| {
        let driver = Driver::new(&pool, 2).unwrap();
        drop(driver.spawn(async move { drop(pool) }).unwrap());
    }),
    #[cfg(feature = "driver")]
    ("a future that is cancelled", |pool| {
        let driver = Driver::new(&pool, 2).unwrap();
        let pending = driver.spawn(async move {
            std::future::pending::<()>().await;
            drop(pool);
        });
        pending.unwrap().cancel();
    }),
    #[cfg(feature = "driver")]
    ("the output of a future", |pool| {
        let driver = Driver::new(&pool, 2).unwrap();
        drop(driver.spawn(async move { pool }).unwrap().join());
    }),
];

/// Fault 302.
#[test]
fn the_last_handle_may_be_anywhere() {
    quiet_panics();
    for (place, hide) in HIDES {
        for policy in POLICIES {
            for workers in [1, 2, 8] {
                with_watchdog(|| {
                    let (builder, stops) = reporting(WorkerPool::builder().workers(workers).on_drop(policy));
                    let pool = builder.build().unwrap();
                    let weak = pool.downgrade();
                    hide(pool);
                    for _ in 0..workers {
                        let stop = stops.recv_timeout(LIMIT);
                        assert!(stop.is_ok(), "{place}: the pool stays open, {policy:?}");
                    }
                    assert!(weak.upgrade().is_none(), "{place}");
                });
            }
        }
    }
}

/// Fault 303.
#[test]
fn a_shutdown_through_one_handle_is_seen_by_all() {
    type End = fn(&WorkerPool);
    let ends: [End; 4] = [
        WorkerPool::close,
        WorkerPool::shutdown,
        |pool| assert!(pool.shutdown_timeout(LIMIT).drained),
        |pool| assert_eq!(pool.shutdown_now().tasks_cancelled, 0),
    ];
    for end in ends {
        on_grid(|pool| {
            let handles = [pool.clone(), pool.clone().clone()];
            let (weak, counted) = (pool.downgrade(), pool.clone());
            counted.spawn(|| ()).unwrap().join().unwrap();
            end(&pool);
            for handle in handles.iter().chain(&weak.upgrade()) {
                assert!(handle.is_shut_down());
                assert!(handle.execute(|| ()).unwrap_err().is_shut_down());
                assert_eq!(handle.metrics().tasks_submitted, 1);
                assert_counts_add_up(handle);
            }
            drop((pool, handles, counted));
            assert_eq!(weak.strong_count(), 0);
        });
    }
}

/// Fault 303.
#[test]
fn a_resize_through_one_handle_is_seen_by_all() {
    let pool = pool(1, 4);
    let other = pool.clone();
    pool.resize(3).unwrap();
    assert_eq!((other.workers(), other.queue_capacity()), (3, 4));
    assert_eq!(format!("{pool:?}"), format!("{other:?}"));
}

/// Fault 304.
#[test]
fn a_timer_that_owns_a_handle_keeps_the_pool_open_until_it_is_cancelled() {
    on_grid(|pool| {
        let (weak, ran) = (pool.downgrade(), Counter::new());
        let (own, counted) = (pool.clone(), ran.clone());
        let (told, tells) = mpsc::channel();
        let timer = pool
            .execute_every(Duration::from_millis(1), move || {
                assert!(!own.is_shut_down());
                counted.add();
                let _ = told.send(());
            })
            .unwrap();
        drop(pool);
        for _ in 0..3 {
            tells.recv_timeout(LIMIT).unwrap();
        }
        assert!(weak.strong_count() > 0);
        timer.cancel();
        while tells.recv_timeout(LIMIT).is_ok() {} // until the closure is gone
        while weak.strong_count() > 0 {
            thread::yield_now(); // the closure is dropped field by field
        }
        assert!(ran.get() >= 3);
    });
}

/// Fault 304.
#[test]
fn a_timer_with_a_weak_handle_does_not_keep_the_pool_open() {
    on_grid(|pool| {
        let weak = pool.downgrade();
        let own = weak.clone();
        let timer = pool.execute_every(Duration::from_millis(1), move || drop(own.upgrade())).unwrap();
        // A run of the timer may hold the last handle. Then the pool ends after that run.
        drop(pool);
        while weak.strong_count() > 0 || !timer.is_finished() {
            thread::yield_now();
        }
        assert!(weak.upgrade().is_none());
    });
}

/// Fault 305.
#[test]
fn what_is_built_on_a_pool_is_no_handle() {
    on_grid(|pool| {
        let weak = pool.downgrade();
        let wedge = BlockedWorkers::new(&pool);
        let group: TaskGroup<()> = pool.group();
        group.spawn(|| ());
        let (spawner, token) = (group.spawner(), group.token().clone());
        let joining = pool.spawn(|| 7).unwrap();
        let timer = pool.execute_after(Duration::from_secs(3_600), || ()).unwrap();
        #[cfg(feature = "events")]
        let (bus, _subscription) = {
            let bus = EventBus::new(&pool);
            let subscription = bus.subscribe(|_: &u8| ());
            (bus, subscription)
        };
        #[cfg(feature = "driver")]
        let driver = Driver::new(&pool, 4).unwrap();
        assert_eq!(weak.strong_count(), 1);
        wedge.open();
        drop(pool);
        assert!(weak.upgrade().is_none());
        assert_eq!(joining.join().unwrap(), 7);
        assert!(timer.is_finished());
        assert!(spawner.try_spawn(|| ()).unwrap_err().is_shut_down());
        assert!(!token.is_cancelled());
        group.wait().unwrap();
        #[cfg(feature = "events")]
        drop(bus);
        #[cfg(feature = "driver")]
        assert!(driver.spawn(async {}).unwrap_err().is_shut_down());
    });
}

/// Fault 302.
#[cfg(feature = "driver")]
#[test]
fn a_future_may_drop_the_last_handle_on_the_io_thread() {
    for policy in POLICIES {
        grid(|builder| {
            let (builder, stops) = reporting(builder);
            let pool = builder.on_drop(policy).build().unwrap();
            let (workers, own, gate) = (pool.workers(), pool.clone(), Gate::new());
            let driver = Driver::new(&pool, 4).unwrap();
            let inside = gate.clone();
            let ended = driver
                .spawn(async move {
                    inside.pass();
                    drop(own);
                })
                .unwrap();
            gate.wait_started(1);
            drop(pool);
            gate.open();
            match ended.join() {
                Ok(()) => assert!(policy != OnDrop::Cancel),
                Err(error) => assert!(matches!(error, JoinError::Cancelled(CancelReason::ShutDown))),
            }
            wait_ended(&stops, workers);
        });
    }
}

/// Fault 306.
#[test]
fn the_global_pool_outlives_its_clones() {
    let handle = WorkerPool::global().clone();
    assert_eq!(handle.spawn(|| 1).unwrap().join().unwrap(), 1);
    drop(handle);
    assert!(!WorkerPool::global().is_shut_down());
    assert_eq!(WorkerPool::global().spawn(|| 2).unwrap().join().unwrap(), 2);
}
