//! The inbox of a run: a checked consumer, and a subscription to which the server delivers its
//! jobs.

use std::fmt::Display;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::Consumer;
use async_nats::jetstream::consumer::pull::{BatchConfig, Config};
use async_nats::jetstream::stream::ConsumerErrorKind;
use async_nats::{StatusCode, Subscriber};
use futures_core::Stream;

use super::config::ConsumerConfig;
use super::history::History;
use super::incarnation::{self, LEASE, Origin, OriginStatus};
use super::leftover;
use crate::io;
use crate::nats::core::inner::ConnectionInner;
use crate::nats::core::time_limit::poll_once;
use crate::nats::error::{Denied, WorkerError};
use crate::nats::server_time::nanoseconds;
use crate::nats::{check, config_diff};
use crate::sync::Arc;

/// How long the server keeps a request.
const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// How long the server keeps a request that it can answer at once.
const SHORT_PULL_EXPIRES: Duration = Duration::from_secs(5);
/// How often the server sends a heartbeat while it has a request and no job.
const SERVER_HEARTBEAT: Duration = Duration::from_secs(5);
/// How long the server may be silent before it is checked. That check may take the request timeout.
const SILENCE: Duration = Duration::from_secs(11);
/// How many bytes the server counts for a message besides its payload and headers.
const MESSAGE_OVERHEAD: usize = 4_096;
/// How many jobs of an ended request were not delivered.
const PENDING: &str = "Nats-Pending-Messages";

/// What a run needs to request jobs.
pub(crate) struct Prepared {
    consumer: Arc<Consumer<Config>>,
    pub(crate) inbox: Inbox,
    /// Whether jobs that are older than the consumer may have a history.
    pub(crate) has_history: bool,
    /// Whether jobs were delivered that have no outcome.
    pub(crate) has_pending: bool,
    /// The subscription for answers to acknowledgements, if the run had none.
    pub(crate) replies: Option<Replies>,
}

/// The subscription for the server's answers to acknowledgements.
pub(crate) struct Replies {
    subscriber: Subscriber,
    /// The prefix of its subjects.
    name: String,
}

/// Why preparing failed.
pub(crate) enum PrepareError {
    /// It may succeed later.
    Transient(String),
    /// The server does not answer.
    Silence,
    /// It cannot succeed later.
    Permanent(WorkerError),
}

/// A subscription to which jobs are delivered.
pub(crate) struct Inbox {
    stage: Stage,
    /// The prefix of its subjects.
    name: String,
    /// The number of requests.
    requested: u64,
    heard_at: Instant,
    /// When a closed inbox is dropped; `None` if it is open, or is never dropped.
    overdue_at: Option<Instant>,
    pub(crate) source: Source,
}

/// Where the jobs of an inbox come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub(crate) origin: Origin,
    /// The number of doubts of the run when the inbox was opened.
    pub(crate) doubts: u64,
}

/// Whether the inbox is open, or is being closed.
enum Stage {
    Subscribed(Subscriber),
    /// The server is being told to send nothing more.
    Closing(Pin<Box<dyn Future<Output = Subscriber> + Send>>),
    /// Exists only during the transition.
    Between,
}

/// Gets or creates the consumer, compares it with the configuration, and subscribes an inbox.
pub(crate) async fn prepare(
    connection: &ConnectionInner,
    config: &ConsumerConfig,
    history: &History,
    needs_replies: bool,
) -> Result<Prepared, PrepareError> {
    let ConsumerConfig { stream, consumer, .. } = config;
    let mut calls = vec![
        format!("STREAM.INFO.{stream}"),
        config.info_call(),
        format!("CONSUMER.CREATE.{stream}.{consumer}"),
        format!("CONSUMER.DURABLE.CREATE.{stream}.{consumer}"),
    ];
    // The subject of a single filter is part of the call.
    calls.extend(config.filters.iter().map(|filter| format!("CONSUMER.CREATE.{stream}.{consumer}.{filter}")));
    match connection.permitted_api(&calls, prepare_if_permitted(connection, config, history, needs_replies)).await {
        Ok(prepared) => prepared,
        Err(Denied(text)) => Err(PrepareError::Transient(format!("permission denied: {text}"))),
    }
}

async fn prepare_if_permitted(
    connection: &ConnectionInner,
    config: &ConsumerConfig,
    history: &History,
    needs_replies: bool,
) -> Result<Prepared, PrepareError> {
    if !connection.is_connected() {
        return Err(PrepareError::Transient("there is no connection".to_owned()));
    }
    config.check_server(connection).map_err(|error| PrepareError::Permanent(error.into()))?;
    let wanted = config.to_client_config();
    let created = match incarnation::stream_created(connection, &config.stream).await {
        Ok(Some(created)) => created,
        Ok(None) => return Err(PrepareError::Transient("there is no such stream".to_owned())),
        Err(OriginStatus::Unknown(error)) => return Err(PrepareError::Transient(error)),
        Err(_) => return Err(PrepareError::Silence),
    };
    if leftover::consumer_info(connection, config).await.is_err() {
        io::sleep(2 * LEASE).await; // rule 3 of `incarnation`
    }
    let stream = connection.jetstream.get_stream_no_info(&*config.stream).await.map_err(transient)?;
    if !config.filters.is_empty() {
        let checking = connection.with_timeout(connection.jetstream.get_stream(&*config.stream));
        let info = checking.await.ok_or(PrepareError::Silence)?.map_err(transient)?;
        check_filters(config, &info.cached_info().config.subjects)?;
    }
    let making = connection.with_timeout(stream.get_or_create_consumer(&config.consumer, wanted.clone()));
    let consumer = match making.await.ok_or(PrepareError::Silence)? {
        Ok(consumer) => consumer,
        Err(error) => {
            return Err(match error.kind() {
                // A missing stream may be created, and a failure may pass. A request that the
                // server rejects stays rejected.
                ConsumerErrorKind::JetStream(said) if is_refusal(said.code(), said.error_code()) => {
                    PrepareError::Permanent(WorkerError::Rejected(error.into()))
                }
                ConsumerErrorKind::InvalidConsumerType | ConsumerErrorKind::InvalidName => {
                    PrepareError::Permanent(WorkerError::Rejected(error.into()))
                }
                _ => transient(error),
            });
        }
    };
    let differences = config_diff::of_consumer(&wanted, &consumer.cached_info().config);
    if !differences.is_empty() {
        let error = WorkerError::Differs { consumer: config.consumer.clone(), differences };
        return Err(PrepareError::Permanent(error));
    }
    let replies = if needs_replies { Some(subscribe(connection).await?) } else { None };
    let Replies { subscriber, name } = subscribe(connection).await?;
    let now = Instant::now();
    let origin = Origin { stream: created, consumer: nanoseconds(consumer.cached_info().created) };
    let (stage, source) = (Stage::Subscribed(subscriber), Source { origin, doubts: 0 });
    let inbox = Inbox { stage, name, requested: 0, heard_at: now, overdue_at: None, source };
    let has_history = history.has_stored().await;
    let has_pending = consumer.cached_info().num_ack_pending > 0;
    Ok(Prepared { consumer: Arc::new(consumer), inbox, has_history, has_pending, replies })
}

async fn subscribe(connection: &ConnectionInner) -> Result<Replies, PrepareError> {
    let name = connection.client.new_inbox();
    let subscribing = connection.with_timeout(connection.client.subscribe(format!("{name}.*"))).await;
    let subscriber = subscribing.ok_or(PrepareError::Silence)?.map_err(transient)?;
    Ok(Replies { subscriber, name })
}

/// Refuses a filter that no subject of the stream matches. Old servers refuse it too. New ones
/// accept it, and the worker would wait forever.
fn check_filters(config: &ConsumerConfig, subjects: &[String]) -> Result<(), PrepareError> {
    let is_dead = |filter: &&String| !subjects.iter().any(|subject| check::overlaps(filter, subject));
    let Some(dead) = config.filters.iter().find(is_dead) else { return Ok(()) };
    let error = format!("no subject of the stream {} matches {dead}", config.stream);
    Err(PrepareError::Permanent(WorkerError::Rejected(error.into())))
}

/// Returns `true` if the server understood the request and rejects it.
fn is_refusal(code: usize, error: ErrorCode) -> bool {
    code == 400 && error != ErrorCode::CLUSTER_NOT_AVAILABLE
}

fn transient(error: impl Display) -> PrepareError {
    PrepareError::Transient(error.to_string())
}

impl Prepared {
    /// Requests `jobs` jobs, and no more bytes than the limit unless a single job is larger.
    ///
    /// Heartbeats cost the server a timer for each request, so a request
    /// for jobs that `are_waiting` has none, and ends before the server counts as silent.
    pub(crate) fn request(&mut self, jobs: usize, are_waiting: bool, bytes: usize, connection: &ConnectionInner) {
        self.inbox.requested += 1;
        let reply = format!("{}.{}", self.inbox.name, self.inbox.requested);
        let request = BatchConfig {
            batch: jobs,
            // A single job is requested without a limit of bytes.
            max_bytes: if jobs == 1 { 0 } else { bytes.max(connection.client.max_payload() + MESSAGE_OVERHEAD) },
            expires: Some(if are_waiting { SHORT_PULL_EXPIRES } else { PULL_EXPIRES }),
            idle_heartbeat: if are_waiting { Duration::ZERO } else { SERVER_HEARTBEAT },
            ..BatchConfig::default()
        };
        if poll_once(self.consumer.request_batch(request.clone(), reply.clone().into())).is_some() {
            return;
        }
        let (consumer, limit) = (Arc::clone(&self.consumer), connection.timeout.min(SILENCE));
        connection.io.spawn(async move {
            // If there is no room, or the client is closed, the silence of the server reveals it.
            let _ = io::timeout(limit, consumer.request_batch(request, reply.into())).await;
        });
    }
}

impl Replies {
    /// Returns the subject for the answer to an acknowledgement.
    pub(crate) fn subject(&self, number: u64) -> String {
        format!("{}.{number}", self.name)
    }

    /// Returns the number of the acknowledgement that an answer belongs to.
    pub(crate) fn number(&self, subject: &str) -> Option<u64> {
        subject.strip_prefix(&self.name)?.strip_prefix('.')?.parse().ok()
    }

    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<async_nats::Message>> {
        Pin::new(&mut self.subscriber).poll_next(context)
    }
}

impl Inbox {
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<async_nats::Message>> {
        if let Stage::Closing(closing) = &mut self.stage {
            match closing.as_mut().poll(context) {
                Poll::Ready(subscriber) => self.stage = Stage::Subscribed(subscriber),
                Poll::Pending => return Poll::Pending,
            }
        }
        match &mut self.stage {
            Stage::Subscribed(subscriber) => Pin::new(subscriber).poll_next(context),
            Stage::Closing(_) | Stage::Between => Poll::Ready(None),
        }
    }

    /// Notes a sign of life of the server.
    pub(crate) fn touch(&mut self) {
        self.heard_at = Instant::now();
    }

    /// Returns when the server counts as silent, if jobs are requested.
    pub(crate) fn heartbeat_deadline(&self) -> Instant {
        self.heard_at + SILENCE
    }

    /// Returns `true` if this subject belongs to the inbox.
    pub(crate) fn owns(&self, subject: &str) -> bool {
        subject.starts_with(&self.name)
    }

    /// Tells the server to send nothing more. Messages on their way still arrive, and then the end.
    pub(crate) fn close(mut self, connection: &ConnectionInner) -> Self {
        self.overdue_at = Instant::now().checked_add(connection.timeout);
        if let Stage::Subscribed(mut subscriber) = mem::replace(&mut self.stage, Stage::Between) {
            self.stage = Stage::Closing(Box::pin(async move {
                let _ = subscriber.drain().await;
                subscriber
            }));
        }
        self
    }

    pub(crate) fn overdue_at(&self) -> Option<Instant> {
        self.overdue_at
    }

    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.overdue_at.is_some_and(|moment| moment <= now)
    }
}

/// Returns how many requested jobs the server will not deliver, if the message ends a request in
/// the usual way.
pub(crate) fn returned(message: &async_nats::Message) -> Option<usize> {
    let status = message.status?;
    let pending = message.headers.as_ref()?.get(PENDING)?.as_str().parse().ok();
    pending.filter(|_| status == StatusCode::TIMEOUT || status == StatusCode::REQUEST_TERMINATED)
}

/// Returns `true` if the server ended a request because the next job is larger than the rest of its
/// bytes.
pub(crate) fn is_too_large(message: &async_nats::Message) -> bool {
    message.description.as_deref().is_some_and(|text| text.contains("MaxBytes"))
}
