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

use super::dead_letter::DeadReason;
use super::job::{Delivered, Job};
use crate::cancel::CancellationToken;
use crate::clock::Moment;
use crate::engine::Engine;
use crate::error::CancelReason;
use crate::io::mpsc;
use crate::job::{Job as PoolJob, Task};
use crate::observer::{Outcome, TaskId, TaskInfo};
use crate::retry::{Attempts, ErrorClass, GiveUp, Next, RetryPolicy};
use crate::supervisor::{Brief, Supervisor};
use crate::sync::{Arc, Mutex};

/// What is to become of a delivery.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The job is done.
    Done,
    /// It is to be delivered again after this delay.
    Retry(Duration),
    /// It is given up.
    Dead { reason: DeadReason, error: String },
    /// It has not run: somebody else shall have it.
    Return,
}

/// Tells the course of a verdict; the number is that of the delivery.
pub(super) type Verdicts = mpsc::UnboundedSender<(u64, Verdict)>;

/// Hands deliveries to a pool.
pub(super) trait Crew: Send + Sync {
    /// Hands over a delivery; `None`, if the pool is closed.
    fn take(
        &self,
        number: u64,
        delivered: Arc<Delivered>,
        token: &CancellationToken,
        verdicts: &Verdicts,
    ) -> Option<Arc<dyn Task>>;
}

/// A handler, and the pool that runs it.
pub(super) struct Duty<H, E> {
    pub(super) handler: H,
    pub(super) policy: RetryPolicy<E>,
    pub(super) engine: Arc<Engine>,
    /// Where the worker was run; what observers see.
    pub(super) location: &'static Location<'static>,
    /// The name of the consumer; observers see it.
    pub(super) label: Arc<str>,
}

/// A handler behind an `Arc`, which each of its deliveries holds.
pub(super) struct SharedDuty<H, E>(pub(super) Arc<Duty<H, E>>);

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
        verdicts: &Verdicts,
    ) -> Option<Arc<dyn Task>> {
        let duty = &self.0;
        let queued_at = duty.engine.supervisor.now_if_timing();
        let id = duty.engine.supervisor.admit(duty.location, Some(&duty.label))?;
        let waiting = Mutex::new(Some((delivered, token.clone())));
        let cell =
            Arc::new(Cell { duty: Arc::clone(duty), number, id, queued_at, waiting, verdicts: verdicts.clone() });
        duty.engine.put_aside(PoolJob::Task(Arc::clone(&cell) as _));
        Some(cell)
    }
}

/// The cell of one delivery.
struct Cell<H, E> {
    duty: Arc<Duty<H, E>>,
    number: u64,
    id: TaskId,
    queued_at: Option<Moment>,
    /// `None` once it is claimed.
    waiting: Mutex<Option<(Arc<Delivered>, CancellationToken)>>,
    verdicts: Verdicts,
}

/// An error as it was classified and written down where it arose.
type Failure = (ErrorClass, String);

impl<H, E> Cell<H, E> {
    fn brief(&self) -> Brief<'_> {
        let duty = &*self.duty;
        let info = TaskInfo { id: self.id, location: duty.location, label: Some(&duty.label) };
        Brief { info, queued_at: self.queued_at }
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
    fn run(&self, supervisor: &Supervisor) {
        supervisor.enter(0, |record| {
            let Some((delivered, token)) = self.waiting.lock().take() else { return };
            let Duty { handler, policy, .. } = &*self.duty;
            let now = Instant::now();
            let stored_at = now.checked_sub(delivered.age()).unwrap_or(now);
            let mut attempts = Attempts::resume(policy.clone(), stored_at, delivered.deliveries.saturating_sub(1));
            let job = Job { delivered, attempt: attempts.begin(&token, now) };
            let body = move || -> Result<(), Failure> {
                handler(&job).map_err(|error| (policy.class_of(&error), format!("{error:#}")))
            };
            let outcome_of = |result: &Result<_, _>| if result.is_ok() { Outcome::Succeeded } else { Outcome::Failed };
            let result = supervisor.perform(record, &self.brief(), body, outcome_of);
            let failure = match result {
                Ok(Ok(())) => {
                    attempts.succeeded();
                    None
                }
                Ok(Err(failure)) => Some(failure),
                Err(panic) => Some((ErrorClass::Transient, panic.to_string())),
            };
            self.tell(failure.map_or(Verdict::Done, |failure| verdict_on(failure, &mut attempts)));
            supervisor.settle(record, 1);
        });
    }

    fn cancel(&self, reason: CancelReason, supervisor: &Supervisor) -> bool {
        supervisor.enter(0, |record| {
            let waiting = self.waiting.lock().take();
            if waiting.is_none() {
                return false;
            }
            supervisor.cancelled(record, &self.brief().info, reason);
            self.tell(Verdict::Return);
            supervisor.settle(record, 1);
            true
        })
    }
}

fn verdict_on<E>((class, error): Failure, attempts: &mut Attempts<E>) -> Verdict {
    let reason = match attempts.failed(class, Instant::now()) {
        Next::After(delay) => return Verdict::Retry(delay),
        Next::GiveUp(GiveUp::Permanent) => DeadReason::Permanent,
        Next::GiveUp(GiveUp::Deadline) => DeadReason::Deadline,
        Next::GiveUp(GiveUp::Budget) => DeadReason::Budget,
        Next::GiveUp(GiveUp::Attempts | GiveUp::Cancelled(_)) => DeadReason::Attempts,
    };
    Verdict::Dead { reason, error }
}
