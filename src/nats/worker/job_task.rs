//! A delivery as a task of the pool: calls the handler and turns its result into a disposition.
//!
//! | state | where the job is | next |
//! |---|---|---|
//! | *queued* | in the task | *running*, by a worker; *returned*, by a drain or the end of the pool |
//! | *running* | with the handler | *ended* |
//!
//! The thread that takes the job out of the task decides, and sends the disposition to the run. So
//! each delivery has exactly one disposition.

use std::fmt::Display;
use std::panic::Location;
use std::time::{Duration, Instant};

use super::job::{Delivered, Job};
use crate::cancel::token::CancellationToken;
use crate::error::CancelReason;
use crate::io::mpsc;
use crate::nats::headers;
use crate::nats::queue::dead_letter::DeadLetterReason;
use crate::observe::task_info::{TaskId, TaskOutcome};
use crate::observe::task_origin::TaskOrigin;
use crate::pool::inner::PoolInner;
use crate::priority::Priority;
use crate::retry::{ErrorClass, GiveUpReason, RetryDecision, RetryPolicy, RetryState};
use crate::sync::{Arc, Mutex, OnceLock};
use crate::task::context::GroupId;
use crate::task::executor::{Executor, TaskMeta};
use crate::task::job::{Job as PoolJob, Task};
use crate::time::clock::Timestamp;

/// What the server is told about a delivery.
#[derive(Debug)]
pub(crate) enum Disposition {
    /// The job is done.
    Done,
    /// The job failed, and is to be delivered again after this delay.
    Retry(Duration),
    /// The job has failed for good.
    Dead { reason: DeadLetterReason, error: String },
    /// The dead letter of the job is stored; the acknowledgement is still to be sent.
    DeadLetterStored,
    /// The job has not run, and is to be delivered again after this delay.
    Nak(Duration),
    /// The job is not due yet, and is to be delivered again after this delay.
    Postpone(Duration),
}

impl Disposition {
    /// Returns `true` if the job goes back without having run.
    pub(crate) fn is_nak(&self) -> bool {
        matches!(self, Self::Nak(_) | Self::Postpone(_))
    }
}

/// Sends dispositions to the run, each with the number of its delivery.
pub(crate) type DispositionSender = mpsc::UnboundedSender<(u64, Disposition)>;

/// Passes deliveries to a pool.
pub(crate) trait Dispatcher: Send + Sync {
    /// Passes a delivery to the pool; `None` if the pool is closed.
    fn take(
        &self,
        number: u64,
        delivered: Arc<Delivered>,
        token: &CancellationToken,
        started: &Started,
        dispositions: &DispositionSender,
    ) -> Option<Arc<dyn Task>>;

    /// Passes several deliveries to the pool, as one task; `None` if the pool is closed.
    fn take_batch(
        &self,
        _batch: Vec<Unclaimed>,
        _started: &Started,
        _dispositions: &DispositionSender,
    ) -> Option<Arc<dyn Task>> {
        unreachable!("only a run of batches has batches")
    }

    /// Returns the delivery as the user's functions see it before it runs.
    fn to_job(&self, delivered: &Arc<Delivered>, token: &CancellationToken) -> Job;

    /// Returns the disposition of a delivery whose attempt has failed without a result of the
    /// handler.
    fn failure(&self, error: String, delivered: &Delivered) -> Disposition;

    /// Returns the number of handlers that can run at once.
    fn workers(&self) -> usize;
}

/// A delivery that no thread has claimed.
pub(crate) struct Unclaimed {
    /// The number of the delivery.
    pub(crate) number: u64,
    pub(crate) delivered: Arc<Delivered>,
    pub(crate) token: CancellationToken,
}

/// When the handler of a delivery started; empty before that.
pub(crate) type Started = Arc<OnceLock<Instant>>;

/// A handler, and the pool that runs it.
pub(crate) struct HandlerContext<H, E> {
    /// The user's handler.
    pub(crate) handler: H,
    /// Decides on failed attempts.
    pub(crate) policy: RetryPolicy<E>,
    /// The pool that runs the handler.
    pub(crate) pool: Arc<PoolInner>,
    /// Where the worker was run. Observers see it.
    pub(crate) location: &'static Location<'static>,
    /// The name of the consumer. Observers see it.
    pub(crate) label: Arc<str>,
    /// The class of the tasks.
    pub(crate) class: Priority,
    /// Called when the handler of this delivery starts, if the run must know that at once.
    pub(crate) on_start: Option<StartHook>,
}

/// Tells the run that a handler has started.
pub(crate) type StartHook = Box<dyn Fn(u64) + Send + Sync>;

/// What the handlers of single jobs and of batches have in common.
impl<H, E> HandlerContext<H, E> {
    /// Returns what the executor needs to know of a task.
    pub(super) fn meta(&self, id: TaskId, queued_at: Option<Timestamp>) -> TaskMeta<'_> {
        TaskMeta { origin: TaskOrigin { id, location: self.location, label: Some(&self.label) }, queued_at }
    }

    /// See [`Dispatcher::to_job`].
    pub(super) fn to_job(&self, delivered: &Arc<Delivered>, token: &CancellationToken) -> Job {
        self.begin(delivered, token, Instant::now()).0
    }

    /// Begins an attempt of a job. Returns the job as its handler sees it, and its attempts.
    pub(super) fn begin(
        &self,
        delivered: &Arc<Delivered>,
        token: &CancellationToken,
        now: Instant,
    ) -> (Job, RetryState<E>) {
        let mut attempts = attempts_of(&self.policy, delivered, now);
        let attempt = attempts.begin(token, now);
        (Job { delivered: Arc::clone(delivered), attempt, executor: Arc::clone(&self.pool.executor) }, attempts)
    }

    /// See [`Dispatcher::failure`].
    pub(super) fn failure(&self, error: String, delivered: &Delivered) -> Disposition {
        disposition_of((ErrorClass::Transient, error), &self.policy, delivered)
    }

    /// See [`Dispatcher::workers`].
    pub(super) fn workers(&self) -> usize {
        self.pool.workers_for(self.class)
    }
}

impl<H, E> Dispatcher for Arc<HandlerContext<H, E>>
where
    H: Fn(&Job) -> Result<(), E> + Send + Sync + 'static,
    E: Display + 'static,
{
    fn take(
        &self,
        number: u64,
        delivered: Arc<Delivered>,
        token: &CancellationToken,
        started: &Started,
        dispositions: &DispositionSender,
    ) -> Option<Arc<dyn Task>> {
        let queued_at = self.pool.executor.now_if_timing();
        let executor = &self.pool.executor;
        let headers = || headers::pairs(delivered.message.headers.as_ref());
        let id = executor.within_received(headers, || executor.admit(self.location, Some(&self.label)))?;
        let unclaimed = Mutex::new(Some((delivered, token.clone())));
        let (started, dispositions) = (Arc::clone(started), dispositions.clone());
        let task = Arc::new(JobTask {
            handler_context: Arc::clone(self),
            number,
            id,
            queued_at,
            unclaimed,
            started,
            dispositions,
        });
        self.pool.push_unbounded(PoolJob::Task(Arc::clone(&task) as _), self.class);
        Some(task)
    }

    fn to_job(&self, delivered: &Arc<Delivered>, token: &CancellationToken) -> Job {
        HandlerContext::to_job(self, delivered, token)
    }

    fn failure(&self, error: String, delivered: &Delivered) -> Disposition {
        HandlerContext::failure(self, error, delivered)
    }

    fn workers(&self) -> usize {
        HandlerContext::workers(self)
    }
}

/// The task of one delivery.
struct JobTask<H, E> {
    /// The handler and its pool.
    handler_context: Arc<HandlerContext<H, E>>,
    /// The number of the delivery.
    number: u64,
    /// The id of the task.
    id: TaskId,
    /// The time of submission, if durations are recorded.
    queued_at: Option<Timestamp>,
    /// `None` once it is claimed.
    unclaimed: Mutex<Option<(Arc<Delivered>, CancellationToken)>>,
    /// Set when the handler is called.
    started: Started,
    /// Where the disposition goes.
    dispositions: DispositionSender,
}

/// An error, classified and formatted where it occurred.
pub(super) type Failure = (ErrorClass, String);

impl<H, E> JobTask<H, E> {
    fn meta(&self) -> TaskMeta<'_> {
        self.handler_context.meta(self.id, self.queued_at)
    }

    fn send(&self, disposition: Disposition) {
        // There is no receiver if the run has ended without this delivery.
        let _ = self.dispositions.send((self.number, disposition));
    }
}

impl<H, E> Task for JobTask<H, E>
where
    H: Fn(&Job) -> Result<(), E> + Send + Sync + 'static,
    E: Display + 'static,
{
    fn run(&self, executor: &Executor) {
        executor.enter(GroupId::NONE, |record| {
            let Some((delivered, token)) = self.unclaimed.lock().take() else { return };
            let HandlerContext { handler, policy, .. } = &*self.handler_context;
            let now = Instant::now();
            let _ = self.started.set(now);
            if let Some(on_start) = &self.handler_context.on_start {
                on_start(self.number);
            }
            let (job, attempts) = self.handler_context.begin(&delivered, &token, now);
            let body = move || -> Result<(), Failure> {
                let _guard = executor.cancel_with_pool(&token);
                handler(&job).map_err(|error| (policy.class_of(&error), format!("{error:#}")))
            };
            let outcome_of =
                |result: &Result<_, _>| if result.is_ok() { TaskOutcome::Succeeded } else { TaskOutcome::Failed };
            let result = executor.run(record, &self.meta(), body, outcome_of);
            let failure = match result {
                Ok(Ok(())) => {
                    attempts.succeeded();
                    None
                }
                Ok(Err(failure)) => Some(failure),
                Err(panic) => Some((ErrorClass::Transient, panic.to_string())),
            };
            self.send(failure.map_or(Disposition::Done, |failure| disposition_of(failure, policy, &delivered)));
            executor.task_done(record, 1);
        });
    }

    /// The entry has a reference to the handler, so it stays until a worker takes it. There are at
    /// most as many as slots for each run.
    fn is_finished(&self) -> bool {
        false
    }

    fn cancel(&self, reason: CancelReason, executor: &Executor) -> bool {
        executor.enter(GroupId::NONE, |record| {
            let claimed = self.unclaimed.lock().take();
            if claimed.is_none() {
                return false;
            }
            executor.cancelled(record, &self.meta().origin, reason);
            self.send(Disposition::Nak(Duration::ZERO));
            executor.task_done(record, 1);
            true
        })
    }
}

/// Returns the attempts of a job before this one. The deadline counts by the server's clock, from
/// the moment at which the job was due.
fn attempts_of<E>(policy: &RetryPolicy<E>, delivered: &Delivered, now: Instant) -> RetryState<E> {
    let due_at = now.checked_sub(delivered.since_due()).unwrap_or(now);
    RetryState::resume(policy.clone(), due_at, delivered.attempts() - 1)
}

pub(super) fn disposition_of<E>(
    (class, error): Failure,
    policy: &RetryPolicy<E>,
    delivered: &Delivered,
) -> Disposition {
    // Computed again, since the server's clock may be known better than when the handler started.
    let now = Instant::now();
    let mut attempts = attempts_of(policy, delivered, now);
    attempts.count();
    let reason = match attempts.failed(class, now) {
        RetryDecision::After(delay) => return Disposition::Retry(delay),
        RetryDecision::GiveUp(GiveUpReason::Permanent) => DeadLetterReason::Permanent,
        RetryDecision::GiveUp(GiveUpReason::Deadline) => DeadLetterReason::Deadline,
        RetryDecision::GiveUp(GiveUpReason::Budget) => DeadLetterReason::Budget,
        RetryDecision::GiveUp(_) => DeadLetterReason::Attempts,
    };
    Disposition::Dead { reason, error }
}
