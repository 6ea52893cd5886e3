//! A delivery as a task of the pool: calls the handler and finds out what that means.
//!
//! | state | where the job is | next |
//! |---|---|---|
//! | *queued* | in the task | *running*, by a worker; *returned*, by a drain or the end of the pool |
//! | *running* | with the handler | *ended* |
//!
//! Whoever takes the job out of the task decides, and tells the course. So each delivery has one disposition.

use std::fmt::Display;
use std::panic::Location;
use std::time::{Duration, Instant};

use super::job::{Delivered, Job};
use crate::cancel::token::CancellationToken;
use crate::error::CancelReason;
use crate::io::mpsc;
use crate::nats::queue::dead_letter::DeadLetterReason;
use crate::observe::task_info::{TaskId, TaskInfo, TaskOutcome};
use crate::pool::inner::PoolInner;
use crate::retry::{ErrorClass, GiveUpReason, RetryDecision, RetryPolicy, RetryState};
use crate::sync::{Arc, Mutex, OnceLock};
use crate::task::context::GroupId;
use crate::task::executor::{Executor, TaskMeta};
use crate::task::job::{Job as PoolJob, Task};
use crate::time::clock::Timestamp;

/// What is to become of a delivery.
#[derive(Debug)]
pub(crate) enum Disposition {
    /// The job is done.
    Done,
    /// It is to be delivered again after this delay.
    Retry(Duration),
    /// It is given up.
    Dead { reason: DeadLetterReason, error: String },
    /// Its dead letter is stored, and the server is still to be reported.
    DeadLetterStored,
    /// It has not run. Another worker gets it, after this delay.
    Nak(Duration),
    /// It is not due yet. It comes again after this delay.
    Postpone(Duration),
}

impl Disposition {
    /// Whether the job goes back without having run.
    pub(crate) fn is_nak(&self) -> bool {
        matches!(self, Self::Nak(_) | Self::Postpone(_))
    }
}

/// Tells the course of a disposition; the number is that of the delivery.
pub(crate) type DispositionSender = mpsc::UnboundedSender<(u64, Disposition)>;

/// InFlight deliveries to a pool.
pub(crate) trait Dispatcher: Send + Sync {
    /// InFlight over a delivery; `None`, if the pool is closed.
    fn take(
        &self,
        number: u64,
        delivered: Arc<Delivered>,
        token: &CancellationToken,
        started: &Started,
        dispositions: &DispositionSender,
    ) -> Option<Arc<dyn Task>>;

    /// What becomes of a delivery whose handler does not return.
    fn stuck_disposition(&self, delivered: &Delivered) -> Disposition;

    /// How many handlers can run at once.
    fn workers(&self) -> usize;
}

/// When the handler of a delivery began; empty before that.
pub(crate) type Started = Arc<OnceLock<Instant>>;

/// The error of a handler that does not return.
const STUCK: &str = "the handler ran for longer than `stuck_after`";

/// A handler, and the pool that runs it.
pub(crate) struct HandlerContext<H, E> {
    pub(crate) handler: H,
    pub(crate) policy: RetryPolicy<E>,
    pub(crate) pool: Arc<PoolInner>,
    /// Where the worker was run; what observers see.
    pub(crate) location: &'static Location<'static>,
    /// The name of the consumer; observers see it.
    pub(crate) label: Arc<str>,
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
        let id = self.pool.executor.admit(self.location, Some(&self.label))?;
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
        self.pool.push_unbounded(PoolJob::Task(Arc::clone(&task) as _));
        Some(task)
    }

    fn stuck_disposition(&self, delivered: &Delivered) -> Disposition {
        disposition_of((ErrorClass::Transient, STUCK.to_owned()), &self.policy, delivered)
    }

    fn workers(&self) -> usize {
        self.pool.workers.target()
    }
}

/// The task of one delivery.
struct JobTask<H, E> {
    handler_context: Arc<HandlerContext<H, E>>,
    number: u64,
    id: TaskId,
    queued_at: Option<Timestamp>,
    /// `None` once it is claimed.
    unclaimed: Mutex<Option<(Arc<Delivered>, CancellationToken)>>,
    /// Set when the handler is called.
    started: Started,
    dispositions: DispositionSender,
}

/// An error as it was classified and written down where it arose.
type Failure = (ErrorClass, String);

impl<H, E> JobTask<H, E> {
    fn meta(&self) -> TaskMeta<'_> {
        let handler_context = &*self.handler_context;
        let info = TaskInfo { id: self.id, location: handler_context.location, label: Some(&handler_context.label) };
        TaskMeta { info, queued_at: self.queued_at }
    }

    fn send(&self, disposition: Disposition) {
        // Nobody listens any more when the run has ended without it.
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
            let mut attempts = attempts_of(policy, &delivered, now);
            let job = Job { delivered: Arc::clone(&delivered), attempt: attempts.begin(&token, now) };
            let body = move || -> Result<(), Failure> {
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

    fn cancel(&self, reason: CancelReason, executor: &Executor) -> bool {
        executor.enter(GroupId::NONE, |record| {
            let claimed = self.unclaimed.lock().take();
            if claimed.is_none() {
                return false;
            }
            executor.cancelled(record, &self.meta().info, reason);
            self.send(Disposition::Nak(Duration::ZERO));
            executor.task_done(record, 1);
            true
        })
    }
}

/// The attempts of a job before this one. Its deadline counts by the server's clock, and from the moment at
/// which the job was due.
fn attempts_of<E>(policy: &RetryPolicy<E>, delivered: &Delivered, now: Instant) -> RetryState<E> {
    let next_due = now.checked_sub(delivered.since_due()).unwrap_or(now);
    RetryState::resume(policy.clone(), next_due, delivered.attempts() - 1)
}

fn disposition_of<E>((class, error): Failure, policy: &RetryPolicy<E>, delivered: &Delivered) -> Disposition {
    // Made anew, since the server's clock may be known better than when the handler began.
    let now = Instant::now();
    let mut attempts = attempts_of(policy, delivered, now);
    attempts.count();
    let reason = match attempts.failed(class, now) {
        RetryDecision::After(delay) => return Disposition::Retry(delay),
        RetryDecision::GiveUp(GiveUpReason::Permanent) => DeadLetterReason::Permanent,
        RetryDecision::GiveUp(GiveUpReason::Deadline) => DeadLetterReason::Deadline,
        RetryDecision::GiveUp(GiveUpReason::Budget) => DeadLetterReason::Budget,
        RetryDecision::GiveUp(GiveUpReason::Attempts | GiveUpReason::Cancelled(_)) => DeadLetterReason::Attempts,
    };
    Disposition::Dead { reason, error }
}
