//! A connection to a server, shared by publishers, subscriptions and workers.

use std::fmt;

use async_nats::{HeaderMap, Request};

use super::message::Message;
use crate::nats::check;
use crate::nats::core::inner::ConnectionInner;
use crate::nats::error::PublishError;
use crate::nats::headers::{self, Headers};
use crate::nats::payload::Encode;
use crate::sync::Arc;
use crate::time::deadline::Deadline;
use crate::unwind;

/// A connection to a NATS server or cluster. Clones share it.
///
/// It runs on the I/O thread of the pool it was
/// [connected](crate::nats::ConnectionBuilder::connect) for. A broken connection is made again, by
/// default forever. Meanwhile published messages are buffered, up to a limit.
///
/// Clones, queues, workers and subscriptions own the connection. When the last owner is dropped,
/// buffered messages are sent, for at most two seconds, and the connection is closed.
///
/// # At most once
///
/// [`publish`](Self::publish) and [`subscribe`](Self::subscribe) are core NATS. A message reaches
/// the subscribers of that moment, at most once, and a loss is not reported. For work that must not
/// be lost use [`JobQueue`](crate::nats::JobQueue).
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
    /// Returns `true` if there is a connection. May be stale when it returns.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.is_connected()
    }

    /// Passes a message to the client, which sends it soon, or when there is a connection again. At
    /// most once: see [above](Self#at-most-once).
    ///
    /// Blocks only while the client's buffer is full, for at most the connection's timeout. A
    /// missing permission is reported by the next [`flush`](Self::flush), and by
    /// [`Event::Denied`](crate::nats::Event::Denied).
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn publish(&self, subject: &str, payload: &(impl Encode + ?Sized)) -> Result<(), PublishError> {
        check::subject("subject", subject)?;
        self.inner.send(subject.into(), HeaderMap::new(), payload)
    }

    /// Passes a message with headers to the client. Otherwise like [`publish`](Self::publish).
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
        self.inner.send(subject.into(), headers.to_map()?, payload)
    }

    /// Blocks until the server has received all published messages, for at most the connection's
    /// timeout.
    ///
    /// # Errors
    ///
    /// [`PublishError`]: [`Denied`](PublishError::Denied) if the server did not permit the subject
    /// of a publish since the last flush; [`Timeout`](PublishError::Timeout) if there is no
    /// connection in time. For a user without permission for the inbox of answers, `Ok` means only
    /// that all messages were passed to the operating system.
    pub fn flush(&self) -> Result<(), PublishError> {
        let deadline = Deadline::after(self.inner.timeout);
        let flushed = self.inner.wait_until(self.inner.client.flush(), deadline)?;
        flushed.map_err(|error| PublishError::Failed(error.into()))?;
        self.inner.await_denials(deadline)?;
        self.inner.denied_publish()
    }

    /// Publishes a message and blocks until a handler [responds](Message::respond), for at most the
    /// connection's timeout.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn request(&self, subject: &str, payload: &(impl Encode + ?Sized)) -> Result<Message, PublishError> {
        self.ask(subject, None, payload)
    }

    /// Publishes a message with headers and blocks until a handler responds. Otherwise like
    /// [`request`](Self::request).
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
        let inner = &self.inner;
        let mut map = headers.map_or_else(|| Ok(HeaderMap::new()), Headers::to_map)?;
        headers::add_context(&inner.pool.executor, &mut map);
        let mut request = Request::new().payload(payload.encode().map_err(PublishError::Encode)?.into());
        if !map.is_empty() {
            request = request.headers(map);
        }
        let asking = inner.client.send_request(subject.to_owned(), request);
        let answer = inner.wait(inner.permitted(&[subject.to_owned()], asking))???;
        Ok(Message::new(answer, Arc::clone(inner)))
    }

    /// Closes the connection and has the client make a new one, for example to another server of
    /// the cluster. Returns before there is a new connection.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn reconnect(&self) -> Result<(), PublishError> {
        let asked = self.inner.wait(self.inner.client.force_reconnect())?;
        asked.map_err(|error| PublishError::Failed(error.into()))
    }
}

unwind::safe!(Connection);

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("is_connected", &self.is_connected()).finish_non_exhaustive()
    }
}
