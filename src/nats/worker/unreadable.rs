//! Jobs whose headers the client library cannot read.
//!
//! Another client may store a job with a header that is not UTF-8, that has a blank in its name, or
//! no colon. The client library closes the connection when such a job arrives. So no worker sees
//! the job, and it would close the connection again and again. A lone carriage return in a value
//! ends the client for good.
//!
//! Rules:
//! 1. After a connection broke while jobs were requested, and at the start of a run, the delivered
//!    jobs without an outcome are read from the stream. That answer holds the headers in a form
//!    that can always be read.
//! 2. A job whose headers would close the connection is stored among the dead letters, with
//!    everything readable, and then deleted. An event names it.
//! 3. If the letter cannot be stored, the job stays, and the event says so.

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ack_preparer::AckPreparer;
use super::config::ConsumerConfig;
use super::incarnation::{self, Origin, OriginStatus};
use super::leftover::{StoredJob, consumer_info, next_job};
use super::metrics::{Counters, add};
use crate::nats::event::Event;
use crate::nats::queue::dead_letter::{DeadLetterDraft, DeadLetterReason};

/// Moves unreadable jobs to the dead letters. Examines at most `most` of the delivered jobs without
/// an outcome.
pub(crate) async fn sweep(
    preparer: &AckPreparer,
    config: &ConsumerConfig,
    origin: Origin,
    most: usize,
    counters: &Counters,
) {
    let Ok(info) = consumer_info(&preparer.connection, config).await else { return };
    let (mut next, last) = (info.ack_floor.stream_sequence + 1, info.delivered.stream_sequence);
    for _ in 0..most {
        let Ok(Some(job)) = next_job(&preparer.connection, config, next).await else { return };
        if job.sequence > last {
            return;
        }
        next = job.sequence + 1;
        let headers = STANDARD.decode(&job.headers).unwrap_or_default();
        if let Some(fault) = find_fault(&headers) {
            if incarnation::check_origin(&preparer.connection, config, origin).await.status != OriginStatus::Same {
                return;
            }
            set_aside(preparer, &job, &headers, fault, counters).await;
        }
    }
}

async fn set_aside(preparer: &AckPreparer, job: &StoredJob, headers: &[u8], fault: &str, counters: &Counters) {
    let (subject, sequence) = (job.subject.clone(), job.sequence);
    let message = async_nats::Message {
        subject: subject.as_str().into(),
        reply: None,
        payload: STANDARD.decode(&job.payload).unwrap_or_default().into(),
        headers: Some(readable(headers)),
        status: None,
        description: None,
        length: 0,
    };
    let draft = DeadLetterDraft {
        stream: &preparer.stream,
        sequence,
        stored_at: job.stored_at,
        attempts: 0,
        reason: DeadLetterReason::Unreadable,
        error: fault,
        job: &message,
    };
    if let Err(error) = preparer.store_dead_letter(&draft).await {
        return preparer.connection.callback.call(&Event::DeadLetterFailed { subject, sequence, error });
    }
    if let Ok(stream) = preparer.connection.jetstream.get_stream_no_info(&*preparer.stream).await {
        let _ = preparer.connection.with_timeout(stream.delete_message(sequence)).await;
    }
    add(&counters.dead);
    preparer.connection.callback.call(&Event::JobSetAside { subject, sequence, error: fault.to_owned() });
}

/// Returns what is wrong with headers, by the rules of the client library.
fn find_fault(headers: &[u8]) -> Option<&'static str> {
    if headers.is_empty() {
        return None;
    }
    let Ok(text) = std::str::from_utf8(headers) else { return Some("a header is not valid UTF-8") };
    let mut lines = text.lines();
    let version = lines.next().unwrap_or_default().strip_prefix("NATS/1.0");
    let status = version.map(|rest| rest.trim().split(' ').next().unwrap_or_default());
    match status {
        None => return Some("the headers have no version"),
        Some(status) if !status.is_empty() && !is_status(status) => return Some("the headers have a wrong status"),
        Some(_) => {}
    }
    let mut is_first = true;
    for line in lines.filter(|line| !line.is_empty()) {
        if !is_first && line.starts_with(char::is_whitespace) && !line.contains('\r') {
            continue; // continues the previous header
        }
        is_first = false;
        // In a value this ends not only the connection, but the client.
        if line.contains('\r') {
            return Some("a header has a lone carriage return");
        }
        let Some((name, _)) = line.split_once(':') else { return Some("a header has no colon") };
        if !is_name(name) {
            return Some("the name of a header is not plain ASCII");
        }
    }
    None
}

fn is_status(status: &str) -> bool {
    status.parse::<u16>().is_ok_and(|status| (100..1_000).contains(&status))
}

fn is_name(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_graphic() && c != ':')
}

/// Returns the headers that can be read, each on its own.
fn readable(headers: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::new();
    let lines = headers.split(|byte| *byte == b'\n').skip(1).filter_map(|line| std::str::from_utf8(line).ok());
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.trim().parse::<HeaderValue>())
            && !AsRef::<str>::as_ref(&name).is_empty()
        {
            map.append(name, value);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_the_client_cannot_read_are_recognised() {
        let whole = |line: &[u8]| [b"NATS/1.0\r\n", line, b"\r\n\r\n"].concat();
        for line in [
            &b"Name: \xe9t\xe9"[..],
            b"Name: a\rb",
            b"Name: a\r\n b\rc",
            b"Order Number: 7",
            b"no colon",
            "Größe: 1".as_bytes(),
            b"a\tb: 1",
        ] {
            assert!(find_fault(&whole(line)).is_some(), "{line:?}");
        }
        assert!(find_fault(b"NATS/2.0\r\n\r\n").is_some() && find_fault(b"NATS/1.0 abc\r\n\r\n").is_some());
        for line in [&b"Name: value"[..], b"Name:", "Name: \u{e9}".as_bytes(), b"Name: a\r\n more"] {
            assert_eq!(find_fault(&whole(line)), None, "{line:?}");
        }
        assert_eq!(find_fault(b""), None);
        assert_eq!(find_fault(b"NATS/1.0 503\r\n\r\n"), None);
    }

    #[test]
    fn readable_headers_are_kept() {
        let map = readable(b"NATS/1.0\r\nGood: 1\r\nBad Name: 2\r\nNats-Msg-Id: x\r\nN: \xff\r\n\r\n");
        assert_eq!(map.len(), 2, "{map:?}");
        assert_eq!(map.get("Nats-Msg-Id").map(HeaderValue::as_str), Some("x"));
    }
}
