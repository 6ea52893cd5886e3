//! The builder of an event bus.

use std::fmt;

use super::dead_letter::{DeadLetter, UnhandledEvent};
use super::event_bus::EventBus;
use super::inner::{BusHooks, BusInner};
use super::registry::Registry;
use crate::pool::inner::PoolInner;
use crate::pool::worker_pool::WorkerPool;
use crate::sync::Arc;

/// The default capacity of mailboxes.
const DEFAULT_MAILBOX_CAPACITY: usize = 1024;

/// A builder of an event bus. Returned by [`EventBus::builder`].
///
/// # Examples
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use workcrew::WorkerPool;
/// use workcrew::events::EventBus;
///
/// let pool = WorkerPool::builder().workers(1).build()?;
/// let dead_letters = Arc::new(Mutex::new(Vec::new()));
/// let kept = Arc::clone(&dead_letters);
/// let bus = EventBus::builder(&pool)
///     .mailbox_capacity(64)
///     .on_dead_letter(move |dead_letter| kept.lock().unwrap().push(dead_letter))
///     .on_unhandled(|event| eprintln!("no handler for {}", event.event_type()))
///     .build();
/// let _fails = bus.subscription::<u32>().name("fails").handle(|_| Err::<(), _>("no"));
/// bus.publish(7_u32);
/// bus.wait_idle();
/// let dead_letter = &dead_letters.lock().unwrap()[0];
/// assert_eq!((dead_letter.event::<u32>(), dead_letter.subscription()), (Some(&7), "fails"));
/// # Ok::<(), workcrew::BuildError>(())
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct EventBusBuilder {
    /// The pool of the bus.
    pool: Arc<PoolInner>,
    /// The default capacity of mailboxes; not zero.
    mailbox_capacity: usize,
    /// The hooks so far.
    hooks: BusHooks,
}

impl EventBus {
    /// Creates a bus on `pool`, without hooks for dead letters and unhandled events.
    #[must_use]
    pub fn new(pool: &WorkerPool) -> Self {
        Self::builder(pool).build()
    }

    /// Creates a builder of a bus on `pool`.
    pub fn builder(pool: &WorkerPool) -> EventBusBuilder {
        EventBusBuilder::new(pool)
    }
}

impl EventBusBuilder {
    pub(super) fn new(pool: &WorkerPool) -> Self {
        Self { pool: Arc::clone(pool.inner()), mailbox_capacity: DEFAULT_MAILBOX_CAPACITY, hooks: BusHooks::default() }
    }

    /// Sets the default capacity of mailboxes, in events. Zero counts as one. *Default: 1,024.*
    pub fn mailbox_capacity(mut self, events: usize) -> Self {
        self.mailbox_capacity = events.max(1);
        self
    }

    /// Sets a hook that is called with each event that a subscription could not handle.
    ///
    /// `f` is called once for each such delivery: on the thread that made the last attempt, or on
    /// the thread that closed the subscription or the pool before the next attempt. The receipt
    /// reports the failure after that. A panic of `f` is caught and counted in
    /// [`Metrics::hooks_panicked`](crate::Metrics::hooks_panicked).
    ///
    /// `f` may publish. Each event that a hook publishes is one generation higher than the event it
    /// was called for. From generation 16 on, `f` is not called any more, and
    /// [`Metrics::hooks_skipped`](crate::Metrics::hooks_skipped) counts that. To publish dead
    /// letters again without this limit, publish from a task or a timer.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use workcrew::WorkerPool;
    /// use workcrew::events::EventBus;
    ///
    /// let pool = WorkerPool::builder().workers(1).build()?;
    /// let (letters, dead) = channel();
    /// let bus = EventBus::builder(&pool)
    ///     .on_dead_letter(move |letter| drop(letters.send(letter)))
    ///     .build();
    /// let _mail = bus.subscription().name("mail").handle(|_: &u32| Err::<(), _>("no such user"));
    /// bus.publish(7_u32);
    /// let letter = dead.recv()?;
    /// assert_eq!((letter.subscription(), letter.event::<u32>()), ("mail", Some(&7)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_dead_letter(mut self, f: impl Fn(DeadLetter) + Send + Sync + 'static) -> Self {
        self.hooks.on_dead_letter = Some(Box::new(f));
        self
    }

    /// Sets a hook that is called with each event that has no subscription, on the publisher's
    /// thread.
    ///
    /// A panic of `f` is caught and counted. If `f` publishes, the limit of
    /// [`on_dead_letter`](Self::on_dead_letter) applies.
    pub fn on_unhandled(mut self, f: impl Fn(&UnhandledEvent<'_>) + Send + Sync + 'static) -> Self {
        self.hooks.on_unhandled = Some(Box::new(f));
        self
    }

    /// Builds the bus.
    #[must_use]
    pub fn build(self) -> EventBus {
        let Self { pool, mailbox_capacity, hooks } = self;
        let inner = Arc::new(BusInner::new(pool, mailbox_capacity, hooks));
        EventBus { inner, registry: Arc::new(Registry::default()) }
    }
}

impl fmt::Debug for EventBusBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBusBuilder").field("mailbox_capacity", &self.mailbox_capacity).finish_non_exhaustive()
    }
}
