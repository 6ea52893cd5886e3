//! Events and mailboxes whose type of events is erased.

use std::any::Any;

use super::metrics::SubscriptionMetrics;
use crate::sync::Arc;
use crate::task::waits::Needs;

/// An event of any type.
pub(super) trait AnyEvent: Send + Sync {
    /// Returns the event.
    fn event(&self) -> &(dyn Any + Send + Sync);

    /// Returns the name of the event's type.
    fn event_type(&self) -> &'static str;

    /// Returns the topic that the event was published to.
    fn topic(&self) -> Option<&str>;
}

/// A mailbox of events of any type.
pub(super) trait AnyMailbox: Send + Sync {
    /// Reports what the end of all its waiting and running deliveries needs. Called under locks.
    fn report_drain_needs(&self, needs: &mut Needs);

    /// Returns a snapshot of its counters.
    fn metrics(&self) -> SubscriptionMetrics;

    /// Makes deliveries, if one more runner can.
    fn advance(self: Arc<Self>);
}
