//! The registry of waits: entering, leaving, and the searches along chains of waits.
//!
//! Everything here runs under the one lock of the registry or without any; see the rules of `waits`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::task::Waker;
use std::time::Instant;

use super::{Awaited, Kind, Needs};
use crate::local::{self, Name, Stack};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, Serial, process_wide};
use crate::unwind;

/// Orders entries of one name.
type Number = u64;

/// A wait in the registry.
pub(super) struct Entry {
    number: Number,
    target: Arc<dyn Awaited>,
    kind: Kind,
    /// What the wait holds up.
    stack: Stack,
    /// The waiter is to look again.
    called: AtomicBool,
    /// The wait is to end with an error. Set before `called`.
    refused: AtomicBool,
    /// Wakes the waiter, if that is a future; else its target does.
    waker: Option<Waker>,
}

impl Entry {
    pub(super) fn new(target: Arc<dyn Awaited>, kind: Kind, stack: Stack, waker: Option<Waker>) -> Arc<Self> {
        static NUMBERS: Serial = Serial::new();
        let (called, refused) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { number: NUMBERS.next(), target, kind, stack, called, refused, waker })
    }

    pub(super) fn is_called(&self) -> bool {
        // ORDERING: the sleeper looks under the lock that `wake` takes after the flag was set; see "call and sleep".
        self.called.load(Ordering::Acquire)
    }

    pub(super) fn is_refused(&self) -> bool {
        // ORDERING: Acquire pairs with the Release of `resolve`.
        self.refused.load(Ordering::Acquire)
    }

    /// Marks the entry as called; says whether it was not yet, so that the caller is to [`wake`](Self::wake) it.
    fn call(&self) -> bool {
        // ORDERING: Release pairs with the Acquire of `is_called`.
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
    let mut registry = REGISTRY.lock();
    let mut calls = Vec::new();
    if entry.kind != Kind::Open
        && let Some(cycle) = registry.cycle(&entry)
    {
        if entry.kind == Kind::Certain {
            drop(registry);
            return Verdict::Refused;
        }
        calls.extend(cycle.resolve());
    }
    let found = registry.search(&entry.target, entry.stack.worker);
    let is_deep = entry.stack.depth >= local::HELP_DEPTH;
    let mut help = found.help.is_some();
    if help && !is_deep {
        drop(registry);
        calls.iter().for_each(|call: &Arc<Entry>| call.wake());
        return Verdict::Help(found.help.expect("it was looked at"));
    }
    registry.put(&entry);
    registry.call_helpers(&entry, &found, &mut calls);
    // The last worker of its pool that might have helped must not.
    help = help && calls.is_empty() && entry.kind == Kind::Certain;
    let is_refused = help && entry.stack.worker.is_some_and(|pool| registry.all_asleep(pool));
    if is_refused {
        registry.take_out(&entry);
    }
    drop(registry);
    calls.iter().for_each(|call| call.wake());
    if is_refused { Verdict::Refused } else { Verdict::Entered(entry, found.at) }
}

/// Takes a wait out of the registry.
pub(super) fn leave(entry: &Arc<Entry>) {
    let removed = REGISTRY.lock().take_out(entry);
    drop(removed); // not under the lock
}

/// What is waited for by this name may need a worker of `pool` now, or at a moment to come.
#[cfg(any(feature = "retry", feature = "io"))]
pub(crate) fn changed(name: Name, pool: Name) {
    let mut calls = Vec::new();
    let registry = REGISTRY.lock();
    if registry.waits_for(name).next().is_some() {
        registry.call_workers_of(pool, None, &mut calls);
    }
    drop(registry);
    calls.iter().for_each(|call| call.wake());
}

/// A worker of the pool begins.
pub(crate) fn count_worker(pool: Name) {
    *REGISTRY.lock().workers.entry(pool).or_insert(0) += 1;
}

/// A worker of the pool has ended.
pub(crate) fn discount_worker(pool: Name) {
    let workers = &mut REGISTRY.lock().workers;
    if let Some(count) = workers.get_mut(&pool) {
        *count -= 1;
        if *count == 0 {
            workers.remove(&pool);
        }
    }
}

/// Entries by a name.
type Index = BTreeMap<(Name, Number), Arc<Entry>>;

/// All numbers of one name.
fn all_of(name: Name) -> RangeInclusive<(Name, Number)> {
    (name, 0)..=(name, Number::MAX)
}

/// What the lock guards.
struct Registry {
    /// Entries by each task, group and pool that they hold up.
    by_held_up: Index,
    /// Entries by what they wait for.
    by_target: Index,
    /// Entries of workers, by their pool.
    by_pool: Index,
    /// How many workers each pool has.
    workers: BTreeMap<Name, usize>,
}

impl Registry {
    const fn new() -> Self {
        Self { by_held_up: Index::new(), by_target: Index::new(), by_pool: Index::new(), workers: BTreeMap::new() }
    }

    fn put(&mut self, entry: &Arc<Entry>) {
        for name in &entry.stack.names {
            self.by_held_up.insert((*name, entry.number), Arc::clone(entry));
        }
        self.by_target.insert((entry.target.name(), entry.number), Arc::clone(entry));
        if let Some(pool) = entry.stack.worker {
            self.by_pool.insert((pool, entry.number), Arc::clone(entry));
        }
    }

    /// Takes an entry out; what it returns is dropped without the lock.
    fn take_out(&mut self, entry: &Arc<Entry>) -> Option<Arc<Entry>> {
        for name in &entry.stack.names {
            self.by_held_up.remove(&(*name, entry.number));
        }
        if let Some(pool) = entry.stack.worker {
            self.by_pool.remove(&(pool, entry.number));
        }
        self.by_target.remove(&(entry.target.name(), entry.number))
    }

    /// Entries that hold up what has this name.
    fn hold_up(&self, name: Name) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_held_up.range(all_of(name)).map(|(_, entry)| entry)
    }

    /// Entries that wait for what has this name.
    fn waits_for(&self, name: Name) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_target.range(all_of(name)).map(|(_, entry)| entry)
    }

    /// Entries of workers of the pool that nobody has called.
    fn asleep_in(&self, pool: Name) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_pool.range(all_of(pool)).map(|(_, entry)| entry).filter(|entry| !entry.is_called())
    }

    /// Whether each worker of the pool waits in the registry.
    fn all_asleep(&self, pool: Name) -> bool {
        let workers = self.workers.get(&pool).copied().unwrap_or(usize::MAX);
        let threads: BTreeSet<Name> = self.asleep_in(pool).map(|entry| entry.stack.thread).collect();
        threads.len() >= workers
    }

    /// Follows what `target` needs, for a worker of `own`.
    fn search(&self, target: &Arc<dyn Awaited>, own: Option<Name>) -> Found {
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
                if self.all_asleep(pool) {
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
    fn call_helpers(&self, entry: &Entry, found: &Found, calls: &mut Vec<Arc<Entry>>) {
        let last_of_pool = entry.stack.worker.filter(|pool| self.all_asleep(*pool));
        if let Some(pool) = last_of_pool {
            // Those whose stack is too deep to help were waiting for the others.
            let deep = self.asleep_in(pool).filter(|other| other.stack.depth >= local::HELP_DEPTH);
            let others = deep.filter(|other| other.number != entry.number);
            calls.extend(others.filter(|other| other.call()).map(Arc::clone));
        }
        let is_awaited = entry.stack.names.iter().any(|name| self.waits_for(*name).next().is_some());
        if is_awaited || last_of_pool.is_some() {
            for pool in &found.pools {
                self.call_workers_of(*pool, Some(entry), calls);
            }
        }
    }

    /// Calls the sleeping workers of the pool that can help now, or at a moment to come.
    fn call_workers_of(&self, pool: Name, but: Option<&Entry>, calls: &mut Vec<Arc<Entry>>) {
        let others = self.asleep_in(pool).filter(|entry| but.is_none_or(|but| but.number != entry.number));
        let workers: Vec<_> = others.collect();
        for entry in workers {
            let found = self.search(&entry.target, Some(pool));
            let helps = found.help.is_some() && entry.stack.depth < local::HELP_DEPTH || found.at.is_some();
            if helps && entry.call() {
                calls.push(Arc::clone(entry));
            }
        }
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

/// What a search has found.
#[derive(Default)]
struct Found {
    /// What the worker can help with now.
    help: Option<Arc<dyn Awaited>>,
    /// When it can help, if not now.
    at: Option<Instant>,
    /// The other pools whose workers are needed.
    pools: BTreeSet<Name>,
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
