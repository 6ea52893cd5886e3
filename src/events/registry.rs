//! The subscriptions of a bus, by type and topic.
//!
//! For each type of events, and each topic, there is a *list* of the recipients in the order of subscribing, which is never
//! changed. A change drops the lists that it concerns, and the next publisher makes them anew; so many changes in a row cost
//! little. A publisher takes the list as it is and holds no lock while it goes through it: a subscription added meanwhile
//! gets the next event, one that ends meanwhile refuses this one by itself.
//!
//! A subscription without a topic is on the list of every topic. Costs: a list is made from the subscriptions that are on
//! it, whatever other topics there are. A change with a topic drops one list. A change without a topic drops the
//! lists that were made since the last such change, so each publish pays for at most one of them.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;

use super::envelope::Names;
use super::mailbox::Mailbox;
use crate::sync::{Arc, RwLock};
use crate::task::context::GroupId;

/// All subscriptions, by the type of events.
#[derive(Default)]
pub(super) struct Registry {
    /// Each an `Arc<RwLock<Subscribers<E>>>` for the `E` of the key. Never shrinks: there are as many as types.
    by_type: RwLock<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

/// The subscriptions to events of one type.
struct Subscribers<E> {
    general: TopicSubscribers<E>,
    /// The topics that have subscriptions.
    by_topic: HashMap<Arc<str>, TopicSubscribers<E>>,
    /// The topics whose list is list.
    cached: HashSet<Arc<str>>,
    /// How many mailboxes and lists all changes and publishers had to look at.
    #[cfg(test)]
    visits: usize,
}

/// The subscriptions with one topic, or without a topic.
struct TopicSubscribers<E> {
    /// By their names, which grow.
    mailboxes: BTreeMap<GroupId, Arc<Mailbox<E>>>,
    /// The recipients of an event with this topic. `None`: to be made by the next publisher.
    recipients: Option<Arc<Recipients<E>>>,
}

/// Whom an event is for, in the order of subscribing.
pub(super) struct Recipients<E> {
    pub(super) mailboxes: Box<[Arc<Mailbox<E>>]>,
    pub(super) names: Names,
}

impl<E> FromIterator<Arc<Mailbox<E>>> for Recipients<E> {
    fn from_iter<I: IntoIterator<Item = Arc<Mailbox<E>>>>(mailboxes: I) -> Self {
        let mailboxes: Box<[_]> = mailboxes.into_iter().collect();
        let names = mailboxes.iter().map(|mailbox| Arc::clone(&mailbox.settings.name)).collect();
        Self { mailboxes, names }
    }
}

impl Registry {
    /// The list for an event.
    pub(super) fn recipients<E: Send + Sync + 'static>(&self, topic: Option<&str>) -> Option<Arc<Recipients<E>>> {
        let subscribers = self.get::<E>()?;
        let list = subscribers.read().list(topic).recipients.clone();
        Some(list.unwrap_or_else(|| subscribers.write().build_list(topic)))
    }

    /// Whether an event would find anybody.
    pub(super) fn has_recipients<E: Send + Sync + 'static>(&self, topic: Option<&str>) -> bool {
        self.get::<E>().is_some_and(|subscribers| {
            let subscribers = subscribers.read();
            !subscribers.general.mailboxes.is_empty() || !subscribers.list(topic).mailboxes.is_empty()
        })
    }

    pub(super) fn add<E: Send + Sync + 'static>(&self, mailbox: Arc<Mailbox<E>>) {
        let subscribers = self.get_or_insert::<E>();
        let removed = {
            let mut subscribers = subscribers.write();
            let topic = mailbox.topic().cloned();
            subscribers.list_mut(topic.as_ref()).mailboxes.insert(mailbox.group, mailbox);
            subscribers.invalidate(topic.as_ref())
        };
        drop(removed); // it may be the last to know a mailbox, whose handler is user code
    }

    pub(super) fn remove<E: Send + Sync + 'static>(&self, mailbox: &Arc<Mailbox<E>>) {
        let Some(subscribers) = self.get::<E>() else { return };
        let removed = {
            let mut subscribers = subscribers.write();
            let topic = mailbox.topic();
            let entry = match topic {
                None => Some(&mut subscribers.general),
                Some(topic) => subscribers.by_topic.get_mut(topic),
            };
            let Some(entry) = entry else { return };
            let Some(mailbox) = entry.mailboxes.remove(&mailbox.group) else { return };
            let is_last = entry.mailboxes.is_empty();
            let invalidated = subscribers.invalidate(topic);
            if let (true, Some(topic)) = (is_last, topic) {
                subscribers.by_topic.remove(topic);
            }
            (mailbox, invalidated)
        };
        drop(removed);
    }

    fn get<E: Send + Sync + 'static>(&self) -> Option<Arc<RwLock<Subscribers<E>>>> {
        self.by_type.read().get(&TypeId::of::<E>()).map(as_subscribers)
    }

    fn get_or_insert<E: Send + Sync + 'static>(&self) -> Arc<RwLock<Subscribers<E>>> {
        let make = || Arc::new(RwLock::new(Subscribers::<E>::new())) as _;
        as_subscribers(self.by_type.write().entry(TypeId::of::<E>()).or_insert_with(make))
    }
}

fn as_subscribers<E: Send + Sync + 'static>(any: &Arc<dyn Any + Send + Sync>) -> Arc<RwLock<Subscribers<E>>> {
    Arc::clone(any).downcast().expect("the key is the type")
}

impl<E> Subscribers<E> {
    fn new() -> Self {
        Self {
            general: TopicSubscribers::new(),
            by_topic: HashMap::new(),
            cached: HashSet::new(),
            #[cfg(test)]
            visits: 0,
        }
    }

    /// What an event with this topic goes by.
    fn list(&self, topic: Option<&str>) -> &TopicSubscribers<E> {
        topic.and_then(|topic| self.by_topic.get(topic)).unwrap_or(&self.general)
    }

    /// Where a subscription with this topic belongs.
    fn list_mut(&mut self, topic: Option<&Arc<str>>) -> &mut TopicSubscribers<E> {
        match topic {
            None => &mut self.general,
            Some(topic) => self.by_topic.entry(Arc::clone(topic)).or_insert_with(TopicSubscribers::new),
        }
    }

    /// Drops the lists that a change with this topic concerns: all, if it has none. They are to be dropped under no lock.
    fn invalidate(&mut self, topic: Option<&Arc<str>>) -> Vec<Arc<Recipients<E>>> {
        let invalidated: Vec<_> = match topic {
            Some(topic) => {
                self.cached.remove(topic);
                self.by_topic.get_mut(topic).and_then(|list| list.recipients.take()).into_iter().collect()
            }
            None => {
                let cached = mem::take(&mut self.cached);
                let lists = cached.iter().filter_map(|topic| self.by_topic.get_mut(topic)?.recipients.take());
                lists.chain(self.general.recipients.take()).collect()
            }
        };
        self.count_visits(invalidated.len());
        invalidated
    }

    /// The list for an event with this topic, made if need be.
    fn build_list(&mut self, topic: Option<&str>) -> Arc<Recipients<E>> {
        let topic = topic.and_then(|topic| self.by_topic.get_key_value(topic)).map(|(topic, _)| Arc::clone(topic));
        if let Some(list) = &self.list(topic.as_deref()).recipients {
            return Arc::clone(list);
        }
        let with_topic = topic.as_ref().map(|topic| &self.by_topic[topic].mailboxes);
        let with_topic = with_topic.into_iter().flat_map(BTreeMap::values);
        let mut mailboxes: Vec<_> = self.general.mailboxes.values().chain(with_topic).cloned().collect();
        mailboxes.sort_by_key(|mailbox| mailbox.group); // two runs that are sorted: linear
        self.count_visits(mailboxes.len());
        let list: Arc<Recipients<E>> = Arc::new(mailboxes.into_iter().collect());
        self.list_mut(topic.as_ref()).recipients = Some(Arc::clone(&list));
        self.cached.extend(topic);
        list
    }

    #[cfg_attr(not(test), allow(clippy::unused_self, reason = "tests count"))]
    fn count_visits(&mut self, visits: usize) {
        #[cfg(test)]
        {
            self.visits += visits;
        }
        #[cfg(not(test))]
        let _ = visits;
    }
}

impl<E> TopicSubscribers<E> {
    fn new() -> Self {
        Self { mailboxes: BTreeMap::new(), recipients: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{EventBus, Subscription};
    use crate::pool::worker_pool::WorkerPool;

    const TOPICS: usize = 20_000;

    fn visits(bus: &EventBus) -> usize {
        let subscribers = bus.registry.get::<u32>().expect("there is a subscription");
        mem::take(&mut subscribers.write().visits)
    }

    fn subscribe(bus: &EventBus, topic: Option<String>) -> Subscription {
        let builder = bus.subscription::<u32>().synchronous();
        if let Some(topic) = topic { builder.topic(topic) } else { builder }.handle(|_| ())
    }

    /// Fault 177.
    #[test]
    fn publishing_and_subscribing_cost_nothing_for_the_topics_of_others() {
        let pool = WorkerPool::builder().workers(1).build().expect("a thread");
        let bus = EventBus::new(&pool);
        let _topics: Vec<_> = (0..TOPICS).map(|topic| subscribe(&bus, Some(topic.to_string()))).collect();
        let _general = subscribe(&bus, None);
        visits(&bus);
        assert_eq!(bus.publish_to("7", 1_u32).handlers(), 2);
        assert_eq!(visits(&bus), 2, "the first publish to a topic visits at its two recipients");
        assert_eq!(bus.publish_to("7", 1_u32).handlers(), 2);
        assert_eq!(visits(&bus), 0, "the next one takes the list as it is");
        drop(subscribe(&bus, Some("7".to_owned())));
        assert_eq!(visits(&bus), 1, "a change of a topic drops its list");
        bus.publish_to("7", 1_u32);
        bus.publish_to("8", 1_u32);
        visits(&bus);
        for _ in 0..100 {
            drop(subscribe(&bus, None));
        }
        assert_eq!(visits(&bus), 2, "a hundred changes without a topic drop the two lists that were made");
        for publish in 0..100 {
            let guard = subscribe(&bus, None);
            assert_eq!(bus.publish_to("9", 1_u32).handlers(), 3, "publish {publish}");
            drop(guard);
        }
        assert_eq!(visits(&bus), 100 * (3 + 1), "each list is made once and dropped once");
    }

    /// Fault 177.
    #[test]
    fn subscribing_and_unsubscribing_one_of_many_looks_at_no_other() {
        let pool = WorkerPool::builder().workers(1).build().expect("a thread");
        let bus = EventBus::new(&pool);
        let mut others: Vec<_> = (0..TOPICS).map(|_| subscribe(&bus, None)).collect();
        bus.publish(1_u32); // makes the list
        visits(&bus);
        for _ in 0..100 {
            drop(subscribe(&bus, None));
            drop(others.swap_remove(others.len() / 2));
        }
        assert_eq!(visits(&bus), 1, "the one list is dropped once");
        let live = bus.inner.mailboxes.lock().len();
        assert_eq!(live, TOPICS - 100, "what was dropped is gone");
    }

    #[test]
    fn recipients_come_in_the_order_of_subscribing_whatever_their_topics() {
        let pool = WorkerPool::builder().workers(1).build().expect("a thread");
        let bus = EventBus::new(&pool);
        let named = |name: &'static str, topic: Option<&'static str>| {
            let builder = bus.subscription::<u32>().name(name).synchronous();
            if let Some(topic) = topic { builder.topic(topic) } else { builder }.handle(|_| ())
        };
        let _guards = [named("a", Some("t")), named("b", None), named("x", Some("u")), named("c", Some("t"))];
        let names = |topic: Option<&str>| -> Vec<String> {
            let recipients = bus.registry.recipients::<u32>(topic).expect("there is a subscription");
            recipients.names.iter().map(ToString::to_string).collect()
        };
        assert_eq!(names(Some("t")), ["a", "b", "c"]);
        assert_eq!((names(None), names(Some("v"))), (vec!["b".to_owned()], vec!["b".to_owned()]));
    }
}
