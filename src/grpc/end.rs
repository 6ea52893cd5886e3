//! Classifies how an attempt ended, by its status and by whether its request was sent.
//!
//! tonic, hyper and h2 report the same end in several ways, and those of tonic depend on its
//! features. Here each end has one code, that of the protocol:
//!
//! | end | code | kind |
//! |---|---|---|
//! | a transport error, and no message was sent | `UNAVAILABLE` | never sent |
//! | `GOAWAY` because the metadata is too large | `RESOURCE_EXHAUSTED` | never sent, and another attempt fails as well |
//! | `GOAWAY` that excludes the stream, `RST_STREAM` with `REFUSED_STREAM` | `UNAVAILABLE` | never sent: the server did not act |
//! | no connection | `UNAVAILABLE` | never sent |
//! | no connection, by a certificate or a setting | `UNAVAILABLE` | never sent, and another attempt fails as well |
//! | time over before the message was sent | `DEADLINE_EXCEEDED` | never sent |
//! | time over later | `DEADLINE_EXCEEDED` | may have been sent |
//! | connection lost, keepalive ping not answered | `UNAVAILABLE` | may have been sent |
//! | `RST_STREAM` with another reason | by the protocol's table | may have been sent |
//! | a local violation of HTTP/2 | `INTERNAL` | may have been sent |
//! | a status of the server, the interceptor, the codec or the closure | as it is | answered |
//!
//! An attempt may make several requests. If the server did not act on the last one, it may have
//! acted on the others. So an attempt that has sent several requests is never classified as "never
//! sent".

use std::error::Error;
use std::fmt;
use std::io;

use h2::Reason;
use tonic::{Code, ConnectError, Status, TimeoutExpired, transport};

use super::target::NotReady;
use super::transport::ServiceError;
use crate::sync::Arc;

/// How many causes are added to a message.
const MAX_CAUSES: usize = 8;

/// The end of an attempt.
pub(super) struct End {
    /// The status, with the code of the protocol and with the causes in its message.
    pub(super) status: Status,
    /// Whether there was no connection.
    pub(super) is_connect: bool,
    /// Whether a certificate or a setting is wrong, so that another attempt fails as well.
    pub(super) is_misconfigured: bool,
}

/// A marker among the sources of a status: the server certainly did not act on the attempt.
#[derive(Debug)]
struct Unsent(Status);

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was not sent")
    }
}

impl Error for Unsent {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Returns `true` if the server certainly did not act on the attempt that ended with this status.
///
/// This is so if no message was sent, or if HTTP/2 reports that the server did not process it: the
/// connection was refused or lost before, the server was about to close it (`GOAWAY`), or the
/// stream was refused. Returns `false` if it is not known.
///
/// The status must be from a [`Caller`](super::Caller): that of a [`CallError`](super::CallError),
/// or one that is passed to a policy's `retry_if` or `classify`.
///
/// # Examples
///
/// A call that must not run twice is retried only if the server did not act:
///
/// ```
/// use tonic::Status;
/// use workcrew::retry::RetryPolicy;
/// use workcrew::grpc::is_unsent;
///
/// let policy = RetryPolicy::exponential().retry_if(|status: &Status| is_unsent(status));
/// assert!(!is_unsent(&Status::unavailable("the server said so")));
/// # let _ = policy;
/// ```
#[must_use]
pub fn is_unsent(status: &Status) -> bool {
    find::<Unsent>(status).is_some()
}

impl End {
    /// Classifies an attempt that returned an error, after `sent` requests may have been sent.
    /// `own` is the error of a request's own messages, of which the transport may report only the
    /// consequence.
    pub(super) fn of(status: Status, sent: usize, own: Option<Status>) -> Self {
        let is_sent = sent > 0;
        if let Some(own) = own
            && is_of_transport(&status)
        {
            return Self::answered(own);
        }
        if find::<Unsent>(&status).is_some() {
            return Self::answered(without_sources(&status)); // the marker is about another call
        }
        if let Some(own) = find::<Status>(&status)
            && own.code() == status.code()
        {
            // The error of the request's own stream or codec, which the transport has passed on.
            return Self::answered(status);
        }
        let is_connect = find::<ConnectError>(&status).is_some();
        let h2 = find::<h2::Error>(&status);
        let (code, is_unsent) = if find::<TimeoutExpired>(&status).is_some() {
            (Code::DeadlineExceeded, !is_sent)
        } else if let Some((code, is_unprocessed)) = h2.and_then(code_of) {
            (code, (is_unprocessed && sent <= 1) || (code == Code::Unavailable && !is_sent))
        } else if is_connect || find::<NotReady>(&status).is_some() {
            (Code::Unavailable, !is_sent)
        } else if is_of_transport(&status) {
            match status.code() {
                Code::Unknown | Code::Cancelled | Code::Unavailable => (Code::Unavailable, !is_sent),
                code => (code, false),
            }
        } else {
            return Self::answered(status);
        };
        let is_misconfigured = has_misconfiguration(&status, is_connect);
        Self { status: rewritten(status, code, is_unsent), is_connect, is_misconfigured }
    }

    /// Classifies an attempt whose time was over.
    pub(super) fn out_of_time(is_sent: bool) -> Self {
        let status = Status::deadline_exceeded("the deadline passed");
        let status = if is_sent { status } else { rewritten(status, Code::DeadlineExceeded, true) };
        Self { status, is_connect: false, is_misconfigured: false }
    }

    /// Returns the end of a call whose first attempt had no turn in time.
    pub(super) fn without_turn() -> Self {
        let status = Status::deadline_exceeded("no turn of the rate in time");
        Self { status: rewritten(status, Code::DeadlineExceeded, true), is_connect: false, is_misconfigured: false }
    }

    /// Returns `true` if the time was over before a message was sent.
    pub(super) fn is_out_of_time(&self) -> bool {
        self.status.code() == Code::DeadlineExceeded && is_unsent(&self.status)
    }

    /// Returns the end of an attempt whose status stays as it is.
    fn answered(status: Status) -> Self {
        Self { status, is_connect: false, is_misconfigured: false }
    }
}

/// Returns `true` if the transport made the status.
fn is_of_transport(status: &Status) -> bool {
    sources(status).any(|error| error.is::<transport::Error>() || error.is::<ServiceError>() || error.is::<h2::Error>())
}

/// Returns the code of an HTTP/2 error, and `true` if the server certainly did not act. Returns
/// `None` if that depends on more than the error.
fn code_of(error: &h2::Error) -> Option<(Code, bool)> {
    // A stream that a `GOAWAY` excludes, or that is opened after one, ends with that frame. Other
    // streams continue.
    if error.is_go_away() && error.is_remote() {
        if is_about_size(&error.to_string()) {
            return Some((Code::ResourceExhausted, true)); // far too much metadata ends the connection
        }
        return Some((Code::Unavailable, true));
    }
    if error.is_io() {
        return Some((Code::Unavailable, false));
    }
    match error.reason()? {
        Reason::REFUSED_STREAM => Some((Code::Unavailable, error.is_remote())),
        Reason::CANCEL => Some((Code::Cancelled, false)),
        Reason::ENHANCE_YOUR_CALM => Some((Code::ResourceExhausted, false)),
        Reason::INADEQUATE_SECURITY => Some((Code::PermissionDenied, false)),
        Reason::NO_ERROR
        | Reason::PROTOCOL_ERROR
        | Reason::INTERNAL_ERROR
        | Reason::FLOW_CONTROL_ERROR
        | Reason::SETTINGS_TIMEOUT
        | Reason::FRAME_SIZE_ERROR
        | Reason::COMPRESSION_ERROR
        | Reason::CONNECT_ERROR => Some((Code::Internal, false)),
        _ => Some((Code::Unknown, false)),
    }
}

/// Returns `true` if a certificate or a setting is wrong.
fn has_misconfiguration(status: &Status, is_connect: bool) -> bool {
    // A refusal by TLS, on either side, is `InvalidData`. A peer that closes the connection has
    // another kind.
    let is_refused = |error: &io::Error| error.kind() == io::ErrorKind::InvalidData;
    // These errors have no public type.
    let is_setting = |text: &str| {
        ["HTTP/2 was not negotiated", "HTTPS without TLS", "scheme is missing", "scheme is not http"]
            .iter()
            .any(|setting| text.contains(setting))
    };
    let h2 = find::<h2::Error>(status).and_then(h2::Error::get_io);
    h2.is_some_and(is_refused)
        || (is_connect && sources(status).any(|error| error.downcast_ref().is_some_and(is_refused)))
        || (is_connect && sources(status).any(|error| is_setting(&error.to_string())))
}

/// Returns the status with the code of the protocol, and with its causes in the message.
fn rewritten(status: Status, code: Code, is_unsent: bool) -> Status {
    let mut message = status.message().to_owned();
    for cause in sources(&status).take(MAX_CAUSES).map(ToString::to_string) {
        if !message.contains(&cause) {
            message = if message.is_empty() { cause } else { format!("{message}: {cause}") };
        }
    }
    let (details, metadata) = (status.details().to_vec().into(), status.metadata().clone());
    let mut rewritten = Status::with_details_and_metadata(code, message, details, metadata);
    if is_unsent {
        rewritten.set_source(Arc::new(Unsent(status)));
    } else {
        rewritten.set_source(Arc::new(status));
    }
    rewritten
}

/// Returns the status without its sources.
fn without_sources(status: &Status) -> Status {
    let (details, metadata) = (status.details().to_vec().into(), status.metadata().clone());
    Status::with_details_and_metadata(status.code(), status.message(), details, metadata)
}

/// Returns the sources of a status, the outermost first.
fn sources(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |error| (**error).source())
}

/// Returns the first source of this type.
fn find<E: Error + 'static>(status: &Status) -> Option<&E> {
    sources(status).find_map(|error| error.downcast_ref())
}

/// Returns `true` if a `RESOURCE_EXHAUSTED` is about the size of a message or of metadata, which
/// another attempt does not change. Only the texts of the implementations tell.
pub(super) fn is_too_large(status: &Status) -> bool {
    is_about_size(status.message())
}

/// Returns `true` if a text says that a message or metadata is too large.
fn is_about_size(message: &str) -> bool {
    let message = message.to_ascii_lowercase().replace('_', " ");
    let is_about =
        ["message", "metadata", "header", "body", "payload", "frame"].iter().any(|noun| message.contains(noun));
    let is_over = [
        "larger than max",
        "larger than configured max",
        "size larger than",
        "too large",
        "too big",
        "maximum size",
        "maximum configured",
        "size limit",
        "size exceed",
        "hard limit",
        "soft limit",
        "maxbytes",
        "more than 4gb",
    ];
    let is_quota = ["quota", "rate", "per second", "per minute"].iter().any(|word| message.contains(word));
    is_about && !is_quota && is_over.iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_h2(error: h2::Error, is_sent: bool) -> (Code, bool, bool) {
        let mut status = Status::unknown("as tonic says");
        status.set_source(Arc::new(error));
        let end = End::of(status, usize::from(is_sent), None);
        (end.status.code(), is_unsent(&end.status), end.is_misconfigured)
    }

    /// Fault 181.
    #[test]
    fn an_error_of_http_2_has_the_code_of_the_protocol() {
        let codes = [
            (Reason::REFUSED_STREAM, Code::Unavailable),
            (Reason::CANCEL, Code::Cancelled),
            (Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted),
            (Reason::INADEQUATE_SECURITY, Code::PermissionDenied),
            (Reason::NO_ERROR, Code::Internal),
            (Reason::PROTOCOL_ERROR, Code::Internal),
            (Reason::INTERNAL_ERROR, Code::Internal),
            (Reason::HTTP_1_1_REQUIRED, Code::Unknown),
        ];
        for (reason, code) in codes {
            assert_eq!(of_h2(reason.into(), true), (code, false, false), "{reason:?}");
        }
    }

    /// Fault 182.
    #[test]
    fn texts_about_a_size_are_told_from_texts_about_a_quota() {
        let too_large = [
            "SERVER: Received message larger than max (5242880 vs. 4194304)",
            "Sent message larger than max (5242880 vs. 4194304)",
            "grpc: received message after decompression larger than max (5 vs. 4)",
            "trying to send message larger than max (5 vs. 4)",
            "gRPC message exceeds maximum size 4194304: 5242880",
            "Received message exceeds the maximum configured message size.",
            "received metadata size exceeds hard limit (value length 20000)",
            "metadata size exceeds soft limit",
            "Error decompressing: size limit, of 4194304 bytes, exceeded while decompressing message",
            "Cannot return body with more than 4GB of data but got 5 bytes",
            "message size 5 exceeded sendMaxBytes 4",
            "Attempted to send message with a size larger than 4",
            "connection error received: detected excessive load generating behavior (b\"header_list_way_too_large\")",
        ];
        for text in too_large {
            assert!(is_too_large(&Status::resource_exhausted(text)), "{text}");
        }
        let full = [
            "as the script says",
            "Quota exceeded for quota metric 'Messages' and limit 'Messages per minute'",
            "message rate size limit",
            "too many requests",
            "the queue is full",
            "Too many active requests for the connection",
            "",
        ];
        for text in full {
            assert!(!is_too_large(&Status::resource_exhausted(text)), "{text}");
        }
    }

    #[test]
    fn a_status_that_the_transport_did_not_make_is_not_changed() {
        for code in [Code::Unknown, Code::Cancelled, Code::Unavailable] {
            let mut status = Status::new(code, "own");
            status.set_source(Arc::new(io::Error::from(io::ErrorKind::InvalidData)));
            let end = End::of(status, 0, None);
            assert_eq!((end.status.code(), end.status.message(), end.is_misconfigured), (code, "own", false));
            assert!(!is_unsent(&end.status));
        }
    }
}
