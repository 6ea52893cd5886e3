//! Subscriptions whose handler gets batches.
//!
//! Such a subscription is ordered: it makes one batch at a time. The rules are those of `mailbox`,
//! and these:
//!
//! 1. A batch is *due* when as many events wait as it may have, when the linger has passed, when
//!    the mailbox is full or exhausted, or when the oldest event waits after a failed attempt.
//!    Before that, no delivery can be taken.
//! 2. The linger counts from the moment at which the oldest event became the oldest of a new batch:
//!    when it was put into an empty mailbox, or when the batch before it was taken. Meanwhile there
//!    is a timer, which holds no worker. Without a linger, or if the timer is refused, the batch is
//!    due at once.
//! 3. Closing the pool cancels the timer, which makes the batch due. So the drain delivers it.
//! 4. The deliveries of a batch that make another attempt stay together: the first carries the
//!    others, in order, while it is delayed and when it waits again. They are a batch of their own.
//!    It counts as one delivery in the bound of the mailbox.
//!
//! Races:
//! - *Put and timer*: both are under the lock of the mailbox. The timer of a batch that was taken
//!   meanwhile finds the next one, or none, and checks whether that is due.
//! - *Take and take*: one runner is allowed, and the batch is taken under the lock.

use std::mem;
use std::time::Duration;

use super::batch_handler::{BatchError, BatchHandler, BatchResults};
use super::deliver::EventResult;
use super::delivery::PendingDelivery;
use super::handler::BoxError;
use super::mailbox::{Budget, Linger, Mailbox, State};
use crate::error::CancelReason;
use crate::error::panic::TaskPanic;
use crate::nesting;
use crate::observe::worker_counters::{Started, WorkerCounters};
use crate::priority::Priority;
use crate::retry::{AttemptError, ErrorClass};
use crate::snapshot::{TimerKind, TimerSnapshot};
use crate::sync::{Arc, AtomicBool, Ordering, Weak};
use crate::task::context;
use crate::task::executor::Executor;
use crate::task::job::Task;
use crate::task::wakers::Wakers;
use crate::time::deadline::Deadline;
use crate::timer::end_timer::EndTimer;
use crate::unwind;

/// A batch that was taken, its handler, and the futures that wait for its room.
type TakenBatch<E> = (Vec<PendingDelivery<E>>, Arc<BatchHandler<E>>, Vec<Wakers>);

impl<E: Send + Sync + 'static> Mailbox<E> {
    /// Returns how many deliveries can be taken: those of one batch that is due.
    pub(super) fn takeable_batch(&self, state: &State<E>) -> usize {
        let Some(batch) = self.settings.batch else { return 0 };
        let is_retried = state.queue.first().is_some_and(|delivery| delivery.retry.is_some());
        let is_full = state.occupied() >= self.settings.capacity || state.exhausted;
        let now = || Deadline::at(self.inner.pool.timers.clock().now());
        let is_over = || state.linger.as_ref().is_none_or(|linger| linger.due <= now());
        let is_due = is_retried || is_full || state.queue.len() >= batch.max || is_over();
        if is_due { state.queue.len().min(batch.max) } else { 0 }
    }

    /// Makes batches as a runner that is already counted. Called by members only.
    pub(super) fn run_batches(self: &Arc<Self>, counters: &WorkerCounters, budget: Budget) {
        let (mut state, mut taken) = (self.state.lock(), 0);
        loop {
            let is_over = match budget {
                Budget::Quantum => state.tickets.is_quantum_over(taken, || self.inner.pool.queued()),
                Budget::Deliveries(number) => taken >= number,
            };
            if is_over {
                break;
            }
            let Some((batch, handler, futures)) = self.take_batch(&mut state) else { break };
            drop(state);
            taken += batch.len();
            futures.into_iter().for_each(Wakers::wake);
            self.deliver_batch(counters, batch, handler);
            state = self.state.lock();
        }
        self.stop_runner(state);
    }

    /// Takes a batch that is due.
    fn take_batch(self: &Arc<Self>, state: &mut State<E>) -> Option<TakenBatch<E>> {
        let batch = self.settings.batch?;
        let handler = state.batch_handler.clone().filter(|_| self.takeable(state) > 0)?;
        let mut deliveries = Vec::with_capacity(state.queue.len().min(batch.max));
        let mut futures = Vec::new();
        while deliveries.len() < batch.max {
            let Some(mut delivery) = state.queue.take(None) else { break };
            futures.extend(self.notify_publishers(state));
            let retried = delivery.retry.as_mut().map(|retry| mem::take(&mut retry.rest));
            deliveries.push(delivery);
            if let Some(rest) = retried {
                deliveries.extend(rest);
                break;
            }
        }
        // The linger of the next batch goes on while a batch is retried.
        if deliveries.iter().all(|delivery| delivery.retry.is_none()) {
            self.stop_linger(state);
            self.start_linger(state, batch.linger);
        }
        Some((deliveries, handler, futures))
    }

    /// Starts the linger of a new batch, by rule 2.
    pub(super) fn start_linger(self: &Arc<Self>, state: &mut State<E>, linger: Duration) {
        if state.linger.is_some() || state.queue.len() == 0 || linger.is_zero() {
            return;
        }
        let timers = &self.inner.pool.timers;
        let due = Deadline::after_instant(timers.clock().now(), linger);
        let (mailbox, class) = (Arc::downgrade(self), self.settings.class);
        let (name, is_over) = (Arc::clone(&self.settings.name), AtomicBool::new(false));
        let timer = Arc::new(LingerTimer { mailbox, class, name, is_over });
        let key = timers.insert(due, Arc::clone(&timer) as _);
        state.linger = key.ok().map(|key| Linger { due, timer, key });
    }

    /// Ends the linger of a batch that is taken or cancelled.
    pub(super) fn stop_linger(&self, state: &mut State<E>) {
        if let Some(Linger { timer, key, .. }) = state.linger.take() {
            timer.end();
            drop(self.inner.pool.timers.remove(key)); // only a weak reference to this mailbox
        }
    }

    /// Makes a batch that has lingered, on a worker that got its timer.
    fn end_linger(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if self.can_run(&state) {
            state.tickets.start_runner();
            drop(state);
            self.run(Budget::Quantum);
        }
    }

    /// Makes a batch due, because the pool is closed.
    fn cancel_linger(self: &Arc<Self>) {
        let mut state = self.state.lock();
        self.stop_linger(&mut state);
        self.send_ticket_if_needed(state);
        self.inner.steps.notify();
    }

    /// Calls the handler with a batch, then completes, delays or cancels its deliveries. Called by
    /// members only.
    fn deliver_batch(
        self: &Arc<Self>,
        counters: &WorkerCounters,
        batch: Vec<PendingDelivery<E>>,
        handler: Arc<BatchHandler<E>>,
    ) {
        context::set_item(batch[0].item());
        let executor = &self.inner.pool.executor;
        let start = |delivery| executor.run_attempt(counters, &self.meta(delivery), || ()).0;
        let mut started: Vec<Started> = batch.iter().skip(1).map(start).collect();
        let (first, called) =
            executor.run_attempt(counters, &self.meta(&batch[0]), || self.call_batch(&*handler, &batch));
        started.insert(0, first);
        unwind::discard(handler); // if the subscription was closed meanwhile, the last reference
        let results = match called {
            Ok(Some(results)) => results,
            Ok(None) => return self.cancel_batch(counters, batch, started),
            Err(panic) => all_panicked(panic, batch.len()),
        };
        let (mut retried, mut longest) = (Vec::new(), Duration::ZERO);
        for ((delivery, started), result) in batch.into_iter().zip(started).zip(results) {
            if let Some((delivery, delay)) = self.finish_delivery(counters, delivery, started, result) {
                longest = longest.max(delay);
                retried.push(delivery);
            }
        }
        let mut retried = retried.into_iter();
        if let Some(mut first) = retried.next() {
            first.retry.as_mut().expect("a failed delivery has counted its attempts").rest = retried.collect();
            self.delay(counters, first, longest);
        }
    }

    /// Calls the handler and classifies its errors, unless the subscription is closed.
    fn call_batch(&self, handler: &BatchHandler<E>, batch: &[PendingDelivery<E>]) -> Option<Vec<EventResult>> {
        // ORDERING: Acquire pairs with the Release of `close`.
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        self.counters.count_retries(batch.iter().filter(|delivery| delivery.retry.is_some()).count());
        let generation = batch.iter().map(|delivery| delivery.envelope.generation()).max()?;
        let events: Vec<&E> = batch.iter().map(|delivery| delivery.envelope.event()).collect();
        let events_len = events.len();
        let results = nesting::in_generation(generation, || handler(&events));
        let all_failed = |error: BoxError| {
            let (class, error) = (self.class_of(&error), BatchError::new(error, events_len));
            events.iter().map(|_| Err((AttemptError::Failed(Box::new(error.clone()) as _), class))).collect()
        };
        Some(match results {
            BatchResults::All(Ok(())) => events.iter().map(|_| Ok(())).collect(),
            BatchResults::All(Err(error)) => all_failed(error),
            BatchResults::Each(results) if results.len() != events_len => {
                all_failed(format!("the handler returned {} results", results.len()).into())
            }
            BatchResults::Each(results) => {
                let classified = |error| {
                    let class = self.class_of(&error);
                    (AttemptError::Failed(error), class)
                };
                results.into_iter().map(|result| result.map_err(classified)).collect()
            }
        })
    }

    /// Cancels a batch whose handler was not called because the subscription is closed.
    fn cancel_batch(&self, counters: &WorkerCounters, batch: Vec<PendingDelivery<E>>, started: Vec<Started>) {
        let reason = self.state.lock().closed.expect("a closed subscription stays closed");
        for (delivery, started) in batch.into_iter().zip(started) {
            self.inner.pool.executor.finish_attempt_only(counters, &self.meta(&delivery), started, None, None);
            self.cancel_delivery(counters, delivery, reason);
        }
    }
}

/// Returns the results of a batch whose handler has panicked. The first event gets the panic, and
/// the others its message.
fn all_panicked(panic: TaskPanic, events: usize) -> Vec<EventResult> {
    let text = format!("the handler panicked: {}", panic.message().unwrap_or("no message"));
    let error = BatchError::new(text.into(), events);
    let others = (1..events).map(|_| AttemptError::Failed(Box::new(error.clone()) as _));
    let errors = [AttemptError::Panicked(panic)].into_iter().chain(others);
    errors.map(|error| Err((error, ErrorClass::Transient))).collect()
}

/// The timer of a batch that lingers.
struct LingerTimer<E> {
    mailbox: Weak<Mailbox<E>>,
    /// The class of the subscription.
    class: Priority,
    /// The name of the subscription, for snapshots.
    name: Arc<str>,
    /// Whether the batch was taken. Changed under the lock of the mailbox; a hint elsewhere.
    is_over: AtomicBool,
}

impl<E: Send + Sync + 'static> EndTimer for LingerTimer<E> {
    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl<E: Send + Sync + 'static> Task for LingerTimer<E> {
    fn run(&self, _: &Executor) {
        if let Some(mailbox) = self.mailbox.upgrade() {
            mailbox.end_linger();
        }
    }

    /// The pool is closed.
    fn cancel(&self, _: CancelReason, _: &Executor) -> bool {
        if let Some(mailbox) = self.mailbox.upgrade() {
            mailbox.cancel_linger();
        }
        false
    }

    fn is_finished(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn describe_timer(&self) -> TimerSnapshot {
        TimerSnapshot::of_kind(TimerKind::Batch).label(Some(&self.name))
    }

    fn class(&self) -> Priority {
        self.class
    }
}
