//! Limits on how long futures of the I/O thread wait for the client.
//!
//! The client limits the wait for an answer. It does not limit the wait for room in its own
//! channel, which is full while a server is silent or away and other threads publish.
//!
//! Rules:
//! 1. On the I/O thread each future of the client is awaited through
//!    [`ConnectionInner::with_timeout`], [`ConnectionInner::answer`] or [`poll_once`]. Calls of
//!    other threads are limited by `ConnectionInner::wait`.
//! 2. A future that runs out of time while it waits for room has sent nothing.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_nats::client::FlushErrorKind;
use async_nats::jetstream::context::{RequestError, RequestErrorKind};

use super::inner::ConnectionInner;
use crate::io;

/// How much longer than its timeout a request may take, so that the client's own, more precise
/// error comes first.
const GRACE: Duration = Duration::from_millis(100);

impl ConnectionInner {
    /// Awaits one request and its answer; `None` if the timeout has passed.
    pub(crate) async fn with_timeout<F: Future>(&self, question: F) -> Option<F::Output> {
        io::timeout(self.timeout.saturating_add(GRACE), question).await.ok()
    }

    /// Returns `true` if the client has ended for good: it gave up reconnecting, or its task has
    /// panicked.
    pub(crate) fn is_closed(&self) -> bool {
        let flushing = poll_once(self.client.flush());
        matches!(flushing, Some(Err(error)) if error.kind() == FlushErrorKind::SendError)
    }

    /// Awaits the answer of JetStream to one request.
    pub(crate) async fn answer<T>(
        &self,
        asking: impl Future<Output = Result<T, RequestError>>,
    ) -> Result<T, RequestError> {
        self.with_timeout(asking).await.unwrap_or_else(|| Err(RequestErrorKind::TimedOut.into()))
    }
}

/// Polls a future of the client once. It is ready if the client has room.
pub(crate) fn poll_once<F: Future>(handing_over: F) -> Option<F::Output> {
    let unconstrained = pin!(io::unconstrained(handing_over));
    match unconstrained.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
