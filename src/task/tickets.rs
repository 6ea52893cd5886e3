//! How groups of tasks ask the pool for workers.
//!
//! A task group, a keyed executor and a subscription keep unstarted tasks in queues of their own.
//! They are *holders*. For each the pool's queue gets *tickets*: entries that ask a worker to run
//! tasks of the holder. A worker that does so is a *runner*. So is any other thread that runs tasks
//! of the holder and is counted.
//!
//! Rules:
//! 1. While a task can be taken, there is a ticket on its way or a runner at work. A holder asks
//!    for one more while there are fewer tickets than tasks that can be taken, and fewer tickets
//!    and runners than could be at work. It asks after each change that may make this true: a task
//!    was added, a runner stops, or the pool has more workers.
//! 2. A runner yields its worker after a quantum if the pool's queue holds jobs other than tickets
//!    of its own holder.
//! 3. A worker that takes a ticket may find that it is not needed any more: other runners are at
//!    their limit, or have taken all tasks. The ticket is then without effect.
//!
//! All numbers are guarded by the lock of the holder. A ticket is counted under that lock and sent
//! without it.

/// How many tasks a runner runs before it yields to other jobs.
pub(crate) const QUANTUM: usize = 16;

/// The tickets and runners of a holder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tickets {
    /// How many tickets are on their way.
    sent: usize,
    /// How many threads run tasks of the holder.
    runners: usize,
}

impl Tickets {
    /// Counts a ticket if rule 1 asks for one. Returns `true` if it did; the caller then sends the
    /// ticket without the lock.
    ///
    /// `takeable` tasks could be taken, and at most `most` runners could be at work.
    #[inline]
    #[must_use = "a counted ticket must be sent"]
    pub(crate) fn count_if_needed(&mut self, takeable: usize, most: usize) -> bool {
        let is_needed = self.sent + self.runners < most && self.sent < takeable;
        self.sent += usize::from(is_needed);
        is_needed
    }

    /// Notes that a ticket has arrived at a worker, or was taken back.
    #[inline]
    pub(crate) fn take(&mut self) {
        self.sent -= 1;
    }

    /// Returns how many tickets are on their way.
    #[inline]
    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    /// Counts one more runner.
    #[inline]
    pub(crate) fn start_runner(&mut self) {
        self.runners += 1;
    }

    /// Counts one runner less.
    #[inline]
    pub(crate) fn stop_runner(&mut self) {
        self.runners -= 1;
    }

    /// Returns how many threads run tasks of the holder.
    #[inline]
    pub(crate) fn runners(&self) -> usize {
        self.runners
    }

    /// Returns `true` if a runner that has run `tasks` tasks yields its worker, while the pool's
    /// queue has `queued` entries.
    #[inline]
    pub(crate) fn is_quantum_over(&self, tasks: usize, queued: impl FnOnce() -> usize) -> bool {
        tasks >= QUANTUM && queued() > self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_counted_until_each_task_or_each_possible_runner_has_one() {
        let mut tickets = Tickets::default();
        assert!(!tickets.count_if_needed(0, 2), "there is no task");
        assert!(!tickets.count_if_needed(1, 0), "there is no worker");
        assert!(tickets.count_if_needed(1, 2));
        assert!(!tickets.count_if_needed(1, 2), "the task has its ticket");
        assert!(tickets.count_if_needed(9, 2));
        assert!(!tickets.count_if_needed(9, 2), "there are as many as can be at work");
        tickets.take();
        tickets.start_runner();
        assert!(!tickets.count_if_needed(9, 2), "a runner counts as well");
        tickets.stop_runner();
        assert!(tickets.count_if_needed(9, 2));
        assert_eq!((tickets.sent(), tickets.runners()), (2, 0));
    }

    #[test]
    fn a_runner_yields_after_a_quantum_to_jobs_other_than_its_own_tickets() {
        let tickets = Tickets { sent: 2, runners: 1 };
        assert!(tickets.is_quantum_over(QUANTUM, || 3));
        assert!(!tickets.is_quantum_over(QUANTUM, || 2), "only its own tickets wait");
        assert!(!tickets.is_quantum_over(QUANTUM - 1, || 3));
    }
}
