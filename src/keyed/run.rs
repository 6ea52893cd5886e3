//! How the tasks of an executor are run and cancelled, by the rules 2 to 5, 10 and 11 of `state`.

use std::mem;

use super::name::KeyId;
use super::pending::{PendingTask, Ran};
use super::serial_queues::TakenEntry;
use super::state::{Busy, KeyPhase, KeyedInner, Notifications, State, Turn};
use crate::error::CancelReason;
use crate::nesting;
use crate::observe::worker_counters::WorkerCounters;
use crate::snapshot::{Holder, KeySnapshot, KeyedSnapshot, Page};
use crate::sync::{Arc, MutexGuard, Weak};
use crate::task::context::{self, AwaitedId, GroupId};
use crate::task::job::{self, Leftover, TicketHolder};
use crate::task::waits;
use crate::task::wakers::Wakers;

impl<K: Send + Sync + 'static> KeyedInner<K> {
    /// Takes turns as a runner that is already counted, until no key is ready or the quantum is
    /// used up.
    fn run(self: &Arc<Self>) {
        let mut next = self.next_of_runner(&mut self.state.lock(), 0);
        for taken in 1.. {
            let Some(turn) = next else { return };
            next = self.run_turn(turn, |state| self.next_of_runner(state, taken));
        }
    }

    /// Takes the next turn of a runner that has taken `taken` turns, or ends the runner.
    fn next_of_runner(&self, state: &mut State<K>, taken: usize) -> Option<Turn<K>> {
        let is_over = state.tickets.is_quantum_over(taken, || self.pool.queued());
        let next = if is_over { None } else { state.next_turn() };
        match &next {
            Some(turn) => self.note_started(state, turn),
            None => state.tickets.stop_runner(),
        }
        next
    }

    /// Runs the task of a turn on this thread, ends the turn, and returns what `next` returns under
    /// the lock that ends it.
    pub(super) fn run_turn(
        self: &Arc<Self>,
        turn: Turn<K>,
        next: impl FnOnce(&mut State<K>) -> Option<Turn<K>>,
    ) -> Option<Turn<K>> {
        let executor = &self.pool.executor;
        let label = self.label(&turn.name).cloned();
        self.take_turn(turn, |task, counters| task.run(label.as_ref(), counters, executor), next)
    }

    /// Runs or cancels the task of a turn by `work`, ends the turn, and returns what `next` returns
    /// under the lock that ends it, or later if user code follows.
    pub(super) fn take_turn(
        self: &Arc<Self>,
        Turn { name, task, futures }: Turn<K>,
        work: impl FnOnce(PendingTask, &WorkerCounters) -> Ran<PendingTask>,
        next: impl FnOnce(&mut State<K>) -> Option<Turn<K>>,
    ) -> Option<Turn<K>> {
        let executor = &self.pool.executor;
        let key = name.id();
        executor.enter(name.group(), |counters| {
            futures.into_iter().for_each(Wakers::wake);
            let ended = match work(task, counters) {
                Ran::Ended => Some(1),
                Ran::Cancelled => Some(0),
                #[cfg(feature = "retry")]
                Ran::Again(task, later) => self.delay(&name, task, &later, counters),
                #[cfg(not(feature = "retry"))]
                Ran::Again(_, later) => match later {},
            };
            let mut state = self.state.lock();
            let mut idle = None;
            let leftover = ended.map(|tasks| {
                idle = self.count_finished(&mut state, tasks);
                state.end_turn(key)
            });
            // Rule 12. While a key has an entry, this is not the last reference to its name.
            let user_code_follows = idle.is_some() || mem::needs_drop::<K>() && state.turns.get(key).is_none();
            let (mut turn, mut name, mut next) = (None, Some(name), Some(next));
            if !user_code_follows {
                name = None;
                turn = next.take().and_then(|next| next(&mut state));
            }
            self.unlock_and_send(state, key);
            nesting::discard((leftover, name)); // a key is dropped by user code
            if ended == Some(1) {
                executor.task_done(counters, 1);
            }
            idle.into_iter().for_each(Wakers::wake);
            if let Some(next) = next {
                let mut state = self.state.lock();
                turn = next(&mut state);
                self.unlock_and_send(state, key);
            }
            turn
        })
    }

    /// Releases the lock after a change of this key, and makes the notifications that follow.
    fn unlock_and_send(self: &Arc<Self>, mut state: MutexGuard<'_, State<K>>, key: KeyId) {
        let notifications = self.notifications(&mut state, key);
        drop(state);
        self.send(notifications);
    }

    /// Runs the oldest task of a key as a helper, or of the next key in turn. Returns `false` if
    /// the key is not ready, or no key is.
    pub(super) fn help(self: &Arc<Self>, key: Option<KeyId>) -> bool {
        #[cfg(feature = "retry")]
        self.start_due();
        let mut state = self.state.lock();
        let turn = match key {
            Some(key) => state.turn_of(key),
            None => state.next_turn(),
        };
        let Some(turn) = turn else { return false };
        self.note_started(&state, &turn);
        drop(state);
        let none = self.run_turn(turn, |_| None);
        debug_assert!(none.is_none(), "a helper takes one turn");
        true
    }

    /// Notifies submitters of the room that a turn has made.
    fn note_started(&self, state: &State<K>, turn: &Turn<K>) {
        self.notify_room(state, turn.name.id());
    }

    /// Makes the notifications that were collected under the lock.
    pub(super) fn send(self: &Arc<Self>, notifications: Notifications) {
        let Notifications { ticket, key, any } = notifications;
        if ticket {
            self.pool.send_ticket(self.downgrade(), self.settings.priority);
        }
        self.notify_waits(key, any);
    }

    /// Makes the notifications after a task was added.
    pub(super) fn send_first(self: &Arc<Self>, notifications: Notifications) {
        let Notifications { ticket, key, any } = notifications;
        if ticket {
            self.pool.send_first_ticket(self.downgrade(), &self.registration, self.settings.priority);
        }
        self.notify_waits(key, any);
    }

    pub(super) fn notify_waits(&self, key: Option<GroupId>, any: bool) {
        let any = any.then(|| AwaitedId::of(self));
        if key.is_some() || any.is_some() {
            waits::notify_change(key.map(AwaitedId::from).into_iter().chain(any), self.pool.id());
        }
    }

    fn downgrade(self: &Arc<Self>) -> Weak<dyn TicketHolder> {
        let weak: Weak<Self> = Arc::downgrade(self);
        weak
    }

    /// Counts a task as finished that its handle has cancelled.
    pub(super) fn count_cancelled(&self) {
        let idle = self.count_finished(&mut self.state.lock(), 1);
        idle.into_iter().for_each(Wakers::wake);
    }
}

impl<K: Send + Sync + 'static> TicketHolder for KeyedInner<K> {
    fn run_ticket(self: Arc<Self>) {
        let mut state = self.state.lock();
        state.tickets.take();
        state.tickets.start_runner();
        drop(state);
        self.run();
    }

    fn send_tickets(self: Arc<Self>) {
        while self.count_ticket_if_needed(&mut self.state.lock()) {
            self.pool.send_ticket(self.downgrade(), self.settings.priority);
        }
    }

    fn cancel(&self, reason: CancelReason) {
        let (entries, leftover) = self.state.lock().close();
        self.wake_waiters();
        self.pool.executor.enter(self.closing_group(), |_| {
            context::set_no_task(0);
            self.cancel_entries(entries, reason);
        });
        drop(leftover);
    }

    fn snapshot(self: Arc<Self>) -> (Holder, Leftover) {
        let state = self.state.lock();
        let mut running = Page::new();
        for queue in state.running.iter().filter_map(|key| state.turns.get(*key)) {
            if let Some(Busy::Running(task)) = queue.state.busy {
                let label = || self.label(&queue.name).cloned();
                running.push(|| KeySnapshot { label: label(), task, waiting: queue.len() });
            }
        }
        #[cfg(feature = "retry")]
        let delayed = state.delayed.len();
        #[cfg(not(feature = "retry"))]
        let delayed = 0;
        let copy = KeyedSnapshot {
            label: self.settings.label.clone(),
            waiting: state.turns.queued(),
            capacity: self.settings.capacity,
            capacity_per_key: self.settings.capacity_per_key,
            keys: state.turns.keys(),
            ready: state.turns.ready(),
            delayed,
            submitters: state.room_waiters.count() + state.room_futures.len(),
            running,
        };
        drop(state);
        (Holder::Keyed(copy), job::leftover(self))
    }
}

impl<K: Send + Sync + 'static> KeyedInner<K> {
    /// Cancels the tasks of a closed executor. Called in a frame of the closing group, because each
    /// of them ends only when the destructors of those before it have returned.
    fn cancel_entries(&self, entries: Vec<TakenEntry<K, PendingTask, KeyPhase>>, reason: CancelReason) {
        let executor = &self.pool.executor;
        for (name, tasks, state) in entries {
            #[cfg(feature = "retry")]
            let delayed = state.and_then(|state| state.delayed).map(|delayed| self.without_timer(*delayed));
            #[cfg(not(feature = "retry"))]
            let delayed = state.and(None);
            for task in delayed.into_iter().chain(tasks) {
                executor.enter(name.group(), |counters| {
                    if task.cancel(self.label(&name), reason, counters, executor) {
                        self.count_cancelled();
                        executor.task_done(counters, 1);
                    }
                });
            }
            nesting::discard(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::keyed::state::KeyedSettings;
    use crate::pool::worker_pool::WorkerPool;
    use crate::priority::Priority;

    /// Fault 571.
    #[test]
    fn a_snapshot_that_holds_the_last_reference_drops_no_value_of_the_user() {
        struct OnDrop(Sender<()>);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                self.0.send(()).expect("the test waits");
            }
        }
        let pool = WorkerPool::builder().workers(1).build().expect("a thread");
        let settings = KeyedSettings { capacity: 1, capacity_per_key: 1, label: None, priority: Priority::Normal };
        let (dropped, drops) = channel();
        let captured = OnDrop(dropped);
        let label_of = move |_: &u8| {
            let _ = &captured;
            Arc::from("label")
        };
        let inner = KeyedInner::new(pool.inner(), settings, Some(Arc::new(label_of)));
        let (other, leftover) = (Arc::clone(&inner), TicketHolder::snapshot(inner).1);
        assert!(leftover.is_none(), "there is another reference");
        let (_, leftover) = TicketHolder::snapshot(other);
        assert!(drops.try_recv().is_err() && leftover.is_some());
        drop(leftover);
        assert!(drops.try_recv().is_ok());
    }
}
