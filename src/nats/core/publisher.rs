//! The part of a connection that only publishes.

use std::fmt;

use super::connection::Connection;
use super::message::Message;
use crate::nats::error::PublishError;
use crate::nats::headers::Headers;
use crate::nats::payload::Encode;
use crate::unwind;

/// A publisher of messages, at most once, and of requests. Returned by [`Connection::publisher`].
/// Clones share the connection, and own it.
///
/// # Examples
///
/// ```no_run
/// use workcrew::WorkerPool;
/// use workcrew::nats::{Connection, Publisher};
///
/// fn greet(publisher: &Publisher) -> Result<(), workcrew::nats::PublishError> {
///     publisher.publish("greetings", "hello")?;
///     publisher.flush()
/// }
///
/// let pool = WorkerPool::new()?;
/// greet(&Connection::builder("127.0.0.1:4222").connect(&pool)?.publisher())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Publisher {
    connection: Connection,
}

impl Publisher {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// See [`Connection::publish`].
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn publish(&self, subject: &str, payload: &(impl Encode + ?Sized)) -> Result<(), PublishError> {
        self.connection.publish(subject, payload)
    }

    /// See [`Connection::publish_with_headers`].
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
        self.connection.publish_with_headers(subject, headers, payload)
    }

    /// See [`Connection::request_with_headers`].
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
        self.connection.request_with_headers(subject, headers, payload)
    }

    /// See [`Connection::flush`].
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn flush(&self) -> Result<(), PublishError> {
        self.connection.flush()
    }

    /// See [`Connection::request`].
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn request(&self, subject: &str, payload: &(impl Encode + ?Sized)) -> Result<Message, PublishError> {
        self.connection.request(subject, payload)
    }
}

impl Connection {
    /// Returns the part of the connection that only publishes.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self.clone())
    }
}

unwind::safe!(Publisher);

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Publisher").field(&self.connection).finish()
    }
}
