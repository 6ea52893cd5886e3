//! A message of core NATS.

use std::fmt;

use super::connection::Link;
use super::error::{BoxError, PublishError};
use super::payload::{Decode, Encode};
use crate::sync::Arc;

/// A message that came by a subscription, or as the answer to a request.
pub struct Message {
    message: async_nats::Message,
    link: Arc<Link>,
}

impl Message {
    pub(super) fn new(message: async_nats::Message, link: Arc<Link>) -> Self {
        Self { message, link }
    }

    /// What it was published to.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.message.subject
    }

    /// The payload as it came.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.message.payload
    }

    /// The payload, if it is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.message.payload).ok()
    }

    /// The payload as a value.
    ///
    /// # Errors
    ///
    /// Those of [`Decode::decode`].
    pub fn decode<T: Decode>(&self) -> Result<T, BoxError> {
        T::decode(&self.message.payload)
    }

    /// The first header of this name; the case of letters counts.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// Whether somebody waits for a [response](Self::respond).
    #[must_use]
    pub fn wants_response(&self) -> bool {
        self.message.reply.is_some()
    }

    /// Answers a [request](super::Connection::request); does nothing, if nobody waits. Like
    /// [`publish`](super::Connection::publish) otherwise.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn respond(&self, payload: &(impl Encode + ?Sized)) -> Result<(), PublishError> {
        let Some(reply) = self.message.reply.clone() else { return Ok(()) };
        let bytes = payload.encode().map_err(PublishError::Encode)?;
        self.link.wait(self.link.client.publish(reply, bytes.into()), self.link.timeout)??;
        Ok(())
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
