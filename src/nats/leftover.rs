//! Jobs that have run and are still stored.
//!
//! A server that is killed may keep what its consumer counts as done: everything up to the consumer's
//! *ack floor* has been acknowledged, and none of it is delivered again. Such a job takes room and is counted.
//! It is not deleted unasked: a server that lost its last jobs in a power cut gives their numbers
//! to new ones, and the consumer may take those for done.

use async_nats::jetstream::consumer;
use async_nats::jetstream::response::Response;
use serde_json::{Value, json};

use super::connection::Link;
use super::error::{BoxError, QueueError};
use super::incarnation::moment_of;
use super::terms::Terms;

/// How many are counted.
const MAX_COUNTED: u64 = 1_000;

/// A job as it is stored: its headers need not make sense.
pub(super) struct StoredJob {
    pub(super) subject: String,
    pub(super) sequence: u64,
    /// In nanoseconds since 1970, by the server's clock.
    pub(super) stored_at: i64,
    /// In base64, as are the headers.
    pub(super) payload: String,
    pub(super) headers: String,
}

impl StoredJob {
    fn read(message: &Value) -> Option<Self> {
        let text = |name: &str| message.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Self {
            subject: text("subject"),
            sequence: message.get("seq")?.as_u64()?,
            stored_at: i64::try_from(moment_of(message.get("time")?)?).ok()?,
            payload: text("data"),
            headers: text("hdrs"),
        })
    }
}

/// What is left.
pub(super) struct DetachedOutput {
    /// The place of the first.
    pub(super) first: u64,
    /// How many there are, at least.
    pub(super) jobs: u64,
}

/// Looks for jobs that the consumer counts as done.
pub(super) async fn find(link: &Link, terms: &Terms) -> Option<DetachedOutput> {
    let floor = consumer_info(link, terms).await.ok()?.ack_floor.stream_sequence;
    let (mut found, mut next): (Option<DetachedOutput>, u64) = (None, 1);
    while let Ok(Some(job)) = next_job(link, terms, next).await {
        if job.sequence > floor || found.as_ref().is_some_and(|found| found.jobs >= MAX_COUNTED) {
            break;
        }
        next = job.sequence + 1;
        found.get_or_insert(DetachedOutput { first: job.sequence, jobs: 0 }).jobs += 1;
    }
    found
}

/// Deletes the jobs of one subject up to the consumer's floor; returns how many there were.
pub(super) async fn clear(link: &Link, terms: &Terms, subject: &str, floor: u64) -> Result<u64, QueueError> {
    if floor == 0 {
        return Ok(0); // the server would take the next place, 1, for "all"
    }
    let stream = link.jetstream.get_stream_no_info(&*terms.stream).await?;
    let purged = stream.purge().sequence(floor + 1).filter(subject).await;
    Ok(purged.map_err(|error| QueueError::Rejected(error.into()))?.purged)
}

/// What the server says of the consumer.
pub(super) async fn consumer_info(link: &Link, terms: &Terms) -> Result<consumer::Info, QueueError> {
    let question = format!("CONSUMER.INFO.{}.{}", terms.stream, terms.consumer);
    match link.answer(link.jetstream.request(question, &json!({}))).await {
        Ok(Response::Ok(info)) => Ok(info),
        Ok(Response::Err { error }) => Err(QueueError::Rejected(error.into())),
        Err(error) => Err(QueueError::Unavailable(error.into())),
    }
}

/// The next stored job of the consumer's subjects, at this place or after it, as it is stored: its
/// headers need not make sense.
pub(super) async fn next_job(link: &Link, terms: &Terms, place: u64) -> Result<Option<StoredJob>, BoxError> {
    let mut first: Option<StoredJob> = None;
    for filter in terms.subjects() {
        if let Some(next) = next_of(link, terms, filter, place).await?
            && first.as_ref().is_none_or(|first| next.sequence < first.sequence)
        {
            first = Some(next);
        }
    }
    Ok(first)
}

/// The next stored job of one subject.
async fn next_of(link: &Link, terms: &Terms, subject: &str, place: u64) -> Result<Option<StoredJob>, BoxError> {
    let question = json!({ "seq": place, "next_by_subj": subject });
    let subject = format!("STREAM.MSG.GET.{}", terms.stream);
    let answer: Value = link.answer(link.jetstream.request(subject, &question)).await?;
    match answer.get("message") {
        Some(message) => Ok(Some(StoredJob::read(message).ok_or("the answer makes no sense")?)),
        None if answer["error"]["code"] == 404 => Ok(None),
        None => Err(answer["error"]["description"].to_string().into()),
    }
}
