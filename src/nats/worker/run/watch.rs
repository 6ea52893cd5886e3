//! Watches for jobs that break connections, and for finished jobs that are still stored.

use std::time::{Duration, Instant};

use super::state::{State, WorkerRun};
use crate::nats::core::denied::Denial;
use crate::nats::event::Event;
use crate::nats::worker::command::Command;
use crate::nats::worker::leftover::{self, Leftovers};
use crate::nats::worker::unreadable;
use crate::sync::Arc;

/// The pause before the first search for finished jobs, and between two searches.
const LEFTOVER_CHECK_PAUSE: Duration = Duration::from_secs(2);
/// Two lost connections within this time have one cause.
const SAME_INCIDENT: Duration = Duration::from_secs(60);
/// How many jobs are examined after a first lost connection.
const MIN_SWEEP: usize = 256;
/// How many jobs are examined after a further one.
const MAX_SWEEP: usize = 10_000;

impl WorkerRun {
    /// Searches for jobs that break connections. Called when there is a consumer, perhaps again.
    ///
    /// A job may have ended the client of an earlier run. So the start of a run is a reason for a
    /// search too, but jobs are requested meanwhile.
    pub(crate) fn sweep(&mut self, is_start: bool) {
        self.health.disconnected_at = None;
        self.health.next_check = Some(Instant::now() + LEFTOVER_CHECK_PAUSE);
        let Some(origin) = self.origin else { return };
        let may_have_culprit = std::mem::take(&mut self.health.may_have_culprit);
        if !(may_have_culprit || is_start) || self.health.is_sweeping {
            return;
        }
        let is_first = self.health.swept_at.is_none_or(|moment| moment.elapsed() > SAME_INCIDENT);
        let most = if is_first { MIN_SWEEP } else { MAX_SWEEP };
        (self.health.swept_at, self.health.is_sweeping) = (Some(Instant::now()), may_have_culprit);
        let (preparer, config) = (Arc::clone(&self.context.preparer), Arc::clone(&self.context.config));
        let (commands, counters) = (self.context.commands.0.clone(), Arc::clone(&self.context.counters));
        self.context.connection.io.spawn(async move {
            unreadable::sweep(&preparer, &config, origin, most, &counters).await;
            let _ = commands.send(Command::Swept);
        });
    }

    /// Handles a denied permission: perhaps to request jobs, or to acknowledge one.
    pub(crate) fn on_denied(&mut self, denial: &Denial) {
        if !denial.is_publish {
            return;
        }
        let config = &self.context.config;
        let asked = format!("{}.CONSUMER.MSG.NEXT.{}.{}", self.context.connection.api, config.stream, config.consumer);
        if denial.subject == asked && matches!(self.state, State::Open(_)) {
            self.failures = self.health.denied;
            self.health.denied = self.health.denied.saturating_add(1);
            return self.fail(format!("permission denied: {}", denial.text));
        }
        // The server does not receive the outcome of this job. It gives the job to another worker
        // when `ack_wait` is over.
        if let Some(number) = self.in_flight.with_reply_subject(&denial.subject) {
            self.lose_outcome(number);
        }
    }

    pub(crate) fn find_leftovers(&mut self, now: Instant) {
        if self.health.next_check.take_if(|moment| *moment <= now).is_none() || !matches!(self.state, State::Open(_)) {
            return;
        }
        let (connection, config) = (Arc::clone(&self.context.connection), Arc::clone(&self.context.config));
        let commands = self.context.commands.0.clone();
        self.context.connection.io.spawn(async move {
            let found = leftover::find(&connection, &config).await;
            let _ = commands.send(Command::Leftovers(found));
        });
    }

    /// Reports finished jobs that two consecutive searches found.
    pub(crate) fn on_leftovers(&mut self, found: Option<Leftovers>) {
        let first = found.as_ref().map(|found| found.first);
        let is_confirmed = first.is_some() && self.health.seen == first;
        self.health.seen = first;
        let Some(found) = found.filter(|found| self.health.reported != Some(found.first)) else { return };
        if is_confirmed {
            self.health.reported = first;
            let consumer = self.context.config.consumer.clone();
            self.emit(&Event::JobsLeftBehind { consumer, first: found.first, jobs: found.jobs });
        } else {
            self.health.next_check = Some(Instant::now() + LEFTOVER_CHECK_PAUSE);
        }
    }
}
