//! Waiting for a pool to be idle, from a task of another pool: the registry of waits knows of it.
//!
//! It knows no queue: what is queued has its workers, and those that wait are in the registry.

use std::time::Instant;

use super::context::{self, Name};
use super::executor::Executor;
use super::waits::{self, Awaited, Kind, Needs, Refused, Wait};
use crate::sync::Arc;
use crate::time::deadline::Deadline;

/// Waits until every admitted task is settled; returns whether that came before the deadline. Without a deadline it
/// helps with what that needs, and is refused if that needs a task on this thread's stack.
pub(crate) fn wait_idle(executor: &Arc<Executor>, deadline: Deadline) -> Result<bool, Refused> {
    if deadline != Deadline::NEVER || context::depth() == 0 {
        return Ok(executor.lifecycle.wait_quiet(deadline));
    }
    wait_within_task(executor, || false).map(|()| true)
}

/// Within a task: waits until every admitted task is settled, or `is_over` says so after a call of
/// [`wake_waiters`](crate::task::lifecycle::Lifecycle::wake_waiters). Elsewhere it returns at once. Returns whether the end of
/// the pool may be waited for; not if that needs a task on this thread's stack.
pub(crate) fn may_wait_for_end(executor: &Arc<Executor>, is_over: impl Fn() -> bool) -> bool {
    context::depth() == 0 || wait_within_task(executor, is_over).is_ok()
}

fn wait_within_task(executor: &Arc<Executor>, is_over: impl Fn() -> bool) -> Result<(), Refused> {
    let lifecycle = &executor.lifecycle;
    let sleep = |wait: &Wait, until: Option<Instant>| {
        let is_called = || wait.is_called() || is_over();
        lifecycle.wait_quiet_unless(is_called, Deadline::NEVER.earlier(until)) || is_over()
    };
    let target: Arc<dyn Awaited> = Arc::new(Idleness(Arc::clone(executor)));
    waits::wait(&target, Kind::Certain, sleep)
}

/// The moment in which a pool is idle.
struct Idleness(Arc<Executor>);

impl Awaited for Idleness {
    fn name(&self) -> Name {
        self.0.pool_id
    }

    fn pool(&self) -> Name {
        self.0.pool_id
    }

    fn look(&self, needs: &mut Needs) {
        if !self.0.lifecycle.ledger.is_quiet() {
            needs.end_of(self.0.pool_id);
        }
    }

    /// Its own workers do not wait for it.
    fn help(self: Arc<Self>) {}

    fn wake_waiters(&self) {
        self.0.lifecycle.wake_waiters();
    }
}
