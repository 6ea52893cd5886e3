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
use super::waiting;
use super::watcher::{Watch, Watcher};
use crate::sync::Arc;
use crate::task::context;
use crate::task::waits::Refused;

/// Publishes an event to those mailboxes; returns how many wanted it.
pub(super) fn publish<E: Send + Sync + 'static>(
    registry: &Registry,
    mailboxes: &[Arc<Mailbox<E>>],
    envelope: &Arc<Envelope<E>>,
    location: &'static Location<'static>,
) -> usize {
    let mut tally = Tally { registry, mailboxes, wanted: 0 };
    let (mut here, mut held) = (Vec::new(), BTreeMap::new());
    for (index, mailbox) in mailboxes.iter().enumerate() {
        match mailbox.offer(envelope, index, location) {
            Offered::PostResult(posted) => tally.note(index, posted),
            Offered::Here(item) => here.push(item),
            Offered::Held(item) => drop(held.insert(index, item)),
        }
    }
    for item in here {
        let index = item.index;
        tally.note(index, mailboxes[index].deliver_here(item));
    }
    let is_worker = || context::is_worker_of(mailboxes[0].shared.engine.id());
    if !held.is_empty() && (held.len() > 1 || context::depth() > 0) && !is_worker() {
        watch(&mut tally, held);
    } else {
        for (index, item) in held {
            tally.note(index, mailboxes[index].put_with_patience(item));
        }
    }
    tally.wanted
}

/// Waits for room in several mailboxes at the same time. Within a task, what would wait forever is refused.
fn watch<E: Send + Sync + 'static>(tally: &mut Tally<'_, E>, mut held: BTreeMap<usize, PendingDelivery<E>>) {
    let watcher = Arc::new(Watcher::default());
    let mut have_room: Vec<usize> = held.keys().copied().collect();
    while !held.is_empty() {
        for index in have_room {
            let item = held.remove(&index).expect("a mailbox is watched while the publisher holds its delivery");
            let watch = Watch { watcher: Arc::clone(&watcher), index };
            match tally.mailboxes[index].put_or_watch(item, watch) {
                Ok(posted) => tally.note(index, posted),
                Err(item) => drop(held.insert(index, item)),
            }
        }
        if held.is_empty() {
            return;
        }
        let called = if context::depth() == 0 {
            Ok(watcher.wait())
        } else {
            let watched = held.keys().map(|index| (*index, Arc::clone(&tally.mailboxes[*index])));
            waiting::wait_for_calls(&watcher, watched.collect())
        };
        have_room = match called {
            Ok(called) => called,
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
    for (index, item) in held {
        match tally.mailboxes[index].put_now(item) {
            Ok(posted) => tally.note(index, posted),
            Err(item) => full.push((index, item)),
        }
    }
    if full.len() > 1 {
        full.into_iter().for_each(|alone| watch(tally, BTreeMap::from([alone])));
    } else if let Some((index, item)) = full.pop() {
        let posted = tally.mailboxes[index].refuse(item, Some(DeliveryOutcome::Refused));
        tally.note(index, posted);
    }
}

/// What the mailboxes have said.
struct Tally<'a, E> {
    registry: &'a Registry,
    mailboxes: &'a [Arc<Mailbox<E>>],
    /// How many wanted the event.
    wanted: usize,
}

impl<E: Send + Sync + 'static> Tally<'_, E> {
    fn note(&mut self, index: usize, posted: PostResult) {
        self.wanted += usize::from(posted != PostResult::NotWanted);
        if posted == PostResult::Spent {
            self.registry.remove(&self.mailboxes[index]);
        }
    }
}
