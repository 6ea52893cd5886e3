//! Takes one event to its recipients, so that none of them waits for another.
//!
//! 1. The event is offered to every mailbox. Those that have room take it.
//! 2. Synchronous handlers are called, in the order of subscribing.
//! 3. Only then does the publisher wait for the mailboxes that were full, for all of them at the
//!    same time. Each takes the event as soon as it has room.
//!
//! A publisher begins its next event when this one is done. So the events of one thread get into
//! each mailbox in order, and each event once.

use std::collections::BTreeMap;
use std::panic::Location;

use super::envelope::Envelope;
use super::mailbox::{Mailbox, PendingDelivery};
use super::post::{Offered, PostResult};
use super::progress::DeliveryOutcome;
use super::registry::Registry;
use super::room_wait;
use super::watcher::{Watch, WatchKey, Watcher};
use crate::sync::Arc;
use crate::task::context;

/// Publishes an event to `mailboxes`. Returns how many have a delivery of it.
pub(super) fn publish<E: Send + Sync + 'static>(
    registry: &Registry,
    mailboxes: &[Arc<Mailbox<E>>],
    envelope: &Arc<Envelope<E>>,
    location: &'static Location<'static>,
) -> usize {
    let mut tally = Tally { registry, mailboxes, handlers: 0 };
    let (mut inline, mut held) = (Vec::new(), BTreeMap::new());
    for (index, mailbox) in mailboxes.iter().enumerate() {
        match mailbox.offer(envelope, index, location) {
            Offered::Decided(result) => tally.record(index, result),
            Offered::Inline(delivery) => inline.push(delivery),
            Offered::Held(delivery) => drop(held.insert(index, delivery)),
        }
    }
    for delivery in inline {
        let index = delivery.index;
        tally.record(index, mailboxes[index].deliver_inline(delivery));
    }
    let is_worker = || context::is_worker_of(mailboxes[0].inner.pool.id());
    if !held.is_empty() && (held.len() > 1 || context::depth() > 0) && !is_worker() {
        watch(&mut tally, held);
    } else {
        for (index, delivery) in held {
            tally.record(index, mailboxes[index].put_blocking(delivery));
        }
    }
    tally.handlers
}

/// Waits for room in several mailboxes at the same time. Within a task, refuses what would wait
/// forever.
fn watch<E: Send + Sync + 'static>(tally: &mut Tally<'_, E>, held: BTreeMap<usize, PendingDelivery<E>>) {
    let watcher = Arc::new(Watcher::default());
    let mut watched: BTreeMap<usize, (PendingDelivery<E>, WatchKey)> = BTreeMap::new();
    let mut to_put: Vec<(usize, PendingDelivery<E>)> = held.into_iter().collect();
    loop {
        for (index, delivery) in to_put {
            let watch = Watch { watcher: Arc::clone(&watcher), index };
            match tally.mailboxes[index].put_or_watch(delivery, watch) {
                Ok(result) => tally.record(index, result),
                Err(delivery) => drop(watched.insert(index, delivery)),
            }
        }
        if watched.is_empty() {
            return;
        }
        let notified = if context::depth() == 0 {
            Ok(watcher.wait())
        } else {
            let mailbox = |index: &usize| Arc::clone(&tally.mailboxes[*index]);
            let mailboxes = watched.iter().map(|(index, (_, key))| (*index, mailbox(index), *key));
            room_wait::wait_for_room(&watcher, mailboxes.collect())
        };
        let Ok(have_room) = notified else {
            watched.iter().for_each(|(index, (_, key))| tally.mailboxes[*index].unwatch(*key));
            let held = watched.into_iter().map(|(index, (delivery, _))| (index, delivery));
            return watch_one_by_one(tally, held.collect());
        };
        let take = |index| {
            let (delivery, _) = watched.remove(&index).expect("a mailbox is watched while its delivery is held");
            (index, delivery)
        };
        to_put = have_room.into_iter().map(take).collect();
    }
}

/// Waits for room in each mailbox alone, after the wait for all of them was refused. So a delivery
/// is refused only if its own wait is.
///
/// A mailbox that has notified this publisher gets its delivery first, because its notification
/// goes to no other publisher.
fn watch_one_by_one<E: Send + Sync + 'static>(tally: &mut Tally<'_, E>, held: BTreeMap<usize, PendingDelivery<E>>) {
    let mut full = Vec::new();
    for (index, delivery) in held {
        match tally.mailboxes[index].put_now(delivery) {
            Ok(result) => tally.record(index, result),
            Err(delivery) => full.push((index, delivery)),
        }
    }
    if full.len() > 1 {
        full.into_iter().for_each(|alone| watch(tally, BTreeMap::from([alone])));
    } else if let Some((index, delivery)) = full.pop() {
        let result = tally.mailboxes[index].refuse(delivery, Some(DeliveryOutcome::Refused));
        tally.record(index, result);
    }
}

/// Collects the results of posting one event.
struct Tally<'a, E> {
    /// From which an exhausted subscription is removed.
    registry: &'a Registry,
    /// The recipients.
    mailboxes: &'a [Arc<Mailbox<E>>],
    /// How many subscriptions have a delivery of the event.
    handlers: usize,
}

impl<E: Send + Sync + 'static> Tally<'_, E> {
    /// Records the result of one recipient.
    fn record(&mut self, index: usize, result: PostResult) {
        self.handlers += usize::from(result != PostResult::Declined);
        if result == PostResult::Exhausted {
            self.registry.remove(&self.mailboxes[index]);
        }
    }
}
