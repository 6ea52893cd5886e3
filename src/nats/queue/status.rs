//! What the server says of a queue and of a worker's consumer: figures for monitoring, and clearing up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::consumer;
use async_nats::jetstream::response::Response;
use serde_json::{Value, json};

use super::JobQueue;
use crate::nats::error::{BoxError, QueueError};
use crate::nats::worker::Worker;
use crate::nats::worker::incarnation::moment_of;
use crate::nats::worker::leftover;

/// What the server says of a queue. From [`JobQueue::status`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStatus {
    /// The jobs that are stored: those that wait, those that run, those that wait for another attempt or for
    /// the end of their delay.
    pub jobs: u64,
    /// The bytes that they take, headers included.
    pub bytes: u64,
    /// How long ago the oldest of them was stored; `None` if there is none. By the server's clock, or by this
    /// machine's if the server is older than 2.10.
    pub oldest_age: Option<Duration>,
    /// How many consumers there are, one for each name of a worker that has run.
    pub consumers: u64,
}

/// What the server says of a worker's consumer: of all workers of that name, on all machines. From
/// [`Worker::status`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStatus {
    /// The jobs that were not delivered yet (`num_pending`). This is the lag.
    pub jobs_pending: u64,
    /// The jobs that were delivered and have no outcome yet (`num_ack_pending`). Those that wait for another
    /// attempt, or for the end of their delay, are among them.
    pub jobs_ack_pending: u64,
    /// Those of `jobs_ack_pending` that were delivered more than once (`num_redelivered`).
    pub jobs_redelivered: u64,
    /// The requests for jobs that wait at the server (`num_waiting`). Zero means that no worker is idle.
    pub pulls_waiting: u64,
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
    ///     Ok(format!("jobs_stored {}\njobs_pending {}\noldest_seconds {oldest}\n", stored.jobs, lag.jobs_pending))
    /// }
    /// # let _ = export;
    /// ```
    pub fn status(&self) -> Result<QueueStatus, QueueError> {
        let question = format!("STREAM.INFO.{}", self.name);
        let answer: Value = self.look_up(std::slice::from_ref(&question), async {
            match self.link.jetstream.request(question.clone(), &json!({})).await {
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

/// # Monitoring
impl<E> Worker<E> {
    /// Asks the server for the figures of the consumer that all workers of this name share. Blocks for one
    /// round trip. [`metrics`](Self::metrics) has the figures of this process, and asks nothing.
    ///
    /// # Errors
    ///
    /// [`QueueError`]; [`Rejected`](QueueError::Rejected) if no worker of this name has run yet.
    pub fn status(&self) -> Result<ConsumerStatus, QueueError> {
        let info = self.info()?;
        Ok(ConsumerStatus {
            jobs_pending: info.num_pending,
            jobs_ack_pending: info.num_ack_pending as u64,
            jobs_redelivered: info.num_redelivered as u64,
            pulls_waiting: info.num_waiting as u64,
        })
    }

    /// Deletes the jobs that this worker's consumer counts as done and that are still stored; returns how many
    /// there were.
    ///
    /// A server that was killed may keep such jobs. They are not delivered again, and
    /// [`Event::JobsLeftBehind`](crate::nats::Event) tells of them. Check the event first if the server may have lost its *last
    /// jobs*, as in a power cut: then it gives their numbers to new jobs, and the consumer may take those for done.
    ///
    /// A killed server may also wait for the acknowledgement of a job that it no longer has. Such
    /// acknowledgements are sent first, at most 100.
    ///
    /// Blocks for two round trips, for one more with each further subject of the worker, and for three with
    /// each such acknowledgement. Each has the time of an answer.
    ///
    /// # Errors
    ///
    /// [`QueueError`](crate::nats::QueueError), if the server does not answer or refuses. What was deleted stays deleted.
    pub fn clear_finished(&self) -> Result<u64, QueueError> {
        let (stream, consumer) = (&self.terms.stream, &self.terms.consumer);
        let calls = [
            self.terms.info_call(),
            format!("STREAM.MSG.GET.{stream}"),
            format!("STREAM.PURGE.{stream}"),
            format!("$JS.ACK.{stream}.{consumer}"),
        ];
        let floor = self.link.wait(self.link.permitted_api(&calls, leftover::floor(&self.link, &self.terms)))???;
        let mut cleared = 0;
        for subject in self.terms.subjects() {
            let clearing = leftover::clear(&self.link, &self.terms, subject, floor);
            cleared += self.link.wait(self.link.permitted_api(&calls, clearing))???;
        }
        Ok(cleared)
    }

    fn info(&self) -> Result<consumer::Info, QueueError> {
        let calls = [self.terms.info_call()];
        self.link.wait(self.link.permitted_api(&calls, leftover::consumer_info(&self.link, &self.terms)))??
    }
}

fn number(figures: &Value, name: &str) -> Result<u64, QueueError> {
    let missing = || -> BoxError { format!("the answer has no {name}").into() };
    figures.get(name).and_then(Value::as_u64).ok_or_else(|| QueueError::Unavailable(missing()))
}

/// This machine's time, in nanoseconds since 1970.
fn now_here() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}
