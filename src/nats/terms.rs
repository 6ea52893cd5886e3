//! What a worker agrees with the server.

use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy};

use crate::sync::Arc;

/// How many questions the server keeps for all workers of a consumer; each has five at most.
const MAX_WAITING: i64 = 4_096;

/// What a worker agrees with the server, and holds itself to.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) stream: Arc<str>,
    pub(super) consumer: String,
    /// None: all subjects.
    pub(super) filters: Vec<String>,
    pub(super) ack_wait: Duration,
    /// Whether there are heartbeats.
    pub(super) beats: bool,
    pub(super) stuck_after: Option<Duration>,
    pub(super) max_deliveries: u32,
    /// From which attempt on a job runs alone.
    pub(super) alone_from: u32,
    /// How many bytes are asked for at once.
    pub(super) max_bytes: usize,
    pub(super) max_ack_pending: u32,
    pub(super) drain_timeout: Duration,
}

impl Terms {
    /// The subjects of the consumer's jobs.
    pub(super) fn subjects(&self) -> impl Iterator<Item = &str> {
        let all = self.filters.is_empty().then_some(">");
        self.filters.iter().map(String::as_str).chain(all)
    }

    pub(super) fn heartbeat_period(&self) -> Option<Duration> {
        self.beats.then_some(self.ack_wait / 3)
    }

    /// The consumer. It has no limit of deliveries of its own: past it a job would stay in the stream for ever, and
    /// no event would tell of it.
    pub(super) fn consumer_config(&self) -> Config {
        Config {
            durable_name: Some(self.consumer.clone()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            replay_policy: ReplayPolicy::Instant,
            ack_wait: self.ack_wait,
            max_deliver: -1,
            max_ack_pending: self.max_ack_pending.into(),
            max_waiting: MAX_WAITING,
            // Old servers know of one only.
            filter_subject: if self.filters.len() == 1 { self.filters[0].clone() } else { String::new() },
            filter_subjects: if self.filters.len() > 1 { self.filters.clone() } else { Vec::new() },
            ..Config::default()
        }
    }
}
