//! Publishes one event to its recipients, so that no recipient waits for another.
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

use super::delivery::PendingDelivery;
use super::envelope::Envelope;
use super::mailbox::{Mailbox, Mode};
use super::post::{Offered, PostResult, Reserved};
use super::progress::DeliveryOutcome;
use super::registry::Registry;
use super::room_wait;
use super::watcher::{Watch, WatchKey, Watcher};
use crate::error::{CycleKind, CycleTarget};
use crate::sync::Arc;
use crate::task::context;
use crate::task::sleepers;
use crate::task::waits;
use crate::task::wakers::Wakers;
use crate::time::deadline::Deadline;

/// Publishes an event to `mailboxes`. Returns how many have a delivery of it.
pub(super) fn publish<E: Send + Sync + 'static>(
    registry: &Registry,
    mailboxes: &[Arc<Mailbox<E>>],
    envelope: &Arc<Envelope<E>>,
    location: &'static Location<'static>,
) -> usize {
    let mut tally = Tally { registry, mailboxes, handlers: 0 };
    let held = offer(&mut tally, envelope, location);
    if !held.is_empty() && (held.len() > 1 || context::depth() > 0) && !is_worker(mailboxes) {
        watch(&mut tally, held);
    } else {
        for (index, delivery) in held {
            tally.record(index, mailboxes[index].put_blocking(delivery));
        }
    }
    tally.handlers
}

/// Takes the first two steps. Returns the deliveries whose mailboxes are full. Never blocks, except
/// in synchronous handlers.
pub(super) fn offer<E: Send + Sync + 'static>(
    tally: &mut Tally<'_, E>,
    envelope: &Arc<Envelope<E>>,
    location: &'static Location<'static>,
) -> BTreeMap<usize, PendingDelivery<E>> {
    let (mut inline, mut held) = (Vec::new(), BTreeMap::new());
    for (index, mailbox) in tally.mailboxes.iter().enumerate() {
        match mailbox.offer(envelope, index, location) {
            Offered::Decided(result) => tally.record(index, result),
            Offered::Inline(delivery) => inline.push(delivery),
            Offered::Held(delivery) => drop(held.insert(index, delivery)),
        }
    }
    deliver_inline(tally, inline);
    held
}

/// Calls synchronous handlers.
fn deliver_inline<E: Send + Sync + 'static>(tally: &mut Tally<'_, E>, inline: Vec<PendingDelivery<E>>) {
    for delivery in inline {
        let index = delivery.index;
        tally.record(index, tally.mailboxes[index].deliver_inline(delivery));
    }
}

/// Publishes an event to all mailboxes, or to none if a mailbox with the policy to block is full.
/// Never waits. Returns how many mailboxes have a delivery, or the index of the full one.
///
/// It reserves a place in each such mailbox, and only then puts the deliveries in. No user code
/// runs in between, because it could wait for the very place that is reserved.
pub(super) fn try_publish<E: Send + Sync + 'static>(
    registry: &Registry,
    mailboxes: &[Arc<Mailbox<E>>],
    envelope: &Arc<Envelope<E>>,
    location: &'static Location<'static>,
) -> Result<usize, usize> {
    let mut tally = Tally { registry, mailboxes, handlers: 0 };
    let mut admitted = Vec::with_capacity(mailboxes.len());
    for (index, mailbox) in mailboxes.iter().enumerate() {
        match mailbox.admit(envelope, index, location) {
            Ok(delivery) => admitted.push(delivery),
            Err(result) => tally.record(index, result),
        }
    }
    let mut places = Vec::with_capacity(admitted.len());
    for delivery in &admitted {
        match mailboxes[delivery.index].reserve(delivery) {
            Reserved::Full => {
                let full = delivery.index;
                mailboxes[full].counters.count(&DeliveryOutcome::Refused);
                give_back(&tally, admitted, &places);
                return Err(full);
            }
            reserved => places.push(reserved),
        }
    }
    let (mut results, mut without_place) = (Vec::new(), Vec::new());
    for (delivery, place) in admitted.into_iter().zip(places) {
        let index = delivery.index;
        match place {
            Reserved::Place => match mailboxes[index].put_reserved(delivery) {
                Ok(result) => results.push((index, result)),
                Err(delivery) => without_place.push(delivery),
            },
            _ => without_place.push(delivery),
        }
    }
    // No place is reserved any more, so user code may run.
    results.into_iter().for_each(|(index, result)| tally.record(index, result));
    let is_synchronous = |delivery: &PendingDelivery<E>| mailboxes[delivery.index].settings.mode == Mode::Synchronous;
    let (inline, others): (Vec<_>, Vec<_>) = without_place.into_iter().partition(is_synchronous);
    for delivery in others {
        let index = delivery.index;
        match mailboxes[index].put_now(delivery) {
            Ok(result) => tally.record(index, result),
            Err(_) => unreachable!("a mailbox without a place has another policy than to block, or accepts no events"),
        }
    }
    deliver_inline(&mut tally, inline);
    Ok(tally.handlers)
}

/// Gives the places back that were reserved for the first deliveries, and refuses all deliveries.
/// They do not count as refused by their mailboxes, except for the one that was full.
fn give_back<E: Send + Sync + 'static>(tally: &Tally<'_, E>, admitted: Vec<PendingDelivery<E>>, places: &[Reserved]) {
    let reserved = admitted.iter().zip(places).filter(|(_, place)| **place == Reserved::Place);
    let futures: Vec<_> =
        reserved.map(|(delivery, _)| tally.mailboxes[delivery.index].release_place(delivery)).collect();
    futures.into_iter().flatten().for_each(Wakers::wake);
    for delivery in admitted {
        let _ = tally.mailboxes[delivery.index].refuse(delivery, None);
    }
}

/// Returns `true` if this thread is a worker of the bus's pool.
pub(super) fn is_worker<E>(mailboxes: &[Arc<Mailbox<E>>]) -> bool {
    context::is_worker_of(mailboxes[0].inner.pool.id())
}

/// Waits for room in several mailboxes at the same time. Within a task or a callback, refuses what
/// would wait forever.
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
            waits::prepare(Deadline::NEVER).map(|()| {
                let first = watched.keys().next().map(|index| &tally.mailboxes[*index]).expect("a mailbox is full");
                let target = CycleTarget::new(CycleKind::Mailbox).label(Some(&first.settings.name));
                let _listed = sleepers::list(target, first.inner.pool.id(), Deadline::NEVER);
                watcher.wait()
            })
        } else {
            let full = watched.iter().map(|(index, (delivery, watch))| {
                (*index, (Arc::clone(&tally.mailboxes[*index]), delivery.key.clone()), *watch)
            });
            room_wait::wait_for_room(&watcher, full.collect())
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
pub(super) struct Tally<'a, E> {
    /// From which an exhausted subscription is removed.
    pub(super) registry: &'a Registry,
    /// The recipients.
    pub(super) mailboxes: &'a [Arc<Mailbox<E>>],
    /// How many subscriptions have a delivery of the event.
    pub(super) handlers: usize,
}

impl<E: Send + Sync + 'static> Tally<'_, E> {
    /// Records the result of one recipient.
    pub(super) fn record(&mut self, index: usize, result: PostResult) {
        self.handlers += usize::from(result != PostResult::Declined);
        if result == PostResult::Exhausted {
            self.registry.remove(&self.mailboxes[index]);
        }
    }
}
