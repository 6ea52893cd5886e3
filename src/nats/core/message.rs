//! A message of core NATS.

use std::fmt;

use async_nats::HeaderMap;

use super::inner::ConnectionInner;
use crate::nats::check;
use crate::nats::error::{BoxError, PublishError};
use crate::nats::headers::{self, Headers};
use crate::nats::payload::{Decode, Encode};
use crate::sync::Arc;

/// A message that arrived by a subscription, or as the answer to a request.
pub struct Message {
    message: async_nats::Message,
    connection: Arc<ConnectionInner>,
}

impl Message {
    pub(crate) fn new(message: async_nats::Message, connection: Arc<ConnectionInner>) -> Self {
        Self { message, connection }
    }

    /// Returns the subject to which it was published.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.message.subject
    }

    /// Returns the payload.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.message.payload
    }

    /// Returns the payload if it is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.message.payload).ok()
    }

    /// Decodes the payload.
    ///
    /// # Errors
    ///
    /// Those of [`Decode::decode`].
    pub fn decode<T: Decode>(&self) -> Result<T, BoxError> {
        T::decode(&self.message.payload)
    }

    /// Returns the first header of this name. Names are case-sensitive.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// Iterates over all headers, sorted by name; a name appears once for each of its values.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        headers::pairs(self.message.headers.as_ref())
    }

    /// Returns `true` if a caller waits for a [response](Self::respond).
    #[must_use]
    pub fn wants_response(&self) -> bool {
        self.message.reply.is_some()
    }

    /// Answers a [request](crate::nats::Connection::request). Without effect if no caller waits.
    /// Otherwise like [`publish`](crate::nats::Connection::publish).
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn respond(&self, payload: &(impl Encode + ?Sized)) -> Result<(), PublishError> {
        self.answer(None, payload)
    }

    /// Answers a request with headers. Otherwise like [`respond`](Self::respond).
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn respond_with_headers(
        &self,
        headers: &Headers,
        payload: &(impl Encode + ?Sized),
    ) -> Result<(), PublishError> {
        self.answer(Some(headers), payload)
    }

    fn answer(&self, headers: Option<&Headers>, payload: &(impl Encode + ?Sized)) -> Result<(), PublishError> {
        let Some(reply) = self.message.reply.clone() else { return Ok(()) };
        check::subject("reply subject", &reply)?;
        let headers = headers.map_or_else(|| Ok(HeaderMap::new()), Headers::to_map)?;
        self.connection.send(reply, headers, payload)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("subject", &self.subject())
            .field("bytes", &self.bytes().len())
            .finish_non_exhaustive()
    }
}
