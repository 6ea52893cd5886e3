//! Where a check can make the pool itself fail or dawdle, in builds with `--cfg workcrew_faults` alone.
//!
//! In every other build a failpoint is nothing. What is enabled here is asked at each visit of a failpoint, on the thread that comes
//! by and under no lock, and may block or yield there. If it answers `true` the failpoint fails: a thread is not started, or the
//! visitor panics. Only one thing is enabled at a time, for the whole process.

/// A failpoint where something can go wrong.
#[cfg_attr(not(workcrew_faults), allow(dead_code, unreachable_pub))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failpoint {
    /// A submission has been admitted; nobody can find the task yet.
    Admitted,
    /// A job lies in the queue; no worker has been called.
    Queued,
    /// A worker's thread is about to be started.
    ThreadStart,
    /// A worker has taken a job in its hand and done nothing with it.
    Taken,
    /// A task counts as started; its closure is about to be called.
    Starting,
    /// A closure has returned; its outcome is about to land.
    Completing,
    /// An outcome has landed; the task is about to be settled.
    Completed,
}

#[cfg(workcrew_faults)]
pub use enabled::{FailGuard, configure};
#[cfg(workcrew_faults)]
pub(crate) use enabled::{hit, should_fail};

/// Passes a failpoint; panics if it fails.
#[cfg(not(workcrew_faults))]
#[inline]
pub(crate) fn hit(_: Failpoint) {}

/// Passes a failpoint; returns whether it fails.
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

    /// What is enabled.
    static CONFIGURED: Mutex<Option<Callback>> = Mutex::new(None);

    /// Disarms when dropped.
    #[derive(Debug)]
    #[must_use = "dropping it disarms"]
    pub struct FailGuard(());

    /// Has `callback` asked at every visit of a failpoint.
    pub fn configure(callback: impl Fn(Failpoint) -> bool + Send + Sync + 'static) -> FailGuard {
        *CONFIGURED.lock() = Some(Arc::new(callback));
        FailGuard(())
    }

    impl Drop for FailGuard {
        fn drop(&mut self) {
            let callback = CONFIGURED.lock().take();
            drop(callback);
        }
    }

    pub(crate) fn hit(failpoint: Failpoint) {
        assert!(!should_fail(failpoint), "a fault was injected: {failpoint:?}");
    }

    pub(crate) fn should_fail(failpoint: Failpoint) -> bool {
        let callback = CONFIGURED.lock().clone();
        callback.is_some_and(|callback| callback(failpoint))
    }
}
