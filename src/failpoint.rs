//! Failpoints, at which tests inject failures and delays.
//!
//! They exist only in builds with `--cfg workcrew_faults`. In all other builds a failpoint does
//! nothing. A test configures a callback, which is called by each thread that reaches a failpoint.
//! No lock is held then, except the one that orders changes of the number of workers, at
//! [`Failpoint::ThreadStart`]. The callback may block or yield. If it returns `true` the failpoint
//! fails: a thread is not started, or the thread that reached the failpoint panics. The process has
//! one callback at a time.

/// A point at which a failure can be injected.
#[cfg_attr(not(workcrew_faults), allow(dead_code, unreachable_pub))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failpoint {
    /// A submission was admitted; no other thread can find the task yet.
    Admitted,
    /// A job is in the queue; no worker was notified.
    Queued,
    /// A worker's thread is about to be started.
    ThreadStart,
    /// A worker has taken a job, which it has not started.
    Taken,
    /// A task counts as started; its closure will be called next.
    Starting,
    /// A closure has returned; its outcome will be stored next.
    Completing,
    /// The outcome of a task was stored; the task will be counted as completed next.
    Completed,
}

#[cfg(workcrew_faults)]
pub use enabled::{FailGuard, configure};
#[cfg(workcrew_faults)]
pub(crate) use enabled::{hit, should_fail};

/// Reaches a failpoint; panics if it fails.
#[cfg(not(workcrew_faults))]
#[inline]
pub(crate) fn hit(_: Failpoint) {}

/// Reaches a failpoint; returns whether it fails.
#[cfg(not(workcrew_faults))]
#[inline]
pub(crate) fn should_fail(_: Failpoint) -> bool {
    false
}

#[cfg(workcrew_faults)]
mod enabled {
    use super::Failpoint;
    use crate::sync::{Arc, Mutex};

    type Callback = Arc<dyn Fn(Failpoint) -> bool + Send + Sync>;

    /// The callback of the process.
    static CALLBACK: Mutex<Option<Callback>> = Mutex::new(None);

    /// A guard that removes the callback when dropped.
    #[derive(Debug)]
    #[must_use = "dropping the guard removes the callback"]
    pub struct FailGuard(());

    /// Sets the callback that is called at each failpoint. If it returns `true`, the failpoint
    /// fails.
    pub fn configure(callback: impl Fn(Failpoint) -> bool + Send + Sync + 'static) -> FailGuard {
        *CALLBACK.lock() = Some(Arc::new(callback));
        FailGuard(())
    }

    impl Drop for FailGuard {
        fn drop(&mut self) {
            let callback = CALLBACK.lock().take();
            drop(callback);
        }
    }

    pub(crate) fn hit(failpoint: Failpoint) {
        assert!(!should_fail(failpoint), "injected failure at failpoint {failpoint:?}");
    }

    pub(crate) fn should_fail(failpoint: Failpoint) -> bool {
        let callback = CALLBACK.lock().clone();
        callback.is_some_and(|callback| callback(failpoint))
    }
}
