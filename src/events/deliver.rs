//! How deliveries are made, by the rules 2, 3, 5 and 7 of `mailbox`.

use super::handler::{self, BoxError, Call, Handler};
use super::mailbox::{Budget, Mailbox, PendingDelivery, RetryProgress, State};
use super::post::{self, PostResult};
use super::progress::DeliveryOutcome;
use crate::error::CancelReason;
use crate::nesting;
use crate::observe::task_info::TaskOutcome;
use crate::observe::worker_counters::WorkerCounters;
use crate::retry::{AttemptError, ErrorClass, RetryDecision};
use crate::sync::{Arc, MutexGuard, Ordering};
use crate::task::context;
use crate::task::executor::TaskMeta;
use crate::task::job::TicketHolder;
use crate::task::wakers::Wakers;
use crate::unwind;

/// How many deliveries a runner makes before it yields to waiting jobs other than tickets of its
/// own subscription.
const QUANTUM: usize = 16;

/// The result of one call of a handler; an error comes with its class. `None` if the handler was
/// not called because the subscription is closed; see rule 5.
type CallResult = Option<Result<(), (BoxError, ErrorClass)>>;

/// A delivery that was taken, its handler, and the futures that wait for its room. The caller wakes
/// those without the lock.
type Taken<E> = (PendingDelivery<E>, Arc<Handler<E>>, Option<Wakers>);

impl<E: Send + Sync + 'static> Mailbox<E> {
    /// Makes deliveries as a runner that is already counted, until none can be taken or the budget
    /// is used up.
    pub(super) fn run(self: &Arc<Self>, budget: Budget) {
        self.as_member(|counters| {
            let mut state = self.state.lock();
            for taken in 0.. {
                let is_over = match budget {
                    Budget::Quantum => taken % QUANTUM == QUANTUM - 1 && self.inner.pool.queued() > state.tickets,
                    Budget::Deliveries(number) => taken >= number,
                };
                if is_over {
                    break;
                }
                let Some((delivery, handler, futures)) = self.take(&mut state) else { break };
                drop(state);
                futures.into_iter().for_each(Wakers::wake);
                self.deliver(counters, delivery, handler);
                state = self.state.lock();
            }
            self.stop_runner(state);
        });
    }

    /// Makes a delivery on this thread at once.
    pub(super) fn deliver_inline(self: &Arc<Self>, delivery: PendingDelivery<E>) -> PostResult {
        if context::depth() >= context::MAX_HELP_DEPTH {
            return self.refuse(delivery, Some(DeliveryOutcome::Refused));
        }
        let mut state = self.state.lock();
        let handler = state.handler.clone().filter(|_| state.accepts_events());
        let Some(handler) = handler else {
            let outcome = post::end_with_pool(state.closed);
            drop(state);
            return self.refuse(delivery, outcome);
        };
        let result = self.exhaust_if_once(&mut state);
        state.runners += 1;
        drop(state);
        self.as_member(|counters| {
            self.deliver(counters, delivery, handler);
            self.stop_runner(self.state.lock());
        });
        result
    }

    /// Takes the next delivery, if one can be taken.
    fn take(&self, state: &mut State<E>) -> Option<Taken<E>> {
        let handler = state.handler.clone().filter(|_| self.takeable(state) > 0)?;
        let delivery = state.waiting.pop_front()?;
        let futures = self.notify_publishers(state);
        Some((delivery, handler, futures))
    }

    /// Ends a runner.
    fn stop_runner(self: &Arc<Self>, mut state: MutexGuard<'_, State<E>>) {
        state.runners -= 1;
        if state.runners == 0 && state.closed.is_some() {
            self.stopped.notify_all();
        }
        self.send_ticket_if_needed(state);
        self.inner.steps.notify();
    }

    /// Calls the handler, then completes, delays or cancels the delivery. Called by members only.
    fn deliver(
        self: &Arc<Self>,
        counters: &WorkerCounters,
        mut delivery: PendingDelivery<E>,
        handler: Arc<Handler<E>>,
    ) {
        context::set_item(delivery.envelope.item());
        let executor = &self.inner.pool.executor;
        // Only the first attempt records how long the delivery waited for a worker.
        let queued_at = delivery.queued_at.filter(|_| delivery.retry.is_none());
        let meta = TaskMeta { origin: self.origin(&delivery), queued_at };
        let (started, result) = executor.run_attempt(counters, &meta, || self.call(&*handler, &delivery));
        // If the subscription was closed meanwhile, this is the last reference.
        unwind::discard(handler);
        let (class, outcome) = match &result {
            Ok(None) => {
                executor.finish_attempt(counters, &meta, started, None, None);
                let reason = self.state.lock().closed.expect("a closed subscription stays closed");
                return self.cancel_delivery(counters, delivery, reason);
            }
            Ok(Some(Ok(()))) => (None, TaskOutcome::Succeeded),
            Ok(Some(Err((_, class)))) => (Some(*class), TaskOutcome::Failed),
            Err(_) => (Some(ErrorClass::Transient), TaskOutcome::Panicked),
        };
        let next = class.map(|class| self.next_step(&mut delivery, class));
        let ends = !matches!(next, Some(RetryDecision::After(_)));
        executor.finish_attempt(counters, &meta, started, result.as_ref().err(), ends.then_some(outcome));
        let error = match result {
            Ok(Some(Err((error, _)))) => AttemptError::Failed(error),
            Err(panic) => AttemptError::Panicked(panic),
            Ok(_) => {
                if let Some(policy) = &self.settings.policy {
                    policy.note_success();
                }
                return self.complete(counters, delivery, DeliveryOutcome::Handled);
            }
        };
        let retry = delivery.retry.as_mut().expect("a failed delivery has counted its attempts");
        unwind::discard(retry.errors.add(error));
        match next {
            Some(RetryDecision::After(delay)) => self.delay(counters, delivery, delay),
            Some(RetryDecision::GiveUp(reason)) => {
                let retry = delivery.retry.take().expect("a failed delivery has counted its attempts");
                let error = retry.give_up(reason).expect("an attempt has failed");
                self.complete_failed(counters, delivery, error);
            }
            None => unreachable!("a delivery without an error is complete"),
        }
    }

    /// Calls the handler, unless the subscription is closed; keeps rule 5.
    fn call(&self, handler: &Handler<E>, delivery: &PendingDelivery<E>) -> CallResult {
        // ORDERING: Acquire pairs with the Release of `close`.
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        let envelope = &delivery.envelope;
        let policy = self.settings.policy.as_ref();
        let made = delivery.retry.as_ref().map_or(0, |retry| retry.attempts.made());
        let call = Call { made, policy, published_at: delivery.published_at, pool: &self.inner.pool };
        let result = nesting::in_generation(envelope.generation(), || handler(envelope.event(), &call));
        Some(result.map_err(|error| {
            let class = policy.map_or(ErrorClass::Transient, |policy| policy.class_of(&error));
            (error, class)
        }))
    }

    /// Counts a failed attempt and decides whether there is another.
    fn next_step(&self, delivery: &mut PendingDelivery<E>, class: ErrorClass) -> RetryDecision {
        let now = self.inner.pool.timers.clock().now();
        let begun = delivery.published_at.unwrap_or(now);
        let make = || Box::new(RetryProgress::new(self.settings.policy.clone().unwrap_or_else(handler::once), begun));
        let retry = delivery.retry.get_or_insert_with(make);
        retry.attempts.count();
        retry.attempts.failed(class, now)
    }
}

impl<E: Send + Sync + 'static> TicketHolder for Mailbox<E> {
    fn run_ticket(self: Arc<Self>) {
        let mut state = self.state.lock();
        state.tickets -= 1;
        // A ticket may come late. A runner without deliveries would be seen by `unsubscribe`.
        if !self.can_run(&state) {
            return;
        }
        state.runners += 1;
        drop(state);
        self.run(Budget::Quantum);
    }

    fn send_tickets(self: Arc<Self>) {
        while self.send_ticket_if_needed(self.state.lock()) {}
    }

    fn cancel(&self, reason: CancelReason) {
        self.close(reason);
    }
}
