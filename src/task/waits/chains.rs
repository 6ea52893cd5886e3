//! Copies of registered waits, each with the waits that must end first, for snapshots.
//!
//! The registry's lock is held for a few entries at a time. Under it, the targets report their
//! needs, as in a search for help. No entry is kept: its target may be the last owner of values of
//! the user.

use super::awaited::Needs;
use super::entry::{Entry, EntryId};
use super::knot::{Knot, Trust, name_task};
use super::registry::{self, Place, Registry};
use crate::error::{CycleTarget, CycleTask, CycleWait, NamedPool};
use crate::snapshot::{PAGE, Page, WaitSnapshot};
use crate::sync::Arc;
#[cfg(feature = "driver")]
use crate::task::context::AwaitedId;
use crate::task::context::{PoolId, ThreadId};

/// The number of waits that one copy shows, so that a long chain takes bounded time.
const MAX_STEPS: usize = 8;
/// The number of waits of one future that a copy shows.
#[cfg(feature = "driver")]
const MAX_OF_FUTURE: usize = 4;
/// The number of entries that are looked at under one hold of the lock.
const PER_HOLD: usize = 64;

/// A copy of a wait.
pub(crate) struct WaitCopy {
    /// The thread that waits.
    pub(crate) thread: ThreadId,
    pub(crate) wait: WaitSnapshot,
}

/// Returns the name and the number of a pool. The name is empty if the pool has no worker.
pub(crate) fn pool_name(pool: PoolId) -> NamedPool {
    registry::read(|registry| registry.name_of(pool))
}

/// Copies the waits of a pool's workers.
pub(crate) fn copy_workers(pool: PoolId) -> Vec<WaitCopy> {
    let (mut copies, mut after): (Vec<WaitCopy>, EntryId) = (Vec::new(), 0);
    loop {
        let before = copies.len();
        registry::read(|registry| {
            for entry in registry.of_workers(pool, after).take(PAGE) {
                after = entry.id;
                copies.push(WaitCopy { thread: entry.stack.thread, wait: copy(registry, entry) });
            }
        });
        if copies.len() == before {
            return copies;
        }
    }
}

/// Copies the longest of the other waits for something of a pool: those of other pools' workers and
/// futures, and of threads that run tasks.
pub(crate) fn copy_others(pool: PoolId) -> Page<WaitSnapshot> {
    let mut page = Page::new();
    let mut after: Option<Place> = None;
    loop {
        let before = after;
        registry::read(|registry| {
            for (place, entry) in registry.by_target(after).take(PER_HOLD) {
                after = Some(place);
                let is_first = entry.targets.first() == Some(&place.0);
                let is_own = entry.stack.worker == Some(pool) || entry.future.is_some() && entry.blocks(pool.into());
                if is_first && !is_own && entry.target.pool() == pool {
                    page.push_oldest(copy(registry, entry));
                }
            }
        });
        if after == before {
            return page;
        }
    }
}

/// Copies the pending waits of a driven future, whose id is given.
#[cfg(feature = "driver")]
pub(crate) fn copy_of_future(id: AwaitedId) -> Vec<WaitSnapshot> {
    registry::read(|registry| {
        let waits = registry.blocking(id).filter(|entry| entry.future == Some(id)).take(MAX_OF_FUTURE);
        waits.map(|entry| copy(registry, entry)).collect()
    })
}

/// Copies a wait, and the waits that must end first.
fn copy(registry: &Registry, entry: &Arc<Entry>) -> WaitSnapshot {
    let mut copy = WaitSnapshot::new(task_of(registry, entry), target_of(registry, entry), entry.since);
    if let Some((knot, trust)) = knot_of(registry, entry) {
        let path: Vec<&Arc<Entry>> = knot.path().collect();
        copy.then = path.windows(2).map(|pair| next_wait(registry, pair[0], pair[1])).collect();
        copy.is_cycle = true;
        (copy.is_suspected, copy.needs_place) = (trust != Trust::Certain, trust == Trust::Places);
        return copy;
    }
    let (mut seen, mut last) = (vec![entry.id], entry);
    while copy.then.len() < MAX_STEPS {
        let mut needs = Needs::default();
        last.target.report_needs(&mut needs);
        let mut blocking = needs.ids.iter().flat_map(|id| registry.blocking(*id));
        let Some(next) = blocking.find(|next| !seen.contains(&next.id)) else { break };
        copy.then.push(next_wait(registry, last, next));
        seen.push(next.id);
        last = next;
    }
    copy
}

/// Finds waits that need each other and this one; first those that are certain, then those that can
/// only be suspected.
fn knot_of(registry: &Registry, entry: &Arc<Entry>) -> Option<(Knot, Trust)> {
    let others = |id| registry.blocking(id).filter(|other| other.id != entry.id);
    [Trust::Certain, Trust::Futures, Trust::Places].into_iter().find_map(|trust| {
        let counts = if trust == Trust::Certain { entry.is_certain() } else { entry.may_be_stuck() };
        counts.then(|| Knot::find(entry, others, trust)).flatten().map(|knot| (knot, trust))
    })
}

/// Describes a wait that another wait needs. The waiter may be the very target of that.
fn next_wait(registry: &Registry, before: &Entry, next: &Entry) -> CycleWait {
    let is_target = || next.blocks(before.target.awaited_id());
    let task = task_of(registry, next).or_else(|| is_target().then(|| target_of(registry, before).task).flatten());
    CycleWait::new(task, target_of(registry, next))
}

fn task_of(registry: &Registry, entry: &Entry) -> Option<CycleTask> {
    let task = entry.stack.innermost.as_ref().zip(entry.stack.worker);
    task.map(|(task, pool)| name_task(task, registry.name_of(pool)))
}

fn target_of(registry: &Registry, entry: &Entry) -> CycleTarget {
    entry.target.describe().of_pool(registry.name_of(entry.target.pool()))
}
