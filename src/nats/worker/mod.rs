//! Workers: they run the jobs of a queue on a pool.

pub(crate) mod config;
pub(crate) mod consumer_settings;
pub(crate) mod consumer_plan;
pub(crate) mod control;
pub(crate) mod slots;
pub(crate) mod metrics;
pub(crate) mod status;
pub(crate) mod command;
pub(crate) mod job;
pub(crate) mod job_task;
pub(crate) mod in_flight;
pub(crate) mod credit;
pub(crate) mod inbox;
pub(crate) mod ack;
pub(crate) mod history;
pub(crate) mod incarnation;
pub(crate) mod server_clock;
pub(crate) mod leftover;
pub(crate) mod unreadable;
pub(crate) mod run;

use std::fmt;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use self::ack::Acker;
use self::command::Command;
use self::config::ConsumerConfig;
use self::consumer_settings::ConsumerSettings;
use self::control::Control;
use self::history::History;
use self::job::Job;
use self::job_task::HandlerContext;
use self::metrics::{Counters, WorkerMetrics};
use self::run::state::{RunContext, WorkerRun};
use crate::cancel::token::CancellationToken;
use crate::io::{BlockError, mpsc};
use crate::nats::check;
use crate::nats::core::inner::ConnectionInner;
use crate::nats::error::WorkerError;
use crate::nats::queue::JobQueue;
use crate::nats::worker::config::RunReport;
use crate::pool::worker_pool::WorkerPool;
use crate::retry::RetryPolicy;
use crate::sync::Arc;
use crate::task::context;
use crate::time::deadline::Deadline;

/// The default of `ack_wait`.
const DEFAULT_ACK_WAIT: Duration = Duration::from_secs(30);
/// The default time that a drain may take.
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How many deliveries more than the policy's attempts a job may have by default.
const SPARE_DELIVERIES: u32 = 3;
/// The default number of delivered jobs without an outcome, over all workers of a consumer. Jobs
/// that wait for another attempt count.
const DEFAULT_MAX_ACK_PENDING: u32 = 100_000;
/// The default size of one request to the server. At most five are open at once, and a server
/// disconnects a client that has 64 MB to read.
const DEFAULT_PULL_MAX_BYTES: usize = 8 << 20;

/// A worker that runs the jobs of a [`JobQueue`] with a handler on a pool. Built by
/// [`Worker::builder`]. Clones share one worker.
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
    acker: Arc<Acker>,
    counters: Arc<Counters>,
    /// Cancelled to drain all runs.
    draining: CancellationToken,
}

/// A builder of workers. Returned by [`Worker::builder`]. Setters only store, and
/// [`build`](Self::build) checks the settings.
#[must_use = "a builder does nothing until `build` is called"]
pub struct WorkerBuilder<E> {
    queue: JobQueue,
    policy: RetryPolicy<E>,
    slots: Option<usize>,
    ack_wait: Duration,
    heartbeats: bool,
    stuck_after: Option<Duration>,
    max_deliveries: Option<u32>,
    max_ack_pending: u32,
    drain_timeout: Duration,
    pull_max_bytes: usize,
    consumer: String,
    filters: Vec<String>,
    settings: ConsumerSettings,
}

impl<E> WorkerBuilder<E> {
    /// Sets when a failed job is tried again. *Default: [`RetryPolicy::exponential`].*
    ///
    /// An attempt is a delivery whose handler started, or with which a process vanished, on any
    /// machine. Jobs that a drain returns unrun do not count. The policy's deadline counts from the
    /// moment the job was stored, by the server's clock. Its budget is that of this process.
    pub fn retry(mut self, policy: RetryPolicy<E>) -> Self {
        self.policy = policy;
        self
    }

    /// Sets how many jobs a run processes at once. Jobs that wait for a worker of the pool or for
    /// the server's confirmation count. *Default: one for each worker of the pool.*
    /// [`Worker::set_slots`] changes it later.
    ///
    /// More slots help handlers that take less time than a round trip to the server. The additional
    /// jobs wait in the pool's queue, where no other machine gets them.
    pub fn slots(mut self, jobs: usize) -> Self {
        self.slots = Some(jobs);
        self
    }

    /// Sets how long the server waits for an acknowledgement or a heartbeat before it gives a job
    /// to another worker. From 100 ms to a year. *Default: 30 seconds.*
    ///
    /// It does not limit the handler: a heartbeat is sent after each third of it. All workers of
    /// one name must agree.
    pub fn ack_wait(mut self, time: Duration) -> Self {
        self.ack_wait = time;
        self
    }

    /// Sends no heartbeats. Then a handler must finish within `ack_wait`, or another worker runs
    /// its job too.
    pub fn without_heartbeats(mut self) -> Self {
        self.heartbeats = false;
        self
    }

    /// Sets how long a handler may take, from the moment it starts. Waiting for a worker of the
    /// pool does not count. *Default: forever.*
    ///
    /// After this time the attempt has failed, and the job's [token](Job::token) is cancelled. The
    /// policy decides whether the job is delivered again or goes to the dead letters.
    /// [`Event::JobStuck`](crate::nats::Event) names the job. The slot stays taken until the
    /// handler returns. If stuck handlers occupy all threads of the pool, the worker requests no
    /// jobs.
    pub fn stuck_after(mut self, time: Duration) -> Self {
        self.stuck_after = Some(time);
        self
    }

    /// Sets how many attempts without an outcome a job may have before it goes to the dead letters
    /// *without being run*. A job that ends its process at each attempt leaves no other outcome.
    /// *Default: the policy's attempts and three more.*
    ///
    /// A job that has had more attempts than the policy allows runs alone. The worker returns jobs
    /// that have not started, waits for running ones, and requests none until that job has ended.
    pub fn max_deliveries(mut self, deliveries: u32) -> Self {
        self.max_deliveries = Some(deliveries);
        self
    }

    /// Sets how many jobs may be delivered to all workers of this name together without an outcome,
    /// *including those that wait for another attempt*. At the limit the server delivers nothing.
    /// *Default: 100,000.* All workers of one name must agree.
    pub fn max_ack_pending(mut self, jobs: u32) -> Self {
        self.max_ack_pending = jobs;
        self
    }

    /// Sets how many bytes the worker requests at once, so that large jobs for many slots do not
    /// arrive faster than they are read. A single job may be larger. *Default: 8 MiB.*
    pub fn pull_max_bytes(mut self, bytes: usize) -> Self {
        self.pull_max_bytes = bytes;
        self
    }

    /// Sets how long a [drain](Worker::drain) may take. `Duration::MAX` means forever, but not for
    /// a handler that a [timed shutdown](WorkerPool::shutdown_timeout) of the pool left behind.
    /// *Default: 30 seconds.*
    pub fn drain_timeout(mut self, time: Duration) -> Self {
        self.drain_timeout = time;
        self
    }

    /// Restricts the worker to jobs of this subject, which may hold `*` and `>`. Each call adds one
    /// (server 2.10 and later). *Default: all subjects.* The server refuses workers of different
    /// names whose subjects overlap.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.filters.push(subject.into());
        self
    }

    /// Sets less common settings: where the consumer's state is stored, a description, metadata.
    pub fn consumer_settings(mut self, settings: ConsumerSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Builds the worker. Asks nothing of the server; [`Worker::run`] does.
    ///
    /// # Errors
    ///
    /// [`WorkerError::Invalid`], which names the setting that is invalid or contradicts another.
    pub fn build(self) -> Result<Worker<E>, WorkerError> {
        let attempts = self.policy.attempt_limit();
        let max_deliveries = self.max_deliveries.unwrap_or(attempts.saturating_add(SPARE_DELIVERIES));
        let JobQueue { connection, name, dead_subject, .. } = self.queue;
        let acker = Acker {
            connection: Arc::clone(&connection),
            stream: Arc::clone(&name),
            dead_subject,
            ack_wait: self.ack_wait,
            history: History::new(Arc::clone(&connection), Arc::clone(&name)),
        };
        let config = ConsumerConfig {
            stream: name,
            consumer: self.consumer,
            filters: self.filters,
            ack_wait: self.ack_wait,
            heartbeats: self.heartbeats,
            stuck_after: self.stuck_after,
            max_deliveries,
            alone_from: attempts.saturating_add(1).min(max_deliveries),
            max_bytes: self.pull_max_bytes,
            max_ack_pending: self.max_ack_pending,
            drain_timeout: self.drain_timeout,
            settings: self.settings,
        };
        config.check(attempts)?;
        check::concurrency("slots", self.slots.unwrap_or(1))?;
        Ok(Worker {
            connection,
            config: Arc::new(config),
            policy: self.policy,
            control: Arc::new(Control::new(self.slots)),
            acker: Arc::new(acker),
            counters: Arc::new(Counters::new()),
            draining: CancellationToken::new(),
        })
    }
}

impl<E> Worker<E> {
    /// Configures a worker of a queue. Workers of one name share its jobs, on any number of
    /// machines. The name is that of the durable consumer on the server: letters, digits, `-` and
    /// `_`.
    pub fn builder(queue: &JobQueue, name: impl Into<String>) -> WorkerBuilder<E> {
        WorkerBuilder {
            queue: queue.clone(),
            policy: RetryPolicy::exponential(),
            slots: None,
            ack_wait: DEFAULT_ACK_WAIT,
            heartbeats: true,
            stuck_after: None,
            max_deliveries: None,
            max_ack_pending: DEFAULT_MAX_ACK_PENDING,
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
            pull_max_bytes: DEFAULT_PULL_MAX_BYTES,
            consumer: name.into(),
            filters: Vec::new(),
            settings: ConsumerSettings::default(),
        }
    }

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
        let pool_inner = Arc::clone(pool.inner());
        if context::is_inside(pool_inner.id()) {
            return Err(WorkerError::WouldDeadlock);
        }
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
        let executor = Arc::clone(&pool_inner.executor);
        let handler_context = HandlerContext {
            handler,
            policy: self.policy.clone(),
            pool: pool_inner,
            location: Location::caller(),
            label: self.config.consumer.as_str().into(),
        };
        let context = RunContext {
            connection: Arc::clone(&self.connection),
            config: Arc::clone(&self.config),
            slots: self.control.join(&commands.0).unwrap_or_else(|| pool.workers()),
            counters: Arc::clone(&self.counters),
            acker: Arc::clone(&self.acker),
            dispatcher: Box::new(Arc::new(handler_context)),
            executor,
            commands,
        };
        let run = async move { WorkerRun::new(context).run().await };
        match self.connection.io.block_on(run, Deadline::NEVER) {
            Ok(ended) => ended,
            Err(BlockError::OnIoThread) => Err(WorkerError::WouldDeadlock),
            Err(BlockError::Timeout) => unreachable!("a wait without a deadline ends only with the run"),
            Err(BlockError::Panicked(panic)) => panic.resume(),
        }
    }

    /// Ends all runs of this worker and its clones. Returns at once.
    ///
    /// The runs request no more jobs and return those that have not started. They wait for running
    /// jobs and for the server's confirmations, at most for the [drain
    /// timeout](WorkerBuilder::drain_timeout). A run that starts later ends at once.
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
            acker: Arc::clone(&self.acker),
            counters: Arc::clone(&self.counters),
            draining: self.draining.clone(),
        }
    }
}

// A panic never happens under a lock of this crate, so nothing that is broken can be seen through a
// reference.
impl<E> UnwindSafe for Worker<E> {}
impl<E> RefUnwindSafe for Worker<E> {}

impl<E> fmt::Debug for Worker<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("config", &self.config)
            .field("slots", &self.control.slots())
            .finish_non_exhaustive()
    }
}

impl<E> fmt::Debug for WorkerBuilder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("queue", &self.queue)
            .field("consumer", &self.consumer)
            .field("policy", &self.policy)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}
