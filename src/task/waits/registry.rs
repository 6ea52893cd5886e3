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
type Number = u64;

/// A wait in the registry.
pub(super) struct Entry {
    number: Number,
    target: Arc<dyn Awaited>,
    /// The names by which it is found as a wait for what they name.
    targets: Vec<AwaitedId>,
    kind: Kind,
    /// What the wait holds up.
    stack: Stack,
    /// When it has something to do without a call. Set before it is put in.
    until: Option<Instant>,
    /// The waiter is to look again.
    called: AtomicBool,
    /// The wait is to end with an error. Set before `called`.
    refused: AtomicBool,
    /// Wakes the waiter, if that is a future; else its target does.
    waker: Option<Waker>,
}

impl Entry {
    pub(super) fn new(target: Arc<dyn Awaited>, kind: Kind, stack: Stack, waker: Option<Waker>) -> Arc<Self> {
        static NUMBERS: IdGenerator = IdGenerator::new();
        let (called, refused) = (AtomicBool::new(false), AtomicBool::new(false));
        let targets = iter::once(target.name()).chain(target.also()).collect();
        Arc::new(Self { number: NUMBERS.next(), target, targets, kind, stack, until: None, called, refused, waker })
    }

    pub(super) fn is_called(&self) -> bool {
        // ORDERING: Acquire pairs with the AcqRel of `call`. The sleeper looks under the lock that `wake` takes after the
        // flag was set, or announces itself under it before it looks; see "call and sleep".
        self.called.load(Ordering::Acquire)
    }

    pub(super) fn is_refused(&self) -> bool {
        // ORDERING: Acquire pairs with the Release of `resolve`.
        self.refused.load(Ordering::Acquire)
    }

    /// Marks the entry as called; says whether it was not yet, so that the caller is to [`wake`](Self::wake) it.
    fn call(&self) -> bool {
        // ORDERING: see `is_called`.
        !self.called.swap(true, Ordering::AcqRel)
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
    fn is_deep(&self) -> bool {
        self.stack.depth >= context::MAX_HELP_DEPTH
    }

    /// Whether it can only end with its target.
    fn is_certain(&self) -> bool {
        self.kind != Kind::Open && !self.is_refused()
    }
}

/// What becomes of a wait that is entered.
pub(super) enum Verdict {
    /// It was not entered: its thread can help with that.
    Help(Arc<dyn Awaited>),
    /// It is in the registry, and has something to do at that moment, if any.
    Entered(Arc<Entry>, Option<Instant>),
    /// It was not entered: it would close a cycle.
    Refused,
}

process_wide! {
    /// All waits that hold up something.
    static REGISTRY: Mutex<Registry> = Mutex::new(Registry::new());
}

/// Enters a wait, unless its thread can help or it would close a cycle, and calls waiters that can help it.
pub(super) fn enter(entry: Arc<Entry>) -> Verdict {
    let mut calls: Vec<Arc<Entry>> = Vec::new();
    let mut registry = REGISTRY.lock();
    if entry.kind != Kind::Open
        && let Some(cycle) = registry.cycle(&entry)
    {
        if entry.kind == Kind::Certain {
            drop(registry);
            return Verdict::Refused;
        }
        calls.extend(cycle.resolve()); // which drops what the cycle holds of this entry
    }
    let (verdict, unused) = registry.decide(entry, &mut calls);
    drop(registry);
    drop(unused); // not under the lock: a waker is user code
    calls.iter().for_each(|call| call.wake());
    verdict
}

/// Takes a wait out of the registry.
pub(super) fn leave(entry: &Arc<Entry>) {
    let removed = REGISTRY.lock().take_out(entry);
    drop(removed); // not under the lock
}

/// What is waited for by this name may need a worker of `pool` now, or at a moment to come.
#[cfg(any(feature = "retry", feature = "driver"))]
pub(crate) fn changed(name: AwaitedId, pool: PoolId) {
    let mut calls = Vec::new();
    let registry = REGISTRY.lock();
    if registry.waits_for(name).next().is_some() {
        registry.call_workers_of(pool, None, Reach::WaitsOfWorkers, &mut calls);
    }
    drop(registry);
    calls.iter().for_each(|call| call.wake());
}

/// A worker of the pool begins.
pub(crate) fn count_worker(pool: PoolId) {
    *REGISTRY.lock().workers.entry(pool).or_insert(0) += 1;
}

/// A worker of the pool has ended.
pub(crate) fn discount_worker(pool: PoolId) {
    let workers = &mut REGISTRY.lock().workers;
    if let Some(count) = workers.get_mut(&pool) {
        *count -= 1;
        if *count == 0 {
            workers.remove(&pool);
        }
    }
}

/// Entries by a key, such as what they wait for.
type Index<K> = BTreeMap<(K, Number), Arc<Entry>>;

/// All numbers of one key.
fn all_of<K: Copy>(key: K) -> RangeInclusive<(K, Number)> {
    (key, 0)..=(key, Number::MAX)
}

/// What the lock guards.
struct Registry {
    /// Entries by each task, group and pool that they hold up.
    by_held_up: Index<AwaitedId>,
    /// Entries by what they wait for.
    by_target: Index<AwaitedId>,
    /// Entries of workers, by their pool.
    by_pool: Index<PoolId>,
    /// How many workers each pool has.
    workers: BTreeMap<PoolId, usize>,
}

impl Registry {
    const fn new() -> Self {
        Self { by_held_up: Index::new(), by_target: Index::new(), by_pool: Index::new(), workers: BTreeMap::new() }
    }

    fn put(&mut self, entry: &Arc<Entry>) {
        for name in &entry.stack.names {
            self.by_held_up.insert((*name, entry.number), Arc::clone(entry));
        }
        for name in &entry.targets {
            self.by_target.insert((*name, entry.number), Arc::clone(entry));
        }
        if let Some(pool) = entry.stack.worker {
            self.by_pool.insert((pool, entry.number), Arc::clone(entry));
        }
    }

    /// Takes an entry out, of which the caller has a reference; what it returns is dropped without the lock.
    fn take_out(&mut self, entry: &Arc<Entry>) -> Option<Arc<Entry>> {
        for name in &entry.stack.names {
            self.by_held_up.remove(&(*name, entry.number));
        }
        if let Some(pool) = entry.stack.worker {
            self.by_pool.remove(&(pool, entry.number));
        }
        entry.targets.iter().filter_map(|name| self.by_target.remove(&(*name, entry.number))).last()
    }

    /// Entries that hold up what has this name.
    fn hold_up(&self, name: AwaitedId) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_held_up.range(all_of(name)).map(|(_, entry)| entry)
    }

    /// Entries that wait for what has this name.
    fn waits_for(&self, name: AwaitedId) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_target.range(all_of(name)).map(|(_, entry)| entry)
    }

    /// Entries of workers of the pool that were not called.
    fn asleep_in(&self, pool: PoolId) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_pool.range(all_of(pool)).map(|(_, entry)| entry).filter(|entry| !entry.is_called())
    }

    /// Whether each worker of the pool waits in the registry.
    fn all_asleep(&self, pool: PoolId) -> bool {
        let workers = self.workers.get(&pool).copied().unwrap_or(usize::MAX);
        let threads: BTreeSet<ThreadId> = self.asleep_in(pool).map(|entry| entry.stack.thread).collect();
        threads.len() >= workers
    }

    /// Finds help for a wait, or puts it in and calls waiters that can help it.
    ///
    /// A worker that can help directly comes first, because help through the waits of other workers
    /// may run a task that keeps this thread for long. Only workers that can help directly are
    /// called for that, so two workers never call each other in turns.
    ///
    /// Returns the entry too if it was not put in. The caller drops it without the lock.
    fn decide(&mut self, entry: Arc<Entry>, calls: &mut Vec<Arc<Entry>>) -> (Verdict, Option<Arc<Entry>>) {
        let direct = self.search_within(&entry.target, entry.stack.worker, Reach::OwnWaits);
        if direct.help.is_some() || direct.pools.is_empty() {
            return self.decide_by(entry, &direct, calls);
        }
        let (entry, has_called) = self.put_and_call(entry, &direct, Reach::OwnWaits, calls);
        if has_called {
            return (Verdict::Entered(entry, direct.at), None);
        }
        drop(self.take_out(&entry)); // this is another reference
        let found = self.search_within(&entry.target, entry.stack.worker, Reach::WaitsOfWorkers);
        self.decide_by(entry, &found, calls)
    }

    fn decide_by(
        &mut self,
        entry: Arc<Entry>,
        found: &Found,
        calls: &mut Vec<Arc<Entry>>,
    ) -> (Verdict, Option<Arc<Entry>>) {
        match &found.help {
            Some(help) if !entry.is_deep() => (Verdict::Help(Arc::clone(help)), Some(entry)),
            Some(_) if self.must_refuse(&entry, calls) => (Verdict::Refused, Some(entry)),
            _ => {
                let (entry, _) = self.put_and_call(entry, found, Reach::WaitsOfWorkers, calls);
                (Verdict::Entered(entry, found.at), None)
            }
        }
    }

    /// Puts an entry in and calls the workers that can help it; says whether there was one.
    fn put_and_call(
        &mut self,
        mut entry: Arc<Entry>,
        found: &Found,
        reach: Reach,
        calls: &mut Vec<Arc<Entry>>,
    ) -> (Arc<Entry>, bool) {
        Arc::get_mut(&mut entry).expect("it is in no list yet").until = found.at;
        self.put(&entry);
        let before = calls.len();
        self.call_helpers(&entry, found, reach, calls);
        (entry, calls.len() > before)
    }

    /// Follows what `target` needs, for a worker of `own`.
    fn search_within(&self, target: &Arc<dyn Awaited>, own: Option<PoolId>, reach: Reach) -> Found {
        let mut found = Found::default();
        let (mut seen, mut seen_pools) = (BTreeSet::new(), BTreeSet::new());
        let mut open = vec![target];
        while let Some(target) = open.pop() {
            if !seen.insert(target.name()) {
                continue;
            }
            let mut needs = Needs::default();
            target.look(&mut needs);
            let pool = target.pool();
            if own == Some(pool) {
                if needs.worker {
                    return Found { help: Some(Arc::clone(target)), pools: BTreeSet::from([pool]), ..found };
                }
                found.at = found.at.into_iter().chain(needs.worker_at).min();
            } else if (needs.worker || needs.worker_at.is_some()) && seen_pools.insert(pool) {
                // It waits for one of these workers, whichever comes first; see rule 3.
                if reach == Reach::WaitsOfWorkers && self.all_asleep(pool) {
                    open.extend(self.asleep_in(pool).map(|entry| &entry.target));
                }
            }
            for (name, _) in needs.names {
                open.extend(self.hold_up(name).map(|entry| &entry.target));
            }
        }
        found.pools = seen_pools;
        found
    }

    /// Calls the workers that can help an entry which was put in just now.
    fn call_helpers(&self, entry: &Entry, found: &Found, reach: Reach, calls: &mut Vec<Arc<Entry>>) {
        // If all of its pool sleep now, one that is too deep to help was waiting for the others.
        let last_of_pool = entry.stack.worker.filter(|pool| self.all_asleep(*pool));
        let mut held_up = entry.stack.names.iter().copied().chain([ANYTHING]);
        let is_awaited = held_up.any(|name| self.waits_for(name).next().is_some());
        if is_awaited || last_of_pool.is_some() {
            for pool in found.pools.iter().copied().chain(last_of_pool) {
                self.call_workers_of(pool, Some(entry.number), reach, calls);
            }
        }
    }

    /// Calls the sleeping workers of the pool that can help within `reach`, now or at a later moment,
    /// except the entry that is about to sleep. If there is none in the full reach, and no worker is
    /// awake, calls one that is too deep to help: its wait is to be refused.
    fn call_workers_of(&self, pool: PoolId, except: Option<Number>, reach: Reach, calls: &mut Vec<Arc<Entry>>) {
        let (mut helpers, mut too_deep) = (Vec::new(), None);
        for entry in self.asleep_in(pool).filter(|entry| Some(entry.number) != except) {
            let found = self.search_within(&entry.target, Some(pool), reach);
            if entry.is_deep() && found.help.is_some() {
                too_deep = too_deep.or(Some(entry).filter(|entry| entry.kind == Kind::Certain));
            } else if found.help.is_some() || found.at.is_some_and(|at| entry.until.is_none_or(|until| at < until)) {
                helpers.push(entry);
            }
        }
        if reach == Reach::WaitsOfWorkers && helpers.is_empty() && self.all_asleep(pool) {
            helpers.extend(too_deep);
        }
        // Only now: a worker that is called is not asleep.
        calls.extend(helpers.into_iter().filter(|entry| entry.call()).cloned());
    }

    /// Whether a wait that is too deep to help is to be refused, because no other worker of its pool can help. Calls
    /// those that can.
    fn must_refuse(&mut self, entry: &Arc<Entry>, calls: &mut Vec<Arc<Entry>>) -> bool {
        let Some(pool) = entry.stack.worker else { return false };
        let search = |other: &Arc<Entry>| self.search_within(&other.target, Some(pool), Reach::WaitsOfWorkers);
        let can_help = |other: &&Arc<Entry>| !other.is_deep() && search(other).help.is_some();
        let helpers: Vec<_> = self.asleep_in(pool).filter(can_help).cloned().collect();
        let is_called = !helpers.is_empty();
        calls.extend(helpers.into_iter().filter(|helper| helper.call()));
        self.put(entry);
        let is_last = self.all_asleep(pool);
        drop(self.take_out(entry)); // the caller holds another reference
        is_last && !is_called && entry.kind == Kind::Certain
    }

    /// The cycle of certain waits that this one would close.
    fn cycle(&self, entry: &Arc<Entry>) -> Option<Cycle> {
        let mut steps = vec![(Arc::clone(entry), 0)];
        let mut seen = BTreeSet::new();
        let mut next = 0;
        while let Some((step, _)) = steps.get(next) {
            let mut needs = Needs::default();
            step.target.look(&mut needs);
            for (name, _) in needs.names.into_iter().filter(|(_, is_certain)| *is_certain) {
                if entry.stack.names.contains(&name) {
                    return Some(Cycle::new(&steps, next));
                }
                let others = self.hold_up(name).filter(|other| other.is_certain() && seen.insert(other.number));
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
struct Found {
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
    fn resolve(self) -> Option<Arc<Entry>> {
        let refusable = self.0.into_iter().skip(1).find(|entry| entry.kind == Kind::Certain)?;
        // ORDERING: Release pairs with the Acquire of `is_refused`.
        refusable.refused.store(true, Ordering::Release);
        refusable.call();
        Some(refusable)
    }
}
