//! Who listens to what.
//!
//! For each type of events, and each topic, there is a *list* of subscriptions in the order of subscribing, made anew with
//! each change and never changed itself. A publisher takes the list as it is and holds no lock while it goes through it: a
//! subscription added meanwhile gets the next event, one that ends meanwhile refuses this one by itself.
//!
//! A subscription without a topic is on the list of every topic.

use std::any::{Any, TypeId};
use std::collections::HashMap;

use super::envelope::Recipients;
use super::mailbox::Mailbox;
use crate::sync::{Arc, RwLock};

/// Who listens, by the type of events.
#[derive(Default)]
pub(super) struct Registry {
    /// Each an `Arc<RwLock<Listeners<E>>>` for the `E` of the key. Never shrinks: there are as many as types.
    by_type: RwLock<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

/// Who listens to events of one type.
struct Listeners<E> {
    /// All of them, in the order of subscribing.
    all: Vec<Arc<Mailbox<E>>>,
    /// The list of those without a topic.
    general: Recipients<E>,
    /// The lists of topics that somebody listens to.
    by_topic: HashMap<Arc<str>, Recipients<E>>,
}

impl Registry {
    /// The list for an event.
    pub(super) fn recipients<E: Send + Sync + 'static>(&self, topic: Option<&str>) -> Option<Recipients<E>> {
        let listeners = self.find::<E>()?;
        let listeners = listeners.read();
        let of_topic = topic.and_then(|topic| listeners.by_topic.get(topic));
        Some(Arc::clone(of_topic.unwrap_or(&listeners.general)))
    }

    pub(super) fn add<E: Send + Sync + 'static>(&self, mailbox: Arc<Mailbox<E>>) {
        let listeners = self.find_or_make::<E>();
        let before = {
            let mut listeners = listeners.write();
            let topic = mailbox.topic().cloned();
            listeners.all.push(mailbox);
            listeners.renew(topic.as_ref())
        };
        drop(before); // it may be the last to know a mailbox, whose handler is foreign
    }

    pub(super) fn remove<E: Send + Sync + 'static>(&self, mailbox: &Arc<Mailbox<E>>) {
        let Some(listeners) = self.find::<E>() else { return };
        let before = {
            let mut listeners = listeners.write();
            let place = listeners.all.iter().position(|known| Arc::ptr_eq(known, mailbox));
            let removed = place.map(|place| listeners.all.remove(place));
            (removed, listeners.renew(mailbox.topic()))
        };
        drop(before);
    }

    fn find<E: Send + Sync + 'static>(&self) -> Option<Arc<RwLock<Listeners<E>>>> {
        self.by_type.read().get(&TypeId::of::<E>()).map(as_listeners)
    }

    fn find_or_make<E: Send + Sync + 'static>(&self) -> Arc<RwLock<Listeners<E>>> {
        let make = || Arc::new(RwLock::new(Listeners::<E>::new())) as _;
        as_listeners(self.by_type.write().entry(TypeId::of::<E>()).or_insert_with(make))
    }
}

fn as_listeners<E: Send + Sync + 'static>(any: &Arc<dyn Any + Send + Sync>) -> Arc<RwLock<Listeners<E>>> {
    Arc::clone(any).downcast().expect("the key is the type")
}

impl<E> Listeners<E> {
    fn new() -> Self {
        Self { all: Vec::new(), general: Arc::new([]), by_topic: HashMap::new() }
    }

    /// Makes the lists anew that a change with this topic concerns: all of them, if it has none. Returns the old ones, to
    /// be dropped under no lock.
    fn renew(&mut self, topic: Option<&Arc<str>>) -> Vec<Recipients<E>> {
        let topics: Vec<Arc<str>> = match topic {
            Some(topic) => vec![Arc::clone(topic)],
            None => self.by_topic.keys().cloned().collect(),
        };
        let mut before = Vec::new();
        if topic.is_none() {
            let list = self.list(None);
            before.push(std::mem::replace(&mut self.general, list));
        }
        for topic in topics {
            let list = self.list(Some(&topic));
            let is_needed = list.iter().any(|mailbox| mailbox.topic().is_some());
            before.extend(if is_needed { self.by_topic.insert(topic, list) } else { self.by_topic.remove(&topic) });
        }
        before
    }

    fn list(&self, topic: Option<&Arc<str>>) -> Recipients<E> {
        let listens = |mailbox: &&Arc<Mailbox<E>>| mailbox.topic().is_none() || mailbox.topic() == topic;
        self.all.iter().filter(listens).cloned().collect()
    }
}
