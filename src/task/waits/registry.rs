//! The registry of waits, and the searches along chains of waits.
//!
//! Everything here runs under the one lock of the registry or without any lock; see the rules of
//! `waits`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeInclusive};
use std::time::Instant;

use super::awaited::{Awaited, Kind, Needs};
use super::entry::{Entry, EntryId};
use super::knot::{Knot, Trust, name_task};
use crate::error::{Cycle, CycleTarget, CycleWait, NamedPool};
use crate::sync::{Arc, Mutex, process_wide};
use crate::task::context::{self, AwaitedId, PoolId, Stack, ThreadId};

/// The decision about a wait that asks to be registered.
pub(super) enum Decision {
    /// Not registered: its thread can help with this.
    Help(Arc<dyn Awaited>),
    /// Registered. Its thread can help from that time on, if any.
    Registered(Arc<Entry>, Option<Instant>),
    /// Not registered: it would close a knot, with this cycle. Or it is too deep to help.
    Refused(Cycle),
}

process_wide! {
    /// The registered waits of the process.
    static REGISTRY: Mutex<Registry> = Mutex::new(Registry::new());
}

/// Registers a wait, unless its thread can help or it would close a knot. Notifies waiters that
/// can help it.
pub(super) fn register(entry: Arc<Entry>) -> Decision {
    let mut notified: Vec<Arc<Entry>> = Vec::new();
    let mut registry = REGISTRY.lock();
    while entry.kind != Kind::Open
        && let Some(knot) = Knot::find(&entry, |id| registry.blocking(id), Trust::Certain)
    {
        let names = |pool| registry.name_of(pool);
        let refused = knot.refuse_one(entry.kind, &names);
        if refused.is_none() && entry.kind.is_refusable() {
            let cycle = knot.cycle(0, &names);
            drop(registry);
            notified.iter().for_each(|entry| entry.wake());
            return Decision::Refused(cycle);
        }
        let is_over = refused.is_none();
        notified.extend(refused);
        if is_over {
            break;
        }
    }
    let (decision, unused) = registry.help_or_insert(entry, &mut notified);
    drop(registry);
    drop(unused); // without the lock: a waker is user code
    notified.iter().for_each(|entry| entry.wake());
    decision
}

/// Removes a wait from the registry.
pub(super) fn deregister(entry: &Arc<Entry>) {
    let removed = REGISTRY.lock().remove(entry);
    drop(removed); // without the lock
}

/// Notifies the waiters that can help with a wait that was registered before, as its registration
/// would do now. Notifies the wait itself if its own thread can help.
pub(super) fn notify_helpers(entry: &Arc<Entry>) {
    let mut notified = Vec::new();
    let registry = REGISTRY.lock();
    for reach in [Reach::OwnWaits, Reach::WaitsOfWorkers] {
        let found = registry.search(&entry.target, &entry.stack, reach);
        if found.help.is_some() && !entry.is_too_deep() {
            entry.mark_notified();
            break;
        }
        registry.notify_helpers(entry, &found, reach, &mut notified);
        if !notified.is_empty() {
            break;
        }
    }
    drop(registry);
    notified.iter().for_each(|entry| entry.wake());
}

/// Notifies waiting workers of `pool` that something they may help with has changed: what has one
/// of these ids may need one of them now or later.
pub(crate) fn notify_change(ids: impl IntoIterator<Item = AwaitedId>, pool: PoolId) {
    let mut notified = Vec::new();
    let registry = REGISTRY.lock();
    if ids.into_iter().any(|id| registry.waiting_for(id).next().is_some()) {
        registry.notify_workers_of(pool, None, Reach::WaitsOfWorkers, &mut notified);
    }
    drop(registry);
    notified.iter().for_each(|entry| entry.wake());
}

/// Returns how many workers of the pool are asleep in the registry.
#[cfg(test)]
pub(crate) fn sleeping_workers(pool: PoolId) -> usize {
    REGISTRY.lock().asleep_in(pool).count()
}

/// Counts a worker of the pool that begins.
pub(crate) fn add_worker(pool: PoolId, name: &str) {
    REGISTRY.lock().workers.entry(pool).or_insert_with(|| (0, Arc::from(name))).0 += 1;
}

/// Returns the cycle of a wait of this thread for something that contains the waiting task itself.
pub(crate) fn own_cycle(target: CycleTarget, pool: PoolId) -> Cycle {
    let (task, own) = (context::current_task(), context::worker_pool());
    let registry = REGISTRY.lock();
    let task = task.zip(own).map(|(task, own)| name_task(&task, registry.name_of(own)));
    let target = target.of_pool(registry.name_of(pool));
    drop(registry);
    Cycle::new(vec![CycleWait::new(task, target)])
}

/// Counts a worker of the pool that has ended.
pub(crate) fn remove_worker(pool: PoolId) {
    let workers = &mut REGISTRY.lock().workers;
    if let Some((count, _)) = workers.get_mut(&pool) {
        *count -= 1;
        if *count == 0 {
            workers.remove(&pool);
        }
    }
}

/// Calls `copy` with the registered waits. It drops none of them.
pub(super) fn read<T>(copy: impl FnOnce(&Registry) -> T) -> T {
    copy(&REGISTRY.lock())
}

/// A place in the order of targets.
pub(super) type Place = (AwaitedId, EntryId);

/// Entries by a key, such as their target.
type Index<K> = BTreeMap<(K, EntryId), Arc<Entry>>;

/// Returns the range of all entries with one key.
fn range_of<K: Copy>(key: K) -> RangeInclusive<(K, EntryId)> {
    (key, 0)..=(key, EntryId::MAX)
}

/// What the lock guards.
pub(super) struct Registry {
    /// Entries by each task, group and pool that they block.
    by_blocked: Index<AwaitedId>,
    /// Entries by what they wait for.
    by_target: Index<AwaitedId>,
    /// Entries of workers, by their pool.
    by_pool: Index<PoolId>,
    /// The number of workers of each pool, and its name.
    workers: BTreeMap<PoolId, (usize, Arc<str>)>,
}

impl Registry {
    const fn new() -> Self {
        Self { by_blocked: Index::new(), by_target: Index::new(), by_pool: Index::new(), workers: BTreeMap::new() }
    }

    fn insert(&mut self, entry: &Arc<Entry>) {
        for id in &entry.stack.names {
            self.by_blocked.insert((*id, entry.id), Arc::clone(entry));
        }
        for id in &entry.targets {
            self.by_target.insert((*id, entry.id), Arc::clone(entry));
        }
        if let Some(pool) = entry.stack.worker {
            self.by_pool.insert((pool, entry.id), Arc::clone(entry));
        }
    }

    /// Removes an entry to which the caller has a reference. The caller drops the returned
    /// reference without the lock.
    fn remove(&mut self, entry: &Arc<Entry>) -> Option<Arc<Entry>> {
        for id in &entry.stack.names {
            self.by_blocked.remove(&(*id, entry.id));
        }
        if let Some(pool) = entry.stack.worker {
            self.by_pool.remove(&(pool, entry.id));
        }
        entry.targets.iter().filter_map(|id| self.by_target.remove(&(*id, entry.id))).last()
    }

    /// Returns the entries that block what has this id.
    pub(super) fn blocking(&self, id: AwaitedId) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_blocked.range(range_of(id)).map(|(_, entry)| entry)
    }

    /// Returns the entries that wait for what has this id.
    fn waiting_for(&self, id: AwaitedId) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_target.range(range_of(id)).map(|(_, entry)| entry)
    }

    /// Returns the entries of workers of the pool that are not notified.
    fn asleep_in(&self, pool: PoolId) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_pool.range(range_of(pool)).map(|(_, entry)| entry).filter(|entry| !entry.is_notified())
    }

    /// Returns the entries of workers of the pool that were made after the entry `after`.
    pub(super) fn of_workers(&self, pool: PoolId, after: EntryId) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_pool.range((pool, after + 1)..=(pool, EntryId::MAX)).map(|(_, entry)| entry)
    }

    /// Returns the entries behind a place in the order of their targets, each with its place. An
    /// entry with several targets comes more than once.
    pub(super) fn by_target(&self, after: Option<Place>) -> impl Iterator<Item = (Place, &Arc<Entry>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_target.range((from, Bound::Unbounded)).map(|(place, entry)| (*place, entry))
    }

    /// Returns the name of a pool; an empty one if it has no worker.
    pub(super) fn name_of(&self, pool: PoolId) -> NamedPool {
        let name = self.workers.get(&pool).map(|(_, name)| Arc::clone(name));
        (name.unwrap_or_else(|| Arc::from("")), pool.number())
    }

    /// Returns `true` if every worker of the pool is asleep in the registry.
    fn all_asleep(&self, pool: PoolId) -> bool {
        let workers = self.workers.get(&pool).map_or(usize::MAX, |(workers, _)| *workers);
        let threads: BTreeSet<ThreadId> = self.asleep_in(pool).map(|entry| entry.stack.thread).collect();
        threads.len() >= workers
    }

    /// Finds something that a wait can help with. Otherwise inserts the wait and notifies waiters
    /// that can help it.
    ///
    /// A worker that can help directly comes first, because help through the waits of other workers
    /// may run a task that keeps this thread for long. Only workers that can help directly are
    /// notified for that, so two workers never notify each other in turns.
    ///
    /// Returns the entry too if it was not inserted. The caller drops it without the lock.
    fn help_or_insert(&mut self, entry: Arc<Entry>, notified: &mut Vec<Arc<Entry>>) -> (Decision, Option<Arc<Entry>>) {
        let direct = self.search(&entry.target, &entry.stack, Reach::OwnWaits);
        if direct.help.is_some() || direct.pools.is_empty() {
            return self.conclude(entry, &direct, notified);
        }
        let (entry, has_notified) = self.insert_and_notify(entry, &direct, Reach::OwnWaits, notified);
        if has_notified {
            return (Decision::Registered(entry, direct.at), None);
        }
        // No other worker can help directly: anything that frees one of them is help.
        drop(self.remove(&entry)); // `entry` is another reference
        let found = self.search(&entry.target, &entry.stack, Reach::WaitsOfWorkers);
        self.conclude(entry, &found, notified)
    }

    fn conclude(
        &mut self,
        entry: Arc<Entry>,
        found: &SearchResult,
        notified: &mut Vec<Arc<Entry>>,
    ) -> (Decision, Option<Arc<Entry>>) {
        match &found.help {
            Some(help) if !entry.is_too_deep() => (Decision::Help(Arc::clone(help)), Some(entry)),
            Some(_) if self.must_refuse(&entry, notified) => (Decision::Refused(Cycle::default()), Some(entry)),
            _ => {
                let (entry, _) = self.insert_and_notify(entry, found, Reach::WaitsOfWorkers, notified);
                (Decision::Registered(entry, found.at), None)
            }
        }
    }

    /// Inserts an entry and notifies the workers that can help it. Returns `true` with it if there
    /// was one.
    fn insert_and_notify(
        &mut self,
        mut entry: Arc<Entry>,
        found: &SearchResult,
        reach: Reach,
        notified: &mut Vec<Arc<Entry>>,
    ) -> (Arc<Entry>, bool) {
        Arc::get_mut(&mut entry).expect("the entry is not inserted yet").until = found.at;
        self.insert(&entry);
        let before = notified.len();
        self.notify_helpers(&entry, found, reach, notified);
        (entry, notified.len() > before)
    }

    /// Follows what `target` needs, for the thread of a stack.
    fn search(&self, target: &Arc<dyn Awaited>, stack: &Stack, reach: Reach) -> SearchResult {
        let own = stack.worker;
        let mut found = SearchResult::default();
        let (mut seen, mut seen_pools) = (BTreeSet::new(), BTreeSet::new());
        let mut open = vec![target];
        while let Some(target) = open.pop() {
            if !seen.insert(target.awaited_id()) {
                continue;
            }
            let mut needs = Needs::default();
            target.report_needs(&mut needs);
            let pool = target.pool();
            if own == Some(pool) {
                if needs.worker || needs.worker_thread == Some(stack.thread) {
                    return SearchResult { help: Some(Arc::clone(target)), pools: BTreeSet::from([pool]), ..found };
                }
                found.at = found.at.into_iter().chain(needs.worker_at).min();
            } else if (needs.worker || needs.worker_at.is_some()) && seen_pools.insert(pool) {
                // It waits for the first of these workers that becomes free; see rule 3.
                if reach == Reach::WaitsOfWorkers && self.all_asleep(pool) {
                    open.extend(self.asleep_in(pool).map(|entry| &entry.target));
                }
            }
            if needs.worker_thread.is_some() {
                seen_pools.insert(pool);
            }
            for id in needs.ids {
                open.extend(self.blocking(id).map(|entry| &entry.target));
            }
        }
        found.pools = seen_pools;
        found
    }

    /// Notifies the workers that can help an entry that was just inserted.
    fn notify_helpers(&self, entry: &Entry, found: &SearchResult, reach: Reach, notified: &mut Vec<Arc<Entry>>) {
        // If all workers of its pool are asleep now, one that is too deep to help was waiting for
        // the others.
        let last_of_pool = entry.stack.worker.filter(|pool| self.all_asleep(*pool));
        let mut blocked = entry.stack.names.iter().copied().chain([AwaitedId::ANYTHING]);
        let is_awaited = blocked.any(|id| self.waiting_for(id).next().is_some());
        if is_awaited || last_of_pool.is_some() {
            for pool in found.pools.iter().copied().chain(last_of_pool) {
                self.notify_workers_of(pool, Some(entry.id), reach, notified);
            }
        }
    }

    /// Notifies the sleeping workers of the pool that can help within `reach`, now or from a later
    /// time. Skips the entry `except`, which is about to sleep.
    ///
    /// If there is none in the full reach and no worker is awake, notifies one that is too deep to
    /// help, so that its wait is refused.
    fn notify_workers_of(&self, pool: PoolId, except: Option<EntryId>, reach: Reach, notified: &mut Vec<Arc<Entry>>) {
        let (mut helpers, mut too_deep) = (Vec::new(), None);
        for entry in self.asleep_in(pool).filter(|entry| Some(entry.id) != except) {
            let found = self.search(&entry.target, &entry.stack, reach);
            if entry.is_too_deep() && found.help.is_some() {
                too_deep = too_deep.or(Some(entry).filter(|entry| entry.kind.is_refusable()));
            } else if found.help.is_some() || found.at.is_some_and(|at| entry.until.is_none_or(|until| at < until)) {
                helpers.push(entry);
            }
        }
        if reach == Reach::WaitsOfWorkers && helpers.is_empty() && self.all_asleep(pool) {
            helpers.extend(too_deep);
        }
        // After the loop, because a notified worker is not asleep.
        notified.extend(helpers.into_iter().filter(|entry| entry.mark_notified()).cloned());
    }

    /// Returns `true` if a wait that is too deep to help must be refused, because no other worker
    /// of its pool can help. Notifies those that can.
    fn must_refuse(&mut self, entry: &Arc<Entry>, notified: &mut Vec<Arc<Entry>>) -> bool {
        let Some(pool) = entry.stack.worker else { return false };
        let search = |other: &Arc<Entry>| self.search(&other.target, &other.stack, Reach::WaitsOfWorkers);
        let can_help = |other: &&Arc<Entry>| !other.is_too_deep() && search(other).help.is_some();
        let helpers: Vec<_> = self.asleep_in(pool).filter(can_help).cloned().collect();
        let has_helper = !helpers.is_empty();
        notified.extend(helpers.into_iter().filter(|helper| helper.mark_notified()));
        self.insert(entry);
        let is_last = self.all_asleep(pool);
        drop(self.remove(entry)); // the caller holds another reference
        is_last && !has_helper && entry.kind.is_refusable()
    }
}

/// The reach of a search.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Along certain and possible needs.
    OwnWaits,
    /// Also along the waits of workers, if one of them is needed and all of them are asleep.
    WaitsOfWorkers,
}

/// The result of a search.
#[derive(Default)]
struct SearchResult {
    /// What the worker can help with now.
    help: Option<Arc<dyn Awaited>>,
    /// When the worker can help, if not now.
    at: Option<Instant>,
    /// The other pools whose workers are needed.
    pools: BTreeSet<PoolId>,
}
