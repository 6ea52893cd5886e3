//! The guard of a subscription.

use std::fmt;

use super::mailbox::Mailbox;
use super::metrics::SubscriptionMetrics;
use super::registry::Registry;
use crate::error::CancelReason;
use crate::sync::{Arc, Weak};
use crate::unwind;

/// A guard that keeps a handler subscribed until it is dropped. Returned by
/// [`EventBus::subscribe`](crate::events::EventBus::subscribe).
///
/// When the drop has returned, the handler is not called any more. Waiting events are cancelled,
/// events that wait for another attempt become dead letters, and the handler is dropped. The drop
/// does not wait for a handler that is running; [`unsubscribe`](Self::unsubscribe) does.
///
/// # Examples
///
/// ```
/// use workcrew::WorkerPool;
/// use workcrew::events::EventBus;
///
/// let pool = WorkerPool::builder().workers(1).build()?;
/// let bus = EventBus::new(&pool);
/// let subscription = bus.subscribe(|text: &String| println!("{text}"));
/// assert!(bus.has_subscribers::<String>());
/// drop(subscription);
/// assert!(!bus.has_subscribers::<String>());
/// # Ok::<(), workcrew::BuildError>(())
/// ```
#[must_use = "dropping the guard unsubscribes, as `let _ =` does at once: bind it to a name, or call `detach`"]
pub struct Subscription {
    /// The mailbox and its registry; `None` if the subscription is detached or has ended.
    active: Option<(Arc<dyn Subscribed>, Weak<Registry>)>,
}

impl Subscription {
    pub(super) fn new<E: Send + Sync + 'static>(mailbox: Arc<Mailbox<E>>, registry: Weak<Registry>) -> Self {
        Self { active: Some((mailbox, registry)) }
    }

    /// Unsubscribes, and blocks until the handler is not running any more. Returns `true` if the
    /// handler is not running.
    ///
    /// It does not block, and may return `false`, where the wait could not end: in a task of the
    /// pool, such as the handler itself, and in a task of another pool that the handler waits for.
    /// It does not wait for a handler that a [timed shutdown](crate::WorkerPool::shutdown_timeout)
    /// of the pool left behind either.
    #[allow(clippy::must_use_candidate, reason = "it is nearly always `true`")]
    pub fn unsubscribe(mut self) -> bool {
        let Some((mailbox, registry)) = self.active.take() else { return true };
        Arc::clone(&mailbox).end(registry.upgrade().as_deref());
        mailbox.wait_stopped()
    }

    /// Keeps the handler subscribed as long as the bus lives: until the last clone has been dropped
    /// and all published events have been delivered.
    ///
    /// A detached handler that holds a clone of its own bus keeps both alive forever. For a handler
    /// that publishes, keep the guard and drop it when the handler is no longer needed.
    pub fn detach(mut self) {
        self.active = None;
    }

    /// Returns a snapshot of the counters of the subscription. Locks its mailbox for a moment.
    #[must_use]
    pub fn metrics(&self) -> SubscriptionMetrics {
        self.active.as_ref().map_or_else(SubscriptionMetrics::default, |(mailbox, _)| mailbox.metrics())
    }

    /// Returns the name of the subscription.
    #[must_use]
    pub fn name(&self) -> &str {
        self.active.as_ref().map_or("", |(mailbox, _)| mailbox.name())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some((mailbox, registry)) = self.active.take() {
            mailbox.end(registry.upgrade().as_deref());
        }
    }
}

unwind::safe!(Subscription);

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// What a guard needs of its subscription, independent of the type of events.
trait Subscribed: Send + Sync {
    /// Returns the name of the subscription.
    fn name(&self) -> &str;

    /// Returns a snapshot of the counters.
    fn metrics(&self) -> SubscriptionMetrics;

    /// Unsubscribes.
    fn end(self: Arc<Self>, registry: Option<&Registry>);

    /// Blocks until the handler is not running. Returns `true` if it is not.
    fn wait_stopped(self: Arc<Self>) -> bool;
}

impl<E: Send + Sync + 'static> Subscribed for Mailbox<E> {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn metrics(&self) -> SubscriptionMetrics {
        Mailbox::metrics(self)
    }

    fn end(self: Arc<Self>, registry: Option<&Registry>) {
        if let Some(registry) = registry {
            registry.remove(&self);
        }
        self.close(CancelReason::Requested);
    }

    fn wait_stopped(self: Arc<Self>) -> bool {
        Mailbox::wait_stopped(&self)
    }
}
