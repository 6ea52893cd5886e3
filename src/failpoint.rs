//! Where a check can make the pool itself fail or dawdle, in builds with `--cfg workcrew_faults` alone.
//!
//! In every other build a place is nothing. What is armed here is asked at each visit of a place, on the thread that comes
//! by and under no lock, and may block or yield there. If it answers `true` the place fails: a thread is not started, or the
//! visitor panics. Only one thing is armed at a time, for the whole process.

/// A place where something can go wrong.
#[cfg_attr(not(workcrew_faults), allow(dead_code, unreachable_pub))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
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
    Landing,
    /// An outcome has landed; the task is about to be settled.
    Settling,
}

#[cfg(workcrew_faults)]
pub use armed::{Armed, arm};
#[cfg(workcrew_faults)]
pub(crate) use armed::{at, fails};

/// Passes a place; panics if it fails.
#[cfg(not(workcrew_faults))]
#[inline]
pub(crate) fn at(_: Place) {}

/// Passes a place; returns whether it fails.
#[cfg(not(workcrew_faults))]
#[inline]
pub(crate) fn fails(_: Place) -> bool {
    false
}

#[cfg(workcrew_faults)]
mod armed {
    use super::Place;
    use crate::sync::{Arc, Mutex};

    type Plan = Arc<dyn Fn(Place) -> bool + Send + Sync>;

    /// What is armed.
    static PLAN: Mutex<Option<Plan>> = Mutex::new(None);

    /// Disarms when dropped.
    #[derive(Debug)]
    #[must_use = "dropping it disarms"]
    pub struct Armed(());

    /// Has `plan` asked at every visit of a place.
    pub fn arm(plan: impl Fn(Place) -> bool + Send + Sync + 'static) -> Armed {
        *PLAN.lock() = Some(Arc::new(plan));
        Armed(())
    }

    impl Drop for Armed {
        fn drop(&mut self) {
            let plan = PLAN.lock().take();
            drop(plan);
        }
    }

    pub(crate) fn at(place: Place) {
        assert!(!fails(place), "a fault was injected: {place:?}");
    }

    pub(crate) fn fails(place: Place) -> bool {
        let plan = PLAN.lock().clone();
        plan.is_some_and(|plan| plan(place))
    }
}
