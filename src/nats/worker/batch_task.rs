//! A batch of deliveries as one task of the pool. See `job_task`, which the states are those of.

use std::fmt::Display;
use std::time::{Duration, Instant};

use super::job::{Delivered, Job};
use super::job_outcome::JobOutcome;
use super::job_task::{self, Dispatcher, Disposition, DispositionSender, Failure, HandlerContext, Started, Unclaimed};
use crate::cancel::token::CancellationToken;
use crate::error::CancelReason;
use crate::observe::task_info::{TaskId, TaskOutcome};
use crate::retry::{ErrorClass, RetryPolicy};
use crate::sync::{Arc, Mutex};
use crate::task::context::GroupId;
use crate::task::executor::{Executor, TaskMeta};
use crate::task::job::{Job as PoolJob, Task};
use crate::time::clock::Timestamp;

/// The error of a job that the handler's outcomes leave out.
const NO_OUTCOME: &str = "the handler of the batch returned no outcome for this job";

/// A handler of batches, and the pool that runs it.
pub(crate) struct BatchContext<H, E>(pub(crate) HandlerContext<H, E>);

impl<H, E> Dispatcher for Arc<BatchContext<H, E>>
where
    H: Fn(&[Job]) -> Vec<JobOutcome<E>> + Send + Sync + 'static,
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
        self.take_batch(vec![Unclaimed { number, delivered, token: token.clone() }], started, dispositions)
    }

    fn take_batch(
        &self,
        batch: Vec<Unclaimed>,
        started: &Started,
        dispositions: &DispositionSender,
    ) -> Option<Arc<dyn Task>> {
        let HandlerContext { pool, location, label, class, .. } = &self.0;
        let queued_at = pool.executor.now_if_timing();
        let id = pool.executor.admit(location, Some(label))?;
        let (started, dispositions) = (Arc::clone(started), dispositions.clone());
        let unclaimed = Mutex::new(Some(batch));
        let task = Arc::new(BatchTask { context: Arc::clone(self), id, queued_at, unclaimed, started, dispositions });
        pool.push_unbounded(PoolJob::Task(Arc::clone(&task) as _), *class);
        Some(task)
    }

    fn to_job(&self, delivered: &Arc<Delivered>, token: &CancellationToken) -> Job {
        self.0.to_job(delivered, token)
    }

    fn failure(&self, error: String, delivered: &Delivered) -> Disposition {
        self.0.failure(error, delivered)
    }

    fn workers(&self) -> usize {
        self.0.workers()
    }
}

/// The task of one batch.
struct BatchTask<H, E> {
    /// The handler and its pool.
    context: Arc<BatchContext<H, E>>,
    /// The id of the task.
    id: TaskId,
    /// The time of submission, if durations are recorded.
    queued_at: Option<Timestamp>,
    /// `None` once it is claimed.
    unclaimed: Mutex<Option<Vec<Unclaimed>>>,
    /// Set when the handler is called.
    started: Started,
    /// Where the dispositions go.
    dispositions: DispositionSender,
}

/// What the handler has said of a job. An error is classified and formatted where it occurred.
enum Ended {
    Done,
    Failed(Failure),
    Returned(Duration),
}

impl<H, E> BatchTask<H, E> {
    fn meta(&self) -> TaskMeta<'_> {
        self.context.0.meta(self.id, self.queued_at)
    }

    fn send(&self, number: u64, disposition: Disposition) {
        // There is no receiver if the run has ended without this delivery.
        let _ = self.dispositions.send((number, disposition));
    }
}

impl<H, E> Task for BatchTask<H, E>
where
    H: Fn(&[Job]) -> Vec<JobOutcome<E>> + Send + Sync + 'static,
    E: Display + 'static,
{
    fn run(&self, executor: &Executor) {
        executor.enter(GroupId::NONE, |record| {
            let Some(batch) = self.unclaimed.lock().take() else { return };
            let HandlerContext { handler, policy, on_start, .. } = &self.context.0;
            let now = Instant::now();
            let _ = self.started.set(now);
            if let Some(on_start) = on_start {
                batch.iter().for_each(|job| on_start(job.number));
            }
            let begun = batch.iter().map(|job| self.context.0.begin(&job.delivered, &job.token, now));
            let (jobs, attempts): (Vec<_>, Vec<_>) = begun.unzip();
            let body = || {
                let _guards: Vec<_> = batch.iter().map(|job| executor.cancel_with_pool(&job.token)).collect();
                ended(handler(&jobs), jobs.len(), policy)
            };
            let is_done = |ended: &Ended| matches!(ended, Ended::Done);
            let outcome_of = |ended: &Vec<Ended>| {
                if ended.iter().all(is_done) { TaskOutcome::Succeeded } else { TaskOutcome::Failed }
            };
            let result = executor.run(record, &self.meta(), body, outcome_of);
            drop(jobs);
            let ended = result.unwrap_or_else(|panic| {
                let failed = |_: &Unclaimed| Ended::Failed((ErrorClass::Transient, panic.to_string()));
                batch.iter().map(failed).collect()
            });
            for ((job, ended), attempts) in batch.iter().zip(ended).zip(attempts) {
                let disposition = match ended {
                    Ended::Done => {
                        attempts.succeeded();
                        Disposition::Done
                    }
                    Ended::Failed(failure) => job_task::disposition_of(failure, policy, &job.delivered),
                    Ended::Returned(delay) => Disposition::Nak(delay),
                };
                self.send(job.number, disposition);
            }
            executor.task_done(record, 1);
        });
    }

    /// See `job_task`.
    fn is_finished(&self) -> bool {
        false
    }

    fn cancel(&self, reason: CancelReason, executor: &Executor) -> bool {
        executor.enter(GroupId::NONE, |record| {
            let Some(batch) = self.unclaimed.lock().take() else { return false };
            executor.cancelled(record, &self.meta().origin, reason);
            batch.iter().for_each(|job| self.send(job.number, Disposition::Nak(Duration::ZERO)));
            executor.task_done(record, 1);
            true
        })
    }
}

/// Returns what the outcomes say of each of `jobs` jobs. Calls user code.
fn ended<E: Display>(outcomes: Vec<JobOutcome<E>>, jobs: usize, policy: &RetryPolicy<E>) -> Vec<Ended> {
    let said = outcomes.into_iter().map(|outcome| match outcome {
        JobOutcome::Done => Ended::Done,
        JobOutcome::Failed(error) => Ended::Failed((policy.class_of(&error), format!("{error:#}"))),
        JobOutcome::RetryAfter(delay, error) => Ended::Failed((ErrorClass::RetryAfter(delay), format!("{error:#}"))),
        JobOutcome::Dead(error) => Ended::Failed((ErrorClass::Permanent, format!("{error:#}"))),
        JobOutcome::Return(delay) => Ended::Returned(delay),
    });
    let missing = || Ended::Failed((ErrorClass::Transient, NO_OUTCOME.to_owned()));
    said.chain(std::iter::repeat_with(missing)).take(jobs).collect()
}
