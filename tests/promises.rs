//! The thirteen promises of the crate, each a test that carries its name. The other files look closer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::iter;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    BlockedWorkers, Bomb, Counter, DropCounter, Gate, LIMIT, Mutex, assert_counts_add_up, fill, nest, on_grid, pool,
    spawn_parked, with_watchdog,
};
use workcrew::{
    CancelReason, GroupError, GroupPolicy, JoinError, Observer, Overflow, TaskId, TaskInfo, TaskOutcome, WorkerPool,
};

/// Remembers every outcome by task.
#[derive(Default)]
struct Outcomes(Mutex<Vec<(TaskId, TaskOutcome)>>);

impl Observer for Outcomes {
    fn task_ended(&self, task: &TaskInfo<'_>, outcome: TaskOutcome) {
        self.0.lock().unwrap().push((task.id(), outcome));
    }
}

#[test]
fn promise_01_one_outcome() {
    common::quiet_panics();
    common::grid(|builder| {
        let outcomes = Arc::new(Outcomes::default());
        let pool = builder.observer(Arc::clone(&outcomes)).build().unwrap();
        let wedge = BlockedWorkers::new(&pool);
        let cancelled = pool.spawn(|| ()).unwrap();
        assert!(cancelled.cancel());
        assert!(!cancelled.cancel());
        wedge.open();
        for n in 0..100 {
            pool.execute(move || assert!(n % 10 > 0)).unwrap();
        }
        let group = pool.group().policy(GroupPolicy::CollectAll);
        group.spawn_all((0..100).map(|n| move || if n % 4 == 0 { Err(n) } else { Ok(n) }));
        assert_eq!(group.wait_all().iter().filter(|outcome| outcome.is_err()).count(), 25);
        pool.wait_idle();

        let metrics = pool.metrics();
        let workers = pool.workers() as u64;
        assert_eq!(metrics.tasks_submitted, workers + 201);
        assert_eq!(metrics.tasks_succeeded, workers + 90 + 75);
        assert_eq!((metrics.tasks_failed, metrics.tasks_panicked, metrics.tasks_cancelled), (25, 10, 1));
        assert_counts_add_up(&pool);

        let mut outcomes = outcomes.0.lock().unwrap().clone();
        assert_eq!(outcomes.len() as u64, metrics.tasks_submitted);
        assert_eq!(outcomes.iter().filter(|(_, outcome)| *outcome == TaskOutcome::Panicked).count(), 10);
        assert!(outcomes.contains(&(cancelled.id(), TaskOutcome::Cancelled(CancelReason::Requested))));
        outcomes.sort_by_key(|(id, _)| *id);
        outcomes.dedup_by_key(|(id, _)| *id);
        assert_eq!(outcomes.len() as u64, metrics.tasks_submitted, "a task has two outcomes");
    });
}

/// Faults 5, 7.
#[test]
fn promise_02_refused_is_returned() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let (ran, dropped) = (Counter::new(), Counter::new());
        let jobs = fill(&pool, &ran);
        assert_eq!(jobs, pool.queue_capacity());
        let closure = |ran: &Counter| {
            let (ran, held) = (ran.clone(), DropCounter(dropped.clone()));
            move || {
                let _held = &held;
                ran.add();
            }
        };
        let refused = Counter::new();
        let full = pool.try_execute(closure(&refused)).unwrap_err();
        let full_task = pool.try_spawn(closure(&refused)).unwrap_err();
        let timeout = pool.try_execute_for(Duration::ZERO, closure(&refused)).unwrap_err();
        let timeout_task = pool.try_spawn_for(Duration::from_nanos(1), closure(&refused)).unwrap_err();
        assert!(full.is_full() && full_task.is_full() && timeout.is_timeout() && timeout_task.is_timeout());
        pool.close();
        let shut_down = pool.execute(closure(&refused)).unwrap_err();
        let shut_down_task = pool.try_spawn(closure(&refused)).unwrap_err();
        assert!(shut_down.is_shut_down() && shut_down_task.is_shut_down());
        wedge.open();
        pool.shutdown();
        assert_eq!((ran.get(), refused.get(), dropped.get()), (jobs, 0, 0));

        full.into_inner()();
        full_task.into_inner()();
        timeout.into_inner()();
        timeout_task.into_inner()();
        shut_down.into_inner()();
        shut_down_task.into_inner()();
        assert_eq!((refused.get(), dropped.get()), (6, 6));
        assert_eq!(pool.metrics().tasks_refused, 6 + 1, "the six, and the one that found the queue filled");
    });
}

#[test]
fn promise_03_bounded() {
    on_grid(|pool| {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let watched = |now: &Arc<AtomicUsize>, most: &Arc<AtomicUsize>| {
            let (now, most) = (Arc::clone(now), Arc::clone(most));
            move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
            }
        };
        for _ in 0..500 {
            pool.execute(watched(&now, &most)).unwrap();
            assert!(pool.queue_len() <= pool.queue_capacity());
        }
        pool.wait_idle();
        assert!(most.load(Ordering::SeqCst) <= pool.workers());
        for limit in [1, 2] {
            most.store(0, Ordering::SeqCst);
            let group = pool.group().limit(limit);
            for _ in 0..300 {
                group.spawn(watched(&now, &most));
                let progress = group.progress();
                assert!(progress.total - progress.done <= pool.queue_capacity() + limit);
            }
            group.wait().unwrap();
            assert!(most.load(Ordering::SeqCst) <= limit);
        }
    });
}

/// Faults 45, 53, 91.
#[test]
fn promise_04_a_wait_never_hangs_by_our_doing() {
    on_grid(|pool| {
        // Joins nested to a depth the stack allows.
        assert_eq!(nest(&pool, 32).unwrap(), 32);
        // Past a fixed depth an error, never an overflow and never a hang.
        assert!(matches!(nest(&pool, 1_000), Err(JoinError::WouldDeadlock(_))));
        // A task that joins itself.
        let (give, take) = mpsc::channel::<workcrew::JoinHandle<bool>>();
        let gate = Gate::new();
        let task = pool.spawn({
            let gate = gate.clone();
            move || {
                gate.pass();
                matches!(take.recv().unwrap().join(), Err(JoinError::WouldDeadlock(_)))
            }
        });
        let gate_passed = pool.spawn(|| ()).map(drop);
        give.send(task.unwrap()).unwrap();
        gate.open();
        gate_passed.unwrap();
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_panicked, 0);
        // A group waited for by its own member.
        let shared = Arc::new(Mutex::new(Some(pool.group())));
        let (told, tell) = mpsc::channel();
        let inside = Arc::clone(&shared);
        let started = Gate::new();
        let held = started.clone();
        shared.lock().unwrap().as_ref().unwrap().spawn(move || {
            held.pass();
            let group = inside.lock().unwrap().take().unwrap();
            told.send(matches!(group.wait(), Err(GroupError::WouldDeadlock(_)))).unwrap();
        });
        started.open();
        assert!(tell.recv_timeout(LIMIT).unwrap());
    });
}

/// Fault 48.
#[test]
fn promise_04_a_waiting_worker_never_runs_an_unrelated_job() {
    // One worker holds a lock, waits for its child, and the queue offers a job that wants the lock: run by the waiting
    // worker it would never come back.
    common::grid(|builder| {
        let pool = builder.build().unwrap();
        let lock = Arc::new(Mutex::new(()));
        let (inner, inner_lock) = (pool.clone(), Arc::clone(&lock));
        let outer = pool.spawn(move || {
            let held = inner_lock.lock().unwrap();
            let wanted = Arc::clone(&inner_lock);
            let _ = inner.try_execute(move || drop(wanted.lock().unwrap()));
            let child = inner.spawn(|| 7).unwrap().join().unwrap();
            drop(held);
            child
        });
        assert_eq!(outer.unwrap().join().unwrap(), 7);
        pool.wait_idle();
    });
}

/// Fault 10.
#[test]
fn promise_05_a_worker_never_parks_on_its_own_full_queue() {
    on_grid(|pool| {
        let (ran, inner, counted) = (Counter::new(), pool.clone(), Counter::new());
        let refused = counted.clone();
        let outer_ran = ran.clone();
        pool.spawn(move || {
            for _ in 0..2_000 {
                let ran = outer_ran.clone();
                inner.execute(move || ran.add()).unwrap();
            }
            let full = iter::repeat_with(|| inner.try_execute(|| ())).find_map(Result::err).unwrap();
            assert!(full.is_full());
            let timeout = iter::repeat_with(|| inner.try_execute_for(Duration::MAX, || ())).find_map(Result::err);
            assert!(timeout.unwrap().is_timeout());
            refused.add();
        })
        .unwrap()
        .join()
        .unwrap();
        pool.wait_idle();
        assert_eq!((ran.get(), counted.get()), (2_000, 1));
    });
}

#[test]
fn promise_06_work_conserving() {
    // A worker submits to its full queue while too deep to run jobs at once, and then runs on: others must find those
    // jobs.
    with_watchdog(|| {
        let pool = pool(2, 1);
        let (told, tell) = mpsc::channel();
        let gate = Gate::new();
        fn dive(pool: &WorkerPool, depth: u32, told: mpsc::Sender<u32>, gate: Gate) {
            if depth > 0 {
                let inner = pool.clone();
                return pool.spawn(move || dive(&inner, depth - 1, told, gate)).unwrap().join().unwrap();
            }
            for n in 0..50 {
                let told = told.clone();
                pool.execute(move || told.send(n).unwrap()).unwrap();
            }
            gate.pass();
        }
        let busy = Gate::new(); // keeps the other worker from becoming a part of the dive
        let held = busy.clone();
        pool.execute(move || held.pass()).unwrap();
        busy.wait_started(1);
        let (inner, inside) = (pool.clone(), gate.clone());
        pool.execute(move || dive(&inner, 30, told, inside)).unwrap();
        gate.wait_started(1);
        busy.open();
        let mut seen: Vec<u32> = (0..50).map(|_| tell.recv_timeout(LIMIT).unwrap()).collect();
        gate.open();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..50));
    });
    // Tasks of a group do not wait behind a running sibling either.
    with_watchdog(|| {
        let pool = pool(2, 1);
        let (group, gate, ran) = (pool.group(), Gate::new(), Counter::new());
        let inside = gate.clone();
        group.spawn(move || inside.pass());
        gate.wait_started(1);
        for n in 1..=100 {
            let counter = ran.clone();
            group.spawn(move || counter.add());
            while n == 100 && ran.get() < n {
                thread::yield_now();
            }
        }
        gate.open();
        group.wait().unwrap();
    });
}

#[test]
fn promise_07_first_error_wins() {
    on_grid(|pool| {
        let group = pool.group().limit(2).capacity(100);
        let (gate, ran, dropped) = (Gate::new(), Counter::new(), Counter::new());
        let (token, inside) = (group.token().clone(), gate.clone());
        if pool.workers() > 1 {
            group.spawn(move || {
                inside.pass(); // a sibling that runs sees the token, and ends before `wait` returns
                while !token.is_cancelled() {
                    thread::yield_now();
                }
                thread::sleep(Duration::from_millis(5));
                Err("second")
            });
            gate.wait_started(1);
        }
        let hold = Gate::new();
        let inside = hold.clone();
        group.spawn(move || {
            inside.pass();
            Err("first")
        });
        hold.wait_started(1);
        for _ in 0..50 {
            let (ran, held) = (ran.clone(), DropCounter(dropped.clone()));
            group.spawn(move || {
                let _held = held;
                ran.add();
                Ok(())
            });
        }
        gate.open();
        hold.open();
        assert!(matches!(group.wait(), Err(GroupError::Failed("first"))));
        assert_eq!((ran.get(), dropped.get()), (0, 50));
        assert_eq!(pool.metrics().tasks_running, 0);
    });
}

/// Fault 34.
#[test]
fn promise_08_panics_are_contained() {
    common::quiet_panics();
    common::grid(|builder| {
        let bombs = Counter::new();
        let pool = builder
            .on_panic(|_| panic!("the hook panics"))
            .on_thread_start(|_| panic!("the start hook panics"))
            .on_thread_stop(|_| panic!("the stop hook panics"))
            .build()
            .unwrap();
        for _ in 0..20 {
            pool.execute(|| panic!("a closure panics")).unwrap();
            let captured = Bomb(bombs.clone());
            pool.execute(move || drop(captured)).unwrap();
            let (result, payload) = (Bomb(bombs.clone()), Bomb(bombs.clone()));
            drop(pool.spawn(move || result).unwrap());
            drop(pool.spawn(move || std::panic::panic_any(payload)).unwrap());
        }
        pool.wait_idle();
        assert_eq!(bombs.get(), 60);
        assert_eq!(pool.spawn(|| 1).unwrap().join().unwrap(), 1);
        assert_eq!(pool.metrics().tasks_panicked, 60);
        assert!(pool.metrics().hooks_panicked >= 60);
        pool.shutdown();
    });
}

/// Fault 74.
#[test]
fn promise_09_a_scope_is_sound() {
    // The case that rayon-core 1.13 fails: a job panics, then the body panics, and the job's payload panics when
    // dropped.
    common::quiet_panics();
    on_grid(|pool| {
        let (gate, bombs) = (Gate::new(), Counter::new());
        let borrowed = Mutex::new(0);
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = pool.scope(|scope| {
                let payload = Bomb(bombs.clone());
                let inside = gate.clone();
                let borrowed = &borrowed;
                scope.spawn(move || {
                    inside.pass();
                    for _ in 0..100 {
                        *borrowed.lock().unwrap() += 1;
                        thread::yield_now();
                    }
                    if borrowed.lock().is_ok() {
                        std::panic::panic_any(payload);
                    }
                });
                gate.wait_started(1);
                gate.open();
                panic!("the body");
            });
        }));
        assert_eq!(*borrowed.lock().unwrap(), 100, "the scope was left while its task ran");
        assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&"the body"));
        assert_eq!(bombs.get(), 1);
    });
}

/// Fault 8.
#[test]
fn promise_10_shutdown_ends() {
    on_grid(|pool| {
        // Submitters are parked on the full queue, several threads and a worker shut down at once.
        let wedge = BlockedWorkers::new(&pool);
        let ran = Counter::new();
        let mut accepted = fill(&pool, &ran);
        let parked: Vec<_> = (0..4)
            .map(|_| {
                let (pool, ran) = (pool.clone(), ran.clone());
                spawn_parked(move || pool.execute(move || ran.add()).is_ok())
            })
            .collect();
        while pool.metrics().tasks_submitted < (pool.workers() + accepted + 4) as u64 {
            thread::yield_now();
        }
        pool.close();
        for submitter in parked {
            accepted += usize::from(submitter.join().unwrap());
        }
        wedge.open();
        let closers: Vec<_> = (0..3)
            .map(|_| {
                let pool = pool.clone();
                thread::spawn(move || pool.shutdown())
            })
            .collect();
        closers.into_iter().for_each(|closer| closer.join().unwrap());
        assert_eq!(ran.get(), accepted);
        assert!(pool.shutdown_now().drained && pool.shutdown_timeout(Duration::ZERO).drained);
        assert_counts_add_up(&pool);
    });
}

#[test]
fn promise_11_user_code_runs_under_no_lock() {
    // Every kind of user code calls back into the pool. Under a lock of the pool that would hang.
    struct CallsBack(Arc<Mutex<Option<WorkerPool>>>);
    impl CallsBack {
        fn look(&self) -> Option<WorkerPool> {
            let pool = self.0.lock().unwrap().clone();
            pool.inspect(|pool| drop((pool.metrics(), pool.running(), pool.queue_len(), pool.workers())))
        }
        fn call(&self) {
            if let Some(pool) = self.look() {
                let _ = pool.try_execute(|| ());
            }
        }
    }
    impl Observer for CallsBack {
        // An observer that submitted would never see the end of it.
        fn task_submitted(&self, _: &TaskInfo<'_>) {
            self.look();
        }
        fn task_refused(&self, _: &TaskInfo<'_>) {
            self.look();
        }
        fn task_started(&self, _: &TaskInfo<'_>) {
            self.look();
        }
        fn task_ended(&self, _: &TaskInfo<'_>, _: TaskOutcome) {
            self.look();
        }
    }
    impl Drop for CallsBack {
        fn drop(&mut self) {
            self.call();
        }
    }
    common::quiet_panics();
    common::grid(|builder| {
        let slot = Arc::new(Mutex::new(None));
        let (hook, start, stop) = (CallsBack(slot.clone()), CallsBack(slot.clone()), CallsBack(slot.clone()));
        let builder = builder.on_panic(move |_| hook.call()).observer(CallsBack(slot.clone()));
        let builder = builder.on_thread_start(move |_| start.call()).on_thread_stop(move |_| stop.call());
        let pool = builder.overflow(Overflow::CallerRuns).build().unwrap();
        *slot.lock().unwrap() = Some(pool.clone());
        for _ in 0..20 {
            let (closure, result) = (CallsBack(slot.clone()), CallsBack(slot.clone()));
            drop(pool.spawn(move || (closure, result).1).unwrap());
            pool.execute(|| panic!()).unwrap();
            let group = pool.group();
            let weak = pool.downgrade();
            let _guard =
                group.token().on_cancel(move || assert!(weak.upgrade().is_some_and(|pool| pool.metrics().workers > 0)));
            for _ in 0..5 {
                let held = CallsBack(slot.clone());
                group.spawn(move || Err::<(), _>(held));
            }
            assert!(group.wait().is_err());
        }
        pool.wait_idle();
        slot.lock().unwrap().take();
        pool.shutdown();
    });
}

/// Fault 44.
#[test]
fn promise_13_time_is_monotonic_and_saturating() {
    on_grid(|pool| {
        for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX, Duration::from_secs(u64::MAX)] {
            let handle = pool.spawn(|| ()).unwrap();
            let in_time = handle.wait_timeout(timeout);
            assert!(in_time || timeout < Duration::from_secs(1));
            handle.join().unwrap();
            while pool.try_execute_for(timeout, || ()).is_err() {}
            while pool.try_spawn_for(timeout, || ()).is_err() {}
            assert!(pool.wait_idle_timeout(timeout) || timeout < Duration::from_secs(1));
            let mut group = pool.group().deadline(Instant::now() + LIMIT);
            group.spawn(|| ());
            while let Err(not_yet) = group.wait_timeout(timeout).map(Result::unwrap) {
                group = not_yet;
            }
        }
        assert!(pool.shutdown_timeout(Duration::MAX).drained);
    });
}
