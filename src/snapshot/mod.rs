//! What a pool does now, and why it does not do more: one look for a pool that seems stuck.
//!
//! [`WorkerPool::snapshot`](crate::WorkerPool::snapshot) returns a [`Snapshot`]. Print it: its text
//! is a table, and what stands out comes first. [`Snapshot::to_json`] is for programs.
//! [`on_stuck`](crate::WorkerPoolBuilder::on_stuck) calls a hook with a snapshot when something has
//! not moved for long.
//!
//! These types are data only. They know neither locks nor the parts that they describe: each part
//! copies itself into them, and everything else happens to the copy.

mod entries;
mod holders;
mod in_flight;
mod json;
mod report;
mod rules;
mod text;
mod verdict;

pub(crate) use self::entries::{PAGE, since};
pub use self::entries::{Page, QueueSnapshot, TaskSnapshot, TimerKind, TimerSnapshot, WaitSnapshot, WorkerSnapshot};
pub use self::holders::{GroupSnapshot, KeySnapshot, KeyedSnapshot, SubscriptionSnapshot};
pub(crate) use self::holders::{Holder, Holders};
pub use self::in_flight::{DriverKind, DriverSnapshot, FutureSnapshot, JobWorkerSnapshot};
pub use self::report::Snapshot;
pub(crate) use self::rules::Limits;
pub use self::verdict::{Verdict, VerdictKind};
