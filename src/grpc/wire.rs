//! What is known of the requests and responses of one attempt, seen from the bodies that carry them.
//!
//! Whether a request was sent cannot be read from an error: each library below names the same end differently. It can be
//! seen on the body. The transport asks a body for its first frame when the stream is open, and a server that has not
//! received the message has not run the method. So a request whose body was never polled was never sent.
//!
//! | state | meaning | next |
//! |---|---|---|
//! | `UNSENT` | no body was polled | `SENT`, by the first poll; `REVOKED`, by a call that gives the attempt up |
//! | `SENT` | a message may be on its way | |
//! | `REVOKED` | no message will be sent any more | |
//!
//! Meetings: *first poll and revoke*: one of the two exchanges wins. If the poll wins, the attempt may have been sent. If
//! the call wins, the poll fails, and nothing is sent.

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

/// No method is known yet.
const NO_METHOD: usize = usize::MAX;

/// An encoded `google.rpc.Status`, beside the code and the message.
const DETAILS: &str = "grpc-status-details-bin";

/// What is known of one attempt.
pub(super) struct Wire {
    /// See the table above.
    state: AtomicUsize,
    /// How many requests may have been sent.
    sent: AtomicUsize,
    /// The error of a request's own messages: one that is too large, say.
    failure: Mutex<Option<Status>>,
    /// How many response bodies are neither read to their end nor dropped.
    open: AtomicUsize,
    /// Whether response bodies give no more: the attempt has ended.
    is_closed: AtomicBool,
    /// Which row of the caller's table of methods applies, or `NO_METHOD`.
    method: AtomicUsize,
    /// Whether a message of a stream was handed to its reader.
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

    /// How many requests may have been sent.
    pub(super) fn sent(&self) -> usize {
        // ORDERING: the count alone decides. The transport has told the end of a request after it polled the body.
        self.sent.load(Ordering::Relaxed)
    }

    /// Keeps what was not sent from being sent. Returns `true` if a message may have been sent before.
    pub(super) fn revoke(&self) -> bool {
        // ORDERING: the exchange meets that of `begin_sending`, and the one value decides.
        self.state.compare_exchange(UNSENT, REVOKED, Ordering::Relaxed, Ordering::Relaxed) == Err(SENT)
    }

    /// Returns `false` if the attempt was given up before anything was sent.
    fn begin_sending(&self) -> bool {
        // ORDERING: see `revoke`.
        let before = self.state.compare_exchange(UNSENT, SENT, Ordering::Relaxed, Ordering::Relaxed);
        if before == Err(REVOKED) {
            return false;
        }
        self.sent.fetch_add(1, Ordering::Relaxed);
        true
    }

    pub(super) fn take_failure(&self) -> Option<Status> {
        self.failure.lock().take()
    }

    /// Ends what is left open. Returns `true` if a response body was neither read to its end nor dropped.
    pub(super) fn close(&self) -> bool {
        // ORDERING: a body that is read elsewhere sees the flag at its next poll, whenever that is.
        self.is_closed.store(true, Ordering::Relaxed);
        // ORDERING: Acquire pairs with the Release of `OpenBody`'s drop.
        self.open.load(Ordering::Acquire) > 0
    }

    /// Notes the row of the method that is called, if it is the first. Returns the row that counts.
    pub(super) fn note_method(&self, method: usize) -> usize {
        // ORDERING: an index into a table that never changes.
        match self.method.compare_exchange(NO_METHOD, method, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => method,
            Err(first) => first,
        }
    }

    pub(super) fn method(&self) -> Option<usize> {
        // ORDERING: see `note_method`.
        Some(self.method.load(Ordering::Relaxed)).filter(|method| *method != NO_METHOD)
    }

    pub(super) fn note_delivered(&self) {
        // ORDERING: written and read by the future of the call.
        self.is_delivered.store(true, Ordering::Relaxed);
    }

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

/// Wraps the body of a response, so that its end is noted. Removes details that tonic would panic on.
pub(super) fn incoming(mut response: http::Response<Body>, wire: &Arc<Wire>) -> http::Response<Body> {
    sanitize(response.headers_mut());
    response.map(|body| {
        if body.is_end_stream() {
            return body;
        }
        // ORDERING: the course reads this count on its own thread after the closure's future has ended.
        wire.open.fetch_add(1, Ordering::Relaxed);
        Body::new(ResponseBody { body, open: Some(OpenBody(Arc::clone(wire))) })
    })
}

/// tonic expects the details of a status to be base64, and panics on others. The code and the message are enough.
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
    has_begun: bool,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if !this.has_begun && !this.wire.begin_sending() {
            return Poll::Ready(Some(Err(Status::cancelled("given up before it was sent"))));
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

/// What a call says that would hand out a stream.
pub(super) fn escaped_stream() -> Status {
    Status::failed_precondition(
        "a response stream outlives its call, so it would have neither slot nor deadline: \
         read it in the closure, or use `Caller::stream`",
    )
}

/// Counts an open response body.
struct OpenBody(Arc<Wire>);

impl Drop for OpenBody {
    fn drop(&mut self) {
        // ORDERING: Release pairs with the Acquire of `Wire::close`.
        self.0.open.fetch_sub(1, Ordering::Release);
    }
}
