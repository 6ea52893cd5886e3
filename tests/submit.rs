//! Building a pool, submitting to it, and what a full queue does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use common::{
    BlockedWorkers, Counter, DropCounter, Gate, LIMIT, Mutex, assert_counts_add_up, fill, grid, on_grid, pool,
    spawn_parked, with_watchdog,
};
use workcrew::{BuildError, CancelReason, JoinError, Overflow, WorkerPool};

/// Faults 1, 2.
#[test]
fn zero_workers_and_zero_capacity_are_typed_errors() {
    assert!(matches!(WorkerPool::builder().workers(0).build(), Err(BuildError::ZeroWorkers)));
    assert!(matches!(WorkerPool::builder().queue_capacity(0).build(), Err(BuildError::ZeroQueueCapacity)));
    assert!(matches!(pool(1, 1).resize(0), Err(BuildError::ZeroWorkers)));
}

/// Faults 3, 4.
#[test]
fn absurd_sizes_are_refused_before_anything_is_allocated() {
    for capacity in [usize::MAX, usize::MAX / 2, 1 << 62, 1 << 50, 1 << 33] {
        let error = WorkerPool::builder().workers(1).queue_capacity(capacity).build().unwrap_err();
        assert!(matches!(error, BuildError::QueueTooLarge { requested, .. } if requested == capacity), "{error}");
    }
    for workers in [usize::MAX, 1 << 20, (1 << 16) + 1] {
        let error = WorkerPool::builder().workers(workers).build().unwrap_err();
        assert!(matches!(error, BuildError::TooManyWorkers { requested, .. } if requested == workers), "{error}");
        assert!(matches!(pool(1, 1).resize(workers), Err(BuildError::TooManyWorkers { .. })));
    }
    for stack_size in [usize::MAX, isize::MAX as usize] {
        let error = WorkerPool::builder().workers(1).stack_size(stack_size).build().unwrap_err();
        assert!(matches!(error, BuildError::StackTooLarge { .. }), "{error}");
    }
}

/// Fault 113.
#[test]
fn a_stack_of_zero_or_one_byte_is_rounded_up_by_the_system() {
    for stack_size in [0, 1, 16 << 10] {
        let pool = WorkerPool::builder().workers(1).stack_size(stack_size).build().unwrap();
        assert_eq!(pool.spawn(|| 1).unwrap().join().unwrap(), 1);
    }
}

/// Fault 113.
#[test]
fn a_stack_the_system_cannot_give_is_a_typed_error_with_its_source() {
    let error = WorkerPool::builder().workers(2).stack_size(1 << 60).build().unwrap_err();
    assert!(matches!(error, BuildError::Spawn { worker: 0, .. }), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}

/// Fault 112.
#[test]
fn a_thread_name_with_nul_is_refused_and_others_are_kept() {
    let error = WorkerPool::builder().thread_name("a\0b").build().unwrap_err();
    assert!(matches!(error, BuildError::InvalidThreadName));
    let pool = WorkerPool::builder().workers(1).thread_name("émile").build().unwrap();
    let name = pool.spawn(|| thread::current().name().map(str::to_owned)).unwrap().join().unwrap();
    assert_eq!(name.as_deref(), Some("émile-0"));
}

/// Fault 5.
#[test]
fn a_refused_try_leaves_the_closure_unrun_and_undropped() {
    let pool = pool(1, 1);
    let wedge = BlockedWorkers::new(&pool);
    let (ran, dropped) = (Counter::new(), Counter::new());
    fill(&pool, &ran);
    let (result, held) = (Counter::new(), DropCounter(dropped.clone()));
    let inside = result.clone();
    let error = pool
        .try_spawn(move || {
            inside.add();
            drop(held);
            5
        })
        .unwrap_err();
    assert_eq!((result.get(), dropped.get()), (0, 0));
    assert_eq!(error.into_inner()(), 5);
    assert_eq!((result.get(), dropped.get()), (1, 1));
    wedge.open();
    pool.wait_idle();
    assert_counts_add_up(&pool);
}

/// Fault 6.
#[test]
fn one_free_place_wakes_one_parked_submitter() {
    with_watchdog(|| {
        let pool = pool(1, 1);
        let gates: Vec<Gate> = (0..5).map(|_| Gate::new()).collect();
        let hold = |gate: &Gate| {
            let gate = gate.clone();
            move || gate.pass()
        };
        pool.execute(hold(&gates[0])).unwrap();
        gates[0].wait_started(1);
        pool.execute(hold(&gates[1])).unwrap(); // the queue is full
        let (told, tell) = mpsc::channel();
        let submitters: Vec<_> = (2..5)
            .map(|n| {
                let (pool, told, job) = (pool.clone(), told.clone(), hold(&gates[n]));
                spawn_parked(move || {
                    pool.execute(job).unwrap();
                    told.send(n).unwrap();
                })
            })
            .collect();
        assert!(tell.try_recv().is_err(), "there is no room yet");
        // Each gate that opens frees one place, which lets one submitter in, whose job then fills the queue again.
        gates[0].open();
        gates[1].wait_started(1);
        let mut order = vec![tell.recv_timeout(LIMIT).unwrap()];
        assert!(tell.try_recv().is_err());
        gates[1].open();
        gates[order[0]].wait_started(1);
        order.push(tell.recv_timeout(LIMIT).unwrap());
        assert!(tell.try_recv().is_err());
        gates.iter().for_each(Gate::open);
        submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_succeeded, 5);
    });
}

/// Fault 7.
#[test]
fn a_timeout_of_zero_or_little_gives_back_and_an_endless_one_waits() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let ran = Counter::new();
        fill(&pool, &ran);
        assert!(pool.try_execute_for(Duration::ZERO, || ()).unwrap_err().is_timeout());
        assert!(pool.try_execute_for(Duration::from_nanos(1), || ()).unwrap_err().is_timeout());
        assert!(pool.try_spawn_for(Duration::from_millis(1), || ()).unwrap_err().is_timeout());
        let waiter = spawn_parked({
            let pool = pool.clone();
            move || pool.try_spawn_for(Duration::MAX, || 3).unwrap().join().unwrap()
        });
        assert!(!waiter.is_finished());
        wedge.open();
        assert_eq!(waiter.join().unwrap(), 3);
    });
}

/// Fault 9.
#[test]
fn panicking_tasks_do_not_hold_up_submitters() {
    common::quiet_panics();
    on_grid(|pool| {
        for _ in 0..(pool.workers() + pool.queue_capacity()) * 4 {
            pool.execute(|| panic!()).unwrap();
        }
        assert_eq!(pool.spawn(|| 1).unwrap().join().unwrap(), 1);
    });
}

/// Fault 13.
#[test]
fn the_length_of_the_queue_never_exceeds_its_capacity() {
    let pool = pool(2, 3);
    let (stop, samples) = (Arc::new(AtomicBool::new(false)), Counter::new());
    let sampler = thread::spawn({
        let (pool, stop, samples) = (pool.clone(), Arc::clone(&stop), samples.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                assert!(pool.queue_len() <= pool.queue_capacity());
                let metrics = pool.metrics();
                assert!(metrics.tasks_queued <= metrics.tasks_submitted, "{metrics}");
                samples.add();
            }
        }
    });
    for _ in 0..20_000 {
        pool.execute(|| ()).unwrap();
    }
    while samples.get() < 100 && !sampler.is_finished() {
        pool.execute(|| ()).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    sampler.join().unwrap();
}

/// Fault 17.
#[test]
fn a_cancelled_task_frees_its_closure_at_once_and_its_place_later() {
    let pool = pool(1, 4);
    let wedge = BlockedWorkers::new(&pool);
    let dropped = Counter::new();
    let handles: Vec<_> = (0..4)
        .map(|_| {
            let held = DropCounter(dropped.clone());
            pool.spawn(move || drop(held)).unwrap()
        })
        .collect();
    assert!(handles.iter().all(workcrew::JoinHandle::cancel));
    assert_eq!(dropped.get(), 4);
    assert!(pool.try_execute(|| ()).unwrap_err().is_full(), "the places are given back by the worker");
    assert_eq!(pool.metrics().tasks_queued, 0);
    wedge.open();
    pool.wait_idle();
    assert_counts_add_up(&pool);
}

/// Fault 18.
#[test]
fn one_worker_runs_jobs_in_the_order_of_acceptance() {
    for capacity in [1, 64] {
        let pool = pool(1, capacity);
        let seen = Arc::new(Mutex::new(Vec::new()));
        for n in 0..1_000 {
            let seen = Arc::clone(&seen);
            pool.execute(move || seen.lock().unwrap().push(n)).unwrap();
        }
        pool.wait_idle();
        assert!(seen.lock().unwrap().iter().copied().eq(0..1_000));
    }
}

/// Fault 19.
#[test]
fn one_worker_keeps_the_order_of_each_submitter() {
    let pool = pool(1, 4);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let submitters: Vec<_> = (0..2)
        .map(|submitter| {
            let (pool, seen) = (pool.clone(), Arc::clone(&seen));
            thread::spawn(move || {
                for n in 0..500 {
                    let seen = Arc::clone(&seen);
                    pool.execute(move || seen.lock().unwrap().push((submitter, n))).unwrap();
                }
            })
        })
        .collect();
    submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
    pool.wait_idle();
    let seen = seen.lock().unwrap();
    for submitter in 0..2 {
        assert!(seen.iter().filter(|(who, _)| *who == submitter).map(|(_, n)| *n).eq(0..500));
    }
}

#[test]
fn caller_runs_runs_on_the_caller_when_the_queue_is_full() {
    grid(|builder| {
        let pool = builder.overflow(Overflow::CallerRuns).build().unwrap();
        let wedge = BlockedWorkers::new(&pool);
        fill(&pool, &Counter::new());
        let here = thread::current().id();
        let ran_by = pool.spawn(|| thread::current().id()).unwrap().join().unwrap();
        assert_eq!(ran_by, here);
        wedge.open();
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

#[test]
fn caller_runs_in_a_long_chain_does_not_exhaust_the_callers_stack() {
    fn chain(pool: &WorkerPool, left: u32, done: mpsc::Sender<()>) {
        if left == 0 {
            return done.send(()).unwrap();
        }
        let inner = pool.clone();
        pool.execute(move || chain(&inner, left - 1, done)).unwrap();
    }
    with_watchdog(|| {
        let pool = WorkerPool::builder().workers(1).queue_capacity(1).overflow(Overflow::CallerRuns);
        let pool = pool.build().unwrap();
        let (told, tell) = mpsc::channel();
        let caller = thread::Builder::new().stack_size(256 << 10).spawn({
            let pool = pool.clone();
            move || (0..4).for_each(|_| chain(&pool, 10_000, told.clone()))
        });
        caller.unwrap().join().unwrap();
        (0..4).for_each(|_| tell.recv_timeout(LIMIT).unwrap());
    });
}

#[test]
fn discard_oldest_cancels_the_oldest_and_keeps_the_newest() {
    grid(|builder| {
        let pool = builder.overflow(Overflow::DiscardOldest).build().unwrap();
        let wedge = BlockedWorkers::new(&pool);
        let dropped = Counter::new();
        let extra = 3;
        let handles: Vec<_> = (0..pool.queue_capacity() + extra)
            .map(|n| {
                let held = DropCounter(dropped.clone());
                pool.spawn(move || {
                    drop(held);
                    n
                })
                .unwrap()
            })
            .collect();
        assert_eq!(dropped.get(), extra);
        wedge.open();
        for (n, handle) in handles.into_iter().enumerate() {
            match handle.join() {
                Ok(value) => assert!(value == n && n >= extra),
                Err(JoinError::Cancelled(CancelReason::Discarded)) => assert!(n < extra),
                Err(other) => panic!("{other}"),
            }
        }
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

#[test]
fn discarding_never_touches_the_tasks_of_a_group() {
    for policy in [Overflow::DiscardOldest, Overflow::DiscardNewest] {
        grid(|builder| {
            let pool = builder.overflow(policy).build().unwrap();
            let wedge = BlockedWorkers::new(&pool);
            let group = pool.group();
            group.spawn(|| ());
            for _ in 0..200 {
                pool.execute(|| ()).unwrap();
            }
            wedge.open();
            group.wait().unwrap();
            pool.wait_idle();
            assert_counts_add_up(&pool);
        });
    }
}

#[test]
fn discard_newest_cancels_the_new_one() {
    grid(|builder| {
        let pool = builder.overflow(Overflow::DiscardNewest).build().unwrap();
        let wedge = BlockedWorkers::new(&pool);
        let ran = Counter::new();
        let jobs = fill(&pool, &ran);
        let newest = pool.spawn(|| ()).unwrap();
        assert!(matches!(newest.join(), Err(JoinError::Cancelled(CancelReason::Discarded))));
        wedge.open();
        pool.wait_idle();
        assert_eq!((ran.get(), pool.metrics().tasks_cancelled), (jobs, 1));
    });
}

#[test]
fn the_timeout_and_try_forms_do_not_follow_the_policy() {
    for policy in [Overflow::CallerRuns, Overflow::DiscardOldest, Overflow::DiscardNewest] {
        let pool = WorkerPool::builder().workers(1).queue_capacity(1).overflow(policy).build().unwrap();
        let wedge = BlockedWorkers::new(&pool);
        let ran = Counter::new();
        fill(&pool, &ran);
        assert!(pool.try_execute(|| ()).unwrap_err().is_full());
        assert!(pool.try_execute_for(Duration::from_millis(1), || ()).unwrap_err().is_timeout());
        wedge.open();
        pool.wait_idle();
        assert_eq!(ran.get(), 1);
    }
}

/// Faults 10, 45.
#[test]
fn the_nested_program_ends() {
    // Submit from a worker into its own full queue, 200,000 times: in a loop, and each job from the one before.
    fn chain(pool: &WorkerPool, left: u32) {
        if left > 0 {
            let inner = pool.clone();
            pool.execute(move || chain(&inner, left - 1)).unwrap();
        }
    }
    with_watchdog(|| {
        let pool = WorkerPool::builder().workers(1).queue_capacity(1).stack_size(256 << 10).build();
        let pool = pool.unwrap();
        let inner = pool.clone();
        pool.execute(move || {
            inner.execute(|| ()).unwrap(); // keeps the queue full
            chain(&inner, 200_000);
            (0..200_000).for_each(|_| inner.execute(|| ()).unwrap());
        })
        .unwrap();
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_succeeded, 2 + 200_000 + 200_000);
        // 32 levels of join, then groups inside groups, all on the one worker and its queue of one.
        assert_eq!(common::nest(&pool, 32).unwrap(), 32);
        fn groups(pool: &WorkerPool, levels: u32) -> usize {
            if levels == 0 {
                return 1;
            }
            let group = pool.group();
            for _ in 0..2 {
                let inner = pool.clone();
                group.spawn(move || Ok::<_, ()>(groups(&inner, levels - 1)));
            }
            group.wait().unwrap().into_iter().sum()
        }
        let inner = pool.clone();
        assert_eq!(pool.spawn(move || groups(&inner, 8)).unwrap().join().unwrap(), 256);
    });
}

#[test]
fn running_shows_worker_task_and_place_of_submission() {
    let pool = pool(2, 4);
    let gate = Gate::new();
    let inside = gate.clone();
    pool.execute(move || inside.pass()).unwrap();
    let submitted_in = line!() - 1;
    let group = pool.group().label("reports");
    let inside = gate.clone();
    group.spawn(move || inside.pass());
    gate.wait_started(2);
    let mut running = pool.running();
    running.sort_by_key(workcrew::RunningTask::id);
    assert_eq!(running.len(), 2);
    assert_eq!((running[0].location().file(), running[0].location().line()), (file!(), submitted_in));
    assert_eq!((running[0].label(), running[1].label()), (None, Some("reports")));
    assert!(running[1].to_string().contains("(reports)"), "{}", running[1]);
    gate.open();
    group.wait().unwrap();
    pool.wait_idle();
    assert!(pool.running().is_empty());
}

#[test]
fn running_never_mixes_a_waiting_task_with_the_task_it_runs() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let ended = Arc::new(AtomicBool::new(false));
        let (inner, end) = (pool.clone(), Arc::clone(&ended));
        let submitted_in = line!() + 1;
        let outer = pool.spawn(move || {
            for _ in 0..20_000 {
                // The only worker joins it, so it runs on top of this one.
                inner.spawn(|| ()).unwrap().join().unwrap();
            }
            end.store(true, Ordering::Release);
        });
        let outer = outer.unwrap();
        while !ended.load(Ordering::Acquire) {
            for task in pool.running() {
                assert_eq!(task.id() == outer.id(), task.location().line() == submitted_in, "{task}");
            }
        }
        outer.join().unwrap();
    });
}

#[test]
fn timing_counts_every_task_that_ran() {
    let pool = WorkerPool::builder().workers(2).timing(true).build().unwrap();
    assert_eq!(pool.map(0..100, |n| n).filter(Result::is_ok).count(), 100);
    let metrics = pool.metrics();
    assert_eq!(metrics.queue_wait.as_ref().unwrap().count(), 100);
    assert_eq!(metrics.run_time.as_ref().unwrap().count(), 100);
    assert!(metrics.to_string().contains("run time mean"));
    assert!(pool.metrics().queue_wait.unwrap().quantile(1.0) > Duration::ZERO);
}

#[test]
fn resize_grows_and_shrinks_a_working_pool() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let gate = Gate::new();
        for workers in [8, 2, 5, 1, 3] {
            pool.resize(workers).unwrap();
            assert_eq!(pool.workers(), workers);
            for _ in 0..100 {
                pool.execute(|| ()).unwrap();
            }
        }
        // All three run at once, and no fourth.
        for _ in 0..4 {
            let inside = gate.clone();
            pool.execute(move || inside.pass()).unwrap();
        }
        gate.wait_started(3);
        assert_eq!((pool.queue_len(), pool.running().len()), (1, 3));
        gate.open();
        pool.wait_idle();
        assert_counts_add_up(&pool);
        pool.shutdown();
        assert!(matches!(pool.resize(2), Err(BuildError::ShutDown)));
    });
}

/// Fault 119.
#[test]
fn the_global_pool_is_one_and_takes_its_size_from_the_environment() {
    let output = common::run_child("child_prints_the_size_of_the_global_pool", &[("WORKCREW_WORKERS", "3")]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("global workers: 3"), "{output:?}");
    for absurd in ["0", "-1", "many", ""] {
        let output = common::run_child("child_prints_the_size_of_the_global_pool", &[("WORKCREW_WORKERS", absurd)]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && stderr.contains("the global pool cannot be built"), "{stderr}");
    }
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_prints_the_size_of_the_global_pool() {
    assert!(std::ptr::eq(WorkerPool::global(), WorkerPool::global()));
    println!("global workers: {}", WorkerPool::global().workers());
}
