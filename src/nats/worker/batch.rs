//! Runs of batches.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use super::Worker;
use super::batch_task::BatchContext;
use super::config::{BatchLimits, RunReport};
use super::job::Job;
use super::job_outcome::JobOutcome;
use crate::nats::check;
use crate::nats::error::WorkerError;
use crate::pool::worker_pool::WorkerPool;
use crate::sync::Arc;

/// # Batches
impl<E> Worker<E> {
    /// Processes jobs as [`run`](Self::run) does, but calls the handler with up to `max` jobs at
    /// once. The handler returns one outcome for each job, in their order. Blocks until the run
    /// ends.
    ///
    /// Jobs that have arrived wait for others until there are `max` of them, or until the first has
    /// waited for `linger`. They wait on no thread. With a linger of zero a batch holds what is
    /// there; `Duration::MAX` waits for full batches only. A drain and a pause return the jobs that
    /// wait, without counting an attempt.
    ///
    /// Each job has its own heartbeats, attempts, outcome and dead letter, and holds a slot of its
    /// own. *Default* of [`slots`](crate::nats::WorkerBuilder::slots): `max` for each worker of the
    /// pool. A batch is never larger than the slots. Each job counts for a
    /// [rate](crate::nats::WorkerBuilder::rate). With an
    /// [order](crate::nats::WorkerBuilder::ordered_by), a batch has at most one job of each key.
    ///
    /// The jobs of a batch may come from many traces, so its task has no
    /// [context](crate::WorkerPoolBuilder::extract). The handler enters that of a job by
    /// [`Job::in_context`].
    ///
    /// A batch is one task of the pool, which has succeeded if all its jobs are done. If the
    /// handler panics, the attempt of each of its jobs has failed. So has that of a job without an
    /// outcome, if the handler returns too few; further outcomes are ignored.
    ///
    /// # Errors
    ///
    /// [`WorkerError`], in the cases of `run`, or if `max` is zero or more than 1,048,576.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use workcrew::WorkerPool;
    /// use workcrew::nats::{Job, JobOutcome, Worker};
    ///
    /// # type Indexed = Result<(), std::io::Error>;
    /// # fn index(rows: &[&str]) -> Vec<Indexed> { rows.iter().map(|_| Ok(())).collect() }
    /// # fn run(
    /// #     pool: &WorkerPool,
    /// #     worker: &Worker<std::io::Error>,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let report = worker.run_batch(pool, 100, Duration::from_millis(50), |jobs: &[Job]| {
    ///     let rows: Vec<_> = jobs.iter().map(|job| job.text().unwrap_or_default()).collect();
    ///     index(&rows).into_iter().map(JobOutcome::from).collect()
    /// })?;
    /// assert!(report.drained);
    /// # Ok(())
    /// # }
    /// # let _ = run;
    /// ```
    #[track_caller]
    pub fn run_batch<H>(
        &self,
        pool: &WorkerPool,
        max: usize,
        linger: Duration,
        handler: H,
    ) -> Result<RunReport, WorkerError>
    where
        H: Fn(&[Job]) -> Vec<JobOutcome<E>> + Send + Sync + 'static,
        E: fmt::Display + 'static,
    {
        check::concurrency("max", max)?;
        let location = Location::caller();
        self.run_with(pool, Some(BatchLimits { max, linger }), |on_start| {
            Box::new(Arc::new(BatchContext(self.handler_context(pool, handler, location, on_start))))
        })
    }
}
