//! From open to drained: who waits for the pool to be quiet, and what happens when a closed pool is.
//!
//! | phase | meaning | next |
//! |---|---|---|
//! | open | tasks are admitted | closed, by `close` |
//! | closed | nothing is admitted, what was admitted still runs | drained, when the last admitted task is settled |
//! | drained | the workers are told to leave | none |
//!
//! "Cancelling" is a flag besides the phases: set by `shutdown_now`, it turns every start into a cancellation.
//!
//! Beside the phases stands what reports have said about the end, [`Reported`]. It only rises:
//!
//! | reported | raised by | `shutdown_timeout` waits | `shutdown` waits | the drop of the pool waits | the I/O thread is joined |
//! |---|---|---|---|---|---|
//! | `Nothing` | | yes | yes | yes | yes |
//! | `Quiet` | `shutdown_now` that found no task running | yes | yes | yes | no |
//! | `InTime` | `shutdown_timeout` that saw every worker leave | yes | yes | no | no |
//! | `LeftRunning` | `shutdown_now` that found a task running | yes | no | no | no |
//! | `LeftBehind` | `shutdown_timeout` that left a task or a worker behind | no | no | no | no |
//!
//! The waits of an event bus that have no limit go by the column of `shutdown_timeout`. A `shutdown_timeout` that a task
//! of the pool calls has not waited, and raises nothing.
//!
//! Meeting: *a report and a wait that it ends*. The wait returns, whether it began before the report or after it. It looks
//! at what was reported under the lock that it sleeps with. The reporting thread raises the word first, takes that lock,
//! and notifies. It reaches the locks of the roster and of this module itself, and all others through the token
//! `PoolInner::left_behind`, with which a wait leaves its bell before it looks.
//!
//! Rule: whoever may have settled the last task calls [`Lifecycle::check`]: a worker before it parks or leaves (not
//! after each task), any other thread at once. A check and a waiter meet in one atomic word, by one read-modify-write
//! each, so of two that overlap the later one sees what the earlier one did: either the check finds the waiter, or the
//! waiter finds the pool quiet. The same holds for two checks, each of which settled one of the last two tasks.

use super::ledger::Ledger;
use crate::sync::{AtomicBool, AtomicU8, AtomicUsize, Condvar, Mutex, OnceLock, Ordering};
use crate::time::deadline::Deadline;

/// What the reports about the end of a pool have said so far; see the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Reported {
    /// There was no report.
    Nothing,
    /// No task was running, and no thread was waited for.
    Quiet,
    /// Every worker has left within the limit. Its thread may still run destructors of thread locals.
    InTime,
    /// A task was running, and was not waited for.
    LeftRunning,
    /// A task or a worker was left behind when the limit had passed. No end of the pool waits for it again.
    LeftBehind,
}

/// The phases of one pool, and those who wait for quiet.
pub(crate) struct Lifecycle {
    /// The books that tell whether the pool is quiet.
    pub(crate) ledger: Ledger,
    /// How many threads wait for quiet: the word in which checks and waiters meet.
    waiters: AtomicUsize,
    /// Held between a waiter's look and its sleep, so that no notification falls between them.
    waiting: Mutex<()>,
    /// Notified when the pool is found quiet while somebody waits.
    quiet: Condvar,
    /// Every start becomes a cancellation.
    cancelling: AtomicBool,
    /// The last phase.
    drained: AtomicBool,
    /// The highest [`Reported`] so far.
    reported: AtomicU8,
    /// Tells the workers of the last phase; set once, when the pool is put together.
    on_drained: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Lifecycle {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            waiters: AtomicUsize::new(0),
            waiting: Mutex::new(()),
            quiet: Condvar::new(),
            cancelling: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            reported: AtomicU8::new(Reported::Nothing as u8),
            on_drained: OnceLock::new(),
        }
    }

    /// Sets what is done when the pool is drained; it may be done more than once.
    pub(crate) fn on_drained(&self, tell_workers: impl Fn() + Send + Sync + 'static) {
        let first = self.on_drained.set(Box::new(tell_workers)).is_ok();
        assert!(first, "a pool is put together once");
    }

    /// Admits nothing any more.
    pub(crate) fn close(&self) {
        self.ledger.close();
        self.check();
    }

    /// Turns every start into a cancellation, for good.
    pub(crate) fn start_cancelling(&self) {
        // ORDERING: Release pairs with the Acquire of `is_cancelling`. A worker that misses it starts one more task.
        self.cancelling.store(true, Ordering::Release);
    }

    pub(crate) fn is_cancelling(&self) -> bool {
        self.cancelling.load(Ordering::Acquire)
    }

    /// Wakes who waits for quiet, and tells the workers of a drained pool to leave, if it is so far.
    pub(crate) fn check(&self) {
        // ORDERING: the read-modify-write of the rule above; AcqRel both ways, with `wait_quiet` and with other checks.
        let waiters = self.waiters.fetch_add(0, Ordering::AcqRel);
        let closed = self.ledger.is_closed();
        if (waiters == 0 && !closed) || !self.ledger.is_quiet() {
            return;
        }
        if waiters > 0 {
            drop(self.waiting.lock());
            self.quiet.notify_all();
        }
        if closed {
            // ORDERING: Release pairs with the Acquire of `is_drained`; telling the workers takes a lock that they look
            // under as well.
            self.drained.store(true, Ordering::Release);
            if let Some(tell_workers) = self.on_drained.get() {
                tell_workers();
            }
        }
    }

    /// Whether the workers shall leave.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire)
    }

    /// Raises what was reported.
    pub(crate) fn report(&self, reported: Reported) {
        // ORDERING: Release pairs with the Acquire of `has_reported`.
        self.reported.fetch_max(reported as u8, Ordering::AcqRel);
    }

    /// Whether a report has said that much.
    pub(crate) fn has_reported(&self, reported: Reported) -> bool {
        // ORDERING: see `report`.
        self.reported.load(Ordering::Acquire) >= reported as u8
    }

    /// Waits until every admitted task is settled; returns whether that came before the deadline. Returns early if
    /// `is_called` says so after [`wake_waiters`](Self::wake_waiters).
    pub(crate) fn wait_quiet_unless(&self, is_called: impl Fn() -> bool, deadline: Deadline) -> bool {
        // ORDERING: the read-modify-write of the rule above.
        self.waiters.fetch_add(1, Ordering::AcqRel);
        let mut waiting = self.waiting.lock();
        let mut quiet = self.ledger.is_quiet();
        while !quiet && !is_called() && !deadline.is_past() {
            waiting = self.quiet.wait_until(waiting, deadline.instant());
            quiet = self.ledger.is_quiet();
        }
        drop(waiting);
        self.waiters.fetch_sub(1, Ordering::AcqRel);
        quiet
    }

    /// Waits until `is_over` says so after [`wake_waiters`](Self::wake_waiters).
    #[cfg(feature = "driver")]
    pub(crate) fn wait_until(&self, is_over: impl Fn() -> bool) {
        let mut waiting = self.waiting.lock();
        while !is_over() {
            waiting = self.quiet.wait_until(waiting, None);
        }
    }

    /// Wakes the threads that wait for quiet, to look at their calls.
    pub(crate) fn wake_waiters(&self) {
        drop(self.waiting.lock()); // a waiter has looked before, and sleeps, or looks after
        self.quiet.notify_all();
    }
}
