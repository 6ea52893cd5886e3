//! What the reports about the end of a pool have said. It only rises:
//!
//! | reported | raised by | `shutdown_timeout` waits | `shutdown` waits | the drop of the pool waits | the I/O thread is joined |
//! |---|---|---|---|---|---|
//! | `Nothing` | | yes | yes | yes | yes |
//! | `Idle` | `shutdown_now` that found no task running | yes | yes | yes | no |
//! | `InTime` | `shutdown_timeout` or `shutdown_async` that saw every worker leave | yes | yes | no | no |
//! | `LeftRunning` | `shutdown_now` that found a task running | yes | no | no | no |
//! | `LeftBehind` | `shutdown_timeout` that left a task or a worker behind | no | no | no | no |
//!
//! The waits of an event bus, and a NATS worker's run, behave like `shutdown_timeout` where they
//! have no limit. If a task of the pool calls `shutdown_timeout`, it does not wait and raises
//! nothing.
//!
//! # Races
//!
//! - *A report and a wait that it ends*: the wait returns, whether it began before the report or
//!   after it. It checks the report under the lock with which it sleeps. The reporting thread first
//!   raises the word, then takes that lock, then notifies. It reaches the locks of the worker set
//!   and of the task tracker directly, and all others by cancelling the token
//!   `PoolInner::left_behind`. A wait registers a callback on that token before it checks.

use crate::sync::{AtomicU8, Ordering};

/// What the reports about the end of a pool have said so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Reported {
    /// There was no report.
    Nothing,
    /// No task was running, and no thread was waited for.
    Idle,
    /// Every worker has left within the limit. Its thread may still run destructors of thread
    /// locals.
    InTime,
    /// A task was running, and no thread waited for it.
    LeftRunning,
    /// A task or a worker was left behind when the limit had passed. No end of the pool waits for
    /// it again.
    LeftBehind,
}

/// What has been reported about one pool.
pub(crate) struct Reports {
    /// The highest [`Reported`] so far.
    highest: AtomicU8,
}

impl Default for Reports {
    fn default() -> Self {
        Self { highest: AtomicU8::new(Reported::Nothing as u8) }
    }
}

impl Reports {
    /// Raises what was reported.
    pub(crate) fn raise(&self, reported: Reported) {
        // ORDERING: Release pairs with the Acquire of `include`.
        self.highest.fetch_max(reported as u8, Ordering::AcqRel);
    }

    /// Returns `true` if `reported` or more has been reported.
    pub(crate) fn include(&self, reported: Reported) -> bool {
        // ORDERING: see `raise`.
        self.highest.load(Ordering::Acquire) >= reported as u8
    }
}
