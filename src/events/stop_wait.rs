//! The wait for the end of a subscription's runners; see the table of the module.

use std::time::Instant;

use super::erased::AnyMailbox;
use super::mailbox::Mailbox;
use super::metrics::SubscriptionMetrics;
use crate::error::{CycleKind, CycleTarget};
use crate::sync::Arc;
use crate::task::context::{self, AwaitedId, PoolId};
use crate::task::sleepers;
use crate::task::waits::{self, Awaited, Kind, Needs, Wait};
use crate::time::deadline::Deadline;

impl<E: Send + Sync + 'static> AnyMailbox for Mailbox<E> {
    fn report_drain_needs(&self, needs: &mut Needs) {
        let state = self.state.lock();
        self.report_work(&state, needs);
        match state.queue.by_key() {
            _ if state.ending > 0 => needs.end_of(self.group),
            Some(queues) => queues.running.iter().for_each(|(_, group)| needs.end_of(*group)),
            None if state.tickets.runners() > 0 => needs.end_of(self.group),
            None => {}
        }
    }

    fn metrics(&self) -> SubscriptionMetrics {
        Mailbox::metrics(self)
    }

    fn advance(self: Arc<Self>) {
        Mailbox::advance(&self);
    }
}

impl<E: Send + Sync + 'static> Mailbox<E> {
    /// Waits until a closed subscription has no runner. Does not wait for tasks on this stack, nor
    /// for what was left behind. Returns `true` if there is no runner.
    pub(super) fn wait_stopped(self: &Arc<Self>) -> bool {
        let is_stopped = || self.state.lock().tickets.runners() == 0;
        if is_stopped() || context::is_inside(self.inner.pool.id()) {
            return is_stopped();
        }
        let mailbox = Arc::clone(self);
        let _guard = self.inner.pool.left_behind.on_cancel(move || mailbox.wake_stop_waiters());
        if context::depth() == 0 {
            if waits::prepare(Deadline::NEVER).is_ok() {
                let _listed = sleepers::list(self.describe_stop(), self.inner.pool.id(), Deadline::NEVER);
                self.sleep_until_stopped(|| false, Deadline::NEVER);
            }
        } else {
            let target: Arc<dyn Awaited> = Arc::new(AwaitedStop(Arc::clone(self)));
            let sleep = |wait: &Wait, until: Option<Instant>| {
                self.sleep_until_stopped(|| wait.is_notified(), Deadline::NEVER.earlier(until))
            };
            let _ = waits::wait(&target, Kind::Certain, sleep);
        }
        is_stopped()
    }

    fn describe_stop(&self) -> CycleTarget {
        CycleTarget::new(CycleKind::Subscription).label(Some(&self.settings.name))
    }

    /// Sleeps until there is no runner or a report has left something behind, and returns `true`;
    /// or until it is notified or the deadline has passed, and returns `false`.
    fn sleep_until_stopped(&self, is_notified: impl Fn() -> bool, deadline: Deadline) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.tickets.runners() == 0 || self.inner.is_left_behind() {
                return true;
            }
            if is_notified() || deadline.is_past() {
                return false;
            }
            state = self.stopped.wait_until(state, deadline.instant());
        }
    }

    /// Wakes the threads that wait for the last runner to stop.
    fn wake_stop_waiters(&self) {
        drop(self.state.lock()); // a waiter has checked before and sleeps, or checks after
        self.stopped.notify_all();
    }
}

/// The stop of the last runner of a closed subscription, as something that is waited for.
struct AwaitedStop<E>(Arc<Mailbox<E>>);

impl<E: Send + Sync + 'static> Awaited for AwaitedStop<E> {
    fn awaited_id(&self) -> AwaitedId {
        AwaitedId::of(&self.0.stopped)
    }

    fn related_ids(&self) -> Vec<AwaitedId> {
        self.0.related_ids()
    }

    fn pool(&self) -> PoolId {
        self.0.inner.pool.id()
    }

    fn report_needs(&self, needs: &mut Needs) {
        self.0.report_drain_needs(needs);
    }

    fn describe(&self) -> CycleTarget {
        self.0.describe_stop()
    }

    /// Does nothing: a closed subscription starts nothing.
    fn help(self: Arc<Self>) {}

    fn wake_waiters(&self) {
        self.0.wake_stop_waiters();
    }
}
