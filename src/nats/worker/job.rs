//! A job as its handler sees it.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use super::incarnation::Origin;
use super::server_clock::ServerClock;
use crate::cancel::token::CancellationToken;
use crate::nats::error::BoxError;
use crate::nats::headers;
use crate::nats::payload::Decode;
use crate::nats::queue::{dead_letter, delay};
use crate::retry::Attempt;
use crate::sync::{Arc, AtomicBool, AtomicU64, Ordering};
use crate::task::executor::Executor;
use crate::unwind;

/// A job that was delivered to a [`Worker`](crate::nats::Worker).
pub struct Job {
    pub(crate) delivered: Arc<Delivered>,
    pub(crate) attempt: Attempt,
    /// Of the pool that runs the handler.
    pub(crate) executor: Arc<Executor>,
}

/// Identifies a job: the creation of its stream, its sequence number, and when it was stored.
pub(crate) type JobKey = (i128, u64, i64);

/// A job as the server delivered it.
pub(crate) struct Delivered {
    pub(crate) message: async_nats::Message,
    /// Its sequence number in the stream.
    pub(crate) sequence: u64,
    /// How often it was delivered, this time included.
    pub(crate) deliveries: u32,
    /// How many jobs were not delivered yet when the server delivered this one.
    pub(crate) pending: u64,
    /// When it was stored, in nanoseconds since 1970 by the server's clock.
    pub(crate) stored_at: i64,
    /// The stream and the consumer that it came from.
    pub(crate) origin: Origin,
    /// The clock of the server that it came from.
    pub(crate) clock: Arc<ServerClock>,
    /// How long after it was stored it may not run.
    pub(crate) delay: Duration,
    /// The number of deliveries that were returned unrun. Written before the job is given to the
    /// pool, whose queue makes it visible.
    returns: AtomicU64,
    /// The attempts of an earlier delivery whose attempt goes on; zero if there is none.
    continued: AtomicU64,
    /// Whether the job has an entry in the history.
    is_recorded: AtomicBool,
}

impl Job {
    /// Returns the subject under which it was enqueued.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.delivered.message.subject
    }

    /// Returns the payload.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.delivered.message.payload
    }

    /// Returns the payload if it is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.bytes()).ok()
    }

    /// Decodes the payload.
    ///
    /// # Errors
    ///
    /// Those of [`Decode::decode`].
    pub fn decode<T: Decode>(&self) -> Result<T, BoxError> {
        T::decode(self.bytes())
    }

    /// Returns the first header of this name. Names are case-sensitive.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.delivered.message.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// Iterates over all headers, sorted by name; a name appears once for each of its values. Names
    /// that begin with `Nats-` and `Workcrew-` were written by the server and this crate.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        headers::pairs(self.delivered.message.headers.as_ref())
    }

    /// Returns the id under which it was enqueued, also after it was a dead letter and was
    /// requeued. A handler that must not repeat its effects records the id.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        dead_letter::id_of(self.delivered.message.headers.as_ref()?)
    }

    /// Returns its sequence number in the stream. It is the same at each delivery.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.delivered.sequence
    }

    /// Returns how long ago the job was stored, by the server's clock. This machine's clock has no
    /// influence. For a moment after a worker's start it may be too short, never too long.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.delivered.age()
    }

    /// Returns the delay with which the job was enqueued; zero if there was none.
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.delivered.delay
    }

    /// Returns the current attempt, counted from 1. A delivery counts if its handler started, or if
    /// the worker vanished with it. A delivery that a drain returned unrun does not count, nor does
    /// one before the job's delay was over.
    #[must_use]
    pub fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// Returns the token that tells the handler to stop. It is cancelled in these cases:
    ///
    /// - The time of the attempt or of the job is over.
    /// - The job counts as [stuck](crate::nats::WorkerBuilder::stuck_after).
    /// - The drain has taken too long.
    /// - A shutdown of the pool [cancels](crate::WorkerPool#what-a-shutdown-cancels) its tasks.
    ///
    /// A handler that stops for it returns an error, and the job is delivered again.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        self.attempt.token()
    }

    /// Calls `f` in the context that came with the job, as the pool's hook
    /// [`extract`](crate::WorkerPoolBuilder::extract) reads it. Without that hook, calls `f` as it
    /// is. The handler of single jobs runs in that context anyway. A
    /// [batch](crate::nats::Worker::run_batch) has jobs of many contexts, so its handler enters
    /// that of a job by this method.
    ///
    /// # Panics
    ///
    /// A panic of `f` reaches the caller. One of the hook is contained and counted, and `f` is
    /// called in any case.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use workcrew::WorkerPool;
    /// use workcrew::nats::{JobOutcome, Worker};
    ///
    /// # fn store(_row: &[u8]) -> Result<(), std::io::Error> { Ok(()) }
    /// # fn run(
    /// #     pool: &WorkerPool,
    /// #     worker: &Worker<std::io::Error>,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// worker.run_batch(pool, 100, Duration::from_millis(50), |jobs| {
    ///     // Each row is stored within the trace that its job was enqueued in.
    ///     jobs.iter().map(|job| JobOutcome::from(job.in_context(|| store(job.bytes())))).collect()
    /// })?;
    /// # Ok(())
    /// # }
    /// # let _ = run;
    /// ```
    pub fn in_context<T>(&self, f: impl FnOnce() -> T) -> T {
        let headers = || headers::pairs(self.delivered.message.headers.as_ref());
        let called = self.executor.within_received(headers, || unwind::catch(f));
        called.unwrap_or_else(|payload| unwind::resume(payload))
    }
}

// No panic leaves anything broken behind a reference: the pool contains those of its hooks.
impl UnwindSafe for Job {}
impl RefUnwindSafe for Job {}

impl Delivered {
    /// Reads a delivered message. Its reply subject holds what the server says of the job; `None`
    /// if it is not a job.
    pub(crate) fn read(message: async_nats::Message, origin: Origin, clock: &Arc<ServerClock>) -> Option<Self> {
        let words: Vec<_> = message.reply.as_deref()?.strip_prefix("$JS.ACK.")?.split('.').collect();
        // Newer servers put the domain and the account first, and may append more.
        let own = if words.len() >= 9 { &words[2..] } else { &words };
        let &[_stream, _consumer, deliveries, sequence, _, nanoseconds, pending, ..] = own else { return None };
        let stored_at = nanoseconds.parse().ok()?;
        let (sequence, deliveries, pending) = (sequence.parse().ok()?, deliveries.parse().ok()?, pending.parse().ok()?);
        clock.has_passed(stored_at);
        let delay = delay::read(&message);
        Some(Self {
            message,
            sequence,
            deliveries,
            pending,
            stored_at,
            origin,
            clock: Arc::clone(clock),
            delay,
            returns: AtomicU64::new(0),
            continued: AtomicU64::new(0),
            is_recorded: AtomicBool::new(false),
        })
    }

    pub(crate) fn age(&self) -> Duration {
        self.clock.since(self.stored_at)
    }

    /// Returns how much of its delay is left. May be too much, never too little.
    pub(crate) fn until_due(&self) -> Duration {
        self.delay.saturating_sub(self.age())
    }

    /// Returns how long ago its delay was over.
    pub(crate) fn since_due(&self) -> Duration {
        self.age().saturating_sub(self.delay)
    }

    /// Returns how many deliveries, this one included, count as attempts.
    pub(crate) fn attempts(&self) -> u32 {
        // A new consumer counts deliveries from one again.
        let continued = u32::try_from(self.continued.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        self.deliveries.saturating_sub(self.returns()).max(continued).max(1)
    }

    pub(crate) fn returns(&self) -> u32 {
        u32::try_from(self.returns.load(Ordering::Relaxed)).unwrap_or(u32::MAX)
    }

    /// Sets how many deliveries are known to have been returned unrun.
    pub(crate) fn set_returns(&self, returns: u32) {
        self.returns.store(returns.into(), Ordering::Relaxed);
    }

    /// Takes over what is known of the job from an earlier delivery, whose attempt goes on. So this
    /// delivery counts as returned.
    pub(crate) fn continue_from(&self, earlier: &Self) {
        let attempts = earlier.attempts();
        self.continued.store(attempts.into(), Ordering::Relaxed);
        self.set_returns(self.deliveries.saturating_sub(attempts));
        if earlier.is_recorded() {
            self.set_recorded();
        }
    }

    /// Returns `true` if deliveries count as returned that the history may not have.
    pub(crate) fn has_unrecorded_returns(&self) -> bool {
        self.continued.load(Ordering::Relaxed) > 0 && self.returns() > 0
    }

    /// Returns what identifies the job. A server that has lost its last jobs gives their numbers to
    /// others.
    pub(crate) fn key(&self) -> JobKey {
        (self.origin.stream, self.sequence, self.stored_at)
    }

    /// Notes that the job has an entry in the history, which is to be removed when the job ends.
    pub(crate) fn set_recorded(&self) {
        self.is_recorded.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_recorded(&self) -> bool {
        self.is_recorded.load(Ordering::Relaxed)
    }

    /// Returns the subject and the sequence number, which name the job in events.
    pub(crate) fn name(&self) -> (String, u64) {
        (self.message.subject.to_string(), self.sequence)
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("subject", &self.subject())
            .field("sequence", &self.sequence())
            .field("attempt", &self.attempt.number())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reply: &str) -> Option<Delivered> {
        let message = async_nats::Message {
            subject: "jobs".into(),
            reply: Some(reply.into()),
            payload: "".into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        };
        Delivered::read(message, Origin { stream: 1, consumer: 1 }, &Arc::new(ServerClock::new()))
    }

    #[test]
    fn the_replies_of_old_and_new_servers_are_read() {
        for reply in [
            "$JS.ACK.JOBS.worker.3.41.77.1700000000000000000.5",
            "$JS.ACK._.hash.JOBS.worker.3.41.77.1700000000000000000.5",
            "$JS.ACK.hub.hash.JOBS.worker.3.41.77.1700000000000000000.5.token",
        ] {
            let job = read(reply).expect(reply);
            assert_eq!((job.deliveries, job.sequence, job.pending), (3, 41, 5), "{reply}");
            assert_eq!(job.stored_at, 1_700_000_000_000_000_000, "{reply}");
        }
        for reply in ["_INBOX.a.b", "$JS.ACK.JOBS.worker.3", "$JS.ACK.JOBS.worker.x.41.77.1.5"] {
            assert!(read(reply).is_none(), "{reply}");
        }
    }
}
