//! A delivery as a task of the pool: calls the handler and finds out what that means.
//!
//! | state | where the job is | next |
//! |---|---|---|
//! | *queued* | in the cell | *running*, by a worker; *returned*, by a drain or the end of the pool |
//! | *running* | with the handler | *ended* |
//!
//! Whoever takes the job out of the cell decides, and tells the course. So each delivery has one verdict.

use std::fmt::Display;
use std::panic::Location;
use std::time::{Duration, Instant};

use super::job::{Delivered, Job};
use crate::cancel::token::CancellationToken;
use crate::error::CancelReason;
use crate::io::mpsc;
use crate::nats::queue::dead_letter::DeadReason;
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
pub(crate) enum Verdict {
    /// The job is done.
    Done,
    /// It is to be delivered again after this delay.
    Retry(Duration),
    /// It is given up.
    Dead { reason: DeadReason, error: String },
    /// Its dead letter is stored, and the server is still to be told.
    Buried,
    /// It has not run. Another worker gets it, after this delay.
    Return(Duration),
    /// It is not due yet. It comes again after this delay.
    Postpone(Duration),
}

impl Verdict {
    /// Whether the job goes back without having run.
    pub(crate) fn is_return(&self) -> bool {
        matches!(self, Self::Return(_) | Self::Postpone(_))
    }
}

/// Tells the course of a verdict; the number is that of the delivery.
pub(crate) type Verdicts = mpsc::UnboundedSender<(u64, Verdict)>;

/// Hands deliveries to a pool.
pub(crate) trait Crew: Send + Sync {
    /// Hands over a delivery; `None`, if the pool is closed.
    fn take(
        &self,
        number: u64,
        delivered: Arc<Delivered>,
        token: &CancellationToken,
        started: &Started,
        verdicts: &Verdicts,
    ) -> Option<Arc<dyn Task>>;

    /// What becomes of a delivery whose handler does not return.
    fn give_up_on(&self, delivered: &Delivered) -> Verdict;

    /// How many handlers can run at once.
    fn workers(&self) -> usize;
}

/// When the handler of a delivery began; empty before that.
pub(crate) type Started = Arc<OnceLock<Instant>>;

/// The error of a handler that does not return.
const STUCK: &str = "the handler ran for longer than `stuck_after`";

/// A handler, and the pool that runs it.
pub(crate) struct Duty<H, E> {
    pub(crate) handler: H,
    pub(crate) policy: RetryPolicy<E>,
    pub(crate) engine: Arc<PoolInner>,
    /// Where the worker was run; what observers see.
    pub(crate) location: &'static Location<'static>,
    /// The name of the consumer; observers see it.
    pub(crate) label: Arc<str>,
}

/// A handler behind an `Arc`, which each of its deliveries holds.
pub(crate) struct SharedDuty<H, E>(pub(crate) Arc<Duty<H, E>>);

impl<H, E> Crew for SharedDuty<H, E>
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
        verdicts: &Verdicts,
    ) -> Option<Arc<dyn Task>> {
        let duty = &self.0;
        let queued_at = duty.engine.executor.now_if_timing();
        let id = duty.engine.executor.admit(duty.location, Some(&duty.label))?;
        let waiting = Mutex::new(Some((delivered, token.clone())));
        let (started, verdicts) = (Arc::clone(started), verdicts.clone());
        let cell = Arc::new(Cell { duty: Arc::clone(duty), number, id, queued_at, waiting, started, verdicts });
        duty.engine.push_unbounded(PoolJob::Task(Arc::clone(&cell) as _));
        Some(cell)
    }

    fn give_up_on(&self, delivered: &Delivered) -> Verdict {
        verdict_on((ErrorClass::Transient, STUCK.to_owned()), &self.0.policy, delivered)
    }

    fn workers(&self) -> usize {
        self.0.engine.workers.target()
    }
}

/// The cell of one delivery.
struct Cell<H, E> {
    duty: Arc<Duty<H, E>>,
    number: u64,
    id: TaskId,
    queued_at: Option<Timestamp>,
    /// `None` once it is claimed.
    waiting: Mutex<Option<(Arc<Delivered>, CancellationToken)>>,
    /// Set when the handler is called.
    started: Started,
    verdicts: Verdicts,
}

/// An error as it was classified and written down where it arose.
type Failure = (ErrorClass, String);

impl<H, E> Cell<H, E> {
    fn brief(&self) -> TaskMeta<'_> {
        let duty = &*self.duty;
        let info = TaskInfo { id: self.id, location: duty.location, label: Some(&duty.label) };
        TaskMeta { info, queued_at: self.queued_at }
    }

    fn tell(&self, verdict: Verdict) {
        // Nobody listens any more when the run has ended without it.
        let _ = self.verdicts.send((self.number, verdict));
    }
}

impl<H, E> Task for Cell<H, E>
where
    H: Fn(&Job) -> Result<(), E> + Send + Sync + 'static,
    E: Display + 'static,
{
    fn run(&self, executor: &Executor) {
        executor.enter(GroupId::NONE, |record| {
            let Some((delivered, token)) = self.waiting.lock().take() else { return };
            let Duty { handler, policy, .. } = &*self.duty;
            let now = Instant::now();
            let _ = self.started.set(now);
            let mut attempts = attempts_of(policy, &delivered, now);
            let job = Job { delivered: Arc::clone(&delivered), attempt: attempts.begin(&token, now) };
            let body = move || -> Result<(), Failure> {
                handler(&job).map_err(|error| (policy.class_of(&error), format!("{error:#}")))
            };
            let outcome_of =
                |result: &Result<_, _>| if result.is_ok() { TaskOutcome::Succeeded } else { TaskOutcome::Failed };
            let result = executor.run(record, &self.brief(), body, outcome_of);
            let failure = match result {
                Ok(Ok(())) => {
                    attempts.succeeded();
                    None
                }
                Ok(Err(failure)) => Some(failure),
                Err(panic) => Some((ErrorClass::Transient, panic.to_string())),
            };
            self.tell(failure.map_or(Verdict::Done, |failure| verdict_on(failure, policy, &delivered)));
            executor.task_done(record, 1);
        });
    }

    fn cancel(&self, reason: CancelReason, executor: &Executor) -> bool {
        executor.enter(GroupId::NONE, |record| {
            let waiting = self.waiting.lock().take();
            if waiting.is_none() {
                return false;
            }
            executor.cancelled(record, &self.brief().info, reason);
            self.tell(Verdict::Return(Duration::ZERO));
            executor.task_done(record, 1);
            true
        })
    }
}

/// The attempts of a job before this one. Its deadline counts by the server's clock, and from the moment at
/// which the job was due.
fn attempts_of<E>(policy: &RetryPolicy<E>, delivered: &Delivered, now: Instant) -> RetryState<E> {
    let due_at = now.checked_sub(delivered.since_due()).unwrap_or(now);
    RetryState::resume(policy.clone(), due_at, delivered.attempts() - 1)
}

fn verdict_on<E>((class, error): Failure, policy: &RetryPolicy<E>, delivered: &Delivered) -> Verdict {
    // Made anew, since the server's clock may be known better than when the handler began.
    let now = Instant::now();
    let mut attempts = attempts_of(policy, delivered, now);
    attempts.count();
    let reason = match attempts.failed(class, now) {
        RetryDecision::After(delay) => return Verdict::Retry(delay),
        RetryDecision::GiveUp(GiveUpReason::Permanent) => DeadReason::Permanent,
        RetryDecision::GiveUp(GiveUpReason::Deadline) => DeadReason::Deadline,
        RetryDecision::GiveUp(GiveUpReason::Budget) => DeadReason::Budget,
        RetryDecision::GiveUp(GiveUpReason::Attempts | GiveUpReason::Cancelled(_)) => DeadReason::Attempts,
    };
    Verdict::Dead { reason, error }
}
