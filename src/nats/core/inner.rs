//! What the owners of a connection share: the client, the I/O thread, and waits with a limit.

use std::future::Future;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Subject, jetstream};

use super::denied::Denials;
use super::dispatch::{ConnectionEvent, ConnectionListeners, EventCallback};
use crate::io::{self, IoThread, mpsc};
use crate::nats::error::PublishError;
use crate::nats::headers;
use crate::nats::payload::Encode;
use crate::pool::inner::PoolInner;
use crate::sync::Arc;
use crate::time::deadline::Deadline;

/// How long the last owner of a connection waits at most for buffered messages to be sent.
const MAX_FLUSH_ON_DROP: Duration = Duration::from_secs(2);

/// The shared inside of a connection.
pub(crate) struct ConnectionInner {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) io: Arc<IoThread>,
    /// The pool it was connected for.
    pub(crate) pool: Arc<PoolInner>,
    /// The timeout for an answer.
    pub(crate) timeout: Duration,
    pub(crate) callback: EventCallback,
    /// The permissions that the server denied.
    pub(crate) denials: Denials,
    /// The prefix of the subjects of the JetStream API.
    pub(crate) api: String,
    /// The workers that are notified when the connection breaks or comes back.
    pub(crate) listeners: ConnectionListeners,
}

/// Why a wait failed: it took too long, or would have waited for its own thread.
pub(crate) enum WaitError {
    Timeout,
    OnIoThread,
}

impl ConnectionInner {
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Waits on this thread for a future of the client, for at most the timeout. The timeout covers
    /// the whole future: the client limits the wait for an answer, but not the wait for room in its
    /// own channel.
    pub(crate) fn wait<F: Future>(&self, future: F) -> Result<F::Output, WaitError> {
        self.wait_until(future, Deadline::after(self.timeout))
    }

    /// Like [`wait`](Self::wait), with another deadline.
    pub(crate) fn wait_until<F: Future>(&self, future: F, deadline: Deadline) -> Result<F::Output, WaitError> {
        if self.io.is_here() {
            return Err(WaitError::OnIoThread);
        }
        let _clock = self.io.runtime().enter();
        io::block_on(future, deadline).ok_or(WaitError::Timeout)
    }

    /// Passes a message to the client, with the context of this thread.
    pub(crate) fn send(
        &self,
        subject: Subject,
        mut headers: HeaderMap,
        payload: &(impl Encode + ?Sized),
    ) -> Result<(), PublishError> {
        let bytes = payload.encode().map_err(PublishError::Encode)?;
        headers::add_context(&self.pool.executor, &mut headers);
        if headers.is_empty() {
            self.wait(self.client.publish(subject, bytes.into()))??;
        } else {
            self.wait(self.client.publish_with_headers(subject, headers, bytes.into()))??;
        }
        Ok(())
    }

    /// Sends buffered messages if there is a connection. Waits for at most two seconds.
    pub(crate) fn flush_on_drop(&self) {
        if self.is_connected() {
            let _ = self.wait_until(self.client.flush(), Deadline::after(MAX_FLUSH_ON_DROP));
        }
    }

    /// Sends events of the connection to a worker, until it drops its receiver.
    pub(crate) fn listen<T: Send + 'static>(
        &self,
        sender: mpsc::UnboundedSender<T>,
        make: impl Fn(ConnectionEvent) -> T + Send + Sync + 'static,
    ) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| !listener.is_closed());
        listeners.push(Box::new((sender, make)));
    }
}

impl Drop for ConnectionInner {
    /// Flushes. The I/O thread must not wait, so there the flush is spawned as a future. It owns
    /// the client and the thread until it ends.
    fn drop(&mut self) {
        if self.io.is_here() && self.is_connected() {
            let (client, io) = (self.client.clone(), Arc::clone(&self.io));
            self.io.spawn(async move {
                let _ = io::timeout(MAX_FLUSH_ON_DROP, client.flush()).await;
                drop(io);
            });
        } else {
            self.flush_on_drop();
        }
    }
}

impl From<WaitError> for PublishError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Timeout => Self::Timeout,
            WaitError::OnIoThread => Self::WouldDeadlock,
        }
    }
}
