//! What the server says of a queue: figures for monitoring.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::response::Response;
use serde_json::{Value, json};

use super::JobQueue;
use crate::nats::error::{BoxError, QueueError};
use crate::nats::server_time::moment_of;

/// The server's figures of a queue. Returned by [`JobQueue::status`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStatus {
    /// The stored jobs: waiting ones, running ones, and those that wait for another attempt or for
    /// the end of their delay.
    pub jobs: u64,
    /// Their size in bytes, headers included.
    pub bytes: u64,
    /// How long ago the oldest of them was stored; `None` if there is none. By the server's clock,
    /// or by this machine's if the server is older than 2.10.
    pub oldest_age: Option<Duration>,
    /// The number of consumers, one for each name of a worker that has run.
    pub consumers: u64,
}

/// # Monitoring
impl JobQueue {
    /// Asks the server for the figures of the queue. Blocks for one round trip.
    ///
    /// # Errors
    ///
    /// [`QueueError`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use workcrew::nats::{JobQueue, QueueError, Worker};
    ///
    /// fn export(queue: &JobQueue, worker: &Worker<String>) -> Result<String, QueueError> {
    ///     let (stored, lag) = (queue.status()?, worker.status()?);
    ///     let oldest = stored.oldest_age.unwrap_or_default().as_secs();
    ///     let (jobs, pending) = (stored.jobs, lag.jobs_pending);
    ///     Ok(format!("jobs_stored {jobs}\njobs_pending {pending}\noldest_seconds {oldest}\n"))
    /// }
    /// # let _ = export;
    /// ```
    pub fn status(&self) -> Result<QueueStatus, QueueError> {
        let question = format!("STREAM.INFO.{}", self.name);
        let answer: Value = self.look_up(std::slice::from_ref(&question), async {
            match self.connection.jetstream.request(question.clone(), &json!({})).await {
                Ok(Response::Ok(info)) => Ok(info),
                Ok(Response::Err { error }) => Err(QueueError::Rejected(error.into())),
                Err(error) => Err(QueueError::Unavailable(error.into())),
            }
        })?;
        let state = &answer["state"];
        let jobs = number(state, "messages")?;
        let now = answer.get("ts").and_then(moment_of).unwrap_or_else(now_here);
        let first = moment_of(&state["first_ts"]).filter(|_| jobs > 0);
        let age = |first: i128| Duration::from_nanos(u64::try_from(now - first).unwrap_or(0));
        Ok(QueueStatus {
            jobs,
            bytes: number(state, "bytes")?,
            oldest_age: first.map(age),
            consumers: number(state, "consumer_count")?,
        })
    }
}

fn number(figures: &Value, name: &str) -> Result<u64, QueueError> {
    let missing = || -> BoxError { format!("the answer has no {name}").into() };
    figures.get(name).and_then(Value::as_u64).ok_or_else(|| QueueError::Unavailable(missing()))
}

/// Returns this machine's time, in nanoseconds since 1970.
fn now_here() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}
