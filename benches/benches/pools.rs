//! The pools that are compared, all alive during a whole run. An idle one sleeps and costs the others nothing.

use std::env;
use std::thread;

use crossbeam_channel::Sender;
use rayon::ThreadPoolBuilder;
use threadpool::ThreadPool;
use workcrew::{Overflow, WorkerPool};

/// Overrides the number of workers of every pool.
const WORKERS_VARIABLE: &str = "BENCH_WORKERS";
/// The number of workers unless told otherwise.
const DEFAULT_WORKERS: usize = 2;
/// The places in the queue of workcrew and of the loop. The queues of rayon and threadpool have no bound, so their
/// producers never wait for room.
pub(crate) const QUEUE_CAPACITY: usize = 1024;

/// One pool of each kind, with the same number of workers.
pub(crate) struct Pools {
    pub(crate) workers: usize,
    pub(crate) workcrew: WorkerPool,
    pub(crate) workcrew_caller_runs: WorkerPool,
    pub(crate) rayon: rayon::ThreadPool,
    pub(crate) threadpool: ThreadPool,
    pub(crate) channel_loop: ChannelLoop,
}

impl Pools {
    pub(crate) fn start() -> Self {
        let workers = workers();
        Self {
            workers,
            workcrew: workcrew(workers, Overflow::Block),
            workcrew_caller_runs: workcrew(workers, Overflow::CallerRuns),
            rayon: ThreadPoolBuilder::new().num_threads(workers).build().expect("the threads of rayon start"),
            threadpool: ThreadPool::new(workers),
            channel_loop: ChannelLoop::start(workers),
        }
    }
}

/// What crosses the channel of the loop.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// The pool one writes by hand: threads that receive boxed closures from a bounded crossbeam channel and call them. It
/// does nothing about panics, waiting or shutdown, so it shows what the rest of a pool costs. Dropping it ends its
/// threads after what is queued.
pub(crate) struct ChannelLoop {
    sender: Sender<Job>,
}

impl ChannelLoop {
    fn start(workers: usize) -> Self {
        let (sender, receiver) = crossbeam_channel::bounded::<Job>(QUEUE_CAPACITY);
        for _ in 0..workers {
            let receiver = receiver.clone();
            thread::spawn(move || receiver.into_iter().for_each(|job| job()));
        }
        Self { sender }
    }

    pub(crate) fn execute(&self, job: impl FnOnce() + Send + 'static) {
        self.sender.send(Box::new(job)).expect("the threads receive as long as the sender lives");
    }
}

fn workers() -> usize {
    match env::var(WORKERS_VARIABLE) {
        Ok(value) => value.parse().expect("BENCH_WORKERS holds a number"),
        Err(_) => DEFAULT_WORKERS,
    }
}

fn workcrew(workers: usize, overflow: Overflow) -> WorkerPool {
    let builder = WorkerPool::builder().workers(workers).queue_capacity(QUEUE_CAPACITY).overflow(overflow);
    builder.build().expect("the number of workers is legal and their threads start")
}
