//! Waiting for a pool to be idle, from a task of another pool, known to the registry of waits.
//!
//! The queue plays no part here: queued jobs are run by the pool's workers, and workers that wait
//! are in the registry.

use std::time::Instant;

use super::context::{self, AwaitedId, PoolId};
use super::executor::Executor;
use super::sleepers;
use super::waits::{self, Awaited, Kind, Needs, Refused, Wait};
use crate::error::{CycleKind, CycleTarget};
use crate::sync::Arc;
use crate::time::deadline::Deadline;

/// Blocks until every admitted task is done, the deadline has passed, or `is_over` returns `true`
/// after a call of [`wake_waiters`](crate::task::tracker::TaskTracker::wake_waiters). Returns
/// `true` if every task is done.
///
/// Without a deadline it helps with what the wait needs, and it is refused if the wait needs a task
/// on this thread's stack.
pub(crate) fn wait_idle(
    executor: &Arc<Executor>,
    deadline: Deadline,
    is_over: impl Fn() -> bool,
) -> Result<bool, Refused> {
    if deadline != Deadline::NEVER || context::depth() == 0 {
        if executor.tracker.is_idle() {
            return Ok(true);
        }
        waits::prepare(deadline)?;
        // Snapshots show the wait.
        let _listed = sleepers::list(CycleTarget::new(CycleKind::Pool), executor.pool_id, deadline);
        return Ok(executor.tracker.wait_idle_unless(is_over, deadline));
    }
    wait_within_task(executor, is_over).map(|()| executor.tracker.is_idle())
}

/// Returns `true` if this thread may wait for the end of the pool. It may not if the end needs a
/// task on its stack.
///
/// Within a task, blocks until every admitted task is done, or `is_over` is `true` after a call of
/// [`wake_waiters`](crate::task::tracker::TaskTracker::wake_waiters). Elsewhere, returns at once.
pub(crate) fn may_wait_for_end(executor: &Arc<Executor>, is_over: impl Fn() -> bool) -> bool {
    context::depth() == 0 || wait_within_task(executor, is_over).is_ok()
}

/// Returns the idleness of a pool as something that a future waits for.
pub(crate) fn awaited(executor: &Arc<Executor>) -> Arc<dyn Awaited> {
    Arc::new(Idleness(Arc::clone(executor)))
}

fn wait_within_task(executor: &Arc<Executor>, is_over: impl Fn() -> bool) -> Result<(), Refused> {
    let tracker = &executor.tracker;
    let sleep = |wait: &Wait, until: Option<Instant>| {
        let is_called = || wait.is_notified() || is_over();
        tracker.wait_idle_unless(is_called, Deadline::NEVER.earlier(until)) || is_over()
    };
    waits::wait(&awaited(executor), Kind::Certain, sleep)
}

/// The idleness of a pool, as something that is waited for.
struct Idleness(Arc<Executor>);

impl Awaited for Idleness {
    fn awaited_id(&self) -> AwaitedId {
        self.0.pool_id.into()
    }

    fn pool(&self) -> PoolId {
        self.0.pool_id
    }

    fn report_needs(&self, needs: &mut Needs) {
        if !self.0.tracker.is_idle() {
            needs.end_of(self.0.pool_id);
        }
    }

    fn describe(&self) -> CycleTarget {
        CycleTarget::new(CycleKind::Pool)
    }

    /// Does nothing: workers of the pool never wait for it.
    fn help(self: Arc<Self>) {}

    fn wake_waiters(&self) {
        self.0.tracker.wake_waiters();
    }
}
