//! Waiting for an idle executor. A worker that waits takes turns.

use super::state::{KeyedInner, State};
use crate::error::{CancelReason, CycleKind, CycleTarget};
use crate::sync::{Arc, MutexGuard};
use crate::task::context::{self, AwaitedId, PoolId};
use crate::task::job::TicketHolder;
use crate::task::sleepers;
use crate::task::waits::{self, Awaited, Kind, Needs, Refused};
use crate::time::deadline::Deadline;

impl<K: Send + Sync + 'static> KeyedInner<K> {
    /// Blocks until every task is finished or the deadline has passed. Returns `true` if every task
    /// is finished. Without a deadline it helps, if there are tasks on this thread's stack, and it
    /// is refused if the wait needs one of them.
    pub(super) fn wait_idle(self: &Arc<Self>, deadline: Deadline) -> Result<bool, Refused> {
        let state = self.state.lock();
        let (is_member, is_idle) = (state.is_member(), state.unfinished == 0);
        drop(state);
        if is_member {
            return Err(Refused(waits::own_cycle(Idleness(Arc::clone(self)).describe(), self.pool.id())));
        }
        if is_idle {
            return Ok(true);
        }
        if deadline != Deadline::NEVER || context::depth() == 0 {
            waits::prepare(deadline)?;
            let _listed = sleepers::list(self.describe_idleness(), self.pool.id(), deadline);
            return Ok(self.sleep_until_idle(|| false, deadline));
        }
        // The thread that cancels the tasks of the pool may be this one, in a destructor.
        if self.pool.executor.tracker.is_cancelling() {
            TicketHolder::cancel(&**self, CancelReason::ShutDown);
        }
        let target: Arc<dyn Awaited> = Arc::new(Idleness(Arc::clone(self)));
        waits::wait(&target, Kind::Certain, |wait, until| {
            self.sleep_until_idle(|| wait.is_notified(), Deadline::NEVER.earlier(until))
        })
        .map(|()| true)
    }

    fn describe_idleness(&self) -> CycleTarget {
        CycleTarget::new(CycleKind::Keyed).label(self.settings.label.as_ref())
    }

    /// Sleeps until every task is finished, it is notified, or the deadline has passed. Returns
    /// `true` if every task is finished.
    fn sleep_until_idle(&self, is_notified: impl Fn() -> bool, deadline: Deadline) -> bool {
        let mut state: MutexGuard<'_, State<K>> = self.state.lock();
        state.idle_waiters += 1;
        state = self.idle.wait_while(state, deadline, |state| state.unfinished > 0 && !is_notified());
        state.idle_waiters -= 1;
        state.unfinished == 0
    }
}

/// The idleness of an executor, as something that is waited for.
pub(super) struct Idleness<K>(pub(super) Arc<KeyedInner<K>>);

impl<K: Send + Sync + 'static> Awaited for Idleness<K> {
    fn awaited_id(&self) -> AwaitedId {
        AwaitedId::of(&*self.0)
    }

    /// Any running key may need anything.
    fn related_ids(&self) -> Vec<AwaitedId> {
        vec![AwaitedId::ANYTHING]
    }

    fn pool(&self) -> PoolId {
        self.0.pool.id()
    }

    fn report_needs(&self, needs: &mut Needs) {
        let mut state = self.0.state.lock();
        if state.unfinished > 0 {
            self.0.report_any_turn(&mut state, needs);
            state.running_groups().for_each(|group| needs.end_of(group));
            if state.closed {
                needs.end_of(self.0.closing_group());
            }
        }
    }

    fn describe(&self) -> CycleTarget {
        self.0.describe_idleness()
    }

    fn help(self: Arc<Self>) {
        self.0.help(None);
    }

    fn wake_waiters(&self) {
        self.0.wake_waiters();
    }
}
