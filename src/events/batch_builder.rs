//! The builder of a subscription whose handler gets batches.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use super::batch_handler::BatchResult;
use super::event_bus::EventBus;
use super::guard::Subscription;
use super::mailbox::{Batch, Handlers, Mode, Settings};
use super::subscription::{self, SubscriptionBuilder};
use crate::sync::Arc;

impl<'a, E: Send + Sync + 'static> SubscriptionBuilder<'a, E> {
    /// Handles events in batches of at most `max`, one batch at a time, in the order in which each
    /// thread publishes. Zero counts as one.
    ///
    /// A batch is handled as soon as `max` events wait, or the mailbox is full. It also is if its
    /// first event has waited for `linger`. The wait of the next batch begins when the handler is
    /// called with this one. With a `linger` of zero, a batch has the events that are there when a
    /// worker takes it. `Duration::MAX` means forever. While a batch waits, it holds no worker. The
    /// end of the pool does not wait for the linger: [`shutdown`](crate::WorkerPool::shutdown)
    /// delivers what waits. Unsubscribing cancels it.
    ///
    /// The result of the handler is that of all events, or one for each: see
    /// [`BatchResult`](crate::events::BatchResult). If the handler panics, all have failed. The
    /// first event then has the panic, and the others a
    /// [`BatchError`](crate::events::BatchError) with its message.
    ///
    /// With a [retry policy](Self::retry), the events that have failed are handled again, together
    /// and without newer events, after the longest of their delays. Events behind them wait. They
    /// count as one event in the capacity of the mailbox. Each event has its own attempts,
    /// outcome and dead letter.
    ///
    /// Each event is a task of the pool, as without batches. `running()` shows the first.
    ///
    /// This replaces [`ordered_by`](Self::ordered_by), [`concurrent`](Self::concurrent) and
    /// [`synchronous`](Self::synchronous).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use std::time::Duration;
    /// use workcrew::WorkerPool;
    /// use workcrew::events::EventBus;
    ///
    /// let pool = WorkerPool::builder().workers(2).build()?;
    /// let bus = EventBus::new(&pool);
    /// let rows: Arc<Mutex<Vec<Vec<u32>>>> = Arc::default();
    /// let table = Arc::clone(&rows);
    /// let _insert = bus
    ///     .subscription::<u32>()
    ///     .batch(3, Duration::from_secs(3600))
    ///     .handle(move |batch| table.lock().unwrap().push(batch.iter().map(|row| **row).collect()));
    /// (1..=7_u32).for_each(|row| drop(bus.publish(row)));
    /// pool.shutdown(); // delivers the last, which would wait for others
    /// assert_eq!(*rows.lock().unwrap(), [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    ///
    /// A result for each event:
    ///
    /// ```
    /// use std::time::Duration;
    /// use workcrew::WorkerPool;
    /// use workcrew::events::{DeliveryOutcome, EventBus};
    ///
    /// let pool = WorkerPool::builder().workers(2).build()?;
    /// let bus = EventBus::new(&pool);
    /// let check = |amount: &&i32| if **amount > 0 { Ok(()) } else { Err("nothing to pay") };
    /// let _pay = bus
    ///     .subscription::<i32>()
    ///     .batch(100, Duration::ZERO)
    ///     .handle(move |amounts| amounts.iter().map(check).collect::<Vec<_>>());
    /// let receipts = [5, 0, 7].map(|amount: i32| bus.publish(amount));
    /// for (receipt, fails) in receipts.iter().zip([false, true, false]) {
    ///     let outcome = &receipt.wait()?[0].outcome;
    ///     assert_eq!(matches!(outcome, DeliveryOutcome::Failed(_)), fails);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn batch(self, max: usize, linger: Duration) -> BatchSubscriptionBuilder<'a, E> {
        let (bus, settings) = self.into_parts();
        let batch = Batch { max: max.max(1), linger };
        let settings = Settings { mode: Mode::Ordered, batch: Some(batch), ..settings };
        BatchSubscriptionBuilder { bus, settings, batch, event: PhantomData }
    }
}

/// A builder of a subscription whose handler gets batches. Returned by
/// [`SubscriptionBuilder::batch`].
#[must_use = "a subscription begins with `handle`"]
pub struct BatchSubscriptionBuilder<'a, E> {
    /// The bus to subscribe to.
    bus: &'a EventBus,
    /// The settings.
    settings: Settings,
    /// The batches, which are among the settings.
    batch: Batch,
    /// The type of events.
    event: PhantomData<fn(&E)>,
}

impl<E: Send + Sync + 'static> BatchSubscriptionBuilder<'_, E> {
    /// Subscribes the handler. It gets at least one event.
    ///
    /// With a linger, this starts the pool's timer thread. If that cannot be started, batches do
    /// not linger.
    pub fn handle<R: BatchResult>(self, handler: impl Fn(&[&E]) -> R + Send + Sync + 'static) -> Subscription {
        let Self { bus, mut settings, batch, event: _ } = self;
        if !batch.linger.is_zero() && bus.inner.start_timer().is_err() {
            settings.batch = Some(Batch { linger: Duration::ZERO, ..batch });
        }
        let handler = Arc::new(move |events: &[&E]| handler(events).into_results());
        subscription::start(bus, settings, Handlers { one: None, batch: Some(handler), key_of: None })
    }
}

impl<E> fmt::Debug for BatchSubscriptionBuilder<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchSubscriptionBuilder")
            .field("name", &self.settings.name)
            .field("topic", &self.settings.topic)
            .field("max", &self.batch.max)
            .field("linger", &self.batch.linger)
            .finish_non_exhaustive()
    }
}
