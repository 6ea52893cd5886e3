//! The wait for the deliveries of an event. A worker makes the deliveries that it waits for.
//!
//! The worker goes through the recipients whose delivery has not ended:
//!
//! - If one more runner is allowed, the worker makes deliveries, at most those that can be taken
//!   now. So it does not serve other events forever.
//! - If a delay is over, the worker requeues the delivery.
//! - Otherwise it sleeps until the next step of the bus, or until the next delay is over.
//!
//! So a wait ends even if all workers wait. There are two exceptions, and both are errors:
//!
//! - A delivery that is below on the same stack cannot end before the wait does.
//! - A delivery may never start if its subscription is at its limit and one of its runners is on
//!   this stack. The other runners may be waiting in the same way.

use super::envelope::{AnyEnvelope, AnyRecipients, Help};
use super::inner::BusInner;
use super::mailbox::{Budget, Mailbox, Mode, State};
use super::registry::Recipients;
use crate::cancel::token::CancelGuard;
use crate::error::{Cycle, CycleKind, CycleTarget};
use crate::sync::{Arc, MutexGuard};
use crate::task::context::{self, AwaitedId, PoolId};
use crate::task::waits::{self, Awaited, Kind, Needs, Next, Refused, Wait};
use crate::time::deadline::Deadline;

/// The error of a wait for an event that would never end, or might not end.
///
/// Returned in these cases:
///
/// - A handler waits for the event that it is handling.
/// - A handler waits for another event of its own subscription, and all runners that could deliver
///   it are on this stack. An ordered subscription has a single runner. If all runners of a
///   concurrent subscription waited like this, none would ever be free.
/// - A handler waits for another event of its own
///   [key](crate::events::SubscriptionBuilder::ordered_by).
/// - Handlers wait for receipts of each other's events, and all runners of their subscriptions or
///   keys do so. An ordered subscription has a single runner. One of the waits gets the error.
/// - Waits are nested more than 64 tasks deep.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("waiting for the event here would never end{}", .cycle.suffix())]
#[non_exhaustive]
pub struct WouldDeadlock {
    /// The waits that need each other. Empty if waits were nested too deep.
    pub cycle: Cycle,
}

impl From<Refused> for WouldDeadlock {
    fn from(Refused(cycle): Refused) -> Self {
        Self { cycle }
    }
}

/// Returns the error of a handler that waits for itself.
pub(super) fn own_wait(target: &dyn Awaited) -> WouldDeadlock {
    WouldDeadlock { cycle: waits::own_cycle(target.describe(), target.pool()) }
}

impl<E: Send + Sync + 'static> AnyRecipients for Recipients<E> {
    fn len(&self) -> usize {
        self.mailboxes.len()
    }

    fn inner(&self) -> &BusInner {
        &self.mailboxes[0].inner // an event with recipients has at least one
    }

    fn related_ids(&self, index: usize) -> Vec<AwaitedId> {
        self.mailboxes[index].related_ids()
    }

    fn is_handling(&self, index: usize, item: usize) -> bool {
        self.mailboxes[index].is_handling(item)
    }

    fn help(&self, index: usize, item: usize) -> Help {
        self.mailboxes[index].help(item)
    }

    fn report_needs(&self, index: usize, item: usize, needs: &mut Needs) {
        self.mailboxes[index].report_event_needs(item, needs);
    }

    fn advance(&self, index: usize, item: usize) {
        match self.mailboxes[index].settings.mode {
            Mode::OrderedBy => drop(self.mailboxes[index].help_key(item)),
            _ => self.mailboxes[index].advance(),
        }
    }
}

impl<E: Send + Sync + 'static> Mailbox<E> {
    /// Returns the ids of what may have to end before a delivery. Any key may have to.
    pub(super) fn related_ids(&self) -> Vec<AwaitedId> {
        match self.settings.mode {
            Mode::OrderedBy => vec![self.group.into(), AwaitedId::ANYTHING],
            _ => vec![self.group.into()],
        }
    }

    fn help(self: &Arc<Self>, item: usize) -> Help {
        if self.settings.mode == Mode::OrderedBy {
            return self.help_key(item);
        }
        if context::is_handling(self.group, item) {
            return Help::Deadlock;
        }
        let state = self.state.lock();
        if self.can_run(&state) {
            self.run_takeable(state);
            return Help::Helped;
        }
        if state.tickets.runners() >= self.limit() {
            let is_deadlock = context::is_member_of(self.group) && state.may_wait(item);
            return if is_deadlock { Help::Deadlock } else { Help::Later(Deadline::NEVER) };
        }
        let lingers_until = state.linger.as_ref().and_then(|linger| linger.due.instant());
        drop(state);
        match self.requeue_due(self.inner.pool.timers.clock().now()) {
            Ok(()) => Help::Helped,
            Err(None) => Help::Later(Deadline::NEVER.earlier(lingers_until)),
            Err(Some(due)) => Help::Later(due),
        }
    }

    /// Makes deliveries as one more runner; at most those that can be taken now.
    fn run_takeable(self: &Arc<Self>, mut state: MutexGuard<'_, State<E>>) {
        let number = self.takeable(&state);
        state.tickets.start_runner();
        drop(state);
        self.run(Budget::Deliveries(number));
    }

    /// Reports what a runner needs to take the next delivery.
    pub(super) fn report_runner_needs(&self, state: &State<E>, needs: &mut Needs) {
        self.report_work(state, needs);
        match self.limit() {
            _ if state.ending > 0 => needs.end_of_any(self.group, state.tickets.runners() + state.ending),
            _ if state.tickets.runners() == 0 => {}
            1 => needs.end_of(self.group),
            limit if state.tickets.runners() >= limit && state.closed.is_none() => {
                needs.end_of_any(self.group, state.tickets.runners());
            }
            _ => needs.possible_end_of(self.group),
        }
    }

    /// Reports whether there is work for a worker, or when there will be.
    pub(super) fn report_work(&self, state: &State<E>, needs: &mut Needs) {
        needs.worker |= self.can_run(state);
        if state.tickets.runners() < self.limit() {
            let due = state.delayed.first_key_value().map(|(&(due, _), _)| due);
            let linger = state.linger.as_ref().filter(|_| due.is_none()).map(|linger| linger.due);
            due.or(linger).into_iter().for_each(|due| self.report_due(due, needs));
        }
    }

    /// Reports when there is work for a worker, which is a delivery that is due then.
    pub(super) fn report_due(&self, due: Deadline, needs: &mut Needs) {
        if due <= Deadline::at(self.inner.pool.timers.clock().now()) {
            needs.worker = true;
        } else {
            needs.worker_at = needs.worker_at.into_iter().chain(due.instant()).min();
        }
    }

    /// Makes deliveries, if one more runner can.
    pub(super) fn advance(self: &Arc<Self>) {
        let state = self.state.lock();
        if self.can_run(&state) {
            self.run_takeable(state);
        } else if state.tickets.runners() < self.limit() {
            drop(state);
            let _ = self.requeue_due(self.inner.pool.timers.clock().now());
        }
    }
}

impl<E: Send + Sync + 'static> State<E> {
    /// Returns `true` if the delivery of the event that `item` stands for may be waiting or
    /// delayed, rather than running.
    fn may_wait(&self, item: usize) -> bool {
        !self.delayed.is_empty() || self.queue.holds(item)
    }
}

/// Within a task, waits until all deliveries of the event have ended or a report has left something
/// behind. Helps with what the wait needs. Outside of tasks, returns at once.
///
/// While the thread sleeps, the wait is in the registry of waits.
pub(super) fn wait_and_help(envelope: &Arc<dyn AnyEnvelope>) -> Result<(), WouldDeadlock> {
    let Some(recipients) = envelope.recipients() else { return Ok(()) };
    let depth = context::depth();
    if envelope.progress().is_finished() {
        return Ok(());
    }
    if depth == 0 {
        return Ok(waits::prepare(Deadline::NEVER)?);
    }
    let is_worker = context::is_worker_of(recipients.inner().pool.id());
    if is_worker && depth >= context::MAX_HELP_DEPTH {
        return Err(WouldDeadlock { cycle: Cycle::default() });
    }
    let outstanding = Outstanding { envelope: Arc::clone(envelope), recipients: Arc::clone(&recipients) };
    let target: Arc<dyn Awaited> = Arc::new(outstanding);
    let mut registered: Option<Wait> = None;
    let mut guard: Option<CancelGuard> = None;
    recipients.inner().steps.wait_until(|| {
        while !envelope.progress().is_finished() {
            if let Err(refused) = registered.take().map_or(Ok(()), |wait| wait.check()) {
                return Ok(Err(refused.into()));
            }
            let help = if is_worker { help_once(&**envelope, &*recipients) } else { Help::Later(Deadline::NEVER) };
            let deadline = match help {
                Help::Helped => continue,
                Help::Later(deadline) => deadline,
                Help::Deadlock => return Ok(Err(own_wait(&*target))),
            };
            match waits::register(Arc::clone(&target), Kind::Certain) {
                Ok(Next::Help(awaited)) => awaited.help(),
                Ok(Next::Sleep(wait, moment)) => {
                    // Only now that this wait is announced: either the notification wakes it, or
                    // the check below finds the report.
                    guard.get_or_insert_with(|| {
                        let woken = Arc::clone(&recipients);
                        recipients.left_behind().on_cancel(move || woken.inner().steps.notify())
                    });
                    if recipients.inner().is_left_behind() {
                        return Ok(Ok(()));
                    }
                    registered = Some(wait);
                    return Err(deadline.earlier(moment));
                }
                Err(refused) => return Ok(Err(refused.into())),
            }
        }
        Ok(Ok(()))
    })
}

/// Wakes the futures and threads that wait for an event when a report leaves something behind.
pub(super) fn wake_when_left_behind(envelope: &Arc<dyn AnyEnvelope>, recipients: &dyn AnyRecipients) -> CancelGuard {
    let woken = Arc::clone(envelope);
    recipients.left_behind().on_cancel(move || woken.progress().wake())
}

/// Returns the deliveries of an event as something that a future waits for.
pub(super) fn awaited(envelope: &Arc<dyn AnyEnvelope>, recipients: &Arc<dyn AnyRecipients>) -> Arc<dyn Awaited> {
    Arc::new(Outstanding { envelope: Arc::clone(envelope), recipients: Arc::clone(recipients) })
}

/// Helps with each recipient once if this thread is a worker. Says if the wait of a future that is
/// polled on this thread would never end.
pub(super) fn help_or_refuse(envelope: &dyn AnyEnvelope, recipients: &dyn AnyRecipients) -> Help {
    if context::is_worker_of(recipients.inner().pool.id()) {
        if context::depth() >= context::MAX_HELP_DEPTH {
            return Help::Deadlock;
        }
        return help_once(envelope, recipients);
    }
    let item = envelope.item();
    let mut unfinished = (0..recipients.len()).filter(|index| !envelope.progress().has_ended(*index));
    if unfinished.any(|index| recipients.is_handling(index, item)) {
        return Help::Deadlock;
    }
    Help::Later(Deadline::NEVER)
}

/// The deliveries of an event, as something that is waited for.
struct Outstanding {
    /// The event.
    envelope: Arc<dyn AnyEnvelope>,
    /// Kept here, so that a report of needs drops nothing.
    recipients: Arc<dyn AnyRecipients>,
}

impl Outstanding {
    /// Returns the recipients whose delivery has not ended.
    fn unfinished(&self) -> impl Iterator<Item = usize> {
        (0..self.recipients.len()).filter(|index| !self.envelope.progress().has_ended(*index))
    }
}

impl Awaited for Outstanding {
    fn awaited_id(&self) -> AwaitedId {
        AwaitedId::of_item(self.envelope.item())
    }

    /// A delivery needs the runners of its subscription, which may be busy with other events.
    fn related_ids(&self) -> Vec<AwaitedId> {
        self.unfinished().flat_map(|index| self.recipients.related_ids(index)).collect()
    }

    fn pool(&self) -> PoolId {
        self.recipients.inner().pool.id()
    }

    fn report_needs(&self, needs: &mut Needs) {
        if !self.envelope.progress().is_finished() {
            needs.end_of(self.awaited_id());
            let item = self.envelope.item();
            self.unfinished().for_each(|index| self.recipients.report_needs(index, item, needs));
        }
    }

    fn describe(&self) -> CycleTarget {
        CycleTarget::new(CycleKind::Event)
    }

    fn help(self: Arc<Self>) {
        self.unfinished().for_each(|index| self.recipients.advance(index, self.envelope.item()));
    }

    fn wake_waiters(&self) {
        self.recipients.inner().steps.notify();
    }
}

/// Tries to help with each recipient once.
fn help_once(envelope: &dyn AnyEnvelope, recipients: &dyn AnyRecipients) -> Help {
    let (mut helped, mut earliest) = (false, Deadline::NEVER);
    for index in 0..recipients.len() {
        if envelope.progress().has_ended(index) {
            continue;
        }
        match recipients.help(index, envelope.item()) {
            Help::Helped => helped = true,
            Help::Later(deadline) => earliest = earliest.earlier(deadline.instant()),
            // Other threads may have been at work before the answer was found; then there was still
            // a step to take.
            Help::Deadlock if envelope.progress().has_ended(index) => helped = true,
            Help::Deadlock => return Help::Deadlock,
        }
    }
    if helped { Help::Helped } else { Help::Later(earliest) }
}
