//! A subscription of core NATS, whose handler runs on the workers: at most once.
//!
//! A pump on the I/O thread takes a message when a slot is free, and passes it to the pool. Other
//! messages wait in the client's buffer. When that is full, messages are lost and
//! [`Event::SlowConsumer`](crate::nats::Event) is emitted. The destructor of a subscription cannot
//! wait for a running handler: it may be on that very worker.

use std::fmt;
use std::future::poll_fn;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_nats::Subscriber;
use futures_core::Stream;

use super::inner::{ConnectionInner, WaitError};
use super::message::Message;
use super::permission;
use crate::cancel::token::CancellationToken;
use crate::io::mpsc;
use crate::nats::check;
use crate::nats::core::connection::Connection;
use crate::nats::error::PublishError;
use crate::nats::headers;
use crate::priority::Priority;
use crate::sync::Arc;
use crate::task::job::Job;

/// A builder of subscriptions. Returned by
/// [`Connection::subscribe`](crate::nats::Connection::subscribe).
#[must_use = "a builder does nothing until `start` is called"]
pub struct SubscriptionBuilder {
    connection: Arc<ConnectionInner>,
    subject: String,
    /// Each message reaches one member of this group.
    group: Option<String>,
    /// How many messages may be queued or handled in the pool; `None`: as many as it has workers.
    concurrent: Option<usize>,
    class: Priority,
}

impl SubscriptionBuilder {
    pub(crate) fn new(connection: Arc<ConnectionInner>, subject: String) -> Self {
        Self { connection, subject, group: None, concurrent: None, class: Priority::Normal }
    }

    /// Joins a queue group: each message reaches one of its members, on any machine.
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.group = Some(name.into());
        self
    }

    /// Sets how many messages may be queued or handled at once, from 1 to 1,048,576. *Default: one
    /// for each worker that the pool has now, and that may run tasks of the
    /// [class](Self::priority).*
    pub fn concurrent(mut self, messages: usize) -> Self {
        self.concurrent = Some(messages);
        self
    }

    /// Sets the class of the tasks that handle the messages. *Default: [`Priority::Normal`].*
    pub fn priority(mut self, priority: Priority) -> Self {
        self.class = priority;
        self
    }

    /// Subscribes. If there is a connection, the server has received the subscription when this
    /// returns; the wait for its answer is at most one second. Without a connection the client
    /// subscribes when there is one.
    ///
    /// The handler runs as a task of the pool. A panic is caught like that of any task.
    ///
    /// # Errors
    ///
    /// [`PublishError`]: [`Invalid`](PublishError::Invalid), [`Denied`](PublishError::Denied) if
    /// the server does not permit the subject, [`Timeout`](PublishError::Timeout) if the client's
    /// buffers are full.
    #[track_caller]
    pub fn start(self, handler: impl Fn(&Message) + Send + Sync + 'static) -> Result<Subscription, PublishError> {
        let Self { connection, subject, group, concurrent, class } = self;
        check::filter("subject", &subject)?;
        if let Some(group) = &group {
            check::group("group", group)?;
        }
        check::concurrency("concurrent", concurrent.unwrap_or(1))?;
        let subscribing = async {
            let client = &connection.client;
            match group {
                Some(group) => client.queue_subscribe(subject.clone(), group).await,
                None => client.subscribe(subject.clone()).await,
            }
        };
        let subscriber = match connection.wait(subscribing) {
            Ok(subscribed) => subscribed.map_err(|error| PublishError::Failed(error.into()))?,
            Err(WaitError::Timeout) => return Err(PublishError::Timeout),
            Err(WaitError::OnIoThread) => return Err(PublishError::WouldDeadlock),
        };
        permission::check_subscription(&connection, &subject)?;
        let slots = concurrent.unwrap_or_else(|| connection.pool.workers_for(class));
        let ended = CancellationToken::new();
        let (freed, free) = mpsc::unbounded_channel();
        for _ in 0..slots {
            let _ = freed.send(());
        }
        let pump = Pump {
            connection: Arc::clone(&connection),
            subscriber,
            free,
            freed,
            handler: Arc::new(handler),
            ended: ended.clone(),
            class,
            location: Location::caller(),
        };
        connection.io.spawn(pump.run());
        Ok(Subscription { subject, ended, connection })
    }
}

impl Connection {
    /// Configures a subscription, whose handler runs on the workers of the connection's pool. The
    /// subject may hold `*` for one word and `>` for all words that follow.
    pub fn subscribe(&self, subject: &str) -> SubscriptionBuilder {
        SubscriptionBuilder::new(Arc::clone(&self.inner), subject.to_owned())
    }
}

/// A subscription that lasts until it is dropped. After that no handler starts; a running one
/// continues.
#[must_use = "dropping it ends the subscription"]
pub struct Subscription {
    subject: String,
    /// Cancelled when the subscription is dropped.
    ended: CancellationToken,
    /// Keeps the connection open.
    connection: Arc<ConnectionInner>,
}

impl Subscription {
    /// Returns the subject.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.ended.cancel();
        // Apart from this subscription, the pump owns the connection, on a thread that cannot wait.
        if Arc::strong_count(&self.connection) <= 2 {
            self.connection.flush_on_drop();
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl fmt::Debug for SubscriptionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionBuilder")
            .field("subject", &self.subject)
            .field("group", &self.group)
            .field("concurrent", &self.concurrent)
            .field("priority", &self.class)
            .finish_non_exhaustive()
    }
}

/// Takes messages from the client and passes them to the pool.
struct Pump<H> {
    connection: Arc<ConnectionInner>,
    subscriber: Subscriber,
    /// One entry for each free slot.
    free: mpsc::UnboundedReceiver<()>,
    freed: mpsc::UnboundedSender<()>,
    handler: Arc<H>,
    ended: CancellationToken,
    class: Priority,
    location: &'static Location<'static>,
}

impl<H: Fn(&Message) + Send + Sync + 'static> Pump<H> {
    async fn run(mut self) {
        let closing = self.connection.pool.shutdown_token.clone();
        let (mut closed, mut ended) = (closing.cancelled(), self.ended.cancelled());
        loop {
            let next = poll_fn(|context| {
                let stops =
                    Pin::new(&mut ended).poll(context).is_ready() || Pin::new(&mut closed).poll(context).is_ready();
                if stops { Poll::Ready(None) } else { self.poll_next(context) }
            });
            let Some(message) = next.await else { break };
            self.push(message);
        }
        // Dropping the subscriber unsubscribes.
    }

    /// Polls for the next message, and takes a slot for it.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<async_nats::Message>> {
        if self.free.is_empty() {
            // The channel is empty: this only registers the waker.
            match self.free.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(_) => drop(self.freed.send(())),
            }
        }
        let next = Pin::new(&mut self.subscriber).poll_next(context);
        if next.is_ready() {
            let _ = self.free.try_recv();
        }
        next
    }

    fn push(&self, message: async_nats::Message) {
        let pool = &self.connection.pool;
        let queued_at = pool.executor.now_if_timing();
        let headers = || headers::pairs(message.headers.as_ref());
        let admit = || pool.executor.admit(self.location, None);
        let Some(id) = pool.executor.within_received(headers, admit) else { return };
        let message = Message::new(message, Arc::clone(&self.connection));
        let (handler, ended) = (Arc::clone(&self.handler), self.ended.clone());
        let slot = Slot(self.freed.clone());
        let job = move || {
            let _slot = slot;
            if !ended.is_cancelled() {
                handler(&message);
            }
        };
        pool.push_unbounded(Job::closure(job, id, self.location, queued_at), self.class);
    }
}

/// A slot in use. Dropping it frees the slot.
struct Slot(mpsc::UnboundedSender<()>);

impl Drop for Slot {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}
