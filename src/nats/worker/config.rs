//! The configuration of a worker's consumer, and the report of a run.

use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy};

use super::consumer_settings::ConsumerSettings;
use crate::nats::check::{self, Checked, InvalidArgument};
use crate::nats::core::inner::ConnectionInner;
use crate::sync::Arc;

/// How many requests the server keeps for all workers of a consumer. Each worker has at most five.
const MAX_WAITING: i64 = 4_096;

/// The shortest `ack_wait`: heartbeats and confirmations need some time.
const MIN_ACK_WAIT: Duration = Duration::from_millis(100);
/// The longest `ack_wait`.
const MAX_ACK_WAIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The largest size of one request for jobs, in bytes.
const MAX_PULL_BYTES: usize = 1 << 30;

/// What a worker and the server agree on.
#[derive(Debug)]
pub(crate) struct ConsumerConfig {
    /// The stream of the jobs.
    pub(crate) stream: Arc<str>,
    /// The name of the consumer.
    pub(crate) consumer: String,
    /// Empty: all subjects.
    pub(crate) filters: Vec<String>,
    /// How long the server waits for an acknowledgement or a heartbeat.
    pub(crate) ack_wait: Duration,
    /// Whether heartbeats are sent.
    pub(crate) heartbeats: bool,
    /// The longest time of a handler; `None` for no limit.
    pub(crate) stuck_after: Option<Duration>,
    /// The attempts after which a job is dead without being run.
    pub(crate) max_deliveries: u32,
    /// The attempt from which on a job runs alone.
    pub(crate) alone_from: u32,
    /// How many bytes are requested at once.
    pub(crate) max_bytes: usize,
    /// The largest number of delivered jobs without an outcome.
    pub(crate) max_ack_pending: u32,
    /// The longest time of a drain.
    pub(crate) drain_timeout: Duration,
    /// Less common settings.
    pub(crate) settings: ConsumerSettings,
}

impl ConsumerConfig {
    /// Returns the API call that describes the consumer.
    pub(crate) fn info_call(&self) -> String {
        format!("CONSUMER.INFO.{}.{}", self.stream, self.consumer)
    }

    /// Returns the subjects of the consumer's jobs.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = &str> {
        let all = self.filters.is_empty().then_some(">");
        self.filters.iter().map(String::as_str).chain(all)
    }

    /// Checks the configuration; `attempts` is the limit of the policy.
    pub(crate) fn check(&self, attempts: u32) -> Checked {
        let wrong = |field, reason| Err(InvalidArgument::new(field, reason));
        check::name("name of the worker", &self.consumer)?;
        if self.ack_wait < MIN_ACK_WAIT {
            return wrong("ack_wait", "it is shorter than 100 ms");
        }
        if self.ack_wait > MAX_ACK_WAIT {
            return wrong("ack_wait", "it is longer than a year");
        }
        if self.stuck_after.is_some_and(|time| time.is_zero()) {
            return wrong("stuck_after", "it is zero; leave it unset for no limit");
        }
        if self.max_deliveries < attempts {
            return wrong("max_deliveries", "the policy has more attempts");
        }
        if self.max_ack_pending == 0 {
            return wrong("max_ack_pending", "it is zero");
        }
        if !(1..=MAX_PULL_BYTES).contains(&self.max_bytes) {
            return wrong("pull_max_bytes", "it is not between 1 byte and 1 GiB");
        }
        check::filters("subject", &self.filters)?;
        self.settings.check()
    }

    /// Checks that the server is new enough. An older one would ignore the subjects, and give this
    /// worker all jobs.
    pub(crate) fn check_server(&self, connection: &ConnectionInner) -> Checked {
        if self.filters.len() > 1 && !connection.client.is_server_compatible(2, 10, 0) {
            return Err(InvalidArgument::new("subject", "several subjects need a server from 2.10 on"));
        }
        Ok(())
    }

    pub(crate) fn heartbeat_period(&self) -> Option<Duration> {
        self.heartbeats.then_some(self.ack_wait / 3)
    }

    /// Returns the configuration of the consumer for the client library. The consumer has no limit
    /// of deliveries of its own: past it a job would stay in the stream forever, without an event.
    pub(crate) fn to_client_config(&self) -> Config {
        let mut config = Config {
            durable_name: Some(self.consumer.clone()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            replay_policy: ReplayPolicy::Instant,
            ack_wait: self.ack_wait,
            max_deliver: -1,
            max_ack_pending: self.max_ack_pending.into(),
            max_waiting: MAX_WAITING,
            // Old servers know only one.
            filter_subject: if self.filters.len() == 1 { self.filters[0].clone() } else { String::new() },
            filter_subjects: if self.filters.len() > 1 { self.filters.clone() } else { Vec::new() },
            ..Config::default()
        };
        self.settings.apply(&mut config);
        config
    }
}

/// The size of batches, and how long they fill.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimits {
    /// The largest number of jobs of a batch. At least one.
    pub(crate) max: usize,
    /// How long a job waits for others at most.
    pub(crate) linger: Duration,
}

/// The report of a run that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunReport {
    /// Whether nothing was left: each job that was delivered here has an outcome, or was returned.
    pub drained: bool,
    /// The number of jobs that were left when the drain took too long. Their handlers may still
    /// run. The server gives the jobs to other workers when `ack_wait` is over.
    pub jobs_left: usize,
}
