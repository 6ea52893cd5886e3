//! A connection to a server, as those who publish, subscribe and work share it.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};

use async_nats::Request;

use super::message::Message;
use crate::nats::check;
use crate::nats::core::inner::ConnectionInner;
use crate::nats::error::PublishError;
use crate::nats::headers::Headers;
use crate::nats::payload::Encode;
use crate::sync::Arc;
use crate::time::deadline::Deadline;

/// A connection to a NATS server or cluster. Clones share it.
///
/// All of it is driven by the I/O thread of the pool it was [connected](ConnectionBuilder::connect) for. A connection that
/// breaks is made again, for ever; meanwhile what is published is held back, up to a limit.
///
/// When the last owner lets go (clones, queues, workers and subscriptions are owners) what was published is sent, for two
/// seconds at most, and the connection closed.
///
/// # At most once
///
/// [`publish`](Self::publish) and [`subscribe`](Self::subscribe) are the core of NATS: a message reaches those who
/// listen at that moment, at most once, and nobody learns of a loss. For work that must not be lost there is
/// [`JobQueue`](crate::nats::JobQueue).
///
/// # Examples
///
/// ```no_run
/// use workcrew::WorkerPool;
/// use workcrew::nats::Connection;
///
/// let pool = WorkerPool::new()?;
/// let connection = Connection::builder("nats://127.0.0.1:4222").name("greeter").connect(&pool)?;
/// let _greeter = connection.subscribe("greet.*").start(|message| {
///     let _ = message.respond(format!("hello {}", message.text().unwrap_or("you")).as_str());
/// })?;
/// let answer = connection.request("greet.en", "Ann")?;
/// assert_eq!(answer.text(), Some("hello Ann"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Connection {
    pub(crate) inner: Arc<ConnectionInner>,
}

impl Connection {
    /// Whether there is a connection right now; out of date when it arrives.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.is_connected()
    }

    /// InFlight a message to the client, which sends it soon after, or when there is a connection again. At most once: see
    /// [above](Self#at-most-once).
    ///
    /// Blocks only while the client holds back as much as it may, for the time of an answer at most. What the server
    /// does not permit is told by the next [`flush`](Self::flush), and by [`Event::Denied`].
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn publish(&self, subject: &str, payload: &(impl Encode + ?Sized)) -> Result<(), PublishError> {
        check::subject("subject", subject)?;
        let bytes = payload.encode().map_err(PublishError::Encode)?;
        let inner = &self.inner;
        inner.wait(inner.client.publish(subject.to_owned(), bytes.into()))??;
        Ok(())
    }

    /// InFlight a message with headers to the client. Like [`publish`](Self::publish) otherwise.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn publish_with_headers(
        &self,
        subject: &str,
        headers: &Headers,
        payload: &(impl Encode + ?Sized),
    ) -> Result<(), PublishError> {
        check::subject("subject", subject)?;
        let (map, bytes) = (headers.to_map()?, payload.encode().map_err(PublishError::Encode)?);
        let inner = &self.inner;
        inner.wait(inner.client.publish_with_headers(subject.to_owned(), map, bytes.into()))??;
        Ok(())
    }

    /// Blocks until the server has taken what was published, for the time of an answer at most.
    ///
    /// # Errors
    ///
    /// [`PublishError`]: [`Denied`](PublishError::Denied) if the server did not permit the subject of a publish since
    /// the last flush; [`Timeout`](PublishError::Timeout) if there is no connection for the time of an answer. A
    /// user without permission for the inbox of answers gets `Ok` when all was handed to the operating system.
    pub fn flush(&self) -> Result<(), PublishError> {
        let deadline = Deadline::after(self.inner.timeout);
        let flushed = self.inner.wait_until(self.inner.client.flush(), deadline)?;
        flushed.map_err(|error| PublishError::Failed(error.into()))?;
        self.inner.catch_up(deadline)?;
        self.inner.denied_publish()
    }

    /// Publishes a message and blocks until a handler [responds](Message::respond), for the time of
    /// an answer at most.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn request(&self, subject: &str, payload: &(impl Encode + ?Sized)) -> Result<Message, PublishError> {
        self.ask(subject, None, payload)
    }

    /// Publishes a message with headers and blocks until a handler responds. Like
    /// [`request`](Self::request) otherwise.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn request_with_headers(
        &self,
        subject: &str,
        headers: &Headers,
        payload: &(impl Encode + ?Sized),
    ) -> Result<Message, PublishError> {
        self.ask(subject, Some(headers), payload)
    }

    fn ask(
        &self,
        subject: &str,
        headers: Option<&Headers>,
        payload: &(impl Encode + ?Sized),
    ) -> Result<Message, PublishError> {
        check::subject("subject", subject)?;
        let mut request = Request::new();
        if let Some(headers) = headers {
            request = request.headers(headers.to_map()?);
        }
        let request = request.payload(payload.encode().map_err(PublishError::Encode)?.into());
        let inner = &self.inner;
        let asking = inner.client.send_request(subject.to_owned(), request);
        let answer = inner.wait(inner.permitted(&[subject.to_owned()], asking))???;
        Ok(Message::new(answer, Arc::clone(inner)))
    }

    /// Closes the connection and has the client make it again, to another server of the cluster for
    /// example. Returns before there is a new one.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn reconnect(&self) -> Result<(), PublishError> {
        let asked = self.inner.wait(self.inner.client.force_reconnect())?;
        asked.map_err(|error| PublishError::Failed(error.into()))
    }
}

// A panic never happens under a lock of this crate, so nothing that is broken can be seen through a reference.
impl UnwindSafe for Connection {}
impl RefUnwindSafe for Connection {}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("is_connected", &self.is_connected()).finish_non_exhaustive()
    }
}
