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
    asked: usize,
}

impl Credit {
    pub(crate) fn new(slots: usize) -> Self {
        Self { slots, asked: 0 }
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// Changes the slots while `taken` jobs hold one. Returns `true` if more jobs are requested
    /// than fit.
    pub(crate) fn set_slots(&mut self, slots: usize, taken: usize) -> bool {
        self.slots = slots;
        self.asked > 0 && taken + self.asked > slots
    }

    /// Returns how many jobs to request while `taken` jobs hold a slot, at most `most`; zero for
    /// none at present. The returned number counts as requested.
    pub(crate) fn request(&mut self, taken: usize, most: usize) -> usize {
        let free = self.slots.saturating_sub(taken + self.asked);
        if free == 0 || (self.asked > 0 && free < self.slots.div_ceil(4)) {
            return 0;
        }
        let asked = free.min(most);
        self.asked += asked;
        asked
    }

    /// Counts a received job.
    pub(crate) fn received(&mut self) {
        self.asked = self.asked.saturating_sub(1);
    }

    /// Counts requested jobs that the server will not deliver.
    pub(crate) fn returned(&mut self, jobs: usize) {
        self.asked = self.asked.saturating_sub(jobs);
    }

    /// Returns `true` if jobs are requested.
    pub(crate) fn is_asking(&self) -> bool {
        self.asked > 0
    }

    /// Forgets all requests: the requested jobs will not arrive.
    pub(crate) fn forget(&mut self) {
        self.asked = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_and_questions_together_never_exceed_the_slots() {
        let mut credit = Credit::new(8);
        let mut taken = 0;
        assert_eq!(credit.request(taken, 99), 8);
        for _ in 0..8 {
            credit.received();
            taken += 1;
            assert_eq!(credit.request(taken, 99), 0);
        }
        taken -= 1; // nothing is asked for: one free slot is enough
        assert_eq!(credit.request(taken, 99), 1);
        taken -= 1; // now only a quarter is
        assert_eq!(credit.request(taken, 99), 0);
        taken -= 1;
        assert_eq!(credit.request(taken, 99), 2);
        assert_eq!(credit.request(taken, 99), 0);
    }

    #[test]
    fn what_the_server_returns_is_asked_for_again() {
        let mut credit = Credit::new(4);
        assert_eq!(credit.request(0, 99), 4);
        credit.received();
        credit.returned(3);
        assert!(!credit.is_asking());
        assert_eq!(credit.request(1, 99), 3);
        credit.forget();
        assert_eq!(credit.request(1, 99), 3);
    }
}
