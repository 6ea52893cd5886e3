//! The outcomes of an event, as its publisher sees them.

use std::fmt;
use std::time::Duration;

use super::envelope::{AnyEnvelope, Names};
use super::event_wait::{self, WouldDeadlock};
use super::progress::{DeliveryOutcome, Progress};
use crate::error::{CycleKind, CycleTarget};
use crate::sync::Arc;
use crate::task::sleepers::{self, Listed};
use crate::time::deadline::Deadline;

/// A receipt for a published event, which reports the outcomes of its deliveries. Returned by
/// [`EventBus::publish`](crate::events::EventBus::publish).
///
/// Async code can await a receipt, or a reference to it; see
/// [`WaitForReceipt`](crate::events::WaitForReceipt).
///
/// Dropping a receipt has no effect on the deliveries. A receipt keeps the event alive. The event's
/// destructor runs on the thread that drops the last reference. A panic of the destructor is
/// contained.
///
/// # Examples
///
/// ```
/// use workcrew::WorkerPool;
/// use workcrew::events::{DeliveryOutcome, EventBus};
///
/// let pool = WorkerPool::builder().workers(1).build()?;
/// let bus = EventBus::new(&pool);
/// let _even = bus.subscribe(|n: &u32| match n % 2 {
///     0 => Ok(()),
///     _ => Err(format!("{n} is odd")),
/// });
/// let _any = bus.subscribe(|_: &u32| ());
///
/// let receipt = bus.publish(7_u32);
/// assert_eq!(receipt.handlers(), 2);
/// let outcomes: Vec<_> = receipt.wait()?.into_iter().map(|delivery| delivery.outcome).collect();
/// let DeliveryOutcome::Failed(error) = &outcomes[0] else { panic!("{:?}", outcomes[0]) };
/// assert_eq!(error.last().to_string(), "7 is odd");
/// assert!(matches!(outcomes[1], DeliveryOutcome::Handled));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Receipt {
    /// The event and the names of its recipients; `None` if there were none.
    pub(super) event: Option<(Arc<dyn AnyEnvelope>, Names)>,
    /// How many subscriptions the event was published to.
    pub(super) handlers: usize,
}

/// The outcome of one event at one subscription.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The name of the subscription.
    pub subscription: Arc<str>,
    /// The outcome of the delivery.
    pub outcome: DeliveryOutcome,
}

impl Receipt {
    /// Returns the receipt of an event without recipients.
    pub(super) fn empty() -> Self {
        Self { event: None, handlers: 0 }
    }

    /// Returns the number of subscriptions that the event was published to.
    #[must_use]
    pub fn handlers(&self) -> usize {
        self.handlers
    }

    /// Returns `true` if all deliveries have ended. `true` is final.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.event.as_ref().is_none_or(|(envelope, _)| envelope.progress().is_finished())
    }

    /// Blocks until all deliveries have ended, and returns them in the order of subscribing.
    ///
    /// A worker of the pool makes the deliveries that it waits for, if no other worker does. So a
    /// handler may publish and wait even on a pool of one worker. If a task of another pool waits,
    /// and a worker of the bus's pool waits for that task, the worker makes the deliveries.
    ///
    /// This method does not wait for a handler that a timed shutdown of the pool left behind: its
    /// delivery is [`LeftBehind`](DeliveryOutcome::LeftBehind).
    ///
    /// # Errors
    ///
    /// Returns [`WouldDeadlock`] in these cases:
    ///
    /// - A handler waits for the event that it is handling.
    /// - A handler waits for another event of its own subscription, and all runners that could
    ///   deliver it are on this stack.
    /// - Handlers of ordered subscriptions wait for receipts of each other's events. One of the
    ///   waits gets the error.
    /// - Waits are nested more than 64 tasks deep.
    pub fn wait(&self) -> Result<Vec<Delivery>, WouldDeadlock> {
        let Some((envelope, names)) = &self.event else { return Ok(Vec::new()) };
        event_wait::wait_and_help(envelope)?;
        wait_without_limit(envelope);
        Ok(self.deliveries(envelope.progress(), names))
    }

    /// Blocks until all deliveries have ended or `timeout` has passed. Returns `true` if all have
    /// ended; then [`wait`](Self::wait) returns at once.
    ///
    /// A worker of the pool makes no deliveries meanwhile, because a handler could take longer than
    /// the timeout. This method also waits for handlers that a shutdown has left behind.
    ///
    /// With `Duration::MAX`, which means forever, this method is like [`wait`](Self::wait) in both
    /// respects. It returns `false` at once if `wait` would return [`WouldDeadlock`].
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let deadline = Deadline::after(timeout);
        self.event.as_ref().is_none_or(|(envelope, _)| match deadline {
            Deadline::NEVER => event_wait::wait_and_help(envelope).is_ok() && wait_without_limit(envelope),
            deadline => {
                let _listed = list_wait(envelope, deadline);
                envelope.progress().wait_unless(|| false, deadline)
            }
        })
    }

    /// Returns the outcomes of all deliveries, once they have ended or were left behind.
    pub(super) fn deliveries(&self, progress: &Progress, names: &[Arc<str>]) -> Vec<Delivery> {
        // Read before the outcomes: a delivery that has ended by now and is not among those that
        // were not handled was handled.
        let ended: Vec<bool> = (0..names.len()).map(|index| progress.has_ended(index)).collect();
        let mut not_handled = progress.not_handled().into_iter().peekable();
        let mut deliveries = Vec::with_capacity(self.handlers);
        for (index, name) in names.iter().enumerate() {
            let outcome = match not_handled.next_if(|(other, _)| *other == index) {
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

/// Waits until all deliveries have ended, but not for those that were left behind. Returns `true`
/// if all have ended.
fn wait_without_limit(envelope: &Arc<dyn AnyEnvelope>) -> bool {
    let Some(recipients) = envelope.recipients() else { return true };
    let left_behind = recipients.left_behind().clone();
    let _guard = event_wait::wake_when_left_behind(envelope, &*recipients);
    drop(recipients);
    let _listed = list_wait(envelope, Deadline::NEVER);
    envelope.progress().wait_unless(|| left_behind.reason().is_some(), Deadline::NEVER)
}

/// Lists this thread, which waits for an event, for snapshots. Does nothing if the event has ended.
fn list_wait(envelope: &Arc<dyn AnyEnvelope>, deadline: Deadline) -> Option<Listed> {
    let recipients = envelope.recipients().filter(|_| !envelope.progress().is_finished())?;
    Some(sleepers::list(CycleTarget::new(CycleKind::Event), recipients.inner().pool.id(), deadline))
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("handlers", &self.handlers).field("finished", &self.is_finished()).finish()
    }
}
