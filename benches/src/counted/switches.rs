//! How often threads sleep, in cases where that does not depend on timing.
//!
//! A thread that goes to sleep makes a voluntary context switch.

use std::fs;
use std::hint::black_box;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use workcrew::{Overflow, WorkerPool};

use super::wedge::BlockedWorkers;
use super::{Counted, job, ours};
use crate::pools;
use crate::probe;
use crate::status;

const MANY_WORKERS: usize = 64;
/// Long enough for idle workers to sleep.
const REST: Duration = Duration::from_millis(200);
const IDLENESS: Duration = Duration::from_secs(2);
const VOLUNTARY: &str = "voluntary_ctxt_switches";
const ON_ONE_CPU: [&str; 3] = ["taskset", "-c", "0"];

/// Jobs of a probe.
const JOBS: usize = 100_000;
const JOINS: usize = 10_000;

pub(super) fn counts() -> impl Iterator<Item = Counted> {
    let per_1000 = |value: f64, jobs: usize| value * 1_000.0 / jobs as f64;
    let count =
        move |name, before: &[&str], probe, jobs: usize, bound, unit| match probe::ask_number(before, probe, jobs) {
            Ok(value) if jobs == 0 => ours(name, value, bound, unit),
            Ok(value) => ours(name, per_1000(value, jobs), bound, unit),
            Err(error) => Counted::Absent { name, error },
        };
    let of_jobs = "sleeps per 1,000 jobs";
    [
        count("w9_idle_ticks", &[], "idle_ticks", 0, 0.0, "ticks of CPU in 2 s, 64 workers"),
        count("w9_idle_switches", &[], "idle_switches", 0, 0.0, "sleeps in 2 s, 64 workers"),
        // One worker and a full queue: there is no reason to sleep.
        count("drain_sleeps", &[], "drain_switches", pools::QUEUE_CAPACITY, 0.0, of_jobs),
        // On one CPU, producer and worker take turns of half a queue: two sleeps for 512 jobs.
        count("blocked_sleeps", &ON_ONE_CPU, "blocked_switches", JOBS, 4.0, of_jobs),
        // On one CPU, worker and waiter yield to each other. Without that, each job would take two
        // sleeps. Other processes cause some.
        count("join_sleeps", &ON_ONE_CPU, "join_switches", JOINS, 100.0, of_jobs),
    ]
    .into_iter()
}

fn one_worker() -> WorkerPool {
    pools::workcrew(1, Overflow::Block)
}

/// Returns the sleeps of all threads of this process; those of the main thread only if `main`.
fn sleeps(main: bool) -> u64 {
    let own = std::process::id().to_string();
    let threads = fs::read_dir("/proc/self/task").expect("Linux has it").filter_map(Result::ok);
    let counted = threads.filter(|thread| main || thread.file_name() != *own);
    let status = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("status")).unwrap_or_default();
    counted.map(|thread| status::counted(&status(thread), VOLUNTARY)).sum()
}

/// Returns the growth of a count while a pool with many workers is idle.
fn while_idle(count: impl Fn() -> u64) -> u64 {
    let pool = pools::workcrew(MANY_WORKERS, Overflow::Block);
    drop(BlockedWorkers::of(&pool));
    pool.wait_idle();
    thread::sleep(REST);
    let before = count();
    thread::sleep(IDLENESS);
    count() - before
}

/// Returns the CPU time of this process in ticks: the fields `utime` and `stime` of proc(5).
fn cpu_ticks() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program stands before, in parentheses, and may contain spaces.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().ok()).sum()
}

pub(super) fn idle_ticks(_: usize) -> u64 {
    while_idle(|| cpu_ticks().expect("Linux has it"))
}

pub(super) fn idle_switches(_: usize) -> u64 {
    while_idle(|| sleeps(false))
}

/// Returns the sleeps of a worker between the first and the last job of a full queue.
pub(super) fn drain_switches(jobs: usize) -> u64 {
    let pool = one_worker();
    let wedge = BlockedWorkers::of(&pool);
    let (sender, receiver) = mpsc::channel();
    let own_sleeps = move || {
        let status = fs::read_to_string("/proc/thread-self/status").expect("Linux has it");
        sender.send(status::counted(&status, VOLUNTARY)).expect("the main thread receives");
    };
    pool.execute(own_sleeps.clone()).expect("the pool is open");
    (2..jobs).for_each(|number| pool.execute(job::<1>(number)).expect("the pool is open"));
    pool.execute(own_sleeps).expect("the pool is open");
    drop(wedge);
    let [first, last] = [(); 2].map(|()| receiver.recv().expect("the worker sends"));
    last - first
}

/// Returns the sleeps of a producer that often finds the queue full, and of the worker.
pub(super) fn blocked_switches(jobs: usize) -> u64 {
    let pool = one_worker();
    let before = sleeps(true);
    (0..jobs).for_each(|number| pool.execute(job::<1>(number)).expect("the pool is open"));
    pool.wait_idle();
    sleeps(true) - before
}

/// Returns the sleeps of a thread that joins one task after the other, and of the worker.
pub(super) fn join_switches(jobs: usize) -> u64 {
    let pool = one_worker();
    let before = sleeps(true);
    for number in 0..jobs {
        let handle = pool.spawn(move || black_box(number)).expect("the pool is open");
        handle.join().expect("the task does not panic");
    }
    sleeps(true) - before
}
