//! Tells those who wait for something that it may have come, and costs a load while nobody does.
//!
//! Rule: who waits *announces* itself, then takes the beat, then visits, then sleeps until another beat. Who changes
//! something makes the change, then visits for announcements, then generation. Announcement, change and both visits are either
//! `SeqCst` or under one lock, so at least one sees the other.

use crate::sync::{AtomicUsize, Condvar, Mutex, Ordering};
use crate::time::deadline::Deadline;

/// Wakes whoever waits for a change.
#[derive(Default)]
pub(super) struct Notify {
    /// Those who wait, or are about to.
    waiters: AtomicUsize,
    /// Counts the generation.
    generation: Mutex<u64>,
    /// Notified with each beat.
    changed: Condvar,
}

impl Notify {
    /// Something has changed.
    pub(super) fn notify(&self) {
        // ORDERING: SeqCst, after the change; the rule.
        if self.waiters.load(Ordering::SeqCst) > 0 {
            *self.generation.lock() += 1;
            self.changed.notify_all();
        }
    }

    /// Calls `look`, under no lock, until it has an answer; in between it sleeps until the next beat, or until the
    /// deadline that `look` gives.
    pub(super) fn wait_until<T>(&self, mut check: impl FnMut() -> Result<T, Deadline>) -> T {
        // ORDERING: SeqCst, before the look; the rule.
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let answer = loop {
            let before = *self.generation.lock();
            match check() {
                Ok(answer) => break answer,
                Err(deadline) => self.sleep(before, deadline),
            }
        };
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    fn sleep(&self, before: u64, deadline: Deadline) {
        let mut generation = self.generation.lock();
        while *generation == before && !deadline.is_past() {
            generation = self.changed.wait_until(generation, deadline.instant());
        }
    }
}
