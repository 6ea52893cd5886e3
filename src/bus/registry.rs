//! Who listens to what.
//!
//! For each type of events, and each topic, there is a *list* of subscriptions in the order of subscribing, which is never
//! changed. A change drops the lists that it concerns, and the next publisher makes them anew; so many changes in a row cost
//! little. A publisher takes the list as it is and holds no lock while it goes through it: a subscription added meanwhile
//! gets the next event, one that ends meanwhile refuses this one by itself.
//!
//! A subscription without a topic is on the list of every topic.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};

use super::envelope::Recipients;
use super::mailbox::Mailbox;
use crate::local::Name;
use crate::sync::{Arc, RwLock};

/// Who listens, by the type of events.
#[derive(Default)]
pub(super) struct Registry {
    /// Each an `Arc<RwLock<Listeners<E>>>` for the `E` of the key. Never shrinks: there are as many as types.
    by_type: RwLock<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

/// Who listens to events of one type.
struct Listeners<E> {
    /// All of them, by their names, which grow.
    all: BTreeMap<Name, Arc<Mailbox<E>>>,
    general: List<E>,
    /// The topics that somebody listens to.
    by_topic: HashMap<Arc<str>, List<E>>,
}

/// The list of a topic, or of no topic.
struct List<E> {
    /// How many subscriptions have this topic, or none.
    own: usize,
    /// `None`: to be made by the next publisher.
    recipients: Option<Arc<Recipients<E>>>,
}

impl Registry {
    /// The list for an event.
    pub(super) fn recipients<E: Send + Sync + 'static>(&self, topic: Option<&str>) -> Option<Arc<Recipients<E>>> {
        let listeners = self.find::<E>()?;
        let made = listeners.read().list(topic).recipients.clone();
        Some(made.unwrap_or_else(|| listeners.write().make(topic)))
    }

    /// Whether an event would find anybody.
    pub(super) fn has_recipients<E: Send + Sync + 'static>(&self, topic: Option<&str>) -> bool {
        self.find::<E>().is_some_and(|listeners| {
            let listeners = listeners.read();
            listeners.general.own > 0 || listeners.list(topic).own > 0
        })
    }

    pub(super) fn add<E: Send + Sync + 'static>(&self, mailbox: Arc<Mailbox<E>>) {
        let listeners = self.find_or_make::<E>();
        let before = {
            let mut listeners = listeners.write();
            let topic = mailbox.topic().cloned();
            listeners.all.insert(mailbox.group, mailbox);
            listeners.own_list(topic.as_ref()).own += 1;
            listeners.outdate(topic.as_ref())
        };
        drop(before); // it may be the last to know a mailbox, whose handler is foreign
    }

    pub(super) fn remove<E: Send + Sync + 'static>(&self, mailbox: &Arc<Mailbox<E>>) {
        let Some(listeners) = self.find::<E>() else { return };
        let before = {
            let mut listeners = listeners.write();
            let Some(removed) = listeners.all.remove(&mailbox.group) else { return };
            let list = listeners.own_list(mailbox.topic());
            list.own -= 1;
            let is_topic_over = list.own == 0;
            let mut outdated = listeners.outdate(mailbox.topic());
            if let (true, Some(topic)) = (is_topic_over, mailbox.topic()) {
                outdated.extend(listeners.by_topic.remove(topic).and_then(|list| list.recipients));
            }
            (removed, outdated)
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
        Self { all: BTreeMap::new(), general: List::new(), by_topic: HashMap::new() }
    }

    /// The list for an event with this topic.
    fn list(&self, topic: Option<&str>) -> &List<E> {
        topic.and_then(|topic| self.by_topic.get(topic)).unwrap_or(&self.general)
    }

    /// The list that a subscription with this topic is counted in.
    fn own_list(&mut self, topic: Option<&Arc<str>>) -> &mut List<E> {
        match topic {
            None => &mut self.general,
            Some(topic) => self.by_topic.entry(Arc::clone(topic)).or_insert_with(List::new),
        }
    }

    /// Drops the lists that a change with this topic concerns: all, if it has none. They are to be dropped under no lock.
    fn outdate(&mut self, topic: Option<&Arc<str>>) -> Vec<Arc<Recipients<E>>> {
        match topic {
            Some(topic) => self.by_topic.get_mut(topic).and_then(|list| list.recipients.take()).into_iter().collect(),
            None => {
                let lists = self.by_topic.values_mut().chain([&mut self.general]);
                lists.filter_map(|list| list.recipients.take()).collect()
            }
        }
    }

    /// The list for an event with this topic, made if need be.
    fn make(&mut self, topic: Option<&str>) -> Arc<Recipients<E>> {
        let topic = topic.filter(|topic| self.by_topic.contains_key(*topic));
        if let Some(made) = &self.list(topic).recipients {
            return Arc::clone(made);
        }
        let listens = |mailbox: &&Arc<Mailbox<E>>| mailbox.topic().is_none_or(|own| Some(&**own) == topic);
        let made: Arc<Recipients<E>> = Arc::new(self.all.values().filter(listens).cloned().collect());
        let list = topic.and_then(|topic| self.by_topic.get_mut(topic)).unwrap_or(&mut self.general);
        list.recipients = Some(Arc::clone(&made));
        made
    }
}

impl<E> List<E> {
    fn new() -> Self {
        Self { own: 0, recipients: None }
    }
}
