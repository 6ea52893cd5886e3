//! What became of an event.

use std::fmt;
use std::time::Duration;

use super::envelope::{AnyEnvelope, Names};
use super::event_wait::{self, WouldDeadlock};
use super::progress::{DeliveryOutcome, Progress};
use crate::sync::Arc;
use crate::time::deadline::Deadline;

/// Tells of the deliveries of one event. From [`EventBus::publish`](crate::events::EventBus::publish).
///
/// Dropping it changes nothing. Keeping it keeps the event, whose destructor runs, with its panic contained, on whichever
/// thread is the last to let go of it.
///
/// # Examples
///
/// ```
/// use workcrew::WorkerPool;
/// use workcrew::events::{DeliveryOutcome, EventBus};
///
/// let pool = WorkerPool::builder().workers(1).build()?;
/// let bus = EventBus::new(&pool);
/// let _even = bus.subscribe(|n: &u32| if n % 2 == 0 { Ok(()) } else { Err(format!("{n} is odd")) });
/// let _any = bus.subscribe(|_: &u32| ());
///
/// let receipt = bus.publish(7_u32);
/// assert_eq!(receipt.handlers(), 2);
/// let outcomes: Vec<_> = receipt.wait()?.into_iter().map(|delivery| delivery.outcome).collect();
/// assert!(matches!(&outcomes[0], DeliveryOutcome::Failed(error) if error.last().to_string() == "7 is odd"));
/// assert!(matches!(outcomes[1], DeliveryOutcome::Handled));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Receipt {
    /// The event, and what its recipients are called. `None`: nobody listened.
    pub(super) event: Option<(Arc<dyn AnyEnvelope>, Names)>,
    pub(super) handlers: usize,
}

/// What became of one event at one subscription.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The name of the subscription.
    pub subscription: Arc<str>,
    /// What became of the event there.
    pub outcome: DeliveryOutcome,
}

impl Receipt {
    pub(super) fn empty() -> Self {
        Self { event: None, handlers: 0 }
    }

    /// How many subscriptions the event was for.
    #[must_use]
    pub fn handlers(&self) -> usize {
        self.handlers
    }

    /// Whether all deliveries have ended. `true` is final.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.event.as_ref().is_none_or(|(envelope, _)| envelope.progress().is_finished())
    }

    /// Blocks until all deliveries have ended and returns them in the order of subscribing.
    ///
    /// On a worker of the pool this helps instead of blocking: it makes deliveries of the subscriptions that it waits for
    /// when no other worker does. So a handler may publish and wait, on a pool of one worker, too. A task of another pool may
    /// wait as well: a worker of the bus's pool that waits for that task makes the deliveries.
    ///
    /// A handler that a timed shutdown of the pool left behind is not waited for: its delivery is
    /// [`LeftBehind`](DeliveryOutcome::LeftBehind).
    ///
    /// # Errors
    ///
    /// [`WouldDeadlock`], if a handler waits for the event that it is handling, or for another of its own subscription for
    /// which no runner is free besides those on this stack, or if waits are nested more than 64 tasks deep. Also if
    /// handlers of ordered subscriptions wait for receipts of each other's events: one of the waits gets the error.
    pub fn wait(&self) -> Result<Vec<Delivery>, WouldDeadlock> {
        let Some((envelope, names)) = &self.event else { return Ok(Vec::new()) };
        event_wait::wait_and_help(envelope)?;
        wait_without_limit(envelope);
        Ok(self.deliveries(envelope.progress(), names))
    }

    /// Blocks until all deliveries have ended or `timeout` has passed, and returns whether they have ended. If so,
    /// [`wait`](Self::wait) returns at once.
    ///
    /// On a worker it does not help, since a handler that is called on the way could take longer than the timeout. A wait for
    /// ever, `Duration::MAX`, does help; and where `wait` would answer [`WouldDeadlock`] it returns `false` at once. Only a
    /// shorter limit also waits for what a shutdown has left behind.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let deadline = Deadline::after(timeout);
        self.event.as_ref().is_none_or(|(envelope, _)| match deadline {
            Deadline::NEVER => event_wait::wait_and_help(envelope).is_ok() && wait_without_limit(envelope),
            deadline => envelope.progress().wait_unless(|| false, deadline),
        })
    }

    /// What became of all deliveries, once they have ended.
    fn deliveries(&self, progress: &Progress, names: &[Arc<str>]) -> Vec<Delivery> {
        // The outcome of a delivery that has ended by now is among the not_handled, or it is the usual one.
        let ended: Vec<bool> = (0..names.len()).map(|index| progress.has_ended(index)).collect();
        let mut not_handled = progress.not_handled().into_iter().peekable();
        let mut deliveries = Vec::with_capacity(self.handlers);
        for (index, name) in names.iter().enumerate() {
            let outcome = match not_handled.next_if(|(exception, _)| *exception == index) {
                None if ended[index] => DeliveryOutcome::Handled,
                None => DeliveryOutcome::LeftBehind,
                Some((_, Some(outcome))) => outcome,
                Some((_, None)) => continue,
            };
            deliveries.push(Delivery { subscription: Arc::clone(name), outcome });
        }
        deliveries
    }
}

/// Waits until all deliveries have ended, but not for what was left behind; returns whether they have ended.
fn wait_without_limit(envelope: &Arc<dyn AnyEnvelope>) -> bool {
    let Some(recipients) = envelope.recipients() else { return true };
    let left_behind = recipients.left_behind().clone();
    drop(recipients);
    let woken = Arc::clone(envelope);
    let _guard = left_behind.on_cancel(move || woken.progress().wake());
    envelope.progress().wait_unless(|| left_behind.reason().is_some(), Deadline::NEVER)
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("handlers", &self.handlers).field("finished", &self.is_finished()).finish()
    }
}
