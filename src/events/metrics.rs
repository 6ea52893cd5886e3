//! The metrics of a bus and of its subscriptions.

use std::fmt;
use std::ops::AddAssign;

use crate::sync::Arc;

/// The counts of deliveries over the life of a subscription or of a bus.
///
/// Each delivery that has ended counts once among the first five fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeliveryCounts {
    /// Deliveries whose handler has succeeded.
    pub handled: u64,
    /// Deliveries that failed for good. Each became a dead letter.
    pub failed: u64,
    /// Deliveries that the overflow policy has discarded, and those for whose next attempt the
    /// mailbox had no room.
    pub discarded: u64,
    /// Deliveries that were cancelled by the end of the subscription or of the pool.
    pub cancelled: u64,
    /// Events that found the mailbox full and were
    /// [refused](crate::events::DeliveryOutcome::Refused), and events that
    /// [`try_publish`](crate::events::EventBus::try_publish) returned because of this mailbox.
    pub refused: u64,
    /// Attempts that have failed or panicked, whether or not there was another.
    pub attempts_failed: u64,
    /// Attempts after the first.
    pub retries: u64,
}

impl AddAssign for DeliveryCounts {
    fn add_assign(&mut self, other: Self) {
        self.handled += other.handled;
        self.failed += other.failed;
        self.discarded += other.discarded;
        self.cancelled += other.cancelled;
        self.refused += other.refused;
        self.attempts_failed += other.attempts_failed;
        self.retries += other.retries;
    }
}

impl fmt::Display for DeliveryCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} handled, {} failed, {} discarded, {} cancelled, {} refused; {} failed attempts, {} retries",
            self.handled, self.failed, self.discarded, self.cancelled, self.refused, self.attempts_failed, self.retries
        )
    }
}

/// A snapshot of the counters of a subscription. Returned by
/// [`Subscription::metrics`](crate::events::Subscription::metrics).
///
/// The numbers are read one after the other while the bus works. A thread that has waited for a
/// receipt finds its deliveries counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionMetrics {
    /// The name of the subscription.
    pub name: Arc<str>,
    /// The topic of the subscription, if it has one.
    pub topic: Option<Arc<str>>,
    /// The events in the mailbox, including those that wait for another attempt. A batch that waits
    /// for another attempt counts as one.
    pub mailbox_len: usize,
    /// The capacity of the mailbox in events.
    pub mailbox_capacity: usize,
    /// The events of them that wait for another attempt.
    pub deliveries_delayed: usize,
    /// Threads that make deliveries. May include a thread that has just ended its last delivery.
    pub handlers_running: usize,
    /// The deliveries since the subscription began.
    pub deliveries: DeliveryCounts,
}

impl fmt::Display for SubscriptionMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} of {} in the mailbox, {} delayed, {} running; {}",
            self.name,
            self.mailbox_len,
            self.mailbox_capacity,
            self.deliveries_delayed,
            self.handlers_running,
            self.deliveries
        )
    }
}

/// A snapshot of the counters of a bus. Returned by
/// [`EventBus::metrics`](crate::events::EventBus::metrics).
///
/// The numbers are read one after the other while the bus works. A thread that has waited for a
/// receipt, or for an idle bus, finds the deliveries counted.
///
/// # Examples
///
/// ```
/// use workcrew::WorkerPool;
/// use workcrew::events::EventBus;
///
/// let pool = WorkerPool::builder().workers(2).build()?;
/// let bus = EventBus::new(&pool);
/// let mail = bus.subscription::<u32>().name("mail").handle(|n| match n {
///     0..3 => Ok(()),
///     _ => Err("too many"),
/// });
/// for n in 0..4_u32 {
///     bus.publish(n);
/// }
/// bus.wait_idle();
/// let metrics = bus.metrics();
/// assert_eq!((metrics.events_published, metrics.events_pending), (4, 0));
/// assert_eq!((metrics.deliveries.handled, metrics.deliveries.failed), (3, 1));
/// assert_eq!(mail.metrics().deliveries, metrics.deliveries);
/// drop(mail);
/// assert_eq!(bus.metrics().deliveries.handled, 3, "what has ended stays counted");
/// # Ok::<(), workcrew::BuildError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventBusMetrics {
    /// Events published, including those that wait for room and those without a subscription.
    pub events_published: u64,
    /// Published events that no subscription has accepted.
    pub events_unhandled: u64,
    /// Events that [`try_publish`](crate::events::EventBus::try_publish) has returned.
    pub events_refused: u64,
    /// Events whose deliveries have not all ended. May include an event whose last delivery has just
    /// ended.
    pub events_pending: usize,
    /// Subscriptions. One that has ended counts until its last delivery has ended.
    pub subscriptions: usize,
    /// Events in all mailboxes, including those that wait for another attempt.
    pub mailbox_len: usize,
    /// The events of them that wait for another attempt.
    pub deliveries_delayed: usize,
    /// Threads that make deliveries.
    pub handlers_running: usize,
    /// The deliveries of all subscriptions, including those that have ended.
    pub deliveries: DeliveryCounts,
    /// The subscription with the most events in its mailbox; `None` if all mailboxes are empty.
    pub deepest_mailbox: Option<SubscriptionMetrics>,
}

impl fmt::Display for EventBusMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} published: {} unhandled, {} pending; {} refused; {} subscriptions: {} in mailboxes, {} delayed, \
             {} running; {}",
            self.events_published,
            self.events_unhandled,
            self.events_pending,
            self.events_refused,
            self.subscriptions,
            self.mailbox_len,
            self.deliveries_delayed,
            self.handlers_running,
            self.deliveries
        )?;
        match &self.deepest_mailbox {
            Some(deepest) => write!(f, "; deepest mailbox: {}", deepest.name),
            None => Ok(()),
        }
    }
}
