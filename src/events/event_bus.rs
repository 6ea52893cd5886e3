//! The public face of an event bus.

use std::any::type_name;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

use super::dead_letter::UnhandledEvent;
use super::envelope::Envelope;
use super::erased::AnyEvent;
use super::inner::BusInner;
use super::progress::PUBLISHING;
use super::publish;
use super::receipt::Receipt;
use super::registry::{Recipients, Registry};
use crate::nesting;
use crate::sync::Arc;
use crate::task::context;
use crate::task::waits::Refused;
use crate::time::deadline::Deadline;
use crate::unwind;

/// An event bus, which delivers events to their handlers on the workers of a pool.
///
/// An event is a value of any type. A handler subscribes to a type, and optionally to a topic. Each
/// subscription has a bounded mailbox of its own. So a slow, failing or panicking handler does not
/// keep an event from other subscriptions. Clones refer to the same bus.
///
/// When the last clone has been dropped, nothing more can be published, but everything published
/// before is still delivered. Each delivery is a task of the pool:
/// [`WorkerPool::metrics`](crate::WorkerPool::metrics) counts it,
/// [`WorkerPool::running`](crate::WorkerPool::running) shows it with the name of its subscription,
/// and a [shutdown](crate::WorkerPool::shutdown) drains it.
///
/// # Inside a handler
///
/// A handler may publish, subscribe, unsubscribe (itself too), and wait for a [`Receipt`]. It runs
/// with no lock held.
///
/// On a worker of the pool, `publish` never blocks. If a mailbox with the policy `Block` is full,
/// the worker makes deliveries of that subscription itself until there is room. If the worker
/// cannot do that, the event is [refused](crate::events::DeliveryOutcome::Refused) for that
/// subscription. There are four such cases:
///
/// - The handler is at its limit, on other threads or below on this stack.
/// - An ordered subscription waits for another attempt, which holds up all its other deliveries.
/// - The key of the event has no room, and one of its events is being handled or waits for another
///   attempt.
/// - Tasks are nested 16 deep on the worker's stack.
///
/// The receipt reports the refusal, and [`Metrics::tasks_refused`](crate::Metrics::tasks_refused)
/// counts it.
///
/// A task of another pool that publishes waits for room. If a worker of the bus's pool waits for
/// that task, the worker makes the deliveries meanwhile. If the handler that would have to make
/// room waits for the task, the event is refused.
///
/// # Examples
///
/// ```
/// use workcrew::WorkerPool;
/// use workcrew::events::EventBus;
///
/// struct OrderPlaced { number: u32 }
///
/// let pool = WorkerPool::builder().workers(2).build()?;
/// let bus = EventBus::new(&pool);
/// let _mail = bus.subscribe(|order: &OrderPlaced| println!("mail for {}", order.number));
/// let _stock = bus.subscribe(|order: &OrderPlaced| match order.number {
///     0 => Err("no such order"),
///     _ => Ok(()),
/// });
///
/// let receipt = bus.publish(OrderPlaced { number: 7 });
/// assert_eq!(receipt.handlers(), 2);
/// bus.wait_idle();
/// assert!(receipt.is_finished());
/// # Ok::<(), workcrew::BuildError>(())
/// ```
#[derive(Clone)]
pub struct EventBus {
    /// What the bus shares with its mailboxes.
    pub(super) inner: Arc<BusInner>,
    /// The subscriptions.
    pub(super) registry: Arc<Registry>,
}

impl EventBus {
    /// Publishes an event to the subscriptions to its type that have no topic. Returns when the
    /// event is in their mailboxes and the synchronous handlers have returned.
    ///
    /// First, the event goes into every mailbox that has room, and the synchronous handlers are
    /// called. Then the publisher waits for room in full mailboxes with the policy `Block`, in all
    /// of them at the same time. It never blocks on a worker of the pool; see
    /// [above](Self#inside-a-handler).
    ///
    /// The event goes to the subscriptions that exist when this method begins. If there are none,
    /// [`on_unhandled`](crate::events::EventBusBuilder::on_unhandled) is called. If the pool was
    /// shut down before, the deliveries are cancelled.
    /// [`shutdown_now`](crate::WorkerPool::shutdown_now), and a timed shutdown whose limit has
    /// passed, also cancel deliveries that wait for room. The receipt counts cancelled deliveries,
    /// too.
    ///
    /// This method may block, and it calls synchronous handlers inline. Hold no
    /// [lock](crate#locks-and-submissions) that handlers take.
    ///
    /// A call costs one allocation. For each handler it also costs a lock and, if the handler is
    /// idle, a ticket in the pool's queue.
    #[track_caller]
    #[allow(clippy::must_use_candidate, reason = "most publishers do not use the receipt")]
    pub fn publish<E: Send + Sync + 'static>(&self, event: E) -> Receipt {
        self.send(None, event, Location::caller())
    }

    /// Like [`publish`](Self::publish), but also publishes to the subscriptions to `topic`.
    #[track_caller]
    #[allow(clippy::must_use_candidate, reason = "most publishers do not use the receipt")]
    pub fn publish_to<E: Send + Sync + 'static>(&self, topic: &str, event: E) -> Receipt {
        self.send(Some(topic), event, Location::caller())
    }

    /// Returns `true` if an event of type `E` would have a handler. May be stale when it returns.
    #[must_use]
    pub fn has_subscribers<E: Send + Sync + 'static>(&self) -> bool {
        self.registry.has_recipients::<E>(None)
    }

    /// Returns `true` if an event of type `E` published to `topic` would have a handler. May be
    /// stale when it returns.
    #[must_use]
    pub fn has_subscribers_to<E: Send + Sync + 'static>(&self, topic: &str) -> bool {
        self.registry.has_recipients::<E>(Some(topic))
    }

    /// Blocks until each subscription has handled every published event, or given it up. This
    /// includes delays before further attempts. Other threads may publish meanwhile and prolong the
    /// wait.
    ///
    /// If a task of another pool calls this method, and a worker of the bus's pool waits for that
    /// task, the worker makes the deliveries.
    ///
    /// Unlike [`WorkerPool::wait_idle`](crate::WorkerPool::wait_idle), this method does not wait
    /// for a handler that a [timed shutdown](crate::WorkerPool::shutdown_timeout) of the pool left
    /// behind. It returns when the shutdown reports such a handler, and at once afterwards.
    ///
    /// # Panics
    ///
    /// If a handler or another task of the pool calls it, because it would wait for itself. The
    /// same holds for a task of another pool that a handler of this bus waits for.
    #[track_caller]
    pub fn wait_idle(&self) {
        assert!(!self.is_inside(), "a handler cannot wait for its own bus to be idle");
        let waited = self.inner.wait_idle(Deadline::NEVER);
        if let Err(Refused(cycle)) = waited {
            panic!("a task cannot wait for a bus that waits for that task to be idle{}", cycle.suffix());
        }
    }

    /// Like [`wait_idle`](Self::wait_idle), but blocks for at most `timeout`. Returns `true` if the
    /// bus was idle. In a task of the pool it returns `false` at once.
    ///
    /// Unless the timeout is `Duration::MAX`, this method also waits for handlers that a shutdown
    /// has left behind.
    #[must_use]
    pub fn wait_idle_timeout(&self, timeout: Duration) -> bool {
        !self.is_inside() && self.inner.wait_idle(Deadline::after(timeout)).unwrap_or(false)
    }

    fn is_inside(&self) -> bool {
        context::is_inside(self.inner.pool.id())
    }

    fn send<E: Send + Sync + 'static>(
        &self,
        topic: Option<&str>,
        event: E,
        location: &'static Location<'static>,
    ) -> Receipt {
        let Some(recipients) = self.recipients::<E>(topic) else { return self.unhandled(topic, event) };
        self.inner.events.0.count_published();
        let envelope = self.begin(topic, event, &recipients);
        let handlers = publish::publish(&self.registry, &recipients.mailboxes, &envelope, location);
        self.finish(envelope, &recipients, handlers)
    }

    /// Returns the recipients of an event; `None` if there are none.
    pub(super) fn recipients<E: Send + Sync + 'static>(&self, topic: Option<&str>) -> Option<Arc<Recipients<E>>> {
        self.registry.recipients::<E>(topic).filter(|recipients| !recipients.mailboxes.is_empty())
    }

    /// Reports and drops an event without recipients.
    pub(super) fn unhandled<E: Send + Sync + 'static>(&self, topic: Option<&str>, event: E) -> Receipt {
        self.inner.events.0.count_published();
        self.report_unhandled(topic, &event);
        nesting::discard(event); // its destructor may publish the next event, and so on
        Receipt::empty()
    }

    /// Begins to publish an event.
    pub(super) fn begin<E: Send + Sync + 'static>(
        &self,
        topic: Option<&str>,
        event: E,
        recipients: &Arc<Recipients<E>>,
    ) -> Arc<Envelope<E>> {
        let envelope = Arc::new(Envelope::new(event, topic, Arc::clone(recipients) as _));
        self.inner.begin_event();
        envelope
    }

    /// Ends the publishing of an event, of which `handlers` mailboxes have a delivery.
    pub(super) fn finish<E: Send + Sync + 'static>(
        &self,
        envelope: Arc<Envelope<E>>,
        recipients: &Recipients<E>,
        handlers: usize,
    ) -> Receipt {
        if handlers == 0 {
            self.report_unhandled_event(&envelope);
        }
        envelope.complete(&self.inner, PUBLISHING, None);
        Receipt { event: Some((envelope, Arc::clone(&recipients.names))), handlers }
    }

    /// Reports an event that none of its recipients has accepted.
    pub(super) fn report_unhandled_event<E: Send + Sync + 'static>(&self, envelope: &Envelope<E>) {
        self.report_unhandled(envelope.topic(), envelope.event());
    }

    fn report_unhandled<E: Send + Sync + 'static>(&self, topic: Option<&str>, event: &E) {
        self.inner.events.0.count_unhandled();
        if let Some(on_unhandled) = &self.inner.hooks.on_unhandled {
            let unhandled = UnhandledEvent { event, event_type: type_name::<E>(), topic };
            self.inner.call_hook(nesting::generation(), || on_unhandled(&unhandled));
        }
    }
}

unwind::safe!(EventBus);

impl fmt::Debug for EventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBus").field("mailbox_capacity", &self.inner.mailbox_capacity).finish_non_exhaustive()
    }
}
