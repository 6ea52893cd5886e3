//! Building a bus.

use std::fmt;

use super::dead_letter::{DeadLetter, UnhandledEvent};
use super::event_bus::EventBus;
use super::inner::{BusHooks, BusInner};
use super::registry::Registry;
use crate::pool::inner::PoolInner;
use crate::pool::worker_pool::WorkerPool;
use crate::sync::Arc;

/// What a mailbox holds unless told otherwise.
const DEFAULT_MAILBOX_CAPACITY: usize = 1024;

/// Configures a bus. From [`EventBus::builder`].
///
/// # Examples
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use workcrew::WorkerPool;
/// use workcrew::events::EventBus;
///
/// let pool = WorkerPool::builder().workers(1).build()?;
/// let letters = Arc::new(Mutex::new(Vec::new()));
/// let kept = Arc::clone(&letters);
/// let bus = EventBus::builder(&pool)
///     .mailbox_capacity(64)
///     .on_dead_letter(move |dead_letter| kept.lock().unwrap().push(dead_letter))
///     .on_unhandled(|event| eprintln!("nobody listens to {}", event.event_type()))
///     .build();
/// let _fails = bus.subscription::<u32>().name("fails").handle(|_| Err::<(), _>("no"));
/// bus.publish(7_u32);
/// bus.wait_idle();
/// let dead_letter = &letters.lock().unwrap()[0];
/// assert_eq!((dead_letter.event::<u32>(), dead_letter.subscription()), (Some(&7), "fails"));
/// # Ok::<(), workcrew::BuildError>(())
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct EventBusBuilder {
    pool: Arc<PoolInner>,
    thread_name: String,
    mailbox_capacity: usize,
    hooks: BusHooks,
}

impl EventBus {
    /// Creates a bus on this pool, without hooks for dead letters and unhandled events.
    #[must_use]
    pub fn new(pool: &WorkerPool) -> Self {
        Self::builder(pool).build()
    }

    /// Returns the settings of a bus, to be changed before it is built.
    pub fn builder(pool: &WorkerPool) -> EventBusBuilder {
        EventBusBuilder::new(pool)
    }
}

impl EventBusBuilder {
    pub(super) fn new(pool: &WorkerPool) -> Self {
        Self {
            pool: Arc::clone(pool.inner()),
            thread_name: pool.thread_name().to_owned(),
            mailbox_capacity: DEFAULT_MAILBOX_CAPACITY,
            hooks: BusHooks::default(),
        }
    }

    /// How many events a mailbox holds, unless its subscription says otherwise. Unless set, 1,024. Zero counts as one.
    pub fn mailbox_capacity(mut self, events: usize) -> Self {
        self.mailbox_capacity = events.max(1);
        self
    }

    /// CallResult with each event that a subscription could not handle, once, after the last attempt, on the worker that made
    /// it. The receipt learns of it after that. A panic of `f` is contained and counted in
    /// [`Metrics::hooks_panicked`](crate::Metrics::hooks_panicked).
    ///
    /// `f` may publish. Events that hooks publish because of each other have generations; after 16 of them
    /// `f` is not called any more, and [`Metrics::hooks_skipped`](crate::Metrics::hooks_skipped) counts
    /// that. To publish a dead dead_letter again without such a bound, do it in a task or a timer.
    pub fn on_dead_letter(mut self, f: impl Fn(DeadLetter) + Send + Sync + 'static) -> Self {
        self.hooks.on_dead_letter = Some(Box::new(f));
        self
    }

    /// CallResult with each event that has no subscription, on the publisher's thread. A panic of `f` is contained
    /// and counted. If `f` publishes, the bound of [`on_dead_letter`](Self::on_dead_letter) applies.
    pub fn on_unhandled(mut self, f: impl Fn(&UnhandledEvent<'_>) + Send + Sync + 'static) -> Self {
        self.hooks.on_unhandled = Some(Box::new(f));
        self
    }

    /// Makes the bus.
    #[must_use]
    pub fn build(self) -> EventBus {
        let Self { pool, thread_name, mailbox_capacity, hooks } = self;
        let inner = Arc::new(BusInner::new(pool, thread_name, mailbox_capacity, hooks));
        EventBus { inner, registry: Arc::new(Registry::default()) }
    }
}

impl fmt::Debug for EventBusBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBusBuilder").field("mailbox_capacity", &self.mailbox_capacity).finish_non_exhaustive()
    }
}
