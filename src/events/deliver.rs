//! How deliveries are made, by the rules 2, 3, 5 and 7 of `mailbox`.

use std::any::type_name;
use std::time::Duration;

use super::delivery::{PendingDelivery, RetryProgress};
use super::handler::{self, BoxError, Call, Handler};
use super::mailbox::{Budget, Lengths, Mailbox, Mode, State};
use super::post::{self, PostResult};
use super::progress::DeliveryOutcome;
use crate::error::CancelReason;
use crate::keyed::name::KeyId;
use crate::nesting;
use crate::observe::task_info::TaskOutcome;
use crate::observe::worker_counters::{Started, WorkerCounters};
use crate::retry::{AttemptError, ErrorClass, RetryDecision};
use crate::snapshot::{Holder, SubscriptionSnapshot};
use crate::sync::{Arc, MutexGuard, Ordering};
use crate::task::context;
use crate::task::executor::TaskMeta;
use crate::task::job::{Leftover, TicketHolder, leftover};
use crate::task::tickets::QUANTUM;
use crate::task::wakers::Wakers;
use crate::unwind;

/// The result of one call of a handler; an error comes with its class. `None` if the handler was
/// not called because the subscription is closed; see rule 5.
type CallResult = Option<Result<(), (BoxError, ErrorClass)>>;

/// The result of an attempt to deliver an event: an error comes with its class.
pub(super) type EventResult = Result<(), (AttemptError<BoxError>, ErrorClass)>;

/// A delivery that was taken, its handler, and the futures that wait for its room. The caller wakes
/// those without the lock.
pub(super) type Taken<E> = (PendingDelivery<E>, Arc<Handler<E>>, Option<Wakers>);

impl<E: Send + Sync + 'static> Mailbox<E> {
    /// Makes deliveries as a runner that is already counted, until none can be taken or the budget
    /// is used up.
    pub(super) fn run(self: &Arc<Self>, budget: Budget) {
        if self.settings.mode == Mode::OrderedBy {
            return self.run_turns(self.state.lock(), budget, None);
        }
        self.as_member(|counters| {
            if self.settings.batch.is_some() {
                return self.run_batches(counters, budget);
            }
            let mut state = self.state.lock();
            for taken in 0.. {
                if self.is_budget_spent(budget, taken, &state) {
                    break;
                }
                let Some((delivery, handler, futures)) = self.take(&mut state, None) else { break };
                drop(state);
                futures.into_iter().for_each(Wakers::wake);
                self.deliver(counters, delivery, handler);
                state = self.state.lock();
            }
            self.stop_runner(state);
        });
    }

    /// Returns `true` if a runner that has taken `taken` deliveries has used up its budget.
    pub(super) fn is_budget_spent(&self, budget: Budget, taken: usize, state: &State<E>) -> bool {
        match budget {
            // Once in a quantum, since looking at the queue costs about as much as to take a delivery.
            Budget::Quantum => {
                taken.is_multiple_of(QUANTUM) && state.tickets.is_quantum_over(taken, || self.inner.pool.queued())
            }
            Budget::Deliveries(number) => taken >= number,
        }
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
        state.tickets.start_runner();
        drop(state);
        self.as_member(|counters| {
            self.deliver(counters, delivery, handler);
            self.stop_runner(self.state.lock());
        });
        result
    }

    /// Takes the next delivery, or that of a key, if one can be taken.
    pub(super) fn take(&self, state: &mut State<E>, key: Option<KeyId>) -> Option<Taken<E>> {
        let handler = state.handler.clone().filter(|_| self.takeable(state) > 0)?;
        let delivery = state.queue.take(key)?;
        let futures = self.notify_publishers(state);
        Some((delivery, handler, futures))
    }

    /// Ends a runner.
    pub(super) fn stop_runner(self: &Arc<Self>, mut state: MutexGuard<'_, State<E>>) {
        state.tickets.stop_runner();
        if state.tickets.runners() == 0 && state.closed.is_some() {
            self.stopped.notify_all();
        }
        self.send_ticket_if_needed(state);
        self.inner.steps.notify();
    }

    /// Calls the handler, then completes, delays or cancels the delivery. Called by members only.
    pub(super) fn deliver(
        self: &Arc<Self>,
        counters: &WorkerCounters,
        delivery: PendingDelivery<E>,
        handler: Arc<Handler<E>>,
    ) {
        context::set_item(delivery.envelope.item());
        let executor = &self.inner.pool.executor;
        let meta = self.meta(&delivery);
        let (started, result) = executor.run_attempt(counters, &meta, || self.call(&*handler, &delivery));
        // If the subscription was closed meanwhile, this is the last reference.
        unwind::discard(handler);
        let result = match result {
            Ok(None) => {
                executor.finish_attempt_only(counters, &meta, started, None, None);
                let reason = self.state.lock().closed.expect("a closed subscription stays closed");
                self.cancel_delivery(counters, delivery, reason);
                return;
            }
            Ok(Some(result)) => result.map_err(|(error, class)| (AttemptError::Failed(error), class)),
            Err(panic) => {
                let is_of_key = delivery.has_key_panicked();
                let class = if is_of_key { ErrorClass::Permanent } else { ErrorClass::Transient };
                Err((AttemptError::Panicked(panic), class))
            }
        };
        if let Some((delivery, delay)) = self.finish_delivery(counters, delivery, started, result) {
            self.delay(counters, delivery, delay);
        }
    }

    /// Counts the end of an attempt. Completes the delivery, or returns it with the delay before
    /// its next attempt. Called by members only.
    pub(super) fn finish_delivery(
        &self,
        counters: &WorkerCounters,
        mut delivery: PendingDelivery<E>,
        started: Started,
        result: EventResult,
    ) -> Option<(PendingDelivery<E>, Duration)> {
        let meta = self.meta(&delivery);
        let next = result.as_ref().err().map(|(_, class)| self.next_step(&mut delivery, *class));
        let (panic, outcome) = match &result {
            Ok(()) => (None, TaskOutcome::Succeeded),
            Err((AttemptError::Panicked(panic), _)) => (Some(panic), TaskOutcome::Panicked),
            Err(_) => (None, TaskOutcome::Failed),
        };
        let ends = !matches!(next, Some(RetryDecision::After(_)));
        let executor = &self.inner.pool.executor;
        executor.finish_attempt_only(counters, &meta, started, panic, ends.then_some(outcome));
        if let (Err((error, _)), Some(next)) = (result, next) {
            return self.after_failure(counters, delivery, error, next);
        }
        if let Some(policy) = &self.settings.policy {
            policy.note_success();
        }
        executor.end_context(delivery.id, outcome);
        self.complete(counters, delivery, DeliveryOutcome::Handled);
        None
    }

    /// Records a failed attempt. Returns the delivery with the delay before its next attempt, or
    /// completes it. Called by members only.
    fn after_failure(
        &self,
        counters: &WorkerCounters,
        mut delivery: PendingDelivery<E>,
        error: AttemptError<BoxError>,
        next: RetryDecision,
    ) -> Option<(PendingDelivery<E>, Duration)> {
        let is_panic = matches!(error, AttemptError::Panicked(_));
        let outcome = if is_panic { TaskOutcome::Panicked } else { TaskOutcome::Failed };
        let retry = delivery.retry.as_mut().expect("a failed delivery has counted its attempts");
        unwind::discard(retry.errors.add(error));
        match next {
            RetryDecision::After(delay) => Some((delivery, delay)),
            RetryDecision::GiveUp(reason) => {
                let retry = delivery.retry.take().expect("a failed delivery has counted its attempts");
                let error = retry.give_up(reason).expect("an attempt has failed");
                self.complete_failed(counters, delivery, error, outcome);
                None
            }
        }
    }

    /// Returns what an attempt of a delivery is. Only the first records how long the delivery
    /// waited for a worker.
    pub(super) fn meta(&self, delivery: &PendingDelivery<E>) -> TaskMeta<'_> {
        let queued_at = delivery.queued_at.filter(|_| delivery.retry.is_none());
        TaskMeta { origin: self.origin(delivery), queued_at }
    }

    /// Returns the class of an error. Calls user code.
    pub(super) fn class_of(&self, error: &BoxError) -> ErrorClass {
        self.settings.policy.as_ref().map_or(ErrorClass::Transient, |policy| policy.class_of(error))
    }

    /// Calls the handler, unless the subscription is closed; keeps rule 5.
    fn call(&self, handler: &Handler<E>, delivery: &PendingDelivery<E>) -> CallResult {
        // ORDERING: Acquire pairs with the Release of `close`.
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        delivery.resume_key_panic();
        let envelope = &delivery.envelope;
        let policy = self.settings.policy.as_ref();
        let made = delivery.retry.as_ref().map_or(0, |retry| retry.attempts.made());
        self.counters.count_retries(usize::from(made > 0));
        let call = Call { made, policy, published_at: delivery.published_at, pool: &self.inner.pool };
        let result = nesting::in_generation(envelope.generation(), || handler(envelope.event(), &call));
        Some(result.map_err(|error| {
            let class = self.class_of(&error);
            (error, class)
        }))
    }

    /// Counts a failed attempt and decides whether there is another.
    pub(super) fn next_step(&self, delivery: &mut PendingDelivery<E>, class: ErrorClass) -> RetryDecision {
        self.counters.count_failed_attempt();
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
        state.tickets.take();
        // A ticket may come late. A runner without deliveries would be seen by `unsubscribe`.
        if !self.can_run(&state) {
            return;
        }
        state.tickets.start_runner();
        drop(state);
        self.run(Budget::Quantum);
    }

    fn send_tickets(self: Arc<Self>) {
        while self.send_ticket_if_needed(self.state.lock()) {}
    }

    fn cancel(&self, reason: CancelReason) {
        self.close(reason);
    }

    fn snapshot(self: Arc<Self>) -> (Holder, Leftover) {
        let state = self.state.lock();
        let Lengths { waiting, delayed, running } = state.lengths();
        let copy = SubscriptionSnapshot {
            name: Arc::clone(&self.settings.name),
            topic: self.settings.topic.clone(),
            event: type_name::<E>(),
            waiting,
            delayed,
            capacity: self.settings.capacity,
            limit: Some(self.limit()).filter(|limit| *limit < usize::MAX),
            running,
            publishers: state.room_waiters.count() + state.watches.len() + state.futures.len(),
            is_closed: state.closed.is_some(),
        };
        drop(state);
        (Holder::Subscription(copy), leftover(self))
    }
}
