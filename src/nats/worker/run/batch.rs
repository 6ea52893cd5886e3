//! Collects batches from the pending list.
//!
//! | pending jobs | free slots | what happens |
//! |---|---|---|
//! | fewer than a full batch, the first has not lingered | any | they wait |
//! | fewer than a full batch, the first has lingered | some | as many as there are slots for start |
//! | at least a full batch | enough for it | a full batch starts |
//! | at least a full batch | fewer | they wait, until the first has lingered |
//!
//! A full batch has as many jobs as the limit says, or as there are slots, if those are fewer.

use std::time::{Duration, Instant};

use super::state::WorkerRun;
use crate::nats::worker::config::BatchLimits;
use crate::nats::worker::job_task::{Disposition, Started, Unclaimed};
use crate::sync::Arc;

impl WorkerRun {
    /// Starts the batches that are full or have lingered, while there are free slots and turns.
    pub(crate) fn start_batches(&mut self, limits: BatchLimits) {
        loop {
            let free = self.credit.slots().saturating_sub(self.in_flight.slots_taken());
            let full = limits.max.min(self.credit.slots());
            let lingered_at = self.lingered_at(limits);
            let has_lingered = lingered_at.is_some_and(|moment| moment <= Instant::now());
            let size = self.pending.len().min(full).min(free);
            if size == 0 {
                return;
            }
            if size < full && !has_lingered {
                return self.look_again(lingered_at);
            }
            let mut batch = Vec::with_capacity(size);
            while batch.len() < size
                && let Some(&number) = self.pending.front()
                && self.take_turn(number)
            {
                self.pending.pop_front();
                batch.push(number);
            }
            if batch.is_empty() {
                return; // there is no turn
            }
            self.start_batch(&batch);
        }
    }

    /// Passes a batch to the pool as one task. Deliveries that have waited for too long are
    /// dropped, as single ones are.
    pub(crate) fn start_batch(&mut self, numbers: &[u64]) {
        let (now, started) = (Instant::now(), Started::default());
        let mut batch = Vec::with_capacity(numbers.len());
        for &number in numbers {
            if self.in_flight.is_expired(number, self.context.config.ack_wait, now) {
                self.release(number);
            } else if let Some(job) = self.in_flight.get_mut(number) {
                job.started = Arc::clone(&started);
                let (delivered, token) = (Arc::clone(&job.delivered), job.token.clone());
                batch.push(Unclaimed { number, delivered, token });
                self.context.counters.enter(); // before its handler can start
            }
        }
        let started_numbers: Vec<_> = batch.iter().map(|job| job.number).collect();
        if batch.is_empty() {
            return;
        }
        match self.context.dispatcher.take_batch(batch, &started, &self.dispositions.0) {
            Some(task) => {
                started_numbers.into_iter().for_each(|number| self.in_flight.start(number, Arc::clone(&task)));
            }
            None => {
                self.context.counters.leave(started_numbers.len());
                for number in started_numbers {
                    self.queue_outcome(number, Disposition::Nak(Duration::ZERO));
                }
            }
        }
    }

    /// Returns when the first pending job has waited for long enough; `None` for never, or if there
    /// is none.
    fn lingered_at(&self, limits: BatchLimits) -> Option<Instant> {
        let first = self.in_flight.get(*self.pending.front()?)?;
        first.ready_at.checked_add(limits.linger)
    }
}
