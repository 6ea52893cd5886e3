//! How many jobs may be requested: as many as there are free slots, minus the jobs that are
//! requested already.
//!
//! A request costs a message. So one is sent for at least a quarter of the slots, or when no
//! request is open. Nothing is lost by that: while a request is open, the server has no job, or a
//! job is on its way.

/// The slots of a run, and the requested jobs.
#[derive(Debug)]
pub(crate) struct Credit {
    slots: usize,
    /// Requested, and neither received nor returned.
    requested: usize,
    /// How many further jobs the server had when it delivered the last one.
    waiting: u64,
}

impl Credit {
    pub(crate) fn new(slots: usize) -> Self {
        Self { slots, requested: 0, waiting: 0 }
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// Changes the slots while `taken` jobs hold one. Returns `true` if more jobs are requested
    /// than fit.
    pub(crate) fn set_slots(&mut self, slots: usize, taken: usize) -> bool {
        self.slots = slots;
        self.requested > 0 && taken + self.requested > slots
    }

    /// Returns how many jobs to request while `taken` jobs hold a slot, at most `most`; zero for
    /// none at present. The returned number counts as requested.
    pub(crate) fn request(&mut self, taken: usize, most: usize) -> usize {
        let free = self.slots.saturating_sub(taken + self.requested);
        if free == 0 || (self.requested > 0 && free < self.slots.div_ceil(4)) {
            return 0;
        }
        let requested = free.min(most);
        self.requested += requested;
        requested
    }

    /// Counts a received job. The server had `waiting` further jobs when it delivered this one.
    pub(crate) fn received(&mut self, waiting: u64) {
        self.requested = self.requested.saturating_sub(1);
        self.waiting = waiting;
    }

    /// Counts requested jobs that the server will not deliver. A server may also report the end of
    /// a request after it has delivered all its jobs.
    pub(crate) fn returned(&mut self, jobs: usize) {
        if jobs > 0 {
            self.requested = self.requested.saturating_sub(jobs);
            self.waiting = 0;
        }
    }

    /// Returns `true` if the server has a job for each request, unless other workers take them.
    pub(crate) fn are_jobs_waiting(&self) -> bool {
        self.waiting >= self.requested as u64
    }

    /// Returns the number of requested jobs.
    pub(crate) fn requested(&self) -> usize {
        self.requested
    }

    /// Returns `true` if jobs are requested.
    pub(crate) fn has_requests(&self) -> bool {
        self.requested > 0
    }

    /// Forgets all requests: the requested jobs will not arrive.
    pub(crate) fn forget(&mut self) {
        (self.requested, self.waiting) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_and_requests_together_never_exceed_the_slots() {
        let mut credit = Credit::new(8);
        let mut taken = 0;
        assert_eq!(credit.request(taken, 99), 8);
        for _ in 0..8 {
            credit.received(0);
            taken += 1;
            assert_eq!(credit.request(taken, 99), 0);
        }
        taken -= 1; // nothing is requested for: one free slot is enough
        assert_eq!(credit.request(taken, 99), 1);
        taken -= 1; // now a quarter of the slots is needed
        assert_eq!(credit.request(taken, 99), 0);
        taken -= 1;
        assert_eq!(credit.request(taken, 99), 2);
        assert_eq!(credit.request(taken, 99), 0);
    }

    #[test]
    fn jobs_that_the_server_returns_are_requested_again() {
        let mut credit = Credit::new(4);
        assert_eq!(credit.request(0, 99), 4);
        credit.received(0);
        credit.returned(3);
        assert!(!credit.has_requests());
        assert_eq!(credit.request(1, 99), 3);
        credit.forget();
        assert_eq!(credit.request(1, 99), 3);
    }
    #[test]
    fn jobs_are_waiting_while_the_server_has_one_for_each_request() {
        let mut credit = Credit::new(2);
        assert_eq!(credit.request(0, 99), 2);
        assert!(!credit.are_jobs_waiting(), "nothing was delivered yet");
        credit.received(1);
        assert!(credit.are_jobs_waiting());
        credit.returned(0);
        assert!(credit.are_jobs_waiting(), "the request has ended with its last job");
        credit.received(0);
        assert_eq!(credit.request(1, 99), 1);
        assert!(!credit.are_jobs_waiting(), "the server had no further job");
    }
}
