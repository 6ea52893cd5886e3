//! The builder of workers.

use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use super::Worker;
use super::ack_preparer::AckPreparer;
use super::config::ConsumerConfig;
use super::consumer_settings::ConsumerSettings;
use super::control::Control;
use super::history::History;
use super::job::Job;
use super::metrics::Counters;
use super::order::Order;
use super::rate_turns::SharedRate;
use crate::cancel::token::CancellationToken;
use crate::nats::check;
use crate::nats::error::WorkerError;
use crate::nats::queue::JobQueue;
use crate::priority::Priority;
use crate::retry::RetryPolicy;
use crate::sync::Arc;

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
    order: Option<Order>,
    lookahead: Option<usize>,
    /// `None`: no limit.
    rate: Option<(usize, Duration)>,
    class: Priority,
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
    /// the server's confirmation count. *Default: one for each worker of the pool that may run
    /// tasks of the [class](Self::priority).* [`Worker::set_slots`] changes it later.
    ///
    /// More slots help handlers that take less time than a round trip to the server. The additional
    /// jobs wait in the pool's queue, where no other machine gets them.
    pub fn slots(mut self, jobs: usize) -> Self {
        self.slots = Some(jobs);
        self
    }

    /// Sets the class of the tasks that call the handler. *Default: [`Priority::Normal`].*
    ///
    /// The class decides which tasks of this pool start first. It does not change which jobs the
    /// server delivers: for urgent jobs, use a subject of their own and a worker for it.
    ///
    /// With [`Background`](Priority::Background), a pool with a
    /// [limit](crate::WorkerPoolBuilder::background_workers) keeps its other workers free, however
    /// many jobs there are. If stuck handlers occupy all that the limit allows, the worker requests
    /// no jobs.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use workcrew::Priority;
    /// use workcrew::nats::{JobQueue, Worker, WorkerError};
    ///
    /// # fn reports(queue: &JobQueue) -> Result<Worker<std::io::Error>, WorkerError> {
    /// // Reports may wait; requests of users run on the same pool.
    /// Worker::builder(queue, "reports").priority(Priority::Background).build()
    /// # }
    /// # let _ = reports;
    /// ```
    pub fn priority(mut self, priority: Priority) -> Self {
        self.class = priority;
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

    /// Limits how many jobs begin within a period: at most `jobs` within every `period`, wherever
    /// it starts. *Default: no limit.*
    ///
    /// A job begins when its handler starts, so each further attempt counts as well. The worker
    /// requests no job that it may not begin: while it waits, the jobs stay on the server, where
    /// other workers get them. No thread and no slot waits. After a pause, up to `jobs` jobs begin
    /// at once.
    ///
    /// With an [order](Self::ordered_by), jobs take their turns when their keys are free, so some
    /// may wait for their turn in hand.
    ///
    /// The limit is that of this worker, its clones and all their runs, one after the other or at
    /// the same time. Processes count on their own: for a limit over `n` of them, divide. Time is
    /// that of a monotonic clock. With `Duration::MAX` at most `jobs` jobs ever begin. Zero jobs
    /// and a period of zero are errors of [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use workcrew::nats::{JobQueue, Worker, WorkerError};
    ///
    /// # fn limited(queue: &JobQueue) -> Result<Worker<std::io::Error>, WorkerError> {
    /// // The service that the handler calls accepts 100 requests in a minute.
    /// Worker::builder(queue, "mailer").rate(100, Duration::from_secs(60)).build()
    /// # }
    /// # let _ = limited;
    /// ```
    pub fn rate(mut self, jobs: usize, period: Duration) -> Self {
        self.rate = Some((jobs, period));
        self
    }

    /// Orders the jobs of each key: they run one at a time, in the order in which they were stored.
    /// Keys take turns, and jobs of different keys run at the same time. *Default: no order.*
    ///
    /// The next job of a key starts when the server has confirmed that the one before is done, or
    /// is a dead letter. A job that is tried again holds its key until then, and no slot. So do
    /// jobs that a drain, a pause or a resize has returned.
    ///
    /// The order is that of one run. Jobs that go to other processes do not wait for each other;
    /// `docs/nats.md` in the repository has a recipe, and lists what else is not promised. A second
    /// run of the worker at the same time is an error.
    ///
    /// Jobs that wait for their key are in hand, with heartbeats and without slots; see
    /// [`lookahead`](Self::lookahead).
    ///
    /// `key` is called on the I/O thread, once for each delivery, and must not block. It returns
    /// the same key for each delivery of a job. If it panics, the attempt of the job has failed.
    /// Only the hash of the key is kept.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use workcrew::nats::{JobQueue, Worker, WorkerError};
    ///
    /// # fn ordered(queue: &JobQueue) -> Result<Worker<std::io::Error>, WorkerError> {
    /// // The jobs of one account, such as `accounts.7`, run in order.
    /// Worker::builder(queue, "ledger").ordered_by(|job| job.subject().to_owned()).build()
    /// # }
    /// # let _ = ordered;
    /// ```
    pub fn ordered_by<K: Hash>(mut self, key: impl Fn(&Job) -> K + Send + Sync + 'static) -> Self {
        self.order = Some(Order::new(key));
        self
    }

    /// Sets how many jobs in hand may wait for an earlier job of their [key](Self::ordered_by), 1
    /// to 1,048,576. A quarter of them, rounded down, is kept for jobs that come again. At the
    /// limit the run requests no others. Nor does it request more than the limit at once. *Default:
    /// four for each slot, but at least 64.*
    ///
    /// If one key has more jobs in a row than this, jobs of other keys behind them are not reached
    /// until some of them are done.
    pub fn lookahead(mut self, jobs: usize) -> Self {
        self.lookahead = Some(jobs);
        self
    }

    /// Sets how long a [drain](Worker::drain) may take. `Duration::MAX` means forever, but not for
    /// a handler that a [timed shutdown](crate::WorkerPool::shutdown_timeout) of the pool left
    /// behind. *Default: 30 seconds.*
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
        let preparer = AckPreparer {
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
        if let Some(jobs) = self.lookahead {
            check::concurrency("lookahead", jobs)?;
        }
        check::order(self.order.is_some(), self.lookahead.is_some(), self.heartbeats)?;
        let control = Arc::new(Control::new(self.slots));
        let rate = match self.rate {
            Some((jobs, period)) => {
                check::rate(jobs, period)?;
                Some(Arc::new(SharedRate::new(jobs, period, &control)))
            }
            None => None,
        };
        Ok(Worker {
            connection,
            config: Arc::new(config),
            policy: self.policy,
            control,
            preparer: Arc::new(preparer),
            counters: Arc::new(Counters::new()),
            order: self.order.map(|order| Arc::new(order.with_lookahead(self.lookahead))),
            rate,
            class: self.class,
            draining: CancellationToken::new(),
        })
    }
}

/// # Building
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
            order: None,
            lookahead: None,
            rate: None,
            class: Priority::Normal,
            consumer: name.into(),
            filters: Vec::new(),
            settings: ConsumerSettings::default(),
        }
    }
}

impl<E> fmt::Debug for WorkerBuilder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("queue", &self.queue)
            .field("consumer", &self.consumer)
            .field("policy", &self.policy)
            .field("slots", &self.slots)
            .field("priority", &self.class)
            .finish_non_exhaustive()
    }
}
