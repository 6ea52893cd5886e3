//! Waits for a condition, on a condition variable and up to a deadline.

use super::deadline::Deadline;
use crate::sync::{Condvar, MutexGuard};

impl Condvar {
    /// Blocks while `condition` returns `true`, at most until the deadline. The condition is
    /// checked first, and after each notification.
    pub(crate) fn wait_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        deadline: Deadline,
        mut condition: impl FnMut(&T) -> bool,
    ) -> MutexGuard<'a, T> {
        while condition(&guard) && !deadline.is_past() {
            guard = self.wait_until(guard, deadline.instant());
        }
        guard
    }
}
