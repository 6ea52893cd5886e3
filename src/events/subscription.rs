//! A subscription as its owner sees it.

use std::any::type_name;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};

use super::event_bus::EventBus;
use super::handler::{BoxError, Handler, HandlerResult};
use super::mailbox::{Mailbox, Mode, Settings};
use super::registry::Registry;
use crate::error::CancelReason;
use crate::pool::overflow::Overflow;
use crate::retry::RetryPolicy;
use crate::sync::{Arc, Weak};

/// Configures a subscription. From [`EventBus::subscription`].
///
/// Of settings that exclude each other ([`ordered`](Self::ordered), [`concurrent`](Self::concurrent),
/// [`synchronous`](Self::synchronous)) the last one counts.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use workcrew::{Overflow, WorkerPool};
/// use workcrew::events::EventBus;
/// use workcrew::retry::RetryPolicy;
///
/// struct Uploaded(String);
///
/// let pool = WorkerPool::builder().workers(2).build()?;
/// let bus = EventBus::new(&pool);
/// let _thumbnails = bus
///     .subscription::<Uploaded>()
///     .name("thumbnails")
///     .topic("images")
///     .concurrent(4)
///     .mailbox_capacity(256)
///     .overflow(Overflow::DiscardOldest)
///     .retry(RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(3))
///     .handle(|upload| if upload.0.is_empty() { Err("nothing to show") } else { Ok(()) });
/// assert!(bus.has_subscribers_to::<Uploaded>("images") && !bus.has_subscribers::<Uploaded>());
/// assert_eq!(bus.publish_to("images", Uploaded("cat".to_owned())).handlers(), 1);
/// # Ok::<(), workcrew::BuildError>(())
/// ```
#[must_use = "a subscription begins with `handle`"]
pub struct SubscriptionBuilder<'a, E> {
    bus: &'a EventBus,
    settings: Settings,
    event: PhantomData<fn(&E)>,
}

impl EventBus {
    /// Calls `handler` with each event of type `E` that is published from now on, whatever its topic: on a worker, one at
    /// a time, in the order in which each thread publishes. For anything else there is
    /// [`subscription`](Self::subscription).
    pub fn subscribe<E, R>(&self, handler: impl Fn(&E) -> R + Send + Sync + 'static) -> Subscription
    where
        E: Send + Sync + 'static,
        R: HandlerResult,
    {
        self.subscription().handle(handler)
    }

    /// The settings of a subscription to events of type `E`, to be changed before it gets its handler.
    pub fn subscription<E: Send + Sync + 'static>(&self) -> SubscriptionBuilder<'_, E> {
        SubscriptionBuilder::new(self)
    }
}

impl<'a, E: Send + Sync + 'static> SubscriptionBuilder<'a, E> {
    pub(super) fn new(bus: &'a EventBus) -> Self {
        let settings = Settings {
            name: Arc::from(type_name::<E>()),
            topic: None,
            once: false,
            mode: Mode::Ordered,
            capacity: bus.inner.mailbox_capacity,
            overflow: Overflow::default(),
            policy: None,
        };
        Self { bus, settings, event: PhantomData }
    }

    /// Names it, in receipts, dead letters, and as the label of its tasks. Unless set, after the type of its events.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.settings.name = Arc::from(&*name.into());
        self
    }

    /// Listens only to events that are published to this topic. Unless set, to all events of the type, with a topic or
    /// without.
    pub fn topic(mut self, topic: impl Into<Cow<'static, str>>) -> Self {
        self.settings.topic = Some(Arc::from(&*topic.into()));
        self
    }

    /// Listens to one event, and unsubscribes with it: however many threads publish, the handler gets one event. If it
    /// fails and there is a [retry policy](Self::retry), it gets that event again.
    pub fn once(mut self) -> Self {
        self.settings.once = true;
        self
    }

    /// Handles one event at a time, in the order in which each thread publishes. An event that is tried again holds up
    /// those behind it. This is the default.
    pub fn ordered(mut self) -> Self {
        self.settings.mode = Mode::Ordered;
        self
    }

    /// Handles so many events at a time, in no order; zero counts as one. An event that waits for another attempt
    /// holds up none.
    pub fn concurrent(mut self, handlers: usize) -> Self {
        self.settings.mode = Mode::Concurrent(handlers.max(1));
        self
    }

    /// Handles each event on the thread that publishes it, before `publish` returns, in no order among threads. Attempts
    /// after the first are made on workers. Where publishing is nested more than 64 tasks deep the event is
    /// [refused](crate::events::DeliveryOutcome::Refused).
    pub fn synchronous(mut self) -> Self {
        self.settings.mode = Mode::Synchronous;
        self
    }

    /// How many events the mailbox holds, those included that wait for another attempt; zero counts as one. Unless set,
    /// what the bus says.
    pub fn mailbox_capacity(mut self, events: usize) -> Self {
        self.settings.capacity = events.max(1);
        self
    }

    /// What becomes of an event that finds the mailbox full.
    ///
    /// | policy | the event | the publisher |
    /// |---|---|---|
    /// | `Block` (default), `CallerRuns` | waits for room | is held up; on a worker, it makes deliveries until there is room, and where it cannot, the event is refused |
    /// | `DiscardOldest` | takes the place of the oldest that waits | goes on |
    /// | `DiscardNewest` | is dropped | goes on |
    ///
    /// `CallerRuns` is `Block` here: an outside thread cannot run what must keep its order.
    pub fn overflow(mut self, policy: Overflow) -> Self {
        self.settings.overflow = policy;
        self
    }

    /// Calls the handler again with an event that it failed with, or panicked at. Without a policy the first failure is the
    /// last. A policy's deadline counts from the publishing. A handler has no token to see an attempt's deadline by, so that
    /// has no effect.
    pub fn retry(mut self, policy: RetryPolicy<BoxError>) -> Self {
        self.settings.policy = Some(policy);
        self
    }

    /// Subscribes.
    pub fn handle<R: HandlerResult>(self, handler: impl Fn(&E) -> R + Send + Sync + 'static) -> Subscription {
        let handler: Arc<Handler<E>> = Arc::new(move |event: &E| handler(event).into_result());
        let mailbox = Mailbox::new(self.settings, handler, Arc::clone(&self.bus.inner));
        self.bus.registry.add(Arc::clone(&mailbox));
        Subscription { active: Some((mailbox, Arc::downgrade(&self.bus.registry))) }
    }
}

impl<E> fmt::Debug for SubscriptionBuilder<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { name, topic, once, mode, capacity, overflow, policy } = &self.settings;
        f.debug_struct("SubscriptionBuilder")
            .field("name", name)
            .field("topic", topic)
            .field("once", once)
            .field("mode", mode)
            .field("mailbox_capacity", capacity)
            .field("overflow", overflow)
            .field("retry", policy)
            .finish()
    }
}

/// Keeps a handler subscribed until it is dropped. From [`EventBus::subscribe`].
///
/// When the drop has returned the handler is not called any more: what waited is cancelled, what would have been tried again
/// is a dead dead_letter, and the handler is freed. A handler that is running is not waited for; to wait, call
/// [`unsubscribe`](Self::unsubscribe).
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
    /// `None`: detached, or already ended.
    active: Option<(Arc<dyn Subscribed>, Weak<Registry>)>,
}

impl Subscription {
    /// Unsubscribes, and blocks until the handler is not running any more. Returns whether the handler has ended.
    ///
    /// It does not block, and may return `false`, if the wait could not end: called by a task of the pool, such as the
    /// handler itself, or by a task of another pool that the handler waits for. Nor does it wait for a handler that a
    /// [timed shutdown](crate::WorkerPool::shutdown_timeout) of the pool left behind.
    #[allow(clippy::must_use_candidate, reason = "it is nearly always true")]
    pub fn unsubscribe(mut self) -> bool {
        let Some((mailbox, registry)) = self.active.take() else { return true };
        Arc::clone(&mailbox).end(registry.upgrade().as_deref());
        mailbox.wait_stopped()
    }

    /// Keeps the handler subscribed for as long as the bus lives, that is, until its last clone is gone and what was published
    /// is delivered.
    ///
    /// A detached handler that holds a clone of its own bus keeps both for ever, since nothing can end it: for a handler that
    /// publishes keep the guard, and drop it when the time has come.
    pub fn detach(mut self) {
        self.active = None;
    }

    /// The name of the subscription.
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

// A panic never happens under a lock of this crate, so nothing that is broken can be seen through a reference.
impl UnwindSafe for Subscription {}
impl RefUnwindSafe for Subscription {}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// What a guard needs of its subscription, whatever the type of its events.
trait Subscribed: Send + Sync {
    fn name(&self) -> &str;

    /// Unsubscribes.
    fn end(self: Arc<Self>, registry: Option<&Registry>);

    /// Waits until the handler is not running.
    fn wait_stopped(self: Arc<Self>) -> bool;
}

impl<E: Send + Sync + 'static> Subscribed for Mailbox<E> {
    fn name(&self) -> &str {
        &self.settings.name
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
