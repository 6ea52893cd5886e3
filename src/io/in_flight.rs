//! The futures in flight of one driver, and what snapshots see of them.
//!
//! | a future | listed | next |
//! |---|---|---|
//! | *listed* | from its spawn on | *removed*, when it has ended or was dropped; *taken*, when the pool cancels its tasks |
//! | *taken* | no longer; the thread that cancels the pool's tasks cancels it | none |
//!
//! Races, all under the one lock of the list:
//! - *List and cancel*: the cancellation takes the future, or the future finds the list cancelled and
//!   its submitter cancels it.
//! - *Remove and cancel*: a future that was taken may have ended; its cell decides.
//! - *Copy and any other*: the copy has the future, or does not. No future is dropped under the lock.

use std::collections::BTreeMap;

use super::permits::Permits;
use crate::cancel::token::CancelGuard;
use crate::error::{CancelReason, CycleTask, NamedPool};
use crate::nesting;
use crate::pool::inner::PoolInner;
use crate::pool::sources::Source;
use crate::priority::Priority;
use crate::snapshot::{DriverKind, DriverSnapshot, FutureSnapshot, Holder, PAGE, Page, TaskSnapshot};
use crate::sync::{Arc, Mutex, OnceLock, Weak};
use crate::task::context::{AwaitedId, PoolId};
use crate::task::executor::Executor;
use crate::task::job::{Leftover, Leftovers, Task};
use crate::task::waits;
use crate::time::clock::Timestamp;

/// What a driver and its futures share.
pub(super) struct DriverInner {
    /// What limits the futures.
    pub(super) permits: Arc<Permits>,
    /// The label of the tasks, which observers see.
    pub(super) label: Option<Arc<str>>,
    /// The class in which outputs wait for a worker.
    pub(super) class: Priority,
    /// What the futures are.
    kind: DriverKind,
    /// The pool, whose executor a future must not keep alive.
    pool: (PoolId, Weak<Executor>),
    /// The futures in flight.
    futures: Mutex<State>,
    /// Has the futures cancelled with the pool's other tasks. Set once, at the creation.
    guard: OnceLock<CancelGuard>,
}

/// What the lock guards.
#[derive(Default)]
struct State {
    /// The futures, the oldest first.
    by_key: BTreeMap<u64, Weak<dyn InFlight>>,
    /// The key of the next future.
    next: u64,
    /// Whether the pool cancels its tasks.
    is_cancelled: bool,
}

/// The task of a future in flight, independent of the types of the future.
pub(super) trait InFlight: Task {
    /// Copies the task. `now` is there if times are recorded. If this was the last reference,
    /// returns what is left of the task.
    fn copy(self: Arc<Self>, now: Option<Timestamp>) -> (FutureCopy, Leftover);
}

/// A copy of a future in flight.
pub(super) struct FutureCopy {
    pub(super) task: TaskSnapshot,
    /// Whether it has its run permit.
    pub(super) is_driven: bool,
    /// The id under which the registry of waits knows it.
    pub(super) id: AwaitedId,
}

/// Keeps a future listed until it is dropped.
pub(super) struct Listed {
    driver: Arc<DriverInner>,
    key: u64,
}

impl DriverInner {
    pub(super) fn new(
        pool: &PoolInner,
        permits: Arc<Permits>,
        (label, class, kind): (Option<Arc<str>>, Priority, DriverKind),
    ) -> Arc<Self> {
        let executor = Arc::downgrade(&pool.executor);
        let (futures, guard) = (Mutex::default(), OnceLock::new());
        let inner = Arc::new(Self { permits, label, class, kind, pool: (pool.id(), executor), futures, guard });
        let weak = Arc::downgrade(&inner);
        let guard = pool.executor.cancelling.on_cancel(move || weak.upgrade().into_iter().for_each(|it| it.cancel()));
        let _ = inner.guard.set(guard);
        pool.sources.add(&inner);
        inner
    }

    pub(super) fn kind(&self) -> DriverKind {
        self.kind
    }

    /// Lists the task of a future that is about to be driven. If the pool cancels its tasks, the
    /// task is cancelled at once.
    pub(super) fn list<T: InFlight + 'static>(self: &Arc<Self>, task: &Arc<T>) -> Listed {
        let mut futures = self.futures.lock();
        let (key, is_cancelled) = (futures.next, futures.is_cancelled);
        futures.next += 1;
        if !is_cancelled {
            futures.by_key.insert(key, Arc::downgrade(task) as _);
        }
        drop(futures);
        if is_cancelled {
            let (task, executor) = (Arc::downgrade(task) as Weak<dyn InFlight>, self.pool.1.clone());
            nesting::call_back(move || cancel(&task, &executor));
        }
        Listed { driver: Arc::clone(self), key }
    }

    /// Cancels the futures in flight, each as a callback of its own: the destructors of one may wait
    /// for another one.
    fn cancel(&self) {
        let mut futures = self.futures.lock();
        futures.is_cancelled = true;
        let taken = std::mem::take(&mut futures.by_key);
        drop(futures);
        let callback = |task| {
            let executor = self.pool.1.clone();
            Box::new(move || cancel(&task, &executor)) as Box<dyn FnOnce() + Send>
        };
        nesting::call_all(taken.into_values().map(callback).collect());
    }

    /// Copies the oldest futures. Returns how many there are, too.
    fn copy(&self, leftovers: &mut Leftovers) -> (usize, Vec<FutureCopy>) {
        let futures = self.futures.lock();
        let total = futures.by_key.len();
        let oldest: Vec<Arc<dyn InFlight>> = futures.by_key.values().take(PAGE).filter_map(Weak::upgrade).collect();
        drop(futures);
        let now = self.pool.1.upgrade().and_then(|executor| executor.now_if_timing());
        let copy = |task: Arc<dyn InFlight>| {
            let (copy, leftover) = task.copy(now);
            leftovers.extend(leftover);
            copy
        };
        (total, oldest.into_iter().map(copy).collect())
    }
}

/// Cancels a task whose pool cancels all of its tasks.
fn cancel(task: &Weak<dyn InFlight>, executor: &Weak<Executor>) {
    if let Some((task, executor)) = task.upgrade().zip(executor.upgrade()) {
        task.cancel(CancelReason::ShutDown, &executor);
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let removed = self.driver.futures.lock().by_key.remove(&self.key);
        drop(removed); // without the lock
    }
}

impl Source for DriverInner {
    fn snapshot(&self, leftovers: &mut Leftovers) -> Holder {
        let (total, oldest) = self.copy(leftovers);
        let pool = waits::pool_name(self.pool.0);
        let futures = oldest.into_iter().map(|future| shown(future, &pool)).collect();
        let in_flight = self.permits.taken();
        Holder::Driver(DriverSnapshot {
            label: self.label.clone(),
            kind: self.kind,
            in_flight,
            max_in_flight: self.permits.limit(),
            waiting: total.saturating_sub(in_flight),
            outputs: self.permits.outputs(),
            futures: Page { total, entries: futures },
        })
    }
}

/// Adds to a future what it waits for, as far as the registry of waits knows.
fn shown(FutureCopy { task, is_driven, id }: FutureCopy, pool: &NamedPool) -> FutureSnapshot {
    let mut waits = waits::copy_of_future(id);
    let own = CycleTask::new(task.id, task.label.as_ref(), task.location, pool.clone());
    waits.iter_mut().for_each(|wait| wait.task = Some(own.clone()));
    FutureSnapshot { task, is_driven, waits }
}
