//! The stream and the consumer that a delivery came from.
//!
//! A server counts the jobs of a stream from 1. A stream that was deleted and created again, or
//! that came back empty, gives the same numbers to other jobs. An acknowledgement names only a
//! number, and a work queue deletes the job of that number even if it was never delivered. So an
//! outcome is sent only under a *lease*.
//!
//! Rules:
//! 1. The time of creation distinguishes the incarnations of a stream, or of a consumer.
//! 2. A lease is a check of both that is at most [`LEASE`] old. Acknowledgements and heartbeats are
//!    sent only under a lease, and only for deliveries of the incarnation that the lease names.
//! 3. A worker that finds no consumer waits for two leases before it creates one. A stream without
//!    a consumer takes no acknowledgement, so each lease on an earlier stream has ended by then.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::RequestError;
use async_nats::jetstream::context::RequestErrorKind;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream;
use serde_json::{Value, json};

use super::config::ConsumerConfig;
use super::server_clock::ServerTime;
use crate::nats::core::inner::ConnectionInner;
use crate::nats::error::Denied;
use crate::nats::server_time::{moment_of, nanoseconds};

/// The maximum age of the check of the stream and the consumer when an outcome is sent.
pub(crate) const LEASE: Duration = Duration::from_millis(100);

/// The times of creation, in nanoseconds since 1970 by the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) stream: i128,
    pub(crate) consumer: i128,
}

/// The result of checking the stream and the consumer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OriginStatus {
    /// Both are the known ones.
    Same,
    /// The stream is the same. Its consumer is missing, or is another one.
    OtherConsumer,
    /// The stream is another one.
    OtherStream,
    /// The server has no such stream now.
    NoStream,
    /// The server does not answer.
    Silence,
    /// The server answered with an error.
    Unknown(String),
}

/// The result of a check, and the server's time if the answer holds one.
pub(crate) struct OriginCheck {
    pub(crate) status: OriginStatus,
    pub(crate) server_time: Option<ServerTime>,
}

/// Checks the consumer, and the stream if the consumer is not the known one.
pub(crate) async fn check_origin(connection: &ConnectionInner, config: &ConsumerConfig, known: Origin) -> OriginCheck {
    let calls = [config.info_call(), format!("STREAM.INFO.{}", config.stream)];
    match connection.permitted_api(&calls, check_if_permitted(connection, config, known)).await {
        Ok(check) => check,
        Err(Denied(text)) => OriginCheck { status: OriginStatus::Unknown(text), server_time: None },
    }
}

async fn check_if_permitted(connection: &ConnectionInner, config: &ConsumerConfig, known: Origin) -> OriginCheck {
    let answer: Result<Value, _> =
        connection.answer(connection.jetstream.request(config.info_call(), &json!({}))).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return OriginCheck { status: status_of(&error), server_time: None },
    };
    let server_time = time_in(&answer);
    if let Some(error) = answer.get("error").filter(|error| error["code"] != 404) {
        return OriginCheck { status: OriginStatus::Unknown(error.to_string()), server_time };
    }
    let created = answer.get("created").and_then(moment_of);
    if created == Some(known.consumer) {
        return OriginCheck { status: OriginStatus::Same, server_time };
    }
    let status = match stream_created(connection, &config.stream).await {
        Ok(Some(created)) if created == known.stream => OriginStatus::OtherConsumer,
        Ok(Some(_)) => OriginStatus::OtherStream,
        Ok(None) => OriginStatus::NoStream,
        Err(status) => status,
    };
    OriginCheck { status, server_time }
}

/// Returns when a stream was created; `None` if it does not exist.
pub(crate) async fn stream_created(connection: &ConnectionInner, name: &str) -> Result<Option<i128>, OriginStatus> {
    Ok(stream_info(connection, name).await?.map(|info| nanoseconds(info.created)))
}

/// Returns the server's description of a stream; `None` if it does not exist.
pub(crate) async fn stream_info(
    connection: &ConnectionInner,
    name: &str,
) -> Result<Option<stream::Info>, OriginStatus> {
    let (subject, question) = (format!("STREAM.INFO.{name}"), json!({}));
    let answer: Result<Response<stream::Info>, _> =
        connection.answer(connection.jetstream.request(subject, &question)).await;
    match answer {
        Ok(Response::Ok(info)) => Ok(Some(info)),
        Ok(Response::Err { error }) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
        Ok(Response::Err { error }) => Err(OriginStatus::Unknown(error.to_string())),
        Err(error) => Err(status_of(&error)),
    }
}

fn status_of(error: &RequestError) -> OriginStatus {
    match error.kind() {
        RequestErrorKind::TimedOut => OriginStatus::Silence,
        _ => OriginStatus::Unknown(error.to_string()),
    }
}

/// Returns the server's time from an answer about a consumer. Servers before 2.10 do not send their
/// time, but when the consumer was last active.
fn time_in(answer: &Value) -> Option<ServerTime> {
    let now = answer.get("ts");
    let moment = moment_of(now.or_else(|| answer.get("delivered")?.get("last_active"))?)?;
    Some(ServerTime { moment: i64::try_from(moment).ok()?, is_now: now.is_some() })
}

/// Asks the server for its time.
pub(crate) async fn server_time(connection: &ConnectionInner, config: &ConsumerConfig) -> Option<ServerTime> {
    let answer: Result<Value, _> = connection.jetstream.request(config.info_call(), &json!({})).await;
    time_in(&answer.ok()?)
}
