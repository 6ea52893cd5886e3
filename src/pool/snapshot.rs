//! Takes snapshots of a pool.
//!
//! The parts are copied one after the other. The only lock that is held while another one is taken
//! is that of the registry of waits; see the table of locks in `docs/architecture.md`.
//!
//! | step | lock | held for | what may change before the next step |
//! |---|---|---|---|
//! | counters | worker list (read), call sites | all workers | a worker goes to its next task: its row and the counts differ by it |
//! | threads of workers | worker set | all workers | a worker leaves: it is shown once more |
//! | registered waits | registry of waits, and what is awaited | 16 workers, or 64 other waits | a waiter wakes: its task is shown as waiting once more |
//! | listed waits | one shard of the sleepers at a time | the threads of the shard | as above |
//! | queues | none | – | a job starts: it is in the queue and on a worker |
//! | groups | one shard of the group registry for 64 groups, then each group alone | one copy | a task moves from its group to a worker |
//! | drivers, workers of NATS | the list of sources for 64 of them, then the futures of one driver, and the registry of waits for each future | 16 futures | a future ends: it is shown once more |
//! | timers | timers | 16 timers | a timer fires |
//!
//! The verdicts are found in the copy, with no lock held. No user code runs: a group or a future
//! whose last reference is held here is dropped by a thread of its own.

use super::inner::PoolInner;
use super::worker_pool::WorkerPool;
use crate::error::CycleWait;
use crate::observe::task_info::RunningTask;
use crate::priority::Priority;
use crate::queue::QueueState;
use crate::snapshot::{
    Holders, Limits, Page, QueueSnapshot, Snapshot, TaskSnapshot, WaitSnapshot, WorkerSnapshot, since,
};
use crate::sync::{Arc, thread};
use crate::task::context::ThreadId;
use crate::task::job::{Leftovers, TicketHolder};
use crate::task::sleepers;
use crate::task::waits::{self, WaitCopy};
use crate::unwind;

/// # Snapshots
impl WorkerPool {
    /// Returns what the pool does now, and why it does not do more. Print it when a pool seems
    /// stuck.
    ///
    /// It shows what each worker runs or waits for, the queue, groups, keys, subscriptions and
    /// timers, and the threads that wait for the pool. A wait names what it waits for, and what
    /// that waits for. [`Snapshot::verdicts`] says what stands out.
    ///
    /// It can be called at any time and on any thread: in a task, in a hook, in a destructor, after
    /// a shutdown. It waits for no task, runs no user code, and changes nothing. It holds each lock
    /// for a short time only, so the pool goes on meanwhile. Of each kind of entry it copies 16 and
    /// counts the others, so its size does not depend on the number of queued tasks.
    ///
    /// It is [not one instant](Snapshot). It costs nothing until it is called. Then it takes some
    /// microseconds, and more for each worker, group and waiting thread.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// pool.spawn(|| 1)?.join()?;
    /// println!("{}", pool.snapshot());
    /// assert_eq!(pool.snapshot().workers.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.inner().snapshot(self.thread_name().into(), &Limits::DEFAULT)
    }
}

impl PoolInner {
    /// Takes a snapshot of the pool, whose name is given. The limits decide about the verdicts.
    pub(super) fn snapshot(&self, name: Arc<str>, limits: &Limits<'_>) -> Snapshot {
        let tracker = &self.executor.tracker;
        let metrics = tracker.snapshot();
        let (listed, mut waits) = sleepers::copy(self.id());
        let workers = self.copy_workers(listed);
        link(&mut waits, &workers, self.id().number());
        waits.merge(waits::copy_others(self.id()));
        let Holders { groups, keyed, subscriptions, drivers, job_workers } = self.copy_holders();
        let snapshot = Snapshot {
            pool: name,
            is_shut_down: tracker.is_closed(),
            tasks_queued: metrics.tasks_queued,
            tasks_running: metrics.tasks_running,
            verdicts: Vec::new(),
            workers,
            queues: self.copy_queues(),
            waits,
            groups,
            keyed,
            subscriptions,
            drivers,
            job_workers,
            timers: self.timers.snapshot(),
        };
        snapshot.judge(limits)
    }

    fn copy_workers(&self, listed: Vec<WaitCopy>) -> Vec<WorkerSnapshot> {
        let mut running = self.executor.tracker.running();
        let mut waits = waits::copy_workers(self.id());
        waits.extend(listed);
        let copy = |(index, thread): (usize, ThreadId)| {
            let task = running.iter().position(|task| task.worker == index).map(|at| running.swap_remove(at));
            let wait = waits.iter().rposition(|wait| wait.thread == thread).map(|at| waits.swap_remove(at).wait);
            WorkerSnapshot { index, task: task.as_ref().map(task_of), wait }
        };
        let mut workers: Vec<WorkerSnapshot> = self.workers.threads().into_iter().map(copy).collect();
        end_chains(&mut workers, self.id().number());
        workers
    }

    fn copy_queues(&self) -> Vec<QueueSnapshot> {
        let classes = [Priority::High, Priority::Normal, Priority::Background].into_iter();
        let queues = classes.filter_map(|priority| Some((priority, self.queue.state_of(priority)?)));
        let copy = |(priority, state): (Priority, QueueState)| QueueSnapshot {
            priority,
            len: state.len,
            capacity: state.capacity,
            tickets: state.unbounded,
            submitters: state.pushers,
        };
        queues.map(copy).collect()
    }

    fn copy_holders(&self) -> Holders {
        let (mut holders, mut leftovers) = (Holders::default(), Leftovers::new());
        self.groups.for_each(|group| {
            let (holder, leftover) = TicketHolder::snapshot(group);
            leftovers.extend(leftover);
            holders.add(holder);
        });
        #[cfg(feature = "driver")]
        self.sources.for_each(|source| holders.add(source.snapshot(&mut leftovers)));
        if !leftovers.is_empty() {
            drop_elsewhere(leftovers);
        }
        holders
    }
}

/// Drops what is left of groups and futures on a thread of its own, because that is user code.
#[cold]
fn drop_elsewhere(leftovers: Leftovers) {
    let _ = thread::Builder::new().name("workcrew-drop".to_owned()).spawn(move || unwind::discard(leftovers));
}

fn task_of(task: &RunningTask) -> TaskSnapshot {
    TaskSnapshot::new(task.id, task.label.as_ref(), task.location, Some(since(task.since)))
}

/// Finds which worker runs the last target of each wait of a worker.
fn end_chains(workers: &mut [WorkerSnapshot], pool: u64) {
    for at in 0..workers.len() {
        let Some(last) = workers[at].wait.as_ref().and_then(|wait| wait.last_target().task.clone()) else { continue };
        let runs_on = workers
            .iter()
            .find(|worker| worker.wait.is_none() && worker.task.as_ref().is_some_and(|task| last.is_of(pool, task.id)));
        let runs_on = runs_on.map(|worker| worker.index);
        if let Some(wait) = &mut workers[at].wait {
            wait.runs_on = runs_on;
        }
    }
}

/// Appends to each wait what the task that it waits for waits for.
fn link(waits: &mut Page<WaitSnapshot>, workers: &[WorkerSnapshot], pool: u64) {
    for wait in &mut waits.entries {
        let Some(target) = &wait.target.task else { continue };
        let runs = |worker: &&WorkerSnapshot| worker.task.as_ref().is_some_and(|task| target.is_of(pool, task.id));
        let Some(worker) = workers.iter().find(runs) else { continue };
        match &worker.wait {
            None => wait.runs_on = Some(worker.index),
            Some(next) => {
                wait.then.push(CycleWait::new(next.task.clone(), next.target.clone()));
                wait.then.extend(next.then.iter().cloned());
                wait.runs_on = next.runs_on;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::sync::{Thread, current_thread};

    /// Fault 571.
    #[test]
    fn what_is_left_of_a_group_is_dropped_on_another_thread() {
        struct OnDrop(Sender<bool>, Thread);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                let is_here = current_thread().id() == self.1.id();
                self.0.send(is_here).expect("the test waits");
            }
        }
        let (dropped, drops) = channel();
        drop_elsewhere(vec![Box::new(OnDrop(dropped, current_thread()))]);
        assert!(!drops.recv().expect("it is dropped"));
    }
}
