//! Tells those who wait for something that it may have come, and costs a load while nobody does.
//!
//! Rule: who waits *announces* itself, then takes the beat, then looks, then sleeps until another beat. Who changes
//! something makes the change, then looks for announcements, then beats. Announcement, change and both looks are either
//! `SeqCst` or under one lock, so at least one sees the other.

use crate::sync::{AtomicUsize, Condvar, Mutex, Ordering};
use crate::time::deadline::Deadline;

/// Wakes whoever waits for a change.
#[derive(Default)]
pub(super) struct Notify {
    /// Those who wait, or are about to.
    watchers: AtomicUsize,
    /// Counts the beats.
    beats: Mutex<u64>,
    /// Notified with each beat.
    beat: Condvar,
}

impl Notify {
    /// Something has changed.
    pub(super) fn beat(&self) {
        // ORDERING: SeqCst, after the change; the rule.
        if self.watchers.load(Ordering::SeqCst) > 0 {
            *self.beats.lock() += 1;
            self.beat.notify_all();
        }
    }

    /// Calls `look`, under no lock, until it has an answer; in between it sleeps until the next beat, or until the
    /// deadline that `look` gives.
    pub(super) fn watch<T>(&self, mut look: impl FnMut() -> Result<T, Deadline>) -> T {
        // ORDERING: SeqCst, before the look; the rule.
        self.watchers.fetch_add(1, Ordering::SeqCst);
        let answer = loop {
            let before = *self.beats.lock();
            match look() {
                Ok(answer) => break answer,
                Err(deadline) => self.sleep(before, deadline),
            }
        };
        self.watchers.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    fn sleep(&self, before: u64, deadline: Deadline) {
        let mut beats = self.beats.lock();
        while *beats == before && !deadline.is_past() {
            beats = self.beat.wait_until(beats, deadline.instant());
        }
    }
}
