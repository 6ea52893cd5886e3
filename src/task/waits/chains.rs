//! Copies of registered waits, each with the waits that must end first, for snapshots.
//!
//! The registry's lock is held for a few entries at a time. Under it, the targets report their
//! needs, as in a search for help. No entry is kept: its target may be the last owner of values of
//! the user.

use super::awaited::Needs;
use super::entry::{Entry, EntryId};
use super::knot::{Knot, name_task};
use super::registry::{self, Place, Registry};
use crate::error::{CycleTarget, CycleTask, CycleWait, NamedPool};
use crate::snapshot::{PAGE, Page, WaitSnapshot};
use crate::sync::Arc;
use crate::task::context::{PoolId, ThreadId};

/// The number of waits that one copy shows, so that a long chain takes bounded time.
const MAX_STEPS: usize = 8;
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

/// Copies the longest of the other waits for something of a pool: those of other pools' workers,
/// and of threads and futures that run tasks.
pub(crate) fn copy_others(pool: PoolId) -> Page<WaitSnapshot> {
    let mut page = Page::new();
    let mut after: Option<Place> = None;
    loop {
        let before = after;
        registry::read(|registry| {
            for (place, entry) in registry.by_target(after).take(PER_HOLD) {
                after = Some(place);
                let is_first = entry.targets.first() == Some(&place.0);
                if is_first && entry.stack.worker != Some(pool) && entry.target.pool() == pool {
                    page.push_oldest(copy(registry, entry));
                }
            }
        });
        if after == before {
            return page;
        }
    }
}

/// Copies a wait, and the waits that must end first.
fn copy(registry: &Registry, entry: &Arc<Entry>) -> WaitSnapshot {
    let mut copy = WaitSnapshot::new(task_of(registry, entry), target_of(registry, entry), entry.since);
    if entry.is_certain()
        && let Some(knot) = Knot::find(entry, |id| registry.blocking(id).filter(|other| other.id != entry.id))
    {
        copy.then = knot.cycle(0, &|pool| registry.name_of(pool)).waits().iter().skip(1).cloned().collect();
        copy.is_cycle = true;
        return copy;
    }
    let (mut seen, mut last) = (vec![entry.id], entry);
    while copy.then.len() < MAX_STEPS {
        let mut needs = Needs::default();
        last.target.report_needs(&mut needs);
        let mut blocking = needs.ids.iter().flat_map(|id| registry.blocking(*id));
        let Some(next) = blocking.find(|next| !seen.contains(&next.id)) else { break };
        copy.then.push(CycleWait::new(task_of(registry, next), target_of(registry, next)));
        seen.push(next.id);
        last = next;
    }
    copy
}

fn task_of(registry: &Registry, entry: &Entry) -> Option<CycleTask> {
    let task = entry.stack.innermost.as_ref().zip(entry.stack.worker);
    task.map(|(task, pool)| name_task(task, registry.name_of(pool)))
}

fn target_of(registry: &Registry, entry: &Entry) -> CycleTarget {
    entry.target.describe().of_pool(registry.name_of(entry.target.pool()))
}
