//! The deliveries of a run that are in flight, and their heartbeats.
//!
//! A heartbeat tells the server that a delivery is being processed, so that `ack_wait` starts
//! again. It is due a third of `ack_wait` after the delivery or the last heartbeat. Heartbeats that
//! are nearly due are sent with it.
//!
//! | state of a delivery | task | disposition | next |
//! |---|---|---|---|
//! | *looked up*: its history is read, or it waits for a slot | none | none | *with the pool*; *ended*; removed, if `ack_wait` is over |
//! | *with the pool*: queued or running | some | none | *ended*; *stuck* |
//! | *ended*: its outcome is queued or being sent | none | some, or none while it is sent | removed |
//! | *stuck*: the handler has exceeded `stuck_after` | some | as above, and then `is_acked` | removed, when the handler has returned as well |
//!
//! A server may deliver a job again that is still in flight here: it missed the heartbeats, its
//! consumer is new, or it is at fault. The new delivery is no attempt of its own in these states:
//!
//! | state of the earlier delivery | what happens to the new one |
//! |---|---|
//! | *looked up*; *with the pool* | it takes the place of the earlier one, whose outcome and heartbeats go to it |
//! | *ended* or *stuck*, and the job is decided: done, or known to be dead | it is dropped; the acknowledgement of the earlier one is valid for the job |
//! | *ended* or *stuck* otherwise | it is one more attempt |
//!
//! If the outcome of a decided job is lost, the server delivers the job once more.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use async_nats::Subject;

use super::job::{Delivered, JobKey};
use super::job_task::{Disposition, Started};
use crate::cancel::token::CancellationToken;
use crate::sync::Arc;
use crate::task::job::Task;

/// Heartbeats that are due within this fraction of the period are sent early.
const NEARLY: u32 = 8;

/// One delivery in flight.
pub(crate) struct InFlightJob {
    pub(crate) delivered: Arc<Delivered>,
    /// Why the job has no key, if the key function panicked.
    pub(crate) key_error: Option<String>,
    /// Since when the job waits for a slot only.
    pub(crate) ready_at: Instant,
    /// Cancelled when the job counts as stuck, and with the run's token.
    pub(crate) token: CancellationToken,
    /// The task of the pool, until the handler has ended.
    pub(crate) task: Option<Arc<dyn Task>>,
    /// When the handler started.
    pub(crate) started: Started,
    /// The outcome that is to be sent.
    pub(crate) disposition: Option<Disposition>,
    /// When the outcome is given up; `None` if there is none yet, or never.
    pub(crate) give_up_at: Option<Instant>,
    /// When the next heartbeat is due.
    heartbeat_at: Instant,
    /// When the job was delivered, or a heartbeat was sent, whichever is later.
    alive_at: Instant,
    /// When the job may be stuck; `None` if never, if it is stuck already, or if there is a
    /// disposition.
    stuck_at: Option<Instant>,
    pub(crate) is_stuck: bool,
    /// Of a stuck job: whether its outcome is confirmed. It still holds its slot.
    pub(crate) is_acked: bool,
    /// Of a stuck job with a confirmed outcome: whether its dead letter is stored.
    pub(crate) is_dead: bool,
    /// Whether the steps before the acknowledgement are done: a return is recorded, a dead letter
    /// stored.
    pub(crate) is_ready: bool,
    /// Whether it holds a slot because it was given to the pool.
    has_slot: bool,
    /// Whether it has a turn of the rate, which is neither spent nor released.
    has_turn: bool,
    /// Whether its acknowledgement is on its way, for the first time.
    is_acking: bool,
    /// Whether the job is done, or known to be dead. No further delivery may run it.
    pub(crate) is_decided: bool,
    /// The number of doubts of the run when the job was last known to have its place in the stream.
    pub(crate) doubts: u64,
}

/// All deliveries in flight, by number.
pub(crate) struct InFlight {
    jobs: BTreeMap<u64, InFlightJob>,
    next_number: u64,
    /// The last delivery of each job that is in flight.
    by_job: HashMap<JobKey, u64>,
    /// The number of deliveries that hold a slot.
    slots_taken: usize,
    /// The number of deliveries that are queued in the pool or running.
    with_pool: usize,
    /// The number of deliveries that have a turn of the rate.
    turns: usize,
    /// The number of deliveries whose acknowledgement is on its way.
    acking: usize,
    /// The time between two heartbeats; `None` if none are sent.
    period: Option<Duration>,
    stuck_after: Option<Duration>,
    /// When to check for due deliveries, at the latest.
    next_check: Option<Instant>,
}

/// The deliveries that need attention.
#[derive(Default)]
pub(crate) struct Due {
    /// Deliveries that are due for a heartbeat.
    pub(crate) heartbeats: Vec<u64>,
    /// Deliveries that have become stuck.
    pub(crate) stuck: Vec<u64>,
}

impl InFlight {
    pub(crate) fn new(period: Option<Duration>, stuck_after: Option<Duration>) -> Self {
        Self {
            jobs: BTreeMap::new(),
            next_number: 0,
            by_job: HashMap::new(),
            slots_taken: 0,
            with_pool: 0,
            turns: 0,
            acking: 0,
            period,
            stuck_after,
            next_check: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Returns the number of deliveries that hold a slot: the pool has or had them, and their
    /// outcome is not confirmed.
    pub(crate) fn slots_taken(&self) -> usize {
        self.slots_taken
    }

    /// Returns the number of deliveries that are queued in the pool or running.
    pub(crate) fn with_pool(&self) -> usize {
        self.with_pool
    }

    /// Returns the number of deliveries that have a turn of the rate.
    pub(crate) fn turns(&self) -> usize {
        self.turns
    }

    pub(crate) fn has_turn(&self, number: u64) -> bool {
        self.jobs.get(&number).is_some_and(|job| job.has_turn)
    }

    /// Notes that a delivery has a turn. Returns `false` if it is not there.
    pub(crate) fn give_turn(&mut self, number: u64) -> bool {
        let Some(job) = self.jobs.get_mut(&number) else { return false };
        self.turns += usize::from(!std::mem::replace(&mut job.has_turn, true));
        true
    }

    /// Takes the turn of a delivery. Returns whether it had one.
    pub(crate) fn take_turn(&mut self, number: u64) -> bool {
        let had = self.jobs.get_mut(&number).is_some_and(|job| std::mem::take(&mut job.has_turn));
        self.turns -= usize::from(had);
        had
    }

    /// Returns the number of deliveries that no next job may be requested for: all whose
    /// acknowledgement is not on its way.
    pub(crate) fn not_acking(&self) -> usize {
        self.jobs.len() - self.acking
    }

    /// Returns `true` if each delivery is with its handler, and no outcome is to be sent or
    /// confirmed.
    pub(crate) fn are_all_running(&self) -> bool {
        let is_running = |job: &InFlightJob| job.task.is_some() && job.started.get().is_some();
        self.jobs.values().all(|job| is_running(job) && (!job.is_stuck || job.is_acked))
    }

    /// Returns the number of deliveries whose handlers have exceeded `stuck_after` and are still
    /// running.
    pub(crate) fn stuck(&self) -> usize {
        if self.stuck_after.is_none() {
            return 0;
        }
        self.jobs.values().filter(|job| job.is_stuck).count()
    }

    /// Returns the number of their handlers. A batch has one.
    pub(crate) fn stuck_handlers(&self) -> usize {
        if self.stuck_after.is_none() {
            return 0;
        }
        let handlers = self.jobs.values().filter(|job| job.is_stuck).map(|job| Arc::as_ptr(&job.started));
        handlers.collect::<HashSet<_>>().len()
    }

    /// Adds a delivery and returns its number. It arrived after this number of doubts.
    pub(crate) fn insert(&mut self, delivered: Arc<Delivered>, doubts: u64, token: CancellationToken) -> u64 {
        let now = Instant::now();
        let heartbeat_at = self.period.and_then(|period| now.checked_add(period));
        self.next_check = self.next_check.into_iter().chain(heartbeat_at).min();
        let job = InFlightJob {
            delivered,
            key_error: None,
            ready_at: now,
            token,
            task: None,
            started: Started::default(),
            disposition: None,
            give_up_at: None,
            heartbeat_at: heartbeat_at.unwrap_or(now),
            alive_at: now,
            stuck_at: None,
            is_stuck: false,
            is_acked: false,
            is_dead: false,
            is_ready: false,
            has_slot: false,
            has_turn: false,
            is_acking: false,
            is_decided: false,
            doubts,
        };
        let number = self.next_number;
        self.by_job.insert(job.delivered.key(), number);
        self.jobs.insert(number, job);
        self.next_number += 1;
        number
    }

    /// Returns `true` if an earlier delivery of this job decides its outcome, so that the job must
    /// not start again. If its handler has not ended, its outcome goes to the new delivery.
    pub(crate) fn adopt(&mut self, delivered: &Arc<Delivered>, doubts: u64) -> bool {
        let number = self.by_job.get(&delivered.key()).copied();
        let Some(job) = number.and_then(|number| self.jobs.get_mut(&number)) else { return false };
        if job.give_up_at.is_none() && !job.is_stuck {
            let earlier = std::mem::replace(&mut job.delivered, Arc::clone(delivered));
            delivered.continue_from(&earlier);
            (job.doubts, job.alive_at) = (doubts, Instant::now());
            return true;
        }
        job.is_decided
    }

    /// Notes that the pool has the delivery. Its handler has `stuck_after` from the moment it
    /// starts.
    pub(crate) fn start(&mut self, number: u64, task: Arc<dyn Task>) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        job.task = Some(task);
        job.has_slot = true;
        self.slots_taken += 1;
        self.with_pool += 1;
        job.stuck_at = self.stuck_after.and_then(|time| Instant::now().checked_add(time));
        self.next_check = self.next_check.into_iter().chain(job.stuck_at).min();
    }

    /// Returns `true` if an earlier delivery of the same job is in flight. Then the job has not
    /// ended this process.
    pub(crate) fn has_duplicate(&self, number: u64) -> bool {
        let Some(job) = self.jobs.get(&number) else { return false };
        let mut others = self.jobs.iter().filter(|(other, _)| **other != number);
        others.any(|(_, other)| other.delivered.key() == job.delivered.key())
    }

    pub(crate) fn get(&self, number: u64) -> Option<&InFlightJob> {
        self.jobs.get(&number)
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut InFlightJob> {
        self.jobs.get_mut(&number)
    }

    /// Notes that the handler of a delivery has ended, or never started.
    pub(crate) fn finish(&mut self, number: u64) -> Option<&mut InFlightJob> {
        let job = self.jobs.get_mut(&number)?;
        self.with_pool -= usize::from(job.task.take().is_some());
        job.stuck_at = None;
        Some(job)
    }

    /// Notes that the acknowledgement of a delivery is on its way. Its slot counts as free for
    /// requests, unless its handler still runs.
    pub(crate) fn mark_acking(&mut self, number: u64) {
        if let Some(job) = self.jobs.get_mut(&number)
            && !job.is_stuck
            && !std::mem::replace(&mut job.is_acking, true)
        {
            self.acking += 1;
        }
    }

    /// Notes that the server has not taken the acknowledgement of a delivery.
    pub(crate) fn unmark_acking(&mut self, number: u64) {
        if let Some(job) = self.jobs.get_mut(&number) {
            self.acking -= usize::from(std::mem::take(&mut job.is_acking));
        }
    }

    /// Removes a delivery. Returns whether it held a slot.
    pub(crate) fn release(&mut self, number: u64) -> Option<bool> {
        let job = self.jobs.remove(&number)?;
        if let Entry::Occupied(last) = self.by_job.entry(job.delivered.key())
            && *last.get() == number
        {
            last.remove();
        }
        self.acking -= usize::from(job.is_acking);
        self.with_pool -= usize::from(job.task.is_some());
        self.slots_taken -= usize::from(job.has_slot);
        self.turns -= usize::from(job.has_turn);
        Some(job.has_slot)
    }

    /// Returns the delivery whose acknowledgement goes to this subject.
    pub(crate) fn with_reply_subject(&self, subject: &str) -> Option<u64> {
        let is_acked =
            |job: &InFlightJob| job.give_up_at.is_some() && job.delivered.message.reply.as_deref() == Some(subject);
        self.jobs.iter().find(|(_, job)| is_acked(job)).map(|(number, _)| *number)
    }

    /// Returns the tasks that may not have started.
    pub(crate) fn tasks(&self) -> Vec<Arc<dyn Task>> {
        self.jobs.values().filter_map(|job| job.task.clone()).collect()
    }

    /// Returns the numbers of all deliveries.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.jobs.keys().copied().collect()
    }

    /// Returns when to call [`due`](Self::due) again.
    pub(crate) fn next_check(&self) -> Option<Instant> {
        self.next_check
    }

    /// Makes every heartbeat due: the server may have missed some.
    pub(crate) fn heartbeat_now(&mut self) {
        let now = Instant::now();
        self.jobs.values_mut().for_each(|job| job.heartbeat_at = now);
        self.next_check = Some(now);
    }

    /// Returns the deliveries that need attention, if it is time to check.
    pub(crate) fn due(&mut self, now: Instant) -> Due {
        let mut due = Due::default();
        if self.next_check.is_none_or(|moment| moment > now) {
            return due;
        }
        self.next_check = None;
        for (number, job) in &mut self.jobs {
            if job.stuck_at.is_some_and(|moment| moment <= now) {
                // Waiting for a worker of the pool does not count.
                let since = job.started.get().copied().unwrap_or(now);
                job.stuck_at = self.stuck_after.and_then(|time| since.checked_add(time));
                if job.stuck_at.is_some_and(|moment| moment <= now) {
                    (job.stuck_at, job.is_stuck) = (None, true);
                    due.stuck.push(*number);
                }
            }
            let mut next = job.stuck_at;
            if let Some(period) = self.period.filter(|_| !job.is_stuck) {
                if job.heartbeat_at <= now + period / NEARLY {
                    due.heartbeats.push(*number);
                    job.heartbeat_at = now + period;
                }
                next = next.into_iter().chain([job.heartbeat_at]).min();
            }
            self.next_check = self.next_check.into_iter().chain(next).min();
        }
        due
    }

    /// Returns `true` if a delivery must not begin, because the server has given it up or is about
    /// to: the server has heard nothing of it for two thirds of `ack_wait`, in which two heartbeats
    /// are due. The job would run here, and again elsewhere.
    pub(crate) fn is_expired(&self, number: u64, ack_wait: Duration, now: Instant) -> bool {
        let limit = ack_wait - ack_wait / 3;
        self.jobs.get(&number).is_some_and(|job| now.saturating_duration_since(job.alive_at) > limit)
    }

    /// Notes that heartbeats are sent.
    pub(crate) fn note_heartbeats(&mut self, numbers: &[u64]) {
        let now = Instant::now();
        for number in numbers {
            if let Some(job) = self.jobs.get_mut(number) {
                job.alive_at = now;
            }
        }
    }

    /// Returns the subjects for the heartbeats of these deliveries.
    pub(crate) fn subjects(&self, numbers: &[u64], is_meant: impl Fn(&Delivered) -> bool) -> Vec<Subject> {
        let meant = numbers.iter().filter_map(|number| self.jobs.get(number)).filter(|job| is_meant(&job.delivered));
        meant.filter_map(|job| job.delivered.message.reply.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
