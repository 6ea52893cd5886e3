//! What the server says of a worker's consumer: figures for monitoring, and deleting finished jobs.

use async_nats::jetstream::consumer;

use super::{Worker, leftover};
use crate::nats::error::QueueError;

/// The server's figures of a worker's consumer, over all workers of that name on all machines. From
/// [`Worker::status`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStatus {
    /// The jobs that were not delivered yet (`num_pending`). This is the lag.
    pub jobs_pending: u64,
    /// The jobs that were delivered and have no outcome yet (`num_ack_pending`). Those that wait
    /// for another attempt, or for the end of their delay, are among them.
    pub jobs_ack_pending: u64,
    /// Those of `jobs_ack_pending` that were delivered more than once (`num_redelivered`).
    pub jobs_redelivered: u64,
    /// The requests for jobs that wait at the server (`num_waiting`). Zero means that no worker is
    /// idle.
    pub pulls_waiting: u64,
}

/// # Monitoring
impl<E> Worker<E> {
    /// Asks the server for the figures of the consumer that all workers of this name share. Blocks
    /// for one round trip. [`metrics`](Self::metrics) has the figures of this process, without a
    /// round trip.
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

    /// Deletes finished jobs that are still stored. Returns how many there were.
    ///
    /// A server that was killed may keep such jobs. They are not delivered again;
    /// [`Event::JobsLeftBehind`](crate::nats::Event) reports them. Check the event first if the
    /// server may have lost its *last jobs*, as in a power cut. Then it gives their numbers to new
    /// jobs, and the consumer may take those for done.
    ///
    /// A killed server may also wait for the acknowledgement of a job that it no longer has. Such
    /// acknowledgements are sent first, at most 100.
    ///
    /// Blocks for two round trips, for one more with each further subject of the worker, and for
    /// three with each such acknowledgement. Each may take the request timeout.
    ///
    /// # Errors
    ///
    /// [`QueueError`], if the server does not answer or refuses. Jobs that were deleted stay
    /// deleted.
    pub fn clear_finished(&self) -> Result<u64, QueueError> {
        let (stream, consumer) = (&self.config.stream, &self.config.consumer);
        let calls = [
            self.config.info_call(),
            format!("STREAM.MSG.GET.{stream}"),
            format!("STREAM.PURGE.{stream}"),
            format!("$JS.ACK.{stream}.{consumer}"),
        ];
        let floor = self
            .connection
            .wait(self.connection.permitted_api(&calls, leftover::floor(&self.connection, &self.config)))???;
        let mut cleared = 0;
        for subject in self.config.subjects() {
            let clearing = leftover::clear(&self.connection, &self.config, subject, floor);
            cleared += self.connection.wait(self.connection.permitted_api(&calls, clearing))???;
        }
        Ok(cleared)
    }

    fn info(&self) -> Result<consumer::Info, QueueError> {
        let calls = [self.config.info_call()];
        self.connection
            .wait(self.connection.permitted_api(&calls, leftover::consumer_info(&self.connection, &self.config)))??
    }
}
