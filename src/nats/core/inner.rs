//! What the owners of a connection share: the client, the I/O thread, and bounded waits for both.

use std::future::Future;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, jetstream};

use super::denied::Denials;
use super::dispatch::{ConnectionEvent, ConnectionListeners, EventCallback};
use crate::io::{self, IoThread, mpsc};
use crate::nats::error::PublishError;
use crate::pool::inner::PoolInner;
use crate::sync::Arc;
use crate::time::deadline::Deadline;

/// How long the last owner of a connection waits for the client to send what it was given.
const MAX_FLUSH_ON_DROP: Duration = Duration::from_secs(2);

/// What the owners of a connection share.
pub(crate) struct ConnectionInner {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) io: Arc<IoThread>,
    /// Of the pool it was connected for.
    pub(crate) pool: Arc<PoolInner>,
    /// The time for an answer.
    pub(crate) timeout: Duration,
    pub(crate) callback: EventCallback,
    /// What the server did not permit.
    pub(crate) denials: Denials,
    /// What the subjects of the JetStream API begin with.
    pub(crate) api: String,
    /// Who works, and must know when the connection breaks or comes back.
    pub(crate) listeners: ConnectionListeners,
}

/// Whether a wait was tried where it would not have ended, or was too long.
pub(crate) enum WaitError {
    Timeout,
    OnIoThread,
}

impl ConnectionInner {
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Waits on this thread for what the client does on the I/O thread, for the time of an answer.
    /// That time covers all of the future: the client bounds the answer, but not the wait for room in
    /// its own channel.
    pub(crate) fn wait<F: Future>(&self, future: F) -> Result<F::Output, WaitError> {
        self.wait_until(future, Deadline::after(self.timeout))
    }

    /// Like [`wait`](Self::wait), until another moment.
    pub(crate) fn wait_until<F: Future>(&self, future: F, deadline: Deadline) -> Result<F::Output, WaitError> {
        if self.io.is_here() {
            return Err(WaitError::OnIoThread);
        }
        let _clock = self.io.runtime().enter();
        io::block_on(future, deadline).ok_or(WaitError::Timeout)
    }

    /// Sends what was published, if there is a connection; waits two seconds at most.
    pub(crate) fn flush_on_drop(&self) {
        if self.is_connected() {
            let _ = self.wait_until(self.client.flush(), Deadline::after(MAX_FLUSH_ON_DROP));
        }
    }

    /// Tells a worker, for as long as it can be told, what happens to the connection.
    pub(crate) fn listen<T: Send + 'static>(
        &self,
        notes: mpsc::UnboundedSender<T>,
        make: impl Fn(ConnectionEvent) -> T + Send + Sync + 'static,
    ) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| !listener.is_closed());
        listeners.push(Box::new((notes, make)));
    }
}

impl Drop for ConnectionInner {
    /// Flushes. On the I/O thread, which must not wait, the flush is a future of that thread; it owns
    /// the client, and the thread, until it ends.
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
