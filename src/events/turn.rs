//! Subscriptions that keep the order of each key; rules 8 to 10 of `mailbox`.

use super::envelope::{Envelope, Help};
use super::key::{EventKey, EventKeyName, NewKey, Panicked};
use super::mailbox::{Budget, Mailbox, Settings, State};
use super::queue::{Busy, KeyQueues};
use crate::keyed::lookup::KnownNames;
use crate::keyed::name::{KeyId, KeyName};
use crate::keyed::serial_queues::KeyQueue;
use crate::nesting;
use crate::observe::task_info::TaskId;
use crate::sync::{Arc, MutexGuard};
use crate::task::context::{self, GroupId};
use crate::task::waits::Needs;
use crate::task::wakers::Wakers;
use crate::time::deadline::Deadline;
use crate::unwind;

impl<E: Send + Sync + 'static> Mailbox<E> {
    /// Finds the key of an event, and counts a delivery of that key. Returns `None` if events have
    /// no keys or the subscription is closed. Calls user code and contains its panic.
    pub(super) fn keep_key(&self, envelope: &Envelope<E>) -> Option<EventKeyName> {
        let key_of = self.state.lock().queue.by_key()?.key_of.clone()?;
        self.as_member(|_| {
            let kept = unwind::catch(|| {
                let mut kept = None;
                let mut keep = |hash, key: &mut dyn NewKey| kept = self.keep_entry(hash, key);
                nesting::in_generation(envelope.generation(), || key_of(envelope.event(), &mut keep));
                kept
            });
            unwind::discard(key_of);
            kept.unwrap_or_else(|payload| self.keep_entry(0, &mut Panicked(Some(payload))))
        })
    }

    fn keep_entry(&self, hash: u64, key: &mut dyn NewKey) -> Option<EventKeyName> {
        let mut known = KnownNames::new(hash);
        let is_equal = |other: &EventKey| key.is_equal(other);
        let find = known.find(is_equal, || self.state.lock(), |state| Some(&state.queue.by_key()?.turns));
        let (mut state, found) = find;
        let is_open = state.closed.is_none();
        let kept = state.queue.by_key_mut().filter(|_| is_open).and_then(|queues| {
            let name = match found {
                Some(_) => known.take_equal(),
                None => key.take_key().map(|key| KeyName::new(hash, key)),
            }?;
            queues.keep(&name);
            Some(name)
        });
        drop(state);
        if !known.is_empty() {
            nesting::discard(known); // a key is dropped by user code
        }
        kept
    }

    /// Counts a delivery of a key as ended, and ends the turn of the key if the delivery had it.
    pub(super) fn release_key(&self, key: Option<EventKeyName>, delivery: TaskId) {
        let Some(name) = key else { return };
        let mut state = self.state.lock();
        let released = match state.queue.by_key_mut() {
            Some(queues) => queues.release(name, delivery),
            None => (false, Some((None, name))),
        };
        drop(state);
        let (had_turn, left) = released;
        if had_turn {
            self.inner.steps.notify(); // a waiter may need the next turn of the key
        }
        if left.is_some() {
            nesting::discard(left); // a key is dropped by user code
        }
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
            let group = delivery.key.as_ref().expect("a delivery that was taken has a key").group();
            self.inner.pool.executor.enter(group, |counters| {
                futures.into_iter().for_each(Wakers::wake);
                self.deliver(counters, delivery, handler);
            });
            state = self.state.lock();
        }
        self.stop_runner(state);
    }

    /// Makes a delivery of the event's key, if that key is ready. For a wait for the event that
    /// `item` stands for.
    pub(super) fn help_key(self: &Arc<Self>, item: usize) -> Help {
        let mut state = self.state.lock();
        let Some(queues) = state.queue.by_key() else { return Help::Later(Deadline::NEVER) };
        let Some((key, group)) = queues.key_of_event(item) else {
            // It is running, or has ended.
            let is_below = queues.running.iter().any(|key| context::is_handling(key.1, item));
            return if is_below { Help::Deadlock } else { Help::Later(Deadline::NEVER) };
        };
        match queues.busy(key) {
            None => {
                state.tickets.start_runner();
                self.run_turns(state, Budget::Deliveries(1), Some(key));
                Help::Helped
            }
            Some(Busy::Running(_)) if context::is_member_of(group) => Help::Deadlock,
            Some(Busy::Running(_)) => Help::Later(Deadline::NEVER),
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
            Some(queues) => queues.running.iter().any(|key| context::is_handling(key.1, item)),
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
        let Settings { capacity, capacity_per_key, .. } = self.settings;
        // A mailbox with room has no full key if a key may have as many.
        state.occupied() < capacity && (capacity_per_key >= capacity || self.full_key(state, key).is_none())
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
                if let Some((key, group)) = queues.key_of_event(item) {
                    self.report_key_needs(queues, (key, group), needs);
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
            return self.report_key_needs(queues, (name.id(), name.group()), needs);
        }
        self.report_work(state, needs);
        let groups = queues.running.iter().map(|(_, group)| *group);
        if state.delayed.is_empty() && !self.can_run(state) {
            needs.end_of_one(groups);
        } else {
            groups.for_each(|group| needs.possible_end_of(group));
        }
    }

    /// Reports what the next turn of a key needs.
    fn report_key_needs(&self, queues: &KeyQueues<E>, (key, group): (KeyId, GroupId), needs: &mut Needs) {
        match queues.busy(key) {
            None => needs.worker |= queues.is_ready(key),
            Some(Busy::Running(_)) => needs.end_of(group),
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
