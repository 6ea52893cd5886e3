//! Slots that change while a worker runs, and pauses.

use super::Worker;
use crate::nats::check::{self, InvalidArgument};

/// # Slots
impl<E> Worker<E> {
    /// Changes how many slots each run of this worker and its clones has, now and in later runs.
    /// Returns at once.
    ///
    /// Additional slots are filled at once. With fewer slots, running jobs continue to their end.
    /// Jobs that have not started and no longer fit are returned, without counting an attempt. To
    /// take no jobs at all, [`pause`](Self::pause).
    /// [`WorkerMetrics::slots`](crate::nats::WorkerMetrics::slots) shows the number.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`], if `slots` is zero or more than 1,048,576.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn halve(worker: &workcrew::nats::Worker<String>) -> Result<(), Box<dyn std::error::Error>> {
    /// worker.set_slots(worker.metrics().slots.div_ceil(2))?;
    /// assert!(worker.set_slots(0).is_err());
    /// # Ok(())
    /// # }
    /// # let _ = halve;
    /// ```
    pub fn set_slots(&self, slots: usize) -> Result<(), InvalidArgument> {
        if slots == 0 {
            return Err(InvalidArgument::new("slots", "it is zero; `pause` has a worker take no jobs"));
        }
        check::concurrency("slots", slots)?;
        self.control.set_slots(slots);
        Ok(())
    }

    /// Makes all runs of this worker and its clones take no more jobs until
    /// [`resume`](Self::resume). Returns at once.
    ///
    /// Running jobs continue, and their outcomes are sent. Delivered jobs that have not started are
    /// returned at once, without counting an attempt. A drain ends a run that is paused.
    pub fn pause(&self) {
        self.control.pause(true);
    }

    /// Ends a [pause](Self::pause). Without effect on a worker that is not paused.
    pub fn resume(&self) {
        self.control.pause(false);
    }
}
