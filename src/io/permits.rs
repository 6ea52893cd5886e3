//! The permits of one driver, and the wait of a submitter for one of them.
//!
//! | what waits | for | needs |
//! |---|---|---|
//! | a future | a run permit | the end of a future that is driven |
//! | a submitter | a submit permit | the same; or a worker that takes an output which holds a permit |
//!
//! A driven future may wait for a task of any pool. So both waits are known to the registry of
//! waits: every future bears the [id](Permits::id) of its driver as the item of its frame, and what
//! waits for a permit may need the end of something with that id. A worker that waits for the
//! submitter, or for the future, helps with what the futures in front of it wait for.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::block_on::{self, ThreadWaker};
use crate::cancel::token::CancellationToken;
use crate::error::{CycleKind, CycleTarget, Refusal};
use crate::sync::{Arc, Mutex, Weak};
use crate::task::context::{self, AwaitedId, PoolId};
use crate::task::executor::Executor;
use crate::task::job::{Job, Task};
use crate::task::sleepers;
use crate::task::waits::{self, Awaited, Kind, Needs, Refused, Wait};
use crate::time::deadline::Deadline;

/// A permit to have one future driven; see rule 4 of `future_task`.
pub(super) type RunPermit = OwnedSemaphorePermit;
/// A permit for one task of an external submitter; see rule 4 of `future_task`.
pub(super) type SubmitPermit = OwnedSemaphorePermit;

/// The permits of one driver.
pub(super) struct Permits {
    /// One permit for each future that is driven. Never closed.
    run: Arc<Semaphore>,
    /// One permit for each task of an external submitter. Never closed.
    submit: Arc<Semaphore>,
    /// The number of permits of either kind.
    limit: usize,
    /// The outputs that wait for a worker and hold a submit permit.
    outputs: Mutex<Outputs>,
}

/// What the lock guards.
#[derive(Default)]
struct Outputs {
    /// The tasks, oldest first. The output of each is in its cell, unless it was claimed.
    by_key: BTreeMap<u64, Weak<dyn Task>>,
    /// The key of the next output.
    next: u64,
}

/// The submit permit of an output that waits for a worker.
pub(super) struct OutputPermit {
    /// Where the output is listed.
    permits: Arc<Permits>,
    /// The key of the output.
    key: u64,
    /// Released after the output has left the list.
    _permit: SubmitPermit,
}

impl Permits {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        let [run, submit] = [(); 2].map(|()| Arc::new(Semaphore::new(limit)));
        Arc::new(Self { run, submit, limit, outputs: Mutex::default() })
    }

    /// Returns the item of the frames of all futures of this driver.
    pub(super) fn item(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    /// Returns the same as an id: what waits for a permit may need the end of something with it.
    pub(super) fn id(self: &Arc<Self>) -> AwaitedId {
        AwaitedId::of_item(self.item())
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Returns how many run permits are taken. May be stale when it returns.
    pub(super) fn taken(&self) -> usize {
        self.limit - self.run.available_permits()
    }

    /// Returns how many outputs wait for a worker and hold a submit permit.
    pub(super) fn outputs(&self) -> usize {
        self.outputs.lock().by_key.len()
    }

    /// Adds what a wait for a permit may need. If every run permit is taken, one of the futures that
    /// have one must end.
    pub(super) fn report_needs(self: &Arc<Self>, needs: &mut Needs) {
        needs.possible_end_of(self.id());
        if self.taken() >= self.limit {
            needs.place_at(self.id(), self.limit);
        }
    }

    /// Returns a run permit if one is free.
    pub(super) fn try_run(&self) -> Option<RunPermit> {
        Arc::clone(&self.run).try_acquire_owned().ok()
    }

    /// Waits for a run permit.
    pub(super) async fn run(&self) -> RunPermit {
        Arc::clone(&self.run).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Returns a submit permit if one is free.
    pub(super) fn try_submit(&self) -> Option<SubmitPermit> {
        Arc::clone(&self.submit).try_acquire_owned().ok()
    }

    /// Lists an output that waits for a worker. Calls `put`, which puts the output into its cell,
    /// under the lock: so no thread finds the task here before its output.
    pub(super) fn list_output(
        self: &Arc<Self>,
        permit: SubmitPermit,
        task: Weak<dyn Task>,
        put: impl FnOnce(OutputPermit),
    ) {
        let mut outputs = self.outputs.lock();
        let key = outputs.next;
        outputs.next += 1;
        outputs.by_key.insert(key, task);
        put(OutputPermit { permits: Arc::clone(self), key, _permit: permit });
    }
}

/// # The wait for a submit permit
impl Permits {
    /// Blocks until there is a submit permit, the pool is closed, or the deadline has passed.
    /// Within a task and without a deadline, helps with what the wait needs. Where waits are nested
    /// too deep, refuses as after the deadline.
    pub(super) fn wait_for_submit(
        self: &Arc<Self>,
        executor: &Arc<Executor>,
        closing: &CancellationToken,
        deadline: Deadline,
    ) -> Result<SubmitPermit, Refusal> {
        let permit = if deadline == Deadline::NEVER && context::depth() > 0 {
            self.wait_within_task(executor, closing).map_err(|Refused(_)| Refusal::Timeout)?
        } else {
            let _listed = sleepers::list(CycleTarget::new(CycleKind::Driver), executor.pool_id, deadline);
            block_on::block_on(self.submit_or_closing(closing), deadline).ok_or(Refusal::Timeout)?
        };
        permit.ok_or(Refusal::ShutDown)
    }

    /// Waits for a submit permit; `None` if the pool is closed first.
    async fn submit_or_closing(&self, closing: &CancellationToken) -> Option<SubmitPermit> {
        let mut acquire = pin!(Arc::clone(&self.submit).acquire_owned());
        let mut closing = pin!(closing.cancelled());
        let permit_or_closing = poll_fn(|context| match acquire.as_mut().poll(context) {
            Poll::Ready(permit) => Poll::Ready(permit.ok()),
            Poll::Pending => closing.as_mut().poll(context).map(|_| None),
        });
        permit_or_closing.await
    }

    /// While this thread helps, it does not wait for a permit: what it runs may wait for one, too,
    /// and would never get the one that this thread was given.
    fn wait_within_task(
        self: &Arc<Self>,
        executor: &Arc<Executor>,
        closing: &CancellationToken,
    ) -> Result<Option<SubmitPermit>, Refused> {
        let waker = Arc::new(ThreadWaker::default());
        let (permits, woken) = (Arc::clone(self), Arc::clone(&waker));
        let target: Arc<dyn Awaited> = Arc::new(SubmitRoom { permits, executor: Arc::clone(executor), waker: woken });
        let mut waited = None;
        let sleep = |wait: &Wait, until: Option<Instant>| {
            let (is_over, until) = (|| wait.is_notified(), Deadline::NEVER.earlier(until));
            waited = block_on::block_on_unless(self.submit_or_closing(closing), &waker, is_over, until);
            waited.is_some()
        };
        waits::wait(&target, Kind::Open, sleep)?;
        Ok(waited.flatten())
    }
}

/// A free submit permit, as something that is waited for.
struct SubmitRoom {
    permits: Arc<Permits>,
    executor: Arc<Executor>,
    /// Wakes the submitter.
    waker: Arc<ThreadWaker>,
}

impl Awaited for SubmitRoom {
    fn awaited_id(&self) -> AwaitedId {
        AwaitedId::of(&*self.waker)
    }

    fn related_ids(&self) -> Vec<AwaitedId> {
        vec![self.permits.id()]
    }

    fn pool(&self) -> PoolId {
        self.executor.pool_id
    }

    fn report_needs(&self, needs: &mut Needs) {
        // Also if a permit is free: another thread may take it first.
        needs.worker = self.permits.outputs() > 0;
        if needs.worker {
            needs.possible_end_of(self.permits.id());
        } else {
            self.permits.report_needs(needs);
        }
    }

    fn describe(&self) -> CycleTarget {
        CycleTarget::new(CycleKind::Driver)
    }

    /// Takes the oldest output, which releases its permit.
    fn help(self: Arc<Self>) {
        let oldest = self.permits.outputs.lock().by_key.pop_first();
        if let Some(task) = oldest.and_then(|(_, task)| task.upgrade()) {
            Job::Task(task).run_or_cancel(&self.executor);
        }
    }

    fn wake_waiters(&self) {
        self.waker.notify();
    }
}

impl Drop for OutputPermit {
    fn drop(&mut self) {
        let removed = self.permits.outputs.lock().by_key.remove(&self.key);
        drop(removed);
    }
}
