//! The jobs of a run by their keys: which may start, and which wait.
//!
//! A queue holds the jobs of one key that are in hand, by their sequence numbers in the stream, and
//! the numbers of jobs that went back to the server and are *expected* again.
//!
//! | state of a job | what it waits for | next |
//! |---|---|---|
//! | *arrived* | its history | *ready*; *active*, if it goes back or is dead |
//! | *ready* | its turn in the queue | *active* |
//! | *active* | its end: it may run, or its outcome is on its way | removed; *expected*, if it goes back |
//! | *expected* | its next delivery, here | *arrived*; removed, if the server no longer has it |
//!
//! Rules:
//! 1. A job becomes active, to run, if it is ready, no job of its queue is active, and no job of
//!    the queue has a lower number. So the next job of a key starts when the outcome of the one
//!    before is confirmed, and a job that is retried holds its key.
//! 2. A job enters its queue when it arrives, also if its history must be read first. So a job that
//!    was delivered before does not lose its place.
//! 3. A job that is expected may have been done elsewhere, or deleted. After a pause, which doubles
//!    up to half a minute, the run asks the server whether the job is still stored.
//! 4. In a drain, jobs become active to go back, one after the other: the jobs of a key reach the
//!    next run in their order, and not before the job that runs here has ended. Expected jobs hold
//!    no key then. A job goes back for as long as an earlier one of its key does.
//! 5. A queue without jobs has no entry. Expected jobs are bounded by `max_ack_pending`.
//!
//! A key is represented by a hash of 64 bits. If two keys had the same, their jobs would run one at
//! a time, which is right for each of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// How long after a job is due it is asked for the first time.
const FIRST_CHECK: Duration = Duration::from_secs(1);
/// The longest pause between two checks.
const MAX_CHECK_PAUSE: Duration = Duration::from_secs(30);
/// How many jobs one check asks for.
const MAX_CHECKED: usize = 64;

/// The hash of a key.
pub(crate) type Key = u64;

/// The queues of a run.
#[derive(Default)]
pub(crate) struct KeyQueues {
    queues: HashMap<Key, KeyQueue>,
    /// The queue and the sequence number of each job in hand, by the number of its delivery.
    by_number: HashMap<u64, (Key, u64)>,
    /// The number of jobs that have arrived or are ready.
    waiting: usize,
    /// Whether the run drains; see rule 4.
    is_draining: bool,
    /// The expected jobs: when each is due, its key and its sequence number.
    due: BTreeSet<(Instant, Key, u64)>,
    /// When to look for jobs to ask for, at the latest; `None` if no job is expected.
    next_check: Option<Instant>,
}

/// The jobs of one key.
#[derive(Default)]
struct KeyQueue {
    /// By sequence number, and by delivery.
    jobs: BTreeMap<(u64, u64), JobState>,
    /// The number of active jobs.
    active: usize,
    expected: BTreeMap<u64, Expected>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum JobState {
    Arrived,
    Ready,
    Active,
}

/// A job that went back to the server.
struct Expected {
    /// From when on the server may deliver it.
    due_at: Instant,
    /// When to ask whether it is still stored; `None` for never.
    check_at: Option<Instant>,
    /// How long after the last check the next one is.
    pause: Duration,
}

impl KeyQueues {
    /// Returns how many jobs in hand wait, for their history or their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Adds a job that has arrived. Returns `true` if it was expected.
    pub(crate) fn insert(&mut self, key: Key, sequence: u64, number: u64) -> bool {
        let queue = self.queues.entry(key).or_default();
        let expected = queue.expected.remove(&sequence);
        queue.jobs.insert((sequence, number), JobState::Arrived);
        self.by_number.insert(number, (key, sequence));
        self.waiting += 1;
        expected.is_some_and(|job| self.due.remove(&(job.due_at, key, sequence)))
    }

    /// Notes that everything is known of a job. Returns the job of its queue that may start now.
    pub(crate) fn set_ready(&mut self, number: u64) -> Option<u64> {
        let (key, sequence) = *self.by_number.get(&number)?;
        if let Some(state) = self.queues.get_mut(&key)?.jobs.get_mut(&(sequence, number))
            && *state == JobState::Arrived
        {
            *state = JobState::Ready;
        }
        self.start_next(key)
    }

    /// Notes that a job does not start here: it has an outcome. It keeps its place until that is
    /// confirmed.
    pub(crate) fn set_active(&mut self, number: u64) {
        let Some((key, sequence)) = self.by_number.get(&number) else { return };
        let Some(queue) = self.queues.get_mut(key) else { return };
        let Some(state) = queue.jobs.get_mut(&(*sequence, number)) else { return };
        if std::mem::replace(state, JobState::Active) != JobState::Active {
            self.waiting -= 1;
            queue.active += 1;
        }
    }

    /// Removes a job that is no longer in hand. It is expected again from `expected_at` on; `None`
    /// if it is done. Returns the job of its queue that may start now.
    pub(crate) fn end(&mut self, number: u64, expected_at: Option<Instant>) -> Option<u64> {
        let (key, sequence) = self.by_number.remove(&number)?;
        let queue = self.queues.get_mut(&key)?;
        match queue.jobs.remove(&(sequence, number)) {
            Some(JobState::Active) => queue.active -= 1,
            Some(JobState::Arrived | JobState::Ready) => self.waiting -= 1,
            None => {}
        }
        let is_here = queue.jobs.range((sequence, 0)..=(sequence, u64::MAX)).next().is_some();
        if let Some(due_at) = expected_at.filter(|_| !is_here) {
            let check_at = due_at.checked_add(FIRST_CHECK);
            queue.expected.insert(sequence, Expected { due_at, check_at, pause: FIRST_CHECK });
            self.due.insert((due_at, key, sequence));
            self.next_check = self.next_check.into_iter().chain(check_at).min();
        }
        self.start_next(key)
    }

    /// Removes an expected job: the server no longer has it. Returns the job of its queue that may
    /// start now.
    pub(crate) fn remove_expected(&mut self, key: Key, sequence: u64) -> Option<u64> {
        let job = self.queues.get_mut(&key)?.expected.remove(&sequence)?;
        self.due.remove(&(job.due_at, key, sequence));
        self.start_next(key)
    }

    /// Forgets all expected jobs: their stream no longer exists.
    pub(crate) fn forget_expected(&mut self) {
        self.queues.values_mut().for_each(|queue| queue.expected.clear());
        self.queues.retain(|_, queue| !queue.jobs.is_empty());
        self.due.clear();
        self.next_check = None;
    }

    /// Begins a drain. Returns the jobs that may go back now.
    pub(crate) fn drain(&mut self) -> Vec<u64> {
        self.is_draining = true;
        let keys: Vec<_> = self.queues.keys().copied().collect();
        keys.into_iter().filter_map(|key| self.start_next(key)).collect()
    }

    /// Returns how long a job must stay on the server at least, so that it comes after the earlier
    /// ones of its key.
    pub(crate) fn delay_of(&self, number: u64, now: Instant) -> Duration {
        let queue = self.by_number.get(&number).and_then(|(key, sequence)| Some((self.queues.get(key)?, sequence)));
        let Some((queue, sequence)) = queue else { return Duration::ZERO };
        let due_at = queue.expected.range(..sequence).map(|(_, job)| job.due_at).max();
        due_at.map_or(Duration::ZERO, |due_at| due_at.saturating_duration_since(now))
    }

    /// Returns the jobs that are ready, and wait for their turn.
    pub(crate) fn ready(&self) -> Vec<u64> {
        let jobs = self.queues.values().flat_map(|queue| &queue.jobs);
        jobs.filter(|(_, state)| **state == JobState::Ready).map(|((_, number), _)| *number).collect()
    }

    /// Returns when the first expected job is due.
    pub(crate) fn first_due(&self) -> Option<Instant> {
        self.due.first().map(|(due_at, ..)| *due_at)
    }

    /// Returns when to call [`take_overdue`](Self::take_overdue).
    pub(crate) fn next_check(&self) -> Option<Instant> {
        self.next_check
    }

    /// Returns the expected jobs that are to be checked now, each with its key.
    pub(crate) fn take_overdue(&mut self, now: Instant) -> Vec<(Key, u64)> {
        if self.next_check.is_none_or(|moment| moment > now) {
            return Vec::new();
        }
        let (mut overdue, mut next) = (Vec::new(), None);
        for (key, queue) in &mut self.queues {
            for (sequence, job) in &mut queue.expected {
                if job.check_at.is_some_and(|moment| moment <= now) && overdue.len() < MAX_CHECKED {
                    job.pause = (job.pause * 2).min(MAX_CHECK_PAUSE);
                    job.check_at = now.checked_add(job.pause);
                    overdue.push((*key, *sequence));
                }
                next = next.into_iter().chain(job.check_at).min();
            }
        }
        // Looking is linear, so it is not done more often than this.
        self.next_check = next.map(|moment| moment.max(now + FIRST_CHECK / 4));
        overdue
    }

    /// Makes the next job of a queue active, if there is one that may start. See rule 1. Removes a
    /// queue without jobs.
    fn start_next(&mut self, key: Key) -> Option<u64> {
        let queue = self.queues.get_mut(&key)?;
        if queue.jobs.is_empty() && queue.expected.is_empty() {
            self.queues.remove(&key);
            return None;
        }
        let ((sequence, number), state) = queue.jobs.iter_mut().next()?;
        let is_first =
            self.is_draining || queue.expected.first_key_value().is_none_or(|(expected, _)| expected > sequence);
        if queue.active > 0 || *state != JobState::Ready || !is_first {
            return None;
        }
        *state = JobState::Active;
        queue.active += 1;
        self.waiting -= 1;
        Some(*number)
    }
}

#[cfg(test)]
mod tests;
