//! How deliveries are made, by the rules 2, 3, 5 and 7 of `mailbox`.

use super::envelope::Envelope;
use super::handler::{BoxError, Handler};
use super::mailbox::{Mailbox, PendingDelivery, Retrying, State, Stint};
use super::post::PostResult;
use super::progress::DeliveryOutcome;
use crate::error::CancelReason;
use crate::nesting;
use crate::observe::task_info::TaskOutcome;
use crate::observe::worker_counters::WorkerCounters;
use crate::retry::{AttemptError, ErrorClass, RetryDecision, RetryPolicy};
use crate::sync::{Arc, MutexGuard, Ordering};
use crate::task::context;
use crate::task::executor::TaskMeta;
use crate::task::job::TicketHolder;
use crate::unwind;

/// How many deliveries a runner makes before it gives way to jobs that wait.
const TURN: usize = 16;

/// What one call of a handler came to: in the case of an error, also what that means. `None`: it was not called, since the
/// subscription has ended; rule 5.
type Called = Option<Result<(), (BoxError, ErrorClass)>>;

impl<E: Send + Sync + 'static> Mailbox<E> {
    /// Makes deliveries as a runner that is already counted, until none can be taken or the stint is over.
    pub(super) fn run(self: &Arc<Self>, stint: Stint) {
        self.enter(|record| {
            let mut state = self.state.lock();
            for made in 0.. {
                let is_over = match stint {
                    // Besides the tickets of this subscription.
                    Stint::GivesWay => made % TURN == TURN - 1 && self.shared.engine.queued() > state.tickets,
                    Stint::Deliveries(number) => made >= number,
                };
                if is_over {
                    break;
                }
                let Some((item, handler)) = self.take(&mut state) else { break };
                drop(state);
                self.deliver(record, item, handler);
                state = self.state.lock();
            }
            self.stop_running(state);
        });
    }

    /// Makes the delivery on this thread, now.
    pub(super) fn deliver_here(self: &Arc<Self>, item: PendingDelivery<E>) -> PostResult {
        if context::depth() >= context::MAX_HELP_DEPTH {
            return self.refuse(item, Some(DeliveryOutcome::Refused));
        }
        let mut state = self.state.lock();
        let handler = state.handler.clone().filter(|_| state.takes_events_in());
        let Some(handler) = handler else {
            drop(state);
            return self.refuse(item, None);
        };
        let posted = self.spend_if_once(&mut state);
        state.runners += 1;
        drop(state);
        self.enter(|record| {
            self.deliver(record, item, handler);
            self.stop_running(self.state.lock());
        });
        posted
    }

    /// Takes the next delivery, if one can be taken.
    fn take(&self, state: &mut State<E>) -> Option<(PendingDelivery<E>, Arc<Handler<E>>)> {
        let handler = state.handler.clone().filter(|_| self.takeable(state) > 0)?;
        let item = state.waiting.pop_front()?;
        self.call_for_events(state);
        Some((item, handler))
    }

    /// A runner stops.
    fn stop_running(self: &Arc<Self>, mut state: MutexGuard<'_, State<E>>) {
        state.runners -= 1;
        if state.runners == 0 && state.closed.is_some() {
            self.quiet.notify_all();
        }
        self.send_ticket_if_needed(state);
        self.shared.steps.beat();
    }

    /// Calls the handler and sees to what follows. Called by members only.
    fn deliver(self: &Arc<Self>, record: &WorkerCounters, mut item: PendingDelivery<E>, handler: Arc<Handler<E>>) {
        context::set_item(item.envelope.subject());
        let executor = &self.shared.engine.executor;
        // Its first attempt tells how long it has waited for a worker.
        let queued_at = item.queued_at.filter(|_| item.retrying.is_none());
        let brief = TaskMeta { info: self.info(&item), queued_at };
        let (started, result) = executor.run_attempt(record, &brief, || self.call(&*handler, &item.envelope));
        // If the subscription has ended meanwhile, this is what is left of it.
        unwind::discard(handler);
        let (class, outcome) = match &result {
            Ok(None) => {
                executor.finish_attempt(record, &brief, started, None, None);
                let reason = self.state.lock().closed.expect("closed once, it stays so");
                return self.cancel_item(record, item, reason);
            }
            Ok(Some(Ok(()))) => (None, TaskOutcome::Succeeded),
            Ok(Some(Err((_, class)))) => (Some(*class), TaskOutcome::Failed),
            Err(_) => (Some(ErrorClass::Transient), TaskOutcome::Panicked),
        };
        let next = class.map(|class| self.what_follows(&mut item, class));
        let ends = !matches!(next, Some(RetryDecision::After(_)));
        executor.finish_attempt(record, &brief, started, result.as_ref().err(), ends.then_some(outcome));
        let error = match result {
            Ok(Some(Err((error, _)))) => AttemptError::Failed(error),
            Err(panic) => AttemptError::Panicked(panic),
            Ok(_) => {
                if let Some(policy) = &self.settings.policy {
                    policy.note_success();
                }
                return self.land(record, item, DeliveryOutcome::Handled);
            }
        };
        let retrying = item.retrying.as_mut().expect("what has failed has attempts");
        unwind::discard(retrying.errors.add(error));
        match next {
            Some(RetryDecision::After(delay)) => self.delay(record, item, delay),
            Some(RetryDecision::GiveUp(reason)) => {
                let retrying = item.retrying.take().expect("as above");
                let error = retrying.give_up(reason).expect("what is given up has failed");
                self.land_failure(record, item, error);
            }
            None => unreachable!("a delivery without an error was handled"),
        }
    }

    /// Calls the handler, unless the subscription has ended; keeps rule 5.
    fn call(&self, handler: &Handler<E>, envelope: &Envelope<E>) -> Called {
        // ORDERING: Acquire pairs with the Release of `close`.
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        let result = nesting::in_generation(envelope.generation(), || handler(envelope.event()));
        Some(result.map_err(|error| {
            let policy = self.settings.policy.as_ref();
            let class = policy.map_or(ErrorClass::Transient, |policy| policy.class_of(&error));
            (error, class)
        }))
    }

    /// What follows a failed attempt.
    fn what_follows(&self, item: &mut PendingDelivery<E>, class: ErrorClass) -> RetryDecision {
        let now = self.shared.engine.timers.clock().now();
        let begun = item.published_at.unwrap_or(now);
        let make = || Box::new(Retrying::new(self.settings.policy.clone().unwrap_or_else(once), begun));
        let retrying = item.retrying.get_or_insert_with(make);
        retrying.attempts.count();
        retrying.attempts.failed(class, now)
    }
}

/// The policy of a subscription that has none.
fn once() -> RetryPolicy<BoxError> {
    RetryPolicy::exponential().max_attempts(1)
}

impl<E: Send + Sync + 'static> TicketHolder for Mailbox<E> {
    fn run_ticket(self: Arc<Self>) {
        let mut state = self.state.lock();
        state.tickets -= 1;
        if state.runners >= self.limit() {
            return;
        }
        state.runners += 1;
        drop(state);
        self.run(Stint::GivesWay);
    }

    fn send_tickets(self: Arc<Self>) {
        while self.send_ticket_if_needed(self.state.lock()) {}
    }

    fn cancel(&self, reason: CancelReason) {
        self.close(reason);
    }
}
