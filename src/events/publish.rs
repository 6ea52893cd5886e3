//! Takes one event to its recipients, so that none of them waits for another.
//!
//! 1. Every mailbox is offered the event. One that has room has it now.
//! 2. Synchronous handlers are called, in the order of subscribing.
//! 3. Only then does the publisher wait for the mailboxes that were full, for all of them at the same time:
//!    each gets the event as soon as it has room.
//!
//! A publisher begins the next event when it is done with this one. So what one thread publishes comes into
//! each mailbox in order, and each event once.

use std::collections::BTreeMap;
use std::panic::Location;

use super::envelope::Envelope;
use super::mailbox::{Mailbox, PendingDelivery};
use super::post::{Offered, PostResult};
use super::progress::DeliveryOutcome;
use super::registry::Registry;
use super::room_wait;
use super::watcher::{Watch, Watcher};
use crate::sync::Arc;
use crate::task::context;
use crate::task::waits::Refused;

/// Publishes an event to those mailboxes; returns how many handlers it.
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

/// Waits for room in several mailboxes at the same time. Within a task, what would wait forever is refused.
fn watch<E: Send + Sync + 'static>(tally: &mut Tally<'_, E>, mut held: BTreeMap<usize, PendingDelivery<E>>) {
    let watcher = Arc::new(Watcher::default());
    let mut have_room: Vec<usize> = held.keys().copied().collect();
    while !held.is_empty() {
        for index in have_room {
            let delivery = held.remove(&index).expect("a mailbox is watched while the publisher holds its delivery");
            let watch = Watch { watcher: Arc::clone(&watcher), index };
            match tally.mailboxes[index].put_or_watch(delivery, watch) {
                Ok(result) => tally.record(index, result),
                Err(delivery) => drop(held.insert(index, delivery)),
            }
        }
        if held.is_empty() {
            return;
        }
        let notified = if context::depth() == 0 {
            Ok(watcher.wait())
        } else {
            let watched = held.keys().map(|index| (*index, Arc::clone(&tally.mailboxes[*index])));
            room_wait::wait_for_room(&watcher, watched.collect())
        };
        have_room = match notified {
            Ok(notified) => notified,
            Err(Refused) => {
                held.keys().for_each(|index| tally.mailboxes[*index].unwatch(&watcher));
                return watch_one_by_one(tally, held);
            }
        }
    }
}

/// After the wait for room in all of these mailboxes was refused: waits for each of them alone, so that a delivery is
/// refused for its own sake. One that has called by now gets its delivery first, since its call goes to no other.
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

/// What the mailboxes have said.
struct Tally<'a, E> {
    registry: &'a Registry,
    mailboxes: &'a [Arc<Mailbox<E>>],
    /// How many handlers the event.
    handlers: usize,
}

impl<E: Send + Sync + 'static> Tally<'_, E> {
    fn record(&mut self, index: usize, result: PostResult) {
        self.handlers += usize::from(result != PostResult::Declined);
        if result == PostResult::Exhausted {
            self.registry.remove(&self.mailboxes[index]);
        }
    }
}
