//! How the metrics of a bus are read.
//!
//! Reading locks the list of subscriptions once, and then each mailbox for the time to read its
//! lengths. It never holds two locks, and publishers take no lock of its own.

use super::event_bus::EventBus;
use super::inner::BusInner;
use super::mailbox::{Lengths, Mailbox};
use super::metrics::{EventBusMetrics, SubscriptionMetrics};
use crate::sync::{Arc, Ordering};

impl<E> Mailbox<E> {
    /// Returns a snapshot of the counters of the subscription.
    pub(super) fn metrics(&self) -> SubscriptionMetrics {
        let Lengths { waiting, delayed, running } = self.state.lock().lengths();
        SubscriptionMetrics {
            name: Arc::clone(&self.settings.name),
            topic: self.settings.topic.clone(),
            mailbox_len: waiting + delayed,
            mailbox_capacity: self.settings.capacity,
            deliveries_delayed: delayed,
            handlers_running: running,
            deliveries: self.counters.read(),
        }
    }
}

impl EventBusMetrics {
    /// Adds what a mailbox holds.
    pub(super) fn add_mailbox(&mut self, subscription: &SubscriptionMetrics) {
        self.mailbox_len += subscription.mailbox_len;
        self.deliveries_delayed += subscription.deliveries_delayed;
        self.handlers_running += subscription.handlers_running;
        let deepest = self.deepest_mailbox.as_ref().map_or(0, |deepest| deepest.mailbox_len);
        if subscription.mailbox_len > deepest {
            self.deepest_mailbox = Some(subscription.clone());
        }
    }
}

/// # Metrics
impl EventBus {
    /// Returns a snapshot of the counters. Nothing is measured between two calls, except for
    /// counters of events and deliveries.
    ///
    /// Takes time in proportion to the number of subscriptions, and locks each mailbox for a
    /// moment. Runs no user code, and is safe to call at any time.
    #[must_use]
    pub fn metrics(&self) -> EventBusMetrics {
        self.inner.metrics().0
    }

    /// Returns a snapshot of the counters of each subscription, in the order of subscribing. This
    /// includes detached ones, and those that have ended while they have a delivery that has not.
    ///
    /// # Examples
    ///
    /// ```
    /// use workcrew::WorkerPool;
    /// use workcrew::events::EventBus;
    ///
    /// let pool = WorkerPool::builder().workers(1).build()?;
    /// let bus = EventBus::new(&pool);
    /// bus.subscription::<u32>().name("numbers").handle(|_| ()).detach();
    /// bus.publish(7_u32).wait().unwrap();
    /// let numbers = &bus.subscription_metrics()[0];
    /// assert_eq!((&*numbers.name, numbers.deliveries.handled), ("numbers", 1));
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    #[must_use]
    pub fn subscription_metrics(&self) -> Vec<SubscriptionMetrics> {
        self.inner.metrics().1
    }
}

impl BusInner {
    /// Returns the metrics of the bus, and those of each subscription.
    fn metrics(&self) -> (EventBusMetrics, Vec<SubscriptionMetrics>) {
        let (subscriptions, deliveries, mailboxes) = {
            let members = self.members.lock();
            (members.len(), members.counts(), members.mailboxes().map(|(_, mailbox)| mailbox).collect::<Vec<_>>())
        };
        let mut metrics = EventBusMetrics {
            events_published: self.events.0.published(),
            events_unhandled: self.events.0.unhandled(),
            events_refused: self.events.0.refused(),
            events_pending: self.events.0.pending.load(Ordering::Relaxed),
            subscriptions,
            deliveries,
            ..EventBusMetrics::default()
        };
        let each: Vec<_> = mailboxes.iter().map(|mailbox| mailbox.metrics()).collect();
        each.iter().for_each(|subscription| metrics.add_mailbox(subscription));
        (metrics, each)
    }
}

/// The metrics of a bus, and those of its subscriptions, where those of one name count together.
#[cfg(feature = "prometheus")]
pub(crate) struct BusSample {
    pub(crate) bus: EventBusMetrics,
    pub(crate) subscriptions: Vec<SubscriptionMetrics>,
}

#[cfg(feature = "prometheus")]
impl EventBus {
    /// Returns a function that reads the metrics while the bus exists: until its last clone has
    /// been dropped and all published events have been delivered.
    pub(crate) fn metrics_source(&self) -> impl Fn() -> Option<BusSample> + Send + Sync + 'static {
        let (inner, registry) = (Arc::downgrade(&self.inner), Arc::downgrade(&self.registry));
        move || {
            let inner = inner.upgrade()?;
            let exists = registry.strong_count() > 0 || !inner.is_idle();
            exists.then(|| inner.sample())
        }
    }
}

#[cfg(feature = "prometheus")]
impl BusInner {
    fn sample(&self) -> BusSample {
        let (bus, each) = self.metrics();
        let counts = self.members.lock().counts_by_name();
        let with_name = |(name, deliveries)| SubscriptionMetrics { name, deliveries, ..SubscriptionMetrics::default() };
        let mut subscriptions: Vec<_> = counts.into_iter().map(with_name).collect();
        for one in each {
            let position = subscriptions.binary_search_by(|other| other.name.cmp(&one.name));
            // A subscription that has ended meanwhile may have been the last with its name.
            if let Ok(position) = position {
                let sum = &mut subscriptions[position];
                sum.mailbox_len += one.mailbox_len;
                sum.mailbox_capacity += one.mailbox_capacity;
                sum.deliveries_delayed += one.deliveries_delayed;
                sum.handlers_running += one.handlers_running;
            }
        }
        BusSample { bus, subscriptions }
    }
}
