//! What the pools are made to do, and who takes part.
//!
//! Jobs are empty, but each captures a word, as real closures do: a box around nothing would not be allocated.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};

use crossbeam_channel::{Receiver, bounded};

use crate::pools::{Job, Pools};

/// Jobs that are submitted before the producer waits for all of them.
const JOBS: usize = 10_000;
/// Tasks of a group.
const TASKS: usize = 1_000;

/// One question, put to several contenders.
pub(crate) struct Workload<'a> {
    pub(crate) name: &'static str,
    pub(crate) question: &'static str,
    pub(crate) jobs_per_batch: usize,
    /// The first is the one the others are compared with.
    pub(crate) contenders: Vec<Contender<'a>>,
}

/// A way to answer it.
pub(crate) struct Contender<'a> {
    pub(crate) name: &'static str,
    /// Runs `jobs_per_batch` jobs and returns when all have run.
    pub(crate) run_batch: Box<dyn Fn() + 'a>,
}

impl<'a> Contender<'a> {
    fn new(name: &'static str, run_batch: impl Fn() + 'a) -> Self {
        Self { name, run_batch: Box::new(run_batch) }
    }
}

pub(crate) fn workloads(pools: &Pools) -> [Workload<'_>; 3] {
    [submit(pools), join(pools), group(pools)]
}

/// workcrew, threadpool and rayon's scope are waited for by their own means. For rayon's `spawn` and for the loop there
/// are none; a barrier after the last job takes their place, so that their jobs can stay empty, too. What the same
/// costs without any pool, boxed and called on the producer's thread, stands beside.
fn submit(pools: &Pools) -> Workload<'_> {
    let execute_all = |pool: &workcrew::WorkerPool| {
        (0..JOBS).for_each(|number| pool.execute(empty(number)).expect("the pool is open"));
        pool.wait_idle();
    };
    Workload {
        name: "submit_throughput",
        question: "What does an empty job cost, when one producer submits 10,000 and waits until all have run?",
        jobs_per_batch: JOBS,
        contenders: vec![
            Contender::new("workcrew", move || execute_all(&pools.workcrew)),
            Contender::new("workcrew_caller_runs", move || execute_all(&pools.workcrew_caller_runs)),
            Contender::new("rayon_spawn", || {
                (0..JOBS).for_each(|number| pools.rayon.spawn(empty(number)));
                wait_for_workers(pools.workers, |job| pools.rayon.spawn(job));
            }),
            Contender::new("rayon_in_place_scope", || {
                let spawn = |scope: &rayon::Scope<'_>, number| scope.spawn(move |_| empty(number)());
                pools.rayon.in_place_scope(|scope| (0..JOBS).for_each(|number| spawn(scope, number)));
            }),
            Contender::new("threadpool", || {
                (0..JOBS).for_each(|number| pools.threadpool.execute(empty(number)));
                pools.threadpool.join();
            }),
            Contender::new("crossbeam_loop", || {
                (0..JOBS).for_each(|number| pools.channel_loop.execute(empty(number)));
                wait_for_workers(pools.workers, |job| pools.channel_loop.execute(job));
            }),
            Contender::new("no_pool", || (0..JOBS).for_each(|number| black_box(Box::new(empty(number)) as Job)())),
        ],
    }
}

/// workcrew and rayon's `install` are waited for by their own means; `install` puts the task on the caller's stack, but
/// returns only with the result. All else sends its result through a channel made for it, of one place, whose receiver
/// spins a little before it sleeps.
fn join(pools: &Pools) -> Workload<'_> {
    Workload {
        name: "submit_to_join",
        question: "How long does one task take from its submission to its result, back to back?",
        jobs_per_batch: 1,
        contenders: vec![
            Contender::new("workcrew", || {
                let handle = pools.workcrew.spawn(result(1)).expect("the pool is open");
                black_box(handle.join().expect("the task does not panic"));
            }),
            Contender::new("rayon_install", || {
                black_box(pools.rayon.install(result(1)));
            }),
            Contender::new("rayon_spawn", || {
                let (task, receiver) = sending_task(1);
                pools.rayon.spawn(task);
                black_box(receiver.recv().expect("the task sends"));
            }),
            Contender::new("threadpool", || {
                let (task, receiver) = sending_task(1);
                pools.threadpool.execute(task);
                black_box(receiver.recv().expect("the task sends"));
            }),
            Contender::new("crossbeam_loop", || {
                let (task, receiver) = sending_task(1);
                pools.channel_loop.execute(task);
                black_box(receiver.recv().expect("the task sends"));
            }),
        ],
    }
}

/// All but the loop are waited for by their own means. The body of rayon's scope runs on a worker of rayon, as is its
/// way and to its advantage; the other bodies run on the caller. The loop's tasks count themselves in a static, which
/// is the cheapest way: counting references to a shared counter would add two atomic steps to each task.
fn group(pools: &Pools) -> Workload<'_> {
    Workload {
        name: "group_of_1000",
        question: "What does an empty task of a group of 1,000 cost, spawned and waited for?",
        jobs_per_batch: TASKS,
        contenders: vec![
            Contender::new("workcrew_group", || {
                let group = pools.workcrew.group();
                (0..TASKS).for_each(|number| group.spawn(empty(number)));
                group.wait().expect("no task fails");
            }),
            Contender::new("workcrew_scope", || {
                let scope = pools.workcrew.scope(|scope| (0..TASKS).for_each(|number| scope.spawn(empty(number))));
                scope.expect("no task fails");
            }),
            Contender::new("rayon_scope", || {
                pools.rayon.scope(|scope| {
                    (0..TASKS).for_each(|number| scope.spawn(move |_| empty(number)()));
                });
            }),
            Contender::new("threadpool", || {
                (0..TASKS).for_each(|number| pools.threadpool.execute(empty(number)));
                pools.threadpool.join();
            }),
            Contender::new("crossbeam_loop", || {
                COUNTDOWN.expect_arrivals(TASKS);
                for number in 0..TASKS {
                    pools.channel_loop.execute(move || {
                        empty(number)();
                        COUNTDOWN.arrive();
                    });
                }
                COUNTDOWN.wait();
            }),
        ],
    }
}

/// A job that does nothing, but captures a word.
fn empty(number: usize) -> impl FnOnce() + Send + 'static {
    move || {
        black_box(number);
    }
}

/// A task whose result is the word it captures.
fn result(number: usize) -> impl FnOnce() -> usize + Send + 'static {
    move || black_box(number)
}

/// A task that sends its result, and where to receive it.
fn sending_task(number: usize) -> (impl FnOnce() + Send + 'static, Receiver<usize>) {
    let (sender, receiver) = bounded(1);
    let task = result(number);
    (move || sender.send(task()).expect("the caller receives"), receiver)
}

/// Waits until everything has run that was submitted before. The queue is first in, first out, and a worker runs one
/// job at a time: when every worker has arrived at the barrier, all earlier jobs are over.
fn wait_for_workers(workers: usize, execute: impl Fn(Job)) {
    let barrier = Arc::new(Barrier::new(workers + 1));
    for _ in 0..workers {
        let barrier = Arc::clone(&barrier);
        execute(Box::new(move || {
            barrier.wait();
        }));
    }
    barrier.wait();
}

/// Of the one group that the loop runs at a time.
static COUNTDOWN: Countdown = Countdown { left: AtomicUsize::new(0), is_done: Mutex::new(false), done: Condvar::new() };

/// Tells one waiter that a number of tasks have run.
struct Countdown {
    /// Tasks that have not run. The lock orders what matters; the last arrival is found with acquire and release, as
    /// in `Arc`.
    left: AtomicUsize,
    is_done: Mutex<bool>,
    done: Condvar,
}

impl Countdown {
    fn expect_arrivals(&self, tasks: usize) {
        *self.is_done.lock().expect("no holder of the lock panics") = false;
        self.left.store(tasks, Ordering::Relaxed);
    }

    fn arrive(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            *self.is_done.lock().expect("no holder of the lock panics") = true;
            self.done.notify_one();
        }
    }

    fn wait(&self) {
        let is_done = self.is_done.lock().expect("no holder of the lock panics");
        drop(self.done.wait_while(is_done, |is_done| !*is_done).expect("no holder of the lock panics"));
    }
}
