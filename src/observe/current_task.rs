//! The task that a worker is running, as other threads may see it.
//!
//! Only the worker writes here; any thread reads. The *call site* of a task, which is the place
//! where it was submitted and its label, is kept behind a lock. The worker takes that lock only
//! when a task has another call site than the task before it.
//!
//! While a task waits, its worker may run other tasks on the same stack. The waiting task is then
//! an *outer* task. Its call site is saved only if an inner task has a different one.
//! `outer_is_shown` says whether the call site that is shown is that of the innermost outer task.
//!
//! | step | `outer_is_shown` | saved |
//! |---|---|---|
//! | [`save`](CurrentTask::save): a task waits | set; the frame keeps the value before | – |
//! | [`begin`](CurrentTask::begin): a task with another call site starts | if set: cleared | the outer task's call site |
//! | [`restore`](CurrentTask::restore): the outer task goes on | the value that the frame kept | if cleared: its call site is shown again |

use std::mem;
use std::panic::Location;

use super::task_origin::TaskOrigin;
use crate::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering};
use crate::time::clock::Timestamp;

/// The task that a worker is running.
#[derive(Default)]
pub(super) struct CurrentTask {
    /// The task's id, plus one; zero if no task runs.
    task: AtomicU64,
    /// The bits of the timestamp at which it started.
    since: AtomicU64,
    /// The call sites of this task and of outer tasks.
    sites: Mutex<State>,
    /// The addresses of the call site that is shown. The worker compares call sites by them without
    /// the lock.
    shown_addresses: [AtomicUsize; 2],
    /// Whether the call site that is shown is still needed by an outer task. Used by the worker
    /// only.
    outer_is_shown: AtomicBool,
}

/// The call sites that a worker keeps.
#[derive(Default)]
struct State {
    /// The call site of the running task or, if no task runs, of the last one.
    shown: Option<CallSite>,
    /// The call sites of outer tasks that another call site has replaced, the innermost last.
    outer: Vec<Option<CallSite>>,
}

/// Where a task was submitted, and its label.
#[derive(Clone)]
pub(super) struct CallSite {
    pub(super) location: &'static Location<'static>,
    pub(super) label: Option<Arc<str>>,
}

/// An outer task, to be handed to [`CurrentTask::restore`].
#[must_use = "a task that was saved must be restored"]
pub(crate) struct SavedTask {
    /// The task's id, plus one; zero if there is none.
    task: u64,
    /// The bits of the timestamp at which it started.
    since: u64,
    /// The value of [`CurrentTask::outer_is_shown`] before.
    outer_was_shown: bool,
}

impl CurrentTask {
    /// Shows a task that starts.
    #[inline]
    pub(super) fn begin(&self, task: &TaskOrigin<'_>, since: Timestamp) {
        // The outer task, if there is one, is hidden while the call site may be that of the inner
        // task.
        self.task.store(0, Ordering::Relaxed);
        if self.shown_addresses() != CallSite::addresses(task.location, task.label) {
            self.show(CallSite { location: task.location, label: task.label.cloned() });
        }
        // ORDERING: Release, after the end of the task before, or the zero above; see
        // `WorkerCounters::running`.
        self.since.store(since.to_bits(), Ordering::Release);
        self.task.store(task.id.0 + 1, Ordering::Release);
    }

    /// Shows that the task has ended.
    #[inline]
    pub(super) fn end(&self) {
        self.task.store(0, Ordering::Release);
    }

    /// Saves the running task before the worker runs others on the same stack.
    #[inline]
    pub(super) fn save(&self) -> SavedTask {
        let outer_was_shown = self.outer_is_shown.load(Ordering::Relaxed);
        self.outer_is_shown.store(true, Ordering::Relaxed);
        SavedTask {
            task: self.task.load(Ordering::Relaxed),
            since: self.since.load(Ordering::Relaxed),
            outer_was_shown,
        }
    }

    /// Shows a saved task again.
    #[inline]
    pub(super) fn restore(&self, SavedTask { task, since, outer_was_shown }: SavedTask) {
        if !self.outer_is_shown.load(Ordering::Relaxed) {
            self.show_outer();
        }
        self.outer_is_shown.store(outer_was_shown, Ordering::Relaxed);
        self.since.store(since, Ordering::Release);
        self.task.store(task, Ordering::Release);
    }

    /// Returns the id of the running task, plus one; zero if no task runs.
    pub(super) fn task(&self) -> u64 {
        self.task.load(Ordering::Acquire)
    }

    /// Returns when the running task started.
    pub(super) fn since(&self) -> Option<Timestamp> {
        Timestamp::from_bits(self.since.load(Ordering::Acquire))
    }

    /// Returns the call site that is shown.
    pub(super) fn call_site(&self) -> Option<CallSite> {
        self.sites.lock().shown.clone()
    }

    #[inline]
    fn shown_addresses(&self) -> [usize; 2] {
        self.shown_addresses.each_ref().map(|address| address.load(Ordering::Relaxed))
    }

    /// Shows a call site, and saves the one before if an outer task needs it.
    #[cold]
    fn show(&self, site: CallSite) {
        self.set_shown_addresses(Some(&site));
        let mut state = self.sites.lock();
        let mut before = state.shown.replace(site);
        if self.outer_is_shown.load(Ordering::Relaxed) {
            state.outer.push(before.take());
        }
        drop((state, before)); // in this order: the call site is dropped outside of the lock
        self.outer_is_shown.store(false, Ordering::Relaxed);
    }

    /// Shows the call site of the innermost outer task.
    #[cold]
    fn show_outer(&self) {
        let mut state = self.sites.lock();
        let outer = state.outer.pop().flatten();
        self.set_shown_addresses(outer.as_ref());
        let before = mem::replace(&mut state.shown, outer);
        drop((state, before)); // in this order: the call site is dropped outside of the lock
    }

    fn set_shown_addresses(&self, site: Option<&CallSite>) {
        let addresses = site.map_or([0; 2], |site| CallSite::addresses(site.location, site.label.as_ref()));
        for (shown, address) in self.shown_addresses.iter().zip(addresses) {
            shown.store(address, Ordering::Relaxed);
        }
    }
}

impl CallSite {
    /// Returns what tells call sites apart; zero stands for no label. The call site that is shown
    /// keeps its label alive, so no other label can have the same address.
    #[inline]
    fn addresses(location: &'static Location<'static>, label: Option<&Arc<str>>) -> [usize; 2] {
        [std::ptr::from_ref(location).addr(), label.map_or(0, |label| Arc::as_ptr(label).addr())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::task_info::TaskId;
    use crate::time::clock::Epoch;

    #[test]
    fn an_outer_task_is_shown_again_after_any_task_on_its_stack() {
        let here = Location::caller();
        let labels: [Arc<str>; 2] = ["inner".into(), "innermost".into()];
        let outer = TaskOrigin { id: TaskId(0), location: here, label: None };
        let inner = TaskOrigin { id: TaskId(1), location: here, label: Some(&labels[0]) };
        let innermost = TaskOrigin { id: TaskId(2), location: here, label: Some(&labels[1]) };
        let (current, epoch) = (CurrentTask::default(), Epoch::new());
        let shown = || {
            let id = current.task().checked_sub(1)?;
            Some((id, current.call_site()?.label))
        };
        // The second inner task shows the call site of the first; after it nothing is shown until
        // the outer task goes on.
        for tasks in [[outer, outer], [inner, inner], [inner, innermost], [outer, inner]] {
            current.begin(&outer, epoch.now());
            let saved = current.save();
            for task in tasks {
                current.begin(&task, epoch.now());
                assert_eq!(shown(), Some((task.id.0, task.label.cloned())));
                current.restore(current.save());
                let saved = current.save();
                current.begin(&innermost, epoch.now());
                assert_eq!(shown(), Some((2, Some(labels[1].clone()))));
                current.end();
                current.restore(saved);
                assert_eq!(shown(), Some((task.id.0, task.label.cloned())));
                current.end();
                assert_eq!(shown(), None);
            }
            current.restore(saved);
            assert_eq!(shown(), Some((0, None)));
            current.end();
            assert_eq!(current.sites.lock().outer.len(), 0);
            assert!(!current.outer_is_shown.load(Ordering::Relaxed));
        }
    }
}
