//! The pools that are compared. All live during a whole run; an idle pool costs the others nothing.

use std::env;
use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};
use workcrew::{Overflow, WorkerPool};

use crate::error::Error;

/// Sets the number of workers of every pool.
pub(crate) const WORKERS_VARIABLE: &str = "BENCH_WORKERS";
/// The default number of workers.
const DEFAULT_WORKERS: usize = 2;
/// The capacity of the queues of workcrew and of the loop. The queues of all other Rust pools are
/// unbounded, so their producers never wait for room.
pub(crate) const QUEUE_CAPACITY: usize = 1024;
/// Longer than any run, so that no pool ends its idle threads.
const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

/// One pool of each kind, with the same number of workers.
pub(crate) struct Pools {
    pub(crate) workers: usize,
    pub(crate) workcrew: WorkerPool,
    pub(crate) workcrew_caller_runs: WorkerPool,
    pub(crate) rayon: rayon::ThreadPool,
    pub(crate) threadpool: threadpool::ThreadPool,
    pub(crate) rusty_pool: rusty_pool::ThreadPool,
    pub(crate) affinitypool: affinitypool::Threadpool,
    pub(crate) futures: futures::executor::ThreadPool,
    /// Its blocking pool has as many threads as the other pools; the one thread for async tasks
    /// sleeps.
    pub(crate) tokio: tokio::runtime::Runtime,
    pub(crate) channel_loop: ChannelLoop,
}

impl Pools {
    /// Starts the pools for the rest of the process, so that jobs can refer to them.
    pub(crate) fn start(workers: usize) -> &'static Self {
        Box::leak(Box::new(Self {
            workers,
            workcrew: workcrew(workers, Overflow::Block),
            workcrew_caller_runs: workcrew(workers, Overflow::CallerRuns),
            rayon: rayon(workers),
            threadpool: threadpool::ThreadPool::new(workers),
            rusty_pool: rusty_pool::ThreadPool::new(workers, workers, FOREVER),
            affinitypool: affinitypool::Threadpool::new(workers),
            futures: futures(workers),
            tokio: tokio(workers),
            channel_loop: ChannelLoop::start(workers),
        }))
    }
}

pub(crate) fn workcrew(workers: usize, overflow: Overflow) -> WorkerPool {
    let builder = WorkerPool::builder().workers(workers).queue_capacity(QUEUE_CAPACITY).overflow(overflow);
    builder.build().expect("the number of workers is legal and their threads start")
}

pub(crate) fn rayon(workers: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(workers).build().expect("the threads of rayon start")
}

pub(crate) fn futures(workers: usize) -> futures::executor::ThreadPool {
    futures::executor::ThreadPool::builder().pool_size(workers).create().expect("the threads of futures start")
}

pub(crate) fn tokio(workers: usize) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(workers)
        .thread_keep_alive(FOREVER)
        .build()
        .expect("the threads of tokio start")
}

/// A job in the channel of the loop.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// A pool by hand: threads that receive boxed closures from a bounded crossbeam channel and call
/// them. It has no panic handling, no waits and no shutdown, so it shows what these cost. Dropping
/// it ends its threads after the queued jobs.
pub(crate) struct ChannelLoop {
    sender: Sender<Job>,
}

impl ChannelLoop {
    pub(crate) fn start(workers: usize) -> Self {
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

    /// Runs the job at once if the channel is full. A thread of the loop that waited for room might
    /// wait forever.
    pub(crate) fn execute_or_run(&self, job: impl FnOnce() + Send + 'static) {
        match self.sender.try_send(Box::new(job)) {
            Ok(()) => {}
            Err(TrySendError::Full(job)) => job(),
            Err(TrySendError::Disconnected(_)) => unreachable!("the threads receive as long as the sender lives"),
        }
    }
}

/// Returns the number of workers of each pool.
///
/// # Errors
///
/// Returns an error if the variable does not hold a number of workers.
pub(crate) fn workers() -> Result<usize, Error> {
    match env::var(WORKERS_VARIABLE) {
        Ok(value) => {
            let workers: Result<NonZeroUsize, _> = value.parse();
            workers.map(NonZeroUsize::get).map_err(|_| Error::Workers { variable: WORKERS_VARIABLE, value })
        }
        Err(_) => Ok(DEFAULT_WORKERS),
    }
}
