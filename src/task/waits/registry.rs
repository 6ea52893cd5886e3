//! The registry of waits: entering, leaving, and the searches along chains of waits.
//!
//! Everything here runs under the one lock of the registry or without any; see the rules of `waits`.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::ops::RangeInclusive;
use std::task::Waker;
use std::time::Instant;

use super::awaited::{ANYTHING, Awaited, Kind, Needs};
use crate::sync::{Arc, AtomicBool, IdGenerator, Mutex, Ordering, process_wide};
use crate::task::context::{self, AwaitedId, PoolId, Stack, ThreadId};
use crate::unwind;

/// Orders entries of one name.
type EntryId = u64;

/// A wait in the registry.
pub(super) struct Entry {
    id: EntryId,
    target: Arc<dyn Awaited>,
    /// The names by which it is found as a wait for what they name.
    targets: Vec<AwaitedId>,
    kind: Kind,
    /// What the wait holds up.
    stack: Stack,
    /// When it has something to do without a call. Set before it is put in.
    until: Option<Instant>,
    /// The waiter is to look again.
    notified: AtomicBool,
    /// The wait is to end with an error. Set before `called`.
    refused: AtomicBool,
    /// Wakes the waiter, if that is a future; else its target does.
    waker: Option<Waker>,
}

impl Entry {
    pub(super) fn new(target: Arc<dyn Awaited>, kind: Kind, stack: Stack, waker: Option<Waker>) -> Arc<Self> {
        static IDS: IdGenerator = IdGenerator::new();
        let (notified, refused) = (AtomicBool::new(false), AtomicBool::new(false));
        let targets = iter::once(target.awaited_id()).chain(target.related_ids()).collect();
        Arc::new(Self { id: IDS.next(), target, targets, kind, stack, until: None, notified, refused, waker })
    }

    pub(super) fn is_notified(&self) -> bool {
        // ORDERING: Acquire pairs with the AcqRel of `call`. The sleeper looks under the lock that `wake` takes after the
        // flag was set, or announces itself under it before it looks; see "call and sleep".
        self.notified.load(Ordering::Acquire)
    }

    pub(super) fn is_refused(&self) -> bool {
        // ORDERING: Acquire pairs with the Release of `refuse_one`.
        self.refused.load(Ordering::Acquire)
    }

    /// Marks the entry as called; says whether it was not yet, so that the caller is to [`wake`](Self::wake) it.
    fn mark_notified(&self) -> bool {
        // ORDERING: see `is_notified`.
        !self.notified.swap(true, Ordering::AcqRel)
    }

    /// Has the waiter look again. Called without the lock.
    fn wake(&self) {
        match &self.waker {
            Some(waker) => {
                // A waker is user code.
                let _ = unwind::catch(|| waker.wake_by_ref()).map_err(unwind::discard);
            }
            None => self.target.wake_waiters(),
        }
    }

    /// Whether its stack is too deep to help.
    fn is_too_deep(&self) -> bool {
        self.stack.depth >= context::MAX_HELP_DEPTH
    }

    /// Whether it can only end with its target.
    fn is_certain(&self) -> bool {
        self.kind != Kind::Open && !self.is_refused()
    }
}

/// What becomes of a wait that is entered.
pub(super) enum Decision {
    /// It was not entered: its thread can help with that.
    Help(Arc<dyn Awaited>),
    /// It is in the registry, and has something to do at that moment, if any.
    Registered(Arc<Entry>, Option<Instant>),
    /// It was not entered: it would close a cycle.
    Refused,
}

process_wide! {
    /// All waits that hold up something.
    static REGISTRY: Mutex<Registry> = Mutex::new(Registry::new());
}

/// Enters a wait, unless its thread can help or it would close a cycle, and notified waiters that can help it.
pub(super) fn register(entry: Arc<Entry>) -> Decision {
    let mut notified: Vec<Arc<Entry>> = Vec::new();
    let mut registry = REGISTRY.lock();
    if entry.kind != Kind::Open
        && let Some(cycle) = registry.cycle(&entry)
    {
        if entry.kind == Kind::Certain {
            drop(registry);
            return Decision::Refused;
        }
        notified.extend(cycle.refuse_one()); // which drops what the cycle holds of this entry
    }
    let decision = registry.help_or_insert(entry, &mut notified);
    drop(registry);
    notified.iter().for_each(|entry| entry.wake());
    decision
}

/// Takes a wait out of the registry.
pub(super) fn deregister(entry: &Arc<Entry>) {
    let removed = REGISTRY.lock().remove(entry);
    drop(removed); // not under the lock
}

/// What is waited for by this name may need a worker of `pool` now, or at a moment to come.
#[cfg(any(feature = "retry", feature = "driver"))]
pub(crate) fn notify_change(name: AwaitedId, pool: PoolId) {
    let mut notified = Vec::new();
    let registry = REGISTRY.lock();
    if registry.waiting_for(name).next().is_some() {
        registry.notify_workers_of(pool, None, &mut notified);
    }
    drop(registry);
    notified.iter().for_each(|entry| entry.wake());
}

/// A worker of the pool begins.
pub(crate) fn add_worker(pool: PoolId) {
    *REGISTRY.lock().workers.entry(pool).or_insert(0) += 1;
}

/// A worker of the pool has ended.
pub(crate) fn remove_worker(pool: PoolId) {
    let workers = &mut REGISTRY.lock().workers;
    if let Some(count) = workers.get_mut(&pool) {
        *count -= 1;
        if *count == 0 {
            workers.remove(&pool);
        }
    }
}

/// Entries by a key, such as what they wait for.
type Index<K> = BTreeMap<(K, EntryId), Arc<Entry>>;

/// All numbers of one key.
fn range_of<K: Copy>(key: K) -> RangeInclusive<(K, EntryId)> {
    (key, 0)..=(key, EntryId::MAX)
}

/// What the lock guards.
struct Registry {
    /// Entries by each task, group and pool that they hold up.
    by_blocked: Index<AwaitedId>,
    /// Entries by what they wait for.
    by_target: Index<AwaitedId>,
    /// Entries of workers, by their pool.
    by_pool: Index<PoolId>,
    /// How many workers each pool has.
    workers: BTreeMap<PoolId, usize>,
}

impl Registry {
    const fn new() -> Self {
        Self { by_blocked: Index::new(), by_target: Index::new(), by_pool: Index::new(), workers: BTreeMap::new() }
    }

    fn insert(&mut self, entry: &Arc<Entry>) {
        for name in &entry.stack.names {
            self.by_blocked.insert((*name, entry.id), Arc::clone(entry));
        }
        for name in &entry.targets {
            self.by_target.insert((*name, entry.id), Arc::clone(entry));
        }
        if let Some(pool) = entry.stack.worker {
            self.by_pool.insert((pool, entry.id), Arc::clone(entry));
        }
    }

    /// Takes an entry out, of which the caller has a reference; what it returns is dropped without the lock.
    fn remove(&mut self, entry: &Arc<Entry>) -> Option<Arc<Entry>> {
        for name in &entry.stack.names {
            self.by_blocked.remove(&(*name, entry.id));
        }
        if let Some(pool) = entry.stack.worker {
            self.by_pool.remove(&(pool, entry.id));
        }
        entry.targets.iter().filter_map(|name| self.by_target.remove(&(*name, entry.id))).last()
    }

    /// Entries that hold up what has this name.
    fn blocking(&self, name: AwaitedId) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_blocked.range(range_of(name)).map(|(_, entry)| entry)
    }

    /// Entries that wait for what has this name.
    fn waiting_for(&self, name: AwaitedId) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_target.range(range_of(name)).map(|(_, entry)| entry)
    }

    /// Entries of workers of the pool that were not called.
    fn asleep_in(&self, pool: PoolId) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_pool.range(range_of(pool)).map(|(_, entry)| entry).filter(|entry| !entry.is_notified())
    }

    /// Whether each worker of the pool waits in the registry.
    fn all_asleep(&self, pool: PoolId) -> bool {
        let workers = self.workers.get(&pool).copied().unwrap_or(usize::MAX);
        let threads: BTreeSet<ThreadId> = self.asleep_in(pool).map(|entry| entry.stack.thread).collect();
        threads.len() >= workers
    }

    /// Finds help for a wait, or puts it in and notified waiters that can help it.
    fn help_or_insert(&mut self, entry: Arc<Entry>, notified: &mut Vec<Arc<Entry>>) -> Decision {
        let direct = self.search_in(&entry.target, entry.stack.worker, Reach::OwnWaits);
        let found = if direct.help.is_none() && !direct.pools.is_empty() {
            match self.insert_and_notify(entry, &direct, notified) {
                (entry, true) => return Decision::Registered(entry, direct.at),
                // No other worker can help: whatever brings one of them back is help.
                (entry, false) => {
                    drop(self.remove(&entry)); // this is another reference
                    let found = self.search(&entry.target, entry.stack.worker);
                    return self.conclude(entry, &found, notified);
                }
            }
        } else {
            direct
        };
        self.conclude(entry, &found, notified)
    }

    fn conclude(&mut self, entry: Arc<Entry>, found: &SearchResult, notified: &mut Vec<Arc<Entry>>) -> Decision {
        match &found.help {
            Some(help) if !entry.is_too_deep() => Decision::Help(Arc::clone(help)),
            Some(_) if self.must_refuse(&entry, notified) => Decision::Refused,
            _ => Decision::Registered(self.insert_and_notify(entry, found, notified).0, found.at),
        }
    }

    /// Puts an entry in and notified the workers that can help it; says whether there was one.
    fn insert_and_notify(
        &mut self,
        mut entry: Arc<Entry>,
        found: &SearchResult,
        notified: &mut Vec<Arc<Entry>>,
    ) -> (Arc<Entry>, bool) {
        Arc::get_mut(&mut entry).expect("it is in no list yet").until = found.at;
        self.insert(&entry);
        let before = notified.len();
        self.notify_helpers(&entry, found, notified);
        (entry, notified.len() > before)
    }

    /// Follows what `target` needs, for a worker of `own`.
    fn search(&self, target: &Arc<dyn Awaited>, own: Option<PoolId>) -> SearchResult {
        self.search_in(target, own, Reach::WaitsOfWorkers)
    }

    fn search_in(&self, target: &Arc<dyn Awaited>, own: Option<PoolId>, reach: Reach) -> SearchResult {
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
                if needs.worker {
                    return SearchResult { help: Some(Arc::clone(target)), pools: BTreeSet::from([pool]), ..found };
                }
                found.at = found.at.into_iter().chain(needs.worker_at).min();
            } else if (needs.worker || needs.worker_at.is_some()) && seen_pools.insert(pool) {
                // It waits for one of these workers, whichever comes first; see rule 3.
                if reach == Reach::WaitsOfWorkers && self.all_asleep(pool) {
                    open.extend(self.asleep_in(pool).map(|entry| &entry.target));
                }
            }
            for (name, _) in needs.ids {
                open.extend(self.blocking(name).map(|entry| &entry.target));
            }
        }
        found.pools = seen_pools;
        found
    }

    /// Calls the workers that can help an entry which was put in just now.
    fn notify_helpers(&self, entry: &Entry, found: &SearchResult, notified: &mut Vec<Arc<Entry>>) {
        // If all of its pool sleep now, one that is too deep to help was waiting for the others.
        let last_of_pool = entry.stack.worker.filter(|pool| self.all_asleep(*pool));
        let mut blocked = entry.stack.names.iter().copied().chain([ANYTHING]);
        let is_awaited = blocked.any(|name| self.waiting_for(name).next().is_some());
        if is_awaited || last_of_pool.is_some() {
            for pool in found.pools.iter().copied().chain(last_of_pool) {
                self.notify_workers_of(pool, Some(entry.id), notified);
            }
        }
    }

    /// Calls the sleeping workers of the pool that can help now, or at a moment to come; but not the entry that is about to
    /// sleep. If there is none, and no worker awake, notified one that is too deep to help: its wait is to be refused.
    fn notify_workers_of(&self, pool: PoolId, except: Option<EntryId>, notified: &mut Vec<Arc<Entry>>) {
        let (mut helpers, mut too_deep) = (Vec::new(), None);
        for entry in self.asleep_in(pool).filter(|entry| Some(entry.id) != except) {
            let found = self.search(&entry.target, Some(pool));
            if entry.is_too_deep() && found.help.is_some() {
                too_deep = too_deep.or(Some(entry).filter(|entry| entry.kind == Kind::Certain));
            } else if found.help.is_some() || found.at.is_some_and(|at| entry.until.is_none_or(|until| at < until)) {
                helpers.push(entry);
            }
        }
        if helpers.is_empty() && self.all_asleep(pool) {
            helpers.extend(too_deep);
        }
        // Only now: a worker that is called is not asleep.
        notified.extend(helpers.into_iter().filter(|entry| entry.mark_notified()).cloned());
    }

    /// Whether a wait that is too deep to help is to be refused, because no other worker of its pool can help. Calls
    /// those that can.
    fn must_refuse(&mut self, entry: &Arc<Entry>, notified: &mut Vec<Arc<Entry>>) -> bool {
        let Some(pool) = entry.stack.worker else { return false };
        let can_help =
            |other: &&Arc<Entry>| !other.is_too_deep() && self.search(&other.target, Some(pool)).help.is_some();
        let helpers: Vec<_> = self.asleep_in(pool).filter(can_help).cloned().collect();
        let has_helper = !helpers.is_empty();
        notified.extend(helpers.into_iter().filter(|helper| helper.mark_notified()));
        self.insert(entry);
        let is_last = self.all_asleep(pool);
        drop(self.remove(entry)); // the caller holds another reference
        is_last && !has_helper && entry.kind == Kind::Certain
    }

    /// The cycle of certain waits that this one would close.
    fn cycle(&self, entry: &Arc<Entry>) -> Option<Cycle> {
        let mut steps = vec![(Arc::clone(entry), 0)];
        let mut seen = BTreeSet::new();
        let mut next = 0;
        while let Some((step, _)) = steps.get(next) {
            let mut needs = Needs::default();
            step.target.report_needs(&mut needs);
            for (name, _) in needs.ids.into_iter().filter(|(_, is_certain)| *is_certain) {
                if entry.stack.names.contains(&name) {
                    return Some(Cycle::new(&steps, next));
                }
                let others = self.blocking(name).filter(|other| other.is_certain() && seen.insert(other.id));
                steps.extend(others.map(|other| (Arc::clone(other), next)));
            }
            next += 1;
        }
        None
    }
}

/// How far a search goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Along what is needed for certain or perhaps.
    OwnWaits,
    /// Also along the waits of workers of which one is needed, if all of them sleep.
    WaitsOfWorkers,
}

/// What a search has found.
#[derive(Default)]
struct SearchResult {
    /// What the worker can help with now.
    help: Option<Arc<dyn Awaited>>,
    /// When it can help, if not now.
    at: Option<Instant>,
    /// The other pools whose workers are needed.
    pools: BTreeSet<PoolId>,
}

/// Waits, each of which holds up the one before; the first closes the cycle.
struct Cycle(Vec<Arc<Entry>>);

impl Cycle {
    /// Goes back from the last step; each step knows the one before.
    fn new(steps: &[(Arc<Entry>, usize)], last: usize) -> Self {
        let mut entries = Vec::new();
        let mut at = last;
        while at > 0 {
            entries.push(Arc::clone(&steps[at].0));
            at = steps[at].1;
        }
        entries.push(Arc::clone(&steps[0].0));
        entries.reverse();
        Self(entries)
    }

    /// Refuses one of the waits, not the one that closes the cycle; gives it out to be woken.
    fn refuse_one(self) -> Option<Arc<Entry>> {
        let refusable = self.0.into_iter().skip(1).find(|entry| entry.kind == Kind::Certain)?;
        // ORDERING: Release pairs with the Acquire of `is_refused`.
        refusable.refused.store(true, Ordering::Release);
        refusable.mark_notified();
        Some(refusable)
    }
}
