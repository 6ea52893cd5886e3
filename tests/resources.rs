//! What a pool takes from the machine, seen from a process of its own: CPU, threads, memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

mod common;

use std::error::Error;
use std::fs;
use std::io;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{BlockedWorkers, Counter, LIMIT, assert_ran_one_test, pool, run_child};
use workcrew::{BuildError, WorkerPool};

fn passes(test: &str) {
    let output = run_child(test, &[]);
    assert!(output.status.success(), "{test}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The CPU that this process has used, in clock ticks.
fn ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// Waits until `expected` threads are left. The system needs a moment to remove a joined thread.
fn wait_for_threads(expected: usize) {
    let since = Instant::now();
    while threads() != expected {
        assert!(since.elapsed() < LIMIT, "{} threads instead of {expected}", threads());
        thread::yield_now();
    }
}

/// The resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Fault 124.
#[test]
fn promise_12_idle_is_free() {
    passes("child_is_idle_for_two_seconds");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_is_idle_for_two_seconds() {
    let pools = [pool(8, 64), pool(1, 1)];
    for pool in &pools {
        pool.map(0..100, |n| n).for_each(|n| assert!(n.is_ok()));
        pool.scope(|scope| (0..10).for_each(|_| scope.spawn(|| ()))).unwrap();
        pool.wait_idle();
    }
    // A group whose tasks are done, and which is still there, asks for nothing either.
    let groups = pools.each_ref().map(workcrew::WorkerPool::group);
    groups.iter().for_each(|group| group.spawn(|| ()));
    pools.iter().for_each(workcrew::WorkerPool::wait_idle);
    thread::sleep(Duration::from_millis(100));
    let before = ticks();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(ticks(), before, "an idle pool used the CPU");
}

/// Fault 124.
#[test]
fn one_job_wakes_one_worker_of_an_idle_pool() {
    passes("child_counts_woken_workers");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_counts_woken_workers() {
    let pool = pool(8, 64);
    BlockedWorkers::new(&pool).open(); // all have worked
    pool.wait_idle();
    let mut quietest = u64::MAX;
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(20)); // most often all are asleep by then
        let before = sleeps_of_workers();
        pool.execute(|| ()).unwrap();
        pool.wait_idle();
        thread::sleep(Duration::from_millis(20));
        let slept = sleeps_of_workers() - before;
        if slept > 0 {
            quietest = quietest.min(slept); // zero: the worker that was woken has not come to sleep yet
        }
    }
    assert!(quietest <= 2, "{quietest} times a worker went to sleep after one job");
}

/// How often workers have gone to sleep.
fn sleeps_of_workers() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.join("status")).ok());
    let workers = statuses.filter(|status| status.starts_with("Name:\tworkcrew-"));
    let sleeps = |status: String| {
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    workers.map(sleeps).sum()
}

/// Faults 109, 121.
#[test]
fn a_thousand_pools_leave_no_thread_and_no_memory() {
    passes("child_makes_a_thousand_pools");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_makes_a_thousand_pools() {
    let before = threads();
    let live = |rounds: usize| {
        for round in 0..rounds {
            let pool = WorkerPool::builder().workers(1 + round % 4).queue_capacity(64).build().unwrap();
            let handle = pool.spawn(move || round).unwrap();
            let group = pool.group();
            group.spawn_all((0..10).map(|n| move || if n == 5 { Err(n) } else { Ok(n) }));
            assert!(group.wait().is_err());
            pool.scope(|scope| (0..4).for_each(|_| scope.spawn(|| ()))).unwrap();
            assert_eq!(handle.join().unwrap(), round);
            let left_queued = pool.spawn(|| ()).unwrap();
            match round % 3 {
                0 => pool.shutdown(),
                1 => drop(pool.shutdown_now()),
                _ => drop(pool),
            }
            drop(left_queued);
        }
    };
    live(200); // the allocator and the threads' stacks settle
    let settled = resident();
    live(1_000);
    wait_for_threads(before);
    let grown = resident().saturating_sub(settled);
    assert!(grown < 2_048, "{grown} KiB were left behind");
}

#[test]
fn memory_does_not_grow_with_the_number_of_jobs() {
    passes("child_submits_a_million_jobs");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_submits_a_million_jobs() {
    let pool = pool(2, 64);
    let submit = |jobs: usize| {
        let group = pool.group();
        for _ in 0..jobs {
            pool.execute(|| ()).unwrap();
            group.spawn(|| ());
        }
        assert_eq!(group.wait().unwrap().len(), jobs);
        assert_eq!(pool.map(0..jobs, |n| n).filter(Result::is_ok).count(), jobs);
        for _ in 0..jobs / 10 {
            let group = pool.group();
            group.spawn(|| ());
            assert_eq!(group.wait().unwrap().len(), 1);
        }
    };
    submit(10_000);
    let settled = resident();
    submit(100_000);
    let grown = resident().saturating_sub(settled);
    assert!(grown < 1_024, "{grown} KiB more for ten times the jobs");
}

/// Fault 120.
#[test]
fn two_thousand_workers_come_and_go() {
    passes("child_makes_many_workers");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_makes_many_workers() {
    let before = threads();
    let Ok(pool) = WorkerPool::builder().workers(2_000).stack_size(64 << 10).build() else {
        eprintln!("skipped: this system gives a process no 2,000 threads");
        return;
    };
    pool.map(0..10_000, |n| n).for_each(|n| assert!(n.is_ok()));
    pool.resize(3).unwrap();
    wait_for_threads(before + 3);
    drop(pool);
    wait_for_threads(before);
}

/// Faults 111, 115.
#[test]
fn a_thread_that_does_not_start_is_a_typed_error_and_the_others_are_joined() {
    // Under a limit of address space the first stacks fit and a later one does not.
    let binary = std::env::current_exe().unwrap();
    let command = format!(
        "ulimit -v 2000000; exec {} --exact child_cannot_start_all_workers --ignored --nocapture --test-threads=1",
        binary.display()
    );
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert_ran_one_test(&output);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_cannot_start_all_workers() {
    let before = threads();
    let (started, stopped) = (Counter::new(), Counter::new());
    let (start, stop) = (started.clone(), stopped.clone());
    let builder = WorkerPool::builder().workers(64).stack_size(256 << 20);
    let error = builder.on_thread_start(move |_| start.add()).on_thread_stop(move |_| stop.add()).build().unwrap_err();
    let BuildError::Spawn { worker, source, .. } = &error else { panic!("{error}") };
    assert!(*worker > 0 && *worker < 64, "{worker}: {source}");
    assert_eq!((started.get(), stopped.get()), (*worker, *worker));
    wait_for_threads(before);

    // The same while growing: the pool keeps its former size and works on.
    let pool = WorkerPool::builder().workers(1).stack_size(256 << 20).build().unwrap();
    assert!(matches!(pool.resize(64), Err(BuildError::Spawn { .. })));
    assert_eq!(pool.workers(), 1);
    assert_eq!(pool.spawn(|| 1).unwrap().join().unwrap(), 1);
    wait_for_threads(before + 1);
    drop(pool);
    wait_for_threads(before);
}

/// Fault 111.
#[test]
fn a_thread_that_does_not_start_is_an_error_and_the_closure_is_returned() {
    // No address space has room for a stack of this size, which threads have that are told no other.
    let output = run_child("child_can_start_no_thread_but_its_workers", &[("RUST_MIN_STACK", "140737488355328")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_can_start_no_thread_but_its_workers() {
    let pool = WorkerPool::builder().workers(1).stack_size(1 << 20).build().unwrap();
    for _ in 0..2 {
        let once = pool.execute_after(Duration::ZERO, || ()).unwrap_err();
        let source = once.source().and_then(|source| source.downcast_ref::<io::Error>());
        assert!(source.is_some() && !once.is_full() && !once.is_shut_down());
        assert_eq!(once.to_string(), "the timer thread could not be started");
        once.into_inner()();
        let often = pool.execute_every(Duration::from_secs(1), || ()).unwrap_err();
        assert!(format!("{often:?}").starts_with("TimerError(NoThread("), "{often:?}");
    }
    #[cfg(feature = "retry")]
    {
        let policy = workcrew::retry::RetryPolicy::<()>::exponential();
        let retried = pool.spawn_with_retry(policy.clone(), |_| Ok(7)).unwrap_err();
        assert!(!retried.is_full() && retried.source().is_some());
    }
    #[cfg(feature = "events")]
    {
        let bus = workcrew::events::EventBus::new(&pool);
        let policy = workcrew::retry::RetryPolicy::fixed(Duration::from_secs(1));
        let _guard = bus.subscription::<u8>().retry(policy).handle(|_| Err::<(), _>("not now"));
        let delivery = bus.publish(1_u8).wait().unwrap().remove(0);
        let workcrew::events::DeliveryOutcome::Failed(error) = delivery.outcome else { panic!("{delivery:?}") };
        assert_eq!(error.reason(), workcrew::retry::GiveUpReason::Cancelled(workcrew::CancelReason::Discarded));
    }
    #[cfg(feature = "driver")]
    assert!(matches!(workcrew::driver::Driver::new(&pool, 1), Err(workcrew::driver::DriverError::Start(_))));
    #[cfg(feature = "nats")]
    {
        use workcrew::nats::{ConnectError, Connection};
        assert!(matches!(Connection::builder("127.0.0.1:1").connect(&pool), Err(ConnectError::Start(_))));
    }
    assert_eq!(pool.spawn(|| 1).unwrap().join().unwrap(), 1);
    pool.shutdown();
    common::assert_counts_add_up(&pool);
}

/// Fault 114.
#[test]
fn a_task_that_finds_no_memory_aborts_the_process() {
    let binary = std::env::current_exe().unwrap();
    let command = format!(
        "ulimit -v 2000000; exec {} --exact child_asks_for_more_memory_than_there_is --ignored --nocapture",
        binary.display()
    );
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert!(output.status.code().is_none(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("memory allocation of"), "{output:?}");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_asks_for_more_memory_than_there_is() {
    let length = pool(1, 1).spawn(|| vec![1_u8; 8 << 30].len()).unwrap().join();
    println!("{length:?}");
    std::process::exit(0);
}

#[test]
fn ended_tasks_and_timers_use_no_memory() {
    passes("child_outlives_timers_attempts_and_groups");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_outlives_timers_attempts_and_groups() {
    let pool = pool(1, 64);
    let spawner = {
        let group = pool.group::<Result<[u64; 4], ()>>();
        group.spawner()
    };
    let over_and_over = |rounds: u32| {
        for _ in 0..10 * rounds {
            spawner.spawn(|| Ok([1; 4])); // its group is gone
        }
        let inner = pool.clone();
        let waiting = pool.spawn(move || {
            // This task holds the only worker, so no worker takes what the timer thread queues.
            for _ in 0..rounds {
                let timer = inner.execute_after(Duration::ZERO, || ()).unwrap();
                while inner.metrics().timers_pending > 0 {
                    thread::yield_now();
                }
                assert!(timer.cancel());
            }
            #[cfg(feature = "retry")]
            {
                let policy = workcrew::retry::RetryPolicy::fixed(Duration::from_nanos(1)).max_attempts(rounds);
                let attempts = inner.spawn_with_retry(policy, |_| {
                    thread::yield_now();
                    Err::<(), _>("not yet")
                });
                let attempts = attempts.unwrap();
                assert_eq!(attempts.join().unwrap().unwrap_err().attempts(), rounds);
            }
        });
        waiting.unwrap().join().unwrap();
    };
    over_and_over(3_000);
    let settled = resident();
    over_and_over(30_000);
    let grown = resident().saturating_sub(settled);
    assert!(grown < 1_024, "{grown} KiB more for ten times as many");
}

/// Fault 287.
#[cfg(all(feature = "driver", feature = "events"))]
#[test]
fn entries_of_what_has_ended_do_not_pile_up_while_the_only_worker_is_busy() {
    passes("child_outlives_outputs_deliveries_and_periodic_timers");
}

#[cfg(all(feature = "driver", feature = "events"))]
#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_outlives_outputs_deliveries_and_periodic_timers() {
    use workcrew::driver::Driver;
    use workcrew::events::EventBus;
    let pool = pool(1, 64);
    let driver = std::sync::Arc::new(Driver::new(&pool, 4).unwrap());
    let bus = EventBus::new(&pool);
    let attempts = common::Counter::new();
    let policy = workcrew::retry::RetryPolicy::fixed(Duration::from_nanos(1)).max_attempts(2);
    let _retried = bus.subscription::<u32>().retry(policy).handle(move |_| {
        attempts.add();
        if attempts.get().is_multiple_of(2) { Ok(()) } else { Err("not yet") }
    });
    // Each on the only worker, so no worker takes what others queue meanwhile.
    let kinds: [fn(&WorkerPool, &Driver, &EventBus); 3] = [
        |_, driver, _| driver.spawn_then(async {}, |()| ()).unwrap().join().unwrap(),
        |_, _, bus| assert_eq!(bus.publish(1_u32).wait().unwrap().len(), 1),
        |pool, _, _| {
            let timer = pool.execute_every(Duration::from_nanos(1), || ()).unwrap();
            while pool.metrics().timers_pending > 0 {
                thread::yield_now(); // until it is queued
            }
            assert!(timer.cancel());
        },
    ];
    for (number, kind) in kinds.into_iter().enumerate() {
        let over_and_over = |rounds: u32| {
            let (inner, driver, bus) = (pool.clone(), std::sync::Arc::clone(&driver), bus.clone());
            let task = pool.spawn(move || (0..rounds).for_each(|_| kind(&inner, &driver, &bus)));
            task.unwrap().join().unwrap();
        };
        over_and_over(2_000);
        let settled = resident();
        over_and_over(30_000);
        let grown = resident().saturating_sub(settled);
        assert!(grown < 1_024, "{grown} KiB more for fifteen times as many of kind {number}");
    }
}
