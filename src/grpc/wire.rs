//! Observes the requests and responses of one attempt, through their bodies.
//!
//! An error does not tell whether a request was sent, because each library below reports the same
//! end differently. The body tells. The transport polls a body for its first frame when the stream
//! is open, and a server that has not received the message has not run the method. So a request
//! whose body was never polled was never sent.
//!
//! | state | meaning | next |
//! |---|---|---|
//! | `UNSENT` | no body was polled | `SENT`, by the first poll; `REVOKED`, by a call that gives up the attempt |
//! | `SENT` | a message may be on its way | |
//! | `REVOKED` | no message will be sent | |
//!
//! Race: *first poll and revoke*: one of the two exchanges wins. If the poll wins, the attempt may
//! have been sent. If the call wins, the poll fails, and nothing is sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Bytes, http};
use tonic::metadata::MetadataMap;

use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering};

const UNSENT: usize = 0;
const SENT: usize = 1;
const REVOKED: usize = 2;

/// The row while no method is known.
const NO_METHOD: usize = usize::MAX;

/// The key of an encoded `google.rpc.Status`, which accompanies the code and the message.
const DETAILS: &str = "grpc-status-details-bin";

/// The observed state of one attempt.
pub(super) struct Wire {
    /// See the table above.
    state: AtomicUsize,
    /// How many requests may have been sent.
    sent: AtomicUsize,
    /// The error of a request's own messages, for example a message that is too large.
    failure: Mutex<Option<Status>>,
    /// How many response bodies are neither read to their end nor dropped.
    open: AtomicUsize,
    /// Whether the attempt has ended, so that response bodies yield no more frames.
    is_closed: AtomicBool,
    /// Which row of the caller's table of methods applies, or `NO_METHOD`.
    method: AtomicUsize,
    /// Whether a message of a stream was received for its reader.
    is_delivered: AtomicBool,
}

impl Wire {
    pub(super) fn new(method: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicUsize::new(UNSENT),
            sent: AtomicUsize::new(0),
            failure: Mutex::new(None),
            open: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
            method: AtomicUsize::new(method.unwrap_or(NO_METHOD)),
            is_delivered: AtomicBool::new(false),
        })
    }

    /// Returns how many requests may have been sent.
    pub(super) fn sent(&self) -> usize {
        // ORDERING: Relaxed; the count alone decides. The transport reports the end of a request
        // after it polled the body.
        self.sent.load(Ordering::Relaxed)
    }

    /// Prevents a message from being sent. Returns `true` if one may have been sent before.
    pub(super) fn revoke(&self) -> bool {
        // ORDERING: the exchange meets that of `begin_sending`, and the one value decides.
        self.state.compare_exchange(UNSENT, REVOKED, Ordering::Relaxed, Ordering::Relaxed) == Err(SENT)
    }

    /// Counts a request that is about to be sent. Returns `false` if the attempt was revoked
    /// before.
    fn begin_sending(&self) -> bool {
        // ORDERING: see `revoke`.
        let before = self.state.compare_exchange(UNSENT, SENT, Ordering::Relaxed, Ordering::Relaxed);
        if before == Err(REVOKED) {
            return false;
        }
        self.sent.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Takes the error of a request's own messages.
    pub(super) fn take_failure(&self) -> Option<Status> {
        self.failure.lock().take()
    }

    /// Ends the open response bodies. Returns `true` if there is one: neither read to its end nor
    /// dropped.
    pub(super) fn close(&self) -> bool {
        // ORDERING: Relaxed; a body that another thread reads sees the flag at a later poll.
        self.is_closed.store(true, Ordering::Relaxed);
        // ORDERING: Acquire pairs with the Release of `OpenBody`'s drop.
        self.open.load(Ordering::Acquire) > 0
    }

    /// Notes the row of the method that is called, unless another was noted before. Returns the row
    /// that counts.
    pub(super) fn note_method(&self, method: usize) -> usize {
        // ORDERING: an index into a table that never changes.
        match self.method.compare_exchange(NO_METHOD, method, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => method,
            Err(first) => first,
        }
    }

    /// Returns the row of the method, once it is known.
    pub(super) fn method(&self) -> Option<usize> {
        // ORDERING: see `note_method`.
        Some(self.method.load(Ordering::Relaxed)).filter(|method| *method != NO_METHOD)
    }

    /// Notes that a message of a stream was received.
    pub(super) fn note_delivered(&self) {
        // ORDERING: written and read by the future of the call.
        self.is_delivered.store(true, Ordering::Relaxed);
    }

    /// Returns `true` if a message of a stream was received.
    pub(super) fn is_delivered(&self) -> bool {
        // ORDERING: see `note_delivered`.
        self.is_delivered.load(Ordering::Relaxed)
    }
}

/// Wraps the body of a request, so that its first poll is noted.
pub(super) fn outgoing(request: http::Request<Body>, wire: &Arc<Wire>) -> http::Request<Body> {
    if request.body().is_end_stream() {
        wire.begin_sending(); // an empty body is never polled
    }
    request.map(|body| Body::new(RequestBody { body, wire: Arc::clone(wire), has_begun: false }))
}

/// Wraps the body of a response, so that its end is noted. Removes details that tonic would panic
/// on.
pub(super) fn incoming(mut response: http::Response<Body>, wire: &Arc<Wire>) -> http::Response<Body> {
    sanitize(response.headers_mut());
    response.map(|body| {
        if body.is_end_stream() {
            return body;
        }
        // ORDERING: the call reads this count on its own thread, after the closure's future has
        // ended.
        wire.open.fetch_add(1, Ordering::Relaxed);
        Body::new(ResponseBody { body, open: Some(OpenBody(Arc::clone(wire))) })
    })
}

/// tonic expects the details of a status to be base64, and panics on others. The code and the
/// message are enough.
fn sanitize(headers: &mut http::HeaderMap) {
    if !headers.contains_key(DETAILS) {
        return;
    }
    let metadata = MetadataMap::from_headers(std::mem::take(headers));
    let is_readable = metadata.get_bin(DETAILS).is_some_and(|value| value.to_bytes().is_ok());
    *headers = metadata.into_headers();
    if !is_readable {
        headers.remove(DETAILS);
    }
}

/// The body of a request.
struct RequestBody {
    body: Body,
    wire: Arc<Wire>,
    /// Whether the body was polled.
    has_begun: bool,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if !this.has_begun && !this.wire.begin_sending() {
            return Poll::Ready(Some(Err(Status::cancelled("the attempt was given up before the request was sent"))));
        }
        this.has_begun = true;
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if let Poll::Ready(Some(Err(status))) = &polled {
            let failure = Some(status.clone());
            let before = std::mem::replace(&mut *this.wire.failure.lock(), failure);
            drop(before); // outside of the lock
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response.
struct ResponseBody {
    body: Body,
    /// `None` once the body has ended.
    open: Option<OpenBody>,
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(open) = &this.open else { return Poll::Ready(None) };
        // ORDERING: see `Wire::close`.
        if open.0.is_closed.load(Ordering::Relaxed) {
            this.open = None;
            this.body = Body::empty(); // resets the stream
            return Poll::Ready(Some(Err(escaped_stream())));
        }
        let mut polled = Pin::new(&mut this.body).poll_frame(context);
        match &mut polled {
            Poll::Pending => {}
            Poll::Ready(None | Some(Err(_))) => this.open = None,
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    sanitize(trailers);
                    this.open = None;
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.open.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Returns the status of a call that returned an open stream.
pub(super) fn escaped_stream() -> Status {
    Status::failed_precondition(
        "a response stream outlives its call, so it would have neither slot nor deadline: \
         read it in the closure, or use `Caller::stream`",
    )
}

/// A guard that counts an open response body.
struct OpenBody(Arc<Wire>);

impl Drop for OpenBody {
    fn drop(&mut self) {
        // ORDERING: Release pairs with the Acquire of `Wire::close`.
        self.0.open.fetch_sub(1, Ordering::Release);
    }
}
