//! Waiting for the deliveries of an event, and for an idle bus, from async code.
//!
//! The futures register where threads wait for the same. A notification takes all wakers, so a
//! future that is never polled again keeps no notification from another.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::envelope::Help;
use super::event_bus::EventBus;
use super::event_wait::{self, WouldDeadlock};
use super::inner::BusInner;
use super::receipt::{Delivery, Receipt};
use crate::cancel::token::CancelGuard;
use crate::sync::Arc;
use crate::task::context;
use crate::task::future_wait::FutureWait;
use crate::task::wakers::WakerKey;
use crate::time::deadline::Deadline;
use crate::unwind;

/// A future that waits for the deliveries of an event. Made by `.await` of a [`Receipt`] or of a
/// reference to one, in any runtime.
///
/// Its output is the result of [`Receipt::wait`]. It waits without a thread. Dropping it has no
/// effect on the deliveries. A future that is polled again after it was ready is ready again.
///
/// Polling the future on a worker of the pool makes the deliveries that the wait needs, as `wait`
/// does. A handler that polls the receipt of the event that it handles gets [`WouldDeadlock`]. A
/// circle of waits for several receipts is not refused, because a future may wait for several
/// things.
///
/// # Examples
///
/// ```
/// # fn block_on<F: Future>(future: F) -> F::Output { pollster::block_on(future) }
/// use workcrew::WorkerPool;
/// use workcrew::events::{DeliveryOutcome, EventBus};
///
/// let pool = WorkerPool::builder().workers(1).build()?;
/// let bus = EventBus::new(&pool);
/// let _handler = bus.subscribe(|n: &u32| assert_eq!(*n, 7));
/// let deliveries = block_on(async { bus.publish_async(7_u32).await.await })?;
/// assert!(matches!(deliveries[0].outcome, DeliveryOutcome::Handled));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a future does nothing until it is polled"]
pub struct WaitForReceipt {
    receipt: Receipt,
    key: WakerKey,
    /// What the last poll has registered.
    wait: FutureWait,
    /// Wakes the future when a report has left something behind.
    guard: Option<CancelGuard>,
}

impl IntoFuture for Receipt {
    type Output = Result<Vec<Delivery>, WouldDeadlock>;
    type IntoFuture = WaitForReceipt;

    /// Returns a future that waits like [`wait`](Receipt::wait).
    fn into_future(self) -> WaitForReceipt {
        WaitForReceipt { receipt: self, key: WakerKey::new(), wait: FutureWait::default(), guard: None }
    }
}

impl IntoFuture for &Receipt {
    type Output = Result<Vec<Delivery>, WouldDeadlock>;
    type IntoFuture = WaitForReceipt;

    /// Returns a future that waits like [`wait`](Receipt::wait), and does not consume the receipt.
    fn into_future(self) -> WaitForReceipt {
        Receipt { event: self.event.clone(), handlers: self.handlers }.into_future()
    }
}

impl Future for WaitForReceipt {
    type Output = Result<Vec<Delivery>, WouldDeadlock>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { receipt, key, wait, guard } = &mut *self;
        let Some((envelope, names)) = &receipt.event else { return Poll::Ready(Ok(Vec::new())) };
        loop {
            wait.begin_poll();
            envelope.progress().announce(*key, context.waker());
            let recipients = envelope.recipients().filter(|_| !envelope.progress().is_finished());
            let Some(recipients) = recipients else { break };
            // Only now that the waker is stored: either the callback wakes it, or the check below
            // finds the report.
            guard.get_or_insert_with(|| event_wait::wake_when_left_behind(envelope, &*recipients));
            if recipients.inner().is_left_behind() {
                break;
            }
            let mut until = Deadline::NEVER;
            if context::depth() > 0 {
                recipients.inner().steps.announce(*key, context.waker());
                match event_wait::help_or_refuse(&**envelope, &*recipients) {
                    Help::Helped => continue,
                    Help::Later(deadline) => until = deadline,
                    Help::Deadlock => {
                        let target = event_wait::awaited(envelope, &recipients);
                        return Poll::Ready(Err(event_wait::own_wait(&*target)));
                    }
                }
            }
            match wait.register(|| event_wait::awaited(envelope, &recipients), until, context) {
                Some(awaited) => awaited.help(),
                None => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(receipt.deliveries(envelope.progress(), names)))
    }
}

impl Drop for WaitForReceipt {
    fn drop(&mut self) {
        if let Some((envelope, _)) = &self.receipt.event {
            envelope.progress().withdraw(self.key);
            if let Some(recipients) = envelope.recipients() {
                recipients.inner().steps.withdraw(self.key);
            }
        }
    }
}

impl fmt::Debug for WaitForReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitForReceipt").field("receipt", &self.receipt).finish_non_exhaustive()
    }
}

/// # From async code
impl EventBus {
    /// Like [`wait_idle`](Self::wait_idle), for async code: the returned future does not block.
    /// Works with any runtime. Dropping it has no effect on the bus.
    ///
    /// # Panics
    ///
    /// A poll panics in a handler or another task of the pool, and in a future that a driver of the
    /// pool polls, because it would wait for itself.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn block_on<F: Future>(future: F) -> F::Output { pollster::block_on(future) }
    /// use workcrew::WorkerPool;
    /// use workcrew::events::EventBus;
    ///
    /// let pool = WorkerPool::builder().workers(1).build()?;
    /// let bus = EventBus::new(&pool);
    /// let _handler = bus.subscribe(|_: &u32| ());
    /// let receipt = bus.publish(7_u32);
    /// block_on(bus.wait_idle_async());
    /// assert!(receipt.is_finished());
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    pub fn wait_idle_async(&self) -> WaitForBusIdle {
        WaitForBusIdle {
            inner: Arc::clone(&self.inner),
            key: WakerKey::new(),
            wait: FutureWait::default(),
            guard: None,
        }
    }
}

/// A future that waits for a bus to be idle. Returned by [`EventBus::wait_idle_async`].
#[must_use = "a future does nothing until it is polled"]
pub struct WaitForBusIdle {
    inner: Arc<BusInner>,
    key: WakerKey,
    /// What the last poll has registered.
    wait: FutureWait,
    /// Wakes the future when a report has left something behind.
    guard: Option<CancelGuard>,
}

impl Future for WaitForBusIdle {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { inner, key, wait, guard } = &mut *self;
        loop {
            wait.begin_poll();
            inner.idle.announce(*key, context.waker());
            guard.get_or_insert_with(|| inner.notify_idle_when_left_behind());
            if inner.is_idle() || inner.is_left_behind() {
                return Poll::Ready(());
            }
            assert!(!context::is_inside(inner.pool.id()), "a handler cannot wait for its own bus to be idle");
            match wait.register(|| inner.idleness(), Deadline::NEVER, context) {
                Some(awaited) => awaited.help(),
                None => return Poll::Pending,
            }
        }
    }
}

impl Drop for WaitForBusIdle {
    fn drop(&mut self) {
        self.inner.idle.withdraw(self.key);
    }
}

unwind::safe!(WaitForReceipt);
unwind::safe!(WaitForBusIdle);

impl fmt::Debug for WaitForBusIdle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitForBusIdle").field("is_idle", &self.inner.is_idle()).finish_non_exhaustive()
    }
}
