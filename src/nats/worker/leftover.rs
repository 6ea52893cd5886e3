//! Finished jobs that are still stored.
//!
//! A server that is killed may keep jobs that its consumer counts as done: everything up to the
//! consumer's *ack floor* has been acknowledged, and none of it is delivered again. Such a job
//! takes room and is counted. It is not deleted automatically: a server that lost its last jobs in
//! a power cut gives their numbers to new jobs, and the consumer may take those for done.
//!
//! A killed server may also keep a *ghost*: the consumer waits for the acknowledgement of a job
//! that the stream no longer has. It holds the floor down, so that the jobs behind it seem not to
//! be done. No worker can send its acknowledgement any more, so it is sent here.

use async_nats::jetstream::consumer;
use async_nats::jetstream::response::Response;
use serde_json::{Value, json};

use super::config::ConsumerConfig;
use crate::nats::core::inner::ConnectionInner;
use crate::nats::error::{BoxError, QueueError};
use crate::nats::server_time::moment_of;

/// How many jobs are counted at most.
const MAX_COUNTED: u64 = 1_000;
/// How many ghosts one search acknowledges at most.
const MAX_GHOSTS: usize = 100;

/// A job as it is stored. Its headers may be malformed.
pub(crate) struct StoredJob {
    pub(crate) subject: String,
    pub(crate) sequence: u64,
    /// In nanoseconds since 1970, by the server's clock.
    pub(crate) stored_at: i64,
    /// In base64, like the headers.
    pub(crate) payload: String,
    pub(crate) headers: String,
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

/// Finished jobs that are still stored.
pub(crate) struct Leftovers {
    /// The sequence number of the first.
    pub(crate) first: u64,
    /// How many there are, at least.
    pub(crate) jobs: u64,
}

/// Searches for stored jobs that the consumer counts as done.
pub(crate) async fn find(connection: &ConnectionInner, config: &ConsumerConfig) -> Option<Leftovers> {
    let floor = floor(connection, config).await.ok()?;
    let (mut found, mut next): (Option<Leftovers>, u64) = (None, 1);
    while let Ok(Some(job)) = next_job(connection, config, next).await {
        if job.sequence > floor || found.as_ref().is_some_and(|found| found.jobs >= MAX_COUNTED) {
            break;
        }
        next = job.sequence + 1;
        found.get_or_insert(Leftovers { first: job.sequence, jobs: 0 }).jobs += 1;
    }
    found
}

/// Returns the consumer's floor, after acknowledging the ghosts on top of it.
pub(crate) async fn floor(connection: &ConnectionInner, config: &ConsumerConfig) -> Result<u64, QueueError> {
    let mut info = consumer_info(connection, config).await?;
    for _ in 0..MAX_GHOSTS {
        let floor = info.ack_floor.stream_sequence;
        // If acknowledgements are missing, the first missing one is that of the next job.
        if info.num_ack_pending == 0 || is_stored(connection, config, floor + 1).await? {
            break;
        }
        // The server goes by the sequence number in the stream. The second number must not be the
        // consumer's next one: with that, a server would raise the floor for a job that is not
        // pending.
        let (ghost, delivery) = (floor + 1, info.ack_floor.consumer_sequence + 2);
        let subject = format!("$JS.ACK.{}.{}.1.{ghost}.{delivery}.0.0", config.stream, config.consumer);
        let acknowledged = connection.with_timeout(connection.client.request(subject, "+ACK".into())).await;
        if !matches!(acknowledged, Some(Ok(_))) {
            break;
        }
        info = consumer_info(connection, config).await?;
        if info.ack_floor.stream_sequence <= floor {
            break;
        }
    }
    Ok(info.ack_floor.stream_sequence)
}

/// Returns whether the stream has a job of this number. Unless the server denies it, it has.
async fn is_stored(connection: &ConnectionInner, config: &ConsumerConfig, place: u64) -> Result<bool, QueueError> {
    let subject = format!("STREAM.MSG.GET.{}", config.stream);
    let answer: Result<Value, _> =
        connection.answer(connection.jetstream.request(subject, &json!({ "seq": place }))).await;
    let answer = answer.map_err(|error| QueueError::Unavailable(error.into()))?;
    Ok(answer["error"]["code"] != 404)
}

/// Returns `true` if the stream certainly has no job of this number, or does not permit to ask.
pub(crate) async fn is_gone(connection: &ConnectionInner, config: &ConsumerConfig, place: u64) -> bool {
    let calls = [format!("STREAM.MSG.GET.{}", config.stream)];
    match connection.permitted_api(&calls, is_stored(connection, config, place)).await {
        Ok(stored) => stored.is_ok_and(|is_stored| !is_stored),
        Err(_) => true,
    }
}

/// Deletes the jobs of one subject up to the consumer's floor. Returns how many there were.
pub(crate) async fn clear(
    connection: &ConnectionInner,
    config: &ConsumerConfig,
    subject: &str,
    floor: u64,
) -> Result<u64, QueueError> {
    if floor == 0 {
        return Ok(0); // the server would take the next number, 1, for "all"
    }
    let stream = connection.jetstream.get_stream_no_info(&*config.stream).await?;
    let purged = stream.purge().sequence(floor + 1).filter(subject).await;
    Ok(purged.map_err(|error| QueueError::Rejected(error.into()))?.purged)
}

/// Returns the server's description of the consumer.
pub(crate) async fn consumer_info(
    connection: &ConnectionInner,
    config: &ConsumerConfig,
) -> Result<consumer::Info, QueueError> {
    match connection.answer(connection.jetstream.request(config.info_call(), &json!({}))).await {
        Ok(Response::Ok(info)) => Ok(info),
        Ok(Response::Err { error }) => Err(QueueError::Rejected(error.into())),
        Err(error) => Err(QueueError::Unavailable(error.into())),
    }
}

/// Returns the next stored job of the consumer's subjects, from this number on. Its headers may be
/// malformed.
pub(crate) async fn next_job(
    connection: &ConnectionInner,
    config: &ConsumerConfig,
    place: u64,
) -> Result<Option<StoredJob>, BoxError> {
    let mut first: Option<StoredJob> = None;
    for filter in config.subjects() {
        if let Some(next) = next_of(connection, config, filter, place).await?
            && first.as_ref().is_none_or(|first| next.sequence < first.sequence)
        {
            first = Some(next);
        }
    }
    Ok(first)
}

/// Returns the next stored job of one subject.
async fn next_of(
    connection: &ConnectionInner,
    config: &ConsumerConfig,
    subject: &str,
    place: u64,
) -> Result<Option<StoredJob>, BoxError> {
    let question = json!({ "seq": place, "next_by_subj": subject });
    let subject = format!("STREAM.MSG.GET.{}", config.stream);
    let answer: Value = connection.answer(connection.jetstream.request(subject, &question)).await?;
    match answer.get("message") {
        Some(message) => Ok(Some(StoredJob::read(message).ok_or("the answer is malformed")?)),
        None if answer["error"]["code"] == 404 => Ok(None),
        None => Err(answer["error"]["description"].to_string().into()),
    }
}
