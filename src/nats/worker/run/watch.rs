//! What a run keeps an eye on besides its jobs: connections that break at a job, and done jobs that stay.

use std::time::{Duration, Instant};

use super::state::{Course, State};
use crate::nats::core::denied::Denial;
use crate::nats::event::Event;
use crate::nats::worker::command::Note;
use crate::nats::worker::leftover::{self, DetachedOutput};
use crate::nats::worker::unreadable;
use crate::sync::Arc;

/// How long after a start, or between two looks, done jobs that stay are looked for.
const LOOK_AFTER: Duration = Duration::from_secs(2);
/// Two breaks within this time belong together.
const BREAKS_APART: Duration = Duration::from_secs(60);
/// How many jobs are looked at after a first break.
const FIRST_SWEEP: usize = 256;
/// How many after a further one.
const LARGEST_SWEEP: usize = 10_000;

impl Course {
    /// The consumer is there, perhaps after a break: looks for jobs that break connections.
    pub(crate) fn sweep(&mut self) {
        self.watch.broken_at = None;
        self.watch.look_at = Some(Instant::now() + LOOK_AFTER);
        let Some(origin) = self.origin else { return };
        if !std::mem::take(&mut self.watch.has_suspect) || self.watch.is_sweeping {
            return;
        }
        let is_first = self.watch.swept_at.is_none_or(|moment| moment.elapsed() > BREAKS_APART);
        let most = if is_first { FIRST_SWEEP } else { LARGEST_SWEEP };
        (self.watch.swept_at, self.watch.is_sweeping) = (Some(Instant::now()), true);
        let (registrar, terms) = (Arc::clone(&self.outfit.registrar), Arc::clone(&self.outfit.terms));
        let (notes, counters) = (self.outfit.notes.0.clone(), Arc::clone(&self.outfit.counters));
        self.outfit.link.io.spawn(async move {
            unreadable::sweep(&registrar, &terms, origin, most, &counters).await;
            let _ = notes.send(Note::Swept);
        });
    }

    /// The server did not permit something: perhaps to ask for jobs, or to tell an outcome.
    pub(crate) fn denied(&mut self, denial: &Denial) {
        if !denial.is_publish {
            return;
        }
        let terms = &self.outfit.terms;
        let asked = format!("{}.CONSUMER.MSG.NEXT.{}.{}", self.outfit.link.api, terms.stream, terms.consumer);
        if denial.subject == asked && matches!(self.state, State::Open(_)) {
            self.failures = self.watch.denied;
            self.watch.denied = self.watch.denied.saturating_add(1);
            return self.fail(format!("permission denied: {}", denial.text));
        }
        // The server hears of no outcome of this job. It gives it to another worker when `ack_wait` is over.
        if let Some(number) = self.hands.told_by(&denial.subject) {
            self.lose(number);
        }
    }

    pub(crate) fn look_for_leftovers(&mut self, now: Instant) {
        if self.watch.look_at.take_if(|moment| *moment <= now).is_none() || !matches!(self.state, State::Open(_)) {
            return;
        }
        let (link, terms) = (Arc::clone(&self.outfit.link), Arc::clone(&self.outfit.terms));
        let notes = self.outfit.notes.0.clone();
        self.outfit.link.io.spawn(async move {
            let found = leftover::find(&link, &terms).await;
            let _ = notes.send(Note::DetachedOutput(found));
        });
    }

    /// What is there at two looks, one after the other, is left behind.
    pub(crate) fn found_leftovers(&mut self, found: Option<DetachedOutput>) {
        let first = found.as_ref().map(|found| found.first);
        let is_confirmed = first.is_some() && self.watch.seen == first;
        self.watch.seen = first;
        let Some(found) = found.filter(|found| self.watch.told != Some(found.first)) else { return };
        if is_confirmed {
            self.watch.told = first;
            let consumer = self.outfit.terms.consumer.clone();
            self.tell(&Event::JobsLeftBehind { consumer, first: found.first, jobs: found.jobs });
        } else {
            self.watch.look_at = Some(Instant::now() + LOOK_AFTER);
        }
    }
}
