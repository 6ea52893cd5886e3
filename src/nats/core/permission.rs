//! Ends calls as soon as the server denies them, instead of at their timeout.
//!
//! Rules:
//! 1. A call that publishes names its subjects. It ends if the server denies one of them while the
//!    call waits for its answer. Permissions belong to the connection, so any denial of that
//!    subject concerns the call.
//! 2. While the server denies the inbox of all answers, no call waits for one.
//! 3. A publish does not wait. The next flush reports its denial.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures_core::Stream;

use super::denied::{DenialWatcher, Mark, PROBE};
use super::inner::ConnectionInner;
use crate::io;
use crate::nats::error::{BoxError, Denied, PublishError};
use crate::time::deadline::Deadline;

/// How long a subscription waits at most for the server.
const MAX_PROBE: Duration = Duration::from_secs(1);

impl ConnectionInner {
    /// Polls a call that publishes to these subjects and waits for an answer, until it ends or is
    /// denied.
    pub(crate) async fn permitted<F: Future>(&self, subjects: &[String], call: F) -> Result<F::Output, Denied> {
        self.permitted_since(self.denials.mark(), subjects, call).await
    }

    /// Like [`permitted`](Self::permitted), for a call that started at the mark.
    pub(crate) async fn permitted_since<F: Future>(
        &self,
        mark: Mark,
        subjects: &[String],
        call: F,
    ) -> Result<F::Output, Denied> {
        let mut call = pin!(call);
        let mut watch = DenialWatcher::new(&self.denials, mark);
        poll_fn(|context| {
            if let Poll::Ready(output) = call.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            watch.poll(subjects, context).map(|text| Err(Denied(text)))
        })
        .await
    }

    /// Like [`permitted`](Self::permitted), for calls to the JetStream API such as
    /// `STREAM.INFO.JOBS`.
    pub(crate) async fn permitted_api<F: Future>(&self, calls: &[String], call: F) -> Result<F::Output, Denied> {
        let subjects: Vec<_> = calls.iter().map(|call| format!("{}.{call}", self.api)).collect();
        self.permitted(&subjects, call).await
    }

    /// Waits until the server has received all messages that were sent, and its denials have
    /// arrived here. Returns at once if that cannot be known.
    pub(crate) fn await_denials(&self, deadline: Deadline) -> Result<(), PublishError> {
        if !self.is_connected() || self.denials.is_inbox_denied() {
            return Ok(());
        }
        // A message to this client itself. Other subscribers may receive all subjects, so a request
        // without a responder would not do.
        let subject = format!("{}{PROBE}", self.client.new_inbox());
        let round_trip = async {
            let mut probe = self.client.subscribe(subject.clone()).await.map_err(BoxError::from)?;
            self.client.publish(subject.clone(), "".into()).await?;
            poll_fn(|context| Pin::new(&mut probe).poll_next(context)).await;
            Ok::<_, BoxError>(())
        };
        // A denial of the probe is an answer as well.
        if let Ok(Err(error)) = self.wait_until(self.permitted(std::slice::from_ref(&subject), round_trip), deadline)? {
            return Err(PublishError::Failed(error));
        }
        // Denials reach this thread through another task of the I/O thread.
        let _ = self.io.block_on(async { io::sleep(Duration::from_millis(1)).await }, Deadline::after(MAX_PROBE));
        Ok(())
    }

    /// Returns the denial of an earlier publish, if it was not reported yet.
    pub(crate) fn denied_publish(&self) -> Result<(), PublishError> {
        self.denials.take_publish().map_or(Ok(()), |text| Err(PublishError::Denied(text)))
    }
}

/// Waits until the server has received a subscription, and returns an error if it is denied.
/// Without a connection, or without permission for the inbox of the answer, a denial cannot be
/// known; the result is then `Ok`.
pub(crate) fn check_subscription(connection: &ConnectionInner, subject: &str) -> Result<(), PublishError> {
    let _ = connection.await_denials(Deadline::after(connection.timeout.min(MAX_PROBE)));
    connection.denials.take(subject).map_or(Ok(()), |message| Err(PublishError::Denied(message)))
}
