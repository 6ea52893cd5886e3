//! The end of a pool's workers, as something that is waited for. Known to the registry of waits if
//! the waiter has tasks or hooks on its stack.
//!
//! A worker that leaves runs code of the user: its stop hook, and destructors of worker locals. That
//! code may need the waiter, or wait for it.

use std::time::Instant;

use super::inner::PoolInner;
use crate::error::{CycleKind, CycleTarget};
use crate::sync::Arc;
use crate::task::context::{self, AwaitedId, PoolId};
use crate::task::waits::{self, Awaited, Kind, Needs, Wait};
use crate::time::deadline::Deadline;

/// Blocks until every worker has left, or `gives_up` returns `true`. Does not block if one of the
/// workers would wait for the waiter. Returns `true` if every worker has left.
pub(super) fn wait_for_workers(pool: &Arc<PoolInner>, gives_up: impl Fn() -> bool) -> bool {
    let workers = &pool.workers;
    if context::depth() == 0 {
        return workers.wait_empty(Deadline::NEVER, gives_up);
    }
    let sleep = |wait: &Wait, until: Option<Instant>| {
        let is_called = || wait.is_notified() || gives_up();
        workers.sleep_until_empty(Deadline::NEVER.earlier(until), is_called) || gives_up()
    };
    waits::wait(&awaited(pool), Kind::Certain, sleep).is_ok() && workers.is_empty()
}

/// Returns the end of a pool, for the registry of waits.
pub(super) fn awaited(pool: &Arc<PoolInner>) -> Arc<dyn Awaited> {
    Arc::new(PoolEnd(Arc::clone(pool)))
}

struct PoolEnd(Arc<PoolInner>);

impl Awaited for PoolEnd {
    fn awaited_id(&self) -> AwaitedId {
        self.0.id().into()
    }

    fn related_ids(&self) -> Vec<AwaitedId> {
        self.0.workers.inboxes().iter().map(|inbox| inbox.thread.into()).collect()
    }

    fn pool(&self) -> PoolId {
        self.0.id()
    }

    fn report_needs(&self, needs: &mut Needs) {
        if !self.0.executor.tracker.is_idle() {
            needs.end_of(self.0.id());
        } else if !self.0.workers.is_empty() {
            // A thread that has left waits for nothing.
            self.0.workers.inboxes().iter().for_each(|inbox| needs.end_of(inbox.thread));
        }
    }

    fn describe(&self) -> CycleTarget {
        CycleTarget::new(CycleKind::Pool)
    }

    fn help(self: Arc<Self>) {}

    fn wake_waiters(&self) {
        self.0.executor.tracker.wake_waiters();
        self.0.workers.wake_waiters();
    }
}
