//! The deliveries of a mailbox that have not started.
//!
//! Most mailboxes have one queue. A mailbox that keeps the order of each key has one for each key
//! that has a delivery; the keys take turns, as in a keyed executor.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use super::delivery::PendingDelivery;
use super::event_keys::EventKeys;
use super::key::{EventKey, EventKeyName, KeyOf};
use crate::keyed::name::KeyId;
use crate::keyed::serial_queues::{KeyQueue, KeyState, SerialQueues};
use crate::observe::task_info::TaskId;
use crate::sync::Arc;
use crate::task::context::GroupId;
use crate::time::deadline::Deadline;

/// The queues of one mailbox.
pub(super) enum Queue<E> {
    /// One queue, oldest first.
    Plain(VecDeque<PendingDelivery<E>>),
    /// A queue for each key.
    ByKey(Box<KeyQueues<E>>),
}

/// The entry of a key that was removed. The caller drops it without the lock.
pub(super) type RemovedKey<E> = Option<KeyQueue<EventKey, PendingDelivery<E>, EventKeyState>>;

/// The entry of a key that was removed, if there was one, and the name of the key. The caller drops
/// them without the lock.
pub(super) type ReleasedKey<E> = Option<(RemovedKey<E>, EventKeyName)>;

/// The queues of the keys.
pub(super) struct KeyQueues<E> {
    /// Returns the key of an event; `None` if the subscription is closed.
    pub(super) key_of: Option<Arc<KeyOf<E>>>,
    /// The keys that have a delivery, and the ready queue.
    pub(super) turns: SerialQueues<EventKey, PendingDelivery<E>, EventKeyState>,
    /// The keys of the deliveries that are running, and their frames.
    pub(super) running: Vec<(KeyId, GroupId)>,
    /// The keys of the deliveries that are waiting or delayed, by their events.
    by_event: EventKeys,
    /// The keys of the waiting deliveries, in the order of their admission; `None` if the oldest
    /// delivery is never removed.
    by_age: Option<BTreeMap<TaskId, KeyId>>,
}

/// What a mailbox knows of a key.
#[derive(Default)]
pub(super) struct EventKeyState {
    /// How many deliveries of the key have not ended, those of waiting publishers included. While
    /// there are some, the entry is kept.
    deliveries: usize,
    /// How many places are reserved for its deliveries.
    reserved: usize,
    /// What the key is busy with; `None` if it is ready or has no delivery in the mailbox.
    pub(super) busy: Option<Busy>,
}

/// What a key is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    /// The delivery with this id is running.
    Running(TaskId),
    /// Its oldest delivery waits for its next attempt.
    Delayed(Deadline),
}

impl KeyState for EventKeyState {
    fn is_busy(&self) -> bool {
        self.busy.is_some()
    }

    fn is_kept(&self) -> bool {
        self.deliveries > 0
    }
}

impl<E> Queue<E> {
    /// Creates the queue of a mailbox, whose events have keys if there is a function.
    /// Its oldest delivery may be removed only if `removes_oldest` is `true`.
    pub(super) fn new(key_of: Option<Arc<KeyOf<E>>>, removes_oldest: bool) -> Self {
        match key_of {
            None => Self::Plain(VecDeque::new()),
            Some(key_of) => Self::ByKey(Box::new(KeyQueues {
                key_of: Some(key_of),
                turns: SerialQueues::new(),
                running: Vec::new(),
                by_event: EventKeys::default(),
                by_age: removes_oldest.then(BTreeMap::new),
            })),
        }
    }

    /// Returns the queues of the keys, if events have keys.
    pub(super) fn by_key(&self) -> Option<&KeyQueues<E>> {
        match self {
            Self::Plain(_) => None,
            Self::ByKey(queues) => Some(queues),
        }
    }

    /// Returns the queues of the keys, if events have keys.
    pub(super) fn by_key_mut(&mut self) -> Option<&mut KeyQueues<E>> {
        match self {
            Self::Plain(_) => None,
            Self::ByKey(queues) => Some(queues),
        }
    }

    /// Returns the number of waiting deliveries.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Plain(queue) => queue.len(),
            Self::ByKey(queues) => queues.turns.queued(),
        }
    }

    /// Returns the number of deliveries that can be taken if none holds up others.
    pub(super) fn takeable(&self) -> usize {
        match self {
            Self::Plain(queue) => queue.len(),
            Self::ByKey(queues) => queues.turns.ready(),
        }
    }

    /// Returns the oldest delivery of the one queue.
    pub(super) fn first(&self) -> Option<&PendingDelivery<E>> {
        match self {
            Self::Plain(queue) => queue.front(),
            Self::ByKey(_) => None,
        }
    }

    /// Adds a delivery.
    pub(super) fn push_back(&mut self, delivery: PendingDelivery<E>) {
        match self {
            Self::Plain(queue) => queue.push_back(delivery),
            Self::ByKey(queues) => queues.push_back(delivery),
        }
    }

    /// Puts a delivery before all others, or before those of its key. Its delay is over.
    pub(super) fn push_front(&mut self, delivery: PendingDelivery<E>) {
        match self {
            Self::Plain(queue) => queue.push_front(delivery),
            Self::ByKey(queues) => queues.push_front(delivery),
        }
    }

    /// Takes the next delivery, or that of a key if the key is ready.
    pub(super) fn take(&mut self, key: Option<KeyId>) -> Option<PendingDelivery<E>> {
        match self {
            Self::Plain(queue) => queue.pop_front(),
            Self::ByKey(queues) => queues.take(key),
        }
    }

    /// Removes the oldest delivery, or the oldest of a key.
    pub(super) fn remove_oldest(&mut self, key: Option<KeyId>) -> Option<PendingDelivery<E>> {
        match self {
            Self::Plain(queue) => queue.pop_front(),
            Self::ByKey(queues) => queues.remove_oldest(key),
        }
    }

    /// Returns `true` if a delivery of the event that `item` stands for is waiting.
    pub(super) fn holds(&self, item: usize) -> bool {
        match self {
            Self::Plain(queue) => queue.iter().any(|delivery| delivery.holds(item)),
            Self::ByKey(queues) => queues.by_event.get(item).is_some(),
        }
    }

    /// Counts a place as reserved for the key of a delivery, or no longer.
    pub(super) fn count_reserved(&mut self, delivery: &PendingDelivery<E>, is_reserved: bool) {
        if let (Self::ByKey(queues), Some(name)) = (self, &delivery.key) {
            queues.count_reserved(name.id(), is_reserved);
        }
    }

    /// Takes all waiting deliveries, because the subscription ends. Returns the function that makes
    /// keys, too.
    pub(super) fn take_all(&mut self) -> (Vec<PendingDelivery<E>>, Option<Arc<KeyOf<E>>>) {
        match self {
            Self::Plain(queue) => (mem::take(queue).into(), None),
            Self::ByKey(queues) => (queues.take_all(), queues.key_of.take()),
        }
    }
}

impl<E> KeyQueues<E> {
    /// Counts a delivery of a key. Makes an entry if the key has none.
    pub(super) fn keep(&mut self, name: &EventKeyName) {
        self.turns.entry(name).state.deliveries += 1;
    }

    /// Counts a delivery of a key as ended, and ends the turn of the key if the delivery had it.
    /// Returns `true` then, and what the caller drops without the lock. A name that an entry has is
    /// dropped here, because that is not its last reference.
    pub(super) fn release(&mut self, name: EventKeyName, delivery: TaskId) -> (bool, ReleasedKey<E>) {
        let key = name.id();
        let Some(queue) = self.turns.get_mut(key) else { return (false, Some((None, name))) };
        queue.state.deliveries -= 1;
        let had_turn = queue.state.busy == Some(Busy::Running(delivery));
        if had_turn {
            queue.state.busy = None;
            self.end_running(key);
        }
        let removed = self.turns.settle(key);
        (had_turn, removed.map(|removed| (Some(removed), name)))
    }

    /// Counts a place as reserved for a delivery of a key, or no longer.
    fn count_reserved(&mut self, key: KeyId, is_reserved: bool) {
        if let Some(queue) = self.turns.get_mut(key) {
            match is_reserved {
                true => queue.state.reserved += 1,
                false => queue.state.reserved -= 1,
            }
        }
    }

    /// Returns how many waiting and delayed deliveries and reserved places a key has.
    pub(super) fn occupied_by(&self, key: KeyId) -> usize {
        self.turns.get(key).map_or(0, |queue| {
            let is_delayed = matches!(queue.state.busy, Some(Busy::Delayed(_)));
            queue.len() + queue.state.reserved + usize::from(is_delayed)
        })
    }

    /// Returns the key of the event's delivery and the frames of that key, if the delivery is
    /// waiting or delayed.
    pub(super) fn key_of_event(&self, item: usize) -> Option<(KeyId, GroupId)> {
        let key = self.by_event.get(item)?;
        Some((key, self.turns.get(key)?.name.group()))
    }

    /// Ends the delay of a key whose delayed delivery was taken away.
    pub(super) fn end_delay(&mut self, name: &EventKeyName, item: usize) -> RemovedKey<E> {
        self.by_event.remove(item);
        self.set_busy(name.id(), None);
        self.turns.settle(name.id())
    }

    /// Delays a running key with its delivery of an event.
    pub(super) fn delay(&mut self, name: &EventKeyName, item: usize, due: Deadline) {
        self.end_running(name.id());
        self.set_busy(name.id(), Some(Busy::Delayed(due)));
        self.by_event.insert(item, name.id());
    }

    fn end_running(&mut self, key: KeyId) {
        self.running.retain(|(running, _)| *running != key);
    }

    fn set_busy(&mut self, key: KeyId, busy: Option<Busy>) {
        if let Some(queue) = self.turns.get_mut(key) {
            queue.state.busy = busy;
        }
    }

    fn push_back(&mut self, delivery: PendingDelivery<E>) {
        let name = self.list(&delivery);
        self.turns.push_back(&name, delivery);
    }

    fn push_front(&mut self, delivery: PendingDelivery<E>) {
        let name = self.list(&delivery);
        self.set_busy(name.id(), None);
        let pushed = self.turns.push_front(name.id(), delivery);
        debug_assert!(pushed.is_ok(), "a key with a delivery has an entry");
    }

    /// Lists a delivery that is about to be waiting. Returns its key.
    fn list(&mut self, delivery: &PendingDelivery<E>) -> EventKeyName {
        let name = delivery.key.as_ref().expect("a delivery of an open mailbox with keys has a key");
        self.by_event.insert(delivery.item(), name.id());
        if let Some(by_age) = &mut self.by_age {
            by_age.insert(delivery.id, name.id());
        }
        Arc::clone(name)
    }

    fn unlist(&mut self, delivery: &PendingDelivery<E>) {
        self.by_event.remove(delivery.item());
        if let Some(by_age) = &mut self.by_age {
            by_age.remove(&delivery.id);
        }
    }

    fn take(&mut self, key: Option<KeyId>) -> Option<PendingDelivery<E>> {
        let key = key.or_else(|| self.turns.first())?;
        let (queue, delivery) = self.turns.take(key)?;
        queue.state.busy = Some(Busy::Running(delivery.id));
        self.running.push((key, queue.name.group()));
        self.unlist(&delivery);
        Some(delivery)
    }

    fn remove_oldest(&mut self, key: Option<KeyId>) -> Option<PendingDelivery<E>> {
        let oldest = || self.by_age.as_ref()?.first_key_value().map(|(_, key)| *key);
        let key = key.or_else(oldest)?;
        let delivery = self.turns.remove_first(key)?;
        self.unlist(&delivery);
        Some(delivery)
    }

    fn take_all(&mut self) -> Vec<PendingDelivery<E>> {
        (self.by_event, self.by_age) = (EventKeys::default(), None);
        let taken = self.turns.take_items(|_| true);
        for (name, ..) in &taken {
            if !self.running.iter().any(|(running, _)| *running == name.id()) {
                self.set_busy(name.id(), None);
            }
        }
        taken.into_iter().flat_map(|(_, deliveries, _)| deliveries).collect()
    }
}
