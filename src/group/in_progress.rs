//! The limit of tasks in progress of a map, and the wait until one of them ends.

use crate::nesting;
use crate::sync::{Arc, Condvar, Mutex};
use crate::task::context;
use crate::time::deadline::Deadline;

/// A limit of tasks in progress.
pub(super) struct Concurrency {
    /// At least one.
    limit: usize,
    progress: Arc<Progress>,
}

/// The tasks in progress.
#[derive(Default)]
struct Progress {
    state: Mutex<State>,
    /// Notified when a task has ended while the map waits.
    ended: Condvar,
}

/// What the lock guards.
#[derive(Default)]
struct State {
    /// How many closures exist: queued, running, or held back.
    tasks: usize,
    /// Whether the map waits for the end of a task.
    is_awaited: bool,
}

impl Concurrency {
    /// Creates a limit. Zero counts as one.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), progress: Arc::default() }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Returns `true` if the limit promises that the source has items without waiting for a result.
    pub(super) fn is_promise(&self) -> bool {
        self.limit > 1
    }

    /// Returns `true` if another task may begin.
    pub(super) fn has_room(&self) -> bool {
        self.progress.state.lock().tasks < self.limit
    }

    /// Blocks until another task may begin, if there is no room now and this thread has no task on
    /// its stack. Returns `true` if it has blocked, or called pending callbacks. Other threads run
    /// the next task of a map before they wait for its result, which no wait for room would do.
    pub(super) fn wait_for_room(&self) -> bool {
        if self.has_room() || context::depth() > 0 {
            return false;
        }
        if nesting::has_pending() {
            return nesting::call_pending();
        }
        let mut state = self.progress.state.lock();
        state.is_awaited = true;
        state = self.progress.ended.wait_while(state, Deadline::NEVER, |state| state.tasks >= self.limit);
        state.is_awaited = false;
        true
    }

    /// Counts a task until the returned guard is dropped.
    pub(super) fn count(&self) -> InProgress {
        self.progress.state.lock().tasks += 1;
        InProgress { progress: Arc::clone(&self.progress) }
    }
}

/// A guard that counts a task. It is part of the task's closure, and dropped with it.
pub(crate) struct InProgress {
    progress: Arc<Progress>,
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut state = self.progress.state.lock();
        state.tasks -= 1;
        if state.is_awaited {
            self.progress.ended.notify_one();
        }
    }
}
