//! The waits that are not in the registry of waits, for snapshots: those of threads without tasks
//! on their stacks, and those with a time limit.
//!
//! A thread lists its wait when it is about to sleep, after it has spun, and removes it when it
//! wakes. Such a wait blocks no other wait for good, so nothing searches this list. Beside the
//! sleep, which takes microseconds, it costs about a tenth of one, and no allocation unless many
//! threads sleep.
//!
//! The list is hidden from model checkers: no thread waits for a change of it.

use std::cmp::Reverse;
use std::time::Instant;

use super::context::{self, PoolId, ThreadId};
use super::waits::{WaitCopy, pool_name};
use crate::error::{CycleTarget, CycleTask};
use crate::observe::task_info::RunningTask;
use crate::snapshot::{Page, WaitSnapshot};
use crate::sync::{self, CachePadded, HiddenMutex, Thread, current_thread};
use crate::time::deadline::Deadline;

/// The number of shards. Threads that use different shards do not contend.
const SHARDS: usize = 16;

/// The number of sleepers of a shard that take no allocation.
const FEW: usize = 4;

/// The threads that sleep.
static SLEEPERS: [CachePadded<HiddenMutex<Shard>>; SHARDS] =
    [const { CachePadded(HiddenMutex::new(Shard::new())) }; SHARDS];

/// Some of the threads that sleep.
struct Shard {
    few: [Option<Sleeper>; FEW],
    more: Vec<Sleeper>,
    /// The number of the next sleeper.
    next: u64,
}

/// A thread that sleeps.
#[derive(Clone)]
struct Sleeper {
    /// Tells it from others of its shard.
    number: u64,
    thread: Thread,
    id: ThreadId,
    /// The task that waits, and the pool whose worker the thread is.
    task: Option<(RunningTask, PoolId)>,
    /// What it waits for, without the name of its pool.
    target: CycleTarget,
    /// The pool of the target.
    pool: PoolId,
    is_timed: bool,
    since: Instant,
}

/// Lists a thread that is about to sleep.
pub(crate) type List<'a> = &'a dyn Fn() -> Listed;

/// Keeps a thread listed until it is dropped, by that thread.
#[must_use = "a guard that is dropped removes the thread from the list"]
pub(crate) struct Listed {
    shard: usize,
    number: u64,
}

/// Lists this thread, which is about to sleep until `target` ends or the deadline has passed.
///
/// May be called with locks held. A thread that sleeps within its own wait, because it helps, lists
/// both waits.
#[cold]
pub(crate) fn list(target: CycleTarget, pool: PoolId, deadline: Deadline) -> Listed {
    let is_timed = deadline != Deadline::NEVER;
    let id = context::thread_id();
    let task = if context::depth() == 0 { None } else { context::current_task() };
    let task = task.zip(context::worker_pool());
    let since = sync::now();
    let mut sleeper = Sleeper { number: 0, thread: current_thread(), id, task, target, pool, is_timed, since };
    let shard = id.number() as usize / 2 % SHARDS;
    let mut sleepers = SLEEPERS[shard].0.lock();
    let number = sleepers.next;
    sleeper.number = number;
    sleepers.next += 1;
    sleepers.insert(sleeper);
    Listed { shard, number }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let sleeper = SLEEPERS[self.shard].0.lock().remove(self.number);
        drop(sleeper); // without the lock
    }
}

impl Shard {
    const fn new() -> Self {
        Self { few: [const { None }; FEW], more: Vec::new(), next: 0 }
    }

    fn insert(&mut self, sleeper: Sleeper) {
        match self.few.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(sleeper),
            None => self.more.push(sleeper),
        }
    }

    fn remove(&mut self, number: u64) -> Option<Sleeper> {
        let few = self.few.iter_mut().find(|place| place.as_ref().is_some_and(|sleeper| sleeper.number == number));
        if let Some(place) = few {
            return place.take();
        }
        let place = self.more.iter().position(|sleeper| sleeper.number == number)?;
        Some(self.more.swap_remove(place))
    }

    fn iter(&self) -> impl Iterator<Item = &Sleeper> {
        self.few.iter().flatten().chain(&self.more)
    }
}

/// Copies the sleepers that are workers of a pool, and the longest of the other waits for something
/// of that pool.
pub(crate) fn copy(pool: PoolId) -> (Vec<WaitCopy>, Page<WaitSnapshot>) {
    let (mut workers, mut others) = (Vec::new(), Page::new());
    for shard in &SLEEPERS {
        for sleeper in shard.0.lock().iter() {
            if sleeper.task.as_ref().is_some_and(|(_, own)| *own == pool) {
                workers.push(sleeper.clone());
            } else if sleeper.pool == pool {
                others.push_by_rank(sleeper.clone(), |sleeper: &Sleeper| Reverse(sleeper.since));
            }
        }
    }
    let mut page = Page::new();
    page.total = others.total;
    page.entries = others.entries.into_iter().map(|sleeper| sleeper.into_copy(false).wait).collect();
    (workers.into_iter().map(|sleeper| sleeper.into_copy(true)).collect(), page)
}

impl Sleeper {
    fn into_copy(self, is_worker: bool) -> WaitCopy {
        let Self { thread, id, task, target, pool, is_timed, since, .. } = self;
        let task = task.map(|(task, own)| CycleTask::new(task.id, task.label.as_ref(), task.location, pool_name(own)));
        let mut wait = WaitSnapshot::new(task, target.of_pool(pool_name(pool)), since);
        wait.thread = thread.name().filter(|_| !is_worker).map(str::to_owned);
        wait.is_timed = is_timed;
        WaitCopy { thread: id, wait }
    }
}
