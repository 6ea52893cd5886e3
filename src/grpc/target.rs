//! The channel of an attempt, which adds metadata to each request.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tonic::body::Body;
use tonic::codegen::{Service, StdError, http};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, KeyAndValueRef, KeyRef, MetadataMap};
use tonic::{Request, Status};

use super::method::{MethodConfig, MethodTable};
use super::rate::TurnQueue;
use super::transport::{self, Transport};
use super::wire::{self, Wire};
use crate::sync::Arc;
use crate::task::executor::Executor;

/// The key for the number of previous attempts. Absent from the first attempt.
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";
/// The key for the time that the server has.
const TIMEOUT: &str = "grpc-timeout";
/// The longest time that the protocol can express: eight digits of hours, or 11,415 years.
const MAX_TIMEOUT: Duration = Duration::from_secs(99_999_999 * 3_600);

/// Edits the metadata of a request before it is sent, or refuses it.
pub(super) type Interceptor = Arc<dyn Fn(Request<()>) -> Result<Request<()>, Status> + Send + Sync>;

/// The state that the clones of a caller share.
pub(super) struct CallerInner {
    /// Sends the requests.
    pub(super) transport: Transport,
    /// The settings of the methods.
    pub(super) methods: MethodTable,
    /// Knows the hook that carries contexts.
    pub(super) executor: Arc<Executor>,
    /// Called for each request, in this order.
    pub(super) interceptors: Vec<Interceptor>,
    /// Where attempts wait for their turn, if there is a rate.
    pub(super) turns: Option<TurnQueue>,
}

/// The channel of one attempt, for the `new` of a tonic client.
///
/// It adds to each request the propagated metadata, the time that is left and the number of the
/// attempt. Metadata or a timeout that the request sets itself takes precedence. Then the caller's
/// interceptors run. A clone belongs to the same attempt.
#[derive(Clone)]
pub struct Target {
    transport: Transport,
    attempt: AttemptContext,
    /// Why the transport is not ready. The next call returns it.
    not_ready: Option<NotReady>,
}

/// The context of one attempt.
#[derive(Clone)]
pub(super) struct AttemptContext {
    /// Shared with the caller.
    pub(super) inner: Arc<CallerInner>,
    /// Observes the bodies of the attempt.
    pub(super) wire: Arc<Wire>,
    /// The metadata that is sent with each request. Never has reserved keys.
    pub(super) propagated: Arc<MetadataMap>,
    /// The settings that the caller overrides.
    pub(super) overrides: MethodConfig,
    /// Whether the response is a stream. Then the server has the time for the call, not that for an
    /// attempt.
    pub(super) is_stream: bool,
    /// How many attempts came before this one.
    pub(super) previous: u32,
    /// When the call began.
    pub(super) started: Instant,
    /// When this attempt began.
    pub(super) begun: Instant,
}

/// The error of a transport that cannot take a request.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the transport is not ready: {0}")]
pub(super) struct NotReady(#[source] Arc<dyn Error + Send + Sync>);

impl Target {
    pub(super) fn new(attempt: AttemptContext) -> Self {
        Self { transport: attempt.inner.transport.clone(), attempt, not_ready: None }
    }

    pub(super) fn wire(&self) -> &Arc<Wire> {
        &self.attempt.wire
    }
}

impl Service<http::Request<Body>> for Target {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = ResponseFuture;

    /// Reports a transport that failed to become ready as ready. Generated clients keep only the
    /// text of such an error, and the next call returns the error itself.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        let ready = ready!(self.transport.poll_ready(context));
        self.not_ready = ready.err().map(|error| NotReady(error.into()));
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> ResponseFuture {
        let wire = Arc::clone(&self.attempt.wire);
        let head = match (self.not_ready.take(), self.attempt.prepare(request)) {
            (Some(error), _) => transport::ResponseFuture::Ready(Some(Err(error.into()))),
            (None, Ok(request)) => self.transport.call(wire::outgoing(request, &wire)),
            (None, Err(status)) => transport::ResponseFuture::Ready(Some(Ok(status.into_http()))),
        };
        ResponseFuture { head, wire }
    }
}

impl fmt::Debug for Target {
    /// Omits the propagated values, because there may be secrets among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("previous_attempts", &self.attempt.previous).finish_non_exhaustive()
    }
}

/// A future of the head of a response. Returned by [`Target`].
pub struct ResponseFuture {
    head: transport::ResponseFuture,
    wire: Arc<Wire>,
}

impl Future for ResponseFuture {
    type Output = Result<http::Response<Body>, StdError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        Pin::new(&mut this.head).poll(context).map_ok(|response| wire::incoming(response, &this.wire))
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl AttemptContext {
    /// Returns when the attempt is given up, as far as its method is known.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline_if(self.wire.is_delivered())
    }

    /// Returns the deadline if a message of a stream was received, or if none was.
    fn deadline_if(&self, is_delivered: bool) -> Option<Instant> {
        let settings = self.inner.methods.settings(self.wire.method(), &self.overrides);
        settings.deadline_of_attempt(self.started, self.begun, is_delivered)
    }

    /// Adds the metadata to a request, and runs the interceptors. Calls user code.
    fn prepare(&self, request: http::Request<Body>) -> Result<http::Request<Body>, Status> {
        self.wire.note_method(self.inner.methods.row(request.uri().path()));
        let (mut parts, body) = request.into_parts();
        let mut metadata = MetadataMap::from_headers(parts.headers);
        self.add_metadata(&mut metadata);
        let mut head = Request::from_parts(metadata, parts.extensions, ());
        for interceptor in &self.inner.interceptors {
            head = interceptor(head)?;
        }
        let (metadata, extensions, ()) = head.into_parts();
        parts.headers = metadata.into_headers();
        parts.extensions = extensions;
        Ok(http::Request::from_parts(parts, body))
    }

    /// Adds the propagated metadata, the timeout and the number of previous attempts.
    fn add_metadata(&self, metadata: &mut MetadataMap) {
        add_missing(metadata, &self.propagated);
        let headers = self.inner.executor.headers_to_send();
        if !headers.is_empty() {
            add_missing(metadata, &metadata_of(&headers));
        }
        if !metadata.contains_key(TIMEOUT)
            && let Some(deadline) = self.deadline_if(self.is_stream)
        {
            metadata.insert(TIMEOUT, timeout_value(deadline));
        }
        if self.previous > 0 {
            metadata.insert(PREVIOUS_ATTEMPTS, AsciiMetadataValue::from(self.previous));
        }
    }
}

/// Returns the time that is left, as a value of the protocol.
fn timeout_value(deadline: Instant) -> AsciiMetadataValue {
    // A server takes zero for "no time left". That is for this side to find out.
    let left = deadline.saturating_duration_since(Instant::now());
    let mut request = Request::new(());
    request.set_timeout(left.clamp(Duration::from_millis(1), MAX_TIMEOUT));
    request.metadata_mut().remove(TIMEOUT).expect("it was set")
}

/// Returns the headers of a context as metadata. Those that may not be sent are left out.
fn metadata_of(headers: &[(String, String)]) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| !is_reserved(&name.to_ascii_lowercase())) {
        if let (Ok(key), Ok(value)) = (name.parse::<AsciiMetadataKey>(), value.parse::<AsciiMetadataValue>()) {
            metadata.append(key, value);
        }
    }
    metadata
}

/// Returns `true` if only the protocol writes metadata of this key.
fn is_reserved(key: &str) -> bool {
    key.starts_with("grpc-") || matches!(key, "te" | "content-type" | "user-agent")
}

/// Adds the entries of `propagated` whose keys are missing in `own`: all values of a key, in their
/// order.
fn add_missing(own: &mut MetadataMap, propagated: &MetadataMap) {
    // Decided before an entry is added, so that the first value of a key does not exclude the
    // others.
    let is_missing = |entry| match entry {
        KeyAndValueRef::Ascii(key, _) => !own.contains_key(key),
        KeyAndValueRef::Binary(key, _) => own.get_bin(key).is_none(),
    };
    let missing: Vec<bool> = propagated.iter().map(is_missing).collect();
    let entries = propagated.iter().zip(missing).filter(|(_, is_missing)| *is_missing);
    entries.for_each(|(entry, _)| append(own, &entry));
}

/// Copies the entries of `incoming` that `keys` name, in any case, to `propagated`. Reserved keys
/// of the protocol are not copied. All values of a key are copied, and replace the previous ones.
pub(super) fn propagate(propagated: &mut MetadataMap, incoming: &MetadataMap, keys: &[&str]) {
    let is_named = |key: &str| keys.iter().any(|name| name.eq_ignore_ascii_case(key)) && !is_reserved(key);
    for key in incoming.keys() {
        match key {
            KeyRef::Ascii(key) if is_named(key.as_str()) => drop(propagated.remove(key)),
            KeyRef::Binary(key) if is_named(key.as_str()) => drop(propagated.remove_bin(key)),
            _ => {}
        }
    }
    for entry in incoming.iter() {
        let name = match entry {
            KeyAndValueRef::Ascii(key, _) => key.as_str(),
            KeyAndValueRef::Binary(key, _) => key.as_str(),
        };
        if is_named(name) {
            append(propagated, &entry);
        }
    }
}

/// Appends an entry, of either encoding.
fn append(to: &mut MetadataMap, entry: &KeyAndValueRef<'_>) {
    match *entry {
        KeyAndValueRef::Ascii(key, value) => to.append(key.clone(), value.clone()),
        KeyAndValueRef::Binary(key, value) => to.append_bin(key.clone(), value.clone()),
    };
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataValue;

    use super::*;

    /// Returns a request's own metadata together with the propagated metadata.
    fn sent(propagated: &MetadataMap, mut own: MetadataMap) -> MetadataMap {
        add_missing(&mut own, propagated);
        own
    }

    fn values<'a>(metadata: &'a MetadataMap, key: &str) -> Vec<&'a str> {
        metadata.get_all(key).iter().map(|value| value.to_str().expect("it is text")).collect()
    }

    fn metadata(entries: &[(&'static str, &'static str)]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for (key, value) in entries {
            metadata.append(*key, AsciiMetadataValue::from_static(value));
        }
        metadata
    }

    #[test]
    fn all_values_of_a_propagated_key_are_sent_in_their_order_text_and_binary() {
        let mut incoming = metadata(&[("baggage", "a=1"), ("other", "x"), ("baggage", "b=2")]);
        for bytes in [b"one", b"two"] {
            incoming.append_bin("trace-bin", MetadataValue::from_bytes(bytes));
        }
        let mut propagated = metadata(&[("baggage", "of before"), ("kept", "yes")]);
        propagate(&mut propagated, &incoming, &["baggage", "trace-bin"]);
        let both = sent(&propagated, MetadataMap::new());
        assert_eq!(values(&both, "baggage"), ["a=1", "b=2"]);
        assert_eq!((values(&both, "kept"), values(&both, "other")), (vec!["yes"], vec![]));
        let bytes: Vec<_> = both.get_all_bin("trace-bin").iter().map(MetadataValue::to_bytes).collect();
        assert_eq!(bytes.into_iter().map(|bytes| bytes.expect("it is base64")).collect::<Vec<_>>(), ["one", "two"]);
        // A request's own value replaces the propagated ones.
        let own = metadata(&[("baggage", "own")]);
        assert_eq!(values(&sent(&propagated, own), "baggage"), ["own"]);
    }

    #[test]
    fn keys_are_named_in_any_case_and_reserved_keys_are_not_propagated() {
        let incoming = metadata(&[("traceparent", "t"), ("grpc-timeout", "1n"), ("te", "trailers")]);
        let mut propagated = MetadataMap::new();
        propagate(&mut propagated, &incoming, &["TraceParent", "GRPC-Timeout", "TE"]);
        assert_eq!((values(&propagated, "traceparent"), propagated.len()), (vec!["t"], 1));
    }

    #[test]
    fn no_time_is_too_long_or_too_short_for_the_protocol() {
        let now = Instant::now();
        let value = |deadline| timeout_value(deadline).to_str().expect("it is text").to_owned();
        assert_eq!(value(now), "1000000n");
        for exponent in 0..64 {
            let Some(deadline) = now.checked_add(Duration::from_secs(1 << exponent)) else { continue };
            let value = value(deadline);
            assert!(value.len() <= 9 && value != "0H", "2^{exponent} s: {value}");
            assert!(exponent < 39 || value == "99999999H", "2^{exponent} s: {value}");
        }
    }
}
