//! Subscriptions that keep the order of each key; rules 8 to 10 of `mailbox`.

use super::envelope::{Envelope, Help};
use super::key::{EventKey, EventKeyName};
use super::mailbox::{Budget, Mailbox, State};
use super::queue::{Busy, KeyQueues};
use crate::keyed::lookup::Lookup;
use crate::keyed::name::KeyId;
use crate::keyed::serial_queues::KeyQueue;
use crate::nesting;
use crate::sync::{Arc, MutexGuard};
use crate::task::context;
use crate::task::waits::Needs;
use crate::task::wakers::Wakers;
use crate::time::deadline::Deadline;
use crate::unwind;

/// What has become of a delivery whose handler was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a key whose turn is not ended never runs again"]
pub(super) enum Delivered {
    /// It has an outcome.
    Ended,
    /// It waits for its next attempt, and holds its key.
    Delayed,
}

impl<E: Send + Sync + 'static> Mailbox<E> {
    /// Finds the key of an event, and counts a delivery of that key. Returns `None` if events have
    /// no keys or the subscription is closed. Calls user code and contains its panic.
    pub(super) fn keep_key(&self, envelope: &Envelope<E>) -> Option<EventKeyName> {
        let key_of = self.state.lock().queue.by_key()?.key_of.clone()?;
        self.as_member(|_| {
            let kept = unwind::catch(|| {
                let call = || nesting::key_code(|| key_of(envelope.event()));
                let (hash, key) = nesting::in_generation(envelope.generation(), call);
                self.keep_entry(Lookup::with_hash(hash, key))
            });
            unwind::discard(key_of);
            kept.unwrap_or_else(|payload| self.keep_entry(Lookup::with_hash(0, EventKey::panicked(payload))))
        })
    }

    fn keep_entry(&self, mut lookup: Lookup<EventKey>) -> Option<EventKeyName> {
        let find = lookup.find(|| self.state.lock(), |state| Some(&state.queue.by_key()?.turns));
        let (mut state, found) = find;
        let is_open = state.closed.is_none();
        let queues = state.queue.by_key_mut().filter(|_| is_open);
        let kept = queues.map(|queues| queues.keep(found, &lookup.name));
        drop(state);
        nesting::discard(lookup); // a key is dropped by user code
        kept
    }

    /// Counts a delivery of a key as ended.
    pub(super) fn release_key(&self, key: Option<EventKeyName>) {
        let Some(name) = key else { return };
        let removed = self.state.lock().queue.by_key_mut().and_then(|queues| queues.release(name.id()));
        nesting::discard((removed, name));
    }

    /// Takes turns as a runner that is already counted; the first of that key, if there is one.
    pub(super) fn run_turns<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State<E>>,
        budget: Budget,
        mut key: Option<KeyId>,
    ) {
        for taken in 0.. {
            if self.is_budget_spent(budget, taken, &state) {
                break;
            }
            let Some((delivery, handler, futures)) = self.take(&mut state, key.take()) else { break };
            drop(state);
            let name = delivery.key.clone().expect("a delivery that was taken has a key");
            self.inner.pool.executor.enter(name.group(), |counters| {
                futures.into_iter().for_each(Wakers::wake);
                if self.deliver(counters, delivery, handler) == Delivered::Ended {
                    self.end_turn(&name);
                }
                nesting::discard(name);
            });
            state = self.state.lock();
        }
        self.stop_runner(state);
    }

    fn end_turn(&self, name: &EventKeyName) {
        let removed = self.state.lock().queue.by_key_mut().and_then(|queues| queues.end_turn(name));
        nesting::discard(removed);
        self.inner.steps.notify(); // a waiter may need the next turn of the key
    }

    /// Makes a delivery of the event's key, if that key is ready. For a wait for the event that
    /// `item` stands for.
    pub(super) fn help_key(self: &Arc<Self>, item: usize) -> Help {
        let mut state = self.state.lock();
        let Some(queues) = state.queue.by_key() else { return Help::Later(Deadline::NEVER) };
        let Some(name) = queues.key_of_event(item) else {
            // It is running, or has ended.
            let is_below = queues.running.iter().any(|name| context::is_handling(name.group(), item));
            return if is_below { Help::Deadlock } else { Help::Later(Deadline::NEVER) };
        };
        let (key, group) = (name.id(), name.group());
        match queues.busy(key) {
            None => {
                state.tickets.start_runner();
                self.run_turns(state, Budget::Deliveries(1), Some(key));
                Help::Helped
            }
            Some(Busy::Running) if context::is_member_of(group) => Help::Deadlock,
            Some(Busy::Running) => Help::Later(Deadline::NEVER),
            Some(Busy::Delayed(_)) => {
                drop(state);
                match self.requeue_due(self.inner.pool.timers.clock().now()) {
                    Ok(()) => Help::Helped,
                    Err(due) => Help::Later(Deadline::NEVER.earlier(due.and_then(Deadline::instant))),
                }
            }
        }
    }

    /// Returns `true` if a delivery of the event that `item` stands for is on this stack.
    pub(super) fn is_handling(&self, item: usize) -> bool {
        match self.state.lock().queue.by_key() {
            None => context::is_handling(self.group, item),
            Some(queues) => queues.running.iter().any(|name| context::is_handling(name.group(), item)),
        }
    }

    /// Returns the key of the delivery, if that key has no room for one more.
    pub(super) fn full_key(&self, state: &State<E>, key: Option<&EventKeyName>) -> Option<KeyId> {
        let key = key?.id();
        let is_full = state.queue.by_key()?.occupied_by(key) >= self.settings.capacity_per_key;
        is_full.then_some(key)
    }

    /// Returns `true` if the mailbox has room for a delivery with that key.
    pub(super) fn has_room(&self, state: &State<E>, key: Option<&EventKeyName>) -> bool {
        state.occupied() < self.settings.capacity && self.full_key(state, key).is_none()
    }

    /// Makes one delivery as one more runner: of that key, or of the next. Returns `false` if none
    /// can be made.
    pub(super) fn run_one<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State<E>>, key: Option<KeyId>) -> bool {
        let is_ready = |key| state.queue.by_key().is_some_and(|queues| queues.is_ready(key));
        if !self.can_run(&state) || !key.is_none_or(is_ready) {
            return false;
        }
        state.tickets.start_runner();
        if let Some(key) = key {
            self.run_turns(state, Budget::Deliveries(1), Some(key));
        } else {
            drop(state);
            self.run(Budget::Deliveries(1));
        }
        true
    }

    /// Makes deliveries for a publisher that waits for room, if one more runner can.
    pub(super) fn advance_for_room(self: &Arc<Self>, key: Option<&EventKeyName>) {
        let full_key = self.full_key(&self.state.lock(), key);
        if full_key.is_none() || !self.run_one(self.state.lock(), full_key) {
            self.advance();
        }
    }

    /// Reports what the delivery of the event that `item` stands for needs.
    pub(super) fn report_event_needs(&self, item: usize, needs: &mut Needs) {
        let state = self.state.lock();
        match state.queue.by_key() {
            None => self.report_runner_needs(&state, needs),
            // Its own id stands for a delivery that is running.
            Some(queues) => {
                if let Some(name) = queues.key_of_event(item) {
                    self.report_key_needs(queues, name, needs);
                } else if queues.running.is_empty() {
                    needs.end_of_any(self.group, state.ending);
                }
            }
        }
    }

    /// Reports what room for a delivery with that key needs.
    pub(super) fn report_room_needs(&self, state: &State<E>, key: Option<&EventKeyName>, needs: &mut Needs) {
        let Some(queues) = state.queue.by_key() else { return self.report_runner_needs(state, needs) };
        if let Some(name) = key.filter(|_| self.full_key(state, key).is_some()) {
            return self.report_key_needs(queues, name, needs);
        }
        self.report_work(state, needs);
        let groups = queues.running.iter().map(|name| name.group());
        if state.delayed.is_empty() && !self.can_run(state) {
            needs.end_of_one(groups);
        } else {
            groups.for_each(|group| needs.possible_end_of(group));
        }
    }

    /// Reports what the next turn of a key needs.
    fn report_key_needs(&self, queues: &KeyQueues<E>, name: &EventKeyName, needs: &mut Needs) {
        match queues.busy(name.id()) {
            None => needs.worker |= queues.is_ready(name.id()),
            Some(Busy::Running) => needs.end_of(name.group()),
            Some(Busy::Delayed(due)) => self.report_due(due, needs),
        }
    }
}

impl<E> KeyQueues<E> {
    fn busy(&self, key: KeyId) -> Option<Busy> {
        self.turns.get(key).and_then(|queue| queue.state.busy)
    }

    fn is_ready(&self, key: KeyId) -> bool {
        self.turns.get(key).is_some_and(KeyQueue::is_ready)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use crate::events::EventBus;
    use crate::pool::worker_pool::WorkerPool;
    use crate::sync::{Mutex, thread};
    use crate::task::waits;

    /// Fault 535.
    #[test]
    fn a_waiting_handler_takes_the_turn_of_a_key_that_no_worker_can_take() {
        let pool = WorkerPool::builder().workers(2).build().expect("two threads");
        let bus = EventBus::new(&pool);
        let ((enter, entered), (end, ended)) = (channel(), channel::<()>());
        let (done, is_done) = channel::<()>();
        let (inner, locks) = (bus.clone(), (Mutex::new(ended), Mutex::new(is_done), Mutex::new(Some(done))));
        let handler = move |event: &(char, u32)| match event {
            ('a', 0) => {
                enter.send(()).expect("the test waits");
                let _ = locks.0.lock().recv();
            }
            // The worker of the first event goes on with this one, which needs the waiter.
            ('b', _) => _ = locks.1.lock().recv(),
            ('c', _) => {
                let second = inner.publish(('a', 1_u32));
                inner.publish(('b', 0_u32));
                second.wait().expect("another key is no deadlock");
                drop(locks.2.lock().take());
            }
            _ => {}
        };
        let _guard = bus.subscription::<(char, u32)>().ordered_by(|event| event.0).handle(handler);
        bus.publish(('a', 0_u32));
        entered.recv().expect("the handler starts");
        bus.publish(('c', 0_u32));
        while waits::sleeping_workers(pool.inner().id()) == 0 {
            thread::yield_now();
        }
        drop(end);
        bus.wait_idle();
    }
}
