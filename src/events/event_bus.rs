//! The bus as users see it.

use std::any::type_name;
use std::fmt;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use super::dead_letter::UnhandledEvent;
use super::envelope::Envelope;
use super::inner::BusInner;
use super::progress::PUBLISHING;
use super::publish;
use super::receipt::Receipt;
use super::registry::Registry;
use crate::nesting;
use crate::sync::Arc;
use crate::task::context;
use crate::time::deadline::Deadline;

/// Takes events to their handlers, on the workers of a pool.
///
/// An event is a value of any type; handlers subscribe to a type, and to a topic as well if they like. Each subscription has
/// a bounded mailbox of its own, so a slow, failing or panicking handler keeps an event from no other subscription.
/// Clones are one bus.
///
/// When the last clone is gone nothing can be published any more; what was published is still delivered. Each delivery is a
/// task of the pool: [`WorkerPool::metrics`] counts it, [`WorkerPool::running`] shows it with the name of its subscription,
/// a [shutdown](WorkerPool::shutdown) drains it.
///
/// # Inside a handler
///
/// A handler may publish, subscribe, unsubscribe (itself, too), and wait for a [`Receipt`]. It runs under no lock. On a
/// worker `publish` never blocks: into a full mailbox whose policy is to block it makes deliveries itself until there is
/// room, and where it cannot, the event is [refused](crate::events::DeliveryOutcome::Refused) for that subscription. It cannot while
/// the handler is at its limit, elsewhere or below on this stack; while an ordered subscription waits for another attempt,
/// which holds up all that it has; and where tasks are nested 16 deep. The receipt says so, and
/// [`Metrics::tasks_refused`](crate::Metrics::tasks_refused) counts it.
///
/// A task of another pool that publishes waits for room. If a worker of the bus's pool waits for that task, it makes the
/// deliveries meanwhile; if the handler that would have to make room waits for the task, the event is refused.
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
/// let _stock = bus.subscribe(|order: &OrderPlaced| if order.number > 0 { Ok(()) } else { Err("no such order") });
///
/// let receipt = bus.publish(OrderPlaced { number: 7 });
/// assert_eq!(receipt.handlers(), 2);
/// bus.wait_idle();
/// assert!(receipt.is_finished());
/// # Ok::<(), workcrew::BuildError>(())
/// ```
#[derive(Clone)]
pub struct EventBus {
    pub(super) inner: Arc<BusInner>,
    pub(super) registry: Arc<Registry>,
}

impl EventBus {
    /// Publishes an event to the subscriptions to its type that have no topic. Returns when it lies in their mailboxes and
    /// the synchronous handlers have handled it.
    ///
    /// Every mailbox that has room has the event, and the synchronous handlers have returned, before this waits for a full
    /// mailbox. It blocks while a mailbox is full whose policy is to block, but never on a worker of the pool, see
    /// [above](Self#inside-a-handler). It waits for several full mailboxes at the same time.
    ///
    /// It goes to whoever is subscribed when this begins. If there is nobody,
    /// [`on_unhandled`](crate::events::EventBusBuilder::on_unhandled) is told. If the pool is shut down, the
    /// deliveries are cancelled.
    ///
    /// May wait, and runs synchronous handlers in place: hold no [lock](crate#may-i-hold-a-lock-while-i-submit) that handlers
    /// take.
    ///
    /// Costs one allocation, and for each handler a lock and, if it is idle, a ticket in the pool's queue.
    #[track_caller]
    #[allow(clippy::must_use_candidate, reason = "most publishers do not wait for their receipt")]
    pub fn publish<E: Send + Sync + 'static>(&self, event: E) -> Receipt {
        self.send(None, event, Location::caller())
    }

    /// Like [`publish`](Self::publish), but also to those that listen to `topic`.
    #[track_caller]
    #[allow(clippy::must_use_candidate, reason = "most publishers do not wait for their receipt")]
    pub fn publish_to<E: Send + Sync + 'static>(&self, topic: &str, event: E) -> Receipt {
        self.send(Some(topic), event, Location::caller())
    }

    /// Whether an event of type `E` would find somebody to handle it; may be out of date when it arrives.
    #[must_use]
    pub fn has_subscribers<E: Send + Sync + 'static>(&self) -> bool {
        self.registry.has_recipients::<E>(None)
    }

    /// Whether an event of type `E` to this topic would find somebody to handle it; may be out of date when it arrives.
    #[must_use]
    pub fn has_subscribers_to<E: Send + Sync + 'static>(&self, topic: &str) -> bool {
        self.registry.has_recipients::<E>(Some(topic))
    }

    /// Blocks until every event that was published has been handled, or given up, by each subscription; delays before
    /// further attempts included. Other threads may publish meanwhile and make it last.
    ///
    /// CallResult by a task of another pool, it is helped by a worker of the bus's pool that waits for that task. A handler
    /// that a [timed shutdown](WorkerPool::shutdown_timeout) of the pool left behind is not waited for.
    ///
    /// # Panics
    ///
    /// If called by a handler, or another task of the pool: it would wait for itself. Also if called by a task of another
    /// pool that a handler of this bus waits for.
    #[track_caller]
    pub fn wait_idle(&self) {
        assert!(!self.is_inside(), "a handler cannot wait for its own bus to be idle");
        let waited = self.inner.wait_idle(Deadline::NEVER);
        assert!(waited.is_ok(), "a task cannot wait for a bus that waits for that task to be idle");
    }

    /// Like [`wait_idle`](Self::wait_idle), but blocks at most `timeout`; returns whether the bus was idle. A task of the
    /// pool gets `false` at once. With a limit below `Duration::MAX` it also waits for what a shutdown has left behind.
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
        let recipients = self.registry.recipients::<E>(topic).filter(|recipients| !recipients.mailboxes.is_empty());
        let Some(recipients) = recipients else {
            self.report_unhandled(topic, &event);
            nesting::discard(event); // its destructor may publish the next event, and so on
            return Receipt::empty();
        };
        let envelope = Arc::new(Envelope::new(event, topic, Arc::clone(&recipients) as _));
        self.inner.begin_event();
        let handlers = publish::publish(&self.registry, &recipients.mailboxes, &envelope, location);
        if handlers == 0 {
            self.report_unhandled(topic, envelope.event());
        }
        envelope.complete(&self.inner, PUBLISHING, None);
        Receipt { event: Some((envelope, Arc::clone(&recipients.names))), handlers }
    }

    fn report_unhandled<E: Send + Sync + 'static>(&self, topic: Option<&str>, event: &E) {
        if let Some(on_unhandled) = &self.inner.hooks.on_unhandled {
            let unhandled = UnhandledEvent { event, event_type: type_name::<E>(), topic };
            self.inner.call_hook(nesting::generation(), || on_unhandled(&unhandled));
        }
    }
}

// A panic never happens under a lock of this crate, so nothing that is broken can be seen through a reference.
impl UnwindSafe for EventBus {}
impl RefUnwindSafe for EventBus {}

impl fmt::Debug for EventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBus").field("mailbox_capacity", &self.inner.mailbox_capacity).finish_non_exhaustive()
    }
}
