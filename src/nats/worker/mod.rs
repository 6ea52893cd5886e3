//! Workers: they run the jobs of a queue on a pool.

pub(crate) mod builder;
pub(crate) mod config;
pub(crate) mod consumer_settings;
pub(crate) mod consumer_plan;
pub(crate) mod control;
pub(crate) mod slots;
pub(crate) mod metrics;
pub(crate) mod status;
pub(crate) mod command;
pub(crate) mod job;
pub(crate) mod job_outcome;
pub(crate) mod job_task;
pub(crate) mod in_flight;
pub(crate) mod credit;
pub(crate) mod rate_turns;
pub(crate) mod key_queues;
pub(crate) mod order;
pub(crate) mod batch;
pub(crate) mod batch_task;
pub(crate) mod inbox;
pub(crate) mod ack_preparer;
pub(crate) mod history;
pub(crate) mod incarnation;
pub(crate) mod server_clock;
pub(crate) mod leftover;
pub(crate) mod unreadable;
pub(crate) mod run;

use std::fmt;
use std::panic::Location;

use self::ack_preparer::AckPreparer;
use self::command::Command;
use self::config::{BatchLimits, ConsumerConfig, RunReport};
use self::control::Control;
use self::job::Job;
use self::job_task::{Dispatcher, HandlerContext, StartHook};
use self::metrics::{Counters, WorkerMetrics};
use self::order::Order;
use self::rate_turns::SharedRate;
use self::run::state::{RunContext, WorkerRun};
use crate::cancel::token::CancellationToken;
use crate::io::{BlockError, mpsc};
use crate::nats::check::MAX_CONCURRENT;
use crate::nats::core::inner::ConnectionInner;
use crate::nats::error::WorkerError;
use crate::pool::worker_pool::WorkerPool;
use crate::priority::Priority;
use crate::retry::RetryPolicy;
use crate::sync::Arc;
use crate::task::context;
use crate::time::deadline::Deadline;
use crate::unwind;

/// A worker that runs the jobs of a [`JobQueue`](crate::nats::JobQueue) with a handler on a pool.
/// Built by [`Worker::builder`]. Clones share one worker.
///
/// Start any number of workers, on any machines, under one name: each job goes to one of them. Jobs
/// that a process has not finished when it dies go to another process. Delivery is therefore *at
/// least once*: a job may run twice when a process, the server or the network fails at a bad
/// moment. The handler must tolerate that. `docs/nats.md` in the repository says when it happens,
/// and how to handle it.
///
/// # Outcomes
///
/// | the handler | the job |
/// |---|---|
/// | returns `Ok` | is done, and removed from the queue |
/// | returns an error that is worth another attempt, or panics | is delivered again, to any worker, after the policy's delay |
/// | the same, and the policy allows no further attempt; or the error is permanent | goes to the dead letters |
/// | does not return, because its process died | is delivered again when `ack_wait` is over |
///
/// A job holds one of the worker's *slots* from the moment it is given to the pool until the server
/// has confirmed the outcome. The worker requests the next job together with the acknowledgement.
/// If that job arrives first, it waits for the confirmation. So a process that dies leaves at most
/// as many jobs to run twice as it has slots.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use workcrew::nats::{Connection, JobQueue, Worker};
/// use workcrew::WorkerPool;
/// use workcrew::retry::RetryPolicy;
///
/// let pool = WorkerPool::new()?;
/// let connection = Connection::builder("127.0.0.1:4222").connect(&pool)?;
/// let queue = JobQueue::builder(&connection, "RESIZE").subject("resize.*").open()?;
/// let worker = Worker::builder(&queue, "resizer")
///     .retry(RetryPolicy::exponential().base_delay(Duration::from_secs(1)).max_attempts(5))
///     .build()?;
/// // Another thread, such as a Ctrl-C handler, calls `drain` on a clone.
/// let report = worker.run(&pool, |job| -> Result<(), std::io::Error> {
///     println!("{} {:?}", job.subject(), job.text());
///     Ok(())
/// })?;
/// assert!(report.drained);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Worker<E> {
    pub(crate) connection: Arc<ConnectionInner>,
    pub(crate) config: Arc<ConsumerConfig>,
    policy: RetryPolicy<E>,
    pub(super) control: Arc<Control>,
    preparer: Arc<AckPreparer>,
    counters: Arc<Counters>,
    /// `None`: jobs run in any order.
    order: Option<Arc<Order>>,
    /// `None`: no limit of jobs that begin in a period.
    rate: Option<Arc<SharedRate>>,
    /// The class of the tasks that call the handler.
    class: Priority,
    /// Cancelled to drain all runs.
    draining: CancellationToken,
}

impl<E> Worker<E> {
    /// Processes jobs until it is [drained](Self::drain), or until `pool` is closed, which drains
    /// it as well. Blocks until then.
    ///
    /// A job is a task of the pool: metrics and observers include it, labelled with the name of the
    /// worker. It takes no place in the pool's queue; there are never more of them than slots.
    ///
    /// Failures are reported to the [observer](crate::nats::ConnectionBuilder::observer) of the
    /// connection and tried again, with pauses of at most five seconds: no connection, no stream,
    /// no consumer (it is created again). After a restart of the server the run continues by
    /// itself. If the connection has ended for good, so does the run.
    ///
    /// # Errors
    ///
    /// [`WorkerError`]: a failure that another try would not cure. Jobs in flight are finished
    /// first, as in a drain.
    #[track_caller]
    pub fn run<H>(&self, pool: &WorkerPool, handler: H) -> Result<RunReport, WorkerError>
    where
        H: Fn(&Job) -> Result<(), E> + Send + Sync + 'static,
        E: fmt::Display + 'static,
    {
        let location = Location::caller();
        self.run_with(pool, None, |on_start| {
            Box::new(Arc::new(self.handler_context(pool, handler, location, on_start)))
        })
    }

    pub(crate) fn handler_context<H>(
        &self,
        pool: &WorkerPool,
        handler: H,
        location: &'static Location<'static>,
        on_start: Option<StartHook>,
    ) -> HandlerContext<H, E> {
        HandlerContext {
            handler,
            policy: self.policy.clone(),
            pool: Arc::clone(pool.inner()),
            location,
            label: self.config.consumer.as_str().into(),
            class: self.class,
            on_start,
        }
    }

    /// Runs the worker with the dispatcher that `make` returns.
    pub(crate) fn run_with(
        &self,
        pool: &WorkerPool,
        batch: Option<BatchLimits>,
        make: impl FnOnce(Option<StartHook>) -> Box<dyn Dispatcher>,
    ) -> Result<RunReport, WorkerError> {
        let pool_inner = pool.inner();
        if context::is_inside(pool_inner.id()) {
            return Err(WorkerError::WouldDeadlock);
        }
        let _order = self.order.as_ref().map(Order::begin_run).transpose()?;
        let commands = mpsc::unbounded_channel();
        self.connection.listen(commands.0.clone(), Command::Connection);
        let ends: [(_, fn() -> Command); 3] = [
            (&pool_inner.shutdown_token, || Command::Drain),
            (&self.draining, || Command::Drain),
            (&pool_inner.left_behind, || Command::LeftBehind),
        ];
        let _guards = ends.map(|(token, command)| {
            let commands = commands.0.clone();
            token.on_cancel(move || drop(commands.send(command())))
        });
        let on_start = self.rate.as_ref().map(|_| {
            let commands = commands.0.clone();
            Box::new(move |number| drop(commands.send(Command::Begun(number)))) as StartHook
        });
        let jobs_per_worker = batch.map_or(1, |limits| limits.max);
        let workers = pool_inner.workers_for(self.class);
        let default_slots = || workers.saturating_mul(jobs_per_worker).min(MAX_CONCURRENT);
        let context = RunContext {
            connection: Arc::clone(&self.connection),
            config: Arc::clone(&self.config),
            slots: self.control.join(&commands.0).unwrap_or_else(default_slots),
            counters: Arc::clone(&self.counters),
            preparer: Arc::clone(&self.preparer),
            dispatcher: make(on_start),
            executor: Arc::clone(&pool_inner.executor),
            batch,
            order: self.order.clone(),
            rate: self.rate.clone(),
            commands,
        };
        let run = async move { WorkerRun::new(context).run().await };
        match self.connection.io.block_on(run, Deadline::NEVER) {
            Ok(ended) => ended,
            // Without a deadline, a timeout means that waits are nested too deep in callbacks.
            Err(BlockError::OnIoThread | BlockError::Timeout) => Err(WorkerError::WouldDeadlock),
            Err(BlockError::Panicked(panic)) => panic.resume(),
        }
    }

    /// Ends all runs of this worker and its clones. Returns at once.
    ///
    /// The runs request no more jobs and return those that have not started. They wait for running
    /// jobs and for the server's confirmations, at most for the [drain
    /// timeout](crate::nats::WorkerBuilder::drain_timeout). A run that starts later ends at once.
    ///
    /// With a timeout of `Duration::MAX`, a run does not wait for handlers that a [timed
    /// shutdown](WorkerPool::shutdown_timeout) of the pool left behind. Its report counts them as
    /// jobs that are left.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Returns a snapshot of the counters.
    #[must_use]
    pub fn metrics(&self) -> WorkerMetrics {
        let mut metrics = self.counters.snapshot();
        self.control.add_to(&mut metrics);
        metrics
    }

    /// Returns a function that returns a snapshot of the counters while the worker exists.
    #[cfg(feature = "prometheus")]
    pub(crate) fn metrics_source(&self) -> Box<dyn Fn() -> Option<WorkerMetrics> + Send + Sync> {
        let counters = Arc::downgrade(&self.counters);
        Box::new(move || counters.upgrade().map(|counters| counters.snapshot()))
    }
}

// Not derived, since it needs no `E: Clone`.
impl<E> Clone for Worker<E> {
    fn clone(&self) -> Self {
        Self {
            connection: Arc::clone(&self.connection),
            config: Arc::clone(&self.config),
            policy: self.policy.clone(),
            control: Arc::clone(&self.control),
            preparer: Arc::clone(&self.preparer),
            counters: Arc::clone(&self.counters),
            order: self.order.clone(),
            rate: self.rate.clone(),
            class: self.class,
            draining: self.draining.clone(),
        }
    }
}

unwind::safe!(Worker<E>, E);

impl<E> fmt::Debug for Worker<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("config", &self.config)
            .field("slots", &self.control.slots())
            .finish_non_exhaustive()
    }
}
