//! The subscriptions of a bus, by type and topic.
//!
//! For each type of events and each topic there is a *list* of the recipients in the order of
//! subscribing. A list never changes: a change of the subscriptions drops the lists that it
//! affects, and the next publisher builds them again. So a series of changes is cheap. A publisher
//! takes a reference to the list and holds no lock while it goes through it. A subscription that is
//! added meanwhile gets the next event; a subscription that ends meanwhile declines this one.
//!
//! A subscription without a topic is on the list of every topic. Costs:
//!
//! - A list is built from the subscriptions that are on it, however many other topics there are.
//! - A change with a topic drops one list.
//! - A change without a topic drops the lists that were built since the last such change. So each
//!   publish pays for at most one of them.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;

use super::envelope::Names;
use super::mailbox::Mailbox;
use crate::sync::{Arc, RwLock};
use crate::task::context::GroupId;

/// All subscriptions of a bus, by the type of events.
#[derive(Default)]
pub(super) struct Registry {
    /// Each value is an `Arc<RwLock<Subscribers<E>>>` for the `E` of its key. Never shrinks: it has
    /// one entry for each type.
    by_type: RwLock<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

/// The subscriptions to events of one type.
struct Subscribers<E> {
    /// The subscriptions without a topic.
    general: TopicSubscribers<E>,
    /// The subscriptions with a topic, for each topic that has some.
    by_topic: HashMap<Arc<str>, TopicSubscribers<E>>,
    /// The topics whose list is built.
    cached: HashSet<Arc<str>>,
    /// How many mailboxes and lists all changes and publishers had to visit.
    #[cfg(test)]
    visits: usize,
}

/// The subscriptions with one topic, or those without a topic.
struct TopicSubscribers<E> {
    /// The mailboxes by their groups, whose ids increase in the order of subscribing.
    mailboxes: BTreeMap<GroupId, Arc<Mailbox<E>>>,
    /// The list for an event with this topic; `None` until the next publisher builds it.
    recipients: Option<Arc<Recipients<E>>>,
}

/// The recipients of an event, in the order of subscribing.
pub(super) struct Recipients<E> {
    /// The mailboxes.
    pub(super) mailboxes: Box<[Arc<Mailbox<E>>]>,
    /// The names of their subscriptions.
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
    /// Returns the list for an event; `None` if its type never had a subscription.
    pub(super) fn recipients<E: Send + Sync + 'static>(&self, topic: Option<&str>) -> Option<Arc<Recipients<E>>> {
        let subscribers = self.get::<E>()?;
        let list = subscribers.read().list(topic).recipients.clone();
        Some(list.unwrap_or_else(|| subscribers.write().build_list(topic)))
    }

    /// Returns `true` if an event would have a recipient.
    pub(super) fn has_recipients<E: Send + Sync + 'static>(&self, topic: Option<&str>) -> bool {
        self.get::<E>().is_some_and(|subscribers| {
            let subscribers = subscribers.read();
            !subscribers.general.mailboxes.is_empty() || !subscribers.list(topic).mailboxes.is_empty()
        })
    }

    /// Adds a subscription.
    pub(super) fn add<E: Send + Sync + 'static>(&self, mailbox: Arc<Mailbox<E>>) {
        let subscribers = self.get_or_insert::<E>();
        let removed = {
            let mut subscribers = subscribers.write();
            let topic = mailbox.topic().cloned();
            subscribers.list_mut(topic.as_ref()).mailboxes.insert(mailbox.group, mailbox);
            subscribers.invalidate(topic.as_ref())
        };
        drop(removed); // the last reference to a mailbox drops its handler, which is user code
    }

    /// Removes a subscription, if it is here.
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

    /// Returns the entry whose list is used for an event with this topic.
    fn list(&self, topic: Option<&str>) -> &TopicSubscribers<E> {
        topic.and_then(|topic| self.by_topic.get(topic)).unwrap_or(&self.general)
    }

    /// Returns the entry of subscriptions with this topic.
    fn list_mut(&mut self, topic: Option<&Arc<str>>) -> &mut TopicSubscribers<E> {
        match topic {
            None => &mut self.general,
            Some(topic) => self.by_topic.entry(Arc::clone(topic)).or_insert_with(TopicSubscribers::new),
        }
    }

    /// Takes the lists that a change with this topic affects; all, if it has none. Drop them
    /// without the lock.
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

    /// Returns the list for an event with this topic, and builds it if there is none.
    fn build_list(&mut self, topic: Option<&str>) -> Arc<Recipients<E>> {
        let topic = topic.and_then(|topic| self.by_topic.get_key_value(topic)).map(|(topic, _)| Arc::clone(topic));
        if let Some(list) = &self.list(topic.as_deref()).recipients {
            return Arc::clone(list);
        }
        let with_topic = topic.as_ref().map(|topic| &self.by_topic[topic].mailboxes);
        let with_topic = with_topic.into_iter().flat_map(BTreeMap::values);
        let mut mailboxes: Vec<_> = self.general.mailboxes.values().chain(with_topic).cloned().collect();
        mailboxes.sort_by_key(|mailbox| mailbox.group); // linear: these are two sorted runs
        self.count_visits(mailboxes.len());
        let list: Arc<Recipients<E>> = Arc::new(mailboxes.into_iter().collect());
        self.list_mut(topic.as_ref()).recipients = Some(Arc::clone(&list));
        self.cached.extend(topic);
        list
    }

    #[cfg_attr(not(test), allow(clippy::unused_self, reason = "used in tests"))]
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
    fn publishing_and_subscribing_visit_no_other_topics() {
        let pool = WorkerPool::builder().workers(1).build().expect("a thread");
        let bus = EventBus::new(&pool);
        let _topics: Vec<_> = (0..TOPICS).map(|topic| subscribe(&bus, Some(topic.to_string()))).collect();
        let _general = subscribe(&bus, None);
        visits(&bus);
        assert_eq!(bus.publish_to("7", 1_u32).handlers(), 2);
        assert_eq!(visits(&bus), 2, "the first publish to a topic visits its two recipients");
        assert_eq!(bus.publish_to("7", 1_u32).handlers(), 2);
        assert_eq!(visits(&bus), 0, "the next publish uses the list");
        drop(subscribe(&bus, Some("7".to_owned())));
        assert_eq!(visits(&bus), 1, "a change of a topic drops its list");
        bus.publish_to("7", 1_u32);
        bus.publish_to("8", 1_u32);
        visits(&bus);
        for _ in 0..100 {
            drop(subscribe(&bus, None));
        }
        assert_eq!(visits(&bus), 2, "a hundred changes without a topic drop the two lists that were built");
        for publish in 0..100 {
            let guard = subscribe(&bus, None);
            assert_eq!(bus.publish_to("9", 1_u32).handlers(), 3, "publish {publish}");
            drop(guard);
        }
        assert_eq!(visits(&bus), 100 * (3 + 1), "each list is built once and dropped once");
    }

    /// Fault 177.
    #[test]
    fn subscribing_and_unsubscribing_visits_no_other_subscription() {
        let pool = WorkerPool::builder().workers(1).build().expect("a thread");
        let bus = EventBus::new(&pool);
        let mut others: Vec<_> = (0..TOPICS).map(|_| subscribe(&bus, None)).collect();
        bus.publish(1_u32); // builds the list
        visits(&bus);
        for _ in 0..100 {
            drop(subscribe(&bus, None));
            drop(others.swap_remove(others.len() / 2));
        }
        assert_eq!(visits(&bus), 1, "the single list is dropped once");
        let live = bus.inner.members.lock().len();
        assert_eq!(live, TOPICS - 100, "dropped subscriptions have left the bus");
    }

    #[test]
    fn recipients_of_any_topics_are_in_the_order_of_subscribing() {
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
